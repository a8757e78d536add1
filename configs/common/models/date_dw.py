"""DATE with DW, without box refinement, as the one-to-many branch. Our combination, not a published one."""

from la_det.modeling.heads import BranchPredictor

from .date_f import model
from .dw import model as dw

model.head.predictors.one_to_many = dw.head.predictors.main
model.head.predictors.one_to_many._target_ = BranchPredictor
del model.head.predictors.one_to_many.refinement
model.criteria[1] = dw.criteria[0]
model.criteria[1].branch = "one_to_many"
