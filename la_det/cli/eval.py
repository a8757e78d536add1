"""Evaluate trained weights on the config's test set, or on your own data.

Results and predictions go to the folder evaluation/<name of the weights' file> in the output folder. AP without and
with NMS and duplicates are measured too (task nms_gap).
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from la_det.cli.arguments import add_config, add_run, add_weights

EXAMPLES = """
examples:
  weights of a run:  %(prog)s output/poto/config.yaml output/poto/model_final.pth
  downloaded:        %(prog)s POTO/poto_r50_fpn_3x_ms_coco poto.pth --output output/poto
  with NMS:          %(prog)s CONFIG WEIGHTS model.inference.nms_threshold=0.6
  other data:        %(prog)s CONFIG WEIGHTS --dataset coco:train_images,train.json,test_images,test.json
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The options."""
    add_config(parser, flags)
    add_weights(parser, flags)
    add_run(parser, flags)


def run(args: Namespace) -> None:
    """Evaluate in as many processes as the arguments say."""
    from la_det.engine.launch import launch

    launch(in_every_process, args)


def in_every_process(args: Namespace) -> None:
    """The part of one process."""
    from la_det.api import evaluate

    evaluate(args.config, args.weights, overrides=args.opts, dataset=args.dataset, output=args.output)
