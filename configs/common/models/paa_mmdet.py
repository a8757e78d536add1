"""MMDetection's PAA: MMDetection's ATSS network and another inference; assignment and losses are the original's."""

from detectron2.config import LazyCall as L

from la_det.modeling.candidate_rules import LocationsFirst
from la_det.modeling.inference import DenseInference
from la_det.modeling.score_voting import ScoreVoting
from la_det.structures import Score

from .atss_mmdet import model
from .paa import model as _original

model.criteria = _original.criteria
model.inference = L(DenseInference)(
    score=L(Score)(gate="quality", square_root=True),
    candidates=L(LocationsFirst)(pairs=40000),  # all that are above the threshold vote
    clip=True,
    nms_threshold=0.6,
    voting=L(ScoreVoting)(),
)
