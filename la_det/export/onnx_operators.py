"""ONNX forms of operators that torch's exporter does not know."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision  # noqa: F401 (defines its operators)
from onnxscript import ir, opset19
from onnxscript import opset18 as op  # the least that files can have; the exporter only raises versions

import la_det.nms  # noqa: F401 (defines la_det::agnostic_nms and la_det::class_nms)


def class_nms(boxes, scores, classes, valid, iou_threshold: float):
    """`la_det::class_nms` in ONNX, with a row of scores for each class, in which boxes of other classes take no part.

    So unchanged boxes are compared. If an image has few boxes, torchvision moves the boxes of different classes apart
    instead, which rounds them.
    """
    one = op.Constant(value_ints=[1])
    numbers = op.Range(op.Constant(value_int=0), op.ReduceMax(classes, keepdims=0) + op.Constant(value_int=1), 1)
    of_class = op.Equal(op.Unsqueeze(classes, one), op.Unsqueeze(numbers, op.Constant(value_ints=[0, 2])))
    takes_part = op.And(of_class, op.Unsqueeze(valid, one))
    rows = op.Where(takes_part, op.Unsqueeze(scores, one), op.Constant(value_float=-1.0))
    kept = op.NonMaxSuppression(
        boxes,
        rows,
        op.Shape(scores, start=1),  # all boxes of a class may stay
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[-0.5]),
    )
    image_and_box = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)
    nothing = op.ConstantOfShape(op.Shape(valid), value=ir.tensor([False]))
    survives = op.ConstantOfShape(op.Shape(kept, start=0, end=1), value=ir.tensor([True]))
    return op.ScatterND(nothing, image_and_box, survives)


def agnostic_nms(boxes, scores, valid, iou_threshold: float):
    """`la_det::agnostic_nms` as that of one class."""
    return class_nms(boxes, scores, op.Sub(op.Cast(valid, to=7), op.Cast(valid, to=7)), valid, iou_threshold)


def deform_conv2d(
    x,
    weight,
    offset,
    mask,
    bias,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
):
    """torchvision's operator in ONNX, which has the same operator since opset 19."""
    return opset19.DeformConv(
        x,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        strides=[stride_h, stride_w],
        pads=[pad_h, pad_w, pad_h, pad_w],
        dilations=[dilation_h, dilation_w],
        group=groups,
        offset_group=offset_groups,
    )


TRANSLATIONS: dict[Callable, Callable] = {
    torch.ops.la_det.agnostic_nms.default: agnostic_nms,
    torch.ops.la_det.class_nms.default: class_nms,
    torch.ops.torchvision.deform_conv2d.default: deform_conv2d,
}
