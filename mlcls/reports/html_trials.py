"""The HTML report of a search: the best recipe and what it is worth, the table, pictures. One file, loads nothing."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from markupsafe import Markup

import mlcls
from mlcls.reports.console import figure, plural
from mlcls.reports.console_trials import FIGURES, setting, trial_name
from mlcls.reports.html import Picture, content_policy, data_uri, page_template, picture_size, template_part
from mlcls.reports.html_run import recipe_table
from mlcls.reports.html_table import Cell, Column, Table, name, number, whole
from mlcls.reports.trial_rows import TABLE, SeedRow, TrialRow, best_first

_LEVELS = {"complete": "", "pruned": "warn", "failed": "bad"}


def trials_html(
    rows: Sequence[TrialRow],
    seeds: Sequence[SeedRow],
    *,
    metric: str,
    maximize: bool,
    recipe: Mapping[str, Any] | None,
    pictures: Sequence[Picture] = (),
    command: str = "",
    title: str = "Search report",
) -> str:
    """The report as the text of one HTML file, to be written in UTF-8.

    Args:
        rows: the trials, in any order.
        seeds: the best one again, over several seeds.
        metric: the figure that trials are compared by.
        maximize: whether more of it is better.
        recipe: every setting of the best one; None where no trial is complete.
        pictures: in the order they are shown.
        command: what made it.
    """
    ranked = best_first(rows, maximize)
    best = ranked[0] if ranked and ranked[0].state == "complete" else None
    style, script = template_part("report.css"), template_part("report.js")
    sections = {"trials": "Trials"}
    sections |= {"seeds": "The best one again"} if seeds else {}
    sections |= {"pictures": "Pictures"} if pictures else {}
    sections |= {"recipe": "The best recipe"} if recipe else {}
    page = page_template("trials.html.j2").render(
        title=title,
        version=mlcls.__version__,
        what=_what(ranked),
        policy=content_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        sections=sections,
        headline=_headline(best, metric),
        sentences=tuple(_sentences(best, metric)),
        tiles=_tiles(best, seeds, metric),
        trials=trials_table(ranked),
        remarks=[
            f"Trial {row.number}: {row.reason}"
            for row in rows
            if row.reason and row.state in ("again", "failed")
        ],
        seeds=seeds_table(seeds) if seeds else None,
        pictures=[{"of": one, "uri": data_uri(one.png), "size": picture_size(one.png)} for one in pictures],
        recipe=recipe_table(recipe) if recipe else None,
        command=command,
    )
    return page.lstrip()


def trials_table(ranked: Sequence[TrialRow]) -> Table:
    """The trials in this order: the columns of the published table, what else is varied, and the figures."""
    others = list(dict.fromkeys(key for row in ranked for key in row.settings if key not in TABLE.values()))
    words = {"optimizer", "schedule"}
    columns = [Column(title="Trial", number=False)]
    columns += [Column(title=title, number=key not in words) for title, key in TABLE.items()]
    columns += [Column(title=key, number=_is_number(ranked, key)) for key in others]
    columns += [Column(title="Best Validation Loss"), Column(title="val mAP"), Column(title="val F1")]
    columns += [Column(title="epochs"), Column(title="seconds"), Column(title="state", number=False)]
    return Table(
        caption="Settings and validation figures of each trial",
        columns=tuple(columns),
        rows=tuple(_cells(row, others) for row in ranked),
    )


def _cells(row: TrialRow, others: Sequence[str]) -> tuple[Cell, ...]:
    settings = [_setting_cell(row.settings.get(key)) for key in (*TABLE.values(), *others)]
    return (
        Cell(text=trial_name(row), sort=float(row.number)),
        *settings,
        number(row.val_loss, decimals=4),
        number(row.val_map),
        number(row.val_f1),
        whole(row.epochs),
        number(row.seconds, decimals=0),
        Cell(text=row.state, level=_LEVELS[row.state]),
    )


def _setting_cell(value: Any) -> Cell:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(text=setting(value), sort=float(value) if known else None)


def _is_number(rows: Sequence[TrialRow], key: str) -> bool:
    values = [row.settings.get(key) for row in rows]
    return all(value is None or (isinstance(value, int | float) and value is not True) for value in values)


def seeds_table(seeds: Sequence[SeedRow]) -> Table:
    """The best one again: a row a seed, and their mean."""
    titles = ("val mAP", "test mAP", "test AUROC", "test F1", "seconds")
    rows = [
        (
            name(f"seed {row.seed}"),
            *(number(value) for value in (row.val_map, row.test_map, row.test_auroc, row.test_f1)),
            number(row.seconds, decimals=0),
        )
        for row in seeds
    ]
    if len(seeds) > 1:
        means = (mean_of(seeds, key) for key in ("val_map", "test_map", "test_auroc", "test_f1"))
        rows.append((name("mean"), *map(number, means), number(mean_of(seeds, "seconds"), decimals=0)))
    return Table(
        caption="Figures by seed",
        columns=(Column(title="seed", number=False), *(Column(title=title) for title in titles)),
        rows=tuple(rows),
        sortable=False,
    )


def mean_of(seeds: Sequence[SeedRow], key: str) -> float | None:
    """The mean of a figure over the seeds; None where one of them has none."""
    values = [getattr(row, key) for row in seeds]
    return None if not values or None in values else fmean(values)


def _what(ranked: Sequence[TrialRow]) -> str:
    counts = {state: sum(row.state == state for row in ranked) for state in _LEVELS}
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    return f"{plural(len(ranked), 'trial')}: {', '.join(parts)}" if ranked else "no trial has come to its end"


def _headline(best: TrialRow | None, metric: str) -> str:
    if best is None:
        return "No trial has come to its end"
    return f"Trial {best.number} is the best: {FIGURES[metric]} {figure(best.value, 4)} on validation"


def _sentences(best: TrialRow | None, metric: str) -> Iterator[str]:
    if best is None:
        return
    settings = ", ".join(f"{key} {setting(value)}" for key, value in best.settings.items())
    yield f"Its settings: {settings}."
    yield (
        f"It was chosen among all of them by {FIGURES[metric]} on the very images that this is measured on, so its "
        "figure flatters; the test subset knows nothing of the choice."
    )


def _tiles(best: TrialRow | None, seeds: Sequence[SeedRow], metric: str) -> list[dict[str, Any]]:
    if best is None:
        return []
    tiles = [
        {
            "title": f"{FIGURES[metric]}, validation",
            "value": figure(best.value, 3),
            "lines": ["the best trial"],
        }
    ]
    for key, title in (("test_map", "test mAP"), ("test_auroc", "test AUROC"), ("test_f1", "test F1")):
        mean = mean_of(seeds, key)
        if mean is not None:
            values = [getattr(row, key) for row in seeds]
            lines = [
                f"mean of {plural(len(seeds), 'seed')}",
                f"{figure(min(values))} to {figure(max(values))}",
            ]
            tiles.append({"title": title, "value": figure(mean), "lines": lines})
    return tiles
