"""The Faster R-CNN of the LLA repository as a config of Detectron2's model."""

import detectron2.model_zoo
from detectron2.config import instantiate

from la_det import model_zoo

NAME = "LLA/faster_rcnn_r50_fpn_30k_crowdhuman"


def test_recipe_of_faster_rcnn():
    model = instantiate(model_zoo.get_config(NAME).model)
    rpn, roi_heads = model.proposal_generator, model.roi_heads
    assert rpn.smooth_l1_beta == roi_heads.box_predictor.smooth_l1_beta == 1.0
    assert rpn.min_box_size == 2.0
    assert rpn.pre_nms_topk == {True: 12000, False: 6000} and rpn.post_nms_topk == {True: 2000, False: 1000}
    assert roi_heads.positive_fraction == 0.5 and roi_heads.num_classes == 1
    assert roi_heads.box_predictor.test_topk_per_image == 300


def test_faster_rcnn_needs_no_config_of_detectron2(monkeypatch):
    """Its main on the path has none, unless they are linked."""

    def missing(name):
        raise RuntimeError(f"{name} not available in Model Zoo!")

    monkeypatch.setattr(detectron2.model_zoo.model_zoo, "get_config_file", missing)
    assert model_zoo.get_config(NAME).model.roi_heads.num_classes == 1
