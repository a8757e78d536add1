"""The module that is exported: `AssignmentDetector.detect` and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from la_det.modeling import AssignmentDetector


class ExportGraph(nn.Module):
    """Module from normalised, padded images [N, 3, H, W] float32 to at most D detections per image.

    Outputs: boxes [N, D, 4] XYXY pixels of the input, scores [N, D] (0 beyond the count), classes [N, D] int64, priors
    [N, D] int64, counts [N] int64. The first `counts` entries of an image are its detections, by descending score. For
    instance segmentation there are also masks [N, D, H / 4, W / 4], probabilities.

    Args:
        detector: detector on the CPU or a GPU. Parts that inference does not need are removed from it.
        raw: whether NMS and the choice of the best `max_detections` are left out; D is then the number of candidates.
        half: whether weights and network have half precision. Inputs, outputs, decoding and scores stay float32.
    """

    def __init__(self, detector: AssignmentDetector, *, raw: bool = False, half: bool = False):
        super().__init__()
        self.detector = detector.inference_only().requires_grad_(False)
        self.dtype = torch.float16 if half else torch.float32
        self.detector.to(self.dtype)
        if raw:
            rule = self.detector.inference
            rule.nms_threshold, rule.max_detections = None, rule.candidate_rule.topk * self.detector.head.num_levels

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs; `image_sizes` [N, 2] int64 (height, width before padding) only if boxes are clipped."""
        return ["images", "image_sizes"] if self.detector.inference.clip else ["images"]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs, in their order."""
        masks = [] if self.detector.mask_inference is None else ["masks"]
        return ["boxes", "scores", "classes", "priors", "counts", *masks]

    def forward(self, images: Tensor, image_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        found, masks = self.detector.detect(images.to(self.dtype), image_sizes)
        scores = found.scores.masked_fill(~found.valid, 0.0)
        outputs = (found.boxes, scores, found.classes, found.priors, found.counts)
        return outputs if masks is None else (*outputs, masks)

    def example(self, batch_size: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Example inputs of this size."""
        device = next(self.parameters()).device
        images = torch.zeros(batch_size, 3, height, width, device=device)
        sizes = torch.tensor([[height, width]], device=device).repeat(batch_size, 1)
        return (images, sizes)[: len(self.input_names)]
