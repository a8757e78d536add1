"""The inference rules of o2f and o2f-CondInst against loops over locations and classes, with limits that bind."""

import pytest
import torch
from detectron2.config import instantiate

from la_det import model_zoo
from la_det.structures import DensePredictions, LTRBCodec, PointGenerator

K, GRIDS = 3, [(6, 8), (3, 4), (2, 2)]
THRESHOLD = 0.4


@pytest.fixture
def predictions() -> DensePredictions:
    torch.manual_seed(0)
    priors = PointGenerator(strides=(8, 16, 32))(GRIDS, torch.device("cpu"))
    channels = {"logits": K, "boxes": 4, "quality": 1}
    maps = {name: [torch.randn(2, c, *size) for size in GRIDS] for name, c in channels.items()}
    return DensePredictions(priors, LTRBCodec(), maps | {"boxes": [x.exp() * 10 for x in maps["boxes"]]})


def expected_detections(predictions, image, rule, topk, max_detections):
    """(score, prior, class) by descending score."""
    cls = predictions.joined("logits")[image].sigmoid().T
    p = cls * predictions.joined("quality")[image].sigmoid().T
    found, starts = [], predictions.priors.level_starts
    for start, end in zip(starts[:-1], starts[1:], strict=True):
        locations = sorted(range(start, end), key=lambda m: -p[m].max())
        if rule == "condinst":
            kept = locations[:topk]
            found += [(p[m, c].item(), m, c) for m in kept for c in range(K) if cls[m, c] > THRESHOLD]
        else:
            pairs = [(p[m, c].item(), m, c) for m in locations for c in range(K) if p[m, c] > THRESHOLD]
            found += sorted(pairs, reverse=True)[:topk]
    return sorted(found, reverse=True)[:max_detections]


@pytest.mark.parametrize("rule", ["o2f", "condinst"])
@pytest.mark.parametrize(("topk", "max_detections"), [(1000, 1000), (5, 5), (12, 10), (5, 40)])
def test_rule(predictions, rule, topk, max_detections):
    name = "O2F/o2f_condinst_r50_fpn_1x_coco" if rule == "condinst" else "O2F/o2f_r50_fpn_1x_coco"
    config = model_zoo.get_config(name).model.inference
    config.update(score_threshold=THRESHOLD, max_detections=max_detections)
    config.candidates.topk = topk
    detections = instantiate(config)(predictions, torch.tensor([(48, 64)] * 2))
    for image in range(2):
        expected = expected_detections(predictions, image, rule, topk, max_detections)
        valid = detections.valid[image]
        assert valid.sum() == len(expected) > 0
        assert detections.priors[image][valid].tolist() == [m for _, m, _ in expected]
        assert detections.classes[image][valid].tolist() == [c for _, _, c in expected]
        assert detections.scores[image][valid].tolist() == pytest.approx([p for p, _, _ in expected])
