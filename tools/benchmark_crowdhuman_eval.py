#!/usr/bin/env python3
"""Time the CrowdHuman evaluation beside its rules written as loops, on generated data of CrowdHuman val's size.

Both versions see the same data in the same run, one after the other. Their numbers must agree.
"""

import _start as _start

import argparse
import time
from collections.abc import Callable

import numpy as np

from la_det.evaluation.crowdhuman import Detections, GroundTruth, evaluate_crowdhuman
from la_det.references import crowdhuman as crowdhuman_reference

SIZE = (800, 1400)  # height, width


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4370, help="default: %(default)s, as in CrowdHuman val")
    parser.add_argument("--detections", type=int, default=500, help="per image (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-reference", action="store_true", help="time the vectorised version only")
    return parser.parse_args(argv)


def make_image(rng: np.random.Generator, image_id: int, num_detections: int) -> tuple[GroundTruth, Detections]:
    """Persons in clusters, some of them ignored; detections are persons with jitter, which lowers the score."""
    num_gts = 1 + rng.poisson(22)
    centres = rng.uniform((100, 100), (SIZE[1] - 100, SIZE[0] - 100), (4, 2))[rng.integers(4, size=num_gts)]
    height = np.exp(rng.uniform(np.log(60), np.log(400), num_gts))
    size = np.stack((0.4 * height, height), axis=1)
    boxes = np.concatenate((centres + rng.normal(0, 90, (num_gts, 2)) - size / 2, size), axis=1).round()
    source = rng.integers(num_gts, size=num_detections)
    jitter = rng.exponential(0.12, num_detections)[:, None]
    det_boxes = boxes[source] + jitter * rng.normal(size=(num_detections, 4)) * np.tile(size[source], 2)
    det_boxes[:, 2:] = det_boxes[:, 2:].clip(min=2)
    scores = (np.exp(-4 * jitter[:, 0]) * rng.uniform(0.3, 1, num_detections)).clip(0.01)
    return GroundTruth(image_id, SIZE, boxes, rng.random(num_gts) < 0.08), Detections(det_boxes, scores)


def timed(function: Callable, *args: object) -> tuple[object, float]:
    start = time.process_time()  # both versions use one core, and the machine may have other work
    result = function(*args)
    return result, time.process_time() - start


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    rng = np.random.default_rng(args.seed)
    images = [make_image(rng, index, args.detections) for index in range(args.images)]
    ground_truths = [gt for gt, _ in images]
    detections = {gt.image_id: dets for gt, dets in images}

    result, seconds = timed(evaluate_crowdhuman, ground_truths, detections)
    print(f"{args.images} images x {args.detections} detections, {result.num_gt} counted persons; CPU seconds:")
    print(f"vectorised {seconds:8.2f}")
    if args.no_reference:
        return
    expected, reference_seconds = timed(crowdhuman_reference.evaluate, ground_truths, detections)
    worst = max(abs(getattr(result, name) - expected[name]) for name in ("AP", "mMR", "JI", "Recall"))
    print(f"loops      {reference_seconds:8.2f}, ratio {reference_seconds / seconds:.1f}")
    print(f"largest difference of AP, mMR, JI and Recall: {worst:.1e}")
    if worst > 1e-9:
        raise SystemExit("the two versions disagree")


if __name__ == "__main__":
    main()
