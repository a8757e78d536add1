"""Masks of detections, as CondInst computes them (ECCV 2020)."""

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor

from la_det.modeling.heads.dynamic_mask_head import mask_logits
from la_det.modeling.layers.aligned_bilinear import aligned_bilinear
from la_det.structures import DensePredictions

THRESHOLD = 0.5  # a pixel belongs to an instance if its probability is larger
_PIXELS = 1 << 25  # upper bound of the probabilities in the output's size that exist at a time


class MaskInference:
    """Mask probabilities of detections, at half the stride of the mask features: a quarter of the input's size."""

    # The head's image branches that inference needs.
    image_branches = ("mask_features",)

    @torch.no_grad()
    def __call__(self, predictions: DensePredictions, prior: Tensor) -> Tensor:
        """Mask probabilities [N, D, 2 h, 2 w]: the sigmoids of `logits`."""
        return self.logits(predictions, prior).sigmoid()

    def logits(self, predictions: DensePredictions, prior: Tensor) -> Tensor:
        """Mask logits [N, D, 2 h, 2 w].

        Args:
            predictions: with the maps "controller" and "mask_features" [N, C, h, w].
            prior: [N, D] the detections' priors.
        """
        features, priors = predictions.image_maps["mask_features"], predictions.priors
        image = torch.arange(prior.shape[0], device=prior.device).unsqueeze(-1).expand_as(prior).flatten()
        flat = prior.flatten()
        parameters = predictions.at("controller", image, flat)
        grid = priors.points[: features.shape[2] * features.shape[3]]
        logits = mask_logits(features, grid, image, parameters, priors.points[flat], priors.strides[flat])
        return logits.view(*prior.shape, *logits.shape[1:])


def paste_masks(instances: Instances, image_size: tuple[int, int], stride: int) -> None:
    """Turns an image's `mask_probabilities` into `pred_masks` [n, *instances.image_size] bool.

    Args:
        instances: detections in the size of the wanted output, from `to_instances`.
        image_size: (height, width) of the network input before padding.
        stride: stride of the mask probabilities, pixels of the network input.
    """
    probabilities, output_size = instances.mask_probabilities, instances.image_size
    masks = torch.empty(len(probabilities), *output_size, dtype=torch.bool, device=probabilities.device)
    pixels = max(output_size[0] * output_size[1], image_size[0] * image_size[1])
    chunk = max(_PIXELS // pixels, 1)
    for out, part in zip(masks.split(chunk), probabilities.split(chunk), strict=True):
        p = aligned_bilinear(part.unsqueeze(1), stride)[..., : image_size[0], : image_size[1]]
        p = F.interpolate(p, size=output_size, mode="bilinear", align_corners=False).squeeze(1)
        out[:] = p > THRESHOLD
    instances.remove("mask_probabilities")
    instances.pred_masks = masks
