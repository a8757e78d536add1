"""CrowdHuman annotations as COCO JSON, in the form that o2f and DATE use, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from la_det.errors import UserError

from .odgt import is_ignored


def odgt_to_coco(records: list[dict]) -> dict:
    """COCO JSON of records from :func:`la_det.data.odgt.read_odgt`.

    `bbox` is the full-body box and `bbox_vis` the visible box. Ignored boxes have `iscrowd` 1. Ids count from 1 in file
    order. Head boxes, and the reason why a box is ignored, are lost.
    """
    images, annotations = [], []
    for image_id, record in enumerate(records, start=1):
        size = {"height": record["height"], "width": record["width"]}
        images.append({"file_name": f"{record['ID']}.jpg", "id": image_id, **size})
        for box in record["gtboxes"]:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "category_id": 1,
                    "image_id": image_id,
                    "bbox_vis": box.get("vbox", box["fbox"]),
                    "bbox": box["fbox"],
                    "area": box["fbox"][2] * box["fbox"][3],
                    "iscrowd": int(is_ignored(box)),
                }
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def coco_to_odgt(coco: dict) -> Iterator[dict]:
    """The odgt records of a COCO JSON with one category; ignored boxes get the tag `mask`.

    Raises:
        UserError: odgt cannot express the file: it has several categories, or images that are not named *.jpg.
    """
    if len(coco["categories"]) != 1:
        raise UserError(f"{len(coco['categories'])} categories, but odgt knows only one: leave one in the file")
    annotations = defaultdict(list)
    for annotation in coco["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    for image in coco["images"]:
        name = PurePosixPath(image["file_name"])
        if name.suffix != ".jpg":
            raise UserError(f"the image {name} is not named *.jpg, as odgt takes for granted: convert or rename it")
        yield {
            "ID": str(name.with_suffix("")),
            "height": image["height"],
            "width": image["width"],
            "gtboxes": [
                {
                    "tag": "mask" if annotation["iscrowd"] else "person",
                    "fbox": annotation["bbox"],
                    "vbox": annotation.get("bbox_vis", annotation["bbox"]),
                    "extra": {"ignore": 1} if annotation["iscrowd"] else {},
                }
                for annotation in annotations[image["id"]]
            ],
        }
