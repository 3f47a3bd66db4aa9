"""What labels give away by themselves is said with its numbers, and noise is not taken for a finding."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import fisher_exact, hypergeom, mannwhitneyu

from mlcls.labels.health import describe_health
from mlcls.labels.missingness import find_dependence, fisher
from mlcls.labels.pair_counts import chance_of_agreement, count_pairs

Labels = NDArray[np.float32]


def random_labels(
    rng: np.random.Generator, rows: int, attributes: int, unknown: float = 0.1, present: float = 0.4
) -> Labels:
    labels = (rng.random((rows, attributes)) < present).astype(np.float32)
    labels[rng.random(labels.shape) < unknown] = np.nan
    return labels


def test_pairs_are_counted_as_one_by_one() -> None:
    labels = random_labels(np.random.default_rng(0), 70_000, 3, 0.3)  # more rows than a block
    counts = count_pairs(labels)
    kinds = {"present": labels == 1, "absent": labels == 0, "unknown": np.isnan(labels)}
    for first in ("present", "absent", "unknown"):
        for second in ("present", "absent"):
            table = getattr(counts, f"{first}_{second}")
            for i in range(3):
                for j in range(3):
                    assert table[i, j] == (kinds[first][:, i] & kinds[second][:, j]).sum()


def test_fishers_exact_test_is_scipys() -> None:
    rng = np.random.default_rng(0)
    for most in (3, 40, 3000):
        for table in rng.integers(0, most, (60, 4)).tolist():
            expected = fisher_exact(np.reshape(table, (2, 2))).pvalue
            assert fisher(*table) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_constants_copies_and_complements_are_named() -> None:
    rng = np.random.default_rng(1)
    labels = random_labels(rng, 600, 8)
    known = ~np.isnan(labels)
    known[0] = True
    labels[:, 1] = np.where(known[:, 1], labels[:, 0], np.nan)
    labels[:, 2] = 1 - labels[:, 0]
    labels[0, :3] = 1  # one image in which the complement is none
    labels[:, 3] = np.where(known[:, 3], 0, np.nan)
    labels[:, 4] = np.where(known[:, 4], 1, np.nan)
    labels[:, 5] = np.nan
    said = describe_health(labels, list("abcdefgh"))
    both = int((~np.isnan(labels[:, [0, 1]])).all(axis=1).sum())
    opposite = int((~np.isnan(labels[:, [0, 2]])).all(axis=1).sum())
    assert said == (
        "f: known for no image, so there is nothing to learn",
        "e: present wherever known, so there is nothing to learn",
        "d: absent wherever known, so there is nothing to learn",
        f"b says the same as a in all {both} images where both are known",
        f"c says the opposite of a in {opposite - 1} of {opposite} images where both are known",
    )


def test_rare_attributes_are_no_copies_for_being_absent_together() -> None:
    rng = np.random.default_rng(2)
    labels = random_labels(rng, 5000, 6, unknown=0.0, present=0.004)
    assert describe_health(labels, list("abcdef")) == ()
    labels[:, 1] = labels[:, 0]
    assert len(describe_health(labels, list("abcdef"))) == 1
    few = np.zeros((300, 2), dtype=np.float32)
    few[:4] = 1  # four images are too few to call it a copy
    assert describe_health(few, list("ab")) == ()


def test_sparsely_known_attributes_are_no_copies_by_chance() -> None:
    rng = np.random.default_rng(11)
    names = [f"a{i}" for i in range(100)]
    told = 0
    for _ in range(20):
        labels = random_labels(rng, 2000, 100, unknown=0.925, present=0.5)
        told += any(" says the " in sentence for sentence in describe_health(labels, names, most=1000))
    assert told <= 3  # one is expected at most; half of the tables have pairs that agree wherever known
    known = rng.random(2000) < 0.5
    labels[:, 8] = np.where(known, rng.random(2000) < 0.3, np.nan)
    labels[:, 9] = labels[:, 8]
    labels[:, 10] = 1 - labels[:, 8]
    assert [s.split(" in all")[0] for s in describe_health(labels, names) if " says the " in s] == [
        "a9 says the same as a8",
        "a10 says the opposite of a8",
    ]


def test_the_chance_of_agreement_is_the_hypergeometric_tail_or_a_little_more() -> None:
    rng = np.random.default_rng(12)
    truth = rng.random(60) < 0.4
    flips = np.arange(60) < np.arange(6)[:, None]  # column k is wrong in k images
    labels = np.where(rng.permuted(flips, axis=1), ~truth, truth).T.astype(np.float32)
    counts = count_pairs(labels)
    for second in range(1, 6):
        both, total = counts.present_present[0, second], 60
        margins = (labels[:, 0].sum(), labels[:, second].sum())
        tail = hypergeom.sf(both - 1, total, *margins)
        pair = (np.array([0]), np.array([second]))
        (bound,) = chance_of_agreement(counts, *pair, np.array([True]))
        assert tail <= bound * (1 + 1e-9)
        assert bound <= 6 * tail
        turned = count_pairs(np.stack([labels[:, 0], 1 - labels[:, second]], axis=1))
        (opposite,) = chance_of_agreement(turned, np.array([0]), np.array([1]), np.array([False]))
        assert opposite == pytest.approx(bound)
        assert chance_of_agreement(counts, *pair, np.array([False])) == 1


def test_unknowns_that_go_with_another_attribute_are_told_with_both_shares() -> None:
    rng = np.random.default_rng(8)
    labels = random_labels(rng, 2000, 4, unknown=0.0)
    beard = labels[:, 2] == 1
    labels[rng.random(2000) < np.where(beard, 0.41, 0.12), 1] = np.nan
    shares = [np.isnan(labels[part, 1]).mean() for part in (beard, ~beard)]
    assert describe_health(labels, ["hat", "age", "beard", "coat"]) == (
        f"age: unknown for {shares[0]:.0%} of the images that show beard and {shares[1]:.0%} of those that don't: "
        "hardly missing at random",
    )


def test_unknowns_that_go_with_image_size_are_told_with_medians() -> None:
    rng = np.random.default_rng(4)
    labels = random_labels(rng, 800, 3)
    sizes = np.stack([rng.integers(200, 2000, 800), rng.integers(200, 2000, 800)], axis=1).astype(np.int32)
    labels[(sizes.prod(axis=1) < 500_000) & (rng.random(800) < 0.8), 0] = np.nan
    labels[(sizes[:, 0] > 2 * sizes[:, 1]) & (rng.random(800) < 0.8), 2] = np.nan
    said = describe_health(labels, ["hat", "age", "coat"], sizes)
    assert {sentence.split(" images")[0] for sentence in said} >= {
        "hat: unknown rather in smaller",
        "coat: unknown rather in wider",
    }
    assert not any(sentence.startswith("age") for sentence in said)
    unknown = np.isnan(labels[:, 0])
    medians = [np.median(sizes.prod(axis=1)[part]) / 1e6 for part in (unknown, ~unknown)]
    hat = next(sentence for sentence in said if sentence.startswith("hat"))
    assert f"(median {medians[0]:.2f} megapixels where unknown, {medians[1]:.2f} where known)" in hat


def test_the_shift_in_size_is_mann_whitneys() -> None:
    rng = np.random.default_rng(5)
    labels = random_labels(rng, 300, 2, unknown=0.3)
    sizes = np.stack([rng.integers(1, 6, 300) * 100, np.full(300, 100)], axis=1).astype(np.int32)
    labels[(sizes[:, 0] > 300) & (rng.random(300) < 0.7), 0] = np.nan
    _, (pixels, shape) = find_dependence(labels, count_pairs(labels), sizes)
    unknown = np.isnan(labels[:, 0])
    reference = mannwhitneyu(sizes[unknown, 0], sizes[~unknown, 0])
    assert (pixels.attribute, pixels.measure, shape.measure) == (0, "pixels", "shape")
    assert pixels.shift == pytest.approx(reference.statistic / (unknown.sum() * (~unknown).sum()) - 0.5)


def test_a_large_table_is_not_told_trifles() -> None:
    rng = np.random.default_rng(6)
    labels = random_labels(rng, 200_000, 3, unknown=0.0)
    labels[rng.random(200_000) < np.where(labels[:, 1] == 1, 0.11, 0.1), 0] = np.nan  # sure, and of no weight
    sizes = np.full((200_000, 2), 224, dtype=np.int32)
    sizes[np.isnan(labels[:, 0]), 0] += rng.integers(0, 2, int(np.isnan(labels[:, 0]).sum())).astype(np.int32)
    sizes[:, 0] += rng.integers(0, 100, 200_000).astype(np.int32)
    assert describe_health(labels, list("abc"), sizes) == ()


@pytest.mark.parametrize(("rows", "attributes", "unknown"), [(150, 4, 0.15), (400, 15, 0.1), (1000, 6, 0.03)])
def test_independent_labels_with_random_unknowns_rarely_raise_an_alarm(
    rows: int, attributes: int, unknown: float
) -> None:
    rng = np.random.default_rng(rows)
    tables, alarms = 150, 0
    for _ in range(tables):
        labels = random_labels(rng, rows, attributes, unknown, float(rng.beta(1, 2)))
        sizes = rng.integers(100, 900, (rows, 2)).astype(np.int32)
        found = find_dependence(labels, count_pairs(labels), sizes)
        alarms += bool(found[0] or found[1])
    assert alarms <= 0.05 * tables + 2 * np.sqrt(0.05 * 0.95 * tables)


def test_what_is_constant_within_a_person_is_no_evidence_image_by_image() -> None:
    rng = np.random.default_rng(14)
    persons, each, tables = 40, 50, 150
    names = list("abcdef")
    groups = rng.permutation(np.repeat(np.arange(persons), each))
    grouped = alone = 0
    for _ in range(tables):
        labels = random_labels(rng, persons, 6, 0.3)[groups]
        sizes = rng.integers(100, 900, (persons, 2)).astype(np.int32)[groups]
        grouped += bool(describe_health(labels, names, sizes, groups))
        alone += bool(describe_health(labels, names, sizes))
    assert grouped <= 0.05 * tables
    assert alone > 0.9 * tables


def test_what_persons_hide_and_copy_is_found_between_persons() -> None:
    rng = np.random.default_rng(15)
    labels = random_labels(rng, 200, 4, 0.0)
    labels[:, 3] = labels[:, 2]
    labels[(labels[:, 1] == 1) & (rng.random(200) < 0.7), 0] = np.nan
    groups = np.repeat(np.arange(200), 5)
    sizes = np.full((1000, 2), 100, dtype=np.int32)
    sizes[np.isnan(labels[groups, 0])] += rng.integers(0, 9, (int(np.isnan(labels[groups, 0]).sum()), 2))
    said = describe_health(labels[groups], ["age", "beard", "hat", "cap"], sizes, groups)
    shares = [np.isnan(labels[part, 0]).mean() for part in (labels[:, 1] == 1, labels[:, 1] == 0)]
    assert said[0] == "cap says the same as hat in all 1,000 images where both are known"
    assert any(f"age: unknown for {shares[0]:.0%}" in sentence and "beard" in sentence for sentence in said)
    assert any(sentence.startswith("age: unknown rather in larger images") for sentence in said)


def test_few_persons_agree_by_chance_however_many_images_there_are() -> None:
    persons = np.array([[1, 1], [0, 0], [1, 1], [0, 0]], dtype=np.float32)
    labels = np.repeat(persons, 100, axis=0)
    assert describe_health(labels, ["hat", "cap"], groups=np.repeat(np.arange(4), 100)) == ()
    assert len(describe_health(labels, ["hat", "cap"])) == 1


def test_of_many_sentences_the_rest_is_counted() -> None:
    rng = np.random.default_rng(7)
    labels = random_labels(rng, 500, 40, unknown=0.0)
    for column in range(1, 40, 2):
        labels[:, column] = labels[:, column - 1]
    said = describe_health(labels, [f"a{i}" for i in range(40)])
    assert len(said) == 11
    assert said[-1] == "and 10 more observations of these kinds"


def test_tables_of_any_shape_are_described() -> None:
    for labels in (np.zeros((0, 3)), np.full((5, 3), np.nan), np.ones((1, 3)), np.zeros((4, 0))):
        count = labels.shape[1]
        sizes = np.full((len(labels), 2), 9, dtype=np.int32)
        assert isinstance(describe_health(labels.astype(np.float32), list("abc")[:count], sizes), tuple)
