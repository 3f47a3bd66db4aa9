"""Schedules: how the learning rate moves within a stage, after each step and after each epoch.

Where groups of parameters have rates of their own (layer-wise decay), every schedule keeps their ratios.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from mlcls.errors import RecipeError
from mlcls.learning.settings import check_kind, settings_for
from mlcls.naming import look_up


@dataclass(frozen=True, slots=True)
class Course:
    """How long a stage is meant to be: what the schedules are laid out over.

    steps_per_epoch: optimizer steps an epoch; epochs: of the stage; warmup_steps: at most all of them.
    """

    steps_per_epoch: int
    epochs: int
    warmup_steps: int
    warmup_factor: float

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole stage."""
        return self.steps_per_epoch * self.epochs


@dataclass(frozen=True, slots=True)
class Schedule:
    """Moves the learning rates of one optimizer. The state is PyTorch's own schedulers', see `parts`.

    by_step: advanced together after each optimizer step; their factors multiply.
    plateau: advanced after an epoch, once the warm-up is over.
    """

    course: Course
    by_step: tuple[LRScheduler, ...]
    plateau: ReduceLROnPlateau | None = None

    @property
    def parts(self) -> tuple[LRScheduler, ...]:
        """Every scheduler that holds state, in a fixed order."""
        return self.by_step if self.plateau is None else (*self.by_step, self.plateau)

    def after_step(self) -> None:
        """Call after each step that the optimizer took, and not after one that was skipped."""
        # past its end a cosine would rise again
        if self.by_step and self._steps_done() < self.course.steps:
            for scheduler in self.by_step:
                scheduler.step()

    def after_epoch(self, val_loss: float | None) -> None:
        """Call after each epoch with its validation loss; None or NaN (`plateau` ignores it) without one.

        Steps that were skipped are caught up here, so that what was laid out over epochs falls on epochs.
        An epoch without a single step does not count.
        """
        while self._steps_done() % self.course.steps_per_epoch:
            self.after_step()
        if self.plateau is None or val_loss is None or math.isnan(val_loss):
            return
        if not self.by_step or self._steps_done() >= self.course.warmup_steps:
            self.plateau.step(val_loss)

    def _steps_done(self) -> int:
        return self.by_step[0].last_epoch if self.by_step else 0


def none(optimizer: Optimizer, course: Course) -> Schedule:
    """The learning rate stays (after the warm-up, if there is one)."""
    return Schedule(course, _warmup(optimizer, course))


def step(optimizer: Optimizer, course: Course, *, step_size: int = 10, gamma: float = 0.1) -> Schedule:
    """Times `gamma` after every `step_size` epochs, counted from the stage's first."""
    _require(step_size >= 1, f"--schedule step: step_size is {step_size}, expected 1 epoch or more")
    _require(0 < gamma <= 1, f"--schedule step: gamma is {gamma}, expected above 0 and at most 1")
    drops = StepLR(optimizer, step_size * course.steps_per_epoch, gamma)
    return Schedule(course, (drops, *_warmup(optimizer, course)))


def plateau(
    optimizer: Optimizer,
    course: Course,
    *,
    factor: float = 0.1,
    patience: int = 2,
    threshold: float = 1e-4,
    min_lr: float = 0.0,
) -> Schedule:
    """Times `factor` when the validation loss has not fallen for more than `patience` epochs.

    `threshold` is the fall, relative to the best loss, below which it does not count; `min_lr` is the floor of the
    highest rate.
    """
    _require(0 < factor < 1, f"--schedule plateau: factor is {factor}, expected between 0 and 1")
    _require(min_lr >= 0, f"--schedule plateau: min_lr is {min_lr}, expected 0 or more")
    _require(patience >= 0, f"--schedule plateau: patience is {patience}, expected 0 or more")
    ratios = [group["lr"] / _highest(optimizer) for group in optimizer.param_groups]
    floors = [min_lr * ratio for ratio in ratios]
    least = 1e-8 if min(ratios) == 1 else 0.0  # a fall by less than that PyTorch leaves out, group by group
    warmup = _warmup(optimizer, course)
    falls = ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, threshold=threshold, min_lr=floors, eps=least
    )
    return Schedule(course, warmup, falls)


def cosine(optimizer: Optimizer, course: Course, *, min_lr: float = 0.0) -> Schedule:
    """Half a cosine from the (highest) learning rate to `min_lr`, by steps, over what the warm-up leaves of the stage.

    Loshchilov and Hutter 2017, equation 5, without restarts.
    """
    highest = _highest(optimizer)
    _require(
        0 <= min_lr <= highest, f"--schedule cosine: min_lr is {min_lr}, expected 0 to the rate {highest}"
    )
    alike = len({group["lr"] for group in optimizer.param_groups}) == 1
    warmup = _warmup(optimizer, course)
    left = course.steps - course.warmup_steps
    if left < 1:  # a stage no longer than its warm-up only warms up
        return Schedule(course, warmup)
    fall: LRScheduler
    if alike or min_lr == 0:
        fall = CosineAnnealingLR(optimizer, T_max=left, eta_min=min_lr)
    else:  # PyTorch's has one floor for all rates, at which they would meet
        floor = min_lr / highest
        fall = LambdaLR(
            optimizer, lambda done: floor + (1 - floor) * (1 + math.cos(math.pi * done / left)) / 2
        )
    if not warmup:
        return Schedule(course, (fall,))
    both = SequentialLR(optimizer, [*warmup, fall], milestones=[course.warmup_steps])
    return Schedule(course, (both,))


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "none": none,
    "step": step,
    "plateau": plateau,
    "cosine": cosine,
}


def build_schedule(
    name: str,
    optimizer: Optimizer,
    *,
    steps_per_epoch: int,
    epochs: int,
    settings: Mapping[str, Any],
) -> Schedule:
    """The schedule called `name` for one stage. A warm-up lowers the optimizer's learning rate at once.

    Args:
        name: a key of `SCHEDULES`, or `package.module:function`, called as
            `function(optimizer, course, **settings)`.
        optimizer: freshly built for the stage.
        steps_per_epoch: optimizer steps an epoch, at least 1.
        epochs: of the stage, at least 1.
        settings: `warmup_epochs` (0; may be a fraction) and `warmup_factor` (0.01: what the learning rate
            begins at, as a part of itself), which every schedule has; the others as in the schedule's own
            function. One that only another schedule takes is left out.

    Raises:
        RecipeError: an unknown name, a setting that nothing takes or out of range.
    """
    what = f"--schedule {name}"
    function = look_up(SCHEDULES, name, "--schedule")
    own = dict(settings)
    warmup_epochs, factor = own.pop("warmup_epochs", 0.0), own.pop("warmup_factor", 0.01)
    check_kind(f"{what}: warmup_epochs", warmup_epochs, 0.0)
    check_kind(f"{what}: warmup_factor", factor, 0.01)
    _require(warmup_epochs >= 0, f"{what}: warmup_epochs is {warmup_epochs}, expected 0 or more")
    _require(0 < factor <= 1, f"{what}: warmup_factor is {factor}, expected above 0 and at most 1")
    keywords = settings_for(function, own, SCHEDULES, what, positional=2)
    warmup_steps = min(round(warmup_epochs * steps_per_epoch), steps_per_epoch * epochs)
    return function(optimizer, Course(steps_per_epoch, epochs, warmup_steps, factor), **keywords)


def _warmup(optimizer: Optimizer, course: Course) -> tuple[LRScheduler, ...]:
    """A straight rise from `warmup_factor` to 1, in steps; nothing where there is none."""
    if not course.warmup_steps:
        return ()
    return (LinearLR(optimizer, start_factor=course.warmup_factor, total_iters=course.warmup_steps),)


def _highest(optimizer: Optimizer) -> float:
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise RecipeError(message)
