"""Splits: a partition, groups whole, labels and unknowns spread evenly, repeatable; columns and files honoured."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlcls.errors import OutputError, RecipeError, TableError
from mlcls.labels.split import (
    Split,
    combine_groups,
    parse_fractions,
    read_split,
    split_by_column,
    split_table,
    write_split,
)

Labels = NDArray[np.float32]
FRACTIONS = (0.7, 0.15, 0.15)


def parts(split: Split) -> tuple[NDArray[np.intp], ...]:
    return split.train, split.val, split.test


def make_labels(rows: int, attributes: int, seed: int, unknown: float = 0.2) -> Labels:
    """Correlated attributes from rare to common, a share of them unknown."""
    rng = np.random.default_rng(seed)
    rates = rng.beta(0.7, 2, attributes)
    logits = np.log(rates / (1 - rates)) + rng.normal(size=(rows, 1)) * rng.normal(size=attributes)
    labels = (rng.random((rows, attributes)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    labels[rng.random(labels.shape) < unknown] = np.nan
    return labels


def random_parts(rows: int, seed: int) -> list[NDArray[np.intp]]:
    order = np.random.default_rng(seed).permutation(rows)
    return np.split(order, [round(0.7 * rows), round(0.85 * rows)])


def unevenness(chosen: NDArray[np.bool_], rows: tuple[NDArray[np.intp], ...]) -> float:
    """Root mean square of the counts' distance from each subset's share, in units of random fluctuation."""
    total = chosen.sum(axis=0)
    distances = [
        (chosen[part].sum(axis=0) - share * total) / np.sqrt(np.maximum(share * total, 1))
        for part, share in zip(rows, FRACTIONS, strict=True)
    ]
    return float(np.sqrt(np.mean(np.square(distances))))


@st.composite
def tables(draw: Callable[..., int]) -> tuple[Labels, NDArray[np.int64], int]:
    rows, attributes, seed = draw(st.integers(2, 60)), draw(st.integers(1, 6)), draw(st.integers(0, 10**6))
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 1, np.nan], dtype=np.float32), (rows, attributes), p=[0.5, 0.3, 0.2])
    groups = rng.integers(0, draw(st.integers(2, 60)), rows)
    groups[:2] = [0, 1]
    return labels, groups, seed


@settings(deadline=None, max_examples=60)
@given(tables(), st.sampled_from([FRACTIONS, (0.5, 0.5, 0.0), (0.8, 0.1, 0.1), (0.2, 0.4, 0.4)]))
def test_a_split_is_a_partition_that_keeps_groups_whole_and_repeats(
    table: tuple[Labels, NDArray[np.int64], int], fractions: tuple[float, float, float]
) -> None:
    labels, groups, seed = table
    split = split_table(labels, fractions, groups=groups, seed=seed)
    assert sorted(np.concatenate(parts(split)).tolist()) == list(range(len(labels)))
    assert all((np.diff(part) > 0).all() for part in parts(split))
    assert len(split.train)
    assert len(split.val)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not set(groups[parts(split)[first]]) & set(groups[parts(split)[second]])
    again = split_table(labels.copy(), fractions, groups=groups.copy(), seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts(split), parts(again), strict=True))
    assert split.notes == again.notes


@settings(deadline=None, max_examples=60)
@given(tables(), st.sampled_from([FRACTIONS, (0.5, 0.5, 0.0), (0.8, 0.1, 0.1), (0.2, 0.4, 0.4)]))
def test_an_attribute_stands_in_every_subset_or_a_note_says_so(
    table: tuple[Labels, NDArray[np.int64], int], fractions: tuple[float, float, float]
) -> None:
    labels, groups, seed = table
    split = split_table(labels, fractions, groups=groups, seed=seed)
    used = [part for part, share in zip(parts(split), fractions, strict=True) if share > 0 and len(part)]
    for attribute in range(labels.shape[1]):
        for value, kind in ((1, "showing it"), (0, "known not to show it")):
            everywhere = all((labels[part, attribute] == value).any() for part in used)
            noted = any(f"'attribute {attribute + 1}'" in note and kind in note for note in split.notes)
            assert everywhere != noted


@settings(deadline=None, max_examples=40)
@given(st.integers(3, 200), st.integers(0, 5), st.integers(0, 1000))
def test_without_groups_the_sizes_are_exact_within_rounding(rows: int, attributes: int, seed: int) -> None:
    split = split_table(make_labels(rows, attributes, seed), seed=seed)
    for part, share in zip(parts(split), FRACTIONS, strict=True):
        assert len(part) == 1 or abs(len(part) - share * rows) < (1 if rows > 13 else 2)


def test_rare_attributes_stand_in_every_subset() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros((1000, 60), dtype=np.float32)
    for attribute in range(60):
        labels[rng.choice(1000, 3 + attribute // 6, replace=False), attribute] = 1
    labels[(labels == 0) & (rng.random(labels.shape) < 0.3)] = np.nan
    split = split_table(labels)
    assert split.notes == ()
    assert all((labels[part] == 1).any(axis=0).all() for part in parts(split))
    assert any(not (labels[part] == 1).any(axis=0).all() for part in random_parts(1000, 0))


def test_an_exchange_mends_what_the_first_placing_leaves_out() -> None:
    """Few images, each showing several of the attributes: val of four has to be chosen well to show them all."""
    rng = np.random.default_rng(2)
    labels = (rng.random((24, 12)) < 0.3).astype(np.float32)
    split = split_table(labels, (0.6, 0.2, 0.2))
    assert [len(part) for part in parts(split)] == [14, 5, 5]
    assert split.notes == ()
    assert all((labels[part] == 1).any(axis=0).all() for part in parts(split))


@pytest.mark.parametrize(("rows", "attributes"), [(300, 4), (300, 12), (2000, 40)])
def test_positives_negatives_and_unknowns_are_spread_more_evenly_than_at_random(
    rows: int, attributes: int
) -> None:
    limits = {"positive": 0.45, "negative": 0.45, "unknown": 0.6}
    for name, limit in limits.items():
        ours, chance = [], []
        for seed in range(4):
            labels = make_labels(rows, attributes, seed)
            chosen = {"positive": labels == 1, "negative": labels == 0, "unknown": np.isnan(labels)}[name]
            ours.append(unevenness(chosen, parts(split_table(labels, seed=seed))))
            chance.append(unevenness(chosen, tuple(random_parts(rows, seed))))
        assert np.mean(ours) < limit * np.mean(chance), name


def test_groups_of_uneven_size_keep_the_fractions_and_spread_labels() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(300), rng.integers(1, 12, 300))
    labels = make_labels(len(groups), 10, 1)
    labels[:, 0] = groups % 5 == 0  # an attribute of the group, not of the row
    split = split_table(labels, groups=groups)
    assert [len(part) / len(groups) for part in parts(split)] == pytest.approx(FRACTIONS, abs=0.01)
    rates = [np.nanmean(labels[part], axis=0) for part in parts(split)]
    assert np.abs(np.array(rates) - np.nanmean(labels, axis=0)).max() < 0.04


def test_exchanging_groups_for_rare_attributes_keeps_the_fractions_within_a_tenth() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((600, 300)) < 0.01).astype(np.float32)
    groups = rng.integers(0, 300, 600)
    split = split_table(labels, groups=groups)
    for part, share in zip(parts(split), FRACTIONS, strict=True):
        assert 0.9 * share * 600 <= len(part) <= 1.1 * share * 600 + 1
    assert split.notes


def test_a_few_large_groups_leave_no_subset_empty() -> None:
    split = split_table(np.ones((99, 2), dtype=np.float32), groups=np.repeat([7, 8, 9], 33))
    assert [len(part) for part in parts(split)] == [33, 33, 33]
    sizes = split_table(np.ones((100, 1), dtype=np.float32), groups=np.repeat([0, 1, 2], [90, 5, 5]))
    assert sorted(len(part) for part in parts(sizes)) == [5, 5, 90]
    assert len(sizes.train) == 90


def test_groups_are_counted_some_at_a_time_as_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, rng = make_labels(400, 4, 0), np.random.default_rng(2)
    groups = np.concatenate([rng.integers(0, 60, 250), np.full(150, 60)])  # larger than the slices below
    whole = split_table(labels, FRACTIONS, groups=groups)
    monkeypatch.setattr("mlcls.labels.stratify.SLICE", 30)
    again = split_table(labels, FRACTIONS, groups=groups)
    assert all(map(np.array_equal, parts(again), parts(whole)))
    assert again.notes == whole.notes


def test_another_seed_gives_another_split() -> None:
    labels = make_labels(200, 5, 0)
    assert not np.array_equal(split_table(labels, seed=0).val, split_table(labels, seed=1).val)


def test_rows_that_nothing_is_known_of_are_split_as_well() -> None:
    split = split_table(np.full((40, 2), np.nan, dtype=np.float32))
    assert [len(part) for part in parts(split)] == [28, 6, 6]
    assert "'attribute 1' has no image showing it" in split.notes


def test_few_rows_work_or_are_refused_in_a_sentence() -> None:
    labels = np.array([[1.0], [0.0], [1.0]], dtype=np.float32)
    assert [len(part) for part in parts(split_table(labels))] == [1, 1, 1]
    two = split_table(labels[:2])
    assert [len(part) for part in parts(two)] == [1, 1, 0]
    assert "2 images are too few for three subsets: test is empty" in two.notes
    for rows in (0, 1):
        with pytest.raises(TableError, match="at least two images"):
            split_table(labels[:rows])
    with pytest.raises(TableError, match="belong to one group"):
        split_table(labels, groups=np.array([5, 5, 5]))


def test_notes_name_the_attribute_and_count_its_images() -> None:
    labels = np.zeros((60, 2), dtype=np.float32)
    labels[:2, 0] = 1
    labels[:5, 1] = 1
    groups = np.arange(60)
    groups[:4] = 0
    split = split_table(labels, groups=groups, attributes=["scarf", "hat"])
    assert split.notes == (
        "'scarf' has 2 images showing it, in 1 group: too few for one in each subset",
        "'hat' has 5 images showing it, in 2 groups: too few for one in each subset",
    )
    many = split_table(np.zeros((60, 15), dtype=np.float32))
    assert len(many.notes) == 11
    assert many.notes[-1] == "5 more attributes have no image showing it in some subset"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.7,0.15,0.15", (0.7, 0.15, 0.15)),
        (" 0.8, 0.2, 0 ", (0.8, 0.2, 0.0)),
        ("1e-1,.9,0", (0.1, 0.9, 0.0)),
    ],
)
def test_fractions_are_read(text: str, expected: tuple[float, float, float]) -> None:
    assert parse_fractions(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0.7", "0.7,0.3", "a,b,c", "0.7,0.2,0.2", "1,0,0", "0,0.5,0.5", "1.5,-0.5,0", "nan,0.5,0.5", "inf,0,0"]
)  # fmt: skip
def test_fractions_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--split"):
        parse_fractions(text)


def test_a_column_states_the_split_in_many_spellings() -> None:
    values = ["train", "Valid", "TEST", "training", " val ", "dev", "validation", "testing"]
    split = split_by_column(values, column="part")
    assert [part.tolist() for part in parts(split)] == [[0, 3], [1, 4, 5, 6], [2, 7]]


def test_a_column_that_states_something_else_is_refused() -> None:
    with pytest.raises(TableError, match=r"'part'.*'holdout', ''.*data row 2"):
        split_by_column(["train", "holdout", "", "val"], column="part")
    with pytest.raises(TableError, match=r"names no row val; name some rows val"):
        split_by_column(["train", "test"], column="part")
    with pytest.raises(TableError, match="names no row train"):
        split_by_column(["val", "test"], column="part")


def test_a_written_split_is_read_back(tmp_path: Path) -> None:
    images = ["b,1.jpg", 'quo"te.png', "ü/ö.png", "plain.png", "last one.png"]
    split = split_table(np.ones((5, 1), dtype=np.float32), seed=3)
    write_split(tmp_path / "split.csv", images, split)
    lines = (tmp_path / "split.csv").read_bytes().decode().split("\n")
    assert lines[0] == "image,subset"
    assert len(lines) == 7
    back = read_split(tmp_path / "split.csv", images)
    assert all(np.array_equal(a, b) for a, b in zip(parts(split), parts(back), strict=True))
    assert back.notes == ()


def test_images_that_are_gone_are_noted_and_new_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.csv"
    path.write_text("﻿image,subset\r\na.png,train\r\n\r\nb.png,valid\r\nc.png,test\r\n", encoding="utf-8")
    split = read_split(path, ["b.png", "a.png"])
    assert [part.tolist() for part in parts(split)] == [[1], [0], []]
    assert split.notes == (f"1 of the images in {path} are not in the table any more: 'c.png'",)
    with pytest.raises(TableError, match=r"nothing of 2 of the table's 4 images \('x.png', 'y.png'\)"):
        read_split(path, ["a.png", "x.png", "b.png", "y.png"])
    with pytest.raises(TableError, match="none of the table's images into val"):
        read_split(path, ["a.png"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no image"),
        (b"image,subset\n", "names no image"),
        (b"name,part\na,train\n", "line 1: expected the header"),
        (b"image,subset\na,train\nb,holdout\n", "line 3: expected an image and train, val or test"),
        (b"image,subset\na\n", "line 2"),
        (b"image,subset\na,train\na,test\n", "line 3: 'a' stands in two subsets"),
        (b"image,subset\n\xff\xfe,train\n", "UTF-8"),
    ],
)
def test_a_file_that_is_no_split_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "split.csv"
    path.write_bytes(content)
    with pytest.raises(TableError, match=message):
        read_split(path, ["a"])


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"gone\.csv: cannot be read: No such file"):
        read_split(tmp_path / "gone.csv", ["a"])
    split = split_table(np.ones((3, 1), dtype=np.float32))
    with pytest.raises(OutputError, match="cannot write"):
        write_split(tmp_path / "no" / "split.csv", ["a", "b", "c"], split)


def test_groups_are_joined_across_groupings() -> None:
    ids = combine_groups(7, ["p", "q", "p", "", None, float("nan"), "q"], [(1, 3)], (), [(4, 0), (5,)])
    assert ids.dtype == np.int64
    together = [[0, 2, 4], [1, 3, 6], [5]]
    assert all(len(set(ids[rows])) == 1 for rows in together)
    assert len(set(ids)) == 3
    assert combine_groups(3).tolist() == [0, 1, 2]
    assert combine_groups(0, []).tolist() == []
    with pytest.raises(ValueError, match="2 values for 3 rows"):
        combine_groups(3, ["a", "b"])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=4).map(tuple), max_size=12))
def test_joined_groups_are_the_connected_ones(pairs: list[tuple[int, ...]]) -> None:
    ids = combine_groups(20, pairs)
    reference = list(range(20))
    for _ in range(20):
        for first, second in (pair for group in pairs for pair in pairwise(group)):
            low = min(reference[first], reference[second])
            reference[first] = reference[second] = low
    assert [[a == b for b in ids] for a in ids] == [[a == b for b in reference] for a in reference]


def test_a_column_without_val_rows_may_leave_val_to_the_caller():
    split = split_by_column(["train", "test", "train"], column="part", allow_no_val=True)
    assert [part.tolist() for part in parts(split)] == [[0, 2], [], [1]]
    with pytest.raises(TableError, match="names no row train"):
        split_by_column(["val", "test"], column="part", allow_no_val=True)
    with pytest.raises(TableError, match="names no row val; name some rows val, or let fractions") as error:
        split_by_column(["train", "test"], column="part")
    assert "--val-labels" not in str(error.value)  # refused together with --split column:


def test_a_column_of_numbers_is_told_what_is_expected():
    with pytest.raises(TableError, match=r"'0', '1', '2' .*numbers are not understood.*write train"):
        split_by_column([0, 1, 2], column="part")
    with pytest.raises(TableError, match=r"'holdout' .*; mend these cells"):
        split_by_column(["train", "val", "holdout"], column="part")
