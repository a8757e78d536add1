"""Image files of any kind as the arrays that detectors take: the one reader of pixels."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image, UnidentifiedImageError

from la_det.errors import UserError

IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".mpo", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)  # readers of folders take files with these suffixes for images
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAX_8_BITS = 255
MAX_16_BITS = 65535
BITS_PER_SAMPLE = 258  # number of a TIFF tag
MAX_SIDE = 1_000_000  # pixels, upper bound of an image's width and height


@dataclass(frozen=True)
class ImageHeader:
    """What an image file says about itself.

    Attributes:
        size: (height, width) of what `read_image` returns.
        stored_size: (height, width) before the EXIF orientation turns it.
        mode: Pillow's name for the kind of pixels, such as "RGB" or "I;16".
        frames: number of pictures in the file, 1 if they cannot be counted; only the first picture is used.
    """

    size: tuple[int, int]
    stored_size: tuple[int, int]
    mode: str
    frames: int

    @property
    def turned(self) -> bool:
        """Whether the EXIF orientation exchanges width and height."""
        return self.size != self.stored_size


def read_header(path: str | Path) -> ImageHeader:
    """Size and kind of an image file, without reading its pixels.

    Raises:
        UserError: the file is missing, not a regular file, damaged, or no image.
    """
    with _opened(path) as image:
        width, height = image.size
        size = (width, height) if _orientation(image) in TURNED else (height, width)
        return ImageHeader(size, (height, width), image.mode, _num_frames(image))


def read_image(path: str | Path, image_format: str = "BGR") -> np.ndarray:
    """[H, W, C] uint8 of an image file, turned as its EXIF orientation says.

    8-bit values stay, in 32-bit files too, and 16-bit values keep their upper 8 bits. Alpha is left out. If there are
    several pictures, the first one is read.

    Args:
        image_format: "BGR", "RGB", or "L" for one channel.

    Raises:
        UserError: the file is missing, not a regular file, damaged, no image, or has pixels of unknown range.
    """
    with _opened(path) as image:
        orientation, wide = _orientation(image), _has_32_bits(image)
        if orientation in TRANSPOSES:
            image = image.transpose(TRANSPOSES[orientation])
        if image.mode == "F":
            raise ValueError("floating-point pixels, whose range is unknown; store them in 8 or 16 bits")
        if image.mode.startswith("I"):  # grey beyond 8 bits, which Pillow would clip
            pixels = np.asarray(image)
            if pixels.min() < 0 or pixels.max() > MAX_16_BITS:
                raise ValueError("pixels beyond 16 bits, whose range is unknown; store them in 8 or 16 bits")
            shift = 0 if wide and pixels.max() <= MAX_8_BITS else 8
            grey = (pixels >> shift).astype(np.uint8)[:, :, None]
            return grey if image_format == "L" else np.repeat(grey, 3, axis=2)
        return np.array(convert_PIL_to_numpy(image, image_format))  # a copy, since torch warns of arrays that only read


def _orientation(image: Image.Image) -> object:
    """Value of the EXIF orientation; None if it is missing or the EXIF data are damaged, which pixels can survive."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        return None


def _has_32_bits(image: Image.Image) -> bool:
    """Whether a TIFF file has 32 bits for a value; Pillow's mode "I" may also stand for 16 bits."""
    return getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE) == (32,)


def _num_frames(image: Image.Image) -> int:
    """Number of pictures; 1 if a later picture, which is not used, is damaged."""
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # Pillow walks through all pictures, and raises all kinds of exceptions for damaged ones
        return 1


def read_bgr(path: str | Path) -> np.ndarray:
    """The image of `read_image` in OpenCV's order of channels: [H, W, 3] uint8."""
    return read_image(path, "BGR")


def check_size(path: str | Path, size: tuple[int, int], annotated: tuple[int, int]) -> None:
    """Raise `UserError` unless an image read from `path` has the (height, width) for which it is annotated."""
    if size == annotated:
        return
    raise UserError(explain_size(path, read_header(path), size, annotated))


def explain_size(path: str | Path, header: ImageHeader, size: tuple[int, int], annotated: tuple[int, int]) -> str:
    """Message that the (height, width) of an image is not that of its annotation, and why."""
    reason = f"it is {size[1]} x {size[0]} pixels, its annotation says {annotated[1]} x {annotated[0]}"
    if header.turned and header.stored_size == annotated:
        reason += (
            " because its EXIF orientation turns it: annotate the turned image, or take the orientation out of the file"
        )
    return f"{path}: cannot read this image ({reason}); replace the image or correct its annotation"


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The open image. Any error while it is read becomes a `UserError` that names the file."""
    try:
        with _open_regular(str(path)) as file, Image.open(file) as image:
            yield image
    # Pillow's plugins raise all kinds of exceptions for damaged files, and only the file can be the cause here.
    except Exception as error:
        raise UserError(f"{path}: cannot read this image ({_reason(error)}); replace or remove it") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image of a known kind"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _open_regular(path: str) -> IO[bytes]:
    """Opens a file, but refuses a pipe or device, which may never end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("it is no regular file")
    except FileNotFoundError:  # perhaps a path of another file system that Detectron2 knows
        pass
    return PathManager.open(path, "rb")
