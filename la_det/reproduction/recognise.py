"""Which config a published file belongs to: by its parameters, then by its name, then by what was published."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from la_det.conversion.convert import Fit, complete_fits
from la_det.conversion.official_names import plain_name
from la_det.errors import UserError
from la_det.model_zoo.records import Record
from la_det.reproduction.verdict import expected

SUFFIXES = (".pkl", ".pth", ".safetensors")


@dataclass(frozen=True)
class Recognised:
    """A file's mapping to the model of a config, and what told the config: a few words."""

    fit: Fit
    by: str


def official_files(places: Sequence[Path], without: Path) -> dict[str, Path]:
    """Short name -> absolute path of the files of weights at these places, which are files or folders.

    A short name begins with the last folder of the place, and is `printable`. Of two files with the same short name,
    the second one has its path. A link has its own name and suffix, not those of the file that it leads to. A file that
    is found several times is listed once. Files in the folder `without` are left out.

    Raises:
        UserError: a place does not exist, or there is no such file.
    """
    found: dict[str, Path] = {}
    seen = set()
    for place in map(Path.absolute, places):
        if not place.exists():
            raise UserError(f"{place}: no such file or folder")
        files = [place] if place.is_file() else sorted(filter(_is_weights, place.rglob("*")))
        root = place.parent.parent if place.is_file() else place.parent
        for file in files:
            target = os.path.realpath(file)
            if target not in seen and not file.parent.resolve().is_relative_to(without.resolve()):
                seen.add(target)
                name = printable(str(file.relative_to(root)))
                found[name if name not in found else printable(str(file))] = file
    if not found:
        names = ", ".join("*" + suffix for suffix in SUFFIXES)
        raise UserError(
            f"{', '.join(map(str, places))}: no file named {names} in it; la-det reproduce --list says where files are "
            "from"
        )
    return found


def printable(text: str) -> str:
    """The text with an escape in place of each line break and of each other character that cannot be shown.

    Names of files may have bytes that are no UTF-8. Python keeps them as characters that cannot be encoded.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _is_weights(path: Path) -> bool:
    """Whether a path in a folder is listed. A broken link is: its row says why it cannot be read."""
    return path.suffix in SUFFIXES and (path.is_file() or not path.exists())


def recognise(
    name: str, state: Mapping[str, Tensor], records: Mapping[str, Record], config: str | None = None
) -> Recognised:
    """The one config to which a state dict belongs.

    Several configs may have the same parameters. Then the file's name decides: one that contains the name of the config
    here or in its repository (the longest counts), or else words that only one of the configs has. If names do not
    decide, a config with published figures is preferred to those without.

    Args:
        name: the file's name, with the folders whose names may help.
        state: the official state dict.
        records: configs that it may belong to.
        config: the only config that it may belong to.

    Raises:
        UserError: the state dict fits no config, or several; the message names them.
    """
    fits = complete_fits(name, state, config, records)
    by = "its parameters" if config is None else "--config"
    narrowing = {"its name": _by_name, "words of its name": _by_words, "what was published": _by_figures}
    for reason, narrow in narrowing.items():
        if len(fits) > 1:
            fits, by = narrow(name, fits, records) or fits, reason
    if len(fits) > 1:
        names = ", ".join(fit.config for fit in fits)
        raise UserError(f"{name}: these configs have its parameters; say which with --config NAME={name}: {names}")
    return Recognised(fits[0], by)


def _by_name(name: str, fits: Sequence[Fit], records: Mapping[str, Record]) -> list[Fit]:
    """Those of which the file's name contains a whole name, the longest of all."""
    text = plain_name(Path(name).with_suffix("").as_posix())
    longest = {
        fit.config: max((len(known) for known in _names(records[fit.config]) if known in text), default=0)
        for fit in fits
    }
    return [fit for fit in fits if longest[fit.config] and longest[fit.config] == max(longest.values())]


def _by_words(name: str, fits: Sequence[Fit], records: Mapping[str, Record]) -> list[Fit]:
    """Those that have all words of the file's name that not all of them have."""
    words = {fit.config: _words(*_names(records[fit.config]), fit.repository.name) for fit in fits}
    telling = {
        word for of_one in words.values() for word in of_one if not all(word in others for others in words.values())
    }
    hits = telling & _words(Path(name).with_suffix("").as_posix())
    return [fit for fit in fits if hits and hits <= words[fit.config]]


def _by_figures(name: str, fits: Sequence[Fit], records: Mapping[str, Record]) -> list[Fit]:
    """Those with published figures."""
    return [fit for fit in fits if expected(records[fit.config], fit.repository)]


def _names(record: Record) -> Iterator[str]:
    """The config's names, here and in its repository."""
    yield plain_name(record.name.rpartition("/")[2])
    yield from map(plain_name, record.official)


def _words(*texts: str) -> set[str]:
    return {word for text in texts for word in plain_name(text).split("_") if word}
