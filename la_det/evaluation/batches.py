"""Batches of an evaluation, in which no image is padded for the sake of another one."""

from collections.abc import Collection, Iterator

from la_det.deploy.images import of_one_size


class OneSizeBatches:
    """The batches of a loader, divided into those of one padded size.

    So an image's detections do not depend on its batch. There are more batches than `len` says, which is the loader's
    number, if images of a batch differ in size.

    Args:
        loader: of lists of dicts with "image".
        divisor: what divides the model's padded sizes.
    """

    def __init__(self, loader: Collection[list[dict]], divisor: int):
        self.loader = loader
        self.divisor = divisor

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[dict]]:
        for batch in self.loader:
            for group in of_one_size([tuple(x["image"].shape[-2:]) for x in batch], self.divisor):
                yield [batch[i] for i in group]
