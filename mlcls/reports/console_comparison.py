"""Models side by side on the console: their figures on the same images, and what the differences are worth."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console

from mlcls.reports.console import UNDEFINED, count, facts, figure, heading, notes, one_line, plural, say, some
from mlcls.reports.console_figures import (
    Interval,
    interval_decimals,
    level_text,
    most_telling,
    signed,
    signed_span,
    span,
)
from mlcls.reports.grid import Cell, Column, print_grid

Entry = Mapping[str, Any]

# figure, its name, which columns a narrow terminal loses first: the figure's, its interval's
_FIGURES = (
    ("average_precision", "AP", 0, 2),
    ("auroc", "AUROC", 0, 3),
    ("f1", "F1", 0, 4),
    ("precision", "precision", 6, 9),
    ("recall", "recall", 5, 8),
    ("accuracy", "accuracy", 7, 10),
)
_OF_ATTRIBUTES = (("average_precision", "AP", 1), ("auroc", "AUROC", 2), ("f1", "F1", 3))
_MOST_DECIMALS = 6
_SUBSETS = {"test": "test", "val": "validation"}


def show_comparison(
    console: Console, comparison: Entry, *, title: str = "Comparison", complete: str = "--format json"
) -> None:
    """Print models side by side, and the paired differences of each other model to the first.

    Better and worse are said only where the interval of a difference leaves out 0.

    Args:
        comparison: `subset`, `images`, `unit` (of the resampling: images or groups); `models`: [{`name`,
            `macro`, `micro`, `intervals` {`macro`, `micro`}}], six figures each; `differences` (other less
            first): [{`name`, `macro` {figure: {`difference`, `interval`}}, `micro`, `attributes` [{`name`,
            `average_precision` {`difference`, `interval`}, `auroc`, `f1`, `changed`}]}]. None is undefined;
            `changed` allows for the number of attributes.
        complete: where a reader finds the attributes that are not shown.
    """
    models: Sequence[Entry] = comparison["models"]
    heading(console, title)
    subset: str = comparison["subset"]
    pairs = [("subset", _SUBSETS.get(subset, subset)), ("images", count(comparison["images"]))]
    if comparison.get("unit"):
        pairs.append(
            ("intervals", f"{_level(models)}, bootstrap by {comparison['unit']}, differences paired")
        )
    facts(console, pairs)
    notes(console, _cautions(comparison))
    dropped: dict[str, None] = {}  # by both tables together, in the order of the columns
    for mean in ("macro", "micro"):
        console.print()
        dropped |= dict.fromkeys(_show_models(console, models, mean))
    _say_dropped(console, dropped)
    for other in comparison["differences"]:
        _show_difference(console, models[0]["name"], other, _level(models), complete)


def _cautions(comparison: Entry) -> list[str]:
    """What to know before the figures are read."""
    said = []
    if comparison["subset"] == "val":
        said.append("the epochs and thresholds were chosen on these images: figures flatter")
    names = Counter(model["name"] for model in comparison["models"])
    for name, number in names.items():
        if number > 1:
            said.append(
                f"{number} of these models are called {one_line(name)}: where they are one folder, a model is compared "
                "with itself and every difference is 0"
            )
    return said


def _level(models: Sequence[Entry]) -> str:
    return level_text(models[0].get("intervals") if models else None)


def _show_models(console: Console, models: Sequence[Entry], mean: str) -> tuple[str, ...]:
    level, columns = _level(models), [Column(mean, text=True)]
    uncertain = any((model.get("intervals") or {}).get(mean) for model in models)
    for _, name, drop, drop_interval in _FIGURES:
        columns.append(Column(name, drop=drop))
        columns += [Column(level, drop=drop_interval, name=f"interval of {name}")] * uncertain
    intervals = [(model.get("intervals") or {}).get(mean) or {} for model in models]
    decimals = interval_decimals(ends for one in intervals for ends in one.values())
    rows: list[list[Cell]] = []
    for model, ends in zip(models, intervals, strict=True):
        row: list[Cell] = [model["name"]]
        for key, *_ in _FIGURES:
            row.append(figure(model[mean].get(key)))
            row += [(span(ends.get(key), decimals), "dim")] * uncertain
        rows.append(row)
    return print_grid(console, columns, rows)


def _show_difference(console: Console, first: str, other: Entry, level: str, complete: str) -> None:
    heading(console, f"{other['name']} compared with {first}")
    columns = [Column("", text=True), Column("figure", text=True), Column("difference")]
    columns += [Column(level), Column("", text=True)]
    rows = {
        mean: [
            _difference_row(mean, name, other[mean][key]) for key, name, *_ in _FIGURES if key in other[mean]
        ]
        for mean in ("macro", "micro")
    }
    print_grid(console, columns, [*rows["macro"], *rows["micro"]], last=len(rows["micro"]))
    verdicts = len(rows["macro"]) + len(rows["micro"])
    if verdicts > 1:
        what = f"the {verdicts} verdicts are not corrected for their number: each stands for itself"
        say(console, what, style="dim", indent=2)
    for key, name in (("average_precision", "AP"), ("f1", "F1")):
        if key in other["macro"]:
            sentence, style = _sentence(first, other["name"], other["macro"][key], f"macro {name}", level)
            say(console, sentence, style=style, indent=2)
    _show_attributes(console, other["attributes"], level, complete)


def _difference_row(mean: str, name: str, entry: Entry) -> list[Cell]:
    word, style = _verdict(entry)
    return [mean, name, _difference(entry), _ends(entry), (word, style)]


def _difference(entry: Entry) -> str:
    return signed(entry.get("difference"), _decimals(entry, entry.get("difference")))


def _ends(entry: Entry) -> str:
    return signed_span(entry.get("interval"), _decimals(entry, *(entry.get("interval") or ())))


def _decimals(entry: Entry, *values: float | None) -> int:
    """Three, or as many as it takes for no value to read as 0 where the interval leaves out 0."""
    decimals = 3
    while (
        _leaves_out_zero(entry)
        and decimals < _MOST_DECIMALS
        and any(value is not None and float(f"{value:.{decimals}f}") == 0 for value in values)
    ):
        decimals += 1
    return decimals


def _verdict(entry: Entry) -> tuple[str, str]:
    """In a word what a difference is worth, and its style."""
    ends: Interval = entry["interval"]
    if entry["difference"] is None or ends is None:
        return UNDEFINED, "dim"
    if ends[0] > 0:
        return "better", "green"
    return ("worse", "red") if ends[1] < 0 else ("not distinguishable", "dim")


def _sentence(first: str, other: str, entry: Entry, what: str, level: str) -> tuple[str, str]:
    """A difference in plain words, and their style."""
    word, _ = _verdict(entry)
    first, other = one_line(first), one_line(other)
    difference, ends = entry["difference"], _ends(entry)
    if word == UNDEFINED:
        return f"{what} of {other} and {first} cannot be compared: it is undefined in one of them", ""
    size = figure(abs(difference), _decimals(entry, difference))
    if word == "not distinguishable":
        side = "above" if difference >= 0 else "below"
        return f"{other} is {size} {side} {first} in {what} ({level} {ends}): not distinguishable", ""
    return f"{other} is {word} than {first} by {size} {what} ({level} {ends})", "bold"


def _show_attributes(console: Console, attributes: Sequence[Entry], level: str, complete: str) -> None:
    """The attributes that changed, one by one; the others counted."""
    changed = [entry for entry in attributes if entry.get("changed")]
    shown = most_telling(console, changed, lambda entry: -_largest(entry))
    rest = len(attributes) - len(changed)
    if not changed:
        none = plural(len(attributes), "attribute")
        say(console, f"attributes: none of {none} changed distinguishably", indent=2)
        return
    console.print()
    columns = [Column("changed", text=True)]
    for _, name, drop in _OF_ATTRIBUTES:
        columns += [Column(name), Column(level, drop=drop, name=f"interval of {name}")]
    dropped = print_grid(console, columns, [_attribute_row(entry) for entry in shown])
    if len(shown) < len(changed):
        which = f"{len(shown)} of {len(changed):,} attributes that changed, those that changed most"
        say(console, f"{which}; all of them are in {complete}", style="dim", indent=2)
    _say_dropped(console, dropped)
    others = f"; {plural(rest, 'other attribute')} did not change distinguishably" if rest else ""
    what = "changed: its AP or F1 differs, with allowance for the number of attributes; * the interval leaves out 0"
    say(console, what + others, style="dim", indent=2)


def _largest(entry: Entry) -> float:
    """The largest of an attribute's differences."""
    return max(abs(float((entry.get(key) or {}).get("difference") or 0)) for key, *_ in _OF_ATTRIBUTES)


def _leaves_out_zero(part: Entry) -> bool:
    ends: Interval = part.get("interval")
    return ends is not None and (ends[0] > 0 or ends[1] < 0)


def _attribute_row(entry: Entry) -> list[Cell]:
    cells: list[Cell] = [entry["name"]]
    for key, *_ in _OF_ATTRIBUTES:
        part: Entry = entry.get(key) or {}
        clear = _leaves_out_zero(part)
        style = "dim" if not clear else "bold green" if part["difference"] > 0 else "bold red"
        # the mark's place is kept where there is none, so that the digits stand below each other
        cells.append((_difference(part) + ("*" if clear else " "), style))
        cells.append((_ends(part), "dim"))
    return cells


def _say_dropped(console: Console, dropped: Iterable[str]) -> None:
    names = list(dropped)
    if names:
        say(console, f"not shown in this narrow window: {some(names, len(names))}", style="dim", indent=2)
