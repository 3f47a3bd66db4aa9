"""Owns near-identical images: copies of one photo that were encoded anew, resized, brightened or slightly cropped.

Candidates are pairs whose perceptual hashes are close, found without comparing all pairs; each is verified on
small gray pictures (see `mlcls.labels.alignment`), so that frames of one film, products photographed alike and
filled forms are not taken for copies. A group is a star: each of its images is a copy of its centre, so that no
chain of small differences (a burst of frames) joins images that are not alike. An image belongs to one group
alone: where there is such a chain, it is cut somewhere, and the pairs across the cuts are told as links.

Where hundreds of images look alike, their pairs are too many to be verified all. Such a crowd is gathered round
one centre after the other instead, each compared with what is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
# compared at most with each image in one ordering; one that has as many near it is of a crowd
NEIGHBOURS = 256
CANDIDATES = 8  # pairs verified at most for each image, on average; beyond it the most crowded are gathered
LEAST_BUDGET = 100_000  # pairs that may be verified whatever the number of images
HASHES = 1_000_000_000  # comparisons of hashes while a crowd is gathered
CHUNK = 256  # pairs verified at a time: what fits the processor's cache


Pairs = NDArray[np.int64]
Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """What is one photo; indices, ascending within each group, groups by their first index.

    Attributes:
        groups: two or more images that are not byte-identical, and what is byte-identical to one of them.
        links: pairs of copies (each with what is byte-identical to it) that are not in one group: where chains
            were cut. They belong together in a split, and may leak and contradict each other as groups do.
        complete: False where so many images look alike that not all of them were compared.
    """

    groups: Groups
    links: Groups
    complete: bool


def find_near_duplicates(
    hashes: NDArray[np.uint64],
    pictures: NDArray[np.uint8],
    sizes: NDArray[np.int32],
    duplicates: Sequence[Sequence[int]] = (),
) -> NearDuplicates:
    """Groups of images that are one photo, among them two or more that are not byte-identical.

    Args:
        hashes: uint64 [N], a perceptual hash: of copies of one photo few bits differ.
        pictures: uint8 [N, S, S], the images in gray, shrunk. One with hardly any contrast is in no group.
        sizes: int [N, 2], width and height of the images in pixels.
        duplicates: groups of byte-identical images; the first speaks for the others, which join its group.

    All pairs of hashes up to 6 bits apart are found, and most of those up to 10, in O(N log N) steps and memory
    of a few dozen bytes an image; where hundreds look alike, each with the centres of their groups alone.
    """
    same = {group[0]: tuple(group) for group in duplicates}
    left_out = [row for group in duplicates for row in group[1:]]
    judged = contrast(pictures) >= CONTRAST
    judged[left_out] = False
    rows = np.flatnonzero(judged)
    aspect = np.log(sizes[:, 0] / np.maximum(sizes[:, 1], 1), where=sizes[:, 0] > 0, out=np.zeros(len(sizes)))
    local, crowded = candidate_pairs(hashes[rows])
    pairs = rows[local]
    pairs = pairs[np.abs(aspect[pairs[:, 0]] - aspect[pairs[:, 1]]) <= ASPECT]
    pairs = pairs[_verified(pictures, pairs)]
    stars, beside, complete = _gather_crowd(rows, np.flatnonzero(crowded), hashes[rows], pictures, aspect)
    taken = np.zeros(len(hashes), dtype=bool)
    taken[[row for star in stars for row in star]] = True
    stars += _stars(pairs[~taken[pairs].any(axis=1)])
    star_of = np.arange(len(hashes))
    for star in stars:
        star_of[star] = star[0]
    every = np.concatenate([pairs, beside])
    links = np.unique(np.sort(every[star_of[every[:, 0]] != star_of[every[:, 1]]], axis=1), axis=0)

    def whole(members: Sequence[int]) -> tuple[int, ...]:
        return tuple(sorted(row for index in members for row in same.get(index, (index,))))

    return NearDuplicates(
        tuple(sorted(whole(star) for star in stars)), tuple(whole(link) for link in links.tolist()), complete
    )


def _gather_crowd(
    rows: NDArray[np.intp],
    crowded: NDArray[np.intp],
    hashes: NDArray[np.uint64],
    pictures: NDArray[np.uint8],
    aspect: NDArray[np.float64],
) -> tuple[list[list[int]], Pairs, bool]:
    """Stars of crowded images: the first that is left takes all of its copies that are left, again and again.

    Args:
        rows: [M] the images that are judged, crowded or not: all may be taken.
        crowded: places in `rows`.
        hashes: [M] of the rows.
        pictures, aspect: [N] of all images.

    Returns:
        The stars, centre first; further pairs of copies, of a centre and an image in another star (the nearest
        are tried); and whether it came to the end within the budget.
    """
    stars: list[list[int]] = []
    beside = [np.zeros((0, 2), dtype=np.int64)]
    free = np.ones(len(rows), dtype=bool)
    verified = compared = 0
    for place in crowded:
        if not free[place]:
            continue
        if verified > _budget(len(rows)) or compared > HASHES:
            return stars, np.concatenate(beside), False
        distance = np.bitwise_count(hashes ^ hashes[place])
        near = (distance <= DISTANCE) & (np.abs(aspect[rows] - aspect[rows[place]]) <= ASPECT)
        near[place] = False
        others = np.flatnonzero(near & ~free)
        others = others[np.argsort(distance[others], kind="stable")[:CHUNK]]
        tried = np.concatenate([np.flatnonzero(near & free), others])
        pairs = np.stack([np.full(len(tried), rows[place]), rows[tried]], axis=1)
        copies = _verified(pictures, pairs)
        members = tried[copies & free[tried]]
        beside.append(pairs[copies & ~free[tried]])
        if len(members):
            stars.append([int(rows[place]), *rows[members].tolist()])
        free[members] = free[place] = False
        verified, compared = verified + len(tried), compared + len(rows)
    return stars, np.concatenate(beside), True


def _budget(rows: int) -> int:
    return max(LEAST_BUDGET, CANDIDATES * rows)


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


def candidate_pairs(hashes: NDArray[np.uint64]) -> tuple[Pairs, NDArray[np.bool_]]:
    """Pairs of images whose hashes differ in at most `DISTANCE` bits, and the images that have too many of them.

    Returns:
        int64 [P, 2], each pair once, lower index first, none of them with a crowded image; bool [N], crowded.

    Hashes that are at most 6 bits apart agree in two of eight bands (pigeonhole), and of those further apart most
    do. So for each two bands the hashes are sorted with these in front; equal ones are neighbours then. When there
    are more pairs than can be verified, the images with more than twice their share of these are set aside: what
    is left fits.
    """
    rows, budget = len(hashes), _budget(len(hashes))
    crowded = np.zeros(rows, dtype=bool)
    found = np.zeros(0, dtype=np.int64)
    width = np.uint64(64 // BANDS)
    for bands in combinations(range(BANDS), 2):
        left = np.flatnonzero(~crowded)
        codes, crowd = _neighbours(left, _front(hashes, bands, width), hashes, 2 * width)
        crowded[crowd] = True
        found = np.unique(np.concatenate([found, codes]))
        ends = np.stack([found // max(rows, 1), found % max(rows, 1)], axis=1)
        if len(found) > budget:
            crowded |= np.bincount(ends.ravel(), minlength=rows) > 2 * budget / rows
        found = found[~crowded[ends].any(axis=1)]
    return np.stack([found // max(rows, 1), found % max(rows, 1)], axis=1), crowded


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
    rows: NDArray[np.intp], keys: NDArray[np.uint64], hashes: NDArray[np.uint64], front: np.uint64
) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Pairs of equal front bits and near hashes among these rows, as codes low * N + high; and the crowded rows.

    Crowded are those whose last neighbour that is looked at is near still.
    """
    order = rows[np.argsort(keys[rows], kind="stable")]
    ordered, heads = hashes[order], keys[order] >> (np.uint64(64) - front)
    codes: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    here = np.arange(len(order))
    for step in range(1, NEIGHBOURS + 1):
        here = here[: np.searchsorted(here, len(order) - step)]
        here = here[heads[here] == heads[here + step]]
        if not len(here):
            return np.concatenate(codes), np.zeros(0, dtype=np.intp)
        close = here[np.bitwise_count(ordered[here] ^ ordered[here + step]) <= DISTANCE]
        one, other = order[close], order[close + step]
        codes.append(np.minimum(one, other) * len(keys) + np.maximum(one, other))
    return np.concatenate(codes), np.concatenate([one, other])


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
