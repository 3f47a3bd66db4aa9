"""Owns byte-identical images: which files are the same, and which of those carry opposite labels."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlcls.missing import split_missing

TAIL = 4096  # bytes read to tell files of one size apart: an image ends with data and starts with a header


def find_duplicates(paths: Sequence[Path]) -> tuple[tuple[int, ...], ...]:
    """Groups of files with the same bytes: by size, then the last 4 KiB, then SHA-256 of what is still equal.

    Args:
        paths: files. One that is absent, empty or cannot be opened is left out: decoding reports it.

    Returns:
        Indices into `paths`, ascending within each group; groups of two or more, by their first index.
    """
    groups: Iterable[Sequence[int]] = [range(len(paths))]
    for key in (_size, _tail, _digest):
        groups = [part for group in groups for part in _parts(group, paths, key)]
    return tuple(sorted(tuple(group) for group in groups))


def _parts(
    group: Sequence[int], paths: Sequence[Path], key: Callable[[Path], Hashable | None]
) -> list[list[int]]:
    """The group's members of equal key, two or more together."""
    parts: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index in group:
        try:
            value = key(paths[index])
        except OSError:
            continue
        if value is not None:
            parts[value].append(index)
    return [part for part in parts.values() if len(part) > 1]


def _size(path: Path) -> int | None:
    return os.stat(path).st_size or None


def _tail(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-min(TAIL, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read()


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def find_conflicts(
    labels: NDArray[np.float32], duplicates: Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """Those groups of identical images of which one is known to show an attribute and another known not to.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        duplicates: groups of row indices, as `find_duplicates` returns them.
    """
    conflicts = []
    for group in duplicates:
        values, known = split_missing(labels[list(group)])
        present = (known & (values == 1)).any(axis=0)
        absent = (known & (values == 0)).any(axis=0)
        if (present & absent).any():
            conflicts.append(tuple(group))
    return tuple(conflicts)
