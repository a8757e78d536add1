"""Every command of the documents is understood by its program as it is now: names of flags, configs and options."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from la_det import model_zoo
from la_det.engine.setup import load_config
from la_det.errors import UserError
from tests.docs.blocks import DOCUMENTS, FENCE, NOT_RUN, ROOT, SLOW, Block, blocks, commands, of_this_project

CONFIG = re.compile(r"[A-Z]\w*/\w+|projects/\w+/configs/\w+\.py")
OPTION = re.compile(r"\+?[a-z][\w.]*=.*")
INLINE = re.compile(r"`([^`]+)`")
SHELL = blocks("bash")


class Parsed(BaseException):
    """Ends a program that has understood its command line."""


@pytest.fixture
def understood(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[[str, list[str]], str]:
    """Starts a program that only parses its arguments; the function returns what it complains about."""

    def stop_after(parse: Callable[..., argparse.Namespace]) -> Callable[..., None]:
        def stopping(*args: object, **options: object) -> None:
            raise Parsed(parse(*args, **options))

        return stopping

    for name in ("parse_args", "parse_intermixed_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, stop_after(getattr(argparse.ArgumentParser, name)))

    def start(program: str, arguments: list[str]) -> str:
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        try:
            if program == "la_det":
                runpy.run_module("la_det", run_name="__main__")
            else:
                runpy.run_path(str(ROOT / program), run_name="__main__")
        except Parsed:
            return ""
        except SystemExit:
            return capsys.readouterr().err
        return "it does not read its command line"

    return start


def check_configs(arguments: list[str]) -> None:
    """The configs exist, and the first one has the options that the command sets."""
    configs = [word for word in arguments if CONFIG.fullmatch(word)]
    unknown = [config for config in configs if config not in model_zoo.list() and not (ROOT / config).exists()]
    assert unknown == []
    for config in configs[:1]:
        load_config(config, [word for word in arguments if OPTION.fullmatch(word)])


def test_every_block_names_its_language():
    assert [str(block) for block in blocks("")] == []


def test_every_note_says_why():
    notes = {block.note: str(block) for block in blocks() if block.note}
    unclear = [at for note, at in notes.items() if note != SLOW and len(note.removeprefix(NOT_RUN)) < 8]
    assert unclear == []


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_command_lines(block: Block, understood):
    for words in commands(block):
        if (found := of_this_project(words)) is not None:
            assert (" ".join(words), understood(*found)) == (" ".join(words), "")
            check_configs(found[1])


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_in_sentences(file: Path, understood):
    """Those with a flag; others may be names of programs."""
    for text in INLINE.findall(FENCE.sub("", file.read_text())):
        found = of_this_project(shlex.split(text))
        if found is not None and any(word.startswith("--") for word in found[1]):
            assert (text, understood(*found)) == (text, "")
            check_configs(found[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "POTO/poto_r50_fpn_3x_ms_coco", "--nmu-gpus", "8"], "--nmu-gpus"),
        (["trian", "POTO/poto_r50_fpn_3x_ms_coco"], "trian"),
    ],
)
def test_a_wrong_command_is_found(arguments, message, understood):
    assert message in understood("la_det", arguments)


@pytest.mark.parametrize(
    "arguments", [["POTO/poto_r51_fpn_3x_ms_coco"], ["POTO/poto_r50_fpn_3x_ms_coco", "train.max_itre=1"]]
)
def test_a_wrong_config_is_found(arguments):
    with pytest.raises((AssertionError, UserError)):
        check_configs(arguments)
