import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from detectron2.utils.logger import setup_logger
from PIL import Image


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
    """A folder with `images/`, `train.json` and `val.json`: 64-pixel images of both orientations, two classes.

    One image has no object and one has a crowd region only.
    """
    root = tmp_path_factory.mktemp("tiny_coco")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(12):
        width, height = (64, 48) if i % 3 else (48, 64)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{i}.jpg")
        images.append({"id": i + 1, "file_name": f"{i}.jpg", "width": width, "height": height})
        for _ in range(0 if i == 3 else 1 if i == 5 else 3):
            x, y, w, h = (int(v) for v in (*rng.integers(0, 24, 2), *rng.integers(8, 24, 2)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": int(rng.choice([3, 7])),
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": int(i == 5),
                }
            )
    categories = [{"id": 3, "name": "left"}, {"id": 7, "name": "right"}]
    content = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (root / "train.json").write_text(content)
    (root / "val.json").write_text(content)
    return root
