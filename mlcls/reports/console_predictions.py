"""Predictions on the console: the table of one image, and examples beside what is known about them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.text import Text

from mlcls.reports.console import figure, heading, plural, safe, say
from mlcls.reports.grid import Cell, Column, print_grid

_MOST_ROWS = 12
_AROUND_NAME = 38  # a rule of 50 and names of up to 12, as published


def show_prediction(console: Console, image: str, attributes: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of one image: a probability with four decimals and a status for each attribute.

    Args:
        image: its path, as it was asked for.
        attributes: `{"name", "probability", "threshold", "present"}` each, as in `predict --format json`.
    """
    names = [safe(console, row["name"]) for row in attributes]
    room = max(12, console.width - _AROUND_NAME) if console.is_terminal else sys.maxsize
    width = min(room, max([12, *(cell_len(name) for name in names)]))
    rule = safe(console, "─") * (width + _AROUND_NAME)
    _line(console, rule)
    _line(console, f"  Image : {safe(console, image)}")
    _line(console, rule)
    _line(console, f"  {'Attribute':<{width}} Probability   Status")
    _line(console, f"  {rule[4:]}")
    for name, row in zip(names, attributes, strict=True):
        first, *others = chop_cells(name, width) or [""]
        gap = " " * (width - cell_len(first))
        line = Text(f"  {first}{gap} {row['probability']:>11.4f}   ")
        present = bool(row["present"])
        line.append("[PRESENT]" if present else "[absent] ", style="bold green" if present else "dim")
        console.print(line, soft_wrap=True)
        for other in others:
            _line(console, f"  {other}")
    _line(console, rule)
    found = [row["name"] for row in attributes if row["present"]]
    _line(console, safe(console, f"  Attributes present : {found}"))
    _line(console, rule)


def show_prediction_error(console: Console, image: str, error: str) -> None:
    """Print, in the place of its table, why an image has no prediction."""
    rule = safe(console, "─") * 50
    _line(console, rule)
    _line(console, f"  Image : {safe(console, image)}")
    say(console, f"Error : {error}", style="red", indent=2)
    _line(console, rule)


def _line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


def show_test_examples(
    console: Console, examples: Sequence[Mapping[str, Any]], *, title: str = "Examples of the test subset"
) -> None:
    """Print what was predicted for a few images beside what is known about them.

    Args:
        examples: `{"image", "attributes": [{"name", "label", "probability", "present"}]}` each; `label` is 0,
            1, or None or NaN where unknown. Of many attributes the twelve that say most are shown (the wrong
            ones, then those predicted present) and the rest is counted.
    """
    heading(console, title)
    for example in examples:
        rows = [(row, _verdict(row)) for row in example["attributes"]]
        known = [verdict for _, verdict in rows if verdict != "unknown"]
        right = sum(verdict == "right" for verdict in known)
        say(
            console, f"{example['image']}: {right} of {plural(len(known), 'known label')} right", style="bold"
        )
        order = sorted(range(len(rows)), key=lambda i: _weight(*rows[i]))
        shown, rest = sorted(order[:_MOST_ROWS]), order[_MOST_ROWS:]
        print_grid(console, _EXAMPLE_COLUMNS, [_example_row(*rows[i]) for i in shown])
        if rest:
            wrong = sum(rows[i][1] == "wrong" for i in rest)
            left = plural(len(rest), "other attribute")
            say(console, f"and {left}, {wrong} of them wrong", style="dim", indent=2)


_EXAMPLE_COLUMNS = (
    Column("attribute", text=True),
    Column("probability"),
    Column("predicted", text=True),
    Column("labelled", text=True),
    Column("", text=True),
)


def _verdict(row: Mapping[str, Any]) -> str:
    label = row["label"]
    if label is None or label != label:  # NaN differs from itself
        return "unknown"
    return "right" if bool(label) == bool(row["present"]) else "wrong"


def _weight(row: Mapping[str, Any], verdict: str) -> int:
    return 0 if verdict == "wrong" else 1 if row["present"] else 2


def _example_row(row: Mapping[str, Any], verdict: str) -> list[Cell]:
    labelled = "unknown" if verdict == "unknown" else "present" if row["label"] else "absent"
    style = {"right": "green", "wrong": "bold red", "unknown": "dim"}[verdict]
    mark = "" if verdict == "unknown" else verdict
    predicted = "present" if row["present"] else "absent"
    return [row["name"], figure(row["probability"]), predicted, labelled, (mark, style)]
