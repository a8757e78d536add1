"""CrowdHuman: short side 800, long side at most 1400, flips; the mapper removes ignored boxes."""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from la_det.data.crowdhuman import load_annotated_records
from la_det.data.transforms import ResizeShortestEdge
from la_det.evaluation import CrowdHumanEvaluator

from .coco import dataloader

dataloader.train.dataset = L(load_annotated_records)(names="crowdhuman_train")
dataloader.train.mapper.augmentations = [
    L(ResizeShortestEdge)(short_edge_length=800, max_size=1400, sample_style="choice"),
    L(T.RandomFlip)(horizontal=True),
]
dataloader.test.dataset.names = "crowdhuman_val"
dataloader.test.mapper.augmentations[0].max_size = 1400
dataloader.evaluator = L(CrowdHumanEvaluator)(dataset_name="${..test.dataset.names}")
