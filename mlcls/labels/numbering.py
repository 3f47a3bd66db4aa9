"""Owns the numbers of different values: equal ones get the same, from 0 in the order in which they first stand."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

EMPTY = (None, "")  # and NaN: values that say nothing


def number_values(
    values: Sequence[Hashable] | NDArray[np.generic],
) -> tuple[NDArray[np.intp], list[Hashable]]:
    """The number [N] of each value, and the different values by their numbers.

    A dict takes about twice as long as pandas' table of hashes, whose import takes longer than this does for a
    million values.
    """
    numbers: dict[Hashable, int] = {}
    found = np.fromiter(
        (numbers.setdefault(value, len(numbers)) for value in _plain(values)), np.intp, len(values)
    )
    return found, list(numbers)


def number_said(values: Sequence[Hashable] | NDArray[np.generic]) -> NDArray[np.intp]:
    """As `number_values`, but -1 for a value that says nothing: None, NaN or an empty text."""
    numbers: dict[Hashable, int] = {}
    return np.fromiter(
        (
            -1 if value in EMPTY or value != value else numbers.setdefault(value, len(numbers))
            for value in _plain(values)
        ),
        np.intp,
        len(values),
    )


def _plain(values: Iterable[Hashable] | NDArray[np.generic]) -> Iterable[Hashable]:
    """The values of an array as Python has them, without a list of all of them."""
    return iter(values.flat) if isinstance(values, np.ndarray) else values
