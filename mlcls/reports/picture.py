"""A picture on its way to a PNG: the figure, colours that everyone can tell apart, names as text, the file.

matplotlib's object interface alone: no pyplot, no global state, no display.
"""

import io
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.image import imsave
from numpy.typing import NDArray

from mlcls.errors import OutputError

DPI = 110
MOST_ATTRIBUTES = 250  # of more than these the first are drawn, and the title says so
# Okabe and Ito 2008, "Color Universal Design": told apart with any common colour vision
BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
GRAY, LIGHT, INK = "#666666", "#e6e6e6", "#222222"
_HOLLOW = "\u25a1"  # stands for a character that no font here can draw

# fonts with the scripts that matplotlib's own lacks, as systems commonly have them
_WIDE_FONTS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR",
    "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "IPAexGothic",
    "Microsoft YaHei", "Yu Gothic", "MS Gothic", "Malgun Gothic", "Nirmala UI", "Arial Unicode MS",
    "PingFang SC", "Hiragino Sans", "Heiti TC", "Apple SD Gothic Neo",
    "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil",
)  # fmt: skip


def new_figure(width: float, height: float, *, layout: Any = "constrained") -> Figure:
    """An empty figure of `width` by `height` inches."""
    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def save(figure: Figure, path: str | Path) -> None:
    """Write the figure as a PNG; a file that stands there is replaced.

    Raises:
        OutputError: the file cannot be written.
    """
    canvas: Any = FigureCanvasAgg(figure)  # its methods carry no types
    canvas.draw()  # once, where `savefig` draws twice
    drawn = io.BytesIO()
    imsave(drawn, np.asarray(canvas.buffer_rgba()), format="png", dpi=DPI)
    try:
        Path(path).write_bytes(drawn.getvalue())
    except OSError as error:
        raise OutputError(f"{path}: cannot write the picture: {error.strerror or error}") from error


def floats(values: Iterable[float | None]) -> NDArray[np.float64]:
    """Figures as an array [N], None as NaN, which no line or bar is drawn for."""
    return np.array([np.nan if value is None else float(value) for value in values], dtype=np.float64)


@lru_cache(maxsize=1)
def fonts() -> tuple[str, ...]:
    """Font families to draw names with: matplotlib's own, then those here that hold other scripts."""
    here = {entry.name for entry in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _WIDE_FONTS if name in here))


@lru_cache(maxsize=32)
def _characters(family: str) -> frozenset[int]:
    return frozenset(FT2Font(font_manager.findfont(family)).get_charmap())


def text(name: str, longest: int = 0) -> str:
    """A name as matplotlib can draw it, to be used with `fontfamily=fonts()`.

    `$` starts no formula, control characters and what no font has become hollow boxes. With `longest`, the
    middle of a longer name gives way to an ellipsis.
    """
    if longest and len(name) > longest:
        tail = (longest - 1) // 2
        name = f"{name[: longest - 1 - tail]}…{name[len(name) - tail :]}"
    drawable = "".join(char if char.isprintable() and _has(char) else _HOLLOW for char in name)
    return drawable.replace("$", r"\$")


def _has(char: str) -> bool:
    return any(ord(char) in _characters(family) for family in fonts())


@lru_cache(maxsize=4096)
def _advance(char: str) -> float:
    """How far a character, or the hollow box in its place, moves the pen, as a part of the type's size."""
    if not _has(char):
        char = _HOLLOW
    family = next(family for family in fonts() if ord(char) in _characters(family))
    font = FT2Font(font_manager.findfont(family))
    font.set_size(100, 72)
    return float(font.load_char(ord(char)).linearHoriAdvance) / 65536 / 100


def width_of(shown: str, size: float) -> float:
    """How wide text of `size` points is, in inches (without kerning; bold is a tenth wider)."""
    return sum(map(_advance, shown)) * size / 72


def fitted(
    names: Sequence[str], inches: float, size: float, *, numbers: Sequence[int] | None = None
) -> list[str]:
    """Names as matplotlib can draw them, none wider than `inches`, no two alike.

    The middle of a wider name gives way to an ellipsis. Names that look alike then, or are largely characters that
    no font here has, are told apart by a number: of `numbers`, else their place in `names`, from 1.
    """
    numbers = range(1, len(names) + 1) if numbers is None else numbers
    drawable = ["".join(c if c.isprintable() and _has(c) else _HOLLOW for c in name) for name in names]
    shown = [_cut(name, inches, size) for name in drawable]
    alike = {name for name, count in Counter(shown).items() if count > 1}
    for i, name in enumerate(shown):
        if name in alike or 3 * drawable[i].count(_HOLLOW) > len(name):
            shown[i] = _cut(f"{numbers[i]}: {drawable[i]}", inches, size, kept=len(str(numbers[i])) + 2)
    return [name.replace("$", r"\$") for name in shown]


def _cut(name: str, inches: float, size: float, kept: int = 0) -> str:
    """The name, its middle (never its first `kept` characters) left out until it is narrow enough."""
    widths = [_advance(char) * size / 72 for char in name]
    excess = sum(widths) - inches
    if excess <= 0:
        return name
    excess += width_of("…", size)
    start = stop = max(kept, (len(name) + 1) // 2)
    while excess > 0 and stop - start < len(name) - kept:
        if (stop - start) % 2 and start > kept:
            start -= 1
            excess -= widths[start]
        elif stop < len(name):
            excess -= widths[stop]
            stop += 1
        else:
            start -= 1
            excess -= widths[start]
    return f"{name[:start]}…{name[stop:]}"


def pale(colour: str) -> str:
    """The colour with two thirds of white in it."""
    red, green, blue = to_rgb(colour)
    return str(to_hex((red / 3 + 2 / 3, green / 3 + 2 / 3, blue / 3 + 2 / 3)))


def limited(title: str, names: Sequence[str]) -> tuple[str, list[str]]:
    """The title and the names; of more than `MOST_ATTRIBUTES` the first ones, and the title says so."""
    if len(names) <= MOST_ATTRIBUTES:
        return title, list(names)
    return f"{title} (the first {MOST_ATTRIBUTES} of {len(names)} attributes)", list(names[:MOST_ATTRIBUTES])


def short_count(value: int) -> str:
    """A count in at most five characters or so: 9,876, 12.3k, 4.5M."""
    if value < 10_000:
        return f"{value:,}"
    return f"{value / 1e3:.3g}k" if value < 999_500 else f"{value / 1e6:.3g}M"


def stages_start(stages: Sequence[int]) -> list[int]:
    """The positions in a list of stages (one an epoch) at which another than the one before begins."""
    return [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
