"""AP with and without NMS of hand-made candidates whose answers are known."""

import json

import pytest
import torch
import torch.multiprocessing as mp
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import DatasetEvaluators, inference_on_dataset
from torch import nn

from la_det.data.crowdhuman import register_crowdhuman
from la_det.evaluation import COCOEvaluator, CrowdHumanEvaluator
from la_det.evaluation.duplicates import objects_of
from la_det.evaluation.nms_gap import NMSGapEvaluator, variant_inference
from la_det.modeling.inference import Candidates, DenseInference, to_instances

SIZE = 100
FIRST, SECOND = [10, 10, 50, 50], [60, 60, 100, 100]  # two medium objects apart
# A duplicate of the first object ranks between the two.
CANDIDATES = [(FIRST, 0.9), ([10, 10, 50, 42], 0.8), (SECOND, 0.7)]
IOU_OF_DUPLICATE = 0.8
# COCO: precision 1 at the 51 recalls up to 0.5, and 2 of 3 at the 50 above.
AP_WITHOUT_NMS = 100 * (51 + 50 * 2 / 3) / 101


class FixedInference(DenseInference):
    """A rule that finds the same candidates in every image."""

    def candidates(self, predictions, image_sizes):
        n = len(image_sizes)
        boxes = torch.tensor([box for box, _ in CANDIDATES], dtype=torch.float32).expand(n, -1, -1)
        scores = torch.tensor([score for _, score in CANDIDATES]).expand(n, -1)
        zeros = torch.zeros_like(scores, dtype=torch.int64)
        return Candidates(boxes, scores, zeros, zeros, torch.ones_like(zeros, dtype=torch.bool))


class Detector(nn.Module):
    """Gives its rule's detections at the size of the input, as in `AssignmentDetector`."""

    def __init__(self, **options):
        super().__init__()
        self.inference = FixedInference(**options)
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        sizes = [(x["height"], x["width"]) for x in inputs]
        found = self.inference(None, torch.tensor(sizes))
        return [{"instances": instances} for instances in to_instances(found, sizes, sizes)]


class OtherDetector(nn.Module):
    """Of another project: nothing is known but its detections."""

    def __init__(self):
        super().__init__()
        self.detector = Detector()

    def forward(self, inputs):
        return self.detector(inputs)


def write_coco(folder, annotated=True):
    """Two images with both objects each."""
    images = [{"id": i, "file_name": f"{i}.jpg", "width": SIZE, "height": SIZE} for i in (1, 2)]
    annotations = [
        {"image_id": i, "category_id": 7, "bbox": [x, y, 40, 40], "area": 1600, "iscrowd": 0}
        for i in (1, 2)
        for x, y, _, _ in (FIRST, SECOND)
    ]
    content = {"images": images, "categories": [{"id": 7, "name": "thing"}]}
    if annotated:
        content["annotations"] = [a | {"id": i} for i, a in enumerate(annotations, 1)]
    (folder / "coco.json").write_text(json.dumps(content))
    register_coco_instances("handmade", {}, str(folder / "coco.json"), "images")


def write_crowdhuman(folder):
    """The same images."""
    boxes = [{"tag": "person", "fbox": [x, y, 40, 40]} for x, y, _, _ in (FIRST, SECOND)]
    record = {"height": SIZE, "width": SIZE, "gtboxes": boxes}
    (folder / "gt.odgt").write_text("".join(json.dumps({"ID": str(i)} | record) + "\n" for i in (1, 2)))
    register_crowdhuman("handmade", folder / "gt.odgt", "images")


@pytest.fixture(autouse=True)
def registry():
    yield
    DatasetCatalog.remove("handmade")
    MetadataCatalog.remove("handmade")


def evaluate(model, build=lambda: COCOEvaluator("handmade"), share=slice(None)):
    """As a training does, on this process's share of the images."""
    records = DatasetCatalog.get("handmade")
    with variant_inference(model) as inference:
        evaluator = NMSGapEvaluator(build(), objects_of(records), inference)
        return inference_on_dataset(model, [[r] for r in records[share]], evaluator)


EXPECTED = {
    "AP_without_nms": AP_WITHOUT_NMS,
    "AP_with_nms": 100,
    "gap": 100 - AP_WITHOUT_NMS,
    "duplicates": 1,
    "duplicates_without_nms": 1,
    "duplicates_small": 0,
    "duplicates_medium": 1,
    "duplicates_large": 0,
    "duplicates_apart": 1,
    "duplicates_crowded": 0,
}


@pytest.mark.parametrize(
    ("own_threshold", "own_ap", "duplicates"),
    [(None, AP_WITHOUT_NMS, 1), (0.6, 100, 0), (IOU_OF_DUPLICATE + 0.1, AP_WITHOUT_NMS, 1), (0.5, 100, 0)],
)
def test_coco(tmp_path, own_threshold, own_ap, duplicates):
    write_coco(tmp_path)
    model = Detector(nms_threshold=own_threshold)
    rule = model.inference
    results = evaluate(model)
    assert results["bbox"]["AP"] == pytest.approx(own_ap)
    own = dict.fromkeys(("duplicates", "duplicates_medium", "duplicates_apart"), duplicates)
    assert results["nms_gap"] == pytest.approx(EXPECTED | own)
    assert list(results) == ["bbox", "nms_gap"]
    assert model.calls == 2, "one pass"
    assert model.inference is rule, "the model is as before"


def test_several_evaluators(tmp_path):
    write_coco(tmp_path)
    results = evaluate(Detector(), lambda: DatasetEvaluators([COCOEvaluator("handmade")]))
    assert results["nms_gap"] == pytest.approx(EXPECTED)


def test_an_evaluator_serves_several_models(tmp_path):
    write_coco(tmp_path)
    evaluator = COCOEvaluator("handmade")
    first, second = (evaluate(Detector(nms_threshold=t), lambda: evaluator) for t in (0.6, None))
    assert first["bbox"]["AP"] == pytest.approx(100) and second["bbox"]["AP"] == pytest.approx(AP_WITHOUT_NMS)
    assert second["nms_gap"] == pytest.approx(EXPECTED)


def test_crowdhuman(tmp_path):
    write_crowdhuman(tmp_path)
    results = evaluate(Detector(), lambda: CrowdHumanEvaluator("handmade"))
    # Points (recall, precision) of the six detections, by score: the area under its trapezoids.
    points = [(1 / 4, 1), (2 / 4, 1), (2 / 4, 2 / 3), (2 / 4, 2 / 4), (3 / 4, 3 / 5), (4 / 4, 4 / 6)]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(points, points[1:], strict=False))
    gap = results["nms_gap"]
    assert gap["AP_without_nms"] == results["crowdhuman"]["AP"] == pytest.approx(100 * area)
    assert gap["AP_with_nms"] == pytest.approx(
        100 * 3 / 4
    )  # CrowdHuman's AP leaves out the area before its first point
    assert gap["duplicates"] == gap["duplicates_medium"] == 1


def test_maximum_of_detections_counts_after_nms(tmp_path):
    write_coco(tmp_path)
    gap = evaluate(Detector(max_detections=2))["nms_gap"]
    assert gap["AP_without_nms"] == pytest.approx(100 * 51 / 101) and gap["AP_with_nms"] == pytest.approx(100)


def test_detector_of_another_project_has_duplicates_only(tmp_path):
    write_coco(tmp_path)
    results = evaluate(OtherDetector())
    assert results["bbox"]["AP"] == pytest.approx(AP_WITHOUT_NMS)
    unknown = {"AP_without_nms", "AP_with_nms", "gap", "duplicates_without_nms"}
    assert results["nms_gap"] == {name: value for name, value in EXPECTED.items() if name not in unknown}


def test_data_set_without_annotations(tmp_path):
    write_coco(tmp_path, annotated=False)
    assert evaluate(Detector()) == {}


def test_files_are_of_the_models_own_detections(tmp_path):
    write_coco(tmp_path)
    evaluate(Detector(), lambda: COCOEvaluator("handmade", output_dir=str(tmp_path)))
    assert len(json.loads((tmp_path / "coco_instances_results.json").read_text())) == 2 * len(CANDIDATES)


def evaluate_in_one_of_three(rank, folder):
    """The third process has no image."""
    register_coco_instances("handmade", {}, str(folder / "coco.json"), "images")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3)
    results = evaluate(Detector(), share=slice(rank, rank + 1))
    (folder / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_several_processes_give_the_same(tmp_path):
    write_coco(tmp_path)
    mp.spawn(evaluate_in_one_of_three, (tmp_path,), nprocs=3)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert results[1:] == [{}, {}]
    assert results[0]["nms_gap"] == pytest.approx(EXPECTED)
    assert results[0]["bbox"]["AP"] == pytest.approx(AP_WITHOUT_NMS)
