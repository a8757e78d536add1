import json

import cv2
import numpy as np
import pytest
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
from faster_coco_eval import COCO
from torch import tensor, zeros

from la_det.demo.inputs import Frame, read_frames
from la_det.demo.outputs import Detections, Pictures
from la_det.errors import UserError

METADATA = Metadata(thing_classes=["left", "right"], thing_dataset_id_to_contiguous_id={3: 0, 7: 1})
IMAGE = np.zeros((48, 64, 3), np.uint8)


def found(masks: bool = False, boxes: int = 1) -> Instances:
    instances = Instances(IMAGE.shape[:2], pred_boxes=Boxes(tensor([[8.0, 8.0, 40.0, 40.0]] * boxes)))
    instances.scores, instances.pred_classes = tensor([0.5] * boxes), tensor([1] * boxes)
    if masks:
        instances.pred_masks = zeros(boxes, *IMAGE.shape[:2], dtype=bool)
        instances.pred_masks[:, 8:40, 8:24] = True
    return instances


@pytest.mark.parametrize("masks", [False, True])
def test_detections_are_coco_results(tmp_path, masks):
    detections = Detections(METADATA)
    for number in (None, 4):
        detections.add(Frame(tmp_path / "a.mp4", IMAGE, number), found(masks))
    detections.add(Frame(tmp_path / "b.jpg", IMAGE), found(boxes=0))
    detections.write(tmp_path)
    truth = COCO(str(tmp_path / "images.json"))
    results = truth.loadRes(str(tmp_path / "detections.json"))
    assert [image.get("frame") for image in truth.imgs.values()] == [None, 4, None]
    assert [truth.cats[number]["name"] for number in (3, 7)] == METADATA.thing_classes
    for image in (1, 2):
        (detection,) = results.imgToAnns[image]
        assert detection["category_id"] == 7 and detection["score"] == 0.5
        assert detection["bbox"] == [8, 8, 32, 32]
        assert not masks or results.annToMask(detection).sum() == 32 * 16


def test_without_class_names(tmp_path):
    detections = Detections(Metadata())
    detections.add(Frame(tmp_path / "a.jpg", IMAGE), found())
    with Pictures(tmp_path / "out", [tmp_path / "a.jpg"], Metadata()) as pictures:
        pictures.write(Frame(tmp_path / "a.jpg", IMAGE), found())
    detections.write(tmp_path)
    assert json.loads((tmp_path / "detections.json").read_text())[0]["category_id"] == 1
    assert cv2.imread(str(tmp_path / "out" / "a.jpg")).max() > 0


def test_pictures_of_equal_names_stay_apart(tmp_path):
    files = [tmp_path / name for name in ("a/1.jpg", "b/1.jpg", "b/1.tif", "b/1.PNG")]
    with Pictures(tmp_path / "out", files, METADATA) as pictures:
        for file in files:
            pictures.write(Frame(file, IMAGE), found())
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*")}
    assert written == {"a/1.jpg", "b/1.jpg", "b/1.tif.jpg", "b/1.PNG"}


def test_frames_become_videos(tmp_path):
    files = [tmp_path / "a.mp4", tmp_path / "b.avi"]
    with Pictures(tmp_path / "out", files, METADATA) as pictures:
        for number in range(3):
            pictures.write(Frame(files[0], IMAGE, number, 12.0), found())
        pictures.write(Frame(tmp_path / "between.png", IMAGE), found())
        for number in range(2):
            pictures.write(Frame(files[1], IMAGE, number, 25.0), found(masks=True))
    for name, frames, fps in (("a.mp4", 3, 12.0), ("b.avi.mp4", 2, 25.0)):
        read = list(read_frames(tmp_path / "out" / name))
        assert len(read) == frames and read[0].fps == fps and read[0].image.shape == IMAGE.shape
        assert read[-1].image.max() > 50, "drawn"


def test_inputs_are_not_replaced(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_text("precious")
    with Pictures(tmp_path, [file], METADATA) as pictures, pytest.raises(UserError, match="choose another output"):
        pictures.write(Frame(file, IMAGE), found())
    assert file.read_text() == "precious"
