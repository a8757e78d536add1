#!/usr/bin/env python3
"""Train or evaluate a LazyConfig, in one process, several (`--num-gpus`), or under torchrun."""

from __future__ import annotations

import argparse

from detectron2.engine import default_argument_parser

from la_det.engine.launch import launch
from la_det.engine.train import main

EXAMPLES = """
examples:
  train:              %(prog)s --config-file projects/POTO/configs/poto_r18_fpn_shapes_tiny.py
  go on after a stop: %(prog)s --config-file CONFIG --resume
  evaluate:           %(prog)s --config-file CONFIG --eval-only train.init_checkpoint=output/model_final.pth
  own data:           %(prog)s --config-file CONFIG --dataset coco:train_images,train.json,val_images,val.json
  8 GPUs:             %(prog)s --config-file CONFIG --num-gpus 8
  torchrun:           torchrun --nproc-per-node 8 %(prog)s --config-file CONFIG
"""


def parse_args() -> argparse.Namespace:
    parser = default_argument_parser(epilog=EXAMPLES)
    parser.description = __doc__
    parser.add_argument(
        "--dataset",
        metavar="coco:IMAGES,JSON[,IMAGES,JSON]",
        help="train on this COCO-format data, evaluate on the second pair (else on the first); sets the class count",
    )
    return parser.parse_args()


if __name__ == "__main__":
    args = parse_args()
    launch(main, args)
