import json
from pathlib import Path

import numpy as np
import pytest

from la_det.errors import UserError
from la_det.visualization.data_check import check, titles_of

FCOS = "FCOS/fcos_r18_fpn_shapes_tiny"


@pytest.mark.parametrize(
    ("configs", "titles"),
    [
        ([FCOS, "ATSS/atss_r18_fpn_shapes_tiny"], ["fcos", "atss"]),
        ([FCOS, "FCOS/fcos_r50_fpn_shapes"], ["fcos_r18_fpn_shapes_tiny", "fcos_r50_fpn_shapes"]),
        (["runs/a/config.yaml", "runs/b/config.yaml"], ["a", "b"]),
        (["x/a/config.yaml", "y/a/config.yaml"], ["x/a/config.yaml", "y/a/config.yaml"]),
        ([FCOS, FCOS], ["fcos"]),
    ],
)
def test_every_config_has_a_title_of_its_own(configs, titles):
    assert list(titles_of(configs).values()) == titles


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of one image. Its second object is a crowd region."""
    boxes = np.array([[5, 5, 12, 12], [20, 20, 30, 30]]).tolist()
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "iscrowd": i, "area": 1.0}
            for i, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "dot"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path


def test_schemes_of_one_name_have_a_row_each(data, capsys):
    """Sizes and levels are those of the first config with size ranges."""
    configs = ["ATSS/atss_r18_fpn_shapes_tiny", FCOS, "FCOS/fcos_r50_fpn_shapes"]
    check(f"coco:{data},{data}/a.json", configs, 10, data / "out", skip_images=True)
    printed = capsys.readouterr().out
    assert "looked at 1 of 1 objects; sizes and levels are those of fcos_r18_fpn_shapes_tiny" in printed
    assert printed.count(": FCOS ") == 2 and printed.count(": ATSS ") == 1


def test_regions_to_ignore_alone_cannot_be_used(data):
    content = json.loads((data / "a.json").read_text())
    del content["annotations"][0]
    (data / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="a.json: no image has an object"):
        check(f"coco:{data},{data}/a.json", [FCOS], 10, data / "out", skip_images=True)
