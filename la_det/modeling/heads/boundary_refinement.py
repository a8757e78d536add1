"""DW's box refinement (Li et al., CVPR 2022, section "box refinement")."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from la_det.modeling.heads.branch_predictor import BranchPredictor
from la_det.modeling.heads.tower import init_head_conv, on_levels
from la_det.structures import Priors


class BoundaryRefinement(nn.Module):
    """Reads each side of a box again from the coarse box that is predicted at a learnt point near this side's middle.

    All steps have gradients: there is no loss on the coarse boxes.

    Args:
        in_channels: channels of the box tower.
    """

    def __init__(self, *, in_channels: int = 256):
        super().__init__()
        self.offset = nn.Conv2d(in_channels, 8, 3, padding=1)
        init_head_conv(self.offset)

    def forward(self, features: list[Tensor], distances: list[Tensor], priors: Priors) -> list[Tensor]:
        """Refined distances of all levels.

        Args:
            features: L maps of the box tower.
            distances: L maps [N, 4, h, w], coarse (left, top, right, bottom) distances, pixels, float32.
            priors: one point per cell.
        """
        offsets = on_levels(self.offset, features)
        sizes = [h * w for h, w in priors.grid_sizes]
        return [
            refine(d, offset.float(), points.unflatten(1, d.shape[-2:]), stride)
            for d, offset, points, stride in zip(
                distances, offsets, priors.points.T.contiguous().split(sizes, 1), priors.level_strides, strict=True
            )
        ]


class RefinedPredictor(BranchPredictor):
    """A `BranchPredictor` of distances in pixels whose boxes are refined.

    Args:
        refinement: see `BoundaryRefinement`.
        options: of `BranchPredictor`.
    """

    def __init__(self, *, refinement: BoundaryRefinement, **options: Any):
        super().__init__(**options)
        self.refinement = refinement

    def box_maps(self, box_features: list[Tensor], scales: Sequence[Tensor | None], priors: Priors) -> list[Tensor]:
        """L maps [N, 4, h, w] float32 of refined distances, pixels."""
        return self.refinement(box_features, super().box_maps(box_features, scales, priors), priors)


def refine(distances: Tensor, offset: Tensor, points: Tensor, stride: int) -> Tensor:
    """Refined distances [N, 4, h, w] of one level, in pixels, from coarse distances.

    Args:
        distances: [N, 4, h, w] coarse (left, top, right, bottom), pixels.
        offset: [N, 8, h, w] displacements (dy, dx) of the four sides' points, in cells.
        points: [2, h, w] locations (x, y), pixels.
        stride: stride of the level, pixels.
    """
    coarse = torch.cat([points - distances[:, :2], points + distances[:, 2:]], 1)
    sides = sample(coarse, boundary_points(distances, offset, stride))
    return torch.cat([points - sides[:, :2], sides[:, 2:] - points], 1).relu()


def boundary_points(distances: Tensor, offset: Tensor, stride: int) -> Tensor:
    """Points where the four sides are read, relative to the location: [N, 8, h, w] (dy, dx) in cells; see `refine`."""
    left, top, right, bottom = (distances / stride).unbind(1)
    zero = torch.zeros_like(left)
    return offset + torch.stack([zero, -left, -top, zero, zero, right, bottom, zero], 1)


def sample(maps: Tensor, offset: Tensor) -> Tensor:
    """Values [N, C, h, w] of each map at its own displaced positions, by bilinear interpolation with zeros outside.

    torchvision's `deform_conv2d` with 1x1 kernels of ones and an offset group per map gives the same, but is slower:
    forward and backward on the levels of two 800 x 1344 images take 33 ms instead of 4 ms on one CPU thread, 37 ms
    instead of 2 ms on two. Positions are normalised in double precision, which takes a quarter of the time. Single
    precision would move them by up to 1e-5 cells, and some over the edge of a cell, where the gradient jumps.

    Args:
        maps: [N, C, h, w].
        offset: [N, 2 C, h, w], (dy, dx) of each map, in cells.
    """
    n, c, h, w = maps.shape
    dy, dx = offset.reshape(n * c, 2, h, w).unbind(1)
    y = torch.arange(h, device=maps.device).unsqueeze(-1) + dy
    x = torch.arange(w, device=maps.device) + dx
    grid = torch.stack([(2 * x.double() + 1) / w, (2 * y.double() + 1) / h], -1) - 1
    return F.grid_sample(maps.reshape(n * c, 1, h, w).double(), grid, align_corners=False).view(n, c, h, w).float()
