"""The final table on the console: figures of each attribute with intervals, means, baselines, chance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from mlcls.reports.console import UNDEFINED, count, facts, figure, heading, notes, plural, say, some
from mlcls.reports.console_chance import chance_cell, chance_notes, failed
from mlcls.reports.console_figures import (
    Interval,
    interval_decimals,
    level_text,
    most_telling,
    span,
    with_interval,
)
from mlcls.reports.console_thresholds import ThresholdChange as ThresholdChange
from mlcls.reports.console_thresholds import show_thresholds as show_thresholds
from mlcls.reports.grid import Cell, Column, print_grid

Entry = Mapping[str, Any]

_BASELINES = (("always_present", "always present"), ("always_absent", "always absent"))
_FACTS = (
    ("hamming_loss", "Hamming loss"),
    ("exact_match", "exact match"),
    ("coverage_error", "coverage error"),
    ("label_ranking_average_precision", "label ranking AP"),
)


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the table: an attribute, a mean over attributes, or a baseline."""

    name: Cell
    figures: Entry
    intervals: Entry = field(default_factory=dict)
    always: Entry = field(default_factory=dict)  # the figures of always answering present
    attribute: Entry | None = None


_Column = tuple[Column, Callable[[_Row], Cell]]


def show_evaluation(
    console: Console, title: str, evaluation: Entry, *, complete: str = "metrics.json"
) -> None:
    """Print an `evaluation` entry of `metrics.json`: a row an attribute, means, baselines, what to mind.

    Of more than 40 attributes a terminal shows the 20 that need attention most: those not distinguishable
    from chance, then those of the lowest AUROC. A pipe gets them all.

    Args:
        title: what was evaluated, e.g. `Test subset`.
        evaluation: the entry as the scoring room makes it; None (or NaN) is undefined. Without intervals,
            baselines and tests against chance (a plain `evaluate`) the view has no columns for them.
        complete: where a reader finds the attributes and columns that are not shown.
    """
    heading(console, title)
    _show_facts(console, evaluation)
    console.print()
    entries: Sequence[Entry] = evaluation["attributes"]
    shown = most_telling(console, entries, _attention)
    rows = [_attribute_row(entry) for entry in shown]
    means, baselines = list(_mean_rows(evaluation)), list(_baseline_rows(evaluation))
    rows += [*means, *baselines]
    columns = _columns(evaluation, rows)
    cells = [[cell(row) for _, cell in columns] for row in rows]
    apart = len(means) + len(baselines)
    dropped = print_grid(console, [column for column, _ in columns], cells, last=apart, after=len(baselines))
    _show_rest(console, evaluation, len(shown), dropped, complete)
    notes(console, _undefined_note(list(evaluation["undefined"]), len(entries)))
    notes(console, _f1_notes(evaluation))
    notes(console, chance_notes(evaluation))


def _show_facts(console: Console, evaluation: Entry) -> None:
    intervals = evaluation.get("intervals") or {}
    blind = (evaluation.get("baselines") or {}).get("base_rates") or {}
    level = level_text(intervals)
    pairs = [("images", count(evaluation["n"]))]
    if evaluation.get("known_share") is not None:
        pairs.append(("known labels", f"{evaluation['known_share']:.1%} of the cells"))
    meaning = f": ranks, of {len(evaluation['attributes']):,}, down to the last present attribute"
    for key, label in _FACTS:
        if key in evaluation:
            text = with_interval(evaluation[key], intervals.get(key), level)
            if key in blind:
                text += f" (base rates alone: {figure(blind[key])})"
            pairs.append((label, text + (meaning if key == "coverage_error" else "")))
    if intervals.get("resamples"):
        how = f"{plural(intervals['resamples'], 'bootstrap resample')} of {intervals.get('unit', 'images')}"
        pairs.append(("intervals", f"{level}, {how}"))
    facts(console, pairs)


def _columns(evaluation: Entry, rows: Sequence[_Row]) -> list[_Column]:
    """The columns that the entry has figures for, from left to right; a narrow window loses some of them."""
    uncertain, tested, based = (
        any(key in one for one in (evaluation, *evaluation["attributes"]))
        for key in ("intervals", "chance", "baselines")
    )
    held_out = "cross_fitted" in evaluation
    level = level_text(evaluation.get("intervals"))
    decimals = interval_decimals(
        row.intervals.get(key) for row in rows for key in ("f1", "average_precision", "auroc")
    )

    def interval(key: str, name: str, drop: int) -> list[_Column]:
        column = Column(level, drop=drop, name=f"interval of {name}")
        return [(column, lambda row: _interval(row, key, decimals))] if uncertain else []

    def baseline(key: str, title: str, drop: int) -> list[_Column]:
        return [(Column(title, drop=drop), lambda row: _figure(row.always, key))] if based else []

    return [
        (Column("attribute", text=True), lambda row: row.name),
        (Column("known", drop=9), lambda row: _count(row, "known")),
        (Column("positive"), lambda row: _count(row, "positive")),
        (Column("threshold", drop=10), lambda row: _figure(row.attribute or {}, "threshold")),
        (Column("precision", drop=6), lambda row: _figure(row.figures, "precision")),
        (Column("recall", drop=7), lambda row: _figure(row.figures, "recall")),
        (Column("F1 naive" if held_out else "F1"), _f1),
        *interval("f1", "F1", 5),
        *([(Column("cross-fitted"), lambda row: _figure(row.figures, "cross_fitted"))] if held_out else []),
        *baseline("f1", "base F1", 3),
        (Column("AP"), lambda row: _figure(row.figures, "average_precision")),
        *interval("average_precision", "AP", 4),
        *baseline("average_precision", "base rate", 8),
        (Column("AUROC"), lambda row: _figure(row.figures, "auroc")),
        *interval("auroc", "AUROC", 2),
        *([(Column("vs chance"), _chance)] if tested else []),
        *(_confusion(cell, drop) for cell, drop in (("tn", 14), ("fp", 13), ("fn", 12), ("tp", 11))),
    ]


def _confusion(cell: str, drop: int) -> _Column:
    column = Column(cell, drop=drop)
    return column, lambda row: count(row.attribute["confusion"][cell]) if row.attribute else ""


def _count(row: _Row, key: str) -> Cell:
    return count(row.attribute[key]) if row.attribute else ""


def _figure(figures: Entry, key: str) -> Cell:
    """A figure, a dash where it is undefined, nothing where the row has no such figure."""
    return figure(figures[key]) if key in figures else ""


def _interval(row: _Row, key: str, decimals: int) -> Cell:
    ends: Interval = row.intervals.get(key)
    return (span(ends, decimals), "dim") if key in row.intervals else ""


def _f1(row: _Row) -> Cell:
    cell = _figure(row.figures, "f1")
    return (cell, "yellow") if isinstance(cell, str) and _no_better(row.figures, row.always) else cell


def _chance(row: _Row) -> Cell:
    return chance_cell(row.attribute) if row.attribute else ""


def _attribute_row(entry: Entry) -> _Row:
    bad = (entry.get("chance") or {}).get("distinguishable") is False
    return _Row(
        name=(entry["name"], "red" if bad else ""),
        figures=entry,
        intervals=entry.get("intervals") or {},
        always=(entry.get("baselines") or {}).get("always_present") or {},
        attribute=entry,
    )


def _mean_rows(evaluation: Entry) -> Iterator[_Row]:
    intervals = evaluation.get("intervals") or {}
    baselines = evaluation.get("baselines") or {}
    for name in ("macro", "micro", "samples"):
        if name in evaluation:
            always = (baselines.get("always_present") or {}) if name == "macro" else _blind(evaluation, name)
            figures = evaluation[name]
            if name == "macro" and "cross_fitted" in evaluation:
                figures = {**figures, "cross_fitted": evaluation["cross_fitted"]}
            yield _Row((name, "bold"), figures, intervals.get(name) or {}, always)


def _blind(evaluation: Entry, mean: str) -> Entry:
    """The best that micro or samples have without a look at any image: base rates, or present for every image."""
    baselines = evaluation.get("baselines") or {}
    found: list[Entry] = [
        (baselines.get(key) or {}).get(mean) or {} for key in ("base_rates", "always_present_pooled")
    ]
    f1 = [one["f1"] for one in found if one.get("f1") is not None]
    return {**found[0], "f1": max(f1)} if f1 else found[0]


def _baseline_rows(evaluation: Entry) -> Iterator[_Row]:
    """What needs no image: the figures of answering the same for every image."""
    baselines = evaluation.get("baselines") or {}
    for key, name in _BASELINES:
        if baselines.get(key):
            yield _Row((name, "cyan"), baselines[key])
    if blind := (baselines.get("base_rates") or {}).get("micro"):
        yield _Row(("micro base rates", "cyan"), blind)


def _attention(entry: Entry) -> tuple[int, float]:
    """Not distinguishable from chance first, undefined last, between them by AUROC."""
    if entry["auroc"] is None or entry["auroc"] != entry["auroc"]:
        return (2, 0.0)
    return (0 if (entry.get("chance") or {}).get("distinguishable") is False else 1, entry["auroc"])


def _show_rest(
    console: Console, evaluation: Entry, shown: int, dropped: Sequence[str], complete: str
) -> None:
    """What the table's words mean, and what of it a narrow window or a long list left out."""
    total = len(evaluation["attributes"])
    if shown < total:
        order = "those not distinguishable from chance, then those" if failed(evaluation) else "those"
        say(
            console,
            f"{shown} of {total:,} attributes: {order} of the lowest AUROC; all of them are in {complete}",
            style="dim",
            indent=2,
        )
    if dropped:
        say(console, f"not shown in this narrow window: {', '.join(dropped)}", style="dim", indent=2)
    if evaluation.get("baselines"):
        what = (
            "base F1, base rate: F1 and AP of answering present for every image, or (micro, samples) each attribute by "
            "its base rate, whichever is better. The last rows look at no image; always present and absent are macro"
        )
        say(console, what, style="dim", indent=2)
    if "cross_fitted" in evaluation:
        what = (
            "F1 naive: at thresholds tuned on these very labels, it flatters, as do precision and recall; "
            "cross-fitted: on held-out folds"
        )
        say(console, what, style="dim", indent=2)
    if any("chance" in entry for entry in evaluation["attributes"]):
        what = "vs chance: one-sided Mann-Whitney test of the ranking, p after Holm over the attributes"
        say(console, what, style="dim", indent=2)


def _undefined_note(undefined: Sequence[str], attributes: int) -> list[str]:
    if not undefined:
        return []
    verb = "is" if len(undefined) == 1 else "are"
    left = attributes - len(undefined)
    others = "the other attribute's figure" if left == 1 else f"the mean of the other {left:,} attributes"
    rest = f"macro is {others}" if left else "macro is undefined too"
    return [
        f"{UNDEFINED} is undefined: {some(undefined, 8)} {verb} not known both present and absent in these "
        f"images; {rest}"
    ]


def _honest_f1(figures: Entry) -> float | None:
    """The cross-fitted F1 where there is one, else the F1."""
    fitted: float | None = figures.get("cross_fitted")
    return figures.get("f1") if fitted is None else fitted


def _no_better(figures: Entry, always: Entry) -> bool:
    """Whether an F1 (cross-fitted where the threshold was tuned on these labels) is at most the baseline's."""
    f1, least = _honest_f1(figures), always.get("f1")
    return f1 is not None and least is not None and f1 <= least


def _f1_notes(evaluation: Entry) -> list[str]:
    """Where an F1 looks like something and is worth nothing."""
    always = (evaluation.get("baselines") or {}).get("always_present") or {}
    said = []
    macro = next(row.figures for row in _mean_rows(evaluation))
    if _no_better(macro, always):
        f1, least = figure(_honest_f1(macro)), figure(always["f1"])
        said.append(
            f"macro F1 {f1} is no better than answering present for every image, which scores {least}"
        )
    blind = _blind(evaluation, "micro")
    if _no_better(evaluation["micro"], blind):
        f1, least = figure(evaluation["micro"]["f1"]), figure(blind["f1"])
        said.append(f"micro F1 {f1} is no better than can be had without a look at any image: {least}")
    rows = [_attribute_row(entry) for entry in evaluation["attributes"]]
    names = [row.figures["name"] for row in rows if _no_better(row.figures, row.always)]
    if names:
        said.append(f"F1 no better than answering present for every image: {some(names, 8)}")
    return said
