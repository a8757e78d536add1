"""Pictures of detections and ground truths: one colour per class, and labels in any script that the fonts have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import matplotlib
import numpy as np
import supervision as sv
from detectron2.data import Metadata
from detectron2.structures import BoxMode, Instances
from matplotlib import font_manager, ft2font

# Labels are written in the first of these fonts that has all characters.
FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Arial Unicode MS")
_TAB20 = matplotlib.colormaps["tab20"].colors
COLOURS = tuple(map(matplotlib.colors.to_hex, _TAB20[::2] + _TAB20[1::2]))  # the lighter ones last
WIDTH = 600  # of a picture, pixels, from which on lines and labels grow with it
LINE, TEXT = 2, 12  # of narrower pictures, pixels


class Drawer:
    """Draws boxes, masks and labels into images [H, W, 3] RGB uint8.

    Args:
        metadata: `thing_classes` are the names of the classes; without them, labels are numbers.
        scale: factor of the picture's size.
    """

    def __init__(self, metadata: Metadata, scale: float = 1.0):
        self.names = metadata.get("thing_classes")
        self.scale = scale

    def detections(self, image: np.ndarray, instances: Instances) -> np.ndarray:
        """The image with all instances, with their classes and scores: [scale H, scale W, 3] RGB uint8."""
        classes, scores = instances.pred_classes.tolist(), instances.scores.tolist()
        labels = [f"{self._name(number)} {score:.2f}" for number, score in zip(classes, scores, strict=True)]
        masks = instances.pred_masks.numpy() if instances.has("pred_masks") else None
        return self._draw(image, instances.pred_boxes.tensor.numpy(), classes, labels, masks)

    def ground_truths(self, image: np.ndarray, record: dict) -> np.ndarray:
        """The image with the boxes of a dataset dict; "ignored" marks regions that are no objects."""
        objects = record.get("annotations", [])
        boxes = [BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS) for x in objects]
        labels = [self._name(x["category_id"]) + " (ignored)" * bool(x.get("iscrowd", 0)) for x in objects]
        return self._draw(image, np.array(boxes).reshape(-1, 4), [x["category_id"] for x in objects], labels)

    def _name(self, number: int) -> str:
        return str(number) if self.names is None else self.names[number]

    def _draw(
        self,
        image: np.ndarray,
        boxes: np.ndarray,
        classes: Sequence[int],
        labels: Sequence[str],
        masks: np.ndarray | None = None,
    ) -> np.ndarray:
        found = sv.Detections(boxes.astype(np.float32), mask=masks, class_id=np.array(classes, dtype=int))
        picture = image[:, :, ::-1].copy()  # supervision draws BGR
        if masks is not None:
            picture = sv.MaskAnnotator(_PALETTE).annotate(picture, found)
        picture = sv.scale_image(picture, self.scale)
        found = sv.Detections(found.xyxy * self.scale, class_id=found.class_id)
        unit = max(1.0, picture.shape[1] / WIDTH)
        picture = sv.BoxAnnotator(_PALETTE, thickness=round(LINE * unit)).annotate(picture, found)
        writer = sv.RichLabelAnnotator(
            _PALETTE,
            text_color=_TEXT_COLOURS,
            font_path=_font_for("".join(labels)),
            font_size=round(TEXT * unit),
            text_padding=round(2 * unit),
            smart_position=True,
        )
        return writer.annotate(picture, found, labels)[:, :, ::-1]


def _legible(colour: str) -> str:
    """Black on light colours, white on dark ones."""
    return "#000000" if np.dot(matplotlib.colors.to_rgb(colour), (0.299, 0.587, 0.114)) > 0.5 else "#ffffff"


_PALETTE = sv.ColorPalette.from_hex(COLOURS)
_TEXT_COLOURS = sv.ColorPalette.from_hex([_legible(colour) for colour in COLOURS])


def _font_for(text: str) -> str:
    files = [file for name in FONTS if (file := _font_file(name)) is not None]
    fitting = (file for file in files if all(map(_font(file).get_char_index, map(ord, text))))
    return next(fitting, files[0])


@cache
def _font(file: str) -> ft2font.FT2Font:
    return ft2font.FT2Font(file)


@cache
def _font_file(name: str) -> str | None:
    try:
        return font_manager.findfont(name, fallback_to_default=False)
    except ValueError:  # it is not installed
        return None
