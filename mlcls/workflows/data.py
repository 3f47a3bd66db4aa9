"""From the recipe's table and folder to labelled, readable, split images, with all there is to say about them."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError, TableError
from mlcls.images.cache import ImageStore
from mlcls.images.preprocess import Preprocessing
from mlcls.labels.duplicates import find_leaks
from mlcls.labels.health import describe_health
from mlcls.labels.split import Split
from mlcls.labels.table import LabelTable, combine_tables, read_table
from mlcls.naming import suggest
from mlcls.recipe import Recipe
from mlcls.reports.record import AttributeCount, DataFacts, SplitCounts
from mlcls.workflows.alike import Alike, find_alike
from mlcls.workflows.splitting import group_rows, is_given, split_images
from mlcls.workflows.survey import Readable, survey_table

MOST_NOTES = 20

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class LabelledImages:
    """The images that take part: the table's rows whose image is there and readable, split.

    `groups` are [N] ids: rows that share one are one photo (identical, near-identical) or of one value of the
    group column, and no evidence independent of each other. `digests` are uint8 [N, 32], the SHA-256 of each file.
    `store` gives each row's pixels; None where no preprocessing was named.
    """

    table: LabelTable
    split: Split
    facts: DataFacts
    groups: NDArray[np.int64]
    digests: NDArray[np.uint8]
    store: ImageStore | None

    def paths(self, rows: NDArray[np.intp]) -> list[Path]:
        """The files of these rows."""
        return [self.table.images_dir / name for name in self.table.images[rows]]

    def names(self, rows: NDArray[np.intp]) -> tuple[str, ...]:
        """The names of these rows' images."""
        return tuple(self.table.images[rows])


def gather(
    recipe: Recipe, console: "Console", labels: Any = None, *, preprocessing: Preprocessing | None
) -> LabelledImages:
    """Read, check and split what the recipe names.

    Args:
        labels: a DataFrame to take instead of the file `recipe.labels`.
        preprocessing: what the pixels will be needed as; None where they will not.

    Raises:
        TableError, RecipeError: with everything that is wrong with the table or the split.
    """
    readable = _readable(recipe, console, labels, preprocessing)
    table, alike, groups = readable.table, *_belonging(readable)
    split, split_notes = split_images(recipe, table, groups)
    for name, rows in (("training", split.train), ("validation", split.val)):
        if not len(rows) or np.isnan(table.labels[rows]).all():
            raise TableError(f"{table.report.source}: the {name} subset has no known label")
    leaks = find_leaks(alike.groups, [split.train, split.val, split.test]) if is_given(recipe, table) else ()
    health = describe_health(table.labels, table.attributes, readable.prints.sizes, groups)
    facts = _facts(
        table, readable.unreadable, alike, split, (*_notes(table, alike), *split.notes, *split_notes)
    )
    facts = dataclasses.replace(facts, leaks=_named(table, leaks), health=health)
    return LabelledImages(table, split, facts, groups, readable.digests, readable.store)


def gather_unsplit(
    recipe: Recipe,
    console: "Console",
    check: Callable[[LabelTable], None],
    *,
    preprocessing: Preprocessing | None = None,
) -> LabelledImages:
    """Read and check what the recipe names, to be scored: every image is of the test subset.

    Args:
        check: raises where the table cannot be used; called before any image is decoded.
        preprocessing: as for `gather`.

    Raises:
        TableError, RecipeError: with everything that is wrong with the table.
    """
    readable = _readable(recipe, console, None, preprocessing, check)
    table, alike, groups = readable.table, *_belonging(readable)
    none = np.zeros(0, dtype=np.intp)
    split = Split(none, none, np.arange(len(table.images)))
    health = describe_health(table.labels, table.attributes, readable.prints.sizes, groups)
    facts = _facts(table, readable.unreadable, alike, split, _notes(table, alike))
    facts = dataclasses.replace(facts, health=health)
    return LabelledImages(table, split, facts, groups, readable.digests, readable.store)


def _readable(
    recipe: Recipe,
    console: "Console",
    labels: Any,
    preprocessing: Preprocessing | None,
    check: Callable[[LabelTable], None] = lambda table: None,
) -> Readable:
    table = read_recipe_table(recipe, labels)
    check(table)
    return survey_table(recipe, table, console, preprocessing)


def _belonging(readable: Readable) -> tuple[Alike, NDArray[np.int64]]:
    """Which images are one photo, and [N] ids: rows that share one belong together."""
    alike = find_alike(readable.table, readable.prints, readable.digests)
    return alike, group_rows(readable.table, alike.groups)


def read_recipe_table(recipe: Recipe, labels: Any = None) -> LabelTable:
    """The table that the recipe names, or all of its tables as one."""
    others = {"val": recipe.val_labels, "test": recipe.test_labels}
    if any(others.values()) and recipe.split.startswith(
        "column:"
    ):  # a file can tell of the images of all tables
        raise RecipeError(
            f"--split {recipe.split}: the subsets come from --val-labels and --test-labels already; "
            "give either these tables or --split"
        )
    main = recipe.labels if labels is None else labels
    images = recipe.images
    if isinstance(main, str) and main.startswith("demo:"):
        from mlcls.labels.demo import DEMOS  # scikit-learn's images: loaded for this alone

        name = main.removeprefix("demo:")
        if name not in DEMOS:
            raise RecipeError(f"--labels: unknown built-in data '{main}'; {suggest(name, DEMOS)}")
        main, images = DEMOS[name](), None
    column = recipe.split.removeprefix("column:") if recipe.split.startswith("column:") else None
    options: dict[str, Any] = {
        "image_column": recipe.image_column,
        "names": recipe.names,
        "attributes": recipe.attributes,
        "tags_column": recipe.tags_column,
        "tags_separator": recipe.tags_separator,
        "minus_one": recipe.minus_one,
        "group_column": recipe.group_column,
    }
    table = read_table(main, images, subset_column=column, **options)
    if not any(others.values()):
        return table
    tables = {"train": table}
    for subset, path in others.items():
        if path:
            tables[subset] = read_table(path, recipe.images, **options)
    return combine_tables(tables)


def _facts(
    table: LabelTable, unreadable: tuple[str, ...], alike: Alike, split: Split, notes: tuple[str, ...]
) -> DataFacts:
    report = table.report
    contradicting = tuple((name, name) for name in report.conflicts)  # two rows of one image
    return DataFacts(
        rows=report.rows,
        images=len(table.images),
        missing=report.missing,
        unreadable=unreadable,
        metadata=report.metadata,
        duplicates=_named(table, alike.identical),
        conflicts=contradicting + _named(table, alike.conflicts),
        attributes=attribute_counts(table.attributes, table.labels),
        split=SplitCounts(len(split.train), len(split.val), len(split.test)),
        notes=notes,
        images_dir=str(table.images_dir),
        near_duplicates=_named(table, alike.near),
        near_conflicts=_named(table, alike.near_conflicts),
        contradictions=alike.contradictions,
    )


def _named(table: LabelTable, groups: Iterable[tuple[int, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(str(table.images[row]) for row in group) for group in groups)


def _notes(table: LabelTable, alike: Alike) -> tuple[str, ...]:
    """What reading the table found, and whether all copies of a photo were."""
    if alike.complete:
        return _table_notes(table)
    return (
        *_table_notes(table),
        "so many images look alike that not all of them were compared: near-identical ones may be overlooked, "
        "and the subsets of the split may share them",
    )


def _table_notes(table: LabelTable) -> tuple[str, ...]:
    """What reading the table found besides what has a field of its own in the record."""
    report = table.report
    notes = list(report.notes)
    if report.repeated:
        notes.append(
            f"{len(report.repeated)} images stand in several rows, which were merged: {_some(report.repeated)}"
        )
    for name, attributes in report.conflict_attributes.items():
        notes.append(
            f"the rows of {name} say the opposite of each other for {', '.join(attributes)}: unknown there"
        )
    if report.shared:
        notes.append(
            f"{len(report.shared)} images stand in several tables; each is kept in the last of train, val, test alone: "
            + _some(report.shared)
        )
    if report.left_out:
        notes.append(f"left out, since no image has them: {_some(report.left_out)}")
    return (
        *notes[:MOST_NOTES],
        *([f"and {len(notes) - MOST_NOTES} more such notes"] if len(notes) > MOST_NOTES else []),
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def attribute_counts(attributes: Sequence[str], labels: NDArray[np.float32]) -> tuple[AttributeCount, ...]:
    """Present, absent and unknown labels of each attribute."""
    positive, negative = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    return tuple(
        AttributeCount(name, int(p), int(n), len(labels) - int(p) - int(n))
        for name, p, n in zip(attributes, positive, negative, strict=True)
    )


def subset_counts(data: LabelledImages) -> dict[str, tuple[AttributeCount, ...]]:
    """The labels of each attribute in each subset that has images."""
    subsets = {"train": data.split.train, "val": data.split.val, "test": data.split.test}
    return {
        name: attribute_counts(data.table.attributes, data.table.labels[rows])
        for name, rows in subsets.items()
        if len(rows)
    }
