"""Calibration on the console: how far probabilities can be taken at their word, before and after."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from mlcls.reports.console import figure, heading, notes, say, some
from mlcls.reports.console_figures import most_telling
from mlcls.reports.grid import Cell, Column, print_grid

Figures = Mapping[str, Any]

_SUBSETS = (("val", "validation, out of fold"), ("test", "test"))
_FEW_ATTRIBUTES = 12  # so many are all shown; of more only those that got worse
_DECIMALS = 3
_GAIN = (
    Column("ECE before"),
    Column("ECE after"),
    Column("Brier before"),
    Column("Brier after"),
)


def show_calibration(
    console: Console,
    calibration: Mapping[str, Any] | None,
    *,
    title: str = "Calibration",
    complete: str = "metrics.json",
) -> None:
    """Print calibration error and Brier score before and after; attributes one by one where they are few.

    Of more than twelve attributes only those are shown that got worse on the test subset (validation where
    there is none).

    Args:
        calibration: the `calibration` of `metrics.json`; None (nothing was calibrated) prints nothing.
        complete: where a reader finds the attributes that are not shown.
    """
    if calibration is None:
        return
    heading(console, title)
    rows = [[label, *_cells(calibration[subset])] for subset, label in _SUBSETS if calibration.get(subset)]
    print_grid(console, [Column("mean over attributes", text=True), *_GAIN], rows)
    subset, label = next((one for one in reversed(_SUBSETS) if calibration.get(one[0])), ("", ""))
    if subset:
        _show_attributes(console, calibration, subset, label, complete)
    how = f"method: {calibration['method']}; " if calibration.get("method") else ""
    say(
        console,
        f"{how}ECE: by how much probabilities miss the observed shares; Brier: mean squared error of "
        "probabilities; both are best at 0. Thresholds and `predict` use what is after; `--raw` what is before",
        style="dim",
        indent=2,
    )
    notes(console, _worse_notes(calibration))


def _show_attributes(console: Console, calibration: Figures, subset: str, label: str, complete: str) -> None:
    before, after = (
        {one["name"]: one for one in calibration[subset][when].get("attributes", ())}
        for when in ("before", "after")
    )
    pairs = [(name, before[name], after[name]) for name in before if name in after]
    worse = [(name, old, new) for name, old, new in pairs if _is_worse(old, new)]
    few = len(pairs) <= _FEW_ATTRIBUTES
    shown = most_telling(console, pairs if few else worse, lambda row: row[1]["brier"] - row[2]["brier"])
    if shown:
        console.print()
        what = label if few else f"got worse, {label}"
        maps = {one["name"]: one for one in calibration.get("attributes", ())}
        columns = [Column(f"attribute ({what})", text=True), *_GAIN]
        columns += [Column("slope", drop=1), Column("intercept", drop=2)]
        rows = [_attribute_row(name, old, new, maps.get(name, {})) for name, old, new in shown]
        print_grid(console, columns, rows)
    left = len(pairs) - len(shown)
    rest = "attribute" if left == 1 else f"{left:,} attributes"
    if pairs and not shown:
        say(console, f"none of the {rest} got worse, {label}", style="dim", indent=2)
    elif len(shown) < len(pairs):
        fate = (
            "did not get worse"
            if len(shown) == len(worse)
            else f"{'is' if left == 1 else 'are'} in {complete}"
        )
        say(console, f"the other {rest} {fate}, {label}", style="dim", indent=2)


def _attribute_row(name: str, before: Figures, after: Figures, scaling: Figures) -> list[Cell]:
    worse = _is_worse(before, after)
    cells = _cells({"before": before, "after": after})
    return [
        (name, "yellow" if worse else ""),
        *cells,
        figure(scaling.get("slope")),
        figure(scaling.get("intercept")),
    ]


def _cells(gain: Figures) -> list[Cell]:
    cells: list[Cell] = []
    for key in ("ece", "brier"):
        before, after = gain["before"][key], gain["after"][key]
        cells += [(figure(before, _DECIMALS), "dim"), (figure(after, _DECIMALS), _style(before, after))]
    return cells


def _style(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    return (
        "yellow"
        if _rounded(after) > _rounded(before)
        else "green"
        if _rounded(after) < _rounded(before)
        else ""
    )


def _is_worse(before: Figures, after: Figures) -> bool:
    """Whether the Brier score rose, as far as its shown decimals say; ECE alone is too noisy to judge by."""
    old, new = before["brier"], after["brier"]
    return old is not None and new is not None and _rounded(new) > _rounded(old)


def _rounded(value: float) -> float:
    return round(value, _DECIMALS)


def _worse_notes(calibration: Figures) -> list[str]:
    """Where calibration did harm on the whole."""
    said: Sequence[str] = [
        label
        for subset, label in _SUBSETS
        if calibration.get(subset) and _is_worse(calibration[subset]["before"], calibration[subset]["after"])
    ]
    return [f"calibration made the Brier score worse ({some(said)}): consider `--raw`"] if said else []
