"""What configs are called in their repositories."""

from __future__ import annotations

import re

from la_det import model_zoo
from la_det.conversion.repositories import REPOSITORIES


def plain_name(text: str) -> str:
    """A name in small letters with `_` around its words, so that `_atss_r_50_` is no part of `_atss_r_50_fpn_`."""
    return re.sub(r"[^a-z0-9]+", "_", f"_{text.lower()}_")


def config_called(name: str, repository: str) -> str | None:
    """The config here of the one that a repository calls `name`; None if there is none."""
    for record in model_zoo.get_records().values():
        theirs = any(known.name == repository and known.published(record) for known in REPOSITORIES)
        if theirs and plain_name(name) in map(plain_name, record.official):
            return record.name
    return None
