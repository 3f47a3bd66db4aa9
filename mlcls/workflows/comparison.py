"""Several bundles on the same rows: figures side by side, and what truly differs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlcls.bundle.files import Bundle, load_bundle
from mlcls.bundle.saved import saved_predictions
from mlcls.errors import BundleError
from mlcls.scoring.assessment import assess
from mlcls.scoring.differences import paired_differences
from mlcls.scoring.predictions import Predictions
from mlcls.workflows.judging import SUBSET_NAMES

NAMED = 3  # images named in a refusal


def compare_bundles(
    models: Sequence[str | Path], *, subset: str | None = None, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Compare bundles on the saved predictions of the same images, each at its own thresholds.

    Args:
        models: two folders or more; the first is the one that the others are compared with.
        subset: `val` or `test`; by itself test where all have one, else val where none has.

    Returns:
        `subset`, `images`, `unit` (what the bootstrap resamples), `attributes` (those that all have),
        `models` [{`name`, `macro`, `micro`, `intervals`, `attributes`}], and `differences` of each other model to the
        first, as `paired_differences` gives them.

    Raises:
        BundleError: a bundle is no bundle, or they were scored on other images or other labels: the message says which.
    """
    if len(models) < 2:
        raise BundleError("compare: name two bundles or more, e.g. mlcls compare outputs/a outputs/b")
    bundles = [load_bundle(model) for model in models]
    subset = subset or _common_subset(bundles)
    first, groups = saved_predictions(bundles[0], subset)
    attributes = tuple(
        name for name in first.attributes if all(name in bundle.attributes for bundle in bundles)
    )
    if not attributes:
        raise BundleError(f"{bundles[0].folder} and {bundles[1].folder}: have no attribute in common")
    aligned = [_columns(first, attributes)]
    for bundle in bundles[1:]:
        aligned.append(_aligned(bundles[0], aligned[0], bundle, subset))
    thresholds = [
        bundle.threshold_values()[[bundle.attributes.index(name) for name in attributes]]
        for bundle in bundles
    ]
    labels, names = aligned[0].labels, _names(bundles)
    entries = [
        assess(
            labels, one.scores, limits, attributes=attributes, groups=groups, resamples=resamples, seed=seed
        )
        for one, limits in zip(aligned, thresholds, strict=True)
    ]
    differences = paired_differences(
        labels,
        [(one.scores, limits) for one, limits in zip(aligned, thresholds, strict=True)],
        attributes=attributes,
        groups=groups,
        resamples=resamples,
        seed=seed,
    )
    return {
        "subset": subset,
        "images": len(first.images),
        "unit": "images" if groups is None else "groups",
        "attributes": list(attributes),
        "models": [
            {"name": name, **{key: entry[key] for key in ("macro", "micro", "intervals", "attributes")}}
            for name, entry in zip(names, entries, strict=True)
        ],
        "differences": [
            {"name": name, **difference}
            for name, difference in zip(names[1:], differences["models"], strict=True)
        ],
    }


def draw_comparison(path: str | Path, comparison: dict[str, Any]) -> None:
    """Draw the differences of macro figures, and of the attributes that changed, around a line at none.

    Raises:
        OutputError: the picture cannot be written.
    """
    from mlcls.reports.plots_forest import comparison as comparison_picture  # matplotlib

    rows = []
    for other in comparison["differences"]:
        for figure, name in (("average_precision", "macro AP"), ("auroc", "macro AUROC"), ("f1", "macro F1")):
            interval = other["macro"][figure]["interval"]
            clear = interval is not None and (interval[0] > 0 or interval[1] < 0)
            rows.append({"name": f"{other['name']}: {name}", **other["macro"][figure], "changed": clear})
        for row in other["attributes"]:
            if row["changed"]:
                for figure, name in (("average_precision", "AP"), ("f1", "F1")):
                    rows.append(
                        {"name": f"{other['name']}: {name} of {row['name']}", **row[figure], "changed": True}
                    )
    first = comparison["models"][0]["name"]
    comparison_picture(
        path, rows, title=f"Differences to {first}, {SUBSET_NAMES[comparison['subset']]} subset"
    )


def _names(bundles: Sequence[Bundle]) -> list[str]:
    """Short names that tell the bundles apart: the folder's own, or its whole path."""
    short = [bundle.folder.resolve().name for bundle in bundles]
    return short if len(set(short)) == len(short) else [str(bundle.folder) for bundle in bundles]


def _common_subset(bundles: Sequence[Bundle]) -> str:
    with_test = ["predictions-test.csv" in bundle.manifest["files"] for bundle in bundles]
    if any(with_test) and not all(with_test):
        without = bundles[with_test.index(False)].folder
        raise BundleError(
            f"{without}: this run had no test subset and others had; compare on validation with --subset val"
        )
    return "test" if all(with_test) else "val"


def _columns(predictions: Predictions, attributes: Sequence[str]) -> Predictions:
    columns = [predictions.attributes.index(name) for name in attributes]
    return Predictions(
        predictions.images, tuple(attributes), predictions.scores[:, columns], predictions.labels[:, columns]
    )


def _aligned(one: Bundle, first: Predictions, other: Bundle, subset: str) -> Predictions:
    """The other bundle's predictions in the first one's order of images and attributes."""
    found, _ = saved_predictions(other, subset)
    found = _columns(found, first.attributes)
    pair = f"{one.folder} and {other.folder}: cannot be compared, since their {SUBSET_NAMES[subset]} subsets"
    here, there = set(first.images), set(found.images)
    if here != there:
        alone = sorted(here ^ there)
        raise BundleError(
            f"{pair} hold other images ({len(here & there)} in common; only in one of them: "
            f"{', '.join(alone[:NAMED])}{' ...' if len(alone) > NAMED else ''}); train both with one split, "
            f"e.g. --split file:{one.folder / 'split.csv'}"
        )
    row_of = {image: row for row, image in enumerate(found.images)}
    order = np.array([row_of[image] for image in first.images], dtype=np.intp)
    labels = found.labels[order]
    differ = ~((labels == first.labels) | (np.isnan(labels) & np.isnan(first.labels)))
    if differ.any():
        row, column = np.argwhere(differ)[0].tolist()
        raise BundleError(
            f"{pair} have other labels in {int(differ.sum())} cells, the first '{first.attributes[column]}' of "
            f"{first.images[row]}: the table was changed between the runs; train both on one table"
        )
    return Predictions(first.images, first.attributes, found.scores[order], labels)
