"""Style of drawn assignments, the same in figures and on the page."""

# One colour per level, finest first: Okabe and Ito's palette, whose colours the colour-blind can tell apart.
LEVEL_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
# Diameter of a marker on the finest level, and its growth per level, in points of a figure or pixels of the page.
MARKER_SIZE, MARKER_STEP = 7.0, 3.0
KIND_NAMES = ("positive", "soft positive (target < 1)", "background weight < 1", "dropped, in no loss")


def level_colour(level: int) -> str:
    """Colour of a level's markers."""
    return LEVEL_COLOURS[level % len(LEVEL_COLOURS)]


def marker_size(level: int) -> float:
    """Diameter of a level's markers: one step for every doubling of the stride."""
    return MARKER_SIZE + MARKER_STEP * level
