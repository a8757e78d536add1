"""A helper for LazyConfig files."""

from typing import Any


def named(**items: Any) -> dict[str, Any]:
    """The items as a dict: `L(named)(a=L(A)(), b=L(B)())`.

    Detectron2's `instantiate` builds what it finds in lists and in other calls, but not inside plain dicts.
    """
    return items
