"""How uncertainty is written on the console: intervals, p-values, differences, and which rows of many are shown."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from rich.console import Console

from mlcls.reports.console import UNDEFINED, figure

Interval = Sequence[float] | None  # the lower and the upper end; None is undefined
T = TypeVar("T")

MOST_ROWS = 40  # of more than these a terminal shows only those that matter most
_SHOWN = 20
_NARROW = 0.02  # an interval narrower than this says nothing in two decimals


def span(interval: Interval, decimals: int = 2) -> str:
    """An interval within [0, 1] for a column, without the zeros in front: `.41–.58`; undefined is a dash."""
    text = between(interval, decimals)
    return "–".join(end.removeprefix("0") if end.startswith("0.") else end for end in text.split("–"))


def between(interval: Interval, decimals: int = 2) -> str:
    """An interval for a sentence: `0.41–0.58`; undefined is a dash."""
    if interval is None or any(math.isnan(end) for end in interval):
        return UNDEFINED
    return "–".join(f"{end:.{decimals}f}" for end in interval)


def with_interval(value: float | None, interval: Interval, level: str) -> str:
    """A figure and, where there is one, its interval: `0.468, 95% 0.41–0.53`."""
    ends = between(interval)
    return figure(value) if ends == UNDEFINED else f"{figure(value)}, {level} {ends}"


def interval_decimals(intervals: Iterable[Interval]) -> int:
    """Two decimals, or three where one of the intervals would vanish in two."""
    widths = (ends[1] - ends[0] for ends in intervals if ends is not None)
    return 3 if any(0 < width < _NARROW for width in widths) else 2


def level_text(intervals: Mapping[str, Any] | None) -> str:
    """`95%`: the level that the `intervals` of an entry state."""
    return f"{100 * (intervals or {}).get('level', 0.95):.4g}%"


def p_text(p: float | None) -> str:
    """`p<0.001`, `p=0.012`, `p=0.41`; undefined is a dash."""
    if p is None or math.isnan(p):
        return UNDEFINED
    return "p<0.001" if p < 0.001 else f"p={p:.3f}" if p < 0.1 else f"p={p:.2f}"


def signed(value: float | None, decimals: int = 3) -> str:
    """A difference with its sign: `+0.041`; undefined is a dash."""
    if value is None or math.isnan(value):
        return UNDEFINED
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text  # neither +0.000 nor -0.000


def signed_span(interval: Interval, decimals: int = 3) -> str:
    """The interval of a difference: `-0.013 to +0.100`; undefined is a dash."""
    if interval is None or any(math.isnan(end) for end in interval):
        return UNDEFINED
    return " to ".join(signed(end, decimals) for end in interval)


def most_telling(console: Console, rows: Sequence[T], rank: Callable[[T], Any]) -> list[T]:
    """All rows, but of very many on a terminal only the first by `rank`; in their own order.

    A pipe gets every row: whoever reads a file can search it.
    """
    if not console.is_terminal or len(rows) <= MOST_ROWS:
        return list(rows)
    first = sorted(range(len(rows)), key=lambda i: rank(rows[i]))[:_SHOWN]
    return [rows[i] for i in sorted(first)]
