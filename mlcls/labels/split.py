"""Owns the division of rows among train, val and test: made, read from a column or a file, written."""

import csv
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import OutputError, RecipeError, TableError
from mlcls.labels.numbering import number_said
from mlcls.labels.split_notes import describe_lacking
from mlcls.labels.stratify import SUBSETS, stratify

LEAST = 1e-9  # of a fraction: its square's inverse is still a number, and no table has as many rows
SPELLINGS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Split:
    """Sorted row indices of each subset, and what a person should know about how they came about."""

    train: NDArray[np.intp]
    val: NDArray[np.intp]
    test: NDArray[np.intp]
    notes: tuple[str, ...] = ()


def parse_fractions(text: str) -> tuple[float, float, float]:
    """Fractions of train, val and test from the text of `--split`, e.g. `0.7,0.15,0.15` or `0.8,0.2,0`.

    Raises:
        RecipeError: not three numbers that sum to 1, or train or val is 0.
    """
    try:
        fractions = tuple(float(part) for part in text.split(","))
    except ValueError:
        fractions = ()
    if len(fractions) != 3:
        raise RecipeError(
            f"--split: '{text}' is not understood; expected three fractions train,val,test "
            "such as 0.7,0.15,0.15, or column:NAME, or file:split.csv"
        )
    _check_fractions(fractions)
    return fractions[0], fractions[1], fractions[2]


def _check_fractions(fractions: Sequence[float]) -> None:
    shown = ",".join(f"{fraction:g}" for fraction in fractions)
    if not all(0 <= fraction <= 1 for fraction in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise RecipeError(
            f"--split: the fractions {shown} must lie between 0 and 1 and sum to 1, as 0.7,0.15,0.15 do"
        )
    if any(0 < fraction < LEAST for fraction in fractions):
        raise RecipeError(
            f"--split: of the fractions {shown} one is too small; expected 0, or at least {LEAST:g}"
        )
    if not (fractions[0] > 0 and fractions[1] > 0):
        raise RecipeError(
            f"--split: the fractions {shown} leave train or val empty; only test may be 0, as in 0.8,0.2,0"
        )


def split_table(
    labels: NDArray[np.float32],
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    *,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
    attributes: Sequence[str] | None = None,
) -> Split:
    """Divide rows at random, each attribute's known positives, known negatives and unknowns spread evenly.

    Iterative stratification, see `mlcls.labels.stratify`. An attribute that enough images show stands in each
    subset, if an exchange of rows can bring that about; a note says where it does not.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        fractions: of train, val, test; they sum to 1, and test may be 0.
        groups: [N] rows of equal value never part (see `combine_groups`); None: each row for itself.
        seed: a whole number from 0; the same arguments give the same split.
        attributes: [A] names for the notes.

    Raises:
        TableError: there are not at least two rows (or groups of rows), one for train and one for val.
        RecipeError: fractions that cannot be used.
    """
    _check_fractions(fractions)
    rows, count = labels.shape
    ids = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    units = int(ids.max()) + 1 if rows else 0
    _check_enough(rows, units)
    notes: list[str] = []
    if units == 2 and fractions[2] > 0:
        fractions = (*(fraction / sum(fractions[:2]) for fraction in fractions[:2]), 0.0)
        notes.append(
            f"{rows} images{' in 2 groups' * (rows > 2)} are too few for three subsets: test is empty"
        )
    placed = stratify(labels, ids, fractions, seed)
    names = [f"attribute {index + 1}" for index in range(count)] if attributes is None else attributes
    notes += describe_lacking(labels, placed, names, subsets=sum(fraction > 0 for fraction in fractions))
    return _split_of(placed.subset_of_row, notes)


def _check_enough(rows: int, units: int) -> None:
    if rows < 2:
        raise TableError(
            f"the table has {rows} usable row{'' if rows == 1 else 's'}; training needs at least two images, "
            "one for train and one for val"
        )
    if units < 2:
        raise TableError(
            f"all {rows} rows of the table belong to one group (--group-column, or copies of one photo), "
            "which may not be torn; training needs at least two groups, one for train and one for val"
        )


def _split_of(subset_of_row: NDArray[np.int64], notes: Iterable[str] = ()) -> Split:
    train, val, test = (np.flatnonzero(subset_of_row == subset) for subset in range(3))
    return Split(train, val, test, tuple(notes))


def split_by_column(values: Sequence[object], *, column: str, allow_no_val: bool = False) -> Split:
    """The split that a column states: train/training, val/valid/validation/dev, test/testing, in any case.

    Args:
        values: [N], the column's cells.
        column: its name, for messages.
        allow_no_val: whether a column that names no row val gives a split whose val is empty, for the caller to fill.

    Raises:
        TableError: another value in the column; no row for train, or, but for `allow_no_val`, none for val.
    """
    texts = [str(value).strip() for value in values]
    unknown = list(dict.fromkeys(text for text in texts if text.lower() not in SPELLINGS))
    if unknown:
        row = next(index for index, text in enumerate(texts) if text == unknown[0])
        raise TableError(
            f"column '{column}' (--split column:{column}) must say train, val or test in each row, but holds "
            f"{_some_names(unknown)} (first in data row {row + 1}); {_column_remedy(unknown)}"
        )
    split = _split_of(np.array([SUBSETS.index(SPELLINGS[text.lower()]) for text in texts], dtype=np.int64))
    remedy = {
        "train": "name some rows train",
        "val": "name some rows val, or let fractions divide the table instead (--split 0.7,0.15,0.15)",
    }
    for subset, what in remedy.items():
        if not len(getattr(split, subset)) and not (subset == "val" and allow_no_val):
            raise TableError(f"column '{column}' (--split column:{column}) names no row {subset}; {what}")
    return split


def _column_remedy(unknown: Sequence[str]) -> str:
    if all(text.removesuffix(".0").isdecimal() for text in unknown):
        return (
            "numbers are not understood, since nothing says which subset each of them means; write train "
            "(or training), val (or valid, validation, dev) and test (or testing) in their place"
        )
    return "mend these cells or choose another column"


def _some_names(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(f"'{name}'" for name in names[:limit]) + more


def write_split(path: Path, images: Sequence[str], split: Split) -> None:
    """Write `image,subset`, a row an image in the table's order, UTF-8.

    Raises:
        OutputError: the file cannot be written.
    """
    subset_of_row = np.full(len(images), len(SUBSETS), dtype=np.int8)
    for number, name in enumerate(SUBSETS):
        subset_of_row[getattr(split, name)] = number
    placed = np.flatnonzero(subset_of_row < len(SUBSETS))
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "subset"])
            writer.writerows((images[row], SUBSETS[subset_of_row[row]]) for row in placed.tolist())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error


def read_split(path: Path, images: Sequence[str]) -> Split:
    """The split that `write_split` wrote (`--split file:PATH`), for the images of a table.

    Images of the file that the table no longer has are left out, and a note counts them.

    Raises:
        TableError: the file cannot be read or is not `image,subset`; it says nothing of some images; train or
            val has no image.
    """
    stated = read_subsets(path)
    absent = [image for image in images if image not in stated]
    if absent:
        raise TableError(
            f"{path} (--split file:) says nothing of {len(absent)} of the table's {len(images)} images "
            f"({_some_names(absent)}); add a row for each, or split anew with --split 0.7,0.15,0.15"
        )
    split = _split_of(np.array([SUBSETS.index(stated[image]) for image in images], dtype=np.int64))
    for subset in ("train", "val"):
        if not len(getattr(split, subset)):
            raise TableError(
                f"{path} (--split file:) puts none of the table's images into {subset}; it needs at least one"
            )
    present = set(images)
    gone = [image for image in stated if image not in present]
    if not gone:
        return split
    note = f"{len(gone)} of the images in {path} are not in the table any more: {_some_names(gone)}"
    return Split(split.train, split.val, split.test, (note,))


def read_subsets(path: Path) -> Mapping[str, str]:
    """Image -> 'train', 'val' or 'test' of a `split.csv`, in the file's order.

    Raises:
        TableError: the file cannot be read or is not `image,subset`.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _parse_rows(path, csv.reader(file))
    except OSError as error:
        raise TableError(f"--split file:{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"--split file:{path}: not a CSV file in UTF-8 ({error})") from error


def _parse_rows(path: Path, rows: Iterable[list[str]]) -> dict[str, str]:
    stated: dict[str, str] = {}
    for line, row in enumerate(rows, start=1):
        if line == 1:
            if [cell.strip().lower() for cell in row] != ["image", "subset"]:
                raise TableError(
                    f"{path}, line 1: expected the header 'image,subset' as in a bundle's split.csv"
                )
            continue
        if not row:
            continue
        subset = SPELLINGS.get(row[1].strip().lower()) if len(row) == 2 else None
        if subset is None:
            raise TableError(
                f"{path}, line {line}: expected an image and train, val or test, found '{','.join(row)}'"
            )
        if stated.setdefault(row[0], subset) != subset:
            raise TableError(f"{path}, line {line}: '{row[0]}' stands in two subsets; leave one of its rows")
    if not stated:
        raise TableError(f"{path} names no image; expected 'image,subset' and a row for each image")
    return stated


def combine_groups(n: int, *groupings: Sequence[Hashable] | NDArray[np.generic]) -> NDArray[np.int64]:
    """One id for all rows that any grouping holds together, directly or through other rows.

    Args:
        n: how many rows there are.
        groupings: each either [n] values, of which equal ones belong together and an empty one (None, NaN,
            '') stands alone; or a list of tuples of row indices. A list whose
            first entry is a tuple is of the second kind.

    Returns:
        [n] ids from 0.
    """
    rows: list[NDArray[np.int64]] = []
    nodes: list[NDArray[np.int64]] = []
    total = (
        n  # rows are the first nodes of the graph, groups the next: two rows of a group are two steps apart
    )
    for grouping in groupings:
        if len(grouping) == 0:
            continue
        if isinstance(grouping[0], tuple):
            members = [np.asarray(group, dtype=np.int64) for group in grouping]
            row = np.concatenate(members)
            code = np.repeat(np.arange(len(members)), [len(group) for group in members])
        else:
            if len(grouping) != n:
                raise ValueError(f"a grouping of {len(grouping)} values for {n} rows")
            codes = number_said(grouping)
            row, code = np.flatnonzero(codes >= 0), codes[codes >= 0]
        rows.append(row)
        nodes.append(code + total)
        total += int(code.max(initial=-1)) + 1
    if not rows:
        return np.arange(n, dtype=np.int64)
    from scipy.sparse import coo_array  # here: most tables have no groups
    from scipy.sparse.csgraph import connected_components

    start, end = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_array((np.ones(len(start), dtype=np.int8), (start, end)), shape=(total, total))
    return np.asarray(connected_components(graph, directed=False)[1][:n], dtype=np.int64)
