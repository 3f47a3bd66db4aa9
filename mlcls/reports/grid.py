"""Aligned columns: the one layout of every table on the console, fitted to a terminal and whole in a pipe."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mlcls.reports.console import emit, safe

Cell = str | tuple[str, str]  # a text, or a text and its style
_LONGEST, _LONGEST_PIPED = 40, 60  # cells of a name in the first column; of more it loses its middle
_NARROWEST = 16  # a column of text is not squeezed below this before other columns are left out
_INDENT = 2


@dataclass(frozen=True, slots=True)
class Column:
    """A column: numbers stand right, text left. Text is folded where a terminal is narrow.

    Names, the text of a first column, lose their middle rather than be folded, unless two would look the same.

    `drop` says which columns a narrow terminal loses first: the highest first, 0 never. `name` is what the
    column is called outside the table, where its title alone would not say.
    """

    title: str
    text: bool = False
    drop: int = 0
    name: str = ""


def print_grid(
    console: Console,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Cell]],
    last: int = 0,
    after: int = 0,
) -> tuple[str, ...]:
    """Print a header and rows in aligned columns.

    Args:
        columns: the header, from left to right.
        rows: a cell a column each; cells may be empty.
        last: how many of the last rows stand apart, below a rule (sums, means).
        after: how many of these stand apart once more, below a second rule (what to hold the means against).

    Returns:
        The names of the columns that were left out because the terminal is narrow, in their order.
    """
    table = [[(safe(console, column.title), "bold") for column in columns]]
    table += [[_styled(console, cell) for cell in row] for row in rows]
    names = columns[0].text
    if names:
        _cut_names(console, table, _LONGEST if console.is_terminal else _LONGEST_PIPED)
    widths = [max(cell_len(row[i][0]) for row in table) for i in range(len(columns))]
    kept = list(range(len(columns)))
    if console.is_terminal:
        kept = _fitting(columns, widths, console.width - _INDENT)
        if names and widths[0] >= _NARROWEST:
            _cut_names(console, table, widths[0])
    for number, row in enumerate(table):
        if console.is_terminal and number in (1, len(table) - last, len(table) - after):
            rule = sum(widths[i] for i in kept) + 2 * (len(kept) - 1)
            emit(console, Text(" " * _INDENT + safe(console, "─") * rule, style="dim"))
        _print_row(console, [row[i] for i in kept], [columns[i] for i in kept], [widths[i] for i in kept])
    return tuple(column.name or column.title for i, column in enumerate(columns) if i not in kept)


def _styled(console: Console, cell: Cell) -> tuple[str, str]:
    text, style = (cell, "") if isinstance(cell, str) else cell
    return safe(console, text), style


def _cut_names(console: Console, table: list[list[tuple[str, str]]], most: int) -> None:
    """Leave out the middle of names of more than `most` cells, in place; those that would look alike stay whole."""
    names = [row[0][0] for row in table]
    cut = [_without_middle(name, most, safe(console, "…")) for name in names]
    wholes: dict[str, set[str]] = {}
    for name, short in zip(names, cut, strict=True):
        wholes.setdefault(short, set()).add(name)
    for row, short in zip(table, cut, strict=True):
        if len(wholes[short]) == 1:
            row[0] = (short, row[0][1])


def _without_middle(name: str, most: int, mark: str) -> str:
    if cell_len(name) <= most:
        return name
    room = most - cell_len(mark)
    start, end = name, name
    while cell_len(start) > room - room // 2:
        start = start[:-1]
    while cell_len(end) > room // 2:
        end = end[1:]
    return start + mark + end


def _fitting(columns: Sequence[Column], widths: list[int], room: int) -> list[int]:
    """Which columns stay, so that they fit into `room` cells; narrows text columns in `widths` in place."""
    kept = list(range(len(columns)))
    while True:
        excess = sum(widths[i] for i in kept) + 2 * (len(kept) - 1) - room
        if excess <= 0:
            return kept
        slack = sum(max(0, widths[i] - _NARROWEST) for i in kept if columns[i].text)
        droppable = [i for i in kept if columns[i].drop]
        if slack < excess and droppable:
            kept.remove(max(droppable, key=lambda i: columns[i].drop))
            continue
        folding = [i for i in kept if columns[i].text and widths[i] > 1]
        if not folding:
            return kept  # nothing more can give way: the terminal cuts the lines
        widths[max(folding, key=lambda i: widths[i])] -= 1


def _print_row(
    console: Console, cells: Sequence[tuple[str, str]], columns: Sequence[Column], widths: Sequence[int]
) -> None:
    folded = [
        [(part.plain.rstrip(), style) for part in Text(text).wrap(console, width, overflow="fold")]
        if cell_len(text) > width
        else [(text, style)]
        for (text, style), width in zip(cells, widths, strict=True)
    ]
    for depth in range(max((len(parts) for parts in folded), default=0)):
        line = Text(" " * _INDENT)
        for i, (parts, column, width) in enumerate(zip(folded, columns, widths, strict=True)):
            text, style = parts[depth] if depth < len(parts) else ("", "")
            gap = " " * max(0, width - cell_len(text))
            line.append("  " if i else "")
            line.append("" if column.text else gap).append(text, style=style)
            line.append(gap if column.text else "")
        line.rstrip()
        emit(console, line)
