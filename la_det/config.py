"""Helpers for LazyConfig."""

from __future__ import annotations

import copy
import difflib
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import LazyConfig
from detectron2.layers import ShapeSpec
from detectron2.utils.registry import _convert_target_to_string, locate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from la_det.errors import UserError

# What a YAML config may build: parts of detectors, data and training, and no other callable.
BUILDABLE = (
    "detectron2.data.transforms",
    "detectron2.evaluation",
    "detectron2.layers",
    "detectron2.modeling",
    "detectron2.solver",
    "detectron2.structures",
    "fvcore.common.param_scheduler",
    "fvcore.transforms",
    "la_det.config",
    "la_det.data",
    "la_det.engine.optimizers",
    "la_det.engine.param_groups",
    "la_det.engine.writers",
    "la_det.evaluation",
    "la_det.losses",
    "la_det.matchers",
    "la_det.modeling",
    "la_det.steps",
    "la_det.structures",
    "torch.nn",
    "torch.optim",
)
MAX_NODES = 100_000  # upper bound of the nodes of a YAML config; the largest config here has about a thousand


def named(**items: Any) -> dict[str, Any]:
    """The items as a dict: `L(named)(a=L(A)(), b=L(B)())`.

    Detectron2's `instantiate` builds what it finds in lists and in calls, but not in plain dicts.
    """
    return items


def _training_length(*, _root_: DictConfig) -> int:
    return OmegaConf.select(_root_, "train.max_iter", default=90000)


# `${training_length:}` in a model config, which also works if the model is built alone, without a training config.
OmegaConf.register_new_resolver("training_length", _training_length, replace=True)


def class_node(model: DictConfig) -> DictConfig:
    """The node of a model's config that has `num_classes`. In Detectron2's R-CNNs it is not the model's node."""
    return model.roi_heads if "roi_heads" in model else model


def fill_defaults(cfg: Any) -> None:
    """Writes into each node that builds something of la_det the options that the node leaves at their defaults.

    So every option can be overridden, and a saved config lists all of them. Defaults that are objects are left out.
    """
    for node in _calls(cfg):
        for name, default in _defaults(node["_target_"]).items():
            if name not in node:
                node[name] = default


def check_arguments(cfg: DictConfig) -> None:
    """Check that whatever a config builds takes the arguments that the config gives to it.

    Raises:
        UserError: an argument is unknown; the message names the node, what it builds, and the argument.
    """
    for node in _calls(cfg):
        known = _arguments(node["_target_"])
        if known is None:
            continue
        for name in map(str, node):
            if name not in known and not name.startswith("_"):
                key = re.sub(r"\[(\d+)\]", r".\1", node._get_full_key(None))
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(known)}"
                raise UserError(f"{key}: {class_name(node['_target_'])} has no argument {name}; {hint}")


def _calls(cfg: Any) -> Iterator[DictConfig]:
    """All nodes that build something, each at its own place and not where an interpolation refers to it."""
    if not isinstance(cfg, (DictConfig, ListConfig)) or cfg._is_none() or cfg._is_missing():
        return
    if isinstance(cfg, DictConfig) and "_target_" in cfg:
        yield cfg
    for key in list(cfg) if isinstance(cfg, DictConfig) else range(len(cfg)):
        yield from _calls(cfg._get_node(key))


def flat(cfg: DictConfig) -> dict[str, Any]:
    """The values of a config by their keys, such as "model.criteria.0.branch", with references resolved.

    A list without dicts and lists in it is one value.
    """
    values = {}

    def visit(value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, part in value.items():
                visit(part, f"{key}.{name}" if key else str(name))
        elif isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
            for i, part in enumerate(value):
                visit(part, f"{key}.{i}")
        else:
            values[key] = value

    visit(OmegaConf.to_container(cfg, resolve=True), "")
    return values


def is_plain(value: Any) -> bool:
    """Whether a value of a config is a number, a text, a switch, None, or a list of these."""
    if isinstance(value, (tuple, list)):
        return all(is_plain(part) for part in value)
    return value is None or isinstance(value, (bool, int, float, str))


def plain(value: Any) -> Any:
    """Such a value with lists in the place of tuples."""
    return [plain(part) for part in value] if isinstance(value, (tuple, list)) else value


def class_name(target: Callable | str | None) -> str:
    """The name of what a `_target_` builds, without its module."""
    name = target if isinstance(target, str) else getattr(target, "__qualname__", str(target))
    return name.rpartition(".")[2]


def save_yaml_config(cfg: DictConfig, path: str | Path) -> None:
    """Writes a config as Detectron2's `LazyConfig.save` does, but with the keys in their order.

    Parts of a model are built in this order, and draw their random weights in this order.
    """
    named_cfg = copy.deepcopy(cfg)
    for node in _calls(named_cfg):
        if callable(node["_target_"]):
            node["_target_"] = _convert_target_to_string(node["_target_"])
    content = OmegaConf.to_container(named_cfg, resolve=False)
    try:
        text = yaml.dump(
            _target_first(content), default_flow_style=None, allow_unicode=True, width=9999, sort_keys=False
        )
    except (TypeError, yaml.YAMLError):  # an object that has no YAML form, of which Detectron2 makes the best
        LazyConfig.save(cfg, str(path))
    else:
        Path(path).write_text(text, encoding="utf-8")


def _defaults(target: Callable | str) -> dict[str, Any]:
    if isinstance(target, str):
        if not _is_part_of(target, ("la_det",)):
            return {}
        try:
            target = locate(target)
        except ImportError:  # whoever builds the node says so
            return {}
    of_this_package = callable(target) and _is_part_of(getattr(target, "__module__", None) or "", ("la_det",))
    return _plain_defaults(target) if of_this_package else {}


def _arguments(target: Any) -> tuple[str, ...] | None:
    """Names of all arguments of what a `_target_` builds; None if they are not known."""
    if isinstance(target, str) and _is_part_of(target, BUILDABLE):
        try:
            target = locate(target)
        except ImportError:  # whoever builds the node says so
            return None
    return _arguments_of(target) if callable(target) else None


@cache
def _arguments_of(target: Callable) -> tuple[str, ...] | None:
    names: list[str] = []
    for function in _functions(target):
        try:
            parameters = inspect.signature(function).parameters.values()
        except (ValueError, TypeError):  # not written in Python
            return None
        names += [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            return tuple(name for name in names if name != "self")
    return None  # it takes whatever it is given


def _functions(target: Callable) -> list[Callable]:
    """A callable or, for a class of la_det or one derived from it, the constructors that may pass options on."""
    classes = target.__mro__ if isinstance(target, type) else ()
    number = max((i for i, c in enumerate(classes, start=1) if c.__module__.startswith("la_det.")), default=0)
    return [c.__init__ for c in classes[:number]] or [target]  # type: ignore[misc]


@cache
def _plain_defaults(target: Callable) -> dict[str, Any]:
    """Options of a callable whose defaults are plain values, and of the bases that a class passes options on to."""
    defaults: dict[str, Any] = {}
    for i, function in enumerate(_functions(target)):
        parameters = inspect.signature(function).parameters.values()
        found = {p.name: plain(p.default) for p in parameters if is_plain(p.default)}
        if i > 0:  # in a base, None may stand for a part that the class itself gives to it
            found = {name: value for name, value in found.items() if value is not None}
        defaults = found | defaults
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return defaults


def _target_first(content: Any) -> Any:
    """The content of a config in the order in which it is read most easily."""
    if isinstance(content, dict):
        target = {"_target_": content["_target_"]} if "_target_" in content else {}
        return target | {key: _target_first(value) for key, value in content.items()}
    return [_target_first(value) for value in content] if isinstance(content, list) else content


def load_yaml_config(path: str | Path) -> DictConfig:
    """Reads a config of `save_yaml_config` or Detectron2's `LazyConfig.save` without running code.

    Tags and names are checked.

    Raises:
        UserError: the file is no YAML config, has Python tags that such configs do not have, or builds something other
            than detectors, their data and their training.
    """
    content = _parse(path, _BuildingLoader)
    for key, name in _names(content):
        _find(path, key, name)
    return OmegaConf.create(content, flags={"allow_objects": True})


def read_saved_config(path: str | Path) -> DictConfig:
    """Reads such a config to look at it. It may name anything, since nothing of it is built.

    Raises:
        UserError: the file is no YAML config, or has Python tags that such configs do not have.
    """
    return OmegaConf.create(_parse(path, _Loader), flags={"allow_objects": True})


def _parse(path: str | Path, kind: type[_Loader]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            loader = kind(file)
            try:
                node = loader.get_single_node()
                _count(node, [], {})
                content = None if node is None else loader.construct_document(node)
            finally:
                loader.dispose()
        if not isinstance(content, dict):
            raise UserError(f"{path}: no config; it needs keys such as model and train")
        OmegaConf.create(content, flags={"allow_objects": True})
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not read as a config ({reason:.300}); a Python config may hold any object") from error
    return content


class _Loader(yaml.SafeLoader):
    """Loads plain YAML and the two kinds of objects in Detectron2's configs; a class becomes its name."""


class _BuildingLoader(_Loader):
    """Loads classes as classes, if they are among BUILDABLE."""


def _construct_class(loader: _Loader, name: str, node: yaml.Node) -> Any:
    return _find(node.start_mark.name, "", name) if isinstance(loader, _BuildingLoader) else name


def _construct_shape(loader: _Loader, node: yaml.SequenceNode) -> ShapeSpec:
    return ShapeSpec(*loader.construct_sequence(node, deep=True))


_Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", _construct_class)
_Loader.add_constructor("tag:yaml.org,2002:python/object/new:detectron2.layers.shape_spec.ShapeSpec", _construct_shape)


def _count(node: yaml.Node | None, path: list[yaml.Node | None], counts: dict[int, int]) -> int:
    """Number of nodes, where the nodes behind an alias count each time: a few aliases can stand for any number."""
    if node in path:
        raise ValueError("it contains itself")
    if id(node) not in counts:
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        counts[id(node)] = 1 + sum(_count(child, [*path, node], counts) for child in flat)
    if counts[id(node)] > MAX_NODES:
        raise ValueError(f"it has more than {MAX_NODES} entries")
    return counts[id(node)]


def _names(content: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Key and value of each `_target_` in a config."""
    if isinstance(content, dict):
        for name, value in content.items():
            if name == "_target_":
                yield key, value
            yield from _names(value, f"{key}.{name}".lstrip("."))
    elif isinstance(content, list):
        for i, value in enumerate(content):
            yield from _names(value, f"{key}.{i}")


def _find(path: str | Path, key: str, name: Any) -> Any:
    """What the config names, if it is one of BUILDABLE, or of builtins or NumPy a harmless type."""
    if callable(name):  # found already
        return name
    is_name = isinstance(name, str) and re.fullmatch(r"[A-Za-z_][\w.]*", name)
    if is_name and _is_part_of(name, BUILDABLE):
        try:
            found = locate(name)
        except ImportError as error:
            raise UserError(f"{path}: {key or 'it'} names {name}, which is not there ({error})") from error
        owner = getattr(found, "__self__", found)  # for a class method, the class
        module = getattr(owner, "__module__", None) or ""
        if callable(found) and _is_part_of(module, BUILDABLE):
            return found
    raise UserError(
        f"{path}: {key or 'it'} names {str(name):.80}, which a YAML config may not build; if you trust its author, "
        "take the Python config it comes from"
    )


def _is_part_of(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
