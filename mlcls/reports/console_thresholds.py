"""Thresholds on the console: before and after tuning, how sure they are, and what they are really worth."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console

from mlcls.reports.console import count, facts, figure, heading, notes, plural, say, some
from mlcls.reports.console_figures import (
    between,
    interval_decimals,
    most_telling,
    signed,
    span,
)
from mlcls.reports.grid import Cell, Column, print_grid

_LEGEND = (
    "cross-fitted: tuned on four fifths of these labels, scored on the fifth it has not seen; naive: tuned and "
    "scored on the same labels, so it flatters"
)
COST = "cost"
LESS_IS_BETTER = "cost: what all wrong answers together cost; less is better"
_NOTES, _NOTES_OF_SUMMARY = 12, 4  # of more than these a terminal counts the rest
_NAMED = 8
_LEAST_CERTAIN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdChange:
    """An attribute's threshold before and after tuning, and figures (None: not measured).

    `figure_before` and `figure_after` are taken at the two thresholds on the same labels. `naive` is the
    figure on the labels that the new threshold was tuned on, `cross_fitted` on held-out folds of them.
    `interval` is the bootstrap interval (95%) of the new threshold. `before` is None where there was none.
    """

    name: str
    known: int
    positive: int
    before: float | None
    after: float
    figure_before: float | None = None
    figure_after: float | None = None
    note: str | None = None
    naive: float | None = None
    cross_fitted: float | None = None
    interval: tuple[float, float] | None = None


def measure_of(objective: str) -> str:
    """What the figures of thresholds that were chosen for an objective are called; of a cost, less is better."""
    names = {"f1": "F1", "youden": "Youden's J", "precision": "recall", "recall": "precision", "cost": COST}
    kind = objective.partition(":")[0]
    return names.get(kind, objective)


def show_thresholds(
    console: Console,
    changes: Sequence[ThresholdChange],
    *,
    title: str = "Thresholds",
    measure: str = "F1",
    about: str = "",
    complete: str = "thresholds.json",
) -> None:
    """Print the thresholds of every attribute, old and new, how sure they are, and what they are worth.

    Of more than 40 attributes a terminal shows the 20 with the least certain thresholds; a pipe gets all.

    Args:
        changes: an entry an attribute.
        measure: what all the figures are: F1, or the objective's own.
        about: a sentence on which labels the figures were taken from, and how far to trust them.
        complete: where a reader finds the attributes that are not shown.
    """
    heading(console, title)
    shown = most_telling(console, changes, _doubt)
    measured = any(row.figure_before is not None or row.figure_after is not None for row in changes)
    fitted = any(row.cross_fitted is not None for row in changes)
    sure = any(row.interval is not None for row in changes)
    columns = [Column("attribute", text=True), Column("known", drop=4), Column("positive", drop=2)]
    columns += [Column("before"), Column("after")]
    columns += [Column("95%", name="interval of the threshold", drop=1)] if sure else []
    lose = 5 if fitted else 0  # where there is a better figure, these are the first to go
    columns += [Column(f"{measure} before", drop=lose), Column(f"{measure} after", drop=lose)] * measured
    columns += [Column(f"{measure} naive"), Column("cross-fitted"), Column("gap", drop=3)] * fitted
    decimals = interval_decimals(row.interval for row in shown)
    rows = [_row(row, measured, fitted, sure, decimals) for row in shown]
    rows += [_mean_row(changes, measured, sure)] * fitted
    dropped = print_grid(console, columns, rows, last=int(fitted))
    if len(shown) < len(changes):
        which = f"{len(shown)} of {len(changes):,} attributes, those of the least certain thresholds"
        say(console, f"{which}; all of them are in {complete}", style="dim", indent=2)
    if dropped:
        say(console, f"not shown in this narrow window: {', '.join(dropped)}", style="dim", indent=2)
    if about:
        say(console, about, style="dim", indent=2)
    if fitted:
        say(console, _LEGEND, style="dim", indent=2)
    if measure == COST:
        say(console, LESS_IS_BETTER, style="dim", indent=2)
    if sure:
        say(console, "95%: where the threshold might as well lie (bootstrap)", style="dim", indent=2)
    _show_notes(console, changes, complete)


def show_threshold_summary(
    console: Console,
    changes: Sequence[ThresholdChange],
    *,
    title: str = "Thresholds",
    measure: str = "F1",
    objective: str = "",
    complete: str = "thresholds.json",
) -> None:
    """Print in a few lines what tuning was worth, and which thresholds to mind: the end of a training.

    Args:
        changes: an entry an attribute, as for `show_thresholds`.
        measure: what `naive` and `cross_fitted` are.
        objective: how thresholds were chosen, in words, e.g. `f1 (robust), tuned on validation`.
        complete: where all thresholds stand.
    """
    heading(console, title)
    naive, fitted = _means(changes)
    pairs = [("objective", objective)] if objective else []
    if naive is not None and fitted is not None:
        gap = signed(fitted - naive)
        pairs += [
            (f"macro {measure}, naive", f"{figure(naive)}: tuned and scored on the same labels, it flatters"),
            (
                f"macro {measure}, cross-fitted",
                f"{figure(fitted)} ({gap}): tuned on four fifths, scored on the fifth not seen; expect this one",
            ),
        ]
    unsure = sorted((row for row in changes if row.interval is not None), key=_doubt)
    if unsure:
        told = [
            f"{row.name} {figure(row.after)} (95% {between(row.interval)}, "
            f"{plural(row.positive, 'known positive')})"
            for row in unsure[:_LEAST_CERTAIN]
        ]
        more = len(unsure) - len(told)
        rest = f"; {plural(more, 'other')} in {complete}" if more else ""
        pairs.append(("least certain", "; ".join(told) + rest))
    facts(console, pairs)
    _show_notes(console, changes, complete, most=_NOTES_OF_SUMMARY)


def _row(row: ThresholdChange, measured: bool, fitted: bool, sure: bool, decimals: int) -> list[Cell]:
    moved = row.before is None or row.before != row.after
    cells: list[Cell] = [row.name, count(row.known), count(row.positive), figure(row.before, 4)]
    cells.append((figure(row.after, 4), "bold" if moved else "dim"))
    cells += [(span(row.interval, decimals), "dim")] if sure else []
    cells += [figure(row.figure_before), figure(row.figure_after)] if measured else []
    cells += _fitted_cells(row.naive, row.cross_fitted) if fitted else []
    return cells


def _mean_row(changes: Sequence[ThresholdChange], measured: bool, sure: bool) -> list[Cell]:
    name: Cell = ("macro", "bold")
    cells: list[Cell] = [name, "", "", "", "", *[""] * sure]
    if measured:
        cells += [_mean(row.figure_before for row in changes), _mean(row.figure_after for row in changes)]
    return cells + _fitted_cells(*_means(changes))


def _fitted_cells(naive: float | None, fitted: float | None) -> list[Cell]:
    gap = signed(None if naive is None or fitted is None else fitted - naive)
    return [(figure(naive), "dim"), (figure(fitted), "bold"), gap]


def _means(changes: Sequence[ThresholdChange]) -> tuple[float | None, float | None]:
    """Naive and cross-fitted, both over the attributes that have both: another set would be another gap."""
    both = [
        (row.naive, row.cross_fitted)
        for row in changes
        if row.naive is not None and row.cross_fitted is not None
    ]
    if not both:
        return None, None
    naive, fitted = (math.fsum(side) / len(both) for side in zip(*both, strict=True))
    return naive, fitted


def _mean(values: Iterable[float | None]) -> str:
    defined = [value for value in values if value is not None]
    return figure(math.fsum(defined) / len(defined) if defined else None)


def _doubt(row: ThresholdChange) -> tuple[int, float]:
    """The widest intervals first, thresholds without one (kept, fixed) last."""
    return (0, row.interval[0] - row.interval[1]) if row.interval is not None else (1, 0.0)


def _show_notes(
    console: Console, changes: Sequence[ThresholdChange], complete: str, most: int = _NOTES
) -> None:
    """A line for all attributes with the same kind of note; on a terminal no more than can be read."""
    kinds: dict[str, list[ThresholdChange]] = {}
    for row in changes:
        if row.note:
            kinds.setdefault(re.split("[:;] ", row.note, maxsplit=1)[0], []).append(row)
    limit = _NAMED if console.is_terminal else len(changes)
    lines = []
    for kind, rows in kinds.items():
        details = {row.note[len(kind) + 2 :] for row in rows if row.note}
        if len(details) == 1:  # also a single attribute's
            lines.append(f"{some([row.name for row in rows], limit)}: {rows[0].note}")
        else:
            told = [f"{row.name} ({row.note[len(kind) + 2 :]})" for row in rows if row.note]
            lines.append(f"{kind}: {some(told, limit)}")
    shown = lines[:most] if console.is_terminal else lines
    notes(console, shown)
    if len(lines) > len(shown):
        notes(console, [f"{plural(len(lines) - len(shown), 'more note')} in {complete}"])
