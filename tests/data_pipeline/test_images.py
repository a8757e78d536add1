import cv2
import numpy as np
import pytest
from PIL import Image

from la_det.data.images import read_bgr
from la_det.errors import UserError

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def test_colour_is_bgr(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), PIXELS)
    assert np.array_equal(read_bgr(tmp_path / "a.png"), PIXELS)


def test_grey_becomes_three_equal_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), PIXELS[:, :, 0])
    assert np.array_equal(read_bgr(tmp_path / "a.png"), np.repeat(PIXELS[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "colour.png"])
def test_16_bits_are_scaled(tmp_path, name):
    pixels = PIXELS if name.startswith("colour") else PIXELS[:, :, :1]
    cv2.imwrite(str(tmp_path / name), pixels.astype(np.uint16) * 257)
    assert np.array_equal(read_bgr(tmp_path / name), np.broadcast_to(pixels, PIXELS.shape))


def test_alpha_is_left_out(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([PIXELS, np.zeros(PIXELS.shape[:2], np.uint8)]))
    assert np.array_equal(read_bgr(tmp_path / "a.png"), PIXELS)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(PIXELS[:, :, ::-1]).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_bgr(tmp_path / "a.png"), np.rot90(PIXELS, -1))


@pytest.mark.parametrize("name", ["missing.png", "text.png", "cut.jpg", "cut.png", "float.tif"])
def test_unreadable_file_is_named(tmp_path, name):
    (tmp_path / "text.png").write_text("no image")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for suffix in (".jpg", ".png"):
        encoded = cv2.imencode(suffix, noise)[1].tobytes()
        (tmp_path / f"cut{suffix}").write_bytes(encoded[: len(encoded) // 2])
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(UserError, match=f"{name}: cannot read this image"):
        read_bgr(tmp_path / name)
