"""Owns the sentences on the health of labels: constants, copies, complements, and unknowns that are not random."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlcls.labels.missingness import ByLabel, BySize, find_dependence
from mlcls.labels.pair_counts import PairCounts, chance_of_agreement, count_pairs, pick_independent

MOST = 10  # sentences
LEAST_RARER = 5  # images of each attribute's rarer value, for two attributes to be compared
DISAGREE = 0.01  # of the images that both are known for: with no more, one is as good as a copy of the other
DISAGREE_RARER = (
    0.1  # of the rarer value's images: two rare attributes agree nearly everywhere by being absent
)
CHANCE = 0.05  # that any two of a table's attributes agree as much while having nothing to do with each other


def describe_health(
    labels: NDArray[np.float32],
    attributes: Sequence[str],
    sizes: NDArray[np.int32] | None = None,
    groups: NDArray[np.int64] | None = None,
    most: int = MOST,
) -> tuple[str, ...]:
    """What there is to know of a label matrix before anything is learned from it, a plain sentence each.

    First attributes with one value only, then copies and complements of others, then labels whose being unknown
    depends on another label or on the image's size, the clearest first.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        attributes: [A] names.
        sizes: int [N, 2], width and height of the images in pixels; None where they are not known.
        groups: int [N], rows of equal value belong together (one person, one photo): what is said counts all of
            them, but is only said if one row of each is evidence enough; None: every row stands for itself.
        most: how many sentences at most; of more, a last one counts the rest.

    On independent labels with unknowns that are random at most one table in twenty gets a sentence about copies
    (Fisher's test, corrected for the number of pairs that are compared), and at most one in twenty a sentence
    about unknowns (see `mlcls.labels.missingness`).
    """
    counts = count_pairs(labels)
    independent = pick_independent(labels, counts, groups)
    by_label, by_size = find_dependence(labels, counts, sizes, independent)
    sentences = [
        *_constants(counts, attributes, len(labels)),
        *_copies(counts, independent.counts, attributes),
        *_unknowns(by_label, by_size, attributes),
    ]
    if len(sentences) <= most:
        return tuple(sentences)
    rest = len(sentences) - most
    return (*sentences[:most], f"and {rest} more observation{'s' * (rest > 1)} of these kinds")


def _constants(counts: PairCounts, attributes: Sequence[str], rows: int) -> list[str]:
    """Attributes that are known with one value only, or for no image, a sentence for each kind."""
    present, absent = np.diag(counts.present_present), np.diag(counts.absent_absent)
    kinds = {
        "known for no image": (present == 0) & (absent == 0),
        "present wherever known": (present > 0) & (absent == 0),
        "absent wherever known": (present == 0) & (absent > 0),
    }
    return [
        f"{_some([attributes[i] for i in np.flatnonzero(which).tolist()])}: {kind}, so there is nothing to learn"
        for kind, which in kinds.items()
        if rows and which.any()
    ]


def _copies(counts: PairCounts, independent: PairCounts, attributes: Sequence[str]) -> list[str]:
    """Attributes that say the same as an earlier one, or the opposite; each is told once."""
    same = counts.present_present + counts.absent_absent
    opposite = counts.present_absent + counts.absent_present
    both = same + opposite
    rarer = np.minimum(
        np.minimum(
            counts.present_present + counts.present_absent, counts.absent_present + counts.absent_absent
        ),
        np.minimum(
            counts.present_present + counts.absent_present, counts.present_absent + counts.absent_absent
        ),
    )
    allowed = np.minimum(DISAGREE * both, DISAGREE_RARER * rarer)
    compared = np.triu(rarer >= LEAST_RARER, 1)
    first, second = np.nonzero(compared & (np.minimum(same, opposite) <= allowed))
    agrees = (same >= opposite)[first, second]
    # of each pair both is asked, whether it says the same and whether it says the opposite
    chance = chance_of_agreement(independent, first, second, agrees) * 2 * np.count_nonzero(compared)
    sure = chance <= CHANCE
    told: set[int] = set()
    sentences = []
    for i, j, agree in zip(first[sure].tolist(), second[sure].tolist(), agrees[sure].tolist(), strict=True):
        if i in told or j in told:
            continue
        told.add(j)
        how = "says the same as" if agree else "says the opposite of"
        number, total = int(max(same[i, j], opposite[i, j])), int(both[i, j])
        share = f"all {total:,}" if number == total else f"{number:,} of {total:,}"
        sentences.append(f"{attributes[j]} {how} {attributes[i]} in {share} images where both are known")
    return sentences


def _unknowns(by_label: Sequence[ByLabel], by_size: Sequence[BySize], attributes: Sequence[str]) -> list[str]:
    """A sentence for each attribute and kind of dependence, the largest difference first."""
    weighted: list[tuple[float, str]] = []
    found: dict[int, list[ByLabel]] = {}
    for entry in by_label:
        found.setdefault(entry.attribute, []).append(entry)
    for index, (first, *others) in found.items():
        more = f" (and depends on {len(others)} more attribute{'s' * (len(others) > 1)})" if others else ""
        sentence = (
            f"{attributes[index]}: unknown for {_percent(first.where_present)} of the images that show "
            f"{attributes[first.other]} and {_percent(first.where_absent)} of those that don't{more}: "
            "hardly missing at random"
        )
        weighted.append((abs(first.where_present - first.where_absent), sentence))
    weighted += [(abs(entry.shift), _size_sentence(entry, attributes[entry.attribute])) for entry in by_size]
    return [sentence for _, sentence in sorted(weighted, key=lambda item: -item[0])]


def _size_sentence(entry: BySize, name: str) -> str:
    if entry.measure == "pixels":
        kind = "larger" if entry.shift > 0 else "smaller"
        unit, scale = (
            ("megapixels", 1e6) if max(entry.where_unknown, entry.where_known) >= 1e6 else ("pixels", 1)
        )
        shown = [
            f"{value / scale:,.{2 * (scale > 1)}f}" for value in (entry.where_unknown, entry.where_known)
        ]
        medians = f"{shown[0]} {unit} where unknown, {shown[1]} where known"
    else:
        kind = "wider" if entry.shift > 0 else "narrower"
        medians = f"width/height {entry.where_unknown:.2f} where unknown, {entry.where_known:.2f} where known"
    return f"{name}: unknown rather in {kind} images (median {medians}): hardly missing at random"


def _percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 0.0995 else f"{share:.0%}"


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
