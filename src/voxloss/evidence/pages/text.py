"""What the pages of the evidence have in common."""

from collections.abc import Sequence

FIGURES = "figures"


def listed(names: Sequence[str]) -> str:
    """Write "a", "a and b", "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; the cells are Markdown already."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def detectable_text(difference: float) -> str:
    """Write what difference between two shares could have been seen: none, if only one beyond 1."""
    return f"{difference:.3f}" if difference < 1 else "none"


def interval_text(low: float, high: float) -> str:
    """Write an interval of differences."""
    return f"{low:+.3f} to {high:+.3f}"


def anchor(name: str) -> str:
    """The anchor of a heading, as Python-Markdown's table of contents makes it."""
    return "".join(sign for sign in name.lower() if sign.isalnum() or sign in "-_").strip("-_") or name
