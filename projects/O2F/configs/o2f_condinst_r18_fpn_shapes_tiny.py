from ....configs.common.models.o2f_condinst import model
from ....configs.common.shapes_tiny import dataloader, lr_multiplier, make_twin, optimizer, train

make_twin(model)
dataloader.train.mapper.update(use_instance_mask=True, instance_mask_format="bitmask")
