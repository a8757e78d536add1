"""What runs exported files: a class for each kind, in which files differ in nothing else."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from la_det.errors import UserError

METADATA = "la_det"  # section of an OpenVINO model's runtime information
METADATA_FILE = "la_det.json"  # inside TorchScript and torch.export archives
SHAPE = "shape"  # key in TorchScript's: shape of the input "images", null where it is free
OUTPUTS = ("boxes", "scores", "classes", "priors", "counts", "masks")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}  # of ONNX Runtime


class Runtime(ABC):
    """An exported file, called with arrays by the names of the inputs; it returns arrays by the names of the outputs.

    Attributes:
        strings: metadata of the file, as they are stored.
        input_names: names of the inputs, in their order.
        batch_size, image_size: fixed sizes of the input "images"; None: any size.
    """

    strings: Mapping[str, str]
    input_names: Sequence[str]
    batch_size: int | None = None
    image_size: tuple[int, int] | None = None

    @abstractmethod
    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]: ...

    def _fix(self, shape: Sequence[Any]) -> None:
        """Notes the fixed sizes of a shape [N, C, H, W], whose free sizes are not of type int."""
        batch, _, height, width = (size if isinstance(size, int) else None for size in shape)
        self.batch_size, self.image_size = batch, (height, width) if height and width else None


class OnnxRuntime(Runtime):
    """An ONNX file in ONNX Runtime."""

    def __init__(self, path: Path, device: str, threads: int | None):
        with needed("pip install 'la_det[export]', or onnxruntime-gpu for GPUs"):
            import onnxruntime
        provider = PROVIDERS.get(device)
        if provider not in onnxruntime.get_available_providers():
            raise UserError(f"{device}: this onnxruntime cannot use it; install onnxruntime-gpu, or take the CPU")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        # Threads that wait busily after a run would slow everything else down.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(str(path), options, providers=[provider])
        used = self._session.get_providers()[0]
        if used != provider:  # which ONNX Runtime only prints, or not even that
            raise UserError(
                f"{device}: onnxruntime took {used} instead; install the CUDA and cuDNN that it needs, or take the CPU"
            )
        self.strings = self._session.get_modelmeta().custom_metadata_map
        inputs = {x.name: x.shape for x in self._session.get_inputs()}
        self.input_names = list(inputs)
        self._names = [x.name for x in self._session.get_outputs()]
        if "images" in inputs:
            self._fix(inputs["images"])

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))


class OpenVino(Runtime):
    """An OpenVINO file. It computes in the file's own precision: by default OpenVINO rounds where the CPU can."""

    def __init__(self, path: Path, device: str, threads: int | None):
        with needed("pip install 'la_det[openvino]'"):
            import openvino
        if device != "cpu":
            raise UserError(f"{device}: OpenVINO runs on the CPU here")
        options = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
        core = openvino.Core()
        model = core.read_model(path)
        has_metadata = model.has_rt_info(METADATA)
        self.strings = dict(model.get_rt_info(METADATA).value) if has_metadata else {}
        self.input_names = [x.any_name for x in model.inputs]
        self._fix([side.get_length() if side.is_static else None for side in model.inputs[0].partial_shape])
        self._model = core.compile_model(model, "CPU", options)
        self._names = [x.any_name for x in self._model.outputs]

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self._model(dict(feeds))
        return {name: found[name] for name in self._names}


class _Torch(Runtime):
    """A module of torch, called with tensors in the order of the inputs."""

    _module: Any

    def __init__(self, device: str) -> None:
        with needed("pip install torch torchvision"):
            import torch

            import la_det.nms  # noqa: F401 (defines the operators of models with NMS)
        if device != "cpu" and not torch.cuda.is_available():
            raise UserError(f"{device}: torch finds no GPU; take the CPU")
        self._torch, self._device = torch, device

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self._torch.inference_mode():
            found = self._module(*(self._torch.from_numpy(feeds[x]).to(self._device) for x in self.input_names))
        return {name: x.cpu().numpy() for name, x in zip(OUTPUTS, found, strict=False)}


class TorchScript(_Torch):
    """A TorchScript archive."""

    def __init__(self, path: Path, device: str, threads: int | None):
        super().__init__(device)
        files = {METADATA_FILE: ""}
        self._module = self._torch.jit.load(path, map_location=device, _extra_files=files)
        self.strings = json.loads(files[METADATA_FILE] or "{}")
        self.input_names = ("images", "image_sizes")[: len(self._module.forward.schema.arguments) - 1]
        self._fix(json.loads(self.strings.get(SHAPE, "[null, null, null, null]")))


class TorchExport(_Torch):
    """A torch.export archive."""

    def __init__(self, path: Path, device: str, threads: int | None):
        super().__init__(device)
        files = {METADATA_FILE: ""}
        program = self._torch.export.load(path, extra_files=files)
        self.strings = json.loads(files[METADATA_FILE] or "{}")
        inputs = program.graph_signature.user_inputs
        self.input_names = ("images", "image_sizes")[: len(inputs)]
        values = {node.name: node.meta.get("val") for node in program.graph.nodes}
        self._fix(values[inputs[0]].shape)
        # Its guards refuse small images, for which the results are right.
        self._module = program.module(check_guards=False).to(device)


@contextmanager
def needed(remedy: str) -> Iterator[None]:
    """Imports of optional packages; if one is missing, a `UserError` says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing: {remedy}") from error


RUNTIMES: dict[str, type[OnnxRuntime | OpenVino | TorchScript | TorchExport]] = {
    ".onnx": OnnxRuntime,
    ".xml": OpenVino,
    ".pt": TorchScript,
    ".pt2": TorchExport,
}


def open_file(path: str | Path, device: str, threads: int | None, allow_code: bool) -> Runtime:
    """The runtime of an exported file; for the arguments and errors see `la_det.deploy.Detector`."""
    path = Path(path)
    runtime = RUNTIMES.get(path.suffix)
    if runtime is None:
        raise UserError(f"{path}: exported files end with {', '.join(RUNTIMES)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; `la-det export` writes it")
    if issubclass(runtime, _Torch) and not allow_code:
        raise UserError(
            f"{path}: such archives can run any code; if you trust this one, set allow_code=True (--allow-code)"
        )
    try:
        return runtime(path, device, threads)
    except UserError:
        raise
    except Exception as error:  # the runtimes' exceptions have no common class
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: no file that `la-det export` wrote, or a damaged one ({reason:.200})") from error
