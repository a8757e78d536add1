"""The small setting of the `*_shapes_crowd` twins: crowds of one class in the odgt form, evaluated as CrowdHuman is.

The mapper removes ignored boxes, as that of configs/common/data/crowdhuman.py.
"""

from detectron2.config import LazyCall as L

from la_det.data.crowdhuman import load_annotated_records
from la_det.evaluation import CrowdHumanEvaluator

from .data.shapes import shapes_crowd as dataloader
from .shapes_tiny import lr_multiplier, optimizer, train
from .shapes_tiny import make_twin as make_tiny_twin


def make_twin(model):
    """Turns a recipe's model config into its small twin for persons in crowds."""
    make_tiny_twin(model, num_classes=1)
    model.inference.max_detections = 500


dataloader.train.dataset = L(load_annotated_records)(names="shapes_crowd_odgt_train")
dataloader.train.total_batch_size = 8
dataloader.test.dataset.names = "shapes_crowd_odgt_val"
dataloader.evaluator = L(CrowdHumanEvaluator)(dataset_name="${..test.dataset.names}")
train.max_iter = 1500
