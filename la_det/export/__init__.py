"""Detectors as graphs that run without this project: ONNX, TorchScript and torch.export."""
