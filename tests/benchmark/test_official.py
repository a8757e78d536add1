"""The comparison with official code, on checkouts made here; what it imports of its framework is the stand-ins."""

import sys
from pathlib import Path

import pytest
import torch

from la_det.benchmark import official, stand_ins
from la_det.benchmark.matching import SCHEMES
from la_det.benchmark.scene import make_scene
from la_det.cli import bench, build_parser
from la_det.errors import UserError

# Detectors with the interfaces of the official ones, and the readable references of the tests as their rules.
FCOS = """
import torch
from cvpods.layers import ShapeSpec, cat, generalized_batched_nms
from cvpods.modeling.box_regression import Shift2BoxTransform
from cvpods.modeling.losses import iou_loss, sigmoid_focal_loss_jit
from cvpods.modeling.meta_arch.fcos import Scale
from cvpods.modeling.meta_arch.retinanet import permute_all_cls_and_box_to_N_HWA_K_and_concat as rows
from cvpods.utils import comm, get_event_storage
from la_det.references.poto import fcos


class FCOS(torch.nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.names, self.strides = cfg.MODEL.FCOS.IN_FEATURES, cfg.MODEL.FCOS.FPN_STRIDES
        self.radius = cfg.MODEL.FCOS.CENTER_SAMPLING_RADIUS
        self.backbone = cfg.build_backbone(cfg, input_shape=ShapeSpec(channels=3))
        assert set(self.backbone.output_shape()) == set(self.names)
        self.shift_generator = cfg.build_shift_generator(cfg, [])
        self.head = torch.nn.Identity()
        self.transform = Shift2BoxTransform(weights=cfg.MODEL.FCOS.BBOX_REG_WEIGHTS)

    def forward(self, inputs):
        features = self.backbone(self.preprocess_image(inputs).tensor)
        logits, boxes = self.head([features[name] for name in self.names])
        positives = self.get_ground_truth(self.shift_generator(features), [x["instances"] for x in inputs])
        logits, boxes = rows(logits, boxes, 80)
        gts, positive = torch.cat([gt for gt, _, _ in positives]), torch.cat([p for _, p, _ in positives])
        one_hot = torch.zeros_like(logits)
        one_hot[positive, torch.cat([c for _, _, c in positives])] = 1
        count = comm.all_reduce(len(gts)) / comm.get_world_size()
        box_loss = iou_loss(boxes[positive], gts, box_mode="ltrb", loss_type="giou", reduction="sum")
        cls_loss = sigmoid_focal_loss_jit(logits, one_hot, alpha=0.25, gamma=2.0, reduction="sum")
        return {"loss_cls": FACTOR * cls_loss / count, "loss_box_reg": box_loss / count}

    def get_ground_truth(self, shifts, targets):
        found = []
        for i, (levels, target) in enumerate(zip(shifts, targets)):
            points, gts = cat(levels), target.gt_boxes.tensor
            numbers = torch.tensor([len(x) for x in levels])
            level = torch.arange(len(levels)).repeat_interleave(numbers)
            matched = fcos(points, torch.tensor(self.strides)[level].float(), level, gts, self.radius)
            positive = (matched >= 0).nonzero().squeeze(1)
            deltas = self.transform.get_deltas(points[positive], gts[matched[positive]])
            boxes = self.transform.apply_deltas(deltas, points[positive])
            torch.testing.assert_close(boxes, gts[matched[positive]])
            found.append((deltas, i * len(points) + positive, target.gt_classes[matched[positive]]))
        get_event_storage().put_scalar("positives", len(found))
        return found
"""
FCOS_CONFIG = """
from cvpods.configs.fcos_config import FCOSConfig


class Config(FCOSConfig):
    def __init__(self):
        super().__init__()
        values = dict(BBOX_REG_WEIGHTS=(1.0, 1.0, 1.0, 1.0), CENTER_SAMPLING_RADIUS=1.5)
        self._register_configuration(dict(MODEL=dict(FCOS=values), SOLVER=dict(IMS_PER_BATCH=16)))


config = Config()
"""
DW_HEAD = """
import torch
from mmcv.cnn import bias_init_with_prob, normal_init, Scale
from mmcv.ops import deform_conv2d
from mmcv.runner import force_fp32
from mmdet.core import bbox_overlaps, distance2bbox, multi_apply, reduce_mean
from mmdet.models import HEADS, AnchorFreeHead
from mmdet.models.dense_heads.paa_head import levels_to_images
from la_det.references import dw


@HEADS.register_module()
class DWHead(AnchorFreeHead):
    def __init__(self, *args, reg_refine=True, norm_cfg=None, **kwargs):
        super().__init__(*args, norm_cfg=norm_cfg, **kwargs)
        assert not reg_refine
        self.prior_generator.offset = 0.5

    @force_fp32(apply_to=("cls_scores",))
    def loss(self, cls_scores, bbox_preds, objectnesses, gt_bboxes, gt_labels, img_metas):
        sizes = [x.shape[-2:] for x in cls_scores]
        levels = self.prior_generator.grid_priors(sizes, torch.float32, cls_scores[0].device)
        self.strides_of_all = torch.cat([x.new_full((len(x),), s) for x, s in zip(levels, self.strides)])
        maps = [levels_to_images(x) for x in (cls_scores, objectnesses, bbox_preds)]
        *losses, reduced = multi_apply(self.single, *maps, gt_bboxes, gt_labels, points=torch.cat(levels))
        positive, box, negative = (sum(x) for x in losses)
        count = reduce_mean(torch.tensor(float(sum(map(len, gt_labels)))))
        return dict(a=positive / count, b=box / count, c=negative / sum(reduced).clamp(min=1))

    def single(self, logits, quality, ltrb, gts, classes, points):
        boxes = distance2bbox(points, ltrb)
        aligned = bbox_overlaps(boxes[:3], boxes[:3], is_aligned=True)
        loss = self.loss_bbox(boxes[:3], boxes[:3], weight=None, reduction_override="none")
        torch.testing.assert_close(1 - loss, aligned)
        with torch.no_grad():
            weights = dw.weights(logits, quality[:, 0], boxes, points, self.strides_of_all, gts, classes)
        return *dw.losses(logits, quality[:, 0], boxes, gts, classes, *weights), (1 - weights[1]).sum()
"""
DW_CONFIGS = {
    "dw_r50_fpn_1x_coco.py": """
model = dict(bbox_head=dict(type="DWHead", num_classes=80, in_channels=256, strides=[8, 16, 32, 64, 128],
                            loss_bbox=dict(type="GIoULoss", loss_weight=1.0)))
""",
    "dw_r50_fpn_worefine_1x_coco.py": "model = dict(bbox_head=dict(reg_refine=False))",
}


@pytest.fixture
def defcn(tmp_path: Path) -> Path:
    folder = tmp_path / "defcn" / "playground/detection/coco" / official.DEFCN["fcos_wo_ctrness"]
    folder.mkdir(parents=True)
    (folder / "fcos.py").write_text(FCOS.replace("FACTOR", "1"))
    (folder / "config.py").write_text(FCOS_CONFIG)
    return tmp_path / "defcn"


@pytest.fixture
def dw(tmp_path: Path) -> Path:
    (tmp_path / "dw" / "configs").mkdir(parents=True)
    (tmp_path / "dw" / "dw_head.py").write_text(DW_HEAD)
    for name, text in DW_CONFIGS.items():
        (tmp_path / "dw" / "configs" / name).write_text(text)
    return tmp_path / "dw"


def run(*arguments) -> None:
    threads = torch.get_num_threads()
    try:
        bench.run(build_parser("bench").parse(["official", *map(str, arguments)]))
    finally:
        torch.set_num_threads(threads)


def test_table(capsys, defcn, dw):
    schemes = ["fcos_wo_ctrness", "dw"]
    run("--defcn", defcn, "--dw", dw, "--schemes", *schemes, "--gts", 5, "--turns", 2)
    header, _, fcos_row, dw_row = (
        [c.strip() for c in x.split("|")[1:-1]] for x in capsys.readouterr().out.splitlines()
    )
    assert header == official.HEADER
    assert fcos_row[:2] == ["fcos_wo_ctrness", "5"] and dw_row[:2] == ["dw", "5"]
    assert all(fcos_row) and fcos_row[4].endswith("x")
    assert dw_row[2:5] == ["", "", ""] and all(dw_row[5:]), "DW weights in its losses"
    assert not any(name.split(".")[0] in ("cvpods", "mmcv", "mmdet") for name in sys.modules)


def test_other_losses(defcn):
    for path in defcn.rglob("fcos.py"):
        path.write_text(FCOS.replace("FACTOR", "1.001"))
    with pytest.raises(UserError, match="fcos_wo_ctrness: the losses sum to .* in the official code; expected"):
        run("--defcn", defcn, "--schemes", "fcos_wo_ctrness", "--gts", 5)


def test_gradients_go_to_the_maps(defcn):
    theirs = official.defcn(defcn, "fcos_wo_ctrness", make_scene(5))
    sum(theirs.losses().values()).backward()
    assert all(x.grad is not None for x in theirs.maps) and len(theirs.maps) == 10
    theirs.train()
    assert all(x.grad is None for x in theirs.maps)
    assert theirs.assign()[0][0][0].shape[1] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to compare with: give a checkout by --defcn DIR or --dw DIR"),
        (["--dw", "here", "--schemes", "poto"], "--schemes poto: it needs a checkout, --defcn DIR"),
        (["--defcn", "here", "--schemes", "dw"], "--schemes dw: it needs a checkout, --dw DIR"),
        (
            ["--defcn", "here", "--schemes", "poto"],
            "--defcn here: it has no playground/detection/coco/poto.res50.fpn.coco.800size.3x_ms/fcos.py; "
            "expected is a checkout of https://github.com/Megvii-BaseDetection/DeFCN",
        ),
        (
            ["--dw", "here"],
            "--dw here: it has no dw_head.py; expected is a checkout of https://github.com/strongwolf/DW",
        ),
    ],
)
def test_what_is_missing_is_named(options, message):
    with pytest.raises(UserError) as raised:
        run(*options)
    assert str(raised.value) == message


def test_imports_that_the_stand_ins_lack(tmp_path):
    path = tmp_path / "fcos.py"
    path.write_text("from cvpods.layers import DeformConv")
    with pytest.raises(UserError, match=f"{path}: cannot import name 'DeformConv' from 'cvpods.layers'"):
        stand_ins.load(path, stand_ins.CVPODS)


def test_an_installed_framework_comes_back(tmp_path, monkeypatch):
    installed = type(sys)("cvpods")
    monkeypatch.setitem(sys.modules, "cvpods", installed)
    (tmp_path / "a.py").write_text("import cvpods.layers")
    stand_ins.load(tmp_path / "a.py", stand_ins.CVPODS)
    assert sys.modules["cvpods"] is installed and "cvpods.layers" not in sys.modules


def test_all_schemes_exist():
    assert {*official.DEFCN, official.DW} <= SCHEMES.keys()
