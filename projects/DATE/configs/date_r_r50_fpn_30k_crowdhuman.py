from ....configs.common.date_30k_crowdhuman import dataloader, lr_multiplier, optimizer, train, use_crowdhuman
from ....configs.common.models.date_r import model

use_crowdhuman(model)
