"""Owns COCO json: a category is present where an annotation has it and absent elsewhere."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import TableError
from mlcls.labels.faults import SHOWN, Faults
from mlcls.labels.lines import open_table
from mlcls.labels.source import Request, Rows, check_cells
from mlcls.naming import suggest

COCO_LAYOUT: Final = "COCO json"
PARTS: Final = ("images", "annotations", "categories")


def is_coco(path: Path) -> bool:
    """Whether the table is read as COCO: its name ends in .json."""
    return path.suffix.lower() == ".json"


def read_coco(path: Path, request: Request, faults: Faults) -> Rows:
    """Read a COCO json. A category that no image has is left out, unless `request.attributes` names it.

    Attributes are in the order of `categories`. What is wrong with an entry is a fault, told by its place, from 1.

    Raises:
        TableError: the file is no COCO json, or a flag was given that only a table of columns has.
    """
    faults.unit = "images entry"
    _refuse_flags(path, request)
    content = _load(path)
    images = _check_entries(content, "images", ("id", "file_name"), faults)
    categories = _check_entries(content, "categories", ("id", "name"), faults)
    annotations = _check_entries(content, "annotations", ("image_id", "category_id"), faults)
    rows = _index(images, "id", "images", faults)
    columns = _index(categories, "id", "categories", faults)
    _index(categories, "name", "categories", faults)
    check_cells(len(images), len(categories), faults.source)
    labels = np.zeros((len(images), len(categories)), np.float32)
    unknown = 0
    for number, entry in annotations:
        row, column = rows.get(entry["image_id"]), columns.get(entry["category_id"])
        if row is not None and column is not None:
            labels[row, column] = 1.0
            continue
        unknown += 1
        if unknown <= SHOWN:
            key, of = ("image_id", "images") if row is None else ("category_id", "categories")
            faults.add(0, f"annotations entry {number + 1}: {key} {entry[key]!r} is not among the {of}")
    faults.count(max(0, unknown - SHOWN))
    names = [str(entry["name"]) for _, entry in categories]
    chosen, left_out = _choose(names, labels, request, faults)
    return Rows(
        names=_objects([str(entry["file_name"]) for _, entry in images]),
        lines=np.array([number + 1 for number, _ in images], np.int64),
        labels=labels if chosen == list(range(len(names))) else labels[:, chosen],
        attributes=tuple(names[i] for i in chosen),
        subsets=None,
        groups=None,
        layout=f"{COCO_LAYOUT}, {len(chosen)} categories",
        count=len(images),
        left_out=left_out,
        unmentioned="absent",
    )


def _refuse_flags(path: Path, request: Request) -> None:
    given = {
        "--image-column": request.image_column,
        "--names": request.names,
        "--tags-column": request.tags_column,
        "--split column:": request.subset_column,
        "--group-column": request.group_column,
    }
    for flag, value in given.items():
        if value is not None:
            said = f"{flag}{value}" if flag.endswith(":") else flag
            raise TableError(f"{path}: {said}: a COCO json has no columns; leave the flag out")


def _load(path: Path) -> dict[str, Any]:
    """The json's three lists.

    Raises:
        TableError: it is not JSON, or has not these lists.
    """
    with open_table(path) as file:
        raw = file.read()
    try:
        content = json.loads(raw)
    except json.JSONDecodeError as error:
        raise TableError(
            f"{path}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # not UTF-8, a number of thousands of digits, lists in lists in ...
        raise TableError(f"{path}: not JSON that can be read: {error}") from error
    for part in PARTS:
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise TableError(f"{path}: no list '{part}'; expected a COCO json with {', '.join(PARTS)}")
    if not content["images"]:
        raise TableError(f"{path}: the list 'images' is empty; expected the images of a COCO json")
    return {part: content[part] for part in PARTS}


Entries = list[tuple[int, dict[str, Any]]]


def _check_entries(content: dict[str, Any], part: str, keys: tuple[str, str], faults: Faults) -> Entries:
    """The entries of a list, with their places, that have both keys, a number or a text each."""
    fine: Entries = []
    for number, entry in enumerate(content[part]):
        if not isinstance(entry, dict) or not all(
            isinstance(entry.get(key), int | float | str) for key in keys
        ):
            faults.add(0, f"{part} entry {number + 1}: expected an object with '{keys[0]}' and '{keys[1]}'")
        elif keys[1] in ("file_name", "name") and not str(entry[keys[1]]).strip():
            faults.add(0, f"{part} entry {number + 1}: '{keys[1]}' is empty")
        else:
            fine.append((number, entry))
    return fine


def _index(entries: Entries, key: str, part: str, faults: Faults) -> dict[Any, int]:
    """Where each value of `key` stands among the entries; one that stands twice is a fault."""
    index: dict[Any, int] = {}
    for place, (number, entry) in enumerate(entries):
        if entry[key] in index:
            faults.add(0, f"{part} entry {number + 1}: '{key}' {entry[key]!r} stands twice")
        index.setdefault(entry[key], place)
    return index


def _choose(
    names: list[str], labels: NDArray[np.float32], request: Request, faults: Faults
) -> tuple[list[int], tuple[str, ...]]:
    """Which categories are attributes, and the names of those that no image has."""
    if request.attributes is not None:
        for name in request.attributes:
            if name not in names:
                raise TableError(
                    f"{faults.source}: --attributes: no category '{name}'; {suggest(name, names)}"
                )
        return [names.index(name) for name in request.attributes], ()
    seen = [bool(column.any()) for column in labels.T]
    if not any(seen) and not faults.total:
        raise TableError(f"{faults.source}: no annotation gives an image a category")
    return [i for i, there in enumerate(seen) if there], tuple(
        name for name, there in zip(names, seen, strict=True) if not there
    )


def _objects(values: list[str]) -> NDArray[np.object_]:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out
