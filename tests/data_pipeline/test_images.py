import os

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from la_det.data.images import check_size, read_bgr, read_header, read_image
from la_det.deploy.images import reordered
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


def test_more_kinds_of_pixels(tmp_path):
    grey = PIXELS[:, :, 0]
    rgb = Image.fromarray(np.ascontiguousarray(PIXELS[:, :, ::-1]))
    palette = Image.fromarray(grey).convert("P")
    Image.fromarray(grey).save(tmp_path / "one.png")
    palette.save(tmp_path / "palette.png")
    rgb.convert("CMYK").save(tmp_path / "cmyk.tif")
    rgb.save(tmp_path / "animated.png", save_all=True, append_images=[Image.new("RGB", rgb.size)])
    Image.fromarray(grey.astype(np.int32) * 257).save(tmp_path / "wide.tif")
    assert np.array_equal(read_image(tmp_path / "one.png", "L"), grey[:, :, None])
    assert np.array_equal(read_image(tmp_path / "wide.tif", "L"), grey[:, :, None])
    assert np.array_equal(read_image(tmp_path / "palette.png", "RGB"), np.array(palette.convert("RGB")))
    assert np.array_equal(read_image(tmp_path / "cmyk.tif", "RGB"), np.array(rgb.convert("CMYK").convert("RGB")))
    assert np.array_equal(read_bgr(tmp_path / "animated.png"), PIXELS)
    assert read_header(tmp_path / "animated.png").frames == 2


def test_8_bit_values_of_32_bit_files_stay(tmp_path):
    Image.fromarray(PIXELS[:, :, 0].astype(np.int32)).save(tmp_path / "wide.tif")
    assert np.array_equal(read_image(tmp_path / "wide.tif", "L"), PIXELS[:, :, :1])
    # These modes have 16 bits, and Pillow calls two of them by the name of 32 bits.
    dark = PIXELS[:, :, 0].astype(np.uint16)
    (tmp_path / "dark.pgm").write_bytes(b"P5 6 4 65535\n" + dark.astype(">u2").tobytes())
    for name in ("dark.png", "dark.tif"):
        cv2.imwrite(str(tmp_path / name), dark)
    cv2.imwrite(str(tmp_path / "signed.tif"), dark.astype(np.int16))
    for name in ("dark.pgm", "dark.png", "dark.tif", "signed.tif"):
        assert not read_image(tmp_path / name, "L").any(), name


@pytest.mark.parametrize("suffix", ["tif", "gif", "png"])
def test_pictures_after_the_first_one_may_be_damaged(tmp_path, suffix):
    """Wherever the file is cut: if the pixels can be read, so can the header."""
    path, second = tmp_path / f"a.{suffix}", Image.new("RGB", (6, 4))
    Image.fromarray(PIXELS[:, :, ::-1]).save(path, save_all=True, append_images=[second, second])
    whole, frames = path.read_bytes(), set()
    for size in range(len(whole), 0, -1):
        path.write_bytes(whole[:size])
        try:
            read_image(path)
        except UserError:
            continue
        header = read_header(path)
        assert header.size == (4, 6)
        frames.add(header.frames)
    assert max(frames) > 1


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L"])
def test_arrays_are_converted_like_files(tmp_path, image_format):
    cv2.imwrite(str(tmp_path / "a.png"), PIXELS)
    assert np.array_equal(reordered(PIXELS, "BGR", image_format), read_image(tmp_path / "a.png", image_format))


def test_what_may_never_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, "/dev/zero"):
        for read in (read_bgr, read_header):
            with pytest.raises(UserError, match=f"{path}: cannot read this image .it is no regular file"):
                read(path)


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    Image.fromarray(PIXELS).save(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="bomb.png: cannot read this image .*decompression bomb"):
        read_bgr(tmp_path / "bomb.png")


def test_pixels_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), 70_000, np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(UserError, match="wide.tif: .*pixels beyond 16 bits"):
        read_bgr(tmp_path / "wide.tif")


def test_orientation_is_explained(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=exif)
    header = read_header(tmp_path / "a.png")
    assert (header.size, header.stored_size, header.turned, header.mode) == ((6, 4), (4, 6), True, "RGB")
    check_size(tmp_path / "a.png", (6, 4), (6, 4))
    with pytest.raises(UserError, match="a.png: .*it is 4 x 6 pixels, its annotation says 6 x 4 because its EXIF"):
        check_size(tmp_path / "a.png", (6, 4), (4, 6))
    with pytest.raises(UserError, match="says 9 x 9.; replace"):
        check_size(tmp_path / "a.png", (6, 4), (9, 9))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_every_orientation_is_that_of_pillow(tmp_path, orientation, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = PIXELS if mode == "RGB" else PIXELS[:, :, 0].astype(np.uint16) * 257
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        expected = np.array(ImageOps.exif_transpose(image))
    found = read_image(tmp_path / "a.png", "RGB")
    assert np.array_equal(found, expected if mode == "RGB" else np.dstack([expected >> 8] * 3))
    assert read_header(tmp_path / "a.png").size == found.shape[:2]


def test_damaged_exif_leaves_the_pixels(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", exif=b"Exif\0\0no TIFF header at all")
    assert np.array_equal(read_image(tmp_path / "a.png", "RGB"), PIXELS)
    assert read_header(tmp_path / "a.png").size == (4, 6)
