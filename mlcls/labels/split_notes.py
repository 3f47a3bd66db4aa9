"""Owns the sentences that say which attributes some subset has no image of."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlcls.labels.stratify import SUBSETS, Stratification

SHOWN = 10  # how many attributes get a note of their own


def describe_lacking(
    labels: NDArray[np.float32], placed: Stratification, names: Sequence[str], subsets: int
) -> list[str]:
    """A sentence for each attribute that some subset has no image of: for the first few, then how many more.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        placed: what `stratify` made of them.
        names: [A] of the attributes.
        subsets: how many subsets are in use.
    """
    notes: list[str] = []
    count = len(names)
    for value, kind in ((1, "showing it"), (0, "known not to show it")):
        images = np.count_nonzero(labels == value, axis=0)
        place = slice(0, count) if value else slice(count, 2 * count)
        groups, lacking = placed.groups_with[place], placed.lacking[:, place]
        affected = np.flatnonzero((groups < subsets) | lacking.any(axis=0))
        for index in affected[:SHOWN]:
            missed = [name for name, lacks in zip(SUBSETS, lacking[:, index], strict=True) if lacks]
            outcome = _outcome(int(images[index]), kind, int(groups[index]), missed)
            notes.append(f"'{names[index]}' has {outcome}")
        if len(affected) > SHOWN:
            notes.append(f"{len(affected) - SHOWN} more attributes have no image {kind} in some subset")
    return notes


def _outcome(images: int, kind: str, groups: int, missed: Sequence[str]) -> str:
    """The rest of the sentence: how many images there are, in how many groups, and what that means."""
    if images == 0:
        return f"no image {kind}"
    counted = f"{images} image{'s' * (images > 1)} {kind}"
    if groups < images:
        counted += f", in {groups} group{'s' * (groups > 1)}"
    return f"{counted}: " + (
        f"none could be placed in {' and '.join(missed)}" if missed else "too few for one in each subset"
    )
