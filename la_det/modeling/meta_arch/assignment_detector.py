"""The one detector of this project: backbone, head with branches, criteria, inference."""

from collections.abc import Collection, Sequence

import torch
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.structures import ImageList
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from la_det.deploy.images import padded_size
from la_det.modeling.criteria import Criterion, Decision, loss_terms, reduce_losses
from la_det.modeling.heads import DenseHead
from la_det.modeling.images import divisor_of, normalised, outputs
from la_det.modeling.inference import Candidates, DenseInference
from la_det.modeling.mask_inference import MaskInference
from la_det.structures import DensePredictions, Targets, move, on_device


@META_ARCH_REGISTRY.register()
class AssignmentDetector(nn.Module):
    """A dense detector whose branches, matchers, losses and inference rule are configuration.

    Args:
        backbone: backbone with a feature pyramid.
        in_features: names of the backbone's L outputs, finest first.
        head: makes each branch's predictions.
        criteria: how branches are trained. All losses have different names.
        inference: rule that turns predictions into detections.
        inference_branch: name of the branch that inference reads.
        mask_inference: makes the masks of detections, for instance segmentation.
        num_classes: K. In configs the head's predictors refer to it, so one override changes it everywhere.
        pixel_mean, pixel_std: mean and standard deviation of the input channels, in the order of `input_format`.
        input_format: "BGR" or "RGB", for data mappers and drawing.
        max_iter: length of the training in iterations, for schemes with a schedule.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        in_features: Sequence[str] = ("p3", "p4", "p5", "p6", "p7"),
        head: DenseHead,
        criteria: Sequence[Criterion],
        inference: DenseInference,
        inference_branch: str = "main",
        mask_inference: MaskInference | None = None,
        num_classes: int = 80,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "BGR",
        max_iter: int = 90000,
    ):
        super().__init__()
        self.backbone = backbone
        self.in_features = list(in_features)
        self.head = head
        self.criteria = nn.ModuleList(criteria)
        self.inference = inference
        self.inference_branch = inference_branch
        self.mask_inference = mask_inference
        self.num_classes = num_classes
        self.input_format = input_format
        self.max_iter = max_iter
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses in training, `[{"instances": Instances}]` in evaluation, as with Detectron2's detectors.

        Args:
            batched_inputs: one dict per image with "image" [C, H, W]; in training also "instances" with `gt_boxes`,
                `gt_classes` and, for instance segmentation, `gt_masks`; in evaluation optionally "height" and "width"
                of the wanted output. All images are padded to one size, as in the official code, which changes the
                detections a little; `la_det.modeling.images.detect_apart` avoids this.
        """
        images = self.preprocess_image(batched_inputs)
        if self.training:
            targets = Targets.from_instances([x["instances"] for x in batched_inputs], self.device)
            return self.losses(self.predict(images.tensor), targets)
        detections, masks = self.detect(images.tensor, on_device(images.image_sizes, self.device))
        return outputs(batched_inputs, images.image_sizes, detections, masks, images.tensor.shape[-1])

    def detect(self, images: Tensor, image_sizes: Tensor) -> tuple[Candidates, Tensor | None]:
        """Detections from image tensors: the part of inference that is also exported.

        Args:
            images: [N, C, H, W] normalised and padded to multiples of the backbone's size divisibility.
            image_sizes: [N, 2] (height, width) before padding.

        Returns:
            Up to D detections per image, valid entries first, in pixels of the images. With `mask_inference` also the
            detections' mask probabilities [N, D, H / 4, W / 4], otherwise None.
        """
        predictions = self.predict(images, self._inference_branches)[self.inference_branch]
        detections = self.inference(predictions, image_sizes)
        return detections, self.mask_inference and self.mask_inference(predictions, detections.priors)

    @property
    def _inference_branches(self) -> list[str]:
        return [self.inference_branch, *(self.mask_inference.image_branches if self.mask_inference else ())]

    def inference_only(self) -> "AssignmentDetector":
        """Removes what inference does not run, criteria and other branches with their parameters, and returns itself.

        The rest gives the same detections. Its state dict fits every model of the config after this call.
        """
        for branches, name in self._training_branches():
            del branches[name]
        self.criteria = nn.ModuleList()
        return self.eval()

    def training_only_keys(self) -> set[str]:
        """Keys of the state dict that `inference_only` would remove."""
        unused = [self.criteria, *(branches[name] for branches, name in self._training_branches())]
        tensors = {id(t) for module in unused for t in module.state_dict(keep_vars=True).values()}
        return {key for key, tensor in self.state_dict(keep_vars=True).items() if id(tensor) in tensors}

    def _training_branches(self) -> list[tuple[nn.ModuleDict, str]]:
        """The head's branches that inference does not run, each with the dict that holds it."""
        both = (self.head.predictors, self.head.image_branches)
        return [(branches, name) for branches in both for name in set(branches) - set(self._inference_branches)]

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Normalises and pads the images."""
        images = [move(x["image"], self.device) for x in batched_inputs]
        sizes = [tuple(image.shape[-2:]) for image in images]
        size = padded_size(sizes, divisor_of(self))
        return ImageList(normalised(images, size, self.pixel_mean, self.pixel_std), sizes)

    def predict(self, images: Tensor, branches: Collection[str] | None = None) -> dict[str, DensePredictions]:
        """Predictions of each branch for normalised, padded images [N, C, H, W]."""
        features = self.backbone(images)
        return self.head([features[name] for name in self.in_features], branches)

    def losses(self, predictions: dict[str, DensePredictions], targets: Targets) -> dict[str, Tensor]:
        """Losses of all criteria, normalised over all processes, in single precision; empties `predictions`."""
        with torch.autocast(self.device.type, enabled=False):
            return reduce_losses(loss_terms(self.criteria, predictions, targets, self.progress()))

    @torch.no_grad()
    def assignments(self, batched_inputs: list[dict], progress: float) -> list[Decision]:
        """What each criterion would decide for the images with the present weights, to be looked at.

        The network runs in its present mode. In evaluation mode the model does not change.

        Args:
            batched_inputs: as in training.
            progress: share of the training that is done, 0..1.

        Returns:
            One decision per criterion, in the order of the criteria.
        """
        predictions = self.predict(self.preprocess_image(batched_inputs).tensor)
        targets = Targets.from_instances([x["instances"] for x in batched_inputs], self.device)
        with torch.autocast(self.device.type, enabled=False):
            return [criterion.assign(predictions[criterion.branch], targets, progress) for criterion in self.criteria]

    def progress(self) -> float:
        """Share of the training that is done, 0..1, from the trainer's iteration, which resuming restores."""
        try:
            iteration = get_event_storage().iter
        except AssertionError:  # called outside a trainer; Detectron2 0.6 has no other way to ask
            return 0.0
        return min(iteration / self.max_iter, 1.0)
