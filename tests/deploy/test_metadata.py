import json

import pytest

from la_det import model_zoo
from la_det.deploy.metadata import ExportMetadata
from la_det.errors import UserError
from la_det.export.metadata import metadata_of

NAME = "POTO/poto_r50_fpn_3x_ms_coco"


def describe(config, name: str = NAME) -> ExportMetadata:
    return metadata_of(config, name, 32, "none")


def test_says_how_images_are_prepared():
    metadata = describe(model_zoo.get_config(NAME))
    assert (metadata.short_edge, metadata.max_size) == (800, 1333)
    assert metadata.input_format == "BGR" and metadata.pixel_mean == (103.53, 116.28, 123.675)
    assert len(metadata.classes) == 80 and metadata.classes[0] == "person"
    assert len(metadata.category_ids) == 80 and metadata.category_ids[10:13] == (11, 13, 14)  # COCO has no 12
    assert (metadata.score_threshold, metadata.nms_threshold, metadata.max_detections) == (0.05, None, 100)
    assert ExportMetadata.from_strings(metadata.to_strings(), "file") == metadata


def test_images_that_are_not_resized():
    name = "POTO/poto_r18_fpn_shapes_tiny"
    metadata = describe(model_zoo.get_config(name), name)
    assert metadata.short_edge is None and metadata.max_size is None
    assert ExportMetadata.from_strings(metadata.to_strings(), "file") == metadata


def test_classes_without_names_are_numbered():
    config = model_zoo.get_config(NAME)
    config.dataloader.test.dataset.names = "unheard_of"
    config.model.num_classes = 3
    metadata = describe(config)
    assert metadata.classes == ("0", "1", "2") and metadata.category_ids == (0, 1, 2)


def test_ids_of_classes_may_be_strings():
    config = model_zoo.get_config(NAME)
    config.model.num_classes, config.dataloader.classes = 2, {"names": ["a", "b"], "ids": ["n01", 2**60]}
    metadata = describe(config)
    assert metadata.category_ids == ("n01", 2**60)
    assert ExportMetadata.from_strings(metadata.to_strings(), "file") == metadata


@pytest.mark.parametrize("strings", [{}, {"config": "POTO"}])
def test_files_of_others(strings):
    with pytest.raises(UserError, match="file.onnx: no metadata"):
        ExportMetadata.from_strings(strings, "file.onnx")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size_divisibility", 0),
        ("size_divisibility", 10**9),
        ("short_edge", "long"),
        ("max_size", -1),
        ("classes", []),
        ("classes", [1]),
        ("category_ids", [1]),
        ("pixel_std", [0, 1, 1]),
        ("pixel_mean", {"_target_": "os.system"}),
        ("input_format", "XYZ"),
        ("nms", "some"),
        ("score_threshold", None),
        ("max_detections", True),
    ],
)
def test_values_that_cannot_be(name, value):
    config = "POTO/poto_r18_fpn_shapes_tiny"
    strings = metadata_of(model_zoo.get_config(config), config, 32, "none").to_strings()
    with pytest.raises(UserError, match=f"file.onnx: its metadata says {name}=.*, which cannot be"):
        ExportMetadata.from_strings(strings | {name: json.dumps(value)}, "file.onnx")


def test_other_augmentations():
    config = model_zoo.get_config(NAME)
    config.dataloader.test.mapper.augmentations = config.dataloader.train.mapper.augmentations
    with pytest.raises(UserError, match="one ResizeShortestEdge"):
        describe(config)
