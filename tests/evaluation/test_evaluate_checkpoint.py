import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from la_det.engine import train
from la_det.errors import UserError


@pytest.mark.parametrize(
    ("masks", "files", "classes", "reason"),
    [
        (False, False, 1, "b.json: 1 of its 1 image files are missing"),
        (True, True, 1, r"b.json: annotations\[0\] of image a.png: it has no segmentation"),
        (False, True, 80, "set model.num_classes=1"),
    ],
)
def test_test_sets_are_checked_before_a_model_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masks: bool, files: bool, classes: int, reason: str
) -> None:
    """The training set may be missing."""
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "b.json").write_text(json.dumps(content))
    if files:
        (tmp_path / "a.png").touch()
    test = {"dataset": {"names": [f"coco:{tmp_path},{tmp_path}/b.json"]}}
    training = {"dataset": {"names": "coco:nowhere,nothing.json"}, "mapper": {"use_instance_mask": masks}}
    cfg = OmegaConf.create(
        {
            "model": {"num_classes": classes},
            "train": {"init_checkpoint": "weights.pth", "output_dir": str(tmp_path)},
            "dataloader": {"train": training, "test": test},
        }
    )
    monkeypatch.setattr(train, "load_model", lambda *args: pytest.fail("the model was built"))
    with pytest.raises(UserError, match=reason):
        train.evaluate_checkpoint(cfg)
