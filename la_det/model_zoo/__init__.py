"""The project's configs by name, as in `detectron2.model_zoo`."""

from la_det.model_zoo.configs import get_config, get_config_file, list_configs

__all__ = ["get_config", "get_config_file", "list_configs"]
