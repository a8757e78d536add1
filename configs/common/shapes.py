"""The setting of the `*_r50_fpn_shapes` twins: ResNet-50 from random weights on 256-pixel Shapes, AMP, for a GPU."""

from .data.shapes import shapes as dataloader
from .models.backbone import resnet_fpn, torchvision_pixels
from .shapes_tiny import fit_to_shapes, lr_multiplier, optimizer, train


def make_twin(model):
    """Turns a recipe's model config into its twin: 10 classes, norms that random weights need, scaled sizes."""
    model.update(num_classes=10, **torchvision_pixels)
    model.backbone = resnet_fpn(50, norm="BN", freeze_at=0)
    fit_to_shapes(model)


optimizer.lr = 1e-3
train.max_iter = 9000
train.amp.enabled = True
