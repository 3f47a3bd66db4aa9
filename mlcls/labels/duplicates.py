"""Owns byte-identical images: which files are the same; and what groups of images that are one photo give away.

Which of them carry opposite labels, for which attributes, and which lie in several subsets of a split.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.missing import split_missing

TAIL = 4096  # bytes read to tell files of one size apart: an image ends with data and starts with a header


AnyPath = str | os.PathLike[str]


def find_duplicates(paths: Sequence[AnyPath]) -> tuple[tuple[int, ...], ...]:
    """Groups of files with the same bytes: by size, then the last 4 KiB, then SHA-256 of what is still equal.

    Args:
        paths: files (a million texts take a fifth of the memory of `Path`s). One that is absent, empty or cannot be
            opened is left out: decoding reports it.

    Returns:
        Indices into `paths`, ascending within each group; groups of two or more, by their first index.
    """
    groups: Iterable[Sequence[int]] = _of_one_size(paths)
    for key in (_tail, _digest):
        groups = [part for group in groups for part in _parts(group, paths, key)]
    return tuple(sorted(tuple(group) for group in groups))


def _of_one_size(paths: Sequence[AnyPath]) -> Iterable[list[int]]:
    """Indices of files of one size, two or more together; not of those that are empty or absent."""
    sizes = np.fromiter(map(_size, paths), np.int64, len(paths))
    order = np.argsort(sizes, kind="stable")
    order = order[np.searchsorted(sizes[order], 1) :]
    starts = np.flatnonzero(np.diff(sizes[order], prepend=0))
    ends = np.append(starts[1:], len(order))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield order[start:end].tolist()


def _parts(
    group: Sequence[int], paths: Sequence[AnyPath], key: Callable[[AnyPath], Hashable]
) -> list[list[int]]:
    """The group's members of equal key, two or more together."""
    parts: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index in group:
        try:
            value = key(paths[index])
        except OSError:
            continue
        parts[value].append(index)
    return [part for part in parts.values() if len(part) > 1]


def _size(path: AnyPath) -> int:
    """Bytes; 0 where there is no such file."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _tail(path: AnyPath) -> bytes:
    with open(path, "rb") as file:
        file.seek(-min(TAIL, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read()


def _digest(path: AnyPath) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


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
        duplicates: groups of row indices, as `find_duplicates` returns them.
    """
    return tuple(tuple(group) for group in duplicates if find_contradictions(labels, group))


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
