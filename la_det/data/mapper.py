"""From dataset dicts to training examples, with ignored boxes."""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import torch
from detectron2 import data as detectron2_data
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, PolygonMasks

from la_det.data.images import check_size, read_image
from la_det.errors import UserError


class DatasetMapper(detectron2_data.DatasetMapper):
    """Detectron2's mapper with a choice of what becomes of ignored boxes (`iscrowd` annotations).

    Pixels are those of `la_det.data.images.read_image`, and errors name the image's file. In training, an image without
    annotations becomes an example without instances, with the same fields as all others. Boxes that are empty after
    augmentation and clipping are dropped, as in Detectron2.
    """

    def __init__(self, is_train: bool, *, ignored: Literal["remove", "mark"] = "remove", **kwargs):
        """
        Args:
            ignored: what becomes of ignored boxes in training; all other arguments are Detectron2's.
                "remove": they are removed, as in Detectron2, and their region is background (DeFCN, o2f, DATE).
                "mark": they stay, with the class of their annotation, marked in `instances.ignored` [G] bool (LLA).
                    `Criterion.ignored` says what becomes of them.

        Raises:
            ValueError: `ignored` is neither "remove" nor "mark".
        """
        super().__init__(is_train, **kwargs)
        if ignored not in ("remove", "mark"):
            raise ValueError(f'ignored is {ignored!r}; it must be "remove" or "mark"')
        self.mark_ignored = ignored == "mark"

    def __call__(self, dataset_dict: dict) -> dict:
        """The example of a dataset dict, with `image` [C, H, W] uint8 and, in training, `instances`.

        Raises:
            UserError: the image cannot be read, or has another size than the record says.
        """
        example = copy.deepcopy(dataset_dict)
        path = example["file_name"]
        image = read_image(path, self.image_format)
        height, width = image.shape[:2]
        if "width" in example or "height" in example:
            check_size(path, (height, width), (example["height"], example["width"]))
        example.setdefault("height", height)
        example.setdefault("width", width)
        augmented = T.AugInput(image)
        try:
            transforms = self.augmentations(augmented)
        except ValueError as error:  # for instance Pillow's, if a side would have no pixels
            raise UserError(
                f"{path}: {width} x {height} pixels cannot be resized as the config says ({error}); "
                "crop or pad the image"
            ) from error
        example["image"] = torch.as_tensor(np.ascontiguousarray(augmented.image.transpose(2, 0, 1)))
        if self.is_train:
            example.setdefault("annotations", [])
            self._transform_annotations(example, transforms, augmented.image.shape[:2])
        else:
            example.pop("annotations", None)
        return example

    def _transform_annotations(self, dataset_dict: dict, transforms, image_shape: tuple[int, int]) -> None:
        if self.mark_ignored:
            for annotation in dataset_dict["annotations"]:
                # Detectron2 drops iscrowd, and boxes without saying which ones: the mark travels as a negative class.
                if annotation.pop("iscrowd", 0):
                    annotation["category_id"] = ~annotation["category_id"]
        super()._transform_annotations(dataset_dict, transforms, image_shape)
        instances = dataset_dict["instances"]
        if self.mark_ignored:
            instances.ignored = instances.gt_classes < 0
            instances.gt_classes = torch.where(instances.ignored, ~instances.gt_classes, instances.gt_classes)
        if self.use_instance_mask and not instances.has("gt_masks"):
            polygons = self.instance_mask_format == "polygon"
            instances.gt_masks = PolygonMasks([]) if polygons else BitMasks(torch.zeros(0, *image_shape))
