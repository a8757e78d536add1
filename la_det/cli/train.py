"""Train a config: in one process, in several (--num-gpus), or under torchrun.

The config.yaml in a run's output folder lists all options of the config, and is itself a config file. A Python config
is a program: run only those that you trust. A YAML config and a checkpoint run no code.

At SIGTERM, SIGINT or train.preemption_signal, a training ends after the present step, with a checkpoint and exit status
128 + the signal's number. A second signal ends it at once.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from la_det.cli.arguments import add_config, add_run

EXAMPLES = """
examples:
  train:              %(prog)s POTO/poto_r18_fpn_shapes_tiny --output output/poto
  go on after a stop: %(prog)s CONFIG --resume --output output/poto
  start anew there:   %(prog)s CONFIG --overwrite --output output/poto
  change an option:   %(prog)s CONFIG train.max_iter=5000 optimizer.lr=0.005
  own data:           %(prog)s CONFIG --dataset coco:train_images,train.json,val_images,val.json --image-size 640
  other forms:        %(prog)s CONFIG --dataset yolo:data.yaml (or voc:FOLDER, odgt:IMAGES,ODGT)
  fine-tune:          %(prog)s CONFIG --dataset yolo:data.yaml --from output/poto/model_final.pth --epochs 12
  8 GPUs:             %(prog)s CONFIG --num-gpus 8
  torchrun:           torchrun --nproc-per-node 8 -m la_det train CONFIG
"""


def add_arguments(parser: ArgumentParser, flags: bool) -> None:
    """The options; with `flags` those of Detectron2's tools/lazyconfig_train_net.py."""
    add_config(parser, flags)
    if flags:
        parser.add_argument("--eval-only", action="store_true", help="evaluate train.init_checkpoint")
    else:
        parser.set_defaults(eval_only=False)
    of_run = parser.add_mutually_exclusive_group()
    of_run.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    of_run.add_argument(
        "--overwrite", action="store_true", help="start anew; a run in the folder is kept as OUTPUT_DIR.old-1"
    )
    parser.add_argument(
        "--break-lock", action="store_true", help="take the output folder from another training that uses it"
    )
    add_run(parser, flags)
    parser.add_argument(
        "--epochs",
        type=float,
        metavar="N",
        help="length of the training (default: the recipe's; with --dataset it follows the number of images)",
    )
    parser.add_argument("--image-size", type=int, metavar="N", help="short side of test images; other sizes follow")
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help="resnet18, resnet34, resnet50, resnet101 or timm:NAME, with weights of ImageNet",
    )
    parser.add_argument(
        "--batch", type=int, metavar="N", help="images of all GPUs in a step; learning rate and iterations follow"
    )
    parser.add_argument(
        "--from", dest="weights", metavar="FILE", help="begin with trained weights, also of other classes"
    )


def run(args: Namespace) -> None:
    """Train in as many processes as the arguments say."""
    from la_det.engine.launch import launch

    launch(in_every_process, args)


def in_every_process(args: Namespace) -> None:
    """The part of one process."""
    from la_det.api import evaluate, train

    common = {"dataset": args.dataset, "overrides": args.opts, "output": args.output, "resume": args.resume}
    if args.eval_only:
        evaluate(args.config, **common)
        return
    fitting = {name: vars(args)[name] for name in ("epochs", "image_size", "backbone", "batch", "weights")}
    train(args.config, **common, **fitting, overwrite=args.overwrite, break_lock=args.break_lock)
