"""Owns which images of a run belong together (`groups.csv`): the unit that intervals resample."""

import csv
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import BundleError, OutputError

HEADER = ["image", "group"]


def write_groups(path: str | os.PathLike[str], images: Sequence[str], groups: NDArray[np.int64]) -> None:
    """Write `image,group` for every image that shares its group with another. UTF-8, LF.

    Args:
        images: N names.
        groups: [N] numbers, equal ones belong together; they are written counted anew from 0.

    Raises:
        OutputError: the file cannot be written.
    """
    _, numbers, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shared = np.flatnonzero(sizes[numbers] > 1)
    written = np.unique(numbers[shared], return_inverse=True)[1]
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(HEADER)
            rows.writerows(
                (images[row], group) for row, group in zip(shared.tolist(), written.tolist(), strict=True)
            )
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_groups(path: str | os.PathLike[str], images: Sequence[str]) -> NDArray[np.int64]:
    """The group of each of these images, int64 [N]; one that the file does not name is a group of its own.

    Raises:
        BundleError: the file cannot be read or is not what `write_groups` writes; names the line.
    """
    found: dict[str, int] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for line, cells in enumerate(csv.reader(file), start=1):
                if line == 1 and cells == HEADER:
                    continue
                if line == 1 or len(cells) != 2 or not cells[1].isdecimal():
                    raise BundleError(f"{path}, line {line}: expected an image and the number of its group")
                found[cells[0]] = int(cells[1])
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BundleError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    alone = max(found.values(), default=-1) + 1
    numbers = [found.get(image, alone + row) for row, image in enumerate(images)]
    return np.array(numbers, dtype=np.int64)


def shared_groups(groups: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """The groups where any two images share one, counted from 0 in the order of their first images; else None.

    Resampling draws groups by their numbers: counted so, equal groups give equal intervals whatever they were called.
    """
    if groups is None:
        return None
    _, first, numbers = np.unique(groups, return_index=True, return_inverse=True)
    if len(first) == len(groups):
        return None
    return np.argsort(np.argsort(first))[numbers].astype(np.int64)
