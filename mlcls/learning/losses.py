"""Losses: elementwise functions of logits and known targets, and the sum over what counts."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mlcls.errors import RecipeError
from mlcls.learning.settings import check_kind, setting_names, settings_for
from mlcls.learning.unknowns import Selective
from mlcls.missing import split_missing
from mlcls.naming import look_up

Loss = Callable[[Tensor, Tensor], Tensor]
"""`loss(logits [B, A], targets [B, A]) -> [B, A]`: float32, one value a cell, nothing reduced."""


def bce(logits: Tensor, targets: Tensor, *, pos_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy.

    Args:
        logits: [B, A], any real number.
        targets: [B, A] in [0, 1]; no NaN.
        pos_weight: [A], multiplies the term of the present.

    Returns:
        [B, A], at least 0.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight, reduction="none")


def focal(
    logits: Tensor,
    targets: Tensor,
    *,
    pos_weight: Tensor | None = None,
    gamma: float = 2.0,
    alpha: float | None = None,
) -> Tensor:
    """Focal loss: cross-entropy times (1 - p_t)^gamma (Lin et al. 2017, equations 4 and 5).

    Args:
        logits, targets, pos_weight: as in `bce`.
        gamma: at least 0; 0 gives `bce`.
        alpha: in [0, 1]: the present weigh alpha, the absent 1 - alpha (the paper's 0.25). By default neither
            is weighted, since `pos_weight` balances them.

    Raises:
        RecipeError: gamma or alpha out of range.
    """
    _require(gamma >= 0, f"--loss focal: gamma is {gamma}, expected at least 0")
    if alpha is not None:
        check_kind("--loss focal: alpha", alpha, 0.0)
        _require(0 <= alpha <= 1, f"--loss focal: alpha is {alpha}, expected 0 to 1")
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    # powers through logarithms: p ** gamma has no finite gradient at p = 0 where gamma is below 1
    present = -torch.exp(gamma * log_not_p) * log_p
    absent = -torch.exp(gamma * log_p) * log_not_p
    if alpha is not None:
        present, absent = alpha * present, (1 - alpha) * absent
    return _combine(present, absent, targets, pos_weight)


def asl(
    logits: Tensor,
    targets: Tensor,
    *,
    pos_weight: Tensor | None = None,
    gamma_neg: float = 4.0,
    gamma_pos: float = 0.0,
    clip: float = 0.05,
    ramp_epochs: int = 0,
    epoch: int | None = None,
) -> Tensor:
    """Asymmetric loss (Ridnik et al. 2021): the absent have their own focusing and a shifted probability.

    Present: (1 - p)^gamma_pos * -log p. Absent: p_m^gamma_neg * -log(1 - p_m), with p_m = max(p - clip, 0).

    Args:
        logits, targets, pos_weight: as in `bce`.
        gamma_neg: focusing of the absent, at least 0.
        gamma_pos: focusing of the present, at least 0.
        clip: the margin m in [0, 1): an absent attribute with a probability below m costs nothing.
            With all three 0 it is `bce`.
        ramp_epochs: over so many epochs the focusing of the absent grows in even steps from gamma_pos to gamma_neg,
            since a network that knows nothing yet learns little of what it is told to overlook; 0: none.
        epoch: of the training, counted from 0; see `loss_at`. None: full strength.

    Raises:
        RecipeError: a setting out of range.
    """
    _require(gamma_neg >= 0, f"--loss asl: gamma_neg is {gamma_neg}, expected at least 0")
    _require(gamma_pos >= 0, f"--loss asl: gamma_pos is {gamma_pos}, expected at least 0")
    _require(0 <= clip < 1, f"--loss asl: clip is {clip}, expected 0 up to, but not, 1")
    _require(ramp_epochs >= 0, f"--loss asl: ramp_epochs is {ramp_epochs}, expected at least 0")
    if epoch is not None and epoch < ramp_epochs:
        gamma_neg = gamma_pos + (gamma_neg - gamma_pos) * epoch / ramp_epochs
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    present = -torch.exp(gamma_pos * log_not_p) * log_p
    if clip == 0:
        absent = -torch.exp(gamma_neg * log_p) * log_not_p
    else:
        # never quite 0, where a power has no finite gradient; the clamp's own gradient there is 0
        shifted = (torch.sigmoid(logits) - clip).clamp(min=torch.finfo(logits.dtype).tiny)
        absent = -(shifted**gamma_neg) * torch.log1p(-shifted)
    return _combine(present, absent, targets, pos_weight)


LOSSES: dict[str, Callable[..., Tensor]] = {"bce": bce, "focal": focal, "asl": asl}


@dataclass(frozen=True, slots=True)
class BuiltLoss:
    """A loss bound to its settings, which refuses what is not elementwise. `build_loss` makes one.

    function: of (logits, targets) and `keywords`.
    what: how a message calls it.
    """

    function: Callable[..., Any]
    keywords: Mapping[str, Any]
    what: str

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """One value a cell.

        Raises:
            RecipeError: the function returned something else.
        """
        losses = self.function(logits, targets, **self.keywords)
        if isinstance(losses, Tensor) and losses.shape == logits.shape:
            return losses
        kind = type(losses).__name__
        found = f"a tensor of shape {list(losses.shape)}" if isinstance(losses, Tensor) else kind
        raise RecipeError(
            f"{self.what}: returned {found}, expected an elementwise [B, A] = {list(logits.shape)}; "
            "reduce nothing (in PyTorch: reduction='none')"
        )


def build_loss(name: str, *, pos_weight: Tensor | None, settings: Mapping[str, Any]) -> BuiltLoss:
    """The loss called `name`, bound to its settings.

    Args:
        name: a key of `LOSSES`, or `package.module:function` of a function of (logits, targets).
        pos_weight: float32 [A] on the model's device, or None; passed on where the function takes it.
        settings: what the function takes as keywords. One that only another loss takes is left out.

    Returns:
        A function that checks the shape of what the named one returns.

    Raises:
        RecipeError: an unknown name, a setting that nothing takes or out of range; at its first call a loss
            that is not elementwise.
    """
    what = f"--loss {name}"
    function = look_up(LOSSES, name, "--loss")
    _require("pos_weight" not in settings, f"{what}: pos_weight is no setting of a loss; use --pos-weight")
    _require("epoch" not in settings, f"{what}: epoch is no setting of a loss; training counts them itself")
    keywords = settings_for(function, settings, LOSSES, what, positional=2)
    if pos_weight is not None and takes_pos_weight(name):
        keywords["pos_weight"] = pos_weight
    loss = BuiltLoss(function, keywords, what)
    if name in LOSSES:  # a wrong setting shows before anything is trained
        blank = torch.zeros(1, 1 if pos_weight is None else pos_weight.numel(), device=_device(pos_weight))
        loss(blank, blank)
    return loss


def loss_at(loss: Loss, epoch: int) -> Loss:
    """The loss as an epoch of training has it: of one that `build_loss` made, and that has a parameter `epoch`.

    Any other is the same in all epochs. Without this the parameter keeps its default: validation compares epochs, so
    it takes the loss at full strength.

    Args:
        epoch: counted from 0 through all stages.
    """
    if not isinstance(loss, BuiltLoss):
        return loss
    if "epoch" not in (setting_names(loss.function, loss.what, positional=2) or ()):
        return loss
    return dataclasses.replace(loss, keywords={**loss.keywords, "epoch": epoch})


def takes_pos_weight(name: str) -> bool:
    """Whether the loss called `name` has a parameter `pos_weight` (or takes every keyword)."""
    takes = setting_names(look_up(LOSSES, name, "--loss"), f"--loss {name}", positional=2)
    return takes is None or "pos_weight" in takes


def masked_loss(
    loss: Loss, logits: Tensor, labels: Tensor, unknowns: Selective | None = None
) -> tuple[Tensor, Tensor]:
    """The sum of a loss over the labels that count, and how many they are.

    Args:
        loss: elementwise, as `build_loss` gives it.
        logits: float32 [B, A].
        labels: float32 [B, A] on the same device, NaN where unknown.
        unknowns: which unknown cells count as absent; None: known labels count alone.

    Returns:
        `(sum, counted)`: scalars, float32 and int64; both 0 where nothing counts. The gradient of a cell that does
        not is 0.
    """
    targets, counted = split_missing(labels)
    losses = loss(logits, targets)
    if unknowns is not None:
        absent = unknowns.absent(logits, labels)
        losses = torch.where(absent, unknowns.factor(logits) * losses, losses)
        counted = counted | absent
    return losses.masked_fill(~counted, 0.0).sum(), counted.sum()


def count_cells(labels: Tensor, unknowns: Selective | None = None) -> int:
    """How many cells of labels [B, A] will count in `masked_loss`, whatever the logits."""
    known = int(split_missing(labels)[1].sum())
    return known if unknowns is None else known + int(unknowns.count(labels))


def pos_weight_from(labels: NDArray[np.float32], cap: float = 10.0) -> NDArray[np.float32]:
    """Negatives divided by positives of each attribute, among known labels.

    Args:
        labels: [N, A] of the training subset alone, NaN where unknown.
        cap: at least 1; the quotient is kept within [1/cap, cap], so that one attribute with three positives
            in a thousand does not drown the others.

    Returns:
        float32 [A]; 1 for an attribute without a known positive or without a known negative.

    Raises:
        RecipeError: `cap` below 1.
    """
    _require(cap >= 1, f"--pos-weight: its cap is {cap}, expected at least 1")
    values, known = split_missing(labels)
    positives = values.sum(axis=0, dtype=np.float64)
    negatives = known.sum(axis=0) - positives
    both = (positives > 0) & (negatives > 0)
    quotient = np.divide(negatives, positives, out=np.ones_like(positives), where=both)
    weights: NDArray[np.float32] = np.clip(quotient, 1 / cap, cap).astype(np.float32)
    return weights


def _combine(present: Tensor, absent: Tensor, targets: Tensor, pos_weight: Tensor | None) -> Tensor:
    """The two terms weighted by the targets, which may lie between 0 and 1."""
    if pos_weight is not None:
        present = pos_weight * present
    return targets * present + (1 - targets) * absent


def _device(tensor: Tensor | None) -> torch.device:
    return torch.device("cpu") if tensor is None else tensor.device


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise RecipeError(message)
