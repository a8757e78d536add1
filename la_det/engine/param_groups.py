"""Parameter groups by name, for `optimizer.params` of a LazyConfig."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)


def param_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
    bias_lr_factor: float = 1.0,
    norm_biases_too: bool = True,
    lr_factors: Mapping[str, float] | None = None,
    weight_decays: Mapping[str, float] | None = None,
) -> list[dict]:
    """Trainable parameters of `model`, grouped by learning rate and weight decay.

    Args:
        lr, weight_decay: values for parameters to which no rule applies.
        weight_decay_norm, weight_decay_bias: weight decay of norm layers, and of biases; None: no rule.
        bias_lr_factor: factor of the biases' learning rate.
        norm_biases_too: whether the rules for biases hold for the biases of norm layers, too.
            True: yes, as in Detectron2 and maskrcnn-benchmark.
            False: no, as in MMDetection.
        lr_factors: name prefix -> factor of the learning rate (`{"backbone": 0.1}`). If several prefixes match, their
            factors multiply.
        weight_decays: part of a name -> weight decay (`{"norm": 0.0}`), which overrides all other rules. If several
            parts match, the first one decides.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            parameter_lr, decay = lr, weight_decay
            if isinstance(module, NORMS) and weight_decay_norm is not None:
                decay = weight_decay_norm
            if name == "bias" and (norm_biases_too or not isinstance(module, NORMS)):
                parameter_lr *= bias_lr_factor
                decay = decay if weight_decay_bias is None else weight_decay_bias
            full_name = f"{module_name}.{name}"
            decay = next((value for key, value in (weight_decays or {}).items() if key in full_name), decay)
            for prefix, factor in (lr_factors or {}).items():
                if full_name.startswith(prefix):
                    parameter_lr *= factor
            groups.setdefault((parameter_lr, decay), []).append(parameter)
    return [{"params": params, "lr": group_lr, "weight_decay": decay} for (group_lr, decay), params in groups.items()]
