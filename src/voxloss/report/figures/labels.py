"""Names in figures: long ones on several lines, in a font that has their characters."""

import functools
import logging
import textwrap
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from voxloss.report.names import loss_name

WIDTH = 28  # characters of a line
LINE_INCHES = 0.15  # of a line's height, at most

FONT = "DejaVu Sans"  # comes with matplotlib; has Latin, Greek, Cyrillic, Hebrew and Arabic letters
# Fonts with the letters of other scripts, as Linux, macOS and Windows have them; the first that is installed is taken.
OTHER_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "Apple SD Gothic Neo",
    "Droid Sans Fallback", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Thai", "Nirmala UI",
    "Leelawadee UI", "Arial Unicode MS",
)  # fmt: skip


def label_of(loss: str, width: int = WIDTH) -> str:
    """Return the display name of a loss in lines of at most `width` characters."""
    return textwrap.fill(loss_name(loss), width)


def row_inches(losses: Iterable[str], usual: float) -> float:
    """Return the height of a figure's rows, one for each loss, in which their labels fit."""
    lines = max((label_of(loss).count("\n") + 1 for loss in losses), default=1)
    return max(usual, LINE_INCHES * lines + 0.06)


@functools.cache
def fonts() -> list[str]:
    """Return the fonts of all figures: for each character the first that has it is taken."""
    known = {font.fname for font in font_manager.fontManager.ttflist}  # its list is as old as its cache
    for path in {*font_manager.findSystemFonts()} - known:
        with suppress(Exception):  # FreeType raises what it likes for a file that it cannot read
            font_manager.fontManager.addfont(path)
    installed = set(font_manager.get_font_names())
    return [FONT, *(name for name in OTHER_FONTS if name in installed)]


@contextmanager
def without_notices() -> Iterator[None]:
    """Keep matplotlib from printing which letters and weights its fonts lack; `unreadable` tells of letters."""
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
            yield
    finally:
        log.setLevel(level)


def unreadable(figure: Figure) -> str:
    """Return the characters of a drawn figure that no font of `fonts` has; they are drawn as boxes."""
    used = {character for text in figure.findobj(Text) if text.get_visible() for character in text.get_text()}
    return "".join(sorted(character for character in used if character.isprintable() and not _has(ord(character))))


def _has(code: int) -> bool:
    return any(code in _characters(name) for name in fonts())


@functools.cache
def _characters(name: str) -> frozenset[int]:
    return frozenset(font_manager.get_font(font_manager.findfont(name)).get_charmap())
