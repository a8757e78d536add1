import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from la_det.data.crowdhuman import register_crowdhuman
from la_det.errors import UserError
from la_det.evaluation.crowdhuman import CrowdHumanEvaluator, read_detections, read_ground_truths, write_detections
from la_det.evaluation.crowdhuman_metrics import Detections, evaluate_crowdhuman

BASIC = Path(__file__).parents[1] / "data/crowdhuman/basic"
DATASET = "crowdhuman_golden_basic"


@pytest.fixture
def dataset() -> None:
    register(BASIC / "gt.odgt")
    yield
    DatasetCatalog.remove(DATASET)
    MetadataCatalog.remove(DATASET)


def register(odgt: Path) -> None:
    register_crowdhuman(DATASET, odgt, "Images")


def outputs(rank: int = 0, world_size: int = 1) -> tuple[list[dict], list[dict]]:
    """The golden detections as a detector returns them, every `world_size`-th image, in an order of their own."""
    inputs, results = [], []
    detections = sorted(read_detections(BASIC / "dt.odgt").items(), reverse=True)
    for image_id, dets in detections[rank::world_size]:
        boxes = torch.from_numpy(np.concatenate((dets.boxes[:, :2], dets.boxes[:, :2] + dets.boxes[:, 2:]), axis=1))
        instances = Instances((1, 1), pred_boxes=Boxes(boxes), scores=torch.from_numpy(dets.scores))
        inputs.append({"image_id": len(inputs), "file_name": f"Images/{image_id}.jpg"})
        results.append({"instances": instances})
    return inputs, results


def expected() -> dict[str, float]:
    golden = json.loads((BASIC / "expected.json").read_text())
    return {"AP": golden["AP"], "mMR": golden["mMR"], "JI": golden["JI_max"], "Recall": golden["Recall"]}


def assert_expected(results: dict) -> None:
    # The detections went through Boxes, which are float32.
    assert list(results) == ["crowdhuman"] and list(results["crowdhuman"]) == ["AP", "mMR", "JI", "Recall"]
    assert results["crowdhuman"] == pytest.approx({key: 100 * value for key, value in expected().items()}, abs=1e-9)


def test_evaluator_returns_percent_and_writes_an_official_file(dataset: None, tmp_path: Path) -> None:
    evaluator = CrowdHumanEvaluator(DATASET, output_dir=str(tmp_path / "new"))
    evaluator.process(*outputs())
    assert_expected(evaluator.evaluate())
    written = read_detections(tmp_path / "new/crowdhuman_detections.odgt")
    result = evaluate_crowdhuman(read_ground_truths(BASIC / "gt.odgt"), written)
    assert result.AP == pytest.approx(expected()["AP"], abs=1e-9)
    evaluator.reset()
    assert evaluator.evaluate()["crowdhuman"]["mMR"] == 100


def test_evaluator_keeps_double_precision(dataset: None) -> None:
    image_id = read_ground_truths(BASIC / "gt.odgt")[0].image_id
    evaluator = CrowdHumanEvaluator(DATASET)
    instances = Instances((1, 1), pred_boxes=Boxes([[0.1, 0.2, 100.3, 50.4]]), scores=torch.tensor([0.3]))
    evaluator.process([{"file_name": f"{image_id}.jpg"}], [{"instances": instances}])
    (dets,) = evaluator._detections.values()
    corners = [float(np.float32(value)) for value in (0.1, 0.2, 100.3, 50.4)]
    assert dets.boxes.tolist() == [[*corners[:2], corners[2] - corners[0], corners[3] - corners[1]]]
    assert dets.scores.tolist() == [float(np.float32(0.3))]


def evaluate_in_one_of_two(rank: int, folder: Path) -> None:
    register(BASIC / "gt.odgt")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    evaluator = CrowdHumanEvaluator(DATASET)
    evaluator.process(*outputs(rank, world_size=2))
    (folder / f"{rank}.json").write_text(json.dumps(evaluator.evaluate()))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_same(tmp_path: Path) -> None:
    mp.spawn(evaluate_in_one_of_two, (tmp_path,), nprocs=2)
    assert_expected(json.loads((tmp_path / "0.json").read_text()))
    assert json.loads((tmp_path / "1.json").read_text()) == {}


def test_detections_of_an_unknown_image_are_refused(dataset: None) -> None:
    evaluator = CrowdHumanEvaluator(DATASET)
    instances = Instances((1, 1), pred_boxes=Boxes(torch.zeros(0, 4)), scores=torch.zeros(0))
    evaluator.process([{"file_name": "Images/elsewhere.jpg"}], [{"instances": instances}])
    with pytest.raises(UserError, match="elsewhere"):
        evaluator.evaluate()


def test_ground_truths_of_integer_ids_and_ignore_rules(tmp_path: Path) -> None:
    box = {"tag": "person", "fbox": [1, 2, 3, 4]}
    boxes = [box, {**box, "tag": "mask"}, {**box, "extra": {"ignore": 1}}, {**box, "extra": {"ignore": 0}}]
    boxes.append({**box, "head_attr": {"ignore": 1}})
    odgt = tmp_path / "gt.odgt"
    odgt.write_text(json.dumps({"ID": 7, "height": 20, "width": 30, "gtboxes": boxes}) + "\n")
    (gt,) = read_ground_truths(odgt)
    assert (gt.image_id, gt.size, gt.boxes.shape) == (7, (20, 30), (5, 4))
    assert gt.ignored.tolist() == [False, True, True, False, False]


def test_detection_files(tmp_path: Path) -> None:
    path = tmp_path / "dt.odgt"
    dets = {
        "a": Detections(np.array([[0.1, 0.2, 3, 4]]), np.array([1 / 3])),
        5: Detections(np.zeros((0, 4)), np.zeros(0)),
    }
    write_detections(path, dets)
    read = read_detections(path)
    assert list(read) == ["a", 5]
    assert read["a"].boxes.tolist() == [[0.1, 0.2, 3, 4]] and read["a"].scores.tolist() == [1 / 3]
    assert read[5].boxes.shape == (0, 4)

    path.write_text(path.read_text() + '{"ID": "a", "dtboxes": []}\n')
    assert len(read_detections(path)["a"].scores) == 0  # the later line counts

    for damage in ("{", '{"ID": "b"}', '{"ID": "b", "dtboxes": [{"box": [1, 2], "score": 1}]}'):
        path.write_text('{"ID": "a", "dtboxes": []}\n' + damage)
        with pytest.raises(UserError, match="dt.odgt, line 2"):
            read_detections(path)


def test_results_are_printable_where_undefined(tmp_path: Path) -> None:
    odgt = tmp_path / "gt.odgt"
    odgt.write_text('{"ID": "a", "height": 20, "width": 30, "gtboxes": []}\n')
    register(odgt)
    try:
        results = CrowdHumanEvaluator(DATASET).evaluate()
    finally:
        DatasetCatalog.remove(DATASET)
        MetadataCatalog.remove(DATASET)
    assert all(math.isnan(value) for value in results["crowdhuman"].values())
