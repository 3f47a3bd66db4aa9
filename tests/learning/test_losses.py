"""Losses against other people's implementations, at their extremes, and over unknown labels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from mlcls.errors import RecipeError
from mlcls.learning.epochs import Position, Running
from mlcls.learning.losses import (
    LOSSES,
    asl,
    bce,
    build_loss,
    focal,
    loss_at,
    masked_loss,
    pos_weight_from,
)

LOGITS = torch.tensor([[-6.0, -0.5, 0.0], [0.7, 3.0, 9.0]])
TARGETS = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
POS_WEIGHT = torch.tensor([0.5, 2.0, 4.0])
every_loss = pytest.mark.parametrize("name", LOSSES)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.7])
@pytest.mark.parametrize("alpha", [None, 0.25, 1.0])
def test_focal_equals_torchvision(gamma: float, alpha: float | None) -> None:
    theirs = sigmoid_focal_loss(LOGITS, TARGETS, alpha=-1 if alpha is None else alpha, gamma=gamma)
    torch.testing.assert_close(focal(LOGITS, TARGETS, gamma=gamma, alpha=alpha), theirs)


@pytest.mark.parametrize("clip", [0.0, 0.05, 0.4])
@pytest.mark.parametrize(("gamma_neg", "gamma_pos"), [(4.0, 0.0), (2.0, 1.0), (0.0, 0.0), (1.5, 3.0)])
@pytest.mark.parametrize("pos_weight", [None, POS_WEIGHT])
def test_asl_equals_timm(clip: float, gamma_neg: float, gamma_pos: float, pos_weight: Tensor | None) -> None:
    theirs = AsymmetricLossMultiLabel(gamma_neg, gamma_pos, clip, pos_weight=pos_weight, reduction="none")
    ours = asl(LOGITS, TARGETS, pos_weight=pos_weight, gamma_neg=gamma_neg, gamma_pos=gamma_pos, clip=clip)
    torch.testing.assert_close(ours, theirs(LOGITS, TARGETS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pos_weight", [None, POS_WEIGHT])
def test_without_focusing_all_are_cross_entropy(pos_weight: Tensor | None) -> None:
    expected = F.binary_cross_entropy_with_logits(LOGITS, TARGETS, pos_weight=pos_weight, reduction="none")
    torch.testing.assert_close(bce(LOGITS, TARGETS, pos_weight=pos_weight), expected)
    torch.testing.assert_close(focal(LOGITS, TARGETS, pos_weight=pos_weight, gamma=0.0), expected)
    plain = asl(LOGITS, TARGETS, pos_weight=pos_weight, gamma_neg=0.0, gamma_pos=0.0, clip=0.0)
    torch.testing.assert_close(plain, expected)


@every_loss
def test_one_value_a_cell_that_depends_on_that_cell_alone(name: str) -> None:
    loss = build_loss(name, pos_weight=POS_WEIGHT, settings={})
    before = loss(LOGITS, TARGETS)
    changed = LOGITS.clone()
    changed[1, 1] += 1.0
    differs = loss(changed, TARGETS) != before
    assert before.shape == LOGITS.shape
    assert (before >= 0).all()
    assert differs.nonzero().tolist() == [[1, 1]]


@every_loss
def test_pos_weight_multiplies_the_present_alone(name: str) -> None:
    plain = build_loss(name, pos_weight=None, settings={})(LOGITS, TARGETS)
    weighted = build_loss(name, pos_weight=POS_WEIGHT, settings={})(LOGITS, TARGETS)
    torch.testing.assert_close(weighted, torch.where(TARGETS == 1, plain * POS_WEIGHT, plain))


@every_loss
@settings(deadline=None, max_examples=50)
@given(
    logits=hnp.arrays(np.float32, (2, 3), elements=st.floats(-1e4, 1e4, width=32)),
    targets=hnp.arrays(np.float32, (2, 3), elements=st.sampled_from([0.0, 0.3, 1.0])),
    gamma=st.sampled_from([0.0, 0.01, 0.5, 1.0, 4.0]),
)
def test_loss_and_gradient_are_finite_for_any_logit(
    name: str, logits: np.ndarray, targets: np.ndarray, gamma: float
) -> None:
    own = {"focal": {"gamma": gamma}, "asl": {"gamma_neg": gamma, "gamma_pos": gamma}}.get(name, {})
    at = torch.from_numpy(logits).requires_grad_()
    losses = build_loss(name, pos_weight=None, settings=own)(at, torch.from_numpy(targets))
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(at.grad).all()


def test_asl_has_a_gradient_just_at_its_margin() -> None:
    logits = torch.zeros(1, 1, requires_grad=True)  # p is 0.5: the shifted probability is 0
    asl(logits, torch.zeros(1, 1), gamma_neg=0.5, clip=0.5).backward()
    assert logits.grad.tolist() == [[0.0]]


def test_asl_ramp_grows_from_gamma_pos_to_gamma_neg() -> None:
    own = {"gamma_neg": 4.0, "gamma_pos": 1.0}
    loss = build_loss("asl", pos_weight=POS_WEIGHT, settings={**own, "ramp_epochs": 4})
    for epoch, gamma in enumerate([1.0, 1.75, 2.5, 3.25, 4.0, 4.0]):
        plain = asl(LOGITS, TARGETS, pos_weight=POS_WEIGHT, gamma_neg=gamma, gamma_pos=1.0)
        torch.testing.assert_close(loss_at(loss, epoch)(LOGITS, TARGETS), plain)
    full = build_loss("asl", pos_weight=POS_WEIGHT, settings=own)
    assert torch.equal(loss(LOGITS, TARGETS), full(LOGITS, TARGETS))  # as validation has it
    assert torch.equal(loss_at(full, 0)(LOGITS, TARGETS), full(LOGITS, TARGETS))  # no ramp


@pytest.mark.parametrize("name", ["bce", "focal"])
def test_a_loss_without_epochs_is_the_same_in_all(name: str) -> None:
    loss = build_loss(name, pos_weight=None, settings={})
    assert loss_at(loss, 3) is loss
    assert loss_at(bce, 3) is bce


@every_loss
def test_unknown_labels_have_no_loss_and_no_gradient(name: str) -> None:
    labels = TARGETS.clone()
    labels[0, 1] = labels[1, 2] = torch.nan
    logits = (LOGITS / 3).requires_grad_()  # none so sure that asl's margin leaves it out
    loss = build_loss(name, pos_weight=POS_WEIGHT, settings={})
    total, known = masked_loss(loss, logits, labels)
    total.backward()
    assert int(known) == 4
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[labels.isnan()] == 0).all()
    assert (logits.grad[~labels.isnan()] != 0).all()
    torch.testing.assert_close(total, loss(LOGITS / 3, TARGETS)[~labels.isnan()].sum())


@every_loss
def test_nothing_known_sums_to_zero(name: str) -> None:
    labels = torch.full_like(TARGETS, torch.nan)
    total, known = masked_loss(build_loss(name, pos_weight=None, settings={}), LOGITS, labels)
    assert float(total) == 0
    assert int(known) == 0


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("focl", {}, "did you mean 'focal'"),
        ("focal", {"gama": 2.0}, "no setting 'gama'; did you mean 'gamma'"),
        ("bce", {"margin": 2.0}, "no setting 'margin'; it takes none"),
        ("focal", {"gamma": -1.0}, "gamma is -1.0, expected at least 0"),
        ("focal", {"gamma": "two"}, "gamma is 'two', expected a number"),
        ("focal", {"gamma": True}, "gamma is True, expected a number"),
        ("focal", {"alpha": 2.0}, "alpha is 2.0, expected 0 to 1"),
        ("focal", {"alpha": "x"}, "alpha is 'x', expected a number"),
        ("asl", {"clip": 1.0}, "clip is 1.0"),
        ("asl", {"gamma_neg": -1.0}, "gamma_neg is -1.0"),
        ("asl", {"gamma_pos": -1.0}, "gamma_pos is -1.0"),
        ("asl", {"ramp_epochs": -1}, "ramp_epochs is -1, expected at least 0"),
        ("asl", {"ramp_epochs": 2.5}, "ramp_epochs is 2.5, expected a whole number"),
        ("asl", {"epoch": 2}, "epoch is no setting of a loss"),
        ("bce", {"pos_weight": 3.0}, "use --pos-weight"),
    ],
)
def test_mistakes_are_named_before_training(name: str, own: dict, message: str) -> None:
    with pytest.raises(RecipeError, match="--loss") as caught:
        build_loss(name, pos_weight=None, settings=own)
    assert message in str(caught.value)


def test_a_setting_of_another_loss_is_left_out() -> None:
    loss = build_loss("bce", pos_weight=None, settings={"gamma": 5.0, "clip": 0.3})
    torch.testing.assert_close(loss(LOGITS, TARGETS), bce(LOGITS, TARGETS))


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's own, importable by the returned name."""
    (tmp_path / "losses_of_a_user.py").write_text(
        "import torch\n"
        "def squared(logits, targets, *, scale=1.0): return scale * (torch.sigmoid(logits) - targets) ** 2\n"
        "def growing(logits, targets, *, epoch=99): return (epoch + 1) * squared(logits, targets)\n"
        "def mean(logits, targets): return squared(logits, targets).mean()\n"
        "def anything(logits, targets, **settings): return squared(logits, targets) * settings['factor']\n"
        "def number(logits, targets): return 1.0\n"
        "table = {}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "losses_of_a_user"


def test_a_loss_of_ones_own(own_module: str) -> None:
    expected = (LOGITS.sigmoid() - TARGETS) ** 2
    # it takes no pos_weight: none is passed
    loss = build_loss(f"{own_module}:squared", pos_weight=POS_WEIGHT, settings={"scale": 3.0, "gamma": 1.0})
    torch.testing.assert_close(loss(LOGITS, TARGETS), 3 * expected)
    loss = build_loss(f"{own_module}:anything", pos_weight=None, settings={"factor": 2.0})
    torch.testing.assert_close(loss(LOGITS, TARGETS), 2 * expected)


def test_a_loss_of_ones_own_may_follow_the_epoch(own_module: str, tiny: Any, train: Any) -> None:
    """Also where a training goes on in its middle."""
    loss = build_loss(f"{own_module}:growing", pos_weight=None, settings={})
    whole = train(tiny(), epochs=3, loss=loss, lr=1e-9)
    losses = [epoch.train_loss for epoch in whole]
    # nothing is learned at such a rate, so the epochs' losses are as their numbers
    assert losses[1:] == pytest.approx([2 * losses[0], 3 * losses[0]], rel=1e-4)
    goes_on = Running(Position(epoch=2, first=1), restore=lambda stepper: None)  # in a second stage
    (last, _) = train(tiny(), epochs=3, loss=loss, lr=1e-9, running=goes_on)
    assert last.epoch == 2
    assert last.train_loss == pytest.approx(losses[2], rel=1e-4)
    assert torch.equal(loss(LOGITS, TARGETS), 100 * (LOGITS.sigmoid() - TARGETS) ** 2)


def test_pytorchs_own_loss_by_name() -> None:
    name = "torch.nn.functional:binary_cross_entropy_with_logits"
    loss = build_loss(name, pos_weight=POS_WEIGHT, settings={"reduction": "none"})
    torch.testing.assert_close(loss(LOGITS, TARGETS), bce(LOGITS, TARGETS, pos_weight=POS_WEIGHT))
    reduced = build_loss(name, pos_weight=None, settings={})
    with pytest.raises(RecipeError, match=r"returned a tensor of shape \[\].*elementwise \[B, A\]"):
        reduced(LOGITS, TARGETS)


@pytest.mark.parametrize(
    ("function", "message"),
    [("mean", "elementwise"), ("number", "returned float"), ("table", "names a dict, expected a function")],
)
def test_what_is_no_elementwise_loss_is_refused(own_module: str, function: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_loss(f"{own_module}:{function}", pos_weight=None, settings={})(LOGITS, TARGETS)


def test_a_function_without_signature_is_refused() -> None:
    with pytest.raises(RecipeError, match="wrap it"):
        build_loss("torch:sigmoid", pos_weight=None, settings={})


def naive_pos_weight(labels: np.ndarray, cap: float) -> list[float]:
    weights = []
    for column in labels.T.tolist():
        present, absent = column.count(1.0), column.count(0.0)
        weights.append(min(max(absent / present, 1 / cap), cap) if present and absent else 1.0)
    return weights


@settings(deadline=None, max_examples=100)
@given(
    labels=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12),
        elements=st.sampled_from([0.0, 1.0, np.nan]),
    ),
    cap=st.sampled_from([1.0, 2.5, 10.0]),
)
def test_pos_weight_counts_known_labels(labels: np.ndarray, cap: float) -> None:
    weights = pos_weight_from(labels, cap)
    assert weights.dtype == np.float32
    assert weights.shape == (labels.shape[1],)
    np.testing.assert_allclose(weights, naive_pos_weight(labels, cap), rtol=1e-6)


def test_pos_weight_by_hand() -> None:
    nan = np.nan
    labels = np.array([[1, 1, 0, nan, 1], [0, 1, 0, nan, 0], [0, nan, 0, nan, 0], [0, 1, nan, nan, nan]])
    weights = pos_weight_from(labels.astype(np.float32), cap=2.5)
    # 3/1 is capped; all present, all absent and all unknown give 1; 2/1
    assert weights.tolist() == [2.5, 1.0, 1.0, 1.0, 2.0]
    assert pos_weight_from(1 - labels.astype(np.float32), cap=2.5).tolist() == pytest.approx(
        [0.4, 1, 1, 1, 0.5]
    )
    with pytest.raises(RecipeError, match="--pos-weight"):
        pos_weight_from(labels.astype(np.float32), cap=0.5)


def test_pos_weight_does_not_change_the_labels() -> None:
    labels = np.array([[1.0, np.nan], [0.0, 0.0]], dtype=np.float32)
    before: Callable[[], bytes] = labels.tobytes
    kept = before()
    pos_weight_from(labels)
    assert before() == kept
