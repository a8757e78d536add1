"""Registers la_det's data sets, under `$DETECTRON2_DATASETS`, in Detectron2's catalogs."""

import os
from functools import partial
from pathlib import Path
from typing import IO, Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.utils.file_io import PathHandler, PathManager

from .crowdhuman import register_crowdhuman
from .root import DATASETS_ROOT
from .shapes import SHAPES, SPLITS, ShapesSpec, make_shapes


class ShapesPathHandler(PathHandler):
    """Generates a Shapes data set when Detectron2 first asks for one of its annotation files.

    Loading the data set and building its evaluator both ask, in any order. The paths in the metadata stay plain.
    """

    def __init__(self, spec: ShapesSpec, root: Path) -> None:
        super().__init__()
        self.spec, self.root = spec, root

    def _get_supported_prefixes(self) -> list[str]:
        return [str(self.root / self.spec.name / "annotations") + os.sep]

    def _get_local_path(self, path: str, **kwargs: Any) -> str:
        make_shapes(self.spec, self.root)
        return path

    def _open(self, path: str, mode: str = "r", **kwargs: Any) -> IO:
        return open(self._get_local_path(path), mode, **kwargs)


def register_shapes(spec: ShapesSpec, root: Path) -> None:
    """Register `<spec.name>_train` and `<spec.name>_val`, unless a spec has no images of one of them.

    They are generated when one of them is first used.

    For a crowd, the dicts also have `bbox_vis` (XYWH), and the metadata have `odgt_file`. The data sets
    `<spec.name>_odgt_train` and `<spec.name>_odgt_val` have the same boxes, read from this file.
    """
    PathManager.register_handler(ShapesPathHandler(spec, root))
    for split in spec.splits:
        name, folder = f"{spec.name}_{split}", root / spec.name
        json_file, image_root = str(folder / "annotations" / f"{split}.json"), str(folder / split)
        extra_keys = ["bbox_vis"] if spec.crowd else []
        DatasetCatalog.register(name, partial(load_coco_json, json_file, image_root, name, extra_keys))
        metadata = MetadataCatalog.get(name).set(
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
            thing_classes=spec.classes,
            thing_dataset_id_to_contiguous_id={number: number - 1 for number in range(1, len(spec.classes) + 1)},
        )
        if spec.crowd:
            metadata.odgt_file = str(folder / "annotations" / f"{split}.odgt")
            register_crowdhuman(f"{spec.name}_odgt_{split}", metadata.odgt_file, image_root)


for _spec in SHAPES.values():
    register_shapes(_spec, DATASETS_ROOT)

for _split in SPLITS:
    _folder = DATASETS_ROOT / "CrowdHuman"
    register_crowdhuman(f"crowdhuman_{_split}", _folder / f"annotation_{_split}.odgt", _folder / "Images")
