"""Figures on the console: the final table for each attribute, and thresholds before and after tuning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from mlcls.reports.console import UNDEFINED, count, facts, figure, heading, notes, plural, say, some
from mlcls.reports.grid import Cell, Column, print_grid

_EVALUATION = (
    Column("attribute", text=True),
    Column("known", drop=1),
    Column("positive"),
    Column("threshold", drop=2),
    Column("precision"),
    Column("recall"),
    Column("F1"),
    Column("AP"),
    Column("AUROC"),
    Column("tn", drop=6),
    Column("fp", drop=5),
    Column("fn", drop=4),
    Column("tp", drop=3),
)


def show_evaluation(console: Console, title: str, evaluation: Mapping[str, Any]) -> None:
    """Print an `evaluation` entry of `metrics.json`: a row an attribute, the means below, and what they need.

    Args:
        title: what was evaluated, e.g. `Test subset`.
        evaluation: the entry as the scoring room makes it; None (or NaN) is undefined.
    """
    heading(console, title)
    facts(
        console,
        [
            ("images", count(evaluation["n"])),
            ("Hamming loss", figure(evaluation["hamming_loss"])),
            ("exact match", figure(evaluation["exact_match"])),
        ],
    )
    console.print()
    entries: Sequence[Mapping[str, Any]] = evaluation["attributes"]
    rows: list[list[Cell]] = [_attribute_row(entry) for entry in entries]
    rows += [_mean_row(name, evaluation[name]) for name in ("macro", "micro")]
    dropped = print_grid(console, _EVALUATION, rows, last=2)
    if dropped:
        say(console, f"not shown in this narrow window: {', '.join(dropped)}", style="dim", indent=2)
    notes(console, _undefined_note(list(evaluation["undefined"]), len(entries)))


def _undefined_note(undefined: Sequence[str], attributes: int) -> list[str]:
    if not undefined:
        return []
    verb = "is" if len(undefined) == 1 else "are"
    left = attributes - len(undefined)
    rest = f"macro is the mean of the other {plural(left, 'attribute')}" if left else "macro is undefined too"
    return [
        f"{UNDEFINED} is undefined: {some(undefined, 8)} {verb} not known both present and absent in these "
        f"images; {rest}"
    ]


def _attribute_row(entry: Mapping[str, Any]) -> list[Cell]:
    confusion: Mapping[str, int] = entry["confusion"]
    cells: list[Cell] = [entry["name"], count(entry["known"]), count(entry["positive"])]
    cells.append(figure(entry["threshold"]))
    cells += _figures(entry)
    cells += [count(confusion[key]) for key in ("tn", "fp", "fn", "tp")]
    return cells


def _mean_row(name: str, means: Mapping[str, Any]) -> list[Cell]:
    return [(name, "bold"), "", "", "", *_figures(means), "", "", "", ""]


def _figures(entry: Mapping[str, Any]) -> list[Cell]:
    return [figure(entry[key]) for key in ("precision", "recall", "f1", "average_precision", "auroc")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdChange:
    """An attribute's threshold before and after tuning, and a figure at each of them (None: not measured)."""

    name: str
    known: int
    positive: int
    before: float | None
    after: float
    figure_before: float | None = None
    figure_after: float | None = None
    note: str | None = None


def show_thresholds(
    console: Console,
    changes: Sequence[ThresholdChange],
    *,
    title: str = "Thresholds",
    measure: str = "F1",
    about: str = "",
) -> None:
    """Print the thresholds of every attribute, old and new, with a figure at each.

    Args:
        changes: an entry an attribute.
        measure: what `figure_before` and `figure_after` are.
        about: a sentence on which labels the figures were taken from, and how far to trust them.
    """
    heading(console, title)
    measured = any(row.figure_before is not None or row.figure_after is not None for row in changes)
    columns = [Column("attribute", text=True), Column("known", drop=2), Column("positive", drop=1)]
    columns += [Column("before"), Column("after")]
    columns += [Column(f"{measure} before"), Column(f"{measure} after")] if measured else []
    rows: list[list[Cell]] = []
    for row in changes:
        moved = row.before is None or row.before != row.after
        cells: list[Cell] = [row.name, count(row.known), count(row.positive), figure(row.before, 4)]
        cells.append((figure(row.after, 4), "bold" if moved else "dim"))
        cells += [figure(row.figure_before), figure(row.figure_after)] if measured else []
        rows.append(cells)
    print_grid(console, columns, rows)
    if about:
        say(console, about, style="dim", indent=2)
    notes(console, [f"{row.name}: {row.note}" for row in changes if row.note])
