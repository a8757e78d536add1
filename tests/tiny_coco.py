"""A data set in COCO's format that trains in seconds."""

import json
from pathlib import Path

import numpy as np
from PIL import Image


def write_tiny_coco(root: Path, count: int = 12) -> Path:
    """Fill the folder `root` with `images/`, `train.json` and `val.json`: `count` images of two classes; return it.

    The images have 64 pixels and both orientations. One image has no object and one has a crowd region only.
    """
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(count):
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
