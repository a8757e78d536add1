#!/usr/bin/env python3
"""Train or evaluate a LazyConfig: in one process, in several (--num-gpus), or under torchrun."""

from __future__ import annotations

import argparse

from la_det.engine.launch import launch
from la_det.engine.own_dataset import FORMAT
from la_det.engine.train import main

EXAMPLES = """
examples:
  train:              %(prog)s --config-file POTO/poto_r18_fpn_shapes_tiny train.output_dir=output/poto
  go on after a stop: %(prog)s --config-file CONFIG --resume train.output_dir=output/poto
  start anew there:   %(prog)s --config-file CONFIG --overwrite train.output_dir=output/poto
  evaluate:           %(prog)s --config-file CONFIG --eval-only train.init_checkpoint=output/poto/model_final.pth
  change an option:   %(prog)s --config-file CONFIG train.max_iter=5000 optimizer.lr=0.005
  own data:           %(prog)s --config-file CONFIG --dataset coco:train_images,train.json,val_images,val.json
  other forms:        %(prog)s --config-file CONFIG --dataset yolo:data.yaml (or voc:FOLDER, odgt:IMAGES,ODGT)
  8 GPUs:             %(prog)s --config-file CONFIG --num-gpus 8
  torchrun:           torchrun --nproc-per-node 8 %(prog)s --config-file CONFIG

The config.yaml in a run's output folder lists all options of the config, and is itself a config file. A Python config
is a program: run only those that you trust. A YAML config and a checkpoint run no code.

At SIGTERM, SIGINT or train.preemption_signal, a training ends after the present step, with a checkpoint and exit status
128 + the signal's number. A second signal ends it at once.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; Detectron2's flags keep their names."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="LazyConfig: file or name")
    parser.add_argument("--eval-only", action="store_true", help="evaluate train.init_checkpoint")
    of_run = parser.add_mutually_exclusive_group()
    of_run.add_argument("--resume", action="store_true", help="go on from the last checkpoint in train.output_dir")
    of_run.add_argument(
        "--overwrite", action="store_true", help="start anew; a run in the folder is kept as OUTPUT_DIR.old-1"
    )
    parser.add_argument(
        "--break-lock", action="store_true", help="take train.output_dir from another training that uses it"
    )
    parser.add_argument(
        "--dataset",
        metavar="DATASET",
        help=f"own data, for training and evaluation; sets the number of classes (docs/data.md): {FORMAT}",
    )
    parser.add_argument("--num-gpus", type=int, default=1, help="processes on this machine, each with one GPU (or CPU)")
    parser.add_argument("--num-machines", type=int, default=1, help="machines that take part")
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="where the processes meet: tcp://MACHINE_0:PORT")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="options of the config to change")
    return parser


if __name__ == "__main__":
    launch(main, build_parser().parse_intermixed_args())
