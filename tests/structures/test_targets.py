from dataclasses import replace

import torch
from detectron2.structures import BitMasks, Boxes, Instances

from la_det.structures import PointGenerator, Targets, count


def instances(boxes: list, ignored: list[bool] | None = None, size=(100, 120)) -> Instances:
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    result = Instances(size, gt_boxes=Boxes(boxes), gt_classes=torch.arange(len(boxes)))
    if ignored is not None:
        result.ignored = torch.tensor(ignored, dtype=torch.bool)
    return result


def test_from_instances():
    batch = [instances([[0, 0, 10, 20], [4, 4, 8, 6]]), instances([], size=(64, 64)), instances([[1, 2, 3, 4]])]
    targets = Targets.from_instances(batch)
    assert len(targets) == 3
    assert targets.num_images == 3
    assert targets.counts == (2, 0, 1)
    assert targets.image.tolist() == [0, 0, 2]
    assert targets.classes.tolist() == [0, 1, 0]
    assert targets.image_sizes == ((100, 120), (64, 64), (100, 120))
    assert targets.areas.tolist() == [200, 8, 4]
    assert targets.centers.tolist() == [[5, 10], [6, 5], [2, 3]]
    assert targets.ignored is None
    assert targets.objects.tolist() == [0, 1, 2]


def test_without_ignored():
    batch = [
        instances([[0, 0, 10, 20], [4, 4, 8, 6]], [True, False]),
        instances([[1, 1, 5, 5]], [True]),
        instances([[1, 2, 3, 4]]),
    ]
    targets = Targets.from_instances(batch)
    assert targets.ignored.tolist() == [True, False, True, False]
    assert targets.objects.tolist() == [1, 3]
    kept = targets.without_ignored()
    assert kept.boxes.tolist() == [[4, 4, 8, 6], [1, 2, 3, 4]]
    assert kept.classes.tolist() == [1, 0]
    assert kept.image.tolist() == [0, 2]
    assert kept.counts == (1, 0, 1)
    assert kept.num_images == 3
    assert kept.ignored is None
    assert kept.without_ignored() is kept


def test_alone():
    batch = [
        instances([[0, 0, 10, 20], [4, 4, 8, 6]], [False, True]),
        instances([]),
        instances([[1, 2, 3, 4]], size=(64, 64)),
    ]
    for i, found in enumerate(batch):
        found.gt_masks = BitMasks(torch.full((len(found), *found.image_size), bool(i)))
    alone = Targets.from_instances(batch).alone(torch.tensor([2, 1]))
    assert alone.boxes.tolist() == [[1, 2, 3, 4], [4, 4, 8, 6]]
    assert alone.classes.tolist() == [0, 1] and alone.ignored.tolist() == [False, True]
    assert alone.image.tolist() == [0, 1] and alone.counts == (1, 1)
    assert alone.image_sizes == ((64, 64), (100, 120))
    assert [(m.shape, m.all().item()) for m in alone.masks.of_images] == [((1, 64, 64), True), ((1, 100, 120), False)]


def test_no_ground_truth_at_all():
    targets = Targets.from_instances([instances([]), instances([])])
    assert len(targets) == 0
    assert targets.boxes.shape == (0, 4)
    assert targets.image.dtype == torch.int64
    assert targets.counts == (0, 0)


def test_count_is_bincount():
    index = torch.tensor([2, 0, 2, 2])
    assert torch.equal(count(index, 5), torch.bincount(index, minlength=5))
    assert count(index[:0], 2).tolist() == [0, 0]


def test_what_is_found_once_is_of_these_targets_and_priors():
    targets, calls = Targets.from_instances([instances([[0, 0, 8, 8]])]), []
    priors, others = (PointGenerator(strides=(8,))([(n, n)], torch.device("cpu")) for n in (2, 3))

    def find(priors, targets):
        calls.append(len(priors))
        return len(calls)

    assert [targets.once(find, p) for p in (priors, others, priors, others)] == [1, 2, 1, 2]
    assert calls == [4, 9]
    assert replace(targets).once(find, priors) == targets.alone(torch.tensor([0])).once(find, priors) - 1 == 3
