"""The project's configs, their models and their figures, by name as in `detectron2.model_zoo`."""

from la_det.model_zoo.models import get
from la_det.model_zoo.names import get_config, get_config_file, list
from la_det.model_zoo.records import get_records

__all__ = ["get", "get_config", "get_config_file", "get_records", "list"]
