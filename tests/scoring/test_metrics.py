"""Every figure against scikit-learn and torchmetrics, unknowns removed for the reference, and by hand."""

import json
import tracemalloc

import numpy as np
import pytest
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from torchmetrics.functional import classification as torchmetrics

from mlcls.errors import NumericalError
from mlcls.scoring.metrics import (
    FIGURES,
    auroc,
    average_precision,
    evaluate,
    exact_match,
    hamming_loss,
)
from mlcls.scoring.sample_metrics import RANKINGS

nan = np.nan


def sklearn_figures(labels, scores, predicted):
    """The six figures of one pool of known cells; None without both classes."""
    if len(np.unique(labels)) < 2:
        return dict.fromkeys(FIGURES)
    return {
        "precision": reference.precision_score(labels, predicted, zero_division=0),
        "recall": reference.recall_score(labels, predicted),
        "f1": reference.f1_score(labels, predicted),
        "accuracy": reference.accuracy_score(labels, predicted),
        "average_precision": reference.average_precision_score(labels, scores),
        "auroc": reference.roc_auc_score(labels, scores),
    }


def assert_same(found, expected):
    for name in FIGURES:
        if expected[name] is None:
            assert found[name] is None, name
        else:
            assert found[name] == pytest.approx(expected[name], abs=1e-6), name


@pytest.mark.parametrize("seed", range(200))
def test_equal_to_scikit_learn(random_case, seed):
    labels, scores, thresholds = random_case(seed)
    known, predicted = ~np.isnan(labels), scores >= thresholds
    found = evaluate(labels, scores, thresholds)
    with sklearn.config_context(skip_parameter_validation=True):
        columns = [
            sklearn_figures(*(part[known[:, a], a] for part in (labels, scores, predicted)))
            for a in range(labels.shape[1])
        ]
        pooled = sklearn_figures(labels[known], scores[known], predicted[known])
        for one, expected in zip(found["attributes"], columns, strict=True):
            assert_same(one, expected)
        assert_same(found["micro"], pooled)
        defined = [one for one in columns if one["auroc"] is not None]
        means = {name: np.mean([one[name] for one in defined]) if defined else None for name in FIGURES}
        assert_same(found["macro"], means)
        if known.any():
            wrong = reference.hamming_loss(labels[known].astype(int), predicted[known].astype(int))
            assert found["hamming_loss"] == pytest.approx(wrong, abs=1e-6)
            judged = known.any(axis=1)
            filled = np.where(known, labels, predicted)[judged].astype(int)  # an unknown can only be right
            right = reference.accuracy_score(filled, predicted[judged].astype(int))
            assert found["exact_match"] == pytest.approx(right, abs=1e-6)
        else:
            assert found["hamming_loss"] is None
            assert found["exact_match"] is None


@pytest.mark.parametrize("seed", range(200))
def test_equal_to_torchmetrics(random_case, seed):
    labels, scores, _ = random_case(seed)
    found = evaluate(labels, scores, 0.5)
    both = [a for a, one in enumerate(found["attributes"]) if one["auroc"] is not None]
    if not both:
        assert set(found["macro"].values()) == {None}
        return
    both = both if len(both) > 1 else both * 2  # torchmetrics takes two attributes or more
    # torchmetrics writes an unknown as ignore_index, and warns about one-class attributes: those are left out
    target = torch.from_numpy(np.nan_to_num(labels[:, both], nan=-1).astype(np.int64))
    preds = torch.from_numpy(scores[:, both].astype(np.float64))
    options = {"num_labels": len(both), "ignore_index": -1}
    ap = torchmetrics.multilabel_average_precision(preds, target, average=None, **options)
    area = torchmetrics.multilabel_auroc(preds, target, average=None, **options)
    np.testing.assert_allclose(average_precision(labels, scores)[both], ap, atol=1e-6)
    np.testing.assert_allclose(auroc(labels, scores)[both], area, atol=1e-6)
    # a score of exactly 0.5 is present here and absent there: their threshold is a hair lower
    options["threshold"] = float(np.nextafter(0.5, 0))
    macro = torchmetrics.multilabel_f1_score(preds, target, average="macro", **options)
    assert found["macro"]["f1"] == pytest.approx(float(macro), abs=1e-6)
    counts = torchmetrics.multilabel_confusion_matrix(preds, target, **options)
    confusions = [list(found["attributes"][a]["confusion"].values()) for a in both]
    np.testing.assert_array_equal(confusions, counts.reshape(-1, 4))
    micro = evaluate(labels[:, both], scores[:, both], 0.5)["micro"]
    del options["threshold"]
    pooled = torchmetrics.multilabel_average_precision(preds, target, average="micro", **options)
    assert micro["average_precision"] == pytest.approx(float(pooled), abs=1e-6)


def by_known_cells(labels, scores, predicted):
    """Images with a known positive, as `(labels, scores, predicted)` batches of equally many known cells.

    Neither library has a mask for figures of an image: an unknown is removed by leaving its cell out, and
    images that are left with the same number of cells fit one matrix.
    """
    known = ~np.isnan(labels)
    judged = (labels == 1).any(axis=1)
    for count in np.unique(known[judged].sum(axis=1)):
        rows = np.flatnonzero(judged & (known.sum(axis=1) == count))
        yield tuple(part[rows][known[rows]].reshape(-1, count) for part in (labels, scores, predicted))


def sklearn_samples(labels, scores, predicted):
    """Sums over the images of one batch: four decisions, two rankings."""
    truth, guess = labels.astype(int), predicted.astype(int)
    options = {"average": "macro", "zero_division": 0}  # images as the classes: their mean
    found = {
        "precision": reference.precision_score(truth.T, guess.T, **options),
        "recall": reference.recall_score(truth.T, guess.T, **options),
        "f1": reference.f1_score(truth.T, guess.T, **options),
        "accuracy": 1 - reference.hamming_loss(truth, guess),
        "coverage_error": 1,  # of one cell, a positive: what scikit-learn would refuse
        "label_ranking_average_precision": reference.label_ranking_average_precision_score(truth, scores),
    }
    if truth.shape[1] > 1:
        found["coverage_error"] = reference.coverage_error(truth, scores)
    if truth.shape[0] == 1:  # one image would be read as a single binary task
        found |= sklearn_single_image(truth[0], guess[0])
    return {name: len(truth) * value for name, value in found.items()}


def sklearn_single_image(truth, guess):
    return {
        "precision": reference.precision_score(truth, guess, zero_division=0),
        "recall": reference.recall_score(truth, guess, zero_division=0),
        "f1": reference.f1_score(truth, guess, zero_division=0),
    }


def torchmetrics_samples(labels, scores, predicted):
    truth, guess = torch.from_numpy(labels).long(), torch.from_numpy(predicted).double()
    preds, images, cells = torch.from_numpy(scores.astype(np.float64)), *truth.shape
    each = {"multidim_average": "samplewise"}  # a decision is its own score: 0 or 1 about 0.5
    found = {
        "precision": torchmetrics.binary_precision(guess, truth, **each).double().sum(),
        "recall": torchmetrics.binary_recall(guess, truth, **each).double().sum(),
        "f1": torchmetrics.binary_f1_score(guess, truth, **each).double().sum(),
        "accuracy": torchmetrics.binary_accuracy(guess, truth, **each).double().sum(),
        **dict.fromkeys(RANKINGS, images),  # of one cell, a positive: torchmetrics takes two labels or more
    }
    if cells > 1:
        found["coverage_error"] = images * torchmetrics.multilabel_coverage_error(preds, truth, cells)
        found["label_ranking_average_precision"] = images * (
            torchmetrics.multilabel_ranking_average_precision(preds, truth, cells)
        )
    return {name: float(value) for name, value in found.items()}


@pytest.mark.parametrize("library", [sklearn_samples, torchmetrics_samples])
@pytest.mark.parametrize("seed", range(200))
def test_figures_of_images_are_those_of_both_libraries(random_case, library, seed):
    labels, scores, thresholds = random_case(seed)
    found = evaluate(labels, scores, thresholds)
    assert found["known_share"] == pytest.approx((~np.isnan(labels)).mean(), abs=1e-6)
    assert [one["negative"] for one in found["attributes"]] == (labels == 0).sum(axis=0).tolist()
    flat = {**found["samples"], **{name: found[name] for name in RANKINGS}}
    sums, images = dict.fromkeys(flat, 0.0), 0
    for batch in by_known_cells(labels, scores, scores >= thresholds):
        images += len(batch[0])
        for name, value in library(*batch).items():
            sums[name] += value
    for name, value in flat.items():
        assert value == (pytest.approx(sums[name] / images, abs=1e-6) if images else None), name


def test_images_in_more_than_one_block(random_case, monkeypatch):
    labels, scores, thresholds = random_case(22)
    at_once = evaluate(labels, scores, thresholds)
    monkeypatch.setattr("mlcls.scoring.sample_metrics.BLOCK", 1)
    assert evaluate(labels, scores, thresholds) == at_once


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_figures_rest_on_known_cells_alone(random_case, seed):
    labels, scores, thresholds = random_case(seed)
    before = evaluate(labels, scores, thresholds)
    random = np.random.default_rng(seed)
    others = np.where(np.isnan(labels), random.random(labels.shape), scores)
    assert evaluate(labels, others, thresholds) == before
    unlabelled = np.full((3, labels.shape[1]), nan)
    more = evaluate(
        np.vstack([labels, unlabelled]), np.vstack([scores, random.random(unlabelled.shape)]), thresholds
    )
    share = before["known_share"] * before["n"] / (before["n"] + 3)
    assert more == {**before, "n": before["n"] + 3, "known_share": pytest.approx(share)}


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), power=st.sampled_from([0.25, 3.0]))
def test_ranking_depends_on_the_order_of_scores_alone(random_case, seed, power):
    labels, scores, _ = random_case(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    bent = scores.astype(np.float64) ** power
    for figure in (auroc, average_precision):
        np.testing.assert_allclose(figure(labels[order], bent[order]), figure(labels, scores), atol=1e-12)


def test_by_hand():
    """Two images, three attributes: one with both classes, one that is all present, one unknown."""
    labels = [[1, 1, nan], [0, 1, nan], [nan, nan, nan]]
    scores = [[0.9, 0.8, 0.5], [0.6, 0.3, 0.5], [0.1, 0.1, 0.1]]
    found = evaluate(np.array(labels), np.array(scores), [0.5, 0.5, 0.5], attributes=["a", "b", "c"])
    one = {
        "precision": 0.5,
        "recall": 1.0,
        "f1": 2 / 3,
        "accuracy": 0.5,
        "average_precision": 1.0,
        "auroc": 1.0,
    }
    nothing = dict.fromkeys(FIGURES)
    assert found == {
        "n": 3,
        "known_share": 4 / 9,
        "macro": one,
        "micro": {
            "precision": 2 / 3,
            "recall": 2 / 3,
            "f1": 2 / 3,
            "accuracy": 0.5,
            # the positives .9, .8 rank first, then the negative .6, then the positive .3
            "average_precision": pytest.approx((1 + 1 + 3 / 4) / 3),
            "auroc": pytest.approx(2 / 3),
        },
        # the first image is right; of the second, a is a false alarm and b is missed; the third has no positive
        "samples": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "accuracy": 0.5},
        "hamming_loss": 0.5,
        "exact_match": 0.5,
        "coverage_error": 2.0,  # both images have to go down to their second attribute
        "label_ranking_average_precision": (1 + 1 / 2) / 2,
        "undefined": ["b", "c"],
        "attributes": [
            {"name": "a", "known": 2, "positive": 1, "negative": 1, "threshold": 0.5, **one}
            | {"confusion": {"tn": 0, "fp": 1, "fn": 0, "tp": 1}},
            {"name": "b", "known": 2, "positive": 2, "negative": 0, "threshold": 0.5, **nothing}
            | {"confusion": {"tn": 0, "fp": 0, "fn": 1, "tp": 1}},
            {"name": "c", "known": 0, "positive": 0, "negative": 0, "threshold": 0.5, **nothing}
            | {"confusion": {"tn": 0, "fp": 0, "fn": 0, "tp": 0}},
        ],
    }


def test_precision_is_zero_where_nothing_was_predicted_present():
    found = evaluate(np.array([[1.0], [0.0]]), np.array([[0.4], [0.2]]), [0.5])
    assert found["attributes"][0]["precision"] == 0.0
    assert found["attributes"][0]["f1"] == 0.0
    assert found["attributes"][0]["auroc"] == 1.0


def test_a_score_at_the_threshold_is_present():
    scores = np.array([[0.1]], dtype=np.float32)  # as a float64 a little more than 0.1
    assert evaluate([[1.0]], scores, [float(scores[0, 0])])["attributes"][0]["confusion"]["tp"] == 1
    # compared in float32, this threshold would be rounded down to the score
    higher = float(np.nextafter(np.float64(scores[0, 0]), 1))
    assert evaluate([[1.0]], scores, higher)["attributes"][0]["confusion"]["fn"] == 1


def test_decisions_are_scores_too():
    found = evaluate([[1], [0], [0]], [[1], [1], [0]], 0.5)["attributes"][0]
    assert (found["precision"], found["auroc"]) == (0.5, 0.75)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (4, 3)])
def test_nothing_known_is_none_throughout(shape):
    found = evaluate(np.full(shape, nan), np.zeros(shape), 0.5)
    assert set(found["macro"].values()) == set(found["micro"].values()) == {None}
    assert set(found["samples"].values()) == {None}
    for name in ("hamming_loss", "exact_match", "coverage_error", "label_ranking_average_precision"):
        assert found[name] is None, name
    assert found["known_share"] == (0 if found["n"] and shape[1] else None)
    assert found["undefined"] == [f"Attr{number + 1}" for number in range(shape[1])]
    assert np.isnan(average_precision(np.full(shape, nan), np.zeros(shape))).all()


@pytest.mark.parametrize("seed", range(0, 200, 20))
def test_ready_for_json(random_case, seed):
    found = evaluate(*random_case(seed))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_single_figures_are_those_of_evaluate(random_case):
    case = random_case(3)
    found = evaluate(*case)
    assert hamming_loss(*case) == found["hamming_loss"]
    assert exact_match(*case) == found["exact_match"]
    assert average_precision(*case[:2]).tolist() == [one["average_precision"] for one in found["attributes"]]


def test_pools_larger_than_a_block():
    random = np.random.default_rng(0)
    labels = (random.random((300_000, 1)) < 0.9).astype(np.float32)
    scores = np.round(random.random(labels.shape), 4).astype(np.float32)
    expected = reference.average_precision_score(labels, scores), reference.roc_auc_score(labels, scores)
    found = evaluate(labels, scores, 0.5)["micro"]
    assert (found["average_precision"], found["auroc"]) == pytest.approx(expected, abs=1e-9)


def test_memory_is_a_small_multiple_of_the_scores():
    random = np.random.default_rng(0)
    labels = (random.random((20_000, 50)) < 0.5).astype(np.float32)
    scores = random.random(labels.shape).astype(np.float32)
    tracemalloc.start()
    evaluate(labels, scores, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * scores.nbytes


def test_a_nan_score_is_told_apart_from_an_unknown_label():
    with pytest.raises(NumericalError, match=r"1 of 4 scores are NaN, the first in row 1"):
        evaluate(np.zeros((2, 2)), np.array([[0, 0], [0, nan]]), 0.5)


@pytest.mark.parametrize(
    ("labels", "scores", "thresholds", "names", "message"),
    [
        ([[1, 0]], [[0.5]], 0.5, None, r"\(1, 2\) and \(1, 1\)"),
        ([1, 0], [0.5, 0.5], 0.5, None, "images, attributes"),
        ([[-1, 0]], [[0.5, 0.5]], 0.5, None, "neither 0"),
        ([[1, 0]], [[0.5, 0.5]], [0.5], None, "one number or"),
        ([[1, 0]], [[0.5, 0.5]], nan, None, "threshold is NaN"),
        ([[1, 0]], [[0.5, 0.5]], 0.5, ["a"], "1 attribute names for 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels, scores, thresholds, names, message):
    with pytest.raises(ValueError, match=message):
        evaluate(labels, scores, thresholds, attributes=names)


def test_a_first_image_without_a_known_label_parts_a_large_pool_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlcls.scoring import ranking

    monkeypatch.setattr(ranking, "PART", 64)
    monkeypatch.setattr(ranking, "SAMPLE", 4)
    rng = np.random.default_rng(0)
    labels = (rng.random((12, 100)) < 0.4).astype(np.float32)
    labels[0] = np.nan
    scores = rng.random((12, 100)).astype(np.float32)
    entry = evaluate(labels, scores, np.full(100, 0.5))
    known = ~np.isnan(labels)
    expected = reference.average_precision_score(labels[known], scores[known])
    assert entry["micro"]["average_precision"] == pytest.approx(expected)
