"""COCO detection: short side 640 to 800, long side at most 1333, horizontal flips."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from omegaconf import OmegaConf

from la_det.data.loader import build_test_loader, build_train_loader
from la_det.data.mapper import DatasetMapper
from la_det.data.records import load_records
from la_det.data.transforms import ResizeShortestEdge
from la_det.evaluation import COCOEvaluator

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(load_records)(names="coco_2017_train", filter_empty=True),
    mapper=L(DatasetMapper)(
        is_train=True,
        augmentations=[
            L(ResizeShortestEdge)(
                short_edge_length=(640, 672, 704, 736, 768, 800), max_size=1333, sample_style="choice"
            ),
            L(T.RandomFlip)(horizontal=True),
        ],
        image_format="BGR",
        use_instance_mask=False,
    ),
    total_batch_size=16,
    num_workers=4,
    aspect_ratio_grouping=True,
    repeat_threshold=0.0,
    seed="${train.seed}",
)

dataloader.test = L(build_test_loader)(
    dataset=L(load_records)(names="coco_2017_val", filter_empty=False),
    mapper=L(DatasetMapper)(
        is_train=False,
        augmentations=[L(ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
        image_format="${...train.mapper.image_format}",
    ),
    batch_size=1,
    num_workers=4,
)

dataloader.evaluator = L(COCOEvaluator)(dataset_name="${..test.dataset.names}")
