"""Networks, criteria and inference. Importing this package registers the meta-architecture with Detectron2."""

from la_det.modeling.meta_arch import AssignmentDetector

__all__ = ["AssignmentDetector"]
