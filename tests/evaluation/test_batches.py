import torch

from la_det.evaluation.batches import OneSizeBatches


def test_every_image_once_in_batches_of_one_padded_size():
    sizes = [(40, 64), (64, 40), (33, 50), (64, 64), (1, 1)]
    images = [{"image": torch.zeros(3, *size), "number": i} for i, size in enumerate(sizes)]
    loader = [images[:3], images[3:]]
    batches = OneSizeBatches(loader, 32)
    assert [[x["number"] for x in batch] for batch in batches] == [[0, 1, 2], [3], [4]]
    assert [[x["number"] for x in batch] for batch in OneSizeBatches(loader, 1)] == [[0], [1], [2], [3], [4]]
    assert len(batches) == 2
