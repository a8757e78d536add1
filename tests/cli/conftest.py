import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.utils.logger import setup_logger

from tests.tiny_coco import write_tiny_coco


@pytest.fixture(autouse=True)
def fresh_logging() -> Iterator[None]:
    """Let each test's commands log to its own captured streams and output folder."""
    yield
    setup_logger.cache_clear()
    for name in ("detectron2", "fvcore", "la_det"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


@pytest.fixture(scope="session")
def tiny_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `write_tiny_coco`."""
    return write_tiny_coco(tmp_path_factory.mktemp("tiny_coco"))
