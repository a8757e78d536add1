"""Shapes, the generated data sets (la_det/data/shapes.py). Images have one size and are not resized.

`shapes_tiny`: 128 px, 10 classes; `shapes`: 256 px, 10 classes; `shapes_crowd`: 256 px, 1 class, crowds.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf

from la_det.data.loader import build_test_loader, build_train_loader
from la_det.data.mapper import DatasetMapper
from la_det.data.records import load_records
from la_det.evaluation import COCOEvaluator


def _dataloader(name: str) -> DictConfig:
    dataloader = OmegaConf.create()
    dataloader.train = L(build_train_loader)(
        dataset=L(load_records)(names=f"{name}_train", filter_empty=False),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[L(T.RandomFlip)(horizontal=True)],
            image_format="RGB",
            use_instance_mask=False,
        ),
        total_batch_size=16,
        num_workers=2,
        aspect_ratio_grouping=False,
        repeat_threshold=0.0,
        seed="${train.seed}",
    )
    dataloader.test = L(build_test_loader)(
        dataset=L(load_records)(names=f"{name}_val", filter_empty=False),
        mapper=L(DatasetMapper)(
            is_train=False,
            augmentations=[],
            image_format="${...train.mapper.image_format}",
        ),
        batch_size=16,
        num_workers=2,
    )
    dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
    return dataloader


shapes_tiny = _dataloader("shapes_tiny")
shapes = _dataloader("shapes")
shapes_crowd = _dataloader("shapes_crowd")
