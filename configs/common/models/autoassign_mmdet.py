"""MMDetection's AutoAssign: other pixel means, candidates by the class alone, boxes clipped before NMS."""

from detectron2.config import LazyCall as L

from la_det.modeling.candidate_rules import TopPairs
from la_det.modeling.inference import DenseInference

from .autoassign import model

model.pixel_mean = [102.9801, 115.9465, 122.7717]
model.inference = L(DenseInference)(
    candidates=L(TopPairs)(cap=False), use_quality=True, quality_exponent=1.0, clip=True, nms_threshold=0.6
)
