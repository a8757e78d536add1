"""OTA: LLA's network and losses with the assignment as optimal transport; detections ranked by class and IoU."""

from detectron2.config import LazyCall as L

from la_det.matchers import OTA
from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.inference import DenseInference
from la_det.structures import Score

from .lla import model

model.criteria[0].update(matcher=L(OTA)(), ignored="background")
model.inference = L(DenseInference)(
    score=L(Score)(gate="quality", square_root=True), candidates=L(TopPairs)(), nms_threshold=0.6
)
