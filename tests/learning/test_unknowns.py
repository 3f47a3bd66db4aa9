"""Unknown labels that count as absent: against the rules written out, cell by cell, and in a training."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from mlcls.errors import RecipeError
from mlcls.learning.losses import LOSSES, build_loss, count_cells, masked_loss
from mlcls.learning.unknowns import UNKNOWNS, Selective, build_unknowns, priors_from, selective

NAN = math.nan
BCE = build_loss("bce", pos_weight=None, settings={})
PRIORS = st.sampled_from([0.0, 0.125, 0.25, 1 / 3, 0.5, 0.75, 1.0, NAN])
SETTINGS: list[dict[str, Any]] = [
    {},
    {"likely": 0.0},
    {"likely": 1.0},
    {"prior_threshold": 1.0},
    {"prior_threshold": 0.2},
    {"top_k": 0.0},
    {"top_k": 0.5, "prior_threshold": 0.8},
    {"top_k": 2},
    {"top_k": 99},
]
shapes = st.tuples(st.integers(1, 6), st.integers(1, 4))


def built(priors: list[float], **own: Any) -> Selective:
    unknowns = build_unknowns("selective", priors=np.array(priors), settings=own)
    assert unknowns is not None
    return unknowns


def absent_by_hand(
    logits: list[list[float]], labels: list[list[float]], priors: list[float], own: dict[str, Any]
) -> set[tuple[int, int]]:
    """The rules, a cell at a time, in exact numbers."""
    open_cells = [
        (-logits[row][column], row, column)
        for row in range(len(labels))
        for column in range(len(priors))
        if math.isnan(labels[row][column]) and priors[column] <= own.get("prior_threshold", 0.5)
    ]
    if own.get("top_k") is not None:
        fewer = math.ceil(Fraction(own["top_k"]) * len(labels))
    else:
        expected = sum(
            min(1, Fraction(own.get("likely", 2.0)) * Fraction(priors[c]).limit_denominator(100))
            for *_, c in open_cells
        )
        fewer = math.ceil(expected)
    return {(row, column) for _, row, column in sorted(open_cells)[fewer:]}


@settings(deadline=None, max_examples=150)
@given(data=st.data(), shape=shapes)
def test_the_rules_cell_by_cell(data: st.DataObject, shape: tuple[int, int]) -> None:
    draw = data.draw
    labels = draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0, 0.3, NAN])))
    logits = draw(hnp.arrays(np.float32, shape, elements=st.integers(-8, 8).map(float)))  # with ties
    priors = draw(st.lists(PRIORS, min_size=shape[1], max_size=shape[1]))
    own = draw(st.sampled_from(SETTINGS))
    unknowns = built(priors, **own)
    found = unknowns.absent(torch.from_numpy(logits), torch.from_numpy(labels))
    expected = absent_by_hand(logits.tolist(), labels.tolist(), priors, own)
    assert {tuple(cell) for cell in found.nonzero().tolist()} == expected
    # the divisor is known before anything is computed
    known = int((~np.isnan(labels)).sum())
    total, counted = masked_loss(BCE, torch.from_numpy(logits), torch.from_numpy(labels), unknowns)
    assert count_cells(torch.from_numpy(labels), unknowns) == int(counted) == known + len(expected)
    # ... and the sum is the paper's: the known as ever, the unknown absent with p^gamma before their term
    by_hand = sum(_bce(x, t) for x, t in zip(logits.flat, labels.flat, strict=True) if not math.isnan(t))
    for row, column in expected:
        p = 1 / (1 + math.exp(-float(logits[row, column])))
        by_hand += p**4.0 * -math.log1p(-p)
    assert float(total) == pytest.approx(by_hand, rel=1e-4, abs=1e-5)


def _bce(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-float(logit)))
    return -target * math.log(p) - (1 - target) * math.log1p(-p)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
def test_gradients_against_the_sum_written_out(name: str, gamma: float) -> None:
    random = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 4, generator=random, requires_grad=True)
    labels = torch.randint(0, 2, (5, 4), generator=random).float()
    labels[torch.rand(5, 4, generator=random) < 0.6] = NAN
    unknowns = built([0.1, 0.2, 0.6, 0.3], gamma=gamma, weight=0.7)
    own = {"clip": 0.0}  # with asl's margin the gradient of a counted cell may be 0
    loss = build_loss(name, pos_weight=torch.tensor([1.0, 2.0, 3.0, 0.5]), settings=own)
    masked_loss(loss, logits, labels, unknowns)[0].backward()

    again = logits.detach().clone().requires_grad_()
    known = ~labels.isnan()
    absent = unknowns.absent(again, labels)
    assert 0 < int(absent.sum()) < int((~known).sum())
    total = loss(again, labels.nan_to_num())[known].sum()
    focused = torch.sigmoid(again) ** gamma * loss(again, torch.zeros_like(again))
    (total + 0.7 * focused[absent].sum()).backward()
    torch.testing.assert_close(logits.grad, again.grad)
    # ignored: exactly nothing
    assert (logits.grad[~known & ~absent] == 0).all()
    assert (logits.grad[known | absent] != 0).all()


def test_gradients_are_finite_for_any_logit() -> None:
    logits = torch.tensor([[-1e4, -50.0, 0.0, 50.0, 1e4]], requires_grad=True)
    for gamma in (0.0, 0.3, 4.0):
        unknowns = built([0.1] * 5, gamma=gamma, likely=0.0)
        total, counted = masked_loss(BCE, logits, torch.full((1, 5), NAN), unknowns)
        assert int(counted) == 5
        (grad,) = torch.autograd.grad(total, logits)
        assert torch.isfinite(total)
        assert torch.isfinite(grad).all()


def test_with_nothing_left_out_and_no_focusing_it_is_negative() -> None:
    logits = torch.tensor([[0.3, -2.0], [4.0, 1.0]])
    labels = torch.tensor([[NAN, 1.0], [NAN, NAN]])
    unknowns = built([1.0, NAN], likely=0.0, gamma=0.0, prior_threshold=1.0)
    total, counted = masked_loss(BCE, logits, labels, unknowns)
    labels[:, 0] = 0  # of the second attribute nothing at all is known: it cannot be told to be absent
    expected, known = masked_loss(BCE, logits, labels)
    assert int(counted) == int(known) == 3
    torch.testing.assert_close(total, expected)


def test_with_a_high_k_it_is_ignore() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([[NAN, 1.0, 0.0]] * 4)
    total, counted = masked_loss(BCE, logits, labels, built([0.1] * 3, top_k=3))
    expected, known = masked_loss(BCE, logits, labels)
    assert int(counted) == int(known)
    assert torch.equal(total, expected)


def test_a_p_asl_of_the_paper() -> None:
    """gamma_u 4, gamma_neg 3, gamma_pos 1 is asl with 3 and 1, and one more for the unknown."""
    logits = torch.tensor([[-1.0, 0.4, 2.0, -0.3]], dtype=torch.float64)
    labels = torch.tensor([[1.0, 0.0, NAN, NAN]], dtype=torch.float64)
    asl = build_loss("asl", pos_weight=None, settings={"gamma_neg": 3.0, "gamma_pos": 1.0, "clip": 0.0})
    total, _ = masked_loss(asl, logits, labels, built([0.2] * 4, top_k=1, gamma=1.0))
    p = torch.sigmoid(logits)[0].tolist()
    expected = (1 - p[0]) * -math.log(p[0]) + p[1] ** 3 * -math.log(1 - p[1])
    expected += p[3] ** 4 * -math.log(1 - p[3])  # the other unknown one is the likeliest, and left out
    assert float(total) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    labels=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.sampled_from([0.0, 1.0, NAN])
    ),
)
def test_priors_are_shares_among_the_known(labels: np.ndarray) -> None:
    found = priors_from(labels)
    assert found.dtype == np.float64
    for column, prior in zip(labels.T.tolist(), found.tolist(), strict=True):
        present, absent = column.count(1.0), column.count(0.0)
        if not present + absent:
            assert math.isnan(prior)
        else:
            assert prior == pytest.approx(present / (present + absent if absent else len(column)))


def test_priors_by_a_network_where_labels_are_sparse() -> None:
    labels = np.array([[1, NAN], [0, NAN], [NAN, NAN], [NAN, NAN]], dtype=np.float32)
    scores = np.array([[0.9, 0.5], [0.9, 0.5], [0.1, 0.5], [0.3, 0.1]], dtype=np.float32)
    assert priors_from(labels, scores).tolist() == pytest.approx([1.4 / 4, 0.4])


@pytest.mark.parametrize("name", UNKNOWNS)
def test_every_way_by_name(name: str) -> None:
    found = build_unknowns(name, priors=np.array([0.2]), settings={"gamma": 2.0})
    assert (found is not None) == (name == "selective")


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("selectiv", {}, "did you mean 'selective'"),
        ("selective", {"gama": 1.0}, "no setting 'gama'; did you mean 'gamma'"),
        ("ignore", {"gama": 1.0}, "no setting 'gama'"),
        ("selective", {"gamma": -1.0}, "gamma is -1.0, expected at least 0"),
        ("selective", {"weight": NAN}, "weight is nan, expected at least 0"),
        ("selective", {"likely": "many"}, "likely is 'many', expected a number"),
        ("selective", {"top_k": "all"}, "top_k is 'all', expected a number"),
        ("selective", {"top_k": -1}, "top_k is -1, expected at least 0"),
        ("selective", {"prior_threshold": 2}, "prior_threshold is 2, expected 0 to 1"),
    ],
)
def test_mistakes_are_named(name: str, own: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match="--na") as caught:
        build_unknowns(name, priors=np.array([0.2]), settings=own)
    assert message in str(caught.value)


def test_a_step_divides_by_all_that_counts(tiny: Any, train: Any, images: tuple[Tensor, ...]) -> None:
    """Two batches a step, of unlike numbers of unknown cells: as one sum over one number."""
    pixels, labels, indices = images
    labels = labels.clone()
    labels[:6] = NAN  # the first batch: nothing known, and yet it counts
    unknowns = selective(np.array([0.3, 0.1, 0.9]), gamma=1.0)
    model, by_hand = tiny(), tiny()
    (epoch,) = train(
        model, epochs=1, batch_size=5, accumulate=4, data=(pixels, labels, indices), unknowns=unknowns
    )
    total, counted = torch.zeros(()), 0
    for start in range(0, 20, 5):
        logits = by_hand(pixels[start : start + 5])
        cells = unknowns.absent(logits, labels[start : start + 5])
        counted += int(cells.sum()) + int((~labels[start : start + 5].isnan()).sum())
        losses = F.binary_cross_entropy_with_logits(
            logits, labels[start : start + 5].nan_to_num(), reduction="none"
        )
        total = total + losses[~labels[start : start + 5].isnan()].sum()
        total = total + (torch.sigmoid(logits) * losses)[cells].sum()
    assert epoch.train_loss == pytest.approx(total.item() / counted, rel=1e-5)
    (total / counted).backward()
    for found, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
        decay = 1 - 0.1 * 1e-4 if expected.ndim > 1 else 1.0
        torch.testing.assert_close(
            found, expected.detach() * decay - 0.1 * expected.grad, rtol=1e-3, atol=1e-5
        )


def test_unknown_cells_pull_their_logits_down(tiny: Any, train: Any, images: tuple[Tensor, ...]) -> None:
    """Only the present were written down: ignoring the rest says yes to all, selective tells them apart."""
    pixels, _, indices = images
    dark = torch.arange(20) % 4 != 0
    pixels = torch.where(dark[:, None, None, None], pixels // 8, 255 - pixels // 8)
    labels = torch.where(dark[:, None], NAN, 1.0).expand(20, 3).clone()
    spread = {}
    for name in ("ignore", "selective"):
        model = tiny()
        priors = priors_from(labels.numpy())
        assert priors.tolist() == [0.25] * 3
        unknowns = build_unknowns(name, priors=priors, settings={"likely": 1.0})
        train(model, epochs=30, lr=0.5, batch_size=20, data=(pixels, labels, indices), unknowns=unknowns)
        scores = torch.sigmoid(model(pixels).detach()).mean(dim=1)
        spread[name] = float(scores[~dark].min()), float(scores[dark].max())
    assert min(spread["ignore"]) > 0.5
    assert spread["selective"][0] > 0.5 > spread["selective"][1]
