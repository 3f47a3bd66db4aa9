"""What the console says where a model cannot be told from chance: a mark, a note, and the verdict on a run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from mlcls.reports.console import UNDEFINED, figure, one_line, plural, say
from mlcls.reports.console_figures import between, level_text, p_text
from mlcls.reports.grid import Cell

Entry = Mapping[str, Any]

CHECK = "label conflicts, swapped files or columns, too few images of the rarer class"
_CHECK_RARE = "too few images of the rarer class, label conflicts, swapped files or columns"
_FEW = 10  # with fewer known images of the rarer class even a good model may not pass the test
_NAMED = 8  # attributes told one by one in a note
_SUBSETS = {
    "test": "the test subset",
    "val": "the validation subset",
}


def chance_cell(attribute: Entry) -> Cell:
    """The test of one attribute against chance: its adjusted p-value, with `NO` before one that did not pass."""
    chance = attribute.get("chance") or {}
    verdict, text = chance.get("distinguishable"), p_text(chance.get("p_adjusted"))
    if verdict is None:
        return (UNDEFINED, "dim")
    return (text, "green") if verdict else (f"NO {text}", "bold red")


def tested(entry: Entry) -> list[Entry]:
    """The attributes of an entry that were tested against chance."""
    return [
        one for one in entry["attributes"] if (one.get("chance") or {}).get("distinguishable") is not None
    ]


def failed(entry: Entry) -> list[Entry]:
    """Those of them that are not distinguishable from chance."""
    return [one for one in tested(entry) if not one["chance"]["distinguishable"]]


def chance_notes(entry: Entry) -> list[str]:
    """A sentence on the attributes that are not distinguishable from chance, with their intervals; or none."""
    attributes, level = failed(entry), level_text(entry.get("intervals"))
    if not attributes:
        return []
    told = [f"{one_line(one['name'])} ({_why(one, level)})" for one in attributes[:_NAMED]]
    more = len(attributes) - len(told)
    names = ", ".join(told) + (f" and {more:,} more" if more else "")
    return [f"not distinguishable from chance: {names}; check: {_check(attributes)}"]


def show_chance_verdict(console: Console, entry: Entry, subset: str, *, has_test: bool | None = None) -> bool:
    """Print, where attributes were tested against chance and not one passed, that the model learned nothing.

    Args:
        entry: an `evaluation` entry with a `chance` in its attributes.
        subset: what it was computed on: `test`, `val`, or words of its own, e.g. `the images of new.csv`.
        has_test: whether there is a test subset; False says, of `val`, that there is none.

    Returns:
        whether it was printed. Nothing is where one attribute passed, or none could be tested.
    """
    attributes = failed(entry)
    if not attributes or len(attributes) < len(tested(entry)):
        return False
    untested = len(entry["attributes"]) - len(attributes)
    which = "the only attribute is not" if not untested else "the only attribute that could be tested is not"
    if len(attributes) > 1:
        which = f"none of the {len(attributes):,} attributes{' that could be tested' if untested else ''} is"
    macro = (entry.get("macro") or {}).get("auroc")
    ends = between(((entry.get("intervals") or {}).get("macro") or {}).get("auroc"))
    interval = "" if ends == UNDEFINED else f" ({level_text(entry.get('intervals'))} {ends})"
    enough = any(_rarer(one)[0] >= _FEW for one in attributes)  # else a good model may look like this too
    head = "NOTHING LEARNED" if enough else "NOTHING LEARNED that so few images could show"
    without = " (there is no test subset)" if subset == "val" and has_test is False else ""
    console.print()
    say(
        console,
        f"{head}: {which} distinguishable from chance on {_SUBSETS.get(subset) or one_line(subset)}{without}. "
        f"Macro AUROC {figure(macro)}{interval}; chance is 0.5. Do not use this model. "
        f"Check: {_check(attributes)}.",
        style="bold red",
    )
    return True


def _why(attribute: Entry, level: str) -> str:
    """AUROC, its interval, and what else may explain it: `AUROC 0.493, 95% 0.41–0.58; only 4 known positives`."""
    interval = (attribute.get("intervals") or {}).get("auroc")
    ends = between(interval)
    parts = [f"AUROC {figure(attribute['auroc'])}" + ("" if ends == UNDEFINED else f", {level} {ends}")]
    number, kind = _rarer(attribute)
    if number < _FEW:
        parts.append(f"only {plural(number, f'known {kind}')}")
    if interval is not None and interval[1] < 0.5:
        parts.append("worse than chance: are present and absent swapped?")
    return "; ".join(parts)


def _rarer(attribute: Entry) -> tuple[int, str]:
    """How many known images the rarer class has, and which it is."""
    positive = attribute["positive"]
    negative = attribute.get("negative", attribute["known"] - positive)
    return (positive, "positive") if positive <= negative else (negative, "negative")


def _check(attributes: Sequence[Entry]) -> str:
    few = sum(_rarer(one)[0] < _FEW for one in attributes)
    return _CHECK_RARE if 2 * few > len(attributes) else CHECK
