"""The bootstrap against resamples really built and against scikit-learn's weights; intervals by their effects."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student
from sklearn import metrics as reference

from mlcls.errors import NumericalError
from mlcls.scoring import resampling
from mlcls.scoring.intervals import intervals, mean_spread, one_interval
from mlcls.scoring.metrics import FIGURES, evaluate
from mlcls.scoring.resampling import IMAGES, Scorer, replicates

nan = np.nan


def numbers(entry, names):
    return [nan if entry[name] is None else entry[name] for name in names]


def learnt(images=400, attributes=4, seed=0):
    """Labels of 10% to 50%, a fifth unknown, and scores that know something about them."""
    random = np.random.default_rng(seed)
    labels = (random.random((images, attributes)) < np.linspace(0.1, 0.5, attributes)).astype(np.float32)
    scores = 1 / (1 + np.exp(-random.normal(labels * 1.5 - 0.7)))
    labels[random.random(labels.shape) < 0.2] = nan
    return labels, scores.astype(np.float32)


def all_intervals(found, evaluation):
    """(interval, figure) of everything."""
    pairs = [
        (found.overall[name], evaluation[name])
        for name in ("hamming_loss", "exact_match", "coverage_error", "label_ranking_average_precision")
    ]
    for part in ("macro", "micro", "samples"):
        assert found.overall[part].keys() == evaluation[part].keys()
        pairs += [(found.overall[part][name], evaluation[part][name]) for name in evaluation[part]]
    for row, one in zip(found.attributes, evaluation["attributes"], strict=True):
        pairs += [(row[name], one[name]) for name in FIGURES]
    return pairs


@pytest.mark.parametrize("seed", range(100))
def test_weights_are_as_good_as_copies(random_case, seed):
    labels, scores, thresholds = random_case(seed)
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(labels)))
    found = Scorer(labels, scores, thresholds).score(weights)
    for resample, counts in enumerate(weights):
        rows = np.repeat(np.arange(len(labels)), counts)
        expected = evaluate(labels[rows], scores[rows], thresholds)
        silent = ~((scores[rows] >= thresholds) & ~np.isnan(labels[rows])).any(axis=0)
        micro = numbers(expected["micro"], FIGURES)
        micro[0] = nan if silent.all() else micro[0]  # 0 of 0 is 0 to `evaluate`
        close = {"atol": 1e-12, "rtol": 0}
        np.testing.assert_allclose(found.macro[resample], numbers(expected["macro"], FIGURES), **close)
        np.testing.assert_allclose(found.micro[resample], micro, **close)
        for a, one in enumerate(expected["attributes"]):
            figures = numbers(one, FIGURES)
            figures[0] = nan if silent[a] else figures[0]
            np.testing.assert_allclose(found.attributes[resample, a], figures, **close)
        flat = {**expected, **expected["samples"]}
        np.testing.assert_allclose(found.images[resample], numbers(flat, IMAGES), **close)


@pytest.mark.parametrize("seed", range(1, 40, 2))  # the tied cases
def test_ranking_is_that_of_scikit_learn_with_sample_weight(random_case, seed):
    labels, scores, thresholds = random_case(seed)
    weights = np.random.default_rng(seed).integers(0, 3, len(labels))
    found = Scorer(labels, scores, thresholds).score(weights[None])
    for a, column in enumerate(labels.T):
        kept = ~np.isnan(column) & (weights > 0)
        if len(np.unique(column[kept])) == 2:
            case, options = (column[kept], scores[kept, a]), {"sample_weight": weights[kept]}
            ap, area = (
                reference.average_precision_score(*case, **options),
                reference.roc_auc_score(*case, **options),
            )
            np.testing.assert_allclose(found.attributes[0, a, 4:], [ap, area], atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_every_interval_holds_its_figure_and_stays_in_range(random_case, seed):
    case = random_case(seed)
    evaluation = evaluate(*case)
    found = intervals(*case, resamples=40, seed=seed)
    assert json.loads(json.dumps(found.overall, allow_nan=False)) == found.overall
    assert json.loads(json.dumps(found.attributes, allow_nan=False)) == found.attributes
    highest = {id(found.overall["coverage_error"]): case[0].shape[1]}
    for interval, figure in all_intervals(found, evaluation):
        if figure is None:
            assert interval is None
        elif interval is not None:
            assert interval[0] - 1e-9 <= figure <= interval[1] + 1e-9
            assert 0 <= interval[0] <= interval[1] <= highest.get(id(interval), 1)


def test_shape_and_width():
    labels, scores = learnt()
    found = intervals(labels, scores, 0.5)
    assert (found.overall["level"], found.overall["resamples"], found.overall["unit"]) == (
        0.95,
        1000,
        "images",
    )
    for interval, _ in all_intervals(found, evaluate(labels, scores, 0.5)):
        assert interval[1] - interval[0] > 0.01
    # of an AUROC, against Hanley & McNeil's standard error of the last and largest attribute
    positive, negative = (labels[:, -1] == 1).sum(), (labels[:, -1] == 0).sum()
    area = evaluate(labels, scores, 0.5)["attributes"][-1]["auroc"]
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positive - 1) * (q1 - area**2) + (negative - 1) * (q2 - area**2)
    expected = 2 * 1.96 * np.sqrt(variance / positive / negative)
    low, high = found.attributes[-1]["auroc"]
    assert high - low == pytest.approx(expected, rel=0.2)


def test_the_formula():
    """Bias taken off on the arcsine scale; Student's t of n - 1 degrees of freedom, widened by n/(n - 1)."""
    drawn = np.sin(np.linspace(0.8, 1.0, 101)) ** 2
    found = one_interval(float(np.sin(0.85) ** 2), drawn, 10, 0.95)
    spread = np.linspace(0.8, 1.0, 101).std(ddof=1)
    reach = np.sqrt(10 / 9) * student.ppf(0.975, 9) * spread
    assert found == pytest.approx(np.sin([2 * 0.85 - 0.9 - reach, 2 * 0.85 - 0.9 + reach]) ** 2)


def test_spread_of_a_mean_of_attributes():
    """Equal attributes share their degrees of freedom's sum; one that never varies has no say."""
    column = np.random.default_rng(0).random(5000)
    still = np.zeros(5000)
    alike = mean_spread(np.stack([column, 1 - column], axis=1), np.array([10, 10]), 20)
    assert alike == pytest.approx((np.sqrt(10 / 9), 18))
    assert mean_spread(np.stack([column, still], axis=1), np.array([10, 3]), 13) == pytest.approx(
        (np.sqrt(10 / 9), 9)
    )
    same = mean_spread(np.stack([column, column], axis=1), np.array([10, 10]), 10)  # on the same ten images
    assert same == pytest.approx((np.sqrt(10 / 9), 9))


def test_a_higher_level_and_fewer_images_are_wider():
    labels, scores = learnt()
    wide = intervals(labels, scores, 0.5, level=0.99, resamples=200)
    few = intervals(labels[:100], scores[:100], 0.5, resamples=200)
    usual = intervals(labels, scores, 0.5, resamples=200)
    for other in (wide, few):
        for name in FIGURES:
            low, high = usual.overall["macro"][name]
            assert np.diff(other.overall["macro"][name]) > high - low


def test_copies_in_groups_are_no_more_images():
    """Each image four times over: drawn by group, as wide as the images once; drawn by image, half as wide."""
    labels, scores = learnt()
    copies = np.repeat(np.arange(len(labels)), 4)
    once = intervals(labels, scores, 0.5, resamples=400)
    grouped = intervals(labels[copies], scores[copies], 0.5, groups=copies * 7, resamples=400)
    fooled = intervals(labels[copies], scores[copies], 0.5, resamples=400)
    assert grouped.overall["unit"] == "groups"
    for name in FIGURES:
        width = float(np.diff(once.overall["macro"][name])[0])
        assert float(np.diff(grouped.overall["macro"][name])[0]) == pytest.approx(width, rel=0.15)
        assert float(np.diff(fooled.overall["macro"][name])[0]) == pytest.approx(width / 2, rel=0.15)


def test_the_seed_alone_decides(monkeypatch):
    labels, scores = learnt()
    monkeypatch.setattr(resampling, "CELLS", 4000)  # ten resamples a block
    one = intervals(labels, scores, 0.5, resamples=95, seed=3)
    assert intervals(labels, scores, 0.5, resamples=95, seed=4) != one
    monkeypatch.setattr(resampling, "THREADS", 1)
    assert intervals(labels, scores, 0.5, resamples=95, seed=3) == one
    drawn = replicates(Scorer(labels, scores, 0.5), None, 95, 3)
    assert len(np.unique(drawn.macro[:, 0])) == 95  # no two blocks alike


def test_nothing_wrong_in_ten_images_is_not_perfection():
    labels = np.tile([[1.0], [0.0]], (10, 1))
    found = intervals(labels, labels * 0.8 + 0.1, 0.5)
    expected = [0.025 ** (1 / 10), 1]  # Clopper & Pearson: ten of ten
    for name in FIGURES:
        assert found.attributes[0][name] == pytest.approx(expected)
        assert found.overall["macro"][name] == pytest.approx(expected)
    assert found.overall["hamming_loss"] == pytest.approx([0, 1 - 0.025 ** (1 / 20)])
    assert found.overall["exact_match"] == pytest.approx([0.025 ** (1 / 20), 1])
    assert found.overall["coverage_error"] == [1, 1]  # of one attribute, it can be nothing else


def test_a_figure_between_that_no_resample_moves_has_a_width():
    """A constant score ranks at one half in every resample; two groups or images alike agree on anything."""
    labels, _ = learnt()
    found = intervals(labels, np.full(labels.shape, 0.3), 0.5, resamples=100)
    for column, row in zip(labels.T, found.attributes, strict=True):
        reach = 1 - 0.025 ** (1 / min((column == 1).sum(), (column == 0).sum()))
        assert row["auroc"] == pytest.approx([0.5 - reach, 0.5 + reach])

    two = intervals([[1.0], [0], [1], [0]], [[0.9], [0.8], [0.9], [0.8]], 0.5, groups=[0, 0, 1, 1])
    assert two.attributes[0]["f1"] == [0, 1]  # 0.667 and 0.84 to either side
    labels, scores = [[1.0, 0, 1, 0]] * 8, [[0.9, 0.8, 0.7, 0.1]] * 8
    found = intervals(labels, scores, 0.5, resamples=50)
    reach = 1 - 0.025 ** (1 / 8)
    assert found.overall["hamming_loss"] == pytest.approx([0, 0.25 + reach])
    assert found.overall["coverage_error"] == pytest.approx([3 - 3 * reach, 4])


@pytest.mark.parametrize("right", [True, False])
def test_precision_rests_on_what_is_predicted(right):
    """Eight predictions among 200 positives are eight trials, not 200; none is no trial."""
    labels = np.repeat([1.0, 0.0], 200)[:, None]
    scores = np.full((400, 1), 0.1)
    scores[:8] = 0.9
    found = intervals(labels if right else labels[::-1], scores, 0.5)
    reach = 1 - 0.025 ** (1 / 8)
    expected = [1 - reach, 1] if right else [0, reach]
    for figures in (found.attributes[0], found.overall["macro"], found.overall["micro"]):
        assert figures["precision"] == pytest.approx(expected)
    if not right:  # no right cell among 200 present and 8 predicted: F1 from the bound of their share
        share = 1 - 0.025 ** (1 / 208)
        assert found.attributes[0]["f1"] == pytest.approx([0, 2 * share / (1 + share)])
    silent = intervals(labels, scores * 0.5, 0.5)
    for figures in (silent.attributes[0], silent.overall["macro"], silent.overall["micro"]):
        assert figures["precision"] is None
        assert figures["recall"] is not None


def test_eight_images_of_one_group_are_one_trial():
    labels = np.repeat([1.0, 0.0], 200)[:, None]
    scores = np.full((400, 1), 0.1)
    scores[:8] = 0.9
    found = intervals(labels, scores, 0.5, groups=np.arange(400) // 4, resamples=400)
    assert found.attributes[0]["precision"] == pytest.approx([0.025 ** (1 / 2), 1])
    alone = intervals(labels, scores, 0.5, groups=np.arange(400) // 8, resamples=400)
    assert alone.attributes[0]["precision"] is None


def test_few_predictions_hold_the_true_precision():
    """Of 200 positives some ten are predicted, nine in ten of them rightly."""
    random = np.random.default_rng(0)
    labels = np.repeat([1.0, 0.0], 200)[:, None]
    held = []
    for seed in range(150):
        chance = np.where(labels == 1, 9 / 200, 1 / 200)
        predicted = random.random(labels.shape) < chance
        found = intervals(labels, predicted * 0.8 + 0.1, 0.5, resamples=150, seed=seed).attributes[0]
        if found["precision"] is not None:
            held.append(found["precision"][0] <= 0.9 <= found["precision"][1])
    assert len(held) > 140
    assert np.mean(held) >= 0.9


def test_attributes_of_the_same_images_are_not_independent():
    labels = np.zeros((100, 20))
    labels[:2] = 1
    found = intervals(labels, labels * 0.8 + 0.1, 0.5)
    for name in FIGURES:  # as wide as any of them
        assert found.overall["macro"][name] == pytest.approx(found.attributes[0][name])
        assert found.overall["macro"][name] == pytest.approx([0.025 ** (1 / 2), 1])

    random = np.random.default_rng(0)
    scores = np.repeat(random.random((100, 1)), 20, axis=1)  # the same attribute twenty times
    labels[:6] = 1
    one, all_ = (intervals(labels[:, :n], scores[:, :n], 0.5).overall["macro"] for n in (1, 20))
    for name in FIGURES:
        assert all_[name] == pytest.approx(one[name])

    labels[1:] = 0
    found = intervals(labels, labels * 0.8 + 0.1, 0.5, resamples=100)
    assert set(found.attributes[0].values()) == set(found.overall["macro"].values()) == {None}


def test_an_attribute_that_no_resample_moves_widens_the_macro():
    """Ten of ten right say [0.69, 1] of the one attribute, and so half of it of the mean of two."""
    labels, scores = learnt(300, 1)
    labels = np.column_stack([labels, np.zeros(300)])
    labels[:10, 1] = 1
    scores = np.column_stack([scores, labels[:, 1] * 0.8 + 0.1])
    found = intervals(labels, scores, 0.5)
    point = evaluate(labels, scores, 0.5)["macro"]
    for name in FIGURES:
        low, high = found.overall["macro"][name]
        assert point[name] - low >= (1 - 0.025 ** (1 / 10)) / 2
        assert high > point[name]


def test_one_positive_has_no_interval_and_two_say_little():
    labels, scores = learnt(60, 3)
    labels[:, :2] = 0
    labels[0, 0] = labels[:2, 1] = 1
    found = intervals(labels, scores, 0.5)
    assert set(found.attributes[0].values()) == {None}
    low, high = found.attributes[1]["f1"]
    assert high - low > 0.3
    assert None not in found.overall["macro"].values()


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (4, 3)])
def test_nothing_known_is_none_throughout(shape):
    found = intervals(np.full(shape, nan), np.zeros(shape), 0.5, resamples=3)
    assert {
        interval for interval, _ in all_intervals(found, evaluate(np.full(shape, nan), np.zeros(shape), 0.5))
    } == {None}


def test_a_small_simulation_holds_the_truth():
    """AUROC of a normal shift of 1 is 0.7602; benchmarks/intervals.py does this at length."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(120):
        labels = (random.random((150, 1)) < 0.2).astype(np.float32)
        low, high = intervals(labels, random.normal(labels), 0.5, resamples=120).attributes[0]["auroc"]
        held += low <= 0.76025 <= high
    assert 0.90 <= held / 120 <= 0.99


def test_memory_is_bounded_whatever_the_number_of_resamples(monkeypatch):
    labels, scores = learnt(4000, 3)
    monkeypatch.setattr(resampling, "CELLS", 1 << 17)  # 32 resamples a block
    monkeypatch.setattr(resampling, "THREADS", 1)
    peaks = []
    for resamples in (64, 256):
        tracemalloc.start()
        intervals(labels, scores, 0.5, resamples=resamples)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 12 * 4 * resampling.CELLS  # a dozen arrays of weights at most


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [0, 1]}, r"groups must be \[60\]"),
        ({"resamples": 0}, "at least 1 resample"),
        ({"level": 95}, "between 0 and 1; got 95"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        intervals(*learnt(60, 2), 0.5, **options)


def test_a_nan_score_is_refused():
    with pytest.raises(NumericalError, match="1 of 2 scores are NaN"):
        intervals([[1.0], [0.0]], [[nan], [0.5]], 0.5)
