"""Owns the usual table: a row an image, a column an attribute."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import TableError
from mlcls.labels.cells import (
    ABSENT,
    EMPTY,
    EXPECTED,
    KINDS,
    MINUS_ONE,
    OTHER,
    PRESENT,
    UNKNOWN,
    kind_values,
)
from mlcls.labels.faults import SHOWN, Faults
from mlcls.labels.source import (
    Chunk,
    Request,
    Roles,
    Rows,
    Source,
    Text,
    check_cells,
    find_column,
    find_roles,
)


@dataclass(slots=True, eq=False)  # the same column, not one like it: thousands are looked up in lists
class _Column:
    """What one column holds that could be an attribute."""

    index: int
    name: str
    counts: NDArray[np.int64]  # [KINDS]
    others: list[tuple[int, str]]  # line and text of its first cells that are no labels

    def known(self, minus_one: str | None) -> int:
        """Its cells that are label values."""
        labels = int(self.counts[ABSENT] + self.counts[PRESENT])
        return labels + (int(self.counts[MINUS_ONE]) if minus_one == "absent" else 0)

    def says_nothing(self, minus_one: str | None) -> bool:
        """Whether all its cells are unknown."""
        return not self.known(minus_one) and not self.counts[OTHER]


def read_wide(source: Source, request: Request, faults: Faults) -> Rows:
    """Read a table with a row an image and a column an attribute.

    Returns:
        labels float32 [N, A], in the columns' order, or in the order of `request.attributes`.

    Raises:
        TableError: a named column does not exist, or no column holds labels. Cells that are no labels are `faults`.
    """
    roles = find_roles(source, request, faults.source)
    columns = _candidates(source, roles, request, faults)
    labels, text, lines = _read_cells(source, roles, columns, kind_values(request.minus_one), faults)
    chosen, metadata = _choose(source, columns, request, faults)
    _add_cell_faults(chosen, request, faults)
    notes = _check_minus_one(columns, chosen, request, faults)
    names, subsets, groups = roles.split(text)
    order = [columns.index(column) for column in chosen]
    if order != list(range(len(columns))):
        labels = labels[:, order]
    return Rows(
        names=names,
        lines=lines,
        labels=labels,
        attributes=tuple(column.name for column in chosen),
        subsets=subsets,
        groups=groups,
        layout=f"{source.layout}, {len(chosen)} attribute column{'s' if len(chosen) != 1 else ''}",
        count=len(names),
        metadata=metadata,
        unknown=tuple(c.name for c in columns if c not in chosen and c.says_nothing(request.minus_one)),
        notes=notes,
    )


def _candidates(source: Source, roles: Roles, request: Request, faults: Faults) -> list[_Column]:
    """The columns that may be attributes: those asked for, or all but image, subset and group."""
    if request.attributes is None:
        wanted = [c for c in range(len(source.columns)) if c not in roles.text]
    else:
        wanted = [
            find_column(name, source.columns, "--attributes", faults.source) for name in request.attributes
        ]
        if roles.image in wanted:
            name = source.columns[roles.image]
            raise TableError(
                f"{faults.source}: --attributes: column '{name}' names the images; see --image-column"
            )
    return [_Column(c, source.columns[c], np.zeros(KINDS, np.int64), []) for c in wanted]


def _read_cells(
    source: Source, roles: Roles, columns: list[_Column], values: NDArray[np.float32], faults: Faults
) -> tuple[NDArray[np.float32], list[Text], NDArray[np.int64]]:
    """Labels [N, c] of the columns, the text columns of `roles`, and the rows' lines [N]; counts go to `columns`."""
    check_cells(source.bound, len(columns), faults.source)
    matrix = np.empty((source.bound, len(columns)), np.float32)  # pages never written take no memory
    text: list[list[Text]] = [[np.empty(0, dtype=object)] for _ in roles.text]
    lines = [np.empty(0, np.int64)]
    rows = 0
    for chunk in source.chunks(roles.text, [column.index for column in columns], faults):
        here = matrix[rows : rows + len(chunk.lines)]
        here[:] = chunk.kinds  # right for ABSENT and PRESENT; a look-up of every cell would take longer
        np.copyto(here, np.float32(np.nan), where=chunk.kinds >= UNKNOWN)
        if values[MINUS_ONE] == 0:
            here[chunk.kinds == MINUS_ONE] = 0
        _count(chunk, columns)
        for cells, part in zip(text, chunk.text, strict=True):
            cells.append(part)
        lines.append(chunk.lines)
        rows += len(chunk.lines)
    return matrix[:rows], [np.concatenate(parts) for parts in text], np.concatenate(lines)


def _count(chunk: Chunk, columns: list[_Column]) -> None:
    """Add a chunk's kinds to its columns, and the first cells of each that are no labels."""
    if not columns:
        return
    counts = np.zeros((KINDS, len(columns)), np.int64)
    for kind in range(PRESENT, int(chunk.kinds.max(initial=0)) + 1):
        counts[kind] = np.count_nonzero(chunk.kinds == kind, axis=0)
    counts[ABSENT] = len(chunk.lines) - counts.sum(axis=0)
    for index, column in enumerate(columns):
        column.counts += counts[:, index]
        if counts[OTHER, index] and len(column.others) < SHOWN:
            rows = np.flatnonzero(chunk.kinds[:, index] == OTHER)[: SHOWN - len(column.others)]
            column.others += [(int(chunk.lines[row]), chunk.cell(int(row), index)) for row in rows]


def _choose(
    source: Source, columns: list[_Column], request: Request, faults: Faults
) -> tuple[list[_Column], tuple[str, ...]]:
    """The columns that are attributes, and the names of those left alone."""
    if request.attributes is not None:
        taken = {column.index for column in columns}
        roles = find_roles(source, request, faults.source).text
        return columns, tuple(n for i, n in enumerate(source.columns) if i not in taken and i not in roles)
    chosen = [column for column in columns if _fits(column, source, request.minus_one)]
    if not chosen and request.minus_one is None:
        # a table that says nothing but -1: its columns stay, so that the question what -1 means is asked
        chosen = [c for c in columns if c.says_nothing(None) and c.counts[MINUS_ONE]]
    if not chosen and not faults.total:
        _no_attributes(source, columns, faults)
    return chosen, tuple(column.name for column in columns if column not in chosen)


def _fits(column: _Column, source: Source, minus_one: str | None) -> bool:
    """Whether a column is an attribute, where none was asked for."""
    if not source.headed:  # all but a last one of empty cells: a delimiter at the end of each row
        nothing = column.counts[EMPTY] == column.counts.sum()
        return not (nothing and column.index == len(source.columns) - 1)
    if column.index in source.unnamed or (column.says_nothing(minus_one) and column.counts.any()):
        return False
    return bool(column.known(minus_one) >= column.counts[OTHER])  # half of those that are not unknown


def _no_attributes(source: Source, columns: list[_Column], faults: Faults) -> None:
    """Raise the TableError of a table without a column of labels."""
    empty = [
        column.name for column in columns if column.says_nothing(None) and column.index not in source.unnamed
    ]
    if empty and len(empty) == len(columns):
        raise TableError(
            f"{faults.source}: no label is known: {', '.join(map(repr, empty))} {'is' if len(empty) == 1 else 'are'} "
            f"unknown in every row; {EXPECTED}"
        )
    for column in columns:
        if _looks_like_tags(column):
            raise TableError(
                f"{faults.source}: no column holds labels; if '{column.name}' is a column of tags "
                f"('{column.others[0][1]}'), say --tags-column {_quote(column.name)}"
            )
    names = ", ".join(f"'{name}'" for name in source.columns)
    raise TableError(
        f"{faults.source}: no column holds labels (columns: {names}); {EXPECTED}; choose columns with --attributes"
    )


def _looks_like_tags(column: _Column) -> bool:
    """Whether its cells are text, not numbers."""
    texts = [text for _, text in column.others]
    return bool(texts) and sum(any(map(str.isalpha, text)) for text in texts) * 2 > len(texts)


def _add_cell_faults(columns: list[_Column], request: Request, faults: Faults) -> None:
    """Cells of attributes that are no labels."""
    for column in columns:
        for line, text in column.others:
            faults.add(line, f"'{text}' is not a label", column=column.name, position=column.index)
        others = int(column.counts[OTHER])
        faults.count(others - len(column.others))
        if others:
            faults.advise(EXPECTED)
        if others and request.attributes is None:  # sentences are sorted: this one stands first
            faults.advise(
                "a column that holds no labels though most of its cells are 0 or 1: leave it out by naming the others "
                "with --attributes; if it says train, val or test, name it with --split column:NAME"
            )
        if others and not column.known(None) and _looks_like_tags(column):
            faults.advise(
                f"column '{column.name}' holds no label at all: if it is a column of tags, say --tags-column "
                f"{_quote(column.name)}; if it is no label, choose the columns that are with --attributes"
            )


def _check_minus_one(
    columns: list[_Column], chosen: list[_Column], request: Request, faults: Faults
) -> tuple[str, ...]:
    """-1 means unknown here, and absent elsewhere: a table with -1 and not one 0 does not say which.

    Where only some columns hold a 0, the others may be another's, pasted together: a note for those.
    """
    if request.minus_one is not None:
        return ()
    counts = sum((column.counts for column in chosen), np.zeros(KINDS, np.int64))
    if counts[MINUS_ONE] and not counts[ABSENT]:
        faults.add(
            0,
            f"-1 stands in the table ({int(counts[MINUS_ONE]):,} times) and 0 does not: say what -1 means, "
            "--minus-one absent (as in CelebA) or --minus-one unknown",
        )
        return ()
    without = [c for c in columns if c.counts[MINUS_ONE] and not c.counts[ABSENT]]
    both = [c.name for c in without if c in chosen and c.counts[PRESENT]]
    alone = [c.name for c in without if c.says_nothing(None)]
    notes = []
    if both:
        notes.append(
            f"{_some(both)} {_hold(both)} 1 and -1 but no 0: -1 was read as unknown; "
            "if it means absent there, say --minus-one absent"
        )
    if alone:
        notes.append(
            f"{_some(alone)} {_hold(alone)} -1 and no known label: read as unknown in every row; "
            "if -1 means absent there, say --minus-one absent"
        )
    return tuple(notes)


def _some(names: list[str], limit: int = 10) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _hold(names: list[str]) -> str:
    return "holds" if len(names) == 1 else "hold"


def _quote(name: str) -> str:
    return f"'{name}'" if " " in name else name
