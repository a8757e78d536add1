"""The command on good, damaged, incomplete and unknown files."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from la_det.testing.check import check_file
from la_det.testing.golden import GoldenFile

ROOT = Path(__file__).parents[2]
POTO = ROOT / "tests" / "data" / "poto"


@pytest.fixture
def check_golden(monkeypatch, capsys):
    """Runs the command in this process: (exit status, output, errors)."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import check_golden

    def run(*argv) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["check_golden.py", *map(str, argv)])
        status = check_golden.main()
        return status, *capsys.readouterr()

    return run


def copy(tmp_path: Path, name: str, change=None, folder: str = "poto") -> Path:
    """A copy of a golden file whose arrays went through `change`."""
    path = tmp_path / folder / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    original = POTO.with_name(folder) / f"{name}.npz"
    with np.load(original if original.exists() else POTO / f"{name}.npz") as data:
        arrays = dict(data)
    if change:
        change(arrays)
    np.savez(path, **arrays)
    return path


def test_good_files(check_golden, tmp_path):
    for name in ("heads", "crowd_single"):
        copy(tmp_path, name)
    status, output, _ = check_golden(tmp_path)
    assert status == 0
    assert "2 passed, 0 failed" in output
    assert "poto.matched" in output
    assert "tolerance" in output
    # One line per kind of quantity; with -v, one per quantity.
    assert output.count("mf.cls_l") == 1
    assert check_golden("-v", tmp_path)[1].count("mf.cls_l") == 5


@pytest.mark.parametrize(
    ("name", "key", "error"),
    [
        ("heads", "mf.box_l2", 1e-3),
        ("max_filter", "gn.grad_conv_bias", 1e-3),
        ("crowd_single", "poto.matched", 1),
        ("crowd_single", "mfaux.loss_cls_aux", 1e-3),
        ("crowd_single", "mf.grad_filter_l1", 1e-2),
        ("crowd_single", "fcosctr.gt_centerness", 1e-3),
        ("inference_basic", "poto.scores_1", 1e-3),
        ("inference_basic", "fcos.out_boxes_0", 0.1),
    ],
)
@pytest.mark.parametrize("what", ["value", "shape", "nan"])
def test_one_wrong_entry(check_golden, tmp_path, name, key, error, what):
    def change(arrays):
        expected = arrays[key].copy()
        if what == "shape":
            expected = expected[None]
        elif what == "nan" and expected.dtype.kind == "f":
            expected[...] = np.nan
        else:
            index = np.unravel_index(np.abs(expected).argmax(), expected.shape)
            expected[index] += np.asarray(error * max(1, abs(expected[index])), expected.dtype)
        arrays[key] = expected

    path = copy(tmp_path, name, change)
    status, output, _ = check_golden(path)
    assert status == 1
    assert "0 passed, 1 failed" in output
    misses = [line.split()[1] for line in output.splitlines() if "MISS" in line]
    # Detections that cannot even be paired up are an error of the whole file.
    assert misses == [key] or (name == "inference_basic" and check_file(path).error)


def test_unknown_method(check_golden, tmp_path):
    path = copy(tmp_path, "heads", folder="unheard_of")
    status, output, _ = check_golden(path)
    assert status == 1
    assert "unknown method 'unheard_of'" in output
    assert "poto" in output


def test_models_that_are_not_built_are_listed(check_golden, tmp_path):
    model = copy(tmp_path, "heads", folder="checkpoints")
    source = {"repository": "someone/net", "config": "configs/net_r50.py"}
    model.with_suffix(".json").write_text(json.dumps({"source": source, "keys": {}}))
    status, output, _ = check_golden(tmp_path)
    assert status == 0
    assert "not built: no config for someone/net's configs/net_r50.py" in output
    assert "0 passed, 0 failed, 1 not built" in output


def test_heads_of_different_numbers_of_classes(tmp_path):
    def change(arrays):
        for key in [key for key in arrays if key.startswith("mf.cls_l")]:
            arrays[key] = arrays[key][:, :2]
        for key in ("mf.w.cls_score.weight", "mf.w.cls_score.bias"):
            arrays[key] = arrays[key][:2]

    report = check_file(copy(tmp_path, "heads", change))
    assert report.error is None and report.passed


def test_batch_without_any_ground_truth(tmp_path):
    """DW on the second image alone, which is empty: the losses are raw sums, and no normaliser is below 1."""

    def change(arrays):
        maps = [key for key in arrays if "_l" in key and key.split("_")[-2] in ("cls", "ltrb", "obj")]
        normaliser = arrays["neg_avg_factor"]
        for key in maps:
            arrays[key] = arrays[key][1:] * (normaliser if key.startswith("grad_") else 1)
        arrays["image_sizes"] = arrays["image_sizes"][1:]
        for key in [key for key in arrays if key.endswith("_1")]:
            arrays[f"{key[:-2]}_0"] = arrays.pop(key)
        arrays["loss_cls_neg"] = arrays["loss_total"] = arrays["raw_cls_neg_0"]
        arrays["loss_cls_pos"] = arrays["loss_loc"] = np.float32(0)
        arrays["pos_avg_factor"] = arrays["neg_avg_factor"] = np.float32(1)

    report = check_file(copy(tmp_path, "loss_one_empty", change, "dw"))
    assert report.error is None and not report.missing
    assert [c for c in report.comparisons if not c.passed] == []


def test_two_processes_in_one_file(tmp_path):
    """ATSS with one image for each: twice the batch's gradients, as normalisers are averages. Losses are not known."""

    def change(arrays):
        for rank in (0, 1):
            outputs = ("assign_gt", "reg_targets", "iou_targets", *(key for key in arrays if key.startswith("grad_")))
            for key in outputs:
                scale = 2 if key.startswith("grad_") else 1
                arrays[f"rank{rank}_{key}"] = scale * arrays[key][rank : rank + 1]
            arrays[f"rank{rank}_num_pos"] = (arrays["assign_gt"][rank] >= 0).sum()
            arrays[f"rank{rank}_sum_target"] = arrays["iou_targets"][rank].sum()
            for name in ("loss_cls", "loss_reg", "loss_iou", "total_loss"):
                arrays[f"rank{rank}_{name}"] = np.float32(0)
        for key in [*outputs, "num_pos", "sum_target", "loss_cls", "loss_reg", "loss_iou", "total_loss"]:
            del arrays[key]

    report = check_file(copy(tmp_path, "datss_basic", change, "dynamic_atss"))
    assert report.error is None and not report.missing
    losses = ("loss_cls", "loss_reg", "loss_iou", "total_loss")
    unknown = {f"rank{rank}_{name}" for rank in (0, 1) for name in losses}
    assert {c.key for c in report.comparisons if not c.passed} == unknown


def test_detection_without_area(tmp_path):
    """o2f's: the location of the best one predicts a box without sides."""

    def change(arrays):
        for level, stride in enumerate(arrays["strides"]):
            box = arrays[f"box_l{level}"][0]
            y, x = ((np.arange(n) + 0.5) * stride for n in box.shape[1:])
            corners = np.stack([x - box[0], y[:, None] - box[1], x + box[2], y[:, None] + box[3]])
            height, width = arrays["image_sizes"][0]
            corners = corners.clip(0, np.array([width, height, width, height])[:, None, None])
            near = np.abs(corners - arrays["boxes"][0][:, None, None]).max(0) < 1e-3
            box[:, near] = 0
            for i, j in np.argwhere(near):
                arrays["boxes"][0] = [x[j], y[i], x[j], y[i]]

    path = copy(tmp_path, "infer_det", change, "o2f")
    with np.load(path) as data:
        x1, y1, x2, y2 = data["boxes"][0]
    assert x1 == x2 and y1 == y2
    report = check_file(path)
    assert report.error is None and report.passed


def test_nothing_recognised(check_golden, tmp_path):
    path = tmp_path / "poto" / "other.npz"
    path.parent.mkdir()
    np.savez(path, something=np.zeros(3))
    status, output, _ = check_golden(path)
    assert status == 1
    assert "nothing in this file was recognised" in output


def test_quantity_without_implementation(check_golden, tmp_path):
    def change(arrays):
        arrays["new.total"], arrays["new.loss_cls"] = np.float32(1), np.float32(1)
        arrays["note"] = np.zeros(1)

    path = copy(tmp_path, "heads", change)
    status, output, _ = check_golden(path)
    assert status == 1
    assert "not implemented: new.total, new.loss_cls, note" in output
    assert check_golden(path, "--allow-missing", "new")[0] == 1
    status, output, _ = check_golden(path, "--allow-missing", "new", "note")
    assert status == 0
    assert "allowed to be missing" in output


def test_missing_input_is_an_error_and_not_a_pass(check_golden, tmp_path):
    path = copy(tmp_path, "crowd_single", lambda arrays: arrays.pop("cls_l3"))
    status, output, _ = check_golden(path)
    assert status == 1
    assert "FAIL" in output


def test_paths_that_do_not_help(check_golden, tmp_path):
    status, _, errors = check_golden(tmp_path / "nowhere")
    assert status == 1
    assert "no such file or folder" in errors
    status, _, errors = check_golden(tmp_path)
    assert status == 1
    assert "no golden file" in errors


def test_unreadable_file(check_golden, tmp_path):
    path = tmp_path / "poto" / "broken.npz"
    path.parent.mkdir()
    path.write_bytes((POTO / "heads.npz").read_bytes()[:5000])
    status, output, _ = check_golden(path)
    assert status == 1
    assert "not a readable .npz file" in output


def test_one_bad_file_fails_a_folder(check_golden, tmp_path):
    folder = copy(tmp_path, "heads").parent
    shutil.copy(POTO / "max_filter.npz", folder / "max_filter.npz")
    np.savez(folder / "other.npz", something=np.zeros(3))
    status, output, _ = check_golden(folder)
    assert status == 1
    assert "2 passed, 1 failed" in output


def test_images_without_ground_truth_are_checked_as_background(tmp_path):
    """Their gt_boxes have the shape [0, 4]."""

    def change(arrays):
        arrays["gt_boxes_0"], arrays["gt_classes_0"] = arrays["gt_boxes_0"][:0], arrays["gt_classes_0"][:0]
        for key in list(arrays):
            if key.endswith("matched"):
                arrays[key] = np.full_like(arrays[key], -1)
            elif key.endswith("num_pos"):
                arrays[key] = np.zeros_like(arrays[key])

    report = check_file(copy(tmp_path, "crowd_single", change))
    assert report.error is None
    by_key = {c.key: c for c in report.comparisons}
    for variant in ("poto", "mf", "mfaux", "fcosctr"):
        assert by_key[f"{variant}.matched"].passed
        assert by_key[f"{variant}.num_pos"].passed


def test_tolerances_are_bounds_of_the_error(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([1.0, -2.0]), b=np.zeros(2), c=np.array([1, 2]))
    golden = GoldenFile(tmp_path / "x.npz")

    golden.close("a", torch.tensor([1.0, -2.01]), atol=0.02)
    golden.close("a", torch.tensor([1.0, -2.01]), rtol=0.004)
    golden.close_to_max("a", torch.tensor([1.01, -2.0]), 0.006)
    golden.close_to_max("b", torch.tensor([1e-8, 0.0]), 1e-4)
    golden.close_to_max("b", torch.tensor([1e-6, 0.0]), 1e-4)
    golden.exact("c", torch.tensor([1, 3]))
    assert [c.passed for c in golden.comparisons] == [True, False, True, True, False, False]
    assert golden.unread() == []


def test_tolerances_are_larger_on_a_gpu():
    golden = GoldenFile(POTO / "heads.npz", device="meta")
    golden.record("a", 3.9e-4, 1e-4)
    golden.record("b", 4.1e-4, 1e-4)
    golden.record("equal", 1, 0.0)
    assert [c.passed for c in golden.comparisons] == [True, False, False]


def test_no_gpu(check_golden, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        check_golden("--device", "cuda", POTO)
    assert stop.value.code == 2
    assert "there is no GPU that torch can use" in capsys.readouterr().err


def test_part_of_a_process(tmp_path):
    """Keys are read with the prefix where there are such; all parts tell one file what was read and compared."""
    np.savez(tmp_path / "x.npz", rank0_a=np.array(1.0), rank1_a=np.array(2.0), b=np.array(3.0), rank1_c=np.array(4.0))
    golden = GoldenFile(tmp_path / "x.npz")
    parts = [golden.part("rank0_"), golden.part("rank1_")]
    assert [part.number("a") for part in parts] == [1, 2] and [part.number("b") for part in parts] == [3, 3]
    assert ["c" in part for part in parts] == [False, True]
    parts[1].close("a", 2.0, atol=1e-6)
    parts[1].ignore("c")
    assert [c.key for c in golden.comparisons] == ["rank1_a"] and golden.unread() == []
