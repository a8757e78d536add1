"""The module that is exported: `AssignmentDetector.detect` and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from la_det.modeling import AssignmentDetector


class ExportGraph(nn.Module):
    """Normalised, padded images [N, 3, H, W] float32 to detections; D is the largest number of them per image.

    Outputs: boxes [N, D, 4] XYXY pixels of the input, scores [N, D] (0 beyond the count), classes [N, D] int64, priors
    [N, D] int64, counts [N] int64: the first so many entries exist, by descending score; and for instance segmentation
    masks [N, D, H / 4, W / 4], probabilities.

    Args:
        detector: on the CPU or a GPU; it loses what inference does not need.
        raw: leave NMS and the best `max_detections` out: D is then the number of candidates.
        half: weights and network in half precision; inputs, outputs, decoding and scores stay float32.
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
        """`image_sizes` [N, 2] int64 (height, width before padding) is an input where boxes are clipped to it."""
        return ["images", "image_sizes"] if self.detector.inference.clip else ["images"]

    @property
    def output_names(self) -> list[str]:
        """In the order of the outputs."""
        masks = [] if self.detector.mask_inference is None else ["masks"]
        return ["boxes", "scores", "classes", "priors", "counts", *masks]

    def forward(self, images: Tensor, image_sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        found, masks = self.detector.detect(images.to(self.dtype), image_sizes)
        scores = found.scores.masked_fill(~found.valid, 0.0)
        outputs = (found.boxes, scores, found.classes, found.priors, found.counts)
        return outputs if masks is None else (*outputs, masks)

    def example(self, batch_size: int, height: int, width: int) -> tuple[Tensor, ...]:
        """Inputs of this size."""
        device = next(self.parameters()).device
        images = torch.zeros(batch_size, 3, height, width, device=device)
        sizes = torch.tensor([[height, width]], device=device).repeat(batch_size, 1)
        return (images, sizes)[: len(self.input_names)]
