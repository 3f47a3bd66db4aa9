"""The figures of an evaluation's attributes as arrays, for pictures; what is undefined or absent is NaN."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Entry = Mapping[str, Any]  # an attribute of an `evaluation` entry: `name`, figures, perhaps `intervals`, ...
FloatArray = NDArray[np.float64]


def number(value: Any) -> float:
    """A JSON number; None and what is not finite as NaN."""
    return float(value) if value is not None and np.isfinite(value) else np.nan


def figures(entries: Sequence[Entry], figure: str) -> FloatArray:
    """A figure of each entry [A]."""
    return np.array([number(entry.get(figure)) for entry in entries], dtype=np.float64)


def intervals(entries: Sequence[Entry], figure: str) -> FloatArray:
    """The interval of a figure of each entry [A, 2]: low, high."""
    return np.array([pair((entry.get("intervals") or {}).get(figure)) for entry in entries]).reshape(-1, 2)


def pair(interval: Any) -> tuple[float, float]:
    """An interval as two numbers; None as two NaN."""
    if interval is None:
        return np.nan, np.nan
    low, high = interval
    return number(low), number(high)


def base_rates(entries: Sequence[Entry]) -> FloatArray:
    """The share of known images that show each attribute [A]; NaN where none is known."""
    rates = []
    for entry in entries:
        rate = (entry.get("baselines") or {}).get("base_rate")
        if rate is None and entry.get("known"):
            rate = entry["positive"] / entry["known"]
        rates.append(number(rate))
    return np.array(rates, dtype=np.float64)


def like_chance(entries: Sequence[Entry]) -> NDArray[np.bool_]:
    """Which attributes were tested and are not distinguishable from chance [A]."""
    return np.array([(entry.get("chance") or {}).get("distinguishable") is False for entry in entries], bool)


def with_interval(value: float, low: float, high: float) -> str:
    """A figure as a person reads it: `0.83 [0.71, 0.92]`, without an interval `0.83`, or `undefined`."""
    if np.isnan(value):
        return "undefined"
    return f"{value:.2f}" if np.isnan(low) or np.isnan(high) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def why_undefined(entry: Entry) -> str:
    """What an attribute without figures lacks, in two or three words."""
    known, positive = entry.get("known"), entry.get("positive")
    if known is None or positive is None or 0 < positive < known:
        return "not measured"
    return "nothing known" if known == 0 else "never present" if positive == 0 else "never absent"
