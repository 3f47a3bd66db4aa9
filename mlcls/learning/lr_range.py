"""The learning-rate range test: the loss as the rate grows from step to step, and which rate that speaks for."""

import copy
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer

from mlcls.errors import RecipeError
from mlcls.learning.batchnorm import lone_values_allowed, moving_buffers
from mlcls.learning.losses import Loss, count_cells, masked_loss
from mlcls.learning.plain_state import restore_optimizer
from mlcls.learning.schedules import Course, Schedule
from mlcls.learning.steps import Batch, Stepper, build_stepper, take_step
from mlcls.learning.unknowns import Selective

STEPS = 100
DIVERGED = 4.0  # times the lowest loss so far, at which the test ends
_SPAN = 0.04  # of the whole range in decades: the width of the window that lines are fitted in
_SURE = 3.5  # standard errors that a slope must lie below 0
_LEAST = 0.005  # of the first loss: a lesser fall is none
_FEWEST = 10  # steps; of fewer nothing can be said
_NORMAL = 1.4826  # standard deviation over median of a normal distribution's absolute values

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LrCurve:
    """What a range test saw. rates, losses: float64 [n], of each step, the loss being that after it; n may be 0.

    diverged: it ended before its last step, since the loss had grown, or was not finite any more.
    """

    rates: Floats
    losses: Floats
    diverged: bool


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Learning rates that a curve speaks for; None where its loss nowhere falls for sure.

    steepest: where the loss falls fastest. tenth: a tenth of the rate at which it is lowest.
    """

    steepest: float | None
    tenth: float | None


@contextmanager
def all_put_back(model: nn.Module, optimizer: Optimizer, device: torch.device) -> Generator[None]:
    """Whatever is trained within it: afterwards all is as before, bit by bit, and gradients are gone.

    All: weights, buffers, each module's mode, the optimizer, the state of random numbers.
    """
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    modes = {module: module.training for module in model.modules()}
    state = copy.deepcopy(optimizer.state_dict())
    chance = torch.get_rng_state()
    of_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        for module, mode in modes.items():
            module.training = mode
        restore_optimizer(optimizer, state)
        optimizer.zero_grad(set_to_none=True)
        torch.set_rng_state(chance)
        if of_device is not None:
            torch.cuda.set_rng_state(of_device, device)


def still_stepper(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    *,
    device: torch.device,
    precision: str,
    clip_norm: float | None,
    unknowns: Selective | None = None,
) -> Stepper:
    """A stepper whose learning rates no schedule moves; see `build_stepper`."""
    still = Schedule(Course(1, 1, 0, 1.0), ())
    return build_stepper(
        model,
        loss,
        optimizer,
        still,
        device=device,
        precision=precision,
        clip_norm=clip_norm,
        unknowns=unknowns,
    )


def range_test(
    stepper: Stepper,
    steps: Iterable[list[Batch]],
    probe: Sequence[Batch],
    number: int = STEPS,
    *,
    lr_min: float = 1e-6,
    lr_max: float = 1.0,
    on_step: Callable[[int], object] | None = None,
) -> LrCurve:
    """Train with a learning rate that grows from step to step by the same factor (Smith 2017, section 3.3).

    The loss is that of the same images after each step, in the way of training, with the same dropout: a loss of each
    step's own batch, as in the paper, differs more from batch to batch than from rate to rate where batches are small.
    The test ends early where the loss is `DIVERGED` times its lowest. Weights, BatchNorm's statistics, the optimizer
    and the state of random numbers are as before when it is over; see `all_put_back`.

    Args:
        stepper: as `still_stepper` makes it; its model in training mode. Groups with rates of their own keep the
            ratios; the rates of the curve are the highest group's.
        steps: the batches of each step, at least `number`; what is left over is not read.
        probe: the batches that the loss is of, with a known label among them.
        number: steps at most, from 2 on.
        lr_min, lr_max: above 0, rising.
        on_step: told the number of each step that is done, from 0.

    Raises:
        RecipeError: the numbers are out of range, or no label of `probe` is known.
        NumericalError: the device's memory gave out.
    """
    if number < 2 or not 0 < lr_min < lr_max < math.inf:
        raise RecipeError(
            f"a range test takes 2 steps or more, over rising rates above 0; got {number} from {lr_min} to {lr_max}"
        )
    optimizer = stepper.optimizer
    highest = max(float(group["lr"]) for group in optimizer.param_groups)
    ratios = [float(group["lr"]) / highest for group in optimizer.param_groups]
    rates: list[float] = []
    losses: list[float] = []
    diverged = False
    with all_put_back(stepper.model, optimizer, stepper.device):
        buffers = moving_buffers(stepper.model)
        for step, batches in zip(range(number), steps, strict=False):
            rate = lr_min * (lr_max / lr_min) ** (step / (number - 1))
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                group["lr"] = rate * ratio
            taken = take_step(stepper, batches, buffers)
            loss = _loss_of(stepper, probe)
            if on_step is not None:
                on_step(step)
            lost = not taken.finite and not taken.overflow  # overflow: fp16 looks for its scale
            if lost or not math.isfinite(loss):
                diverged = True
                break
            rates.append(rate)
            losses.append(loss)
            if loss > DIVERGED * min(losses):
                diverged = True
                break
    return LrCurve(np.array(rates), np.array(losses), diverged)


@torch.no_grad()
def _loss_of(stepper: Stepper, probe: Sequence[Batch]) -> float:
    """The loss of the same batches in the way of training, with the same dropout; chance stays as it is."""
    known = sum(count_cells(labels, stepper.unknowns) for _, labels, _ in probe)
    if known == 0:
        raise RecipeError("a range test needs a known label among the images whose loss it follows")
    half = stepper.dtype != torch.float32
    sums = []
    with torch.random.fork_rng([stepper.device] if stepper.device.type == "cuda" else []):
        torch.manual_seed(0)
        for batch in probe:
            pixels, labels, _ = (tensor.to(stepper.device, non_blocking=True) for tensor in batch)
            autocast = torch.autocast(stepper.device.type, stepper.dtype) if half else nullcontext()
            with autocast, lone_values_allowed(stepper.model) if len(pixels) == 1 else nullcontext():
                logits = stepper.model(pixels)
            sums.append(masked_loss(stepper.loss, logits.float(), labels, stepper.unknowns)[0])
    return float(torch.stack(sums).sum()) / known


def smooth(curve: LrCurve) -> tuple[Floats, Floats, Floats]:
    """The curve as lines see it that are fitted around each point, over the logarithm of the rate.

    Losses far above those of the first steps count as at their level: of these it matters only that they are high.

    Returns:
        the loss [n], its slope a decade [n], and the slope's standard error [n]; NaN where points are too few.
    """
    n = len(curve.rates)
    if n < _FEWEST:
        nothing = np.full(n, np.nan)
        return nothing, nothing.copy(), nothing.copy()
    # differences of neighbours know the noise, whatever the curve; their median, whatever it ends in
    noise = float(np.median(np.abs(np.diff(curve.losses)))) * _NORMAL / math.sqrt(2)
    ceiling = float(np.max(curve.losses[: n // 5])) + 3 * noise
    losses = np.minimum(curve.losses, ceiling)
    x = np.log10(curve.rates)
    width = max(_SPAN * (x[-1] - x[0]), 2 * float(np.max(np.diff(x))))
    weights = np.exp(-0.5 * ((x[:, None] - x[None, :]) / width) ** 2)  # [at, of]
    total = weights.sum(axis=1)
    centre = weights @ x / total
    away = x[None, :] - centre[:, None]
    spread = (weights * away**2).sum(axis=1)
    slope = (weights * away * losses[None, :]).sum(axis=1) / spread
    error = noise * np.sqrt((weights**2 * away**2).sum(axis=1)) / spread
    return weights @ losses / total + slope * (x - centre), slope, error


def suggest(curve: LrCurve) -> Suggestion:
    """Where the loss falls fastest before its lowest point, and a tenth of the rate at that point.

    Both are None where no slope before it lies `_SURE` standard errors below 0, or the loss falls by less than
    `_LEAST` of itself: a curve that is flat, or only rises.
    """
    losses, slopes, errors = smooth(curve)
    if np.isnan(losses).any() or not len(losses):
        return Suggestion(None, None)
    lowest = int(np.argmin(losses))
    falling = slopes[:lowest] < -_SURE * errors[:lowest]
    if not falling.any() or losses[:lowest].max() - losses[lowest] < _LEAST * abs(losses[:lowest].max()):
        return Suggestion(None, None)
    steepest = int(np.argmin(np.where(falling, slopes[:lowest], np.inf)))
    return Suggestion(float(curve.rates[steepest]), float(curve.rates[lowest]) / 10)
