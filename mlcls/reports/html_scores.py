"""Tables of the HTML report on what the classifier scored: overall, an attribute, calibration."""

from collections.abc import Mapping, Sequence
from typing import Any

from mlcls.reports.console import UNDEFINED, plural
from mlcls.reports.console_figures import p_text
from mlcls.reports.html_table import (
    Cell,
    Column,
    Table,
    bar,
    columns,
    defined,
    mapping,
    name,
    number,
    whole,
)
from mlcls.reports.html_verdict import negatives

_WHEN = ("before", "after")
_FIGURES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "accuracy": "accuracy",
    "average_precision": "AP",
    "auroc": "AUROC",
}
_SCALARS = {
    "exact_match": ("exact match", "images all of whose known labels are right"),
    "hamming_loss": ("Hamming loss", "share of known labels that are wrong; lower is better"),
    "label_ranking_average_precision": (
        "label ranking average precision",
        "within an image: are its present attributes scored above its absent ones?",
    ),
    "coverage_error": (
        "coverage error",
        "how far down an image's ranked attributes one must go to have met all present ones; lower is better",
    ),
    "known_share": ("known labels", "share of the cells of the table whose label is known"),
}


def overall_table(entry: Mapping[str, Any]) -> Table:
    """Macro, micro and sample means with their intervals, and the baselines that look at no image."""
    intervals, baselines = mapping(entry.get("intervals")), mapping(entry.get("baselines"))
    rows = []
    for key, title in (("macro", "macro"), ("micro", "micro"), ("samples", "mean over images")):
        if found := mapping(entry.get(key)):
            rows.append((name(title), *_figures(found, mapping(intervals.get(key)))))
    for key, title in (
        ("always_present", "“present” for every image, macro"),
        ("always_absent", "“absent” for every image, macro"),
    ):
        if found := mapping(baselines.get(key)):
            rows.append((name(title), *_figures(found, {})))
    pooled, blind = (mapping(baselines.get(key)) for key in ("always_present_pooled", "base_rates"))
    if found := mapping(pooled.get("micro")):
        rows.append((name("“present” for every image, micro"), *_figures(found, {})))
    for key, title in (
        ("micro", "base rates alone, micro"),
        ("samples", "base rates alone, mean over images"),
    ):
        if found := mapping(blind.get(key)):
            rows.append((name(title), *_figures(found, {})))
    return Table(
        caption="Means, and what answers without looking would score" if baselines else "Means",
        columns=columns(*_FIGURES.values(), first="mean"),
        rows=tuple(rows),
        sortable=False,
    )


def _figures(found: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[Cell]:
    return [number(found.get(key), intervals.get(key)) for key in _FIGURES]


def scalars_table(entry: Mapping[str, Any]) -> Table:
    """The figures that are one number for the whole subset, as far as the record has them."""
    intervals = mapping(entry.get("intervals"))
    blind = mapping(mapping(entry.get("baselines")).get("base_rates"))
    rows = [
        (
            name(title),
            number(entry[key], intervals.get(key)),
            *([number(blind.get(key))] if blind else []),
            name(about),
        )
        for key, (title, about) in _SCALARS.items()
        if key in entry
    ]
    titles = ("figure", "base rates alone") if blind else ("figure",)
    headings = (*columns(*titles, first="measure"), Column(title="what it is", number=False))
    return Table(
        caption="Figures of whole images and of the whole table",
        columns=headings,
        rows=tuple(rows),
        sortable=False,
    )


def attributes_table(entry: Mapping[str, Any]) -> Table:
    """A row an attribute. Intervals, baselines and the chance test have columns where the record has them."""
    entries: Sequence[Mapping[str, Any]] = entry["attributes"]
    tested = any(mapping(one.get("chance")) for one in entries)
    drawn = any(mapping(one.get("intervals")) for one in entries)
    compared = any(mapping(one.get("baselines")) for one in entries)
    headings = [Column(title="attribute", number=False)]
    if tested:
        headings.append(Column(title="against chance", about="Holm-adjusted p"))
    headings += [Column(title="AP", about="average precision")]
    if compared:
        headings.append(Column(title="base rate", about="the average precision of a guess"))
    headings += [Column(title="AUROC", about="0.5 is chance")]
    if "cross_fitted" in entry:
        headings.append(Column(title="F1 naive", about="at thresholds tuned on these labels: flatters"))
        headings.append(Column(title="F1 cross-fitted", about="on labels held out of the tuning"))
    else:
        headings.append(Column(title="F1"))
    if compared:
        headings.append(Column(title="base F1", about="of “present” for every image"))
    if drawn:
        headings.append(Column(title="0 ← AUROC → 1", about="interval; the line is chance", sortable=False))
    headings += [Column(title=title) for title in ("precision", "recall", "accuracy", "threshold")]
    headings += [Column(title=title) for title in ("known", "present", "absent")]
    headings += [
        Column(title="TP", about="right: present"),
        Column(title="FP", about="wrongly said present"),
        Column(title="FN", about="wrongly said absent"),
        Column(title="TN", about="right: absent"),
    ]
    return Table(
        caption=f"{plural(len(entries), 'attribute')}, each at its threshold",
        columns=tuple(headings),
        rows=tuple(
            tuple(_attribute(one, tested, compared, drawn, "cross_fitted" in entry)) for one in entries
        ),
    )


def _attribute(one: Mapping[str, Any], tested: bool, compared: bool, drawn: bool, fitted: bool) -> list[Cell]:
    intervals, baselines = mapping(one.get("intervals")), mapping(one.get("baselines"))
    confusion = mapping(one.get("confusion"))
    cells = [name(one["name"])]
    if tested:
        cells.append(_chance(mapping(one.get("chance"))))
    cells.append(number(one["average_precision"], intervals.get("average_precision")))
    if compared:
        cells.append(number(baselines.get("base_rate")))
    cells.append(number(one["auroc"], intervals.get("auroc")))
    cells.append(number(one["f1"], intervals.get("f1")))
    cells += [number(one.get("cross_fitted"))] if fitted else []
    if compared:
        cells.append(number(mapping(baselines.get("always_present")).get("f1")))
    if drawn:
        cells.append(bar(one["auroc"], intervals.get("auroc"), 0.5))
    cells += [number(one[key], intervals.get(key)) for key in ("precision", "recall", "accuracy")]
    cells.append(number(one["threshold"]))
    cells += [whole(one["known"]), whole(one["positive"]), whole(negatives(one))]
    return cells + [whole(confusion.get(key)) for key in ("tp", "fp", "fn", "tn")]


def _chance(found: Mapping[str, Any]) -> Cell:
    p, verdict = defined(found.get("p_adjusted")), found.get("distinguishable")
    if verdict is None:
        return Cell(text=UNDEFINED, note="not tested", sort=None)
    text = p_text(p).replace("=", " = ").replace("<", " < ")
    return Cell(text=text if verdict else f"NO, {text}", sort=p, level="good" if verdict else "bad")


def calibration_table(calibration: Mapping[str, Any]) -> Table | None:
    """Expected calibration error and Brier score before and after, of every subset the record has.

    None where it has none.
    """
    subsets = [
        (title, mapping(calibration.get(key)))
        for key, title in (("val", "validation, out of fold"), ("test", "test"))
        if mapping(calibration.get(key))
    ]
    if not subsets:
        return None
    headings = (
        *columns(),
        *(
            Column(title=f"{measure} {when}", about=title)
            for title, _ in subsets
            for measure in ("ECE", "Brier")
            for when in _WHEN
        ),
    )
    names = [str(one["name"]) for one in _each(mapping(subsets[0][1].get("after")))]
    rows = [(name("mean"), *_errors([mapping(part.get(when)) for _, part in subsets for when in _WHEN]))]
    found = [_each(mapping(part.get(when))) for _, part in subsets for when in _WHEN]
    for i, attribute in enumerate(names):
        rows.append((name(attribute), *_errors([one[i] if i < len(one) else {} for one in found])))
    return Table(
        caption="How far probabilities are from observed shares; lower is better",
        columns=headings,
        rows=tuple(rows),
        sortable=False,
    )


def _each(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = part.get("attributes")
    return [mapping(one) for one in found] if isinstance(found, list | tuple) else []


def _errors(pairs: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """ECE before and after, Brier before and after, of each (before, after) in turn."""
    cells = []
    for i in range(0, len(pairs), 2):
        for key in ("ece", "brier"):
            before, after = defined(pairs[i].get(key)), defined(pairs[i + 1].get(key))
            level = (
                ""
                if before is None or after is None or before == after
                else "good"
                if after < before
                else "warn"
            )
            cells += [number(before), number(after, level=level)]
    return cells


def slopes(calibration: Mapping[str, Any]) -> Table | None:
    """What calibration does to each attribute's logits: slope and intercept."""
    rows = [
        (name(str(one.get("name", ""))), number(one.get("slope")), number(one.get("intercept")))
        for one in _each(calibration)
    ]
    if not rows:
        return None
    return Table(
        caption="Calibrated logit = slope × logit + intercept",
        columns=columns("slope", "intercept"),
        rows=tuple(rows),
    )


def interval_note(entry: Mapping[str, Any]) -> str:
    """How the intervals were made, in a sentence; empty where there are none."""
    found = mapping(entry.get("intervals"))
    if not found:
        return ""
    level, resamples, unit = defined(found.get("level")), found.get("resamples"), found.get("unit", "images")
    share = f"{level:.0%} " if level is not None else ""
    times = f", {plural(resamples, 'resample')} of {unit}" if isinstance(resamples, int) else ""
    return f"The smaller numbers are {share}bootstrap intervals{times}."


def chance_note(entry: Mapping[str, Any]) -> str:
    """What the test against chance asks, in two sentences; empty where there was none."""
    if not any(mapping(one.get("chance")) for one in entry["attributes"]):
        return ""
    return (
        "Against chance: are images that show the attribute scored above those that do not, more than luck "
        "explains? One-sided Mann-Whitney test, corrected for the number of attributes (Holm). NO means: not "
        "distinguishable from chance."
    )
