"""Both ends of every detector, PyTorch's and ONNX's: from images to a batch, and from detections to instances."""

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from la_det.modeling.inference import Candidates, to_instances
from la_det.modeling.mask_inference import paste_masks


def padded_size(sizes: Sequence[tuple[int, int]], divisor: int) -> tuple[int, int]:
    """The least (height, width) that holds all `sizes` and that `divisor` divides."""
    height, width = (-(-max(side) // divisor) * divisor for side in zip(*sizes, strict=True))
    return height, width


def of_one_size(inputs: Sequence[dict], divisor: int) -> Iterator[list[int]]:
    """Indices of the inputs in groups whose images would alone be padded to the same size.

    A network sees the padding: norms average over it, and convolutions reach into it. In such a group, no image is
    padded for the sake of another one, so its detections do not depend on the others.

    Args:
        inputs: dicts with "image" [C, h, w].
        divisor: see `padded_size`.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for i, x in enumerate(inputs):
        groups.setdefault(padded_size([tuple(x["image"].shape[-2:])], divisor), []).append(i)
    yield from groups.values()


def detect_apart(detect: Callable[[list[dict]], list[dict]], inputs: Sequence[dict], divisor: int) -> list[dict]:
    """The outputs of a detector for the inputs, each as if it were alone; see `of_one_size`."""
    outputs: dict[int, dict] = {}
    for group in of_one_size(inputs, divisor):
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
