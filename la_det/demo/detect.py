"""The work of `la-det detect`: from files to annotated pictures and detections."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from tabulate import tabulate

from la_det.demo.inputs import Frame, batches, read_frames
from la_det.demo.outputs import Detections, Pictures
from la_det.engine.setup import load_config
from la_det.errors import UserError
from la_det.predictor import Predictor


def build_predictor(
    config: str | None, weights: str | None, device: str | None = None, overrides: Sequence[str] = ()
) -> Predictor:
    """The predictor of a config and weights; `device` replaces the config's."""
    return Predictor(load_config(str(config), [*overrides, *([f"train.device={device}"] if device else [])]), weights)


def detect(predictor: Predictor, files: Sequence[Path], output: Path, min_score: float, batch_size: int) -> int:
    """Detect in all files, write pictures and detections to a folder, and return the exit status.

    Args:
        files: images and videos.
        min_score: smallest score of a detection that is kept.
        batch_size: images, or pictures of a video, in a batch.
    """
    output.mkdir(parents=True, exist_ok=True)
    unread: dict[Path, str] = {}
    detections = Detections(predictor.metadata)
    seconds = 0.0
    try:
        with Pictures(output, files, predictor.metadata) as pictures:
            for batch in batches(readable_frames(files, unread), batch_size):
                start = time.perf_counter()
                found = predictor([frame.image for frame in batch])
                seconds += time.perf_counter() - start
                for frame, instances in zip(batch, found, strict=True):
                    kept = instances[instances.scores >= min_score]
                    detections.add(frame, kept)
                    pictures.write(frame, kept)
    finally:  # also after an error or Ctrl-C
        detections.write(output)
    print(summary(detections, seconds))
    failed = unread.keys() | pictures.unwritten.keys()
    print(f"{len(files) - len(failed)} of {len(files)} files done; pictures and detections.json in {output}")
    for reason in [*unread.values(), *pictures.unwritten.values()]:
        print(f"not done: {reason}", file=sys.stderr)
    return 1 if failed else 0


def readable_frames(files: Sequence[Path], unread: dict[Path, str]) -> Iterator[Frame]:
    """All frames that can be read, with a progress bar; a file that cannot be read to its end goes into `unread`."""
    for file in track(files, "detecting", console=Console(stderr=True)):
        try:
            yield from read_frames(file)
        except UserError as error:
            unread[file] = str(error)


def summary(detections: Detections, seconds: float) -> str:
    """Number of detections of each class, and time per image."""
    names: Mapping[int, str] = {category["id"]: category["name"] for category in detections.categories}
    counts = Counter(names.get(d["category_id"], str(d["category_id"])) for d in detections.detections)
    rows = [*counts.most_common(), ("all", counts.total())]
    table = tabulate(rows, ["class", "detections"], tablefmt="pipe")
    images = len(detections.images)
    return f"{table}\n{images} images, {1000 * seconds / max(images, 1):.0f} ms per image in the model"
