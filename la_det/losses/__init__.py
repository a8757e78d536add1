"""Formulas of losses that neither fvcore nor torchvision has."""
