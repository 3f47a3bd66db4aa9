"""Averages of weights: a moving one along the training, and that of a run's best epochs (a soup)."""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlcls.errors import RecipeError

Weights = Mapping[str, Tensor]
"""Weights by name: of a run, those that differ from the ones that it began with."""

STEPS = "steps taken"  # beside the weights in a moving average's state; no parameter has such a name
_LATER = 10.0  # of the warm-up: after n steps the decay is at most (1 + n) / (10 + n)


class Ema:
    """An exponential moving average of what trains in a model: average = d * average + (1 - d) * weights.

    After n steps d is the lesser of `decay` and (1 + n) / (10 + n), so that the first weights are soon forgotten
    (as tf.train.ExponentialMovingAverage has it). BatchNorm's running statistics are averaged alike; what counts
    (num_batches_tracked) is copied. The averages lie on the model's device, in float32.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Args: model: whose parameters the stages of a training share; decay: at least 0, below 1.

        Raises:
            RecipeError: decay is out of range.
        """
        if not 0 <= decay < 1:
            raise RecipeError(f"--ema: {decay}, expected at least 0 and below 1")
        self.decay = decay
        self._model = model
        self._followed: dict[str, Tensor] = {}  # the model's own: what trains, and statistics that move
        self._average: dict[str, Tensor] = {}
        self._raw: dict[str, Tensor] | None = None  # while the model holds the averages
        self._steps = 0

    def restart(self) -> None:
        """Begin anew with the weights as they are, over what trains now.

        To be called when a stage begins, the model in training mode and what is frozen in eval mode: statistics of
        modules in eval mode do not move.
        """
        self._steps = 0
        moving = {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in self._model.named_modules()
            if module.training
            for name, _ in module.named_buffers(recurse=False)
        }
        self._followed = {
            name: tensor.detach()
            for name, tensor in self._model.state_dict(keep_vars=True).items()
            if tensor.requires_grad or name in moving
        }
        self._average = {name: tensor.clone() for name, tensor in self._followed.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights in; to be called after each step that the optimizer took.

        Raises:
            RuntimeError: `restart` was never called, or the model holds the averages (`swapped_in`).
        """
        if not self._average or self._raw is not None:
            raise RuntimeError("a moving average is updated within a stage, and not while the model holds it")
        share = 1 - min(self.decay, (1 + self._steps) / (_LATER + self._steps))
        averages: list[Tensor] = []
        weights: list[Tensor] = []
        for name, tensor in self._followed.items():
            if tensor.is_floating_point():
                averages.append(self._average[name])
                weights.append(tensor)
            else:
                self._average[name].copy_(tensor)
        torch._foreach_lerp_(averages, weights, share)
        self._steps += 1

    @contextmanager
    def swapped_in(self) -> Generator[None]:
        """Within it, the model holds the averages, in the very tensors that all who share its parameters see.

        Afterwards its weights are back, bit by bit.
        """
        self._raw = {name: tensor.clone() for name, tensor in self._followed.items()}
        try:
            _write(self._average, self._followed)
            yield
        finally:
            _write(self._raw, self._followed)
            self._raw = None

    def raw_weights(self) -> dict[str, Tensor]:
        """Copies, on the CPU, of the training's own weights while the model holds the averages; else nothing.

        A checkpoint that is made in the middle of a validation keeps these in the place of the model's.
        """
        return {name: tensor.to("cpu", copy=True) for name, tensor in (self._raw or {}).items()}

    def state(self) -> dict[str, Tensor]:
        """Copies of the averages, on the CPU, by the names that the weights have, and the number of steps."""
        state = {name: tensor.to("cpu", copy=True) for name, tensor in self._average.items()}
        state[STEPS] = torch.tensor(self._steps, dtype=torch.int64)
        return state

    @torch.no_grad()
    def load_state(self, state: Weights) -> None:
        """Go on from a state, after `restart` in the same stage; the next averages are those that would have been.

        Raises:
            KeyError, RuntimeError: it is of another stage or another network.
        """
        if other := set(self._average) ^ (set(state) - {STEPS}):
            raise KeyError(f"the averages are of other weights: {sorted(other)[:3]}")
        for name, average in self._average.items():
            average.copy_(state[name])  # in the memory format of the weights, for the same rounding
        self._steps = int(state[STEPS])


@torch.no_grad()
def _write(source: Weights, target: Weights) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


def average_weights(several: Sequence[Weights], first: Weights) -> dict[str, Tensor]:
    """The mean of several weights, each given by what differs from the same first ones.

    Args:
        several: at least one.
        first: every weight that one of them holds.

    Returns:
        what any of them holds: the mean, summed in float64 and rounded once; of what counts (integers), the first's.
        Of one alone it is that one, bit by bit.
    """
    names = dict.fromkeys(name for weights in several for name in weights)
    return {name: _mean([weights.get(name, first[name]) for weights in several]) for name in names}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    one = tensors[0]
    if len(tensors) == 1 or not one.is_floating_point():
        return one.clone()
    total = one.to(torch.float64)
    for other in tensors[1:]:
        total = total + other
    return torch.empty_like(one).copy_(total / len(tensors))


@dataclass(frozen=True)
class Ingredient:
    """An epoch that may go into a soup.

    figure: the monitored one; weights: those that differ from the run's first ones.
    """

    epoch: int
    figure: float
    weights: Weights


def keep_best(
    kept: Sequence[Ingredient], new: Ingredient, most: int, *, higher_is_better: bool
) -> list[Ingredient]:
    """The best ingredients, best first, at most so many; of equal ones the earlier epoch is the better.

    One whose figure is not finite is not taken in.
    """
    if not math.isfinite(new.figure):
        return list(kept)
    sign = -1 if higher_is_better else 1
    return sorted([*kept, new], key=lambda one: (sign * one.figure, one.epoch))[:most]


@dataclass(frozen=True)
class Soup:
    """An average of epochs. epochs: those in it, in the order they were taken in; score: its own, higher is better."""

    epochs: tuple[int, ...]
    weights: dict[str, Tensor]
    score: float


def greedy_soup(ingredients: Sequence[Ingredient], first: Weights, score: Callable[[Weights], float]) -> Soup:
    """The greedy soup of Wortsman et al. 2022 (algorithm 1): the best epoch, then each next one that does no harm.

    An ingredient stays in when the score of the average with it is at least that without it. Running statistics of
    BatchNorm are averaged as weights are; where that does not fit, the score is worse and the ingredient stays out.

    Args:
        ingredients: best first, at least one.
        first: the weights that all ingredients began with.
        score: of weights (as an ingredient's): the higher the better; NaN is never taken in.

    Raises:
        ValueError: no ingredients.
    """
    if not ingredients:
        raise ValueError("a soup needs an ingredient")
    chosen = [ingredients[0]]
    weights = average_weights([ingredients[0].weights], first)
    best = score(weights)
    for ingredient in ingredients[1:]:
        tried = average_weights([*(one.weights for one in chosen), ingredient.weights], first)
        found = score(tried)
        if found >= best:
            chosen.append(ingredient)
            weights, best = tried, found
    return Soup(tuple(one.epoch for one in chosen), weights, best)
