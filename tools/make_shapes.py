#!/usr/bin/env python3
"""Generate the Shapes data sets ahead of their first use, or look at them."""

import _start as _start

import argparse
import json
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from la_det.data.root import DATASETS_ROOT
from la_det.data.shapes import SHAPES, make_shapes, remove_shapes

TILE, COLUMNS, ROWS = 320, 6, 3  # pixels of an image in a preview, and columns and rows of each data set
BLACK, WHITE, GREEN, YELLOW, RED = (0, 0, 0), (255, 255, 255), (0, 255, 0), (0, 255, 255), (0, 0, 255)


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=SHAPES, metavar="NAME", help=f"one or more of {', '.join(SHAPES)}")
    parser.add_argument(
        "--root",
        type=Path,
        default=DATASETS_ROOT,
        help="folder of data sets (default: $DETECTRON2_DATASETS, else datasets)",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="generate an existing data set of any version anew")
    parser.add_argument(
        "--preview",
        type=Path,
        metavar="FILE.png",
        help="also draw the first validation images with their annotations: boxes are green, those of iscrowd "
        "annotations red, visible boxes of shapes_crowd yellow",
    )
    return parser.parse_args(argv)


def draw_annotations(image: np.ndarray, annotations: list[dict], classes: dict[int, str]) -> np.ndarray:
    """A tile [TILE, TILE, 3] of the image, enlarged, with its annotations."""
    scale = TILE / image.shape[0]
    tile = cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_NEAREST)

    def rectangle(box: list[int], colour: tuple[int, int, int]) -> None:
        x, y, width, height = (np.array(box) * scale).astype(int).tolist()
        cv2.rectangle(tile, (x, y), (x + width - 1, y + height - 1), colour, 1)

    for annotation in annotations:
        if "bbox_vis" in annotation:
            rectangle(annotation["bbox_vis"], YELLOW)
        rectangle(annotation["bbox"], RED if annotation["iscrowd"] else GREEN)
        if len(classes) > 1:
            corner = int(annotation["bbox"][0] * scale), max(int(annotation["bbox"][1] * scale) - 2, 9)
            for colour, shift in ((BLACK, 1), (WHITE, 0)):
                at = corner[0] + shift, corner[1] + shift
                name = classes[annotation["category_id"]]
                cv2.putText(tile, name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.38, colour, 1, cv2.LINE_AA)
    return tile


def preview(folders: list[Path]) -> np.ndarray:
    """Contact sheet with ROWS x COLUMNS validation images of each data set."""
    tiles = []
    for folder in folders:
        coco = json.loads((folder / "annotations" / "val.json").read_text())
        classes = {category["id"]: category["name"] for category in coco["categories"]}
        annotations = defaultdict(list)
        for annotation in coco["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        shown = [
            draw_annotations(cv2.imread(str(folder / "val" / image["file_name"])), annotations[image["id"]], classes)
            for image in coco["images"][: ROWS * COLUMNS]
        ]
        empty = np.zeros((TILE, TILE, 3), np.uint8)
        tiles += shown + [empty] * (-len(shown) % COLUMNS)
    return np.concatenate([np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)])


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    folders = []
    for name in args.names:
        try:
            if args.force:
                remove_shapes(SHAPES[name], args.root)
            folder = make_shapes(SHAPES[name], args.root, args.workers)
        except RuntimeError as error:
            raise SystemExit(f"make_shapes: {error}") from None
        manifest = json.loads((folder / "manifest.json").read_text())
        print(f"{folder}: version {manifest['version']}, sha256 {manifest['sha256']}")
        folders.append(folder)
    if args.preview and not cv2.imwrite(str(args.preview), preview(folders)):
        raise SystemExit(f"Could not write {args.preview}: does its folder exist, and does it end in .png?")


if __name__ == "__main__":
    main()
