from ....configs.common.models.onenet_fcos import model
from ....configs.common.onenet_47k_crowdhuman import dataloader, lr_multiplier, optimizer, train, use_crowdhuman

use_crowdhuman(model)
