from ....configs.common.data.crowdhuman import dataloader
from ....configs.common.optim import AdamW as optimizer
from ....configs.common.schedules import multistep
from .o2f_r50_fpn_1x_coco import model, train

# 50 epochs of 938 iterations; the learning rate drops after 40.
lr_multiplier = multistep(46900, (37520,))
train.max_iter = 46900
model.num_classes = 1
model.criteria[0].matcher.update(topk=4, num_epochs=50)
model.inference.candidates.topk = 5000
model.inference.max_detections = 500
optimizer.update(lr=4e-5, weight_decay=1e-4)
optimizer.params.weight_decay_norm = None
# Any integer from 480 to 960.
dataloader.train.mapper.augmentations[0].update(short_edge_length=(480, 960), sample_style="range")
dataloader.train.mapper.image_format = "RGB"
