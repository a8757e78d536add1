"""DATE with TAL as the one-to-many branch, beside POTO. Our combination, not a published one."""

from .date_f import model
from .tal_dual import model as tal_dual

model.head.predictors.one_to_many = tal_dual.head.predictors.one_to_many
model.criteria[1] = tal_dual.criteria[1]
