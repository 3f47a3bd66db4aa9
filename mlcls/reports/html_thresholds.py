"""The HTML report's table of thresholds: where each lies, and what its figure is really worth."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlcls.reports.console import figure
from mlcls.reports.console_figures import signed
from mlcls.reports.console_thresholds import COST, LESS_IS_BETTER, measure_of
from mlcls.reports.html_table import Cell, Column, Table, columns, defined, name, number, whole

_GAP = -0.05  # of cross-fitted less naive, from which down it is marked


def thresholds_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Thresholds, and the figure on the labels they were tuned on against the one on labels held out."""
    objectives = {str(row.get("objective", "")) for row in rows}
    measures = {measure_of(objective) for objective in objectives}
    measure = measures.pop() if len(measures) == 1 else ""  # else each row says its own
    plain = objectives == {"f1"}
    held_out = any("cross_fitted" in row for row in rows)
    estimated = any("estimator" in row for row in rows)
    noted = any(row.get("note") for row in rows)
    headings = list(columns("threshold"))
    headings += [] if plain else [Column(title="objective", number=False)]
    headings += [] if measure or plain else [Column(title="figure", number=False)]
    headings += [Column(title="estimator", number=False)] if estimated else []
    less = "less is better; " if measure == COST else ""
    naive = f"{less}on the very labels it was tuned on: flatters"
    headings.append(Column(title=f"{measure} naive".strip(), about=naive))
    if held_out:
        honest = f"{less}on validation labels held out of the tuning"
        headings.append(Column(title=f"{measure} cross-fitted".strip(), about=honest))
        headings.append(Column(title="gap", about="cross-fitted less naive"))
    headings += [Column(title=title) for title in ("present", "absent")]
    headings += [Column(title="remark", number=False)] if noted else []
    body = tuple(tuple(_threshold(row, plain, not measure, estimated, held_out, noted)) for row in rows)
    return Table(caption="Thresholds, tuned on validation labels", columns=tuple(headings), rows=body)


def _threshold(
    row: Mapping[str, Any], only_f1: bool, mixed: bool, estimated: bool, held_out: bool, noted: bool
) -> list[Cell]:
    measure = measure_of(str(row.get("objective", "")))
    naive, honest = defined(row.get("value")), defined(row.get("cross_fitted"))
    cells = [name(str(row["name"])), number(row.get("threshold"), row.get("interval"))]
    cells += [] if only_f1 else [name(str(row.get("objective", "")))]
    cells += [name("cost, less is better" if measure == COST else measure)] if mixed else []
    cells += [name(str(row.get("estimator", "")))] if estimated else []
    cells.append(number(naive))
    if held_out:
        gap = None if naive is None or honest is None else honest - naive
        far = gap is not None and gap <= _GAP and measure != COST  # a cost has no scale of its own
        cells += [number(honest), Cell(text=signed(gap), sort=gap, level="warn" if far else "")]
    cells += [whole(row.get("positive")), whole(row.get("negative"))]
    return cells + ([name(str(row.get("note") or ""))] if noted else [])


def thresholds_summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The mean of both figures over the attributes that have both, in a sentence; empty where none has."""
    both = [
        (naive, honest)
        for row in rows
        if (naive := defined(row.get("value"))) is not None
        and (honest := defined(row.get("cross_fitted"))) is not None
    ]
    objectives = {str(row.get("objective", "")) for row in rows}
    if not both or len(objectives) > 1:
        return ""
    measure = measure_of(objectives.pop())
    naive, honest = (sum(pair[i] for pair in both) / len(both) for i in (0, 1))
    return (
        f"Macro {measure}, naive: {figure(naive)}, on the very labels the thresholds were tuned on; cross-fitted: "
        f"{figure(honest)} ({signed(honest - naive)}). Only the cross-fitted figure says what to expect on new images."
        f"{f' {LESS_IS_BETTER.capitalize()}.' if measure == COST else ''}"
    )
