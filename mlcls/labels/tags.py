"""Owns tables with one column of tags: a row an image, its tags in one cell."""

import re
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import TableError
from mlcls.labels.cells import EMPTY, is_unknown, kind_of
from mlcls.labels.faults import SHOWN, Faults
from mlcls.labels.source import Request, Rows, Source, check_cells, find_column, find_roles, gather
from mlcls.naming import suggest

# tuples, sets and dicts as Python prints them; a tag may well begin with a parenthesis, but not end in such a way too
_FOREIGN: Final = re.compile(
    r"""(?:frozenset|set|tuple)\(.*\) | [({]\s*['"].*[)}] | \([^()]*,[^()]*\) | \{[^{}]*,[^{}]*\} | \(\) | \{\}""",
    re.VERBOSE | re.DOTALL,
)
SEPARATORS: Final = {",": "commas", ";": "semicolons", "|": "|"}
_ITEM: Final = re.compile(
    r"""\s* (?: '((?:[^'\\]|\\.)*)' | "((?:[^"\\]|\\.)*)" | ([^\s,'"\[\]]+(?:[ ]+[^\s,'"\[\]]+)*) )
        \s* (?: , | (?=['"]) | $ )""",
    re.VERBOSE,
)


def read_tags(source: Source, request: Request, faults: Faults) -> Rows:
    """Read a table with a column of tags; every tag seen is an attribute, in alphabetical order.

    An empty cell is an image without tags, all absent; a cell that is NA (or another unknown word) is unknown in all.

    Raises:
        TableError: a named column does not exist, no tag was seen, or the separator cannot be told.
    """
    tags_column = request.tags_column or ""
    column = find_column(tags_column, source.columns, "--tags-column", faults.source)
    roles = find_roles(source, request, faults.source)
    if column in roles.text:
        raise TableError(f"{faults.source}: --tags-column: column '{tags_column}' has another role already")
    chunks = list(source.chunks((*roles.text, column), (), faults))
    lines, text = gather(chunks, len(roles.text) + 1)
    names, subsets, groups = roles.split(text)
    split, how = find_splitter(text[-1].tolist(), request, faults)
    tags = _split_cells(text[-1].tolist(), lines.tolist(), split, tags_column, column, faults)
    attributes = _attributes(tags, request, faults)
    check_cells(len(tags), len(attributes), faults.source)
    return Rows(
        names=names,
        lines=lines,
        labels=_fill(tags, attributes),
        attributes=attributes,
        subsets=subsets,
        groups=groups,
        layout=f"{source.layout}, tags in column '{tags_column}' ({how})",
        count=len(lines),
        metadata=tuple(n for i, n in enumerate(source.columns) if i not in (*roles.text, column)),
        unmentioned="absent",
    )


Splitter = Callable[[str], list[str]]


def find_splitter(cells: list[str], request: Request, faults: Faults) -> tuple[Splitter, str]:
    """How the cells' tags are told apart, and that in words: as asked, or by the one separator that the cells hold.

    Raises:
        TableError: they hold several of comma, semicolon and |.
    """
    separator = request.tags_separator
    if separator is None:
        said = {cell for cell in cells if not is_unknown(cell)}
        plain = [cell for cell in said if not _is_literal(cell)]
        found = [mark for mark in SEPARATORS if any(mark in cell for cell in plain)]
        if len(found) > 1:
            raise TableError(
                f"{faults.source}: column '{request.tags_column}' holds {' and '.join(map(repr, found))}; "
                f"say which one stands between tags: --tags-separator {found[0]!r}"
            )
        if said and not plain:
            return str.split, "Python lists"
        separator = found[0] if found else " "
    if not separator.strip():
        return str.split, "whitespace between tags"
    words = SEPARATORS.get(separator, separator)
    return lambda cell: [
        tag for part in cell.split(separator) if (tag := part.strip())
    ], f"{words} between tags"


def _is_literal(cell: str) -> bool:
    return cell.startswith("[") or _FOREIGN.fullmatch(cell) is not None


def parse_literal(cell: str) -> list[str] | None:
    """The items of a list as Python, JSON or NumPy print it (`['a', 'b']`, `["a"]`, `['a' 'b']`, `[a, b]`), or None."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    inner, items, position = cell[1:-1], [], 0
    while inner[position:].strip():
        match = _ITEM.match(inner, position)
        if match is None:
            return None
        quoted = match[1] if match[1] is not None else match[2]
        item = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        items.append(item.strip())
        position = match.end()
    return [item for item in items if item]


def _split_cells(
    cells: list[str], lines: list[int], split: Splitter, name: str, position: int, faults: Faults
) -> list[list[str] | None]:
    """The tags of each cell [N]; None where they are unknown."""
    known: dict[str, list[str] | None] = {}
    tags: list[list[str] | None] = []
    broken = 0
    for cell, line in zip(cells, lines, strict=True):
        if cell not in known:
            unknown = is_unknown(cell) and kind_of(cell) != EMPTY
            known[cell] = None if unknown else parse_literal(cell) if _is_literal(cell) else split(cell)
        if known[cell] is None and _is_literal(cell):
            broken += 1
            if broken <= SHOWN:
                what = (
                    "a list that can be read" if cell.startswith("[") else "a list; write ['a', 'b'], or a,b"
                )
                faults.add(line, f"'{cell}' is not {what}", column=name, position=position)
        tags.append(known[cell])
    faults.count(max(0, broken - SHOWN))
    return tags


def _attributes(tags: list[list[str] | None], request: Request, faults: Faults) -> tuple[str, ...]:
    """The tags seen, or those asked for."""
    seen = sorted({tag for row in tags if row for tag in row})
    for name in request.attributes or ():
        if seen and name not in seen:
            raise TableError(
                f"{faults.source}: --attributes: no image has the tag '{name}'; {suggest(name, seen)}"
            )
    if not seen and not faults.total:
        raise TableError(
            f"{faults.source}: column '{request.tags_column}' holds no tag at all; see --tags-column"
        )
    return tuple(seen) if request.attributes is None else request.attributes


def _fill(tags: list[list[str] | None], attributes: tuple[str, ...]) -> NDArray[np.float32]:
    """Labels [N, A]: 1 for a tag of the row, 0 for the others, NaN in rows that are unknown."""
    index = {name: i for i, name in enumerate(attributes)}
    labels = np.zeros((len(tags), len(attributes)), np.float32)
    pairs = [(row, index[tag]) for row, found in enumerate(tags) for tag in found or () if tag in index]
    if pairs:
        labels[tuple(np.array(pairs, np.intp).T)] = 1.0
    labels[[row for row, found in enumerate(tags) if found is None]] = np.nan
    return labels
