"""The meta-architecture, registered in Detectron2's META_ARCH_REGISTRY."""

from la_det.modeling.meta_arch.assignment_detector import AssignmentDetector

__all__ = ["AssignmentDetector"]
