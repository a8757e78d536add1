"""What surrounds the graph, with hand-made graphs that always find the same."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch

from la_det.deploy import Detector
from la_det.deploy.runtimes import PROVIDERS
from la_det.errors import UserError
from tests.deploy.made_up import METADATA, write


def image(height: int, width: int) -> np.ndarray:
    """Blue, green and red are 70, 60 and 50."""
    return np.full((height, width, 3), (70, 60, 50), np.uint8)


def test_normalises_and_pads(tmp_path):
    detector = Detector(write(tmp_path / "model.onnx", METADATA))
    batch = detector.batch([detector.prepare(image(20, 40)), detector.prepare(image(33, 8)[:, :, ::-1], "RGB")])
    assert batch.shape == (2, 3, 64, 64) and batch.dtype == np.float32
    assert batch[0, :, 19, 39].tolist() == batch[1, :, 32, 7].tolist() == [40.0, 20.0, 10.0]
    assert (batch[0, :, 20:] == 0).all() and (batch[1, :, :, 8:] == 0).all()


def test_one_channel(tmp_path):
    details = replace(METADATA, input_format="L", pixel_mean=(10.0,), pixel_std=(2.0,))
    detector = Detector(write(tmp_path / "model.onnx", details))
    grey = detector.prepare(image(20, 40))
    assert grey.shape == (20, 40, 1) and grey[0, 0, 0] == round(0.114 * 70 + 0.587 * 60 + 0.299 * 50)
    assert np.array_equal(detector.prepare(grey, "L"), grey)
    assert detector.batch([grey]).shape == (1, 1, 32, 64)


def test_detections_in_pixels_of_the_image(tmp_path):
    detector = Detector(write(tmp_path / "model.onnx", replace(METADATA, short_edge=32, max_size=100)))
    first, second = detector([image(64, 96), image(32, 40)])
    assert first.boxes.tolist() == [[8, 16, 40, 48], [0, 0, 96, 64]]  # clipped
    assert second.boxes.tolist() == [[4, 8, 20, 24], [0, 0, 40, 32]]
    assert first.classes.tolist() == [1, 0] and first.priors.tolist() == [7, 5] and len(first) == 2
    assert first.scores.tolist() == [np.float32(0.9), np.float32(0.4)]
    assert detector([]) == []


def test_boxes_outside_the_image_are_left_out(tmp_path):
    detector = Detector(write(tmp_path / "model.onnx", METADATA))
    (found,) = detector([image(8, 64)])
    assert found.boxes.tolist() == [[0, 0, 64, 8]] and found.priors.tolist() == [5]


def test_no_image_is_padded_for_the_sake_of_another(tmp_path, monkeypatch):
    detector, shapes = Detector(write(tmp_path / "model.onnx", METADATA)), []
    run = detector.run
    monkeypatch.setattr(detector, "run", lambda batch, sizes: shapes.append(batch.shape) or run(batch, sizes))
    found = detector([image(20, 40), image(64, 64), image(32, 33)])
    assert sorted(shapes) == [(1, 3, 64, 64), (2, 3, 32, 64)]
    assert [x.boxes[1].tolist() for x in found] == [[0, 0, 40, 20], [0, 0, 64, 32], [0, 0, 33, 32]]


def test_fixed_batch_and_size(tmp_path):
    """Batches are filled up or split, and large images shrink."""
    detector = Detector(write(tmp_path / "model.onnx", METADATA, batch=2, height=32, width=64))
    assert (detector.runtime.batch_size, detector.runtime.image_size) == (2, (32, 64))
    assert detector.batch([image(32, 32)]).shape == (2, 3, 32, 64)
    assert len(detector([image(32, 64)] * 5)) == 5
    with pytest.raises(UserError, match="33 x 40 pixels is too large for this file's 32 x 64"):
        detector.detect([image(33, 40)], [(33, 40)])
    (found,) = detector([image(64, 128)])
    assert found.boxes[0].tolist() == [8, 16, 40, 48]


def test_masks(tmp_path):
    masks = np.zeros((1, 3, 16, 16), np.float32)
    masks[0, 1, :8] = 1.0
    (found,) = Detector(write(tmp_path / "model.onnx", METADATA, masks=masks))([image(64, 64)])
    assert found.masks.shape == (2, 64, 64) and found.masks.dtype == bool
    assert not found.masks[0].any()
    assert found.masks[1, :28].all() and not found.masks[1, 36:].any()


@pytest.mark.parametrize("wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)])
def test_what_is_no_image(tmp_path, wrong):
    detector = Detector(write(tmp_path / "model.onnx", METADATA))
    with pytest.raises(ValueError, match="an image is"):
        detector([wrong])
    with pytest.raises(ValueError, match="order='GBR': the order of the channels is BGR or RGB"):
        detector([image(8, 8)], "GBR")


def test_files_that_cannot_be_used(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="absent.onnx: no such file"):
        Detector(tmp_path / "absent.onnx")
    with pytest.raises(UserError, match="model.pth: exported files end with .onnx, .xml, .pt, .pt2"):
        Detector(tmp_path / "model.pth")
    good = write(tmp_path / "good.onnx", METADATA)
    with monkeypatch.context() as without, pytest.raises(UserError, match="onnxruntime is missing: pip install"):
        without.setitem(sys.modules, "onnxruntime", None)
        Detector(good)
    for suffix in ("onnx", "xml", "pt", "pt2"):
        path = tmp_path / f"text.{suffix}"
        path.write_text("no graph")
        with pytest.raises(UserError, match=f"text.{suffix}: no file that `la-det export` wrote|openvino is missing"):
            Detector(path, allow_code=True)
    with pytest.raises(UserError, match="text.pt: such archives can run any code; if you trust this one"):
        Detector(tmp_path / "text.pt")
    with pytest.raises(UserError, match="other.onnx: no metadata"):
        Detector(write(tmp_path / "other.onnx", None))
    with pytest.raises(UserError, match="raw.onnx: its outputs are candidates before NMS"):
        Detector(write(tmp_path / "raw.onnx", replace(METADATA, nms="outside")))


@pytest.mark.parametrize("device", ["cuda", "gpu"])
def test_device_that_is_not_there(tmp_path, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [PROVIDERS["cpu"]])
    for name in ("model.onnx", "model.pt", "model.pt2"):
        file = write(tmp_path / name, METADATA)
        with pytest.raises(UserError, match=f"^{device}: .*take the CPU$"):
            Detector(file, device, allow_code=True)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_no_other_device_in_its_place(tmp_path, monkeypatch):
    """ONNX Runtime falls back to the CPU where it was built for CUDA but finds no CUDA."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*PROVIDERS.values()])
    file = write(tmp_path / "model.onnx", METADATA)
    with pytest.raises(UserError, match="^cuda: onnxruntime took CPUExecutionProvider instead; install the CUDA"):
        Detector(file, "cuda")
    assert len(Detector(file, "cpu")([image(64, 96)])) == 1


ALONE = """
import sys
for name in ("detectron2", "torch", "torchvision"):
    sys.modules[name] = None  # importing it raises
import numpy as np
from la_det.deploy import Detector
(found,) = Detector(sys.argv[1])([np.zeros((64, 96, 3), np.uint8)])
assert found.boxes.tolist() == [[4, 8, 20, 24], [0, 0, 64, 32]] and found.masks.shape == (2, 64, 96)
"""


def test_runs_without_detectron2_and_torch(tmp_path):
    masks = np.ones((1, 3, 16, 24), np.float32)
    file = write(tmp_path / "model.onnx", METADATA, masks=masks)
    subprocess.run([sys.executable, "-c", ALONE, str(file)], check=True)
