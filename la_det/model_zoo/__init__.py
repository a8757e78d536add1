"""The project's configs and models by name, as in `detectron2.model_zoo`."""

from la_det.model_zoo.configs import get_config, get_config_file, list
from la_det.model_zoo.models import get

__all__ = ["get", "get_config", "get_config_file", "list"]
