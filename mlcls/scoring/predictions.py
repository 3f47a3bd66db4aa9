"""Owns predictions on disk: `predictions-val.csv`, an image a row, each attribute's label and probability."""

import csv
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import BundleError, OutputError
from mlcls.missing import split_missing

WRITTEN = ("0", "1", "NA")
READ = {"0": 0.0, "1": 1.0, "NA": float("nan")}
SUFFIX = "_probability"
ROWS = 4096  # turned to text at a time

_REMEDY = "restore the file from the run that wrote it, or train again"


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Scores beside what is known about the same images.

    Attributes:
        images: N names, as the label table has them.
        attributes: A names.
        scores: float32 [N, A] probabilities in [0, 1].
        labels: float32 [N, A], 0 absent, 1 present, NaN unknown.
    """

    images: tuple[str, ...]
    attributes: tuple[str, ...]
    scores: NDArray[np.float32]
    labels: NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = (len(self.images), len(self.attributes))
        if self.scores.shape != shape or self.labels.shape != shape:
            raise ValueError(
                f"scores {self.scores.shape} and labels {self.labels.shape} must both be {shape}, "
                "[images, attributes]"
            )


def write_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write `image`, then for each attribute NAME (0, 1 or NA) and NAME_probability. UTF-8, LF.

    A probability is written as the shortest decimal that reads back as the same float32. Names with commas,
    quotes or line breaks are quoted as RFC 4180 has it.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            _write(file, predictions)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _write(file: TextIO, predictions: Predictions) -> None:
    pairs = chain.from_iterable((name, name + SUFFIX) for name in predictions.attributes)
    file.write(",".join(["image", *map(_quoted, pairs)]) + "\n")
    cells: list[str] = [""] * (1 + 2 * len(predictions.attributes))
    for start in range(0, len(predictions.images), ROWS):
        block = slice(start, start + ROWS)
        values, known = split_missing(predictions.labels[block])
        codes = np.where(known, values, 2).astype(np.int8).tolist()
        scores = predictions.scores[block].astype(np.float32, copy=False)
        for image, code, score in zip(predictions.images[block], codes, scores, strict=True):
            cells[0] = _quoted(image)
            cells[1::2] = [WRITTEN[one] for one in code]
            cells[2::2] = map(str, score)  # str of a NumPy float32 is the shortest that reads back as it
            file.write(",".join(cells) + "\n")


def _quoted(name: str) -> str:
    # csv.writer of Python 3.11 leaves a lone carriage return unquoted when lines end in LF
    if name and not any(sign in name for sign in ',"\r\n'):
        return name
    return '"' + name.replace('"', '""') + '"'


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read what `write_predictions` wrote.

    Columns are told by position, so that an attribute may itself be called `x_probability`.

    Raises:
        BundleError: the file is missing or is not such a table; names file, line and column.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return _read(Path(path), file)
    except FileNotFoundError as error:
        raise BundleError(
            f"{path}: no such file; expected the predictions that training saves in its --out folder"
        ) from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: is not UTF-8 text (byte {error.start}); {_REMEDY}") from error


def _read(path: Path, file: TextIO) -> Predictions:
    rows = _rows(path, file)
    first = next(rows, None)
    if first is None:
        raise BundleError(f"{path}: is empty; {_REMEDY}")
    attributes = _attributes(path, first[1])
    images: list[str] = []
    lines, labels, scores = array("q"), array("f"), array("f")
    for line, cells in rows:
        if len(cells) != 1 + 2 * len(attributes):
            raise BundleError(
                f"{path}, line {line}: expected {1 + 2 * len(attributes)} cells as in the header, "
                f"found {len(cells)}; {_REMEDY}"
            )
        images.append(cells[0])
        lines.append(line)
        try:
            labels.extend(map(READ.__getitem__, cells[1::2]))
            scores.extend(map(float, cells[2::2]))
        except (KeyError, ValueError):
            raise _bad_cell(path, line, cells, first[1]) from None
    shape = (len(images), len(attributes))
    found = np.frombuffer(scores, dtype=np.float32).reshape(shape) if images else np.zeros(shape, np.float32)
    known = np.frombuffer(labels, dtype=np.float32).reshape(shape) if images else np.zeros(shape, np.float32)
    outside = ~((found >= 0) & (found <= 1))
    if outside.any():
        row, column = np.argwhere(outside)[0].tolist()
        raise BundleError(
            f"{path}, line {lines[row]}, column '{attributes[column]}{SUFFIX}': expected a probability "
            f"from 0 to 1, found {found[row, column]}; {_REMEDY}"
        )
    return Predictions(tuple(images), attributes, found, known)


def _rows(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Each record with the line it starts on (one record may span several)."""
    reader = csv.reader(file, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BundleError(f"{path}, line {line}: {error}; {_REMEDY}") from error
        if cells is None:
            return
        if cells:  # a blank line, such as an editor leaves at the end
            yield line, cells


def _attributes(path: Path, header: list[str]) -> tuple[str, ...]:
    if header[0] != "image":
        raise BundleError(f"{path}, line 1, column 1: expected 'image', found '{header[0]}'; {_REMEDY}")
    if len(header) % 2 == 0:
        raise BundleError(
            f"{path}, line 1: expected two columns for each attribute after 'image', "
            f"found {len(header) - 1}; {_REMEDY}"
        )
    for column in range(1, len(header), 2):
        if header[column + 1] != header[column] + SUFFIX:
            raise BundleError(
                f"{path}, line 1, column {column + 2}: expected '{header[column]}{SUFFIX}', "
                f"found '{header[column + 1]}'; {_REMEDY}"
            )
    return tuple(header[1::2])


def _bad_cell(path: Path, line: int, cells: list[str], header: list[str]) -> BundleError:
    """The first cell of a row that is not what its column holds."""
    found = ((column, cell, _expected(column, cell)) for column, cell in enumerate(cells[1:], start=1))
    column, cell, expected = next(one for one in found if one[2] is not None)
    return BundleError(
        f"{path}, line {line}, column '{header[column]}': expected {expected}, found '{cell}'; {_REMEDY}"
    )


def _expected(column: int, cell: str) -> str | None:
    """What should stand in a cell, None when it does."""
    if column % 2:
        return None if cell in READ else "0, 1 or NA"
    try:
        float(cell)
    except ValueError:
        return "a probability from 0 to 1"
    return None
