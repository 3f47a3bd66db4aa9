"""Owns near-identical images: copies of one photo that were encoded anew, resized, brightened or slightly cropped.

Candidates are pairs whose perceptual hashes are close, found without comparing all pairs; each is verified on
small gray pictures (see `mlcls.labels.alignment`), so that frames of one film, products photographed alike and
filled forms are not taken for copies. A group is a star: each of its images is a copy of its centre, so that no
chain of small differences (a burst of frames) joins images that are not alike. An image belongs to one group
alone: where there is such a chain, it is cut somewhere, and two links beside the cut are in different groups.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mlcls.labels.alignment import CONTRAST, contrast, correlation, differences

DISTANCE = 10  # of 64 bits: re-encoding flips 0 to 4, a crop by 2% up to 10
# of `differences`: copies stay below, the most alike of different images that were met begin at 0.5 (benchmarks/)
LIMIT = 0.4
CORRELATION = 0.85  # of two small pictures: copies that are found at all stay above 0.87
ASPECT = 0.06  # two images are compared when their width/height differs by no more than this
BANDS = 8  # of 8 bits; a pair is a candidate when two bands are equal, so all pairs up to 6 bits apart are
# compared at most with each image in one ordering: bounds the work where thousands look alike
NEIGHBOURS = 256
CANDIDATES = 8  # pairs kept at most for each image, on average, the closest first
LEAST_BUDGET = 100_000  # pairs that are kept at most whatever the number of images
CHUNK = 256  # pairs verified at a time: what fits the processor's cache


def find_near_duplicates(
    hashes: NDArray[np.uint64],
    pictures: NDArray[np.uint8],
    sizes: NDArray[np.int32],
    duplicates: Sequence[Sequence[int]] = (),
) -> tuple[tuple[int, ...], ...]:
    """Groups of images that are one photo, among them two or more that are not byte-identical.

    Args:
        hashes: uint64 [N], a perceptual hash: of copies of one photo few bits differ.
        pictures: uint8 [N, S, S], the images in gray, shrunk. One with hardly any contrast is in no group.
        sizes: int [N, 2], width and height of the images in pixels.
        duplicates: groups of byte-identical images; the first speaks for the others, which join its group.

    Returns:
        Indices, ascending within each group; groups by their first index.

    All pairs of hashes up to 6 bits apart are found, and most of those up to 10, in O(N log N) steps and memory
    of a few dozen bytes an image; where thousands of images look alike, the closest pairs alone.
    """
    same = {group[0]: tuple(group) for group in duplicates}
    left_out = [row for group in duplicates for row in group[1:]]
    judged = contrast(pictures) >= CONTRAST
    judged[left_out] = False
    rows = np.flatnonzero(judged)
    pairs = rows[candidate_pairs(hashes[rows])]
    aspect = np.log(sizes[:, 0] / np.maximum(sizes[:, 1], 1), where=sizes[:, 0] > 0, out=np.zeros(len(sizes)))
    pairs = pairs[np.abs(aspect[pairs[:, 0]] - aspect[pairs[:, 1]]) <= ASPECT]
    stars = _stars(pairs[_verified(pictures, pairs)])
    whole = [tuple(sorted(row for index in star for row in same.get(index, (index,)))) for star in stars]
    return tuple(sorted(whole))


def _verified(pictures: NDArray[np.uint8], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[P] whether one picture is a copy of the other; most others fall out by their plain correlation already."""
    near = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), CHUNK):
        one, other = pairs[start : start + CHUNK].T
        near[start : start + CHUNK] = correlation(pictures[one], pictures[other]) >= CORRELATION
    left = np.flatnonzero(near)
    for start in range(0, len(left), CHUNK):
        part = left[start : start + CHUNK]
        one, other = pairs[part].T
        near[part] = differences(pictures[one], pictures[other]) < LIMIT
    return near


def candidate_pairs(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs of images whose hashes differ in at most `DISTANCE` bits: int64 [P, 2], each once, lower index first.

    Hashes that are at most 6 bits apart agree in two of eight bands (pigeonhole), and of those further apart most
    do. So for each two bands the hashes are sorted with these in front; equal ones are neighbours then.
    """
    rows, limit = len(hashes), DISTANCE
    budget = max(LEAST_BUDGET, CANDIDATES * rows)
    found, distances = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    width = np.uint64(64 // BANDS)
    for bands in combinations(range(BANDS), 2):
        codes, apart = _neighbours(_front(hashes, bands, width), hashes, 2 * width, limit)
        found, first = np.unique(np.concatenate([found, codes]), return_index=True)
        distances = np.concatenate([distances, apart])[first]
        while len(found) > budget and limit > 0:
            limit -= 2
            close = distances <= limit
            found, distances = found[close], distances[close]
        found, distances = found[:budget], distances[:budget]
    return np.stack([found // max(rows, 1), found % max(rows, 1)], axis=1)


def _front(hashes: NDArray[np.uint64], bands: tuple[int, int], width: np.uint64) -> NDArray[np.uint64]:
    """[N] keys: the two bands in front, and behind them the bits that are left of the hash turned by the second.

    What stands behind only orders hashes whose two bands are equal, so that the most alike are neighbours.
    """
    mask = (np.uint64(1) << width) - np.uint64(1)
    first, second = (hashes >> (np.uint64(band) * width) & mask for band in bands)
    shift = np.uint64(bands[1]) * width
    turned = hashes if not shift else (hashes << (np.uint64(64) - shift)) | (hashes >> shift)
    top = (first << width | second) << (np.uint64(64) - 2 * width)
    return np.asarray(top | turned >> (2 * width))


def _neighbours(
    keys: NDArray[np.uint64], hashes: NDArray[np.uint64], front: np.uint64, limit: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of equal front bits and hashes at most `limit` bits apart, as codes low * N + high; and how far apart."""
    order = np.argsort(keys, kind="stable")
    ordered, heads = hashes[order], keys[order] >> (np.uint64(64) - front)
    codes: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    apart: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    here = np.arange(len(keys))
    for step in range(1, NEIGHBOURS + 1):
        here = here[: np.searchsorted(here, len(keys) - step)]
        here = here[heads[here] == heads[here + step]]
        if not len(here):
            break
        distance = np.bitwise_count(ordered[here] ^ ordered[here + step])
        close = distance <= limit
        one, other = order[here[close]], order[here[close] + step]
        codes.append(np.minimum(one, other) * len(keys) + np.maximum(one, other))
        apart.append(distance[close].astype(np.int64))
    return np.concatenate(codes), np.concatenate(apart)


def _stars(pairs: NDArray[np.int64]) -> list[list[int]]:
    """Groups of which each member is paired with the centre: the image with the most partners left, again and again.

    The centre is chosen by the number of partners at the beginning, then by row: the same pairs give the same groups.
    """
    partners: dict[int, list[int]] = {}
    for one, other in pairs.tolist():
        partners.setdefault(one, []).append(other)
        partners.setdefault(other, []).append(one)
    free = set(partners)
    stars = []
    for centre in sorted(partners, key=lambda row: (-len(partners[row]), row)):
        members = [row for row in partners[centre] if row in free]
        if centre in free and members:
            stars.append([centre, *members])
            free.difference_update(stars[-1])
    return stars
