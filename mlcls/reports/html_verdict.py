"""What the HTML report says first: the verdict in plain words, the figures beside their baselines, warnings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlcls.reports.console import figure, plural
from mlcls.reports.html_table import defined, ends, mapping, span
from mlcls.reports.record import Record

FEW = 10  # images of the rarer class below which a figure of an attribute says little
SUBSETS = {"test": "test", "val": "validation"}
_NAMES = 8  # of a list in a sentence, before "and 92 more"
_REMARKS = 6  # notes on thresholds, before the reader is sent to their table


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """A sentence, the names it is about, and the part of the report that shows more. `level`: warn or bad."""

    text: str
    names: tuple[str, ...] = ()
    more: int = 0  # names left out
    link: str = ""
    level: str = "warn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A macro figure, its interval, what needs no image for comparison, and what the two together say."""

    title: str
    value: str
    interval: str = ""
    baseline: str = ""
    judgement: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The top of the report. `level`: good, warn, bad, or "" where nothing was tested."""

    level: str
    headline: str
    sentences: tuple[Remark, ...]
    tiles: tuple[Tile, ...]
    checks: tuple[Remark, ...]


def evaluated_on(subset: str, entry: Mapping[str, Any], what: str | None) -> str:
    """The images of an evaluation and how many they are: `146 images of the test subset`, or words of its own."""
    images = plural(entry["n"], "image")
    return f"{images} of the {SUBSETS[subset]} subset" if what is None else f"{what} ({images})"


def verdict(
    record: Record, subset: str, entry: Mapping[str, Any], *, what: str | None, has_test: bool | None
) -> Verdict:
    """What was evaluated, how it compares with guessing, and what to check when it is no better.

    Args:
        what: words for the images, where they are not those of the subset.
        has_test: whether the run had a test subset; None decides it by the record's evaluation.
    """
    if has_test is None:
        has_test = bool(record.evaluation.get("test"))
    level, headline = _headline(entry)
    nothing = level == "bad"
    return Verdict(
        level=level,
        headline=headline,
        sentences=tuple(_sentences(subset, entry, evaluated_on(subset, entry, what), has_test)),
        tiles=tuple(_tiles(entry)),
        checks=tuple(_checks(record, entry)) if nothing else (),
    )


def _by_chance(entry: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Names of attributes better than chance, not distinguishable from it, and not tested."""
    better: list[str] = []
    level: list[str] = []
    untested: list[str] = []
    for one in entry["attributes"]:
        found = mapping(one.get("chance")).get("distinguishable")
        (untested if found is None else better if found else level).append(one["name"])
    return better, level, untested


def _headline(entry: Mapping[str, Any]) -> tuple[str, str]:
    better, level, untested = _by_chance(entry)
    total = len(entry["attributes"])
    if not any("chance" in one for one in entry["attributes"]):
        return "", "These figures were not tested against chance"
    if not better and not level:
        return "bad", "No attribute could be tested: none is known both present and absent in these images"
    if not better:
        if total == 1:
            return "bad", "The attribute is not distinguishable from chance"
        return "bad", "No attribute is distinguishable from chance"
    if not level and not untested:
        return "good", ("The attribute" if total == 1 else f"All {total:,} attributes") + (
            " is recognised better than chance" if total == 1 else " are recognised better than chance"
        )
    verb = "is" if len(better) == 1 else "are"
    return "warn", f"{len(better):,} of {plural(total, 'attribute')} {verb} recognised better than chance"


def _sentences(subset: str, entry: Mapping[str, Any], images: str, has_test: bool) -> Iterator[Remark]:
    yield Remark(text=f"Evaluated on {images}.", level="")
    if subset == "val":
        without = "" if has_test else " There is no test subset."
        yield Remark(
            text="The best epoch and the thresholds were chosen on these very images, so every figure here "
            f"flatters.{without}"
        )
    better, level, untested = _by_chance(entry)
    if better and level:
        yield _named("Not distinguishable from chance", level, link="attributes")
    if (better or level) and untested:
        yield _named("Not tested, because not known both present and absent", untested, link="attributes")
    if not better and level:
        yield Remark(
            text="The scores were not shown to order these images better than random numbers would. High "
            "precision, recall or F1 below may come from how common the attributes are, not from the images.",
            level="bad",
        )


def _tiles(entry: Mapping[str, Any]) -> Iterator[Tile]:
    macro, intervals = entry["macro"], mapping(entry.get("intervals"))
    present = mapping(mapping(entry.get("baselines")).get("always_present"))
    level = defined(intervals.get("level"))
    for key, title, beside in (
        ("average_precision", "Macro average precision", "base rate, without looking"),
        ("auroc", "Macro AUROC", "chance"),
        ("f1", "Macro F1", "“present” for every image"),
    ):
        value, base = defined(macro.get(key)), defined(present.get(key))
        interval = mapping(intervals.get("macro")).get(key)
        if (
            key == "f1" and defined(entry.get("cross_fitted")) is not None
        ):  # the naive one, and its interval, flatter: tuned on these labels
            title, value, interval = "Macro F1, cross-fitted", defined(entry["cross_fitted"]), None
        judgement, mood = _judge(value, base, ends(interval))
        percent = f"{level:.0%} interval " if level is not None else "interval "
        yield Tile(
            title=title,
            value=figure(value),
            interval=percent + span(interval) if span(interval) else "",
            baseline="" if base is None else f"{beside}: {figure(base)}",
            judgement=judgement,
            level=mood,
        )


def _judge(value: float | None, base: float | None, found: tuple[float, float] | None) -> tuple[str, str]:
    if value is None or base is None or found is None:
        return "", ""
    if found[0] > base:
        return "the whole interval is better", "good"
    if found[1] < base:
        return "the whole interval is worse", "bad"
    return "not shown to be better", "bad" if value <= base else "warn"


def _checks(record: Record, entry: Mapping[str, Any]) -> Iterator[Remark]:
    """What most often is wrong when nothing was learned."""
    conflicts = len(record.data.conflicts) + len(getattr(record.data, "near_conflicts", ()))
    found = (
        f"{plural(conflicts, 'group')} of the same image with contradicting labels "
        f"{'was' if conflicts == 1 else 'were'} found; there may be more among images that differ."
        if conflicts
        else "none was found among identical images, which does not prove the labels right."
    )
    yield Remark(text=f"Label conflicts: {found}", link="health", level="")
    yield Remark(
        text="Swapped files: do the names in the table belong to these images? A shifted row, a renamed or "
        "sorted folder gives every image another's labels. Open a few and compare.",
        link="errors",
        level="",
    )
    rare = _rare(entry)
    few = (
        _named(f"Too few images of the rarer class (fewer than {FEW} here)", rare, link="attributes")
        if rare
        else Remark(text=f"Too few images of the rarer class: not here, each attribute has at least {FEW}.")
    )
    yield Remark(text=few.text, names=few.names, more=few.more, link=few.link, level="")


def negatives(one: Mapping[str, Any]) -> int:
    """Images known not to show the attribute, also in a record that does not say so itself."""
    return int(one.get("negative", one["known"] - one["positive"]))


def _rare(entry: Mapping[str, Any]) -> list[str]:
    return [one["name"] for one in entry["attributes"] if 0 < min(one["positive"], negatives(one)) < FEW]


def warnings(
    record: Record, subset: str, entry: Mapping[str, Any], *, what: str | None, notes: Sequence[str]
) -> tuple[Remark, ...]:
    """What a reader should know before using the figures: `notes`, then the most damaging first."""
    where = f"in {what or f'the {SUBSETS[subset]} subset'}"
    said = (Remark(text=note[:1].upper() + note[1:]) for note in notes)
    return (*said, *_of_data(record), *_of_figures(where, entry), *_of_run(record))


def _of_data(record: Record) -> Iterator[Remark]:
    data = record.data
    for key, text, level in (
        ("leaks", "of the same or nearly the same image in different subsets: figures flatter", "bad"),
        ("conflicts", "of the same image with contradicting labels", "bad"),
        ("near_conflicts", "of nearly the same image with contradicting labels", "warn"),
    ):
        if groups := getattr(data, key, ()):
            yield Remark(text=f"{plural(len(groups), 'group')} {text}", link="health", level=level)
    for key, what in (("missing", "is missing"), ("unreadable", "cannot be read")):
        if names := getattr(data, key):
            verb = what if len(names) == 1 else what.replace("is ", "are ")
            yield _named(f"{plural(len(names), 'image')} of the table {verb}", names, link="health")


def _of_figures(where: str, entry: Mapping[str, Any]) -> Iterator[Remark]:
    if entry["undefined"]:
        yield _named(
            f"Not known both present and absent {where}, so without figures and not in the macro means",
            entry["undefined"],
            link="attributes",
        )
    if rare := _rare(entry):
        yield _named(f"Fewer than {FEW} images of the rarer class {where}", rare, link="attributes")


def _of_run(record: Record) -> Iterator[Remark]:
    if record.stopped_because and record.stopped_because.startswith("failed"):
        yield Remark(text=f"The training did not end well: {record.stopped_because}", level="bad")
    notes: dict[str, list[str]] = {}
    for row in record.thresholds:
        if row.get("note"):
            notes.setdefault(str(row["note"]), []).append(str(row["name"]))
    for note, names in list(notes.items())[:_REMARKS]:
        yield _named(f"Threshold: {note}", names, link="thresholds")
    if len(notes) > _REMARKS:
        more = plural(len(notes) - _REMARKS, "more remark")
        yield Remark(text=f"{more} on thresholds", link="thresholds")
    if skipped := sum(epoch.skipped_steps for epoch in record.epochs):
        yield Remark(
            text=f"{plural(skipped, 'training step')} left out: the loss or its gradient was not finite"
        )


def _named(text: str, names: Sequence[str], *, link: str = "", level: str = "warn") -> Remark:
    more = max(0, len(names) - _NAMES)
    return Remark(text=text, names=tuple(names[:_NAMES]), more=more, link=link, level=level)
