"""A detector of two classes that trains in seconds; `--dataset` sets its data."""

from ....configs.common.data.shapes import shapes_tiny as dataloader
from ....configs.common.models.backbone import resnet_fpn, torchvision_pixels
from ....configs.common.models.poto import model
from ....configs.common.optim import SGD as optimizer  # noqa: F401
from ....configs.common.schedules import one_cycle
from ....configs.common.train import train

model.update(num_classes=2, backbone=resnet_fpn(18, norm="BN", freeze_at=0, channels=16), **torchvision_pixels)
for _tower in (model.head.cls_tower, model.head.box_tower):
    _tower.update(num_convs=1, groups=4)
lr_multiplier = one_cycle()
dataloader.train.update(total_batch_size=4, num_workers=0, aspect_ratio_grouping=True)
dataloader.test.update(batch_size=2, num_workers=0)
train.update(max_iter=4, log_period=1, device="cpu")
