"""What an unknown label counts as in training: nothing, or absent unless that is unlikely (`--na selective`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mlcls.errors import RecipeError
from mlcls.learning.settings import check_kind, settings_for
from mlcls.missing import split_missing
from mlcls.naming import look_up

_UNIT = 2**20  # parts of a cell: whole numbers add up to the same on every device


@dataclass(frozen=True, slots=True, eq=False)
class Selective:
    """Which unknown cells count as absent, and how much. `selective` makes one.

    shares: int64 [A]: how many of the likeliest cells are left out for each unknown cell of an attribute, in parts
        of `_UNIT`; -1 for an attribute whose unknown cells are all left out.
    an_image: the same for each image of a batch, whatever is unknown of it.
    gamma, weight: an unknown cell's loss is multiplied by weight * p^gamma.
    """

    shares: Tensor
    an_image: int
    gamma: float
    weight: float

    def open(self, labels: Tensor) -> Tensor:
        """The unknown cells of attributes that are rare enough, bool [B, A]."""
        return (labels != labels) & (self.shares.to(labels.device) >= 0)

    def left_out(self, open_cells: Tensor) -> Tensor:
        """How many of these cells are left out as the likeliest to be present: an int64 scalar."""
        shares = self.shares.to(open_cells.device).clamp(min=0)
        parts = (open_cells.sum(dim=0) * shares).sum() + len(open_cells) * self.an_image
        return ((parts + _UNIT - 1) // _UNIT).clamp(max=open_cells.sum())

    def count(self, labels: Tensor) -> Tensor:
        """How many cells count as absent though unknown: an int64 scalar, by labels [B, A] alone."""
        open_cells = self.open(labels)
        return open_cells.sum() - self.left_out(open_cells)

    def absent(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The cells that do: the open ones without those of the highest logits of the batch, bool [B, A]."""
        open_cells = self.open(labels)
        at = logits.detach().float().masked_fill(~open_cells, -torch.inf).flatten()
        order = at.argsort(descending=True, stable=True)
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return open_cells & (rank >= self.left_out(open_cells)).view_as(open_cells)

    def factor(self, logits: Tensor) -> Tensor:
        """What an unknown cell's loss is multiplied by, [B, A], at least 0."""
        # a power through logarithms: p ** gamma has no finite gradient at p = 0 where gamma is below 1
        return self.weight * torch.exp(self.gamma * F.logsigmoid(logits))


def ignore(priors: NDArray[np.float64]) -> None:
    """An unknown cell counts as nothing."""


def negative(priors: NDArray[np.float64]) -> None:
    """An unknown cell is absent: whoever gives the labels has said so in them, and none is unknown here."""


def selective(
    priors: NDArray[np.float64],
    *,
    prior_threshold: float = 0.5,
    likely: float = 2.0,
    top_k: float | None = None,
    gamma: float = 4.0,
    weight: float = 1.0,
) -> Selective:
    """Unknown cells count as absent, but for those that are likely present (Ben-Baruch et al., CVPR 2022).

    As in the paper (arXiv 2110.10955), an unknown cell is left out where its attribute is common in the data, or
    where it is among the likeliest by the network's own logits; the others weigh less than the known absent, by
    their own focusing. The likeliest are found among all that is open in a batch, as in the authors' code; cells
    that the first rule leaves out do not take a place among them, so that labels alone say how many cells count.

    The paper leaves out K cells an image, chosen for tables of 80 attributes or thousands. Here by default it is
    `likely` times the number of present labels that the priors let expect among the open cells: it fits tables of
    any width, and how much of a row is unknown.

    Args:
        priors: float64 [A], how common each attribute is; see `priors_from`. NaN: all its unknown cells are left out.
        prior_threshold: eta: an attribute more common than this has all its unknown cells left out; 0 to 1.
        likely: see above; at least 0.
        top_k: the paper's K in its place: so many cells an image, on average over a batch; at least 0.
        gamma: the loss of an unknown cell is multiplied by p^gamma, at least 0. With bce it is the paper's gamma_u,
            and its value there; with asl it adds to gamma_neg: the paper's 4 over 3 is gamma_neg 3 and gamma 1.
        weight: of an unknown cell beside a known one, at least 0.

    Raises:
        RecipeError: a number out of range.
    """
    _at_least_0(likely=likely, gamma=gamma, weight=weight)
    _require(0 <= prior_threshold <= 1, f"prior_threshold is {prior_threshold}, expected 0 to 1")
    cells, an_image = np.minimum(likely * np.nan_to_num(priors), 1.0), 0
    if top_k is not None:
        check_kind("--na selective: top_k", top_k, 0.0)
        _at_least_0(top_k=top_k)
        cells, an_image = np.zeros(len(priors)), int(min(top_k, 1e9) * _UNIT)
    # rounded down, so that three times 2/3 of a cell are not a little more than two
    parts = np.floor(cells * _UNIT).astype(np.int64)
    shares = torch.from_numpy(np.where(priors <= prior_threshold, parts, -1))
    return Selective(shares, an_image, float(gamma), float(weight))


UNKNOWNS: dict[str, Callable[..., Selective | None]] = {
    "ignore": ignore,
    "negative": negative,
    "selective": selective,
}


def build_unknowns(
    name: str, *, priors: NDArray[np.float64], settings: Mapping[str, Any]
) -> Selective | None:
    """What `masked_loss` and `run_epochs` take as `unknowns`: None where no unknown cell counts.

    Args:
        name: a key of `UNKNOWNS`.
        priors: [A], as `priors_from` gives them.
        settings: numbers of `selective`; left out where `name` is another.

    Raises:
        RecipeError: an unknown name, a setting that nothing takes or out of range.
    """
    function = look_up(UNKNOWNS, name, "--na")
    return function(priors, **settings_for(function, settings, UNKNOWNS, f"--na {name}", positional=1))


def priors_from(
    labels: NDArray[np.float32], scores: NDArray[np.float32] | None = None
) -> NDArray[np.float64]:
    """How common each attribute is among these images.

    By labels alone it is the share of the present among the known; unbiased where what is unknown was left out by
    chance. Where only the present were written down (no known absent) it is their share of all images, which is
    too low but no 1. The paper's way, which holds for any kind of sparse labels, is the mean prediction of a network
    trained on the known labels: give its scores.

    Args:
        labels: [N, A] of the training subset, NaN where unknown.
        scores: [N, A] in [0, 1] of a network trained with `--na ignore`, which stand in for what is unknown.

    Returns:
        float64 [A]; NaN for an attribute of which nothing is known, without scores.
    """
    values, known = split_missing(labels)
    if scores is not None:
        mixed: NDArray[np.float64] = np.where(known, values, scores).mean(axis=0, dtype=np.float64)
        return mixed
    positives = values.sum(axis=0, dtype=np.float64)
    counts = known.sum(axis=0)
    among = np.where(positives < counts, counts, np.where(counts > 0, len(labels), 0))
    shares: NDArray[np.float64] = np.divide(
        positives, among, out=np.full(len(among), np.nan), where=among > 0
    )
    return shares


def _at_least_0(**numbers: float) -> None:
    for name, number in numbers.items():
        _require(0 <= number < float("inf"), f"{name} is {number}, expected at least 0")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise RecipeError(f"--na selective: {message}")
