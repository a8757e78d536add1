#!/usr/bin/env python3
"""Draw the pictures of the documents: one object of a Shapes image, and the locations that it gets under each scheme.

The pictures are those of the viewer (`la_det.visualization`), cut out around the object. Many schemes look at
predictions. So each scheme's small network (its twin on `shapes_tiny`) is first trained on this image alone, from
random weights, for STEPS steps of AdamW. That takes seconds, and says nothing about the quality of detectors.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import instantiate
from matplotlib.figure import Figure

from la_det import model_zoo
from la_det.build import build_model
from la_det.data.loader import map_record
from la_det.visualization.figure import draw
from la_det.visualization.snapshots import Moment, Scheme

IMAGES = Path(__file__).parent / "images"
IMAGE = 187  # number of the image in shapes_tiny_val; its largest object is shown
MARGIN = 0.4  # of the object's longer side, shown around it
STEPS, LEARNING_RATE, MIDDLE = 200, 1e-3, 0.5
DPI = 80
# Picture -> the number of columns, and (title, twin, progress) of each panel. A twin with two criteria has two panels.
PICTURES: dict[str, tuple[int, list[tuple[str, str, float]]]] = {
    "one_object": (
        3,
        [
            ("FCOS", "FCOS/fcos", MIDDLE),
            ("ATSS", "ATSS/atss", MIDDLE),
            ("TOOD", "TOOD/tood", MIDDLE),
            ("DW", "DW/dw", MIDDLE),
            ("o2f", "O2F/o2f", MIDDLE),
            ("POTO", "POTO/poto", MIDDLE),
        ],
    ),
    "schemes/FCOS": (1, [("FCOS", "FCOS/fcos", MIDDLE)]),
    "schemes/POTO": (3, [("POTO", "POTO/poto", MIDDLE), ("POTO + 3DMF + Aux", "POTO/poto_3dmf_aux", MIDDLE)]),
    "schemes/ATSS": (1, [("ATSS", "ATSS/atss", MIDDLE)]),
    "schemes/DynamicATSS": (
        2,
        [("Dynamic ATSS", "DynamicATSS/dynamic_atss", MIDDLE), ("ATSS", "ATSS/atss", MIDDLE)],
    ),
    "schemes/DW": (1, [("DW", "DW/dw", MIDDLE)]),
    "schemes/O2F": (2, [("o2f, first epoch", "O2F/o2f", 0.0), ("o2f, last epoch", "O2F/o2f", 1.0)]),
    "schemes/DATE": (2, [("DATE-F", "DATE/date_f", MIDDLE)]),
    "schemes/TOOD": (2, [("TOOD, first epochs: ATSS", "TOOD/tood", 0.0), ("TOOD, afterwards", "TOOD/tood", MIDDLE)]),
    "schemes/PAA": (1, [("PAA", "PAA/paa", MIDDLE)]),
    "schemes/AutoAssign": (1, [("AutoAssign", "AutoAssign/autoassign", MIDDLE)]),
    "schemes/LLA": (1, [("LLA", "LLA/lla", MIDDLE)]),
    "schemes/OTA": (2, [("OTA", "OTA/ota", MIDDLE), ("SimOTA", "OTA/simota", MIDDLE)]),
    "schemes/OneNet": (
        2,
        [("OneNet, bipartite", "OneNet/onenet_fcos", MIDDLE), ("OneNet, minimum", "OneNet/onenet_min", MIDDLE)],
    ),
    "schemes/DDQ": (2, [("DDQ FCN", "DDQ/ddq_fcn", MIDDLE)]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)} (default: all)")
    parser.add_argument("--output", type=Path, default=IMAGES, help="folder (default: docs/images)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Path(folder))
        for name in args.pictures or PICTURES:
            columns, wanted = PICTURES[name]
            file = args.output / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            studio.draw(columns, wanted).savefig(file, dpi=DPI, bbox_inches="tight")
            print(f"{file}: {file.stat().st_size} bytes")


class Studio:
    """Trains each network once, and draws the image.

    Args:
        folder: for the weights.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trained: dict[str, Path] = {}

    def draw(self, columns: int, wanted: Sequence[tuple[str, str, float]]) -> Figure:
        """The figure of some schemes, each a (title, twin, progress)."""
        panels, titles, picture = [], [], None
        for title, twin, progress in wanted:
            config = model_zoo.get_config(f"{twin}_r18_fpn_shapes_tiny")
            scheme = Scheme(title, config, config.dataloader.test.mapper.augmentations)
            dataset = config.dataloader.test.dataset
            record = instantiate(dataset)[IMAGE]
            if twin not in self.trained:
                self.trained[twin] = self._train(scheme, record, twin)
            found = scheme.panels([record], Moment(str(self.trained[twin]), progress))
            panels += found
            titles += [title] if len(found) == 1 else [f"{title}: {panel.criterion}" for panel in found]
            picture = scheme.picture(record, [""] * 100)
        rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
        figure = draw(picture, 0, rows)
        self._cut(figure, max(picture.boxes, key=lambda box: box[2] - box[0]), titles)
        return figure

    def _train(self, scheme: Scheme, record: dict, twin: str) -> Path:
        torch.manual_seed(0)
        model = build_model(scheme.config).train()
        optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)
        model.progress = lambda: MIDDLE
        example = map_record(scheme.mapper, record)
        for _ in range(STEPS):
            optimizer.zero_grad()
            sum(model([example]).values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
            optimizer.step()
        file = self.folder / twin / f"{STEPS} steps.pth"
        file.parent.mkdir(parents=True)
        torch.save({"model": model.state_dict()}, file)
        return file

    @staticmethod
    def _cut(figure: Figure, box: Sequence[float], titles: Sequence[str]) -> None:
        x1, y1, x2, y2 = box
        half = (0.5 + MARGIN) * max(x2 - x1, y2 - y1)
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        for axes, title in zip(figure.axes, titles, strict=False):
            axes.set(xlim=(x - half, x + half), ylim=(y + half, y - half))
            axes.set_title(title, fontsize=10)


if __name__ == "__main__":
    main()
