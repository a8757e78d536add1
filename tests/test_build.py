"""Devices of configs. The models are tested where they are used."""

import pytest
import torch
from omegaconf import OmegaConf

from la_det.build import device_of
from la_det.errors import UserError


def config(device: object):
    return OmegaConf.create({"train": {"device": device}})


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:9", "gpu", "CPU", "mps", "cuda:x", "", None, 3])
def test_device_that_is_not_there(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        UserError, match=f"^train.device={device}: not on this machine, which has cpu; choose "
    ) as error:
        device_of(config(device))
    assert len(str(error.value).splitlines()) == 1


def test_device_of_two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for device in ("cuda", "cuda:0", "cuda:1", "cpu"):
        assert device_of(config(device)) == device
    assert device_of(config("auto")) == "cuda"
    with pytest.raises(UserError, match="^train.device=cuda:2: not on this machine, which has cpu, cuda:0, cuda:1; "):
        device_of(config("cuda:2"))


def test_gpu_without_a_driver_that_works(monkeypatch):
    """NVML counts it nevertheless."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert device_of(config("auto")) == "cpu"
    with pytest.raises(UserError, match="^train.device=cuda: not on this machine, which has cpu; choose "):
        device_of(config("cuda"))
