"""The predictions that bundles were saved with: of one bundle, or what several have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.ensemble import mean_probabilities
from mlcls.bundle.files import GROUPS, Bundle, read_verified
from mlcls.errors import BundleError
from mlcls.scoring.groups import read_groups, shared_groups
from mlcls.scoring.predictions import Predictions, read_predictions

SUBSETS = {"val": "validation", "test": "test"}
Groups = NDArray[np.int64] | None


def saved_predictions(bundle: Bundle, subset: str) -> tuple[Predictions, Groups]:
    """The predictions that training saved for a subset, and the groups of their images (None: each its own).

    Raises:
        BundleError: the run had no such subset, or a file is damaged.
    """
    name = f"predictions-{subset}.csv"
    if not has_predictions(bundle, subset):
        raise BundleError(
            f"--model {bundle.folder}: this run had no {SUBSETS[subset]} subset; name a table with --labels"
            + (", or take --subset val" if subset == "test" else "")
        )
    read_verified(bundle, name)
    predictions = read_predictions(bundle.folder / name)
    if predictions.attributes != bundle.attributes:
        raise BundleError(f"{bundle.folder / name}: its attributes are not those of the bundle")
    return predictions, groups_of(bundle, predictions.images)


def has_predictions(bundle: Bundle, subset: str) -> bool:
    """Whether predictions of a subset were saved with a bundle."""
    return f"predictions-{subset}.csv" in bundle.manifest["files"]


def groups_of(bundle: Bundle, images: Sequence[str]) -> Groups:
    """The groups of these images as the run knew them; None where each stands alone."""
    if GROUPS not in bundle.manifest["files"]:
        return None
    read_verified(bundle, GROUPS)
    return shared_groups(read_groups(bundle.folder / GROUPS, images))


@dataclass(frozen=True)
class Common:
    """What the saved predictions of several bundles have in common.

    Attributes:
        predictions: their mean, of the images that all have, in the order of the first one's images and attributes.
        groups: of these images, None where each stands alone.
        own: the first bundle's own predictions.
        counts: how many images each bundle has.
    """

    predictions: Predictions
    groups: Groups
    own: Predictions
    counts: tuple[int, ...]


def common_predictions(bundles: Sequence[Bundle], subset: str) -> Common:
    """The mean of several bundles' saved predictions of the images that all have, told by their names.

    A label that one of them knows is known; groups are those of the first bundle that has any.

    Args:
        bundles: of the same attributes.

    Raises:
        BundleError: one lacks such predictions, no image is in all, or they contradict each other: then what bears one
            name is not one image, or the table was changed.
    """
    found = [saved_predictions(bundle, subset)[0] for bundle in bundles]
    first, rows = found[0], [{image: row for row, image in enumerate(one.images)} for one in found]
    images = tuple(image for image in first.images if all(image in one for one in rows))
    if not images:
        folders = ", ".join(str(bundle.folder) for bundle in bundles)
        raise BundleError(
            f"{folders}: their saved predictions of the {SUBSETS[subset]} subset have no image in common; name a "
            "table with --labels, or train them with one split (--split file:)"
        )
    scores, labels = [], np.full((len(images), len(first.attributes)), np.nan, dtype=np.float32)
    for bundle, one, row_of in zip(bundles, found, rows, strict=True):
        order = np.array([row_of[image] for image in images], dtype=np.intp)[:, None]
        columns = np.array([one.attributes.index(name) for name in first.attributes], dtype=np.intp)
        scores.append(one.scores[order, columns])
        _add_labels(labels, one.labels[order, columns], bundles[0], bundle, (images, first.attributes))
    together = Predictions(images, first.attributes, mean_probabilities(scores), labels)
    with_groups = (groups_of(bundle, images) for bundle in bundles)
    groups = next((one for one in with_groups if one is not None), None)
    return Common(together, groups, first, tuple(len(one.images) for one in found))


def _add_labels(
    labels: NDArray[np.float32],
    more: NDArray[np.float32],
    first: Bundle,
    other: Bundle,
    names: tuple[Sequence[str], Sequence[str]],
) -> None:
    """Take in, in place, what another bundle knows of the same cells."""
    opposite = ~np.isnan(labels) & ~np.isnan(more) & (labels != more)
    if opposite.any():
        row, column = np.argwhere(opposite)[0].tolist()
        raise BundleError(
            f"{first.folder} and {other.folder}: say the opposite of each other in {int(opposite.sum())} labels, first "
            f"'{names[1][column]}' of {names[0][row]}: the table was changed between the runs, or another image has "
            "that name; name a table with --labels"
        )
    np.copyto(labels, more, where=np.isnan(labels))
