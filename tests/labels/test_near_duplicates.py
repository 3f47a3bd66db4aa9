"""Copies of one photo are found, whatever was done to them; images that only look alike are not."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlcls.images.fingerprint import make_fingerprints
from mlcls.labels.alignment import differences
from mlcls.labels.duplicates import find_conflicts, find_contradictions, find_leaks, merge_groups
from mlcls.labels.near_duplicates import candidate_pairs, find_near_duplicates

Pixels = NDArray[np.uint8]


def photo(seed: int, height: int = 240, width: int = 320) -> Pixels:
    """Soft ground, some hard shapes, and grain, as a photo has them."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((5, 7, 1)) * 120 + rng.random((5, 7, 3)) * 40 + 30
    ground = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(10, 60)), int(rng.integers(10, 60)))
        colour = tuple(int(c) for c in rng.integers(20, 215) + rng.integers(-20, 21, 3))
        cv2.ellipse(ground, centre, axes, float(rng.integers(180)), 0, 360, colour, -1, cv2.LINE_AA)
    return np.clip(ground + rng.normal(0, 6, ground.shape), 0, 255).astype(np.uint8)


def jpeg(pixels: Pixels, quality: int = 85) -> Pixels:
    data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)


def resized(pixels: Pixels, share: float) -> Pixels:
    return jpeg(cv2.resize(pixels, None, fx=share, fy=share, interpolation=cv2.INTER_AREA))


def cropped(pixels: Pixels, share: float) -> Pixels:
    height, width = (round(side * share / 2) for side in pixels.shape[:2])
    return jpeg(pixels[height:-height, width:-width])


def grayed(pixels: Pixels) -> Pixels:
    return np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def brightened(pixels: Pixels, factor: float) -> Pixels:
    return jpeg(np.clip(pixels * factor, 0, 255).astype(np.uint8))


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "quality 30": lambda pixels: jpeg(pixels, 30),
    "quality 90": lambda pixels: jpeg(pixels, 90),
    "half the size": lambda pixels: resized(pixels, 0.5),
    "three quarters": lambda pixels: resized(pixels, 0.75),
    "crop of 2%": lambda pixels: cropped(pixels, 0.02),
    "brighter": lambda pixels: brightened(pixels, 1.1),
    "darker": lambda pixels: brightened(pixels, 0.8),
    "gray": grayed,
}


def groups_of(
    images: list[Pixels], duplicates: tuple[tuple[int, ...], ...] = ()
) -> tuple[tuple[int, ...], ...]:
    prints = make_fingerprints(len(images))
    for index, pixels in enumerate(images):
        prints.add(index, pixels)
    return find_near_duplicates(prints.hashes, prints.pictures, prints.sizes, duplicates).groups


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_photos_are_found_and_nothing_else(name: str) -> None:
    photos = [photo(seed) for seed in range(12)]
    groups = groups_of([*photos, *(COPIES[name](pixels) for pixels in photos)])
    expected = {(index, index + 12) for index in range(12)}
    assert set(groups) <= expected
    # a crop resamples every pixel, and in a small image a coarse JPEG block is a pixel of the small picture
    assert len(groups) >= {"crop of 2%": 9, "quality 30": 10}.get(name, 12)


def test_a_brightened_copy_on_a_nearly_white_ground_is_found() -> None:
    """The ground is cut off at white, and what was drawn on it in near white with it."""
    photos = []
    for seed in range(12):
        pixels = photo(seed).astype(np.float64)
        bright = cv2.resize(np.random.default_rng(seed).random((9, 9, 1)) * 30 + 222, (320, 240))
        shape = cv2.ellipse(np.zeros((240, 320)), (160, 120), (70, 90), 0, 0, 360, 1, -1)[..., None]
        photos.append(np.where(shape > 0, pixels * 0.7, bright[..., None]).astype(np.uint8))
    groups = groups_of([*photos, *(brightened(pixels, 1.12) for pixels in photos)])
    assert set(groups) <= {(index, index + 12) for index in range(12)}
    assert len(groups) >= 8


def test_all_copies_of_a_photo_are_one_group_with_its_identical_files() -> None:
    pixels = photo(0)
    images = [photo(1), pixels, photo(2), jpeg(pixels, 40), pixels, resized(pixels, 0.5), photo(2)]
    assert groups_of(images, ((1, 4), (2, 6))) == ((1, 3, 4, 5),)
    assert groups_of([pixels] * 3, ((0, 1, 2),)) == ()  # identical alone is not near-identical
    assert groups_of([]) == ()
    assert groups_of([pixels]) == ()


@pytest.mark.parametrize("level", [80, 120, 240])
def test_frames_in_which_something_moved_are_not_copies(level: int) -> None:
    frames = []
    for step in range(6):
        frame = photo(3).copy()
        cv2.rectangle(frame, (60 + 30 * step, 100), (76 + 30 * step, 132), (level, level, level), -1)
        frames.append(jpeg(frame))
    assert groups_of(frames) == ()


def test_pages_and_dark_frames_and_flat_images_are_not_copies() -> None:
    def page(seed: int) -> Pixels:
        rng = np.random.default_rng(seed)
        paper = np.full((550, 425, 3), 255, dtype=np.uint8)
        for line in range(40, 520, 12):
            for x in range(40, 380, 6):
                if rng.random() < 0.8:
                    cv2.line(
                        paper, (x, line), (x + int(rng.integers(1, 5)), line - int(rng.integers(1, 8))), 0, 1
                    )
        return paper

    def night(seed: int) -> Pixels:
        dark = photo(4) * 0.12
        x = 20 + 45 * seed
        dark[100:160, x : x + 25] += 15
        return jpeg(np.clip(dark, 0, 255).astype(np.uint8))

    assert groups_of([page(seed) for seed in range(20)]) == ()
    assert groups_of([night(seed) for seed in range(6)]) == ()
    plain = [np.full((90, 120, 3), level, dtype=np.uint8) for level in (0, 20, 200, 255)]
    assert groups_of(plain * 3) == ()


def test_another_shape_is_another_image() -> None:
    pixels = photo(5)
    stretched = cv2.resize(pixels, (320, 300), interpolation=cv2.INTER_AREA)
    assert groups_of([pixels, stretched]) == ()


def test_a_chain_of_small_differences_does_not_become_one_group() -> None:
    """A pan: each frame is near the next, the first and the last show different things."""
    wide = photo(6, 240, 700)
    frames = [jpeg(wide[:, shift : shift + 320]) for shift in range(0, 120, 2)]
    groups = groups_of(frames)
    assert groups
    assert max(len(group) for group in groups) < 20
    members = [index for group in groups for index in group]
    assert len(members) == len(set(members))


@given(st.integers(0, 2**32 - 1), st.integers(0, 6))
@settings(deadline=None, max_examples=40)
def test_no_pair_of_hashes_up_to_six_bits_apart_is_missed(seed: int, flips: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    one, other = rng.choice(300, 2, replace=False)
    bits = rng.choice(64, flips, replace=False)
    hashes[other] = hashes[one] ^ np.bitwise_or.reduce(
        np.uint64(1) << bits.astype(np.uint64), initial=np.uint64(0)
    )
    pairs = {tuple(pair) for pair in candidate_pairs(hashes)[0].tolist()}
    assert (min(one, other), max(one, other)) in pairs
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None])
    assert all(low < high and apart[low, high] <= 10 for low, high in pairs)
    close = {(int(i), int(j)) for i, j in np.argwhere(apart <= 6) if i < j}
    assert close <= pairs


def test_thousands_of_like_hashes_stay_bounded() -> None:
    rng = np.random.default_rng(0)
    base = np.uint64(0x0F0F_1234_5678_9ABC)
    noise = np.bitwise_or.reduce(np.uint64(1) << rng.integers(0, 64, (8_000, 3)).astype(np.uint64), axis=1)
    others = rng.integers(0, 2**64, 4_000, dtype=np.uint64)
    hashes = np.concatenate([base ^ noise, others, others ^ np.uint64(0b1001)])
    pairs, crowded = candidate_pairs(hashes)  # 30 million pairs are at most six bits apart
    assert crowded[:8_000].all()
    assert not crowded[8_000:].any()
    # what is not of the crowd is paired as if it were not there
    assert {(row, row + 4_000) for row in range(8_000, 12_000)} <= {tuple(pair) for pair in pairs.tolist()}
    assert len(pairs) <= 128_000


def noisy(pixels: Pixels, count: int) -> list[Pixels]:
    rng = np.random.default_rng(0)
    return [
        np.clip(pixels + rng.integers(-4, 5, pixels.shape), 0, 255).astype(np.uint8) for _ in range(count)
    ]


def test_a_thousand_copies_of_a_photo_are_one_group_and_hide_no_others() -> None:
    small = [photo(seed, 96, 128) for seed in range(5)]
    images = [*noisy(small[0], 1000), *small[1:], *(jpeg(pixels, 90) for pixels in small[1:])]
    groups = groups_of(images)
    assert groups[0] == tuple(range(1000))
    assert groups[1:] == tuple((1000 + row, 1004 + row) for row in range(4))


def test_a_crowd_too_large_to_be_compared_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Different pictures of one hash: each is compared with all that are left, until the budget is spent."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (200, 32, 32)).astype(np.uint8)
    hashes, sizes = np.zeros(200, dtype=np.uint64), np.full((200, 2), 100, dtype=np.int32)
    assert find_near_duplicates(hashes, pictures, sizes).complete
    monkeypatch.setattr("mlcls.labels.near_duplicates.LEAST_BUDGET", 5_000)
    found = find_near_duplicates(hashes, pictures, sizes)
    assert (found.groups, found.complete) == ((), False)


def test_copies_across_a_cut_chain_are_links() -> None:
    wide = photo(6, 240, 700)
    frames = [jpeg(wide[:, shift : shift + 320]) for shift in range(0, 120, 2)]
    prints = make_fingerprints(len(frames))
    for index, pixels in enumerate(frames):
        prints.add(index, pixels)
    found = find_near_duplicates(prints.hashes, prints.pictures, prints.sizes)
    group_of = {row: number for number, group in enumerate(found.groups) for row in group}
    assert found.links
    assert all(group_of.get(one, -1) != group_of.get(other, -2) for one, other in found.links)
    assert all(differences(prints.pictures[[a]], prints.pictures[[b]])[0] < 0.4 for a, b in found.links)


def test_a_difference_is_the_same_both_ways_and_nothing_for_equal_pictures() -> None:
    prints = make_fingerprints(3)
    for index, pixels in enumerate([photo(7), brightened(photo(7), 1.25), photo(8)]):
        prints.add(index, pixels)
    one, other = prints.pictures[[0, 0, 0]], prints.pictures[[0, 1, 2]]
    there, back = differences(one, other), differences(other, one)
    assert np.allclose(there, back)
    assert there[0] < 0.01
    assert there[1] < 0.4  # cut off at white, but the same photo
    assert there[2] > 0.8


def test_contradictions_say_who_says_what() -> None:
    unknown = np.nan
    labels = np.array([[1, 0], [0, unknown], [1, 1], [0, 0]], dtype=np.float32)
    found = find_contradictions(labels, (0, 1, 2))
    assert [(part.attribute, part.present, part.absent) for part in found] == [
        (0, (0, 2), (1,)),
        (1, (2,), (0,)),
    ]
    assert find_conflicts(labels, ((1, 3),)) == ()
    # rows 0 and 1 are identical and contradict each other in attribute 0; row 2 contradicts both in its own way
    assert [part.attribute for part in find_contradictions(labels, (0, 1, 2), ((0, 1),))] == [0, 1]
    labels[2] = unknown
    assert find_contradictions(labels, (0, 1, 2), ((0, 1),)) == ()


def test_leaks_are_groups_in_several_subsets() -> None:
    subsets = [np.array([0, 1, 4]), np.array([2]), np.array([3, 5])]
    assert find_leaks(((0, 1), (1, 2), (3, 5), (4, 5, 6)), subsets) == ((1, 2), (4, 5, 6))


def test_merged_groups_leave_out_those_within_others() -> None:
    assert merge_groups(((1, 3, 4), (7, 8)), ((1, 3), (5, 6), (7, 8))) == ((1, 3, 4), (5, 6), (7, 8))
    assert merge_groups((), ()) == ()
