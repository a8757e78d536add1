"""Both ends of a detector: from images to a batch, and from detections to instances.

`la_det.deploy` has those of exported files, which do without torch.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from la_det.deploy.images import of_one_size
from la_det.modeling.inference import Candidates, to_instances
from la_det.modeling.mask_inference import paste_masks


def detect_apart(detect: Callable[[list[dict]], list[dict]], inputs: Sequence[dict], divisor: int) -> list[dict]:
    """The outputs of a detector for dicts with "image" [C, h, w], each as if it were alone; see `of_one_size`."""
    outputs: dict[int, dict] = {}
    for group in of_one_size([tuple(x["image"].shape[-2:]) for x in inputs], divisor):
        outputs |= zip(group, detect([inputs[i] for i in group]), strict=True)
    return [outputs[i] for i in range(len(inputs))]


def divisor_of(model: nn.Module) -> int:
    """What divides the padded sizes of a detector with a backbone."""
    return max(getattr(getattr(model, "backbone", None), "size_divisibility", 1), 1)


def normalised(images: Sequence[Tensor], size: tuple[int, int], mean: Tensor, std: Tensor) -> Tensor:
    """A batch [N, C, H, W] of images [C, h, w], minus the mean, divided by the standard deviation, padded with zeros.

    Args:
        images: images on the device of `mean`.
        size: (H, W), at least the size of every image.
        mean, std: [C, 1, 1].
    """
    batch = mean.expand(len(images), -1, *size).clone()  # padding is the mean, which becomes 0
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[1], : image.shape[2]].copy_(image)
    return batch.sub_(mean).div_(std)


def outputs(
    batched_inputs: list[dict],
    image_sizes: Sequence[tuple[int, int]],
    detections: Candidates,
    masks: Tensor | None,
    padded_width: int,
) -> list[dict]:
    """`[{"instances": Instances}]`, one per image, in the pixels of the wanted outputs.

    Args:
        batched_inputs: N dicts, optionally with "height" and "width" of the wanted output.
        image_sizes: (height, width) of the images that the network saw, before padding.
        detections: detections of the N images.
        masks: mask probabilities [N, D, h, w] of the padded images.
        padded_width: width of the batch, W.
    """
    wanted = [(x.get("height", h), x.get("width", w)) for x, (h, w) in zip(batched_inputs, image_sizes, strict=True)]
    instances = to_instances(detections, image_sizes, wanted, masks)
    if masks is not None:
        for found, size in zip(instances, image_sizes, strict=True):
            paste_masks(found, size, padded_width // masks.shape[-1])
    return [{"instances": x} for x in instances]
