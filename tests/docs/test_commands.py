"""Every command of the documents is understood by its program as it is now: names of flags, configs and options."""

from __future__ import annotations

import argparse
import re
import runpy
import sys

import pytest

from la_det import model_zoo
from la_det.engine.setup import load_config
from tests.docs.blocks import NOT_RUN, ROOT, SLOW, Block, blocks, commands, of_this_project

CONFIG = re.compile(r"[A-Z]\w*/\w+|projects/\w+/configs/\w+\.py")
OPTION = re.compile(r"\+?[a-z][\w.]*=.*")
SHELL = blocks("bash")


class Parsed(BaseException):
    """Ends a program that has understood its command line."""


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("parse_args", "parse_intermixed_args"):

        def parse(self, *args, _original=getattr(argparse.ArgumentParser, name), **kwargs):
            raise Parsed(_original(self, *args, **kwargs))

        monkeypatch.setattr(argparse.ArgumentParser, name, parse)


def start(program: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    if program == "la_det":
        runpy.run_module("la_det", run_name="__main__")
    else:
        runpy.run_path(str(ROOT / program), run_name="__main__")


def check_options(arguments: list[str]) -> None:
    """The config exists, and has the options that the command sets."""
    configs = [word for word in arguments if CONFIG.fullmatch(word) and "$" not in word]
    for config in configs[:1]:
        load_config(config, [word for word in arguments if OPTION.fullmatch(word)])
    for config in configs[1:]:
        model_zoo.get_config_file(config)


def test_every_block_names_its_language():
    assert [str(block) for block in blocks("")] == []


def test_every_note_says_why():
    notes = {block.note: str(block) for block in blocks() if block.note}
    unclear = [at for note, at in notes.items() if note != SLOW and len(note.removeprefix(NOT_RUN)) < 8]
    assert unclear == []


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_command_lines(block: Block, parse_only, monkeypatch, capsys):
    for words in commands(block):
        found = of_this_project(words)
        if found is None:
            continue
        try:
            start(*found, monkeypatch)
        except Parsed:
            check_options(found[1])
        except SystemExit as end:
            pytest.fail(f"{' '.join(words)}\n{end}\n{capsys.readouterr().err}")
        else:
            pytest.fail(f"{' '.join(words)}: it did not read its command line")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "POTO/poto_r50_fpn_3x_ms_coco", "--nmu-gpus", "8"], "--nmu-gpus"),
        (["trian", "POTO/poto_r50_fpn_3x_ms_coco"], "trian"),
    ],
)
def test_a_wrong_command_is_found(arguments, message, parse_only, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        start("la_det", arguments, monkeypatch)
    assert message in capsys.readouterr().err
