"""The members of an ensemble on the console: how each was trained, its figures, and what the ensemble has over them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from mlcls.reports.console import UNDEFINED, count, figure, heading, notes, say
from mlcls.reports.console_figures import (
    Interval,
    interval_decimals,
    level_text,
    signed,
    signed_span,
    span,
)
from mlcls.reports.grid import Cell, Column, print_grid
from mlcls.reports.record import Record
from mlcls.reports.record_members import MemberFigures

FLATTERS = (
    "each member's epoch, calibration and thresholds were chosen on its own fold, so the out-of-fold figures flatter a "
    "little; the test subset's do not"
)


def show_members(console: Console, record: Record) -> None:
    """Print the members of an ensemble, their mean, the ensemble, and the difference between these on test.

    Prints nothing for the record of an ordinary run.
    """
    if record.members is None or record.ensemble is None:
        return
    heading(console, "Members and ensemble: macro average precision")
    entries = {subset: entry or {} for subset, entry in record.evaluation.items()}
    tested = bool(entries.get("test"))
    ends = {subset: _interval(entry) for subset, entry in entries.items()}
    decimals = interval_decimals(ends.values())
    level = level_text((entries.get("val") or {}).get("intervals"))
    columns = [
        Column("member", text=True),
        Column("trained on", drop=3),
        Column("validated on", drop=2),
        Column("epochs", drop=4),
        Column("best epoch", drop=1),
        Column("val AP"),
        Column(level, name="interval of val AP"),
    ]
    if tested:
        columns += [Column("test AP"), Column(level, name="interval of test AP")]
    rows = [_member(one, tested) for one in record.members]
    own = record.ensemble
    mean: list[Cell] = [("mean member", "bold"), "", "", "", "", figure(own.mean_val_map), ""]
    both: list[Cell] = [("ensemble", "bold"), "", count(entries["val"].get("n")), "", ""]
    both += [_macro(entries["val"]), (span(ends["val"], decimals), "dim")]
    if tested:
        mean += [figure(own.mean_test_map), ""]
        both += [(_macro(entries["test"]), "bold"), (span(ends["test"], decimals), "dim")]
    print_grid(console, columns, [*rows, mean, both], last=2)
    say(
        console,
        "val AP: of a member on its own fold; of the ensemble on the out-of-fold predictions of all folds together",
        style="dim",
        indent=2,
    )
    _show_difference(console, own.test_difference)
    notes(console, [FLATTERS if tested else FLATTERS.partition("; the test")[0]])


def _member(one: MemberFigures, tested: bool) -> list[Cell]:
    best = UNDEFINED if one.best_epoch is None else str(one.best_epoch)
    cells: list[Cell] = [one.name, count(one.train), count(one.val), count(one.epochs), best]
    cells += [figure(one.val_map), ""]
    return [*cells, figure(one.test_map), ""] if tested else cells


def _macro(entry: Mapping[str, Any]) -> str:
    return figure((entry.get("macro") or {}).get("average_precision"))


def _interval(entry: Mapping[str, Any]) -> Interval:
    found: Sequence[float] | None = ((entry.get("intervals") or {}).get("macro") or {}).get(
        "average_precision"
    )
    return found


def _show_difference(console: Console, difference: Mapping[str, Any] | None) -> None:
    if difference is not None:
        text, mood = difference_said(difference)
        say(console, text, style={"good": "green", "bad": "red"}.get(mood, ""), indent=2)


def difference_said(difference: Mapping[str, Any]) -> tuple[str, str]:
    """A sentence on whether the ensemble is better than its mean member on test, and `good`, `bad` or an empty mood.

    Args:
        difference: `EnsembleFacts.test_difference`.
    """
    found = difference["macro"]["average_precision"]
    interval = found["interval"]
    text = f"the ensemble's test AP less the mean member's: {signed(found['difference'])}"
    if interval is None:
        return f"{text}; too few images for an interval", ""
    better, worse = interval[0] > 0, interval[1] < 0
    verdict = "better" if better else "worse" if worse else "no clear difference"
    how = f"paired, {difference['resamples']:,} bootstrap resamples of {difference['unit']}"
    said = f"{text} ({level_text(difference)} {signed_span(interval)}, {how}): {verdict}"
    return said, "good" if better else "bad" if worse else ""
