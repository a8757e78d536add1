import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig

import la_det
from la_det import Predictor, model_zoo
from la_det.errors import UserError

TINY = Path(__file__).parent / "cli" / "configs" / "tiny_poto.py"
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, size, dtype=np.uint8) for size in ((48, 64, 3), (64, 48, 3), (64, 64, 3))]


def shapes_config(name: str) -> DictConfig:
    """A small config that detects everywhere, so that there is something to compare."""
    config = model_zoo.get_config(name)
    config.model.inference.score_threshold = 0.0
    config.train.device = "cpu"
    return config


def weights_of(config: DictConfig, path: Path) -> Path:
    torch.manual_seed(0)
    model = instantiate(config.model)
    torch.save({"model": model.state_dict()}, path)
    return path


def test_is_imported_with_the_package():
    assert la_det.Predictor is Predictor
    with pytest.raises(AttributeError, match="no attribute 'Predicter'"):
        la_det.Predicter  # noqa: B018


@pytest.mark.parametrize("name", ["POTO/poto_r18_fpn_shapes_tiny", "O2F/o2f_condinst_r18_fpn_shapes_tiny"])
def test_detects_as_the_evaluation_does(name, tmp_path):
    """Arrays and files, padded to one size, against the test loader's mapper and the model itself."""
    config = shapes_config(name)
    predictor = Predictor(config, weights_of(config, tmp_path / "weights.pth"))
    assert predictor.metadata.thing_classes == MetadataCatalog.get("shapes_tiny_val").thing_classes
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, image in zip(files, IMAGES, strict=True):
        cv2.imwrite(str(file), image)
    mapper = instantiate(config.dataloader.test.mapper)
    with torch.no_grad():
        expected = predictor.model([mapper({"file_name": str(file)}) for file in files])
    for found in (predictor(IMAGES), predictor(files), predictor([files[0], *IMAGES[1:]])):
        for instances, of_model, image in zip(found, expected, IMAGES, strict=True):
            of_model = of_model["instances"]
            assert len(instances) == len(of_model) > 0 and instances.image_size == image.shape[:2]
            assert torch.equal(instances.pred_boxes.tensor, of_model.pred_boxes.tensor)
            assert torch.equal(instances.scores, of_model.scores)
            if "condinst" in name:
                assert torch.equal(instances.pred_masks, of_model.pred_masks)


def test_boxes_are_in_pixels_of_the_image(tmp_path):
    """Whatever size the config's test augmentation gives it."""
    config = shapes_config("POTO/poto_r18_fpn_shapes_tiny")
    config.dataloader.test.mapper.augmentations = model_zoo.get_config(
        "POTO/poto_r50_fpn_3x_ms_coco"
    ).dataloader.test.mapper.augmentations
    config.dataloader.test.mapper.augmentations[0].short_edge_length = 96
    (instances,) = Predictor(config, weights_of(config, tmp_path / "weights.pth"))(IMAGES[:1])
    assert instances.image_size == (48, 64)
    assert instances.pred_boxes.tensor.max() > 48
    assert (instances.pred_boxes.tensor <= torch.tensor([64, 48, 64, 48])).all()


def test_no_images(tmp_path):
    config = shapes_config("POTO/poto_r18_fpn_shapes_tiny")
    assert Predictor(config, weights_of(config, tmp_path / "weights.pth"))([]) == []


@pytest.mark.parametrize("image", [IMAGES[0][:, :, 0], IMAGES[0].astype(np.float32), IMAGES[0][:, :, :2]])
def test_other_arrays_are_refused(image, tmp_path):
    config = shapes_config("POTO/poto_r18_fpn_shapes_tiny")
    with pytest.raises(ValueError, match=r"\[H, W, 3\] of uint8"):
        Predictor(config, weights_of(config, tmp_path / "weights.pth"))([image])


def test_weights_without_the_training_branch(tmp_path):
    config = shapes_config("DATE/date_f_r18_fpn_shapes_tiny")
    whole = weights_of(config, tmp_path / "whole.pth")
    model = instantiate(config.model)
    model.load_state_dict(torch.load(whole)["model"])
    torch.save({"model": model.inference_only().state_dict()}, tmp_path / "part.pth")
    of_whole, of_part = (Predictor(config, path)(IMAGES) for path in (whole, tmp_path / "part.pth"))
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(of_whole, of_part, strict=True))


def test_detectron2_model(tmp_path):
    """Faster R-CNN is no model of this project, but one of its configs."""
    config = model_zoo.get_config("LLA/faster_rcnn_r50_fpn_30k_crowdhuman")
    config.dataloader.test.mapper.augmentations[0].short_edge_length = 64
    config.model.backbone.bottom_up.stages = {**config.model.backbone.bottom_up.stages, "depth": 18}
    del config.model.backbone.bottom_up.stages["stride_in_1x1"]
    config.model.roi_heads.box_predictor.test_score_thresh = 0.0
    config.train.device = "cpu"
    predictor = Predictor(config, weights_of(config, tmp_path / "weights.pth"))
    (instances,) = predictor(IMAGES[:1])
    assert len(instances) > 0 and predictor.metadata.thing_classes == ["person"]


class TestConfigAndWeights:
    def test_names_files_and_configs(self, tmp_path):
        config = shapes_config("POTO/poto_r18_fpn_shapes_tiny")
        weights = weights_of(config, tmp_path / "weights.pth")
        LazyConfig.save(config, str(tmp_path / "config.yaml"))
        name = "POTO/poto_r18_fpn_shapes_tiny"
        for given in (config, tmp_path / "config.yaml", name):
            assert len(Predictor(given, weights)(IMAGES)) == 3

    def test_own_data_names_its_classes_in_the_annotation_file(self, tmp_path):
        config = LazyConfig.load(str(TINY))
        categories = [{"id": 7, "name": "right"}, {"id": 3, "name": "left"}]
        (tmp_path / "val.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
        config.dataloader.test.dataset.names = str(
            tmp_path / "val.json"
        )  # as an earlier version's run with --dataset saved it
        weights = weights_of(config, tmp_path / "weights.pth")
        metadata = Predictor(config, weights).metadata
        assert metadata.thing_classes == ["left", "right"]
        assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
        config.dataloader.test.dataset.names = str(tmp_path / "deleted.json")
        assert Predictor(config, weights).metadata.thing_classes == ["0", "1"]

    def test_classes_are_those_of_the_weights(self, tmp_path):
        config = LazyConfig.load(str(TINY))
        config.dataloader.test.dataset.names = "deleted"
        config.dataloader.classes = {"names": ["of", "config"], "ids": [1, 2]}
        model = instantiate(config.model).state_dict()
        torch.save({"model": model, "classes": {"names": ["nut", "bolt"], "ids": ["n1", 14]}}, tmp_path / "own.pth")
        torch.save({"model": model, "classes": {"names": 3}}, tmp_path / "others.pth")
        metadata = Predictor(config, tmp_path / "own.pth").metadata
        assert metadata.thing_classes == ["nut", "bolt"]
        assert metadata.thing_dataset_id_to_contiguous_id == {"n1": 0, 14: 1}
        assert Predictor(config, tmp_path / "others.pth").metadata.thing_classes == ["of", "config"]

    def test_unknown_config(self, tmp_path):
        with pytest.raises(UserError, match="POTO/nothing: no such config file, and no name of"):
            Predictor("POTO/nothing", tmp_path / "weights.pth")

    def test_weights_of_another_model(self, tmp_path):
        weights = weights_of(model_zoo.get_config("POTO/poto_3dmf_r18_fpn_shapes_tiny"), tmp_path / "weights.pth")
        with pytest.raises(UserError, match="weights.pth: this checkpoint is of another model: .* unexpected"):
            Predictor("POTO/poto_r18_fpn_shapes_tiny", weights)

    def test_missing_weights(self):
        with pytest.raises(UserError, match="no trained weights: name a checkpoint"):
            Predictor("POTO/poto_r18_fpn_shapes_tiny", "")
        with pytest.raises(UserError, match="nowhere.pth: cannot get this checkpoint"):
            Predictor("POTO/poto_r18_fpn_shapes_tiny", "nowhere.pth")

    def test_other_number_of_classes(self, tmp_path):
        config = shapes_config("POTO/poto_r18_fpn_shapes_tiny")
        config.model.num_classes = 3
        with pytest.raises(UserError, match="the data set has 10 classes, the config 3"):
            Predictor(config, tmp_path / "weights.pth")

    def test_unreadable_file(self, tmp_path):
        config = shapes_config("POTO/poto_r18_fpn_shapes_tiny")
        with pytest.raises(UserError, match="nothing.jpg: cannot read this image"):
            Predictor(config, weights_of(config, tmp_path / "weights.pth"))([tmp_path / "nothing.jpg"])


@pytest.mark.parametrize(
    "name", ["POTO/poto_r18_fpn_shapes_tiny", "O2F/o2f_condinst_r18_fpn_shapes_tiny", "DDQ/ddq_fcn_r18_fpn_shapes_tiny"]
)
def test_an_image_has_the_same_detections_in_every_batch(name, tmp_path):
    """GroupNorm and convolutions would see the padding that a larger image makes necessary."""
    config = shapes_config(name)
    predictor = Predictor(config, weights_of(config, tmp_path / "weights.pth"))
    sizes = [(64, 96), (64, 64), (130, 50), (33, 90), (64, 70)]
    images = [RNG.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    for alone, together in zip([predictor([image])[0] for image in images], predictor(images), strict=True):
        assert len(alone) == len(together) > 0
        torch.testing.assert_close(together.scores, alone.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(together.pred_boxes.tensor, alone.pred_boxes.tensor, rtol=0, atol=0.05)
    assert predictor([]) == []
