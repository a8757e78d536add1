"""CondInst's masks of detections."""

import torch
import torch.nn.functional as F
from torch import Tensor

from la_det.modeling.heads.dynamic_mask_head import mask_logits
from la_det.modeling.layers.aligned_bilinear import aligned_bilinear
from la_det.structures import DensePredictions

_PIXELS = 1 << 25  # of the probabilities that exist at a time in the output's size


class MaskInference:
    """Binary masks of an image's detections, in the size of the wanted output.

    Args:
        threshold: pixels belong to an instance if their probability is larger.
    """

    # The head's image branches that inference needs.
    image_branches = ("mask_features",)

    def __init__(self, *, threshold: float = 0.5):
        self.threshold = threshold

    @torch.no_grad()
    def __call__(
        self,
        predictions: DensePredictions,
        image: int,
        prior: Tensor,
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> Tensor:
        """Masks [n, *output_size] bool.

        Args:
            predictions: with the maps "controller" and "mask_features".
            image: index of the image.
            prior: [n] the detections' priors.
            image_size: (height, width) of the network input before padding.
            output_size: (height, width) of the wanted output.
        """
        masks = torch.empty(len(prior), *output_size, dtype=torch.bool, device=prior.device)
        pixels = max(output_size[0] * output_size[1], image_size[0] * image_size[1])
        chunk = max(_PIXELS // pixels, 1)
        for out, part in zip(masks.split(chunk), prior.split(chunk), strict=True):
            out[:] = self._probabilities(predictions, image, part, image_size, output_size) > self.threshold
        return masks

    def logits(self, predictions: DensePredictions, image: int, prior: Tensor) -> Tensor:
        """Mask logits [n, 2 h, 2 w] at half the stride of the mask features."""
        features, priors = predictions.image_maps["mask_features"], predictions.priors
        index = torch.full_like(prior, image)
        parameters = predictions.at("controller", index, prior)
        grid = priors.points[: features.shape[2] * features.shape[3]]
        return mask_logits(features, grid, index, parameters, priors.points[prior], priors.strides[prior])

    def _probabilities(
        self,
        predictions: DensePredictions,
        image: int,
        prior: Tensor,
        image_size: tuple[int, int],
        output_size: tuple[int, int],
    ) -> Tensor:
        p = self.logits(predictions, image, prior).sigmoid().unsqueeze(1)
        p = aligned_bilinear(p, predictions.priors.level_strides[0] // 2)[..., : image_size[0], : image_size[1]]
        return F.interpolate(p, size=output_size, mode="bilinear", align_corners=False).squeeze(1)
