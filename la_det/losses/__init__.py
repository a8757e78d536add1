"""The formulas of the losses; what fvcore or torchvision has is used from there."""
