"""Trained twins on Shapes as official repositories would have published them: under their parameters' names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from la_det.conversion.repositories import AUTOASSIGN, DEFCN, DW, PAA, TOOD, Repository
from tests.conversion.official_state import MANIFESTS


@dataclass(frozen=True, eq=False)
class Twin:
    """A twin, and the repository under whose names it is published.

    Attributes:
        manifest: name of the manifest of an official model of the scheme.
        overrides: options of the config that the repository's weights need.
    """

    config: str
    repository: Repository
    manifest: str
    overrides: tuple[str, ...] = ()

    def published(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The twin's state dict under the official names, and the constants that official files have.

        Inverts the converter: the twin's names are among those that the official model's keys have after conversion.
        """
        keys = {self.repository.rename(key): key for key in MANIFESTS[self.manifest]["keys"]}
        official = {}
        for name, value in state.items():
            vector = [keys[f"{name}[{i}]"] for i in range(len(value))] if f"{name}[0]" in keys else []
            if vector:
                official |= dict(zip(vector, value, strict=True))
            elif name.endswith("num_batches_tracked"):  # which files of frozen norms do not have
                norm = keys[name.replace("num_batches_tracked", "running_var")]
                official[norm.replace("running_var", "num_batches_tracked")] = value
            else:
                official[keys[name]] = value
                if self.repository.values and name.endswith(".running_var"):  # maskrcnn-benchmark's have no eps
                    official[keys[name]] = value + 1e-5
        if self.repository is DW:
            official["bbox_head.center_prior.mean"] = torch.zeros(10, 2)
            official["bbox_head.center_prior.sigma"] = torch.full((10, 2), 1.11)
        return official


TWINS = (
    Twin("FCOS/fcos_r18_fpn_shapes_tiny", DEFCN, "defcn_fcos_coco"),
    Twin("AutoAssign/autoassign_r18_fpn_shapes_tiny", AUTOASSIGN, "autoassign_r50"),
    Twin("PAA/paa_r18_fpn_shapes_tiny", PAA, "paa_R_50_FPN_1x", ("model.head.predictors.main.priors.box_offset=1",)),
    Twin("TOOD/tood_r18_fpn_shapes_tiny", TOOD, "tood_r50"),
    Twin("DW/dw_r18_fpn_shapes_tiny", DW, "dw_r50_refine"),
)


def write_records(file: Path, expected: dict[Twin, float]) -> None:
    """Write the expected AP of twins in the form of `zoo.yaml`. The twins vary by rounding only."""
    lines = ["stand_in:", "  records:"]
    for twin, ap in expected.items():
        source = f"https://github.com/{twin.repository.name}"
        lines.append(f"    {twin.config}: {{source: {source}, noise: {{AP: 0.01}}, published: {{AP: {ap}}}}}")
    file.write_text("\n".join(lines) + "\n")
