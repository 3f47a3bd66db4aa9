"""A table of the HTML report: columns, cells with what they sort by, and numbers as people read them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlcls.reports.console import UNDEFINED, count, figure

LONG = 20  # a table of more rows scrolls in itself; a secondary one starts folded
_BAR = 100  # units of the little drawing of an interval, which spans the figures 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """An interval drawn on a line from 0 to 1, in percent of it: its ends, the figure, and a mark to beat."""

    low: float
    high: float
    value: float
    mark: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell: its text, a smaller second line, and the number it sorts by (None: undefined, sorts last).

    `level` is "", "good", "warn" or "bad". `bar` is drawn in place of the text.
    """

    text: str
    note: str = ""
    sort: float | None = None
    level: str = ""
    bar: Bar | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A heading, whether numbers stand below it, and what the heading means in a sentence."""

    title: str
    number: bool = True
    about: str = ""
    sortable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with a caption. The first cell of each row is the row's heading."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    sortable: bool = True

    @property
    def long(self) -> bool:
        """Whether it has so many rows that it should scroll in itself."""
        return len(self.rows) > LONG


def columns(*titles: str, first: str = "attribute") -> tuple[Column, ...]:
    """A heading for the rows' names, then number columns of these titles."""
    return (Column(title=first, number=False), *(Column(title=title) for title in titles))


def name(value: str) -> Cell:
    """The cell of a name or another text."""
    return Cell(text=value)


def whole(value: int | None) -> Cell:
    """The cell of a count."""
    return Cell(text=count(value), sort=None if value is None else float(value))


def number(value: Any, interval: Any = None, *, decimals: int = 3, level: str = "") -> Cell:
    """The cell of a figure, with its interval as the second line where there is one."""
    known = defined(value)
    return Cell(text=figure(known, decimals), note=span(interval, decimals), sort=known, level=level)


def defined(value: Any) -> float | None:
    """A figure of a record as a float; None, NaN and what is no number are undefined."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def ends(interval: Any) -> tuple[float, float] | None:
    """The ends of an interval of a record, a list or tuple of two; None where either is undefined."""
    if not isinstance(interval, Sequence) or isinstance(interval, str) or len(interval) != 2:
        return None
    low, high = defined(interval[0]), defined(interval[1])
    return None if low is None or high is None else (low, high)


def span(interval: Any, decimals: int = 3) -> str:
    """An interval as text, empty where there is none."""
    found = ends(interval)
    return "" if found is None else f"{figure(found[0], decimals)}–{figure(found[1], decimals)}"


def bar(value: Any, interval: Any, mark: float | None = None) -> Cell:
    """The cell of an interval as a drawing; a dash where something of it is undefined."""
    known, found = defined(value), ends(interval)
    if known is None or found is None:
        return Cell(text=UNDEFINED)
    parts = [min(1.0, max(0.0, part)) * _BAR for part in (found[0], found[1], known)]
    drawn = Bar(low=parts[0], high=parts[1], value=parts[2], mark=None if mark is None else mark * _BAR)
    return Cell(text=span(interval), bar=drawn, sort=known)


def share(part: int, of: int) -> Cell:
    """The cell of a share in percent; undefined when there is nothing to take a share of."""
    return Cell(text=f"{part / of:.1%}", sort=part / of) if of else Cell(text=UNDEFINED)


def mapping(value: Any) -> Mapping[str, Any]:
    """A part of a record that may be absent: the mapping, or an empty one."""
    return value if isinstance(value, Mapping) else {}
