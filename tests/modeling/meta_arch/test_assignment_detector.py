import copy

import pytest
import torch
from detectron2.config import instantiate
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from la_det import model_zoo
from la_det.modeling import AssignmentDetector


@pytest.fixture(scope="module")
def model() -> AssignmentDetector:
    """POTO with 3DMF and Aux in its small form."""
    torch.manual_seed(0)
    config = model_zoo.get_config("POTO/poto_3dmf_aux_r18_fpn_shapes_tiny")
    config.train.max_iter = 200
    return instantiate(config.model)


def image(boxes: list, height: int = 64, width: int = 80, **fields) -> dict:
    generator = torch.Generator().manual_seed(len(boxes))
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    instances = Instances((height, width), gt_boxes=Boxes(boxes), gt_classes=torch.zeros(len(boxes), dtype=torch.int64))
    pixels = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    return {"image": pixels, "instances": instances} | fields


@pytest.mark.parametrize("boxes", [[[[8, 8, 40, 40]], []], [[], []], [[[0, 0, 80, 64]] * 3, [[1, 1, 2, 2]]]])
def test_training(model, boxes):
    """With objects in some, none and all of the images."""
    model.train()
    losses = model([image(b) for b in boxes])
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_cls_aux"}
    assert all(loss.isfinite() for loss in losses.values())
    model.zero_grad()
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_images_of_different_sizes_are_padded(model):
    model.eval()
    alone = model([image([], 64, 64)])[0]["instances"]
    together = model([image([], 64, 64), image([], 64, 96)])
    assert together[0]["instances"].image_size == (64, 64)
    assert together[1]["instances"].image_size == (64, 96)
    assert len(together[0]["instances"]) <= 100
    assert alone.image_size == (64, 64)


def test_output_has_the_wanted_size(model):
    model.eval()
    with torch.no_grad():
        for parameter in (model.head.predictors["main"].logits.bias, model.head.predictors["main"].filter.bias):
            parameter.add_(8)
        (result,) = model([image([], height=64, width=80) | {"height": 128, "width": 160}])
        for parameter in (model.head.predictors["main"].logits.bias, model.head.predictors["main"].filter.bias):
            parameter.sub_(8)
    instances = result["instances"]
    assert instances.image_size == (128, 160)
    assert (instances.scores > 0.05).all()
    assert (instances.scores.diff() <= 0).all()
    assert (instances.pred_boxes.tensor >= 0).all()
    assert (instances.pred_boxes.tensor <= torch.tensor([160, 128, 160, 128])).all()


def test_detect_gives_what_the_model_returns(model):
    model.eval()
    inputs = [image([], 64, 64), image([], 64, 96)]
    images = model.preprocess_image(inputs)
    model.inference.score_threshold = 0.0
    with torch.no_grad():
        detections, masks = model.detect(images.tensor, torch.tensor(images.image_sizes))
        results = model(inputs)
    model.inference.score_threshold = 0.05
    assert masks is None
    assert detections.boxes.shape == (2, 100, 4)
    for i, result in enumerate(results):
        found = result["instances"]
        assert 0 < len(found) <= detections.counts[i]
        kept = torch.isin(detections.priors[i], found.priors)
        assert torch.isin(found.scores, detections.scores[i, kept]).all()


def test_inference_does_not_evaluate_aux(model):
    stripped = copy.deepcopy(model).eval()
    stripped.criteria = torch.nn.ModuleList()
    assert len(stripped([image([])])) == 1


def test_progress_follows_the_trainers_iteration(model):
    assert model.max_iter == 200
    assert model.progress() == 0
    with EventStorage(50):
        assert model.progress() == 0.25
    with EventStorage(1000):
        assert model.progress() == 1


def test_pixels_are_normalised(model):
    white = {"image": torch.full((3, 32, 32), 255, dtype=torch.uint8)}
    normalised = model.preprocess_image([white]).tensor
    expected = (255 - model.pixel_mean) / model.pixel_std
    torch.testing.assert_close(normalised[0], expected.expand(3, 32, 32))


def test_registered_and_statistics_stay_out_of_checkpoints(model):
    assert META_ARCH_REGISTRY.get("AssignmentDetector") is AssignmentDetector
    assert not any("pixel" in key for key in model.state_dict())


def test_assignments_leave_the_model_as_it_is(model):
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    poto, aux = model.assignments([image([[8, 8, 40, 40]]), image([])], progress=0.5)
    assert len(poto.assignment.pairs) == 1 < len(aux.assignment.pairs)
    assert poto.targets.counts == (1, 0)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
