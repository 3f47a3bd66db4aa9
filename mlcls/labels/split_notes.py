"""Owns the sentences that say which attributes some subset has no image of."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlcls.labels.stratify import SUBSETS, Stratification

SHOWN = 10  # how many attributes get a note of their own


def describe_lacking(
    labels: NDArray[np.float32], placed: Stratification, names: Sequence[str], subsets: int
) -> list[str]:
    """A sentence for each attribute that some subset has no image of, for the first few; how many more."""
    notes: list[str] = []
    count = len(names)
    for value, verb in ((1, "show"), (0, "are known not to show")):
        images = np.count_nonzero(labels == value, axis=0)
        place = slice(0, count) if value else slice(count, 2 * count)
        few = placed.groups_with[place] < subsets
        lacking = placed.lacking[:, place]
        affected = np.flatnonzero(few | lacking.any(axis=0))
        for index in affected[:SHOWN]:
            shown = _count_images(int(images[index]), verb, int(placed.groups_with[place][index]))
            where = " and ".join(
                name for name, lacks in zip(SUBSETS, lacking[:, index], strict=True) if lacks
            )
            end = "too few for one in each subset" if few[index] else f"none could be placed in {where}"
            notes.append(f"'{names[index]}' has {shown}: {end}")
        if len(affected) > SHOWN:
            notes.append(f"so it is with {len(affected) - SHOWN} more attributes that too few images {verb}")
    return notes


def _count_images(images: int, verb: str, groups: int) -> str:
    if images == 0:
        return f"no images that {verb} it"
    verb = {"show": "shows", "are known not to show": "is known not to show"}[verb] if images == 1 else verb
    together = f", in {groups} group{'' if groups == 1 else 's'}" if groups < images else ""
    return f"{images} image{'' if images == 1 else 's'} that {verb} it{together}"
