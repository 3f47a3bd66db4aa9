"""What the console says before a training: the data that was found and the model that will learn from it."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from mlcls.reports.console import count, facts, figure, heading, notes, plural, say, some
from mlcls.reports.console_alike import alike_facts
from mlcls.reports.grid import Column, print_grid
from mlcls.reports.record import AttributeCount, DataFacts, ModelFacts

MOST_ATTRIBUTES = 40  # of more than these, only the rarest are shown
_RAREST = 20


def show_data(
    console: Console,
    data: DataFacts,
    subsets: Mapping[str, Sequence[AttributeCount]] | None = None,
    *,
    source: str | None = None,
    title: str = "Data",
) -> None:
    """Print what the table and its images hold: sizes, faults, and counts for each attribute.

    Args:
        data: the facts, as in `metrics.json`.
        subsets: counts within each subset (e.g. train, val, test), each in the order of `data.attributes`.
        source: a line about the table: its path, and how it was understood.
    """
    heading(console, title)
    pairs = [("table", source)] if source else []
    pairs += [
        ("rows", count(data.rows)),
        ("images", count(data.images)),
        ("missing images", _named(data.missing)),
        ("unreadable images", _named(data.unreadable)),
        *alike_facts(console, data),
    ]
    if data.metadata:
        pairs.append(("metadata columns", some(data.metadata, 12)))
    if data.split is not None:
        split = data.split
        pairs.append(
            ("split", f"train {count(split.train)}, val {count(split.val)}, test {count(split.test)}")
        )
    facts(console, pairs)
    if data.attributes:
        console.print()
        _show_attributes(console, data.attributes, subsets or {})
    notes(console, data.notes)
    _show_health(console, data.health)


def _show_health(console: Console, sentences: Sequence[str]) -> None:
    """What the labels themselves give away, a line each."""
    if sentences:
        say(console, "label health:", style="yellow", indent=2)
    for sentence in sentences:
        say(console, f"- {sentence}", style="yellow", indent=4)


def _show_attributes(
    console: Console, attributes: Sequence[AttributeCount], subsets: Mapping[str, Sequence[AttributeCount]]
) -> None:
    shown = list(range(len(attributes)))
    if len(attributes) > MOST_ATTRIBUTES:
        rarity = [min(entry.positive, entry.negative) for entry in attributes]
        shown = sorted(sorted(shown, key=lambda i: rarity[i])[:_RAREST])
    columns = [Column("attribute", text=True), Column("present"), Column("absent"), Column("unknown")]
    columns.append(Column("share", drop=9))
    columns += [Column(name, drop=1 + i) for i, name in enumerate(subsets)]
    rows = []
    for i in shown:
        entry = attributes[i]
        known = entry.positive + entry.negative
        share = f"{entry.positive / known:.1%}" if known else figure(None)
        row = [entry.name, count(entry.positive), count(entry.negative), count(entry.unknown), share]
        row += [f"{count(part[i].positive)}/{count(part[i].negative)}" for part in subsets.values()]
        rows.append(row)
    dropped = print_grid(console, columns, rows)
    if len(shown) < len(attributes):
        rest = [entry for i, entry in enumerate(attributes) if i not in set(shown)]
        low, high = min(entry.positive for entry in rest), max(entry.positive for entry in rest)
        say(
            console,
            f"these are the {len(shown)} rarest of {len(attributes)} attributes; the other {len(rest)} are "
            f"present in {low:,} to {high:,} images each (metrics.json has them all)",
            indent=2,
        )
    if dropped:
        say(console, f"not shown in this narrow window: {', '.join(dropped)}", style="dim", indent=2)
    legend = ["share: present among known"] if "share" not in dropped else []
    if kept := [name for name in subsets if name not in dropped]:
        legend.append(f"{', '.join(kept)}: present/absent")
    if legend:
        say(console, "; ".join(legend), style="dim", indent=2)


def _named(names: Sequence[str]) -> str:
    return f"{len(names):,}: {some(names)}" if names else "none"


def show_model(console: Console, model: ModelFacts, *, title: str = "Model") -> None:
    """Print the backbone, its weights, the head, the image size, and what trains in each stage."""
    heading(console, title)
    arguments = ", ".join(f"{key}={value}" for key, value in model.backbone_args.items())
    fit = f", {model.fit}" if model.fit else ""
    pairs = [
        ("backbone", f"{model.backbone} ({arguments})" if arguments else model.backbone),
        ("weights", model.weights),
        ("head", f"{model.head} on {plural(model.features, 'feature')}"),
        ("images", f"{model.image_size} x {model.image_size} px{fit}"),
    ]
    if model.device is not None:
        pairs.append(("device", f"{model.device}, {model.precision}" if model.precision else model.device))
    facts(console, pairs)
    console.print()
    columns = [
        Column("stage", text=True),
        Column("from epoch"),
        Column("trainable"),
        Column("frozen"),
        Column("trains", text=True),
    ]
    rows = [
        [
            f"{number} {stage.name}",
            count(stage.first_epoch),
            count(stage.trainable),
            count(stage.frozen),
            some(stage.modules),
        ]
        for number, stage in enumerate(model.stages)
    ]
    print_grid(console, columns, rows)
    notes(console, model.notes)
