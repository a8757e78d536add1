"""Image files of any kind as the arrays that detectors take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from detectron2.data.detection_utils import read_image
from PIL import Image

from la_det.errors import UserError


def read_bgr(path: str | Path) -> np.ndarray:
    """[H, W, 3] uint8 of an image file, turned as its EXIF orientation says; 16 bits become 8, alpha is left out.

    Raises:
        UserError: the file is missing, damaged, or no image.
    """
    try:
        with Image.open(path) as header:
            mode = header.mode
        if mode == "F":
            raise ValueError("floating-point pixels, whose range is unknown")
        if mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 8 bits
            return np.repeat((read_image(path) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
        return read_image(path, "BGR")
    # Pillow raises SyntaxError for a broken PNG.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot read this image ({reason}); replace or remove it") from error
