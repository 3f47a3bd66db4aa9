"""Parts of the HTML report on the run itself: label health, the training, the recipe, what made the report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlcls.reports.console import UNDEFINED, count, plural
from mlcls.reports.html_table import Cell, Column, Table, columns, name, number, share, whole
from mlcls.reports.html_verdict import SUBSETS, negatives
from mlcls.reports.record import AttributeCount, DataFacts, Record

MOST_GROUPS = 200  # of more groups of images the first are listed, and the list says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """A list of groups of image names under a title, with what it means; `more` were left out."""

    title: str
    about: str
    groups: tuple[tuple[str, ...], ...]
    more: int
    level: str = ""
    near: bool = False  # alike, not equal


_GROUPS = {
    "conflicts": ("with contradicting labels", "The same image, labelled both present and absent.", "bad"),
    "near_conflicts": (
        "of near-identical images with contradicting labels",
        "Look at them: either a label is wrong or the images differ in what counts.",
        "bad",
    ),
    "leaks": (
        "across subsets",
        "The same or nearly the same image in different subsets: figures on it flatter.",
        "bad",
    ),
    "duplicates": ("of byte-identical images", "One file under several names.", ""),
    "near_duplicates": ("of near-identical images", "Alike by a perceptual hash.", ""),
}


_CONTRADICTED = {"conflicts": False, "near_conflicts": True}  # and whether its images are near-identical
_NEAR = ("near_conflicts", "near_duplicates", "leaks")


def image_groups(data: DataFacts) -> list[Groups]:
    """Conflicts, leaks, duplicates and images left out, as far as there are any."""
    found = []
    for key, (title, about, level) in _GROUPS.items():
        groups: Sequence[Sequence[str]] = getattr(data, key)
        if not groups:
            continue
        heading = f"{plural(len(groups), 'group')} {title}"
        said = _contradictions(data, near=_CONTRADICTED[key]) if key in _CONTRADICTED else []
        if (
            said
        ):  # in the place of the bare names, but for rows of one name, whose attributes are in the notes
            groups = [*(group for group in groups if len(set(group)) == 1), *said]
        found.append(_groups(heading, about, groups, level, near=key in _NEAR))
    for key, title in (("missing", "missing"), ("unreadable", "unreadable")):
        if names := getattr(data, key):
            heading = f"{plural(len(names), f'{title} image')}"
            found.append(_groups(heading, "Left out of everything here.", [(one,) for one in names], "warn"))
    return found


def _contradictions(data: DataFacts, *, near: bool) -> list[tuple[str, ...]]:
    """Which images say what of which attribute."""
    return [
        (f"{one.attribute}: present in {', '.join(one.present)}; absent in {', '.join(one.absent)}",)
        for one in data.contradictions
        if one.near == near
    ]


def _groups(
    title: str, about: str, groups: Sequence[Sequence[str]], level: str, *, near: bool = False
) -> Groups:
    shown = tuple(tuple(group) for group in groups[:MOST_GROUPS])
    more = len(groups) - len(shown)
    return Groups(title=title, about=about, groups=shown, more=more, level=level, near=near)


def data_facts(data: DataFacts) -> list[tuple[str, str]]:
    """Sizes of the table and its subsets."""
    pairs = [("rows of the table", count(data.rows)), ("images", count(data.images))]
    if data.split is not None:
        pairs += [(key, count(getattr(data.split, key))) for key in ("train", "val", "test")]
    if data.metadata:
        pairs.append(("columns left alone", ", ".join(data.metadata)))
    return pairs


def counts_table(
    record: Record,
    subsets: Mapping[str, Sequence[AttributeCount]] | None,
    subset: str,
    what: str | None = None,
) -> Table | None:
    """How many images show each attribute: in all, and in each subset.

    Args:
        subsets: counts in each subset, in the order of `data.attributes`; without them the known labels of
            the subsets that were evaluated.
        subset: `test` or `val`, the one that is reported.
        what: words for its images, where they are not those of the run's subset.
    """
    attributes = record.data.attributes
    if not attributes:
        return None
    parts = _counts(subsets) if subsets else _evaluated_counts(record)
    headings = list(columns("present", "absent", "unknown", "share present"))
    about = ""
    if what is not None and not subsets:  # too long for a heading
        parts, about = {"evaluated": parts[SUBSETS[subset]]}, f"of {what}"
    headings += [
        Column(title=f"{part}: {kind}", about=about) for part in parts for kind in ("present", "absent")
    ]
    rows = []
    for one in attributes:
        cells = [name(one.name), whole(one.positive), whole(one.negative), whole(one.unknown)]
        cells.append(share(one.positive, one.positive + one.negative))
        for part in parts.values():
            cells += [whole(value) for value in part.get(one.name, (None, None))]
        rows.append(tuple(cells))
    return Table(caption="Images an attribute", columns=tuple(headings), rows=tuple(rows))


def _counts(
    subsets: Mapping[str, Sequence[AttributeCount]],
) -> dict[str, dict[str, tuple[int, int]]]:
    return {key: {one.name: (one.positive, one.negative) for one in part} for key, part in subsets.items()}


def _evaluated_counts(record: Record) -> dict[str, dict[str, tuple[int, int]]]:
    return {
        title: {one["name"]: (one["positive"], negatives(one)) for one in entry["attributes"]}
        for key, title in (("val", SUBSETS["val"]), ("test", SUBSETS["test"]))
        if (entry := record.evaluation.get(key))
    }


def training_facts(record: Record) -> list[tuple[str, str]]:
    """The model and how its training went, in pairs."""
    model = record.model
    arguments = ", ".join(f"{key}={value}" for key, value in model.backbone_args.items())
    pairs = [
        ("backbone", f"{model.backbone} ({arguments})" if arguments else model.backbone),
        ("weights", model.weights),
        ("head", f"{model.head} on {plural(model.features, 'feature')}"),
        ("image size", f"{model.image_size} × {model.image_size} px{f', {model.fit}' if model.fit else ''}"),
    ]
    if model.device:
        pairs.append(("device", f"{model.device}, {model.precision}" if model.precision else model.device))
    best = UNDEFINED
    if record.best_epoch is not None:
        best = f"{record.best_epoch} (counted from 0); its weights are the ones evaluated"
    if record.members is None:
        pairs += [("epochs trained", count(len(record.epochs))), ("best epoch", best)]
    else:
        pairs.append(
            ("members", f"{count(len(record.members))}, whose calibrated probabilities are averaged")
        )
    pairs += [
        ("stopped because", record.stopped_because or UNDEFINED),
        ("time", duration(record.seconds)),
    ]
    return pairs


def duration(seconds: float) -> str:
    """`1 h 2 min`, `3 min 20 s`, `12.5 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def stages_table(record: Record) -> Table | None:
    """What trained from which epoch on."""
    if not record.model.stages:
        return None
    rows = tuple(
        (
            name(one.name),
            whole(one.first_epoch),
            whole(one.trainable),
            whole(one.frozen),
            name(", ".join(one.modules)),
        )
        for one in record.model.stages
    )
    headings = columns("from epoch", "parameters trained", "frozen", first="stage")
    return Table(
        caption="Stages", columns=(*headings, Column(title="trains", number=False)), rows=rows, sortable=False
    )


_EPOCH = {
    "train_loss": "train loss",
    "val_loss": "val loss",
    "val_map": "val macro AP",
    "val_f1": "val F1 at 0.5",
    "val_exact_match": "val exact match",
}


def epochs_table(record: Record) -> Table | None:
    """The figures of each epoch; the best one is marked."""
    if not record.epochs:
        return None
    rows = []
    for epoch in record.epochs:
        best = epoch.epoch == record.best_epoch
        cells = [Cell(text=str(epoch.epoch), note="best" if best else "", level="good" if best else "")]
        cells += [whole(epoch.stage), Cell(text=f"{epoch.lr:.2e}", sort=epoch.lr)]
        cells += [number(getattr(epoch, key)) for key in _EPOCH]
        rows.append((*cells, number(epoch.seconds, decimals=1)))
    headings = columns("stage", "lr of the head", *_EPOCH.values(), "seconds", first="epoch")
    return Table(caption="Epochs", columns=headings, rows=tuple(rows), sortable=False)


def recipe_table(recipe: Mapping[str, Any]) -> Table | None:
    """Every setting of the run, nested ones by their dotted name."""
    rows = tuple((name(key), name(_setting(value))) for key, value in _flat(recipe, ""))
    if not rows:
        return None
    headings = (Column(title="setting", number=False), Column(title="value", number=False))
    return Table(caption="Every setting of the run", columns=headings, rows=rows, sortable=False)


def _flat(recipe: Mapping[str, Any], before: str) -> Iterator[tuple[str, Any]]:
    for key, value in recipe.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _setting(value: Any) -> str:
    if value is None or value == {}:
        return UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_setting(one) for one in value)
    return str(value)


def about(record: Record) -> list[tuple[str, str]]:
    """What made the run."""
    return [("mlcls", record.mlcls), ("seed", str(record.seed)), ("format of the record", str(record.format))]
