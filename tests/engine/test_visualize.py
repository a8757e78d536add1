import numpy as np
from detectron2.config import LazyCall as L
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from torch import nn, tensor, zeros

from la_det.data.loader import build_test_loader
from la_det.data.mapper import DatasetMapper
from la_det.data.records import load_records
from la_det.engine.visualize import MIN_SIDE, save_predictions


class Constant(nn.Module):
    """Finds one box with a high score and one with a low score in every image."""

    def forward(self, batch):
        boxes = Boxes(tensor([[4.0, 4.0, 20.0, 20.0], [20.0, 4.0, 30.0, 20.0]]))
        classes = zeros(2, dtype=int)
        found = Instances((24, 32), pred_boxes=boxes, scores=tensor([0.9, 0.1]), pred_classes=classes)
        return [{"instances": found} for _ in batch]


def test_picture_shows_truth_beside_detections(tmp_path):
    records = []
    for i in range(3):
        Image.new("RGB", (32, 24)).save(tmp_path / f"{i}.png")
        box = {"bbox": [8, 8, 24, 20], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
        record = {"file_name": str(tmp_path / f"{i}.png"), "image_id": i, "width": 32, "height": 24}
        records.append(record | {"annotations": [box] if i else []})
    DatasetCatalog.register("visualize_test", lambda: records)
    MetadataCatalog.get("visualize_test").thing_classes = ["thing"]
    loader = L(build_test_loader)(
        dataset=L(load_records)(names="visualize_test", filter_empty=False),
        mapper=L(DatasetMapper)(is_train=False, augmentations=[], image_format="RGB"),
    )
    model = Constant().train()
    try:
        save_predictions(model, loader, tmp_path / "out.png", columns=2)
    finally:
        DatasetCatalog.remove("visualize_test")
        MetadataCatalog.remove("visualize_test")
    assert model.training
    picture = np.asarray(Image.open(tmp_path / "out.png"))
    cell_width, cell_height = picture.shape[1] // 2, picture.shape[0] // 2
    assert cell_height >= MIN_SIDE and cell_width >= 2 * MIN_SIDE * 32 // 24
    half = MIN_SIDE * 32 // 24
    truth, detected = picture[:MIN_SIDE, :half], picture[:MIN_SIDE, half : 2 * half]
    assert truth.max() == 0, "the first image has no object"
    assert detected.max() > 0
    assert picture[:MIN_SIDE, cell_width : cell_width + half].max() > 0
