"""Owns what groups of images that are one photo give away: opposite labels, and a photo in several subsets."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mlcls.missing import split_missing

BLOCK = 1 << 10  # groups looked at together


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Images of one group that say the opposite of each other: indices of the attribute and of the rows."""

    attribute: int
    present: tuple[int, ...]
    absent: tuple[int, ...]


def find_conflicts(
    labels: NDArray[np.float32], duplicates: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Those groups of identical images of which one is known to show an attribute and another known not to.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        duplicates: groups of row indices, none of them empty.
    """
    kept: list[tuple[int, ...]] = []
    for start in range(0, len(duplicates), BLOCK):
        groups = [tuple(group) for group in duplicates[start : start + BLOCK]]
        rows = np.fromiter(chain.from_iterable(groups), np.intp)
        first = np.cumsum([0, *map(len, groups[:-1])])
        values, known = split_missing(labels[rows])
        present, absent = (
            np.logical_or.reduceat(known & (values == value), first, axis=0) for value in (1, 0)
        )
        opposite = np.any(present & absent, axis=1)
        kept += [group for group, found in zip(groups, opposite.tolist(), strict=True) if found]
    return tuple(kept)


def find_contradictions(
    labels: NDArray[np.float32], group: Sequence[int], duplicates: Sequence[Sequence[int]] = ()
) -> tuple[Contradiction, ...]:
    """The attributes for which one image of the group is known to show it and another known not to.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        group: row indices.
        duplicates: groups of byte-identical images within the group; what these contradict only among themselves
            is left out, since they are a group of their own.
    """
    values, known = split_missing(labels[list(group)])
    present, absent = known & (values == 1), known & (values == 0)
    opposite = present.any(axis=0) & absent.any(axis=0)
    for same in duplicates:
        # an image outside of them knows the attribute too, and so contradicts one of them
        opposite &= known[~np.isin(group, same)].any(axis=0)
    rows = np.asarray(group)
    return tuple(
        Contradiction(
            int(column), tuple(rows[present[:, column]].tolist()), tuple(rows[absent[:, column]].tolist())
        )
        for column in np.flatnonzero(opposite)
    )


def merge_groups(*groupings: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """The groups of all groupings, without those that lie within another; by their first index."""
    groups = sorted({group for grouping in groupings for group in grouping}, key=lambda group: -len(group))
    kept: list[tuple[int, ...]] = []
    group_of: dict[int, set[int]] = defaultdict(set)
    for group in groups:
        if not set.intersection(*(group_of[row] for row in group)):
            for row in group:
                group_of[row].add(len(kept))
            kept.append(group)
    return tuple(sorted(kept))


def find_leaks(
    groups: Sequence[Sequence[int]], subsets: Sequence[NDArray[np.intp]]
) -> tuple[tuple[int, ...], ...]:
    """Those groups that have rows in more than one subset.

    Args:
        groups: row indices of images that are one photo.
        subsets: the row indices of each subset.
    """
    last = max((int(rows.max(initial=-1)) for rows in (*subsets, *map(np.asarray, groups))), default=-1)
    subset_of = np.full(last + 1, -1, dtype=np.int16)
    for number, rows in enumerate(subsets):
        subset_of[rows] = number
    return tuple(tuple(group) for group in groups if len({*subset_of[list(group)].tolist()} - {-1}) > 1)
