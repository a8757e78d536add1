"""What deployment costs and keeps: trained detectors in every runtime, in figures of `la-det bench deploy`.

A config has one JSON file with its figures. What it holds is not measured again, unless the weights are others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset
from detectron2.structures import Instances
from omegaconf import DictConfig
from tabulate import tabulate
from torch import nn

from la_det.benchmark.inference import OTHER_NMS, PARTS, Case, Stages, exported_stages, measure, torch_stages
from la_det.build import load_model
from la_det.checkpoint.checkpointer import write_json
from la_det.data.shapes import SHAPES, draw_scene
from la_det.deploy import Detector
from la_det.engine.setup import load_config
from la_det.errors import UserError
from la_det.export.export import calibration_images, export
from la_det.export.exported import ExportedDetector
from la_det.export.formats import Options
from la_det.export.int8 import import_nncf, write_int8
from la_det.export.openvino_files import import_openvino, onnx_to_openvino
from la_det.modeling import AssignmentDetector
from la_det.modeling.images import detect_apart

logger = logging.getLogger(__name__)

EXPORTED = {"onnx": "{}.onnx", "openvino": "{}.xml", "int8": "{}_int8.xml"}  # runtime -> its file of a config
TITLES = {
    "eager": "eager",
    "compile": "torch.compile",
    "onnx": "ONNX Runtime",
    "openvino": "OpenVINO",
    "int8": "OpenVINO, int8",
}
SIZES = 20  # of the images that are compared
MARKED = re.compile(r"(<!-- deploy: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Difference:
    """How far detections are from those of the eager model.

    Attributes:
        boxes: largest difference of a coordinate, pixels, of the (prior, class) pairs that both found.
        scores: largest difference of their scores.
        masks: largest share of the pixels of an image's masks that differ.
        common: number of these pairs.
        missing: number of detections that only one found, without those that tie with the last one.
    """

    boxes: float = 0.0
    scores: float = 0.0
    masks: float = 0.0
    common: int = 0
    missing: int = 0

    def __or__(self, other: Difference) -> Difference:
        """The difference in two images."""
        worst = (max(getattr(self, name), getattr(other, name)) for name in ("boxes", "scores", "masks"))
        return Difference(*worst, self.common + other.common, self.missing + other.missing)


def difference(expected: Instances, found: Instances, tie: float = 1e-4) -> Difference:
    """How far the detections of one image are from the expected ones.

    Args:
        tie: scores that differ by less may be ordered in another way.
    """
    rows = [{pair: i for i, pair in enumerate(_pairs(x))} for x in (expected, found)]
    last = max((x.scores.min().item() for x in (expected, found) if len(x)), default=0.0)
    missing = sum(
        instances.scores[i].item() > last + tie
        for instances, mine, others in ((expected, rows[0], rows[1]), (found, rows[1], rows[0]))
        for pair, i in mine.items()
        if pair not in others
    )
    common = [(i, rows[1][pair]) for pair, i in rows[0].items() if pair in rows[1]]
    if not common:
        return Difference(missing=missing)
    left, right = (torch.tensor(side) for side in zip(*common, strict=True))
    expected, found = expected[left], found[right]
    return Difference(
        boxes=(expected.pred_boxes.tensor - found.pred_boxes.tensor).abs().max().item(),
        scores=(expected.scores - found.scores).abs().max().item(),
        masks=(expected.pred_masks != found.pred_masks).float().mean().item() if expected.has("pred_masks") else 0.0,
        common=len(common),
        missing=missing,
    )


def _pairs(instances: Instances) -> list[tuple[int, int]]:
    return list(zip(instances.priors.tolist(), instances.pred_classes.tolist(), strict=True))


class Model:
    """A config with trained weights, its exported files, and its figures.

    Args:
        config: name of the config.
        weights: its checkpoint.
        results: folder of the records.
        output: folder of the exported files.

    Attributes:
        record: the figures: "bytes", "AP" and "difference" by runtime, "times" by case.
    """

    def __init__(self, config: str, weights: Path, results: Path, output: Path):
        self.name, self.weights, self.output = config, weights, output
        self.stem = config.rpartition("/")[2]
        self.config = load_config(config)
        self.config.train.device = "cpu"
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        self._record_file = results / f"{self.stem}.json"
        known = json.loads(self._record_file.read_text()) if self._record_file.exists() else {}
        self.record = known if known.get("weights") == digest else {"config": config, "weights": digest}

    def get(self, kind: str, key: str, compute: Callable[[], object]) -> object:
        """A figure of the record, which is computed and written if it is missing."""
        figures = self.record.setdefault(kind, {})
        if key not in figures:
            logger.info("%s: %s, %s", self.name, kind, key)
            figures[key] = compute()
            self.write()
        return figures[key]

    def write(self) -> None:
        """Write the record."""
        write_json(self._record_file, self.record)

    def load(self, nms: object = "own") -> AssignmentDetector:
        """The eager model, for inference; `nms` is another IoU threshold of NMS, None for no NMS."""
        model = load_model(self._with_nms(nms), str(self.weights))[0].inference_only()
        return model

    def _with_nms(self, nms: object) -> DictConfig:
        config = self.config.copy()
        if nms != "own":
            config.model.inference.nms_threshold = nms
        return config

    @property
    def nms(self) -> float | None:
        """IoU threshold of the recipe's NMS; None: no NMS."""
        return instantiate(self.config.model.inference).nms_threshold

    @property
    def other_nms(self) -> float | None:
        """The other choice, to measure what NMS costs."""
        return OTHER_NMS if self.nms is None else None

    def file(self, runtime: str, other: bool = False) -> Path:
        """The exported file of a runtime; `other`: with the other choice of NMS."""
        return self.output / EXPORTED[runtime].format(f"{self.stem}_other_nms" if other else self.stem)

    def export(self, runtimes: Collection[str], images: int) -> None:
        """Write the files that are missing, int8 with this number of calibration images; note their sizes."""
        for other in (False, True) if "onnx" in runtimes else (False,):
            config = self._with_nms(self.other_nms if other else "own")
            self._write("onnx", other, lambda file, c=config: export(c, self.name, self.weights, file, Options()))
        details = Detector(self.file("onnx"), threads=1).details
        if {"openvino", "int8"} & {*runtimes}:
            import_openvino()
            self._write("openvino", False, lambda file: onnx_to_openvino(self.file("onnx"), details, file))
        if "int8" in runtimes:
            import_nncf()
            calibration = calibration_images(self.config, Options(calibration_images=images))
            self._write("int8", False, lambda file: write_int8(self.file("openvino"), calibration, file))

    def _write(self, runtime: str, other: bool, write: Callable[[Path], object]) -> None:
        file, key = self.file(runtime, other), f"{runtime}{' other NMS' if other else ''}"
        if file.exists() and key in self.record.get("bytes", {}):
            return
        logger.info("%s: writing %s", self.name, file)
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file)
        self.get("bytes", key, lambda: sum(x.stat().st_size for x in {file, file.with_suffix(".bin")} if x.exists()))

    def detector(self, runtime: str) -> nn.Module:
        """The model in a runtime, as Detectron2's evaluation takes it."""
        if runtime in EXPORTED:
            return ExportedDetector(self.file(runtime)).eval()
        model = self.load()
        if runtime == "compile":
            model.predict = torch.compile(model.predict, dynamic=False)
        return model

    def accuracy(self, runtimes: Sequence[str]) -> None:
        """Measure AP on the config's test set, and differences to the eager model in images of many sizes."""
        test = self.config.dataloader.test
        test.num_workers, test.batch_size = 0, 1
        for runtime in runtimes:
            self.get("AP", runtime, lambda: self._ap(self.detector(runtime)))  # noqa: B023 (called at once)
            if runtime not in ("eager", "compile"):  # which would compile for every size
                self.get("difference", runtime, lambda: vars(self._difference(self.detector(runtime))))  # noqa: B023

    def _ap(self, detector: nn.Module) -> float:
        data = self.config.dataloader
        return inference_on_dataset(detector, instantiate(data.test), instantiate(data.evaluator))["bbox"]["AP"]

    @torch.no_grad()
    def _difference(self, detector: nn.Module) -> Difference:
        inputs, eager = images_of_sizes(SIZES), self.load()
        divisor = eager.backbone.size_divisibility
        expected, found = (detect_apart(model, inputs, divisor) for model in (eager, detector))
        result = Difference()
        for x, y in zip(expected, found, strict=True):
            result |= difference(x["instances"], y["instances"])
        return result

    def stages(self, runtimes: Sequence[str]) -> dict[tuple[str, float | None], Stages]:
        """What is timed: (runtime, NMS) -> stages. Eager and ONNX Runtime also have the other choice of NMS."""
        model, threads = self.load(), torch.get_num_threads()
        found: dict[tuple[str, float | None], Stages] = {}
        for runtime in runtimes:
            if runtime in EXPORTED:
                found[runtime, self.nms] = exported_stages(Detector(self.file(runtime), threads=threads))
            else:
                found[runtime, self.nms] = torch_stages(model, self.nms, compiled=runtime == "compile")
        if "eager" in runtimes:
            found["eager", self.other_nms] = torch_stages(model, self.other_nms)
        if "onnx" in runtimes:
            found["onnx", self.other_nms] = exported_stages(Detector(self.file("onnx", other=True), threads=threads))
        return found


def images_of_sizes(count: int) -> list[dict]:
    """Shapes images with sides between 40 and 230 pixels, each ratio different, as a data mapper returns them."""
    sizes = np.random.default_rng(0).integers(40, 231, (count, 2)).tolist()
    drawn = (draw_scene(SHAPES["shapes_tiny"], "val", i)[0] for i in range(count))
    return [_input(cv2.resize(image, tuple(size))) for image, size in zip(drawn, sizes, strict=True)]


def _input(bgr: np.ndarray) -> dict:
    return {"image": torch.from_numpy(np.ascontiguousarray(bgr[:, :, ::-1].transpose(2, 0, 1)))}


def time_all(models: Sequence[Model], runtimes: Sequence[str], batch_sizes: Sequence[int], repeats: int) -> None:
    """Time all cases of all models in turn, and write medians into the records."""
    inputs = [_input(draw_scene(SHAPES["shapes_tiny"], "val", i)[0]) for i in range(max(batch_sizes))]
    stages: dict[Case, Stages] = {}
    for model in models:
        for (runtime, nms), parts in model.stages(runtimes).items():
            stages |= {Case(model.name, nms, runtime, batch): parts for batch in batch_sizes}
    logger.info("%d cases in turn, %d times", len(stages), repeats)
    figures = measure(stages, inputs, repeats)
    for model in models:
        model.record["times"] = [
            {"nms": case.nms, "runtime": case.runtime, "batch": case.batch_size}
            | {part: row[part] for part in (*PARTS, "total")}
            for case, row in figures.items()
            if case.model == model.name
        ]
        model.record["threads"] = torch.get_num_threads()
        model.write()


def find_weights(folder: Path, config: str) -> Path:
    """The checkpoint of a config: `model_final.pth` in the first subfolder that begins with the config's name.

    Raises:
        UserError: there is none.
    """
    stem = config.rpartition("/")[2]
    found = [folder / f"{stem}{end}/model_final.pth" for end in ("", "_seed0")]
    for path in found:
        if path.exists():
            return path
    raise UserError(f"{config}: neither {found[0]} nor {found[1]} exists; train it, or leave the config out")


def run(args: argparse.Namespace) -> None:
    """Measure what the records do not have, as `la-det bench deploy` says, and print the tables."""
    logging.getLogger("la_det").setLevel(logging.INFO)
    torch.set_num_threads(args.threads)
    if args.weights:
        models = [Model(name, find_weights(args.weights, name), args.results, args.output) for name in args.configs]
        for model in models:
            if {*EXPORTED} & {*args.runtimes}:
                model.export(args.runtimes, args.calibration_images)
            if "accuracy" in args.parts:
                model.accuracy(args.runtimes)
        if "times" in args.parts:
            time_all(models, args.runtimes, args.batch_sizes, args.repeats)
    tables = render(read_records(args.results, args.configs))
    if args.page:
        text = args.page.read_text()
        args.page.write_text(fill(text, tables))
    print("\n\n".join(tables.values()))


def read_records(folder: Path, configs: Iterable[str]) -> list[dict]:
    """The records of the configs that have one, in this order."""
    files = (folder / f"{config.rpartition('/')[2]}.json" for config in configs)
    return [json.loads(file.read_text()) for file in files if file.exists()]


def fill(text: str, tables: Mapping[str, str]) -> str:
    """The text with each table in its place, between `<!-- deploy: NAME -->` and `<!-- end -->`."""
    return MARKED.sub(lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[3]}", text)


def render(records: Sequence[Mapping]) -> dict[str, str]:
    """The tables in Markdown: "runtimes" and "nms"."""
    return {"runtimes": _runtimes(records), "nms": _nms(records)}


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return tabulate(list(rows), header, tablefmt="pipe", disable_numparse=True)


def _title(record: Mapping) -> str:
    return record["config"].rpartition("/")[2].removesuffix("_r18_fpn_shapes_tiny")


def _find(record: Mapping, runtime: str, batch: int, other: bool = False) -> Mapping | None:
    """The times of a case: of the recipe's NMS, which is the runtime's first case, or of the other one."""
    found = [row for row in record.get("times", ()) if (row["runtime"], row["batch"]) == (runtime, batch)]
    return found[other] if len(found) > other else None


def _batches(records: Sequence[Mapping]) -> list[int]:
    return sorted({row["batch"] for record in records for row in record.get("times", ())})


def _runtimes(records: Sequence[Mapping]) -> str:
    batches = _batches(records)
    header = ["scheme", "runtime", "AP", "boxes px", "scores", "missing", "MB"]
    header += [f"batch {batch}: {part}" for batch in batches for part in ("prepare", "network", "output", "ms")]
    rows = []
    for record in records:
        for runtime in (x for x in TITLES if x in record.get("AP", {}) or _find(record, x, 1)):
            far, size = record.get("difference", {}).get(runtime), record.get("bytes", {}).get(runtime)
            ap = record.get("AP", {}).get(runtime)
            row = [_title(record), TITLES[runtime], "" if ap is None else f"{ap:.2f}"]
            row += [f"{far[x]:.2g}" if far else "" for x in ("boxes", "scores")]
            row.append(f"{far['missing']} of {far['missing'] + far['common']}" if far else "")
            row.append(f"{size / 1e6:.1f}" if size else "")
            for batch in batches:
                times = _find(record, runtime, batch)
                row += [f"{times[part]:.2f}" for part in (*PARTS, "total")] if times else [""] * 4
            rows.append(row)
    return _table(header, rows)


def _nms(records: Sequence[Mapping]) -> str:
    batches = _batches(records)
    header = ["scheme", "NMS of the recipe"]
    header += [
        f"{TITLES[runtime]}, batch {batch}: {text}"
        for runtime in ("eager", "onnx")
        for batch in batches
        for text in ("without", "with", "NMS ms")
    ]
    rows = []
    for record in records:
        cases = [[_find(record, x, b, other) for other in (False, True)] for x in ("eager", "onnx") for b in batches]
        if not cases or any(None in pair for pair in cases):
            continue
        row = [_title(record), str(cases[0][0]["nms"] or "none")]
        for pair in cases:
            without, with_nms = (x["total"] for x in sorted(pair, key=lambda x: x["nms"] is not None))
            row += [f"{without:.2f}", f"{with_nms:.2f}", f"{with_nms - without:.2f}"]
        rows.append(row)
    return _table(header, rows)
