"""DATE with ATSS as the one-to-many branch: its anchors, matcher and losses. Our combination, not a published one."""

from .atss import model as atss
from .date_f import model

model.head.predictors.one_to_many = atss.head.predictors.main
model.criteria[1] = atss.criteria[0]
model.criteria[1].branch = "one_to_many"
