"""The generator of epochs: trains stage after stage, an epoch a turn; what comes between is its caller's."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import torch
from torch import nn
from torch.optim import Optimizer

from mlcls.errors import NumericalError
from mlcls.learning.batchnorm import moving_buffers
from mlcls.learning.losses import Loss, loss_at
from mlcls.learning.schedules import Schedule
from mlcls.learning.steps import Batch, Step, Stepper, build_stepper, take_step
from mlcls.learning.unknowns import Selective


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of epochs with its own frozen part, optimizer and schedule.

    epochs: at most so many; with 0 the stage is passed over.
    begin: called when the stage begins; freezes and unfreezes, and builds the two anew.
    """

    name: str
    epochs: int
    begin: Callable[[], tuple[Optimizer, Schedule]]


@dataclass(slots=True)
class Feedback:
    """What the caller found out between two epochs; `run_epochs` reads it and clears it when it goes on.

    val_loss: for a schedule that looks at it (plateau); None where there is none.
    next_stage: end the stage here. In the last stage that ends the training.
    """

    val_loss: float | None = None
    next_stage: bool = False


@dataclass(slots=True)
class Position:
    """Where a training stands between two steps: with weights, optimizer and schedule, all that the next one needs.

    epoch, stage: counted from 0 through all stages; first: the epoch at which the stage began.
    losses: of the epoch's steps so far, as `TrainedEpoch.iteration_losses`.
    loss_sum, known: over the epoch's steps so far; images, skipped, seconds: likewise.
    lr: at the epoch's start.
    bad: image indices of the last steps in a row that were not finite.
    ended: the epoch is over, and the caller has taken its figures in.
    """

    epoch: int = 0
    stage: int = 0
    first: int = 0
    losses: list[float | None] = field(default_factory=list)
    loss_sum: float = 0.0
    known: int = 0
    images: int = 0
    skipped: int = 0
    seconds: float = 0.0
    lr: float = 0.0
    bad: list[tuple[int, ...]] = field(default_factory=list)
    ended: bool = False

    def begin_epoch(self, epoch: int) -> None:
        """Nothing of that epoch is done yet."""
        self.epoch, self.losses, self.ended = epoch, [], False
        self.loss_sum, self.known, self.images, self.skipped, self.seconds = 0.0, 0, 0, 0, 0.0

    def begin_stage(self, stage: int) -> None:
        """A stage begins with the epoch that the last one would have gone on with."""
        self.stage, self.first, self.bad = stage, self.epoch, []


@dataclass(slots=True)
class Running:
    """A training as it runs: `run_epochs` keeps it up to date, and a checkpoint is made of it.

    position: where it stands. One that is given goes on from there: the model has its weights already, and
        `batches` is asked for the epoch, of which `len(position.losses)` steps are done.
    stepper: of the stage that runs; None before the first.
    restore: called once with the first stepper, to load its optimizer, schedule and scaler; None in a new training.
    """

    position: Position = field(default_factory=Position)
    stepper: Stepper | None = None
    restore: Callable[[Stepper], None] | None = None


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One optimizer step, as `on_step` gets it.

    epoch, stage: counted from 0 through all stages; step: from 0 in the epoch.
    loss: over the labels of the step that count; None where it was skipped or none does.
    images, known: how many images, and labels that count, it had.
    skipped: its loss or gradient was not finite.
    lr: the learning rate after it.
    """

    epoch: int
    stage: int
    step: int
    loss: float | None
    images: int
    known: int
    skipped: bool
    lr: float


@dataclass(frozen=True, slots=True)
class TrainedEpoch:
    """One epoch of training.

    epoch: counted from 0 through all stages; stage: index of its stage.
    train_loss: sum of the losses over the number of labels that count, of the steps taken; None where none was.
    iteration_losses: the same of each optimizer step, in order; None where no step was taken.
    lr: at the epoch's start (the highest, where groups differ).
    seconds: of training, reading the batches included; images_per_second: of the same time.
    skipped_steps: those whose loss or gradient was not finite.
    """

    epoch: int
    stage: int
    train_loss: float | None
    iteration_losses: tuple[float | None, ...]
    lr: float
    seconds: float
    images: int
    images_per_second: float
    skipped_steps: int


def run_epochs(
    model: nn.Module,
    stages: Sequence[Stage],
    batches: Callable[[int], Iterable[Batch]],
    loss: Loss,
    *,
    device: torch.device,
    precision: str = "fp32",
    clip_norm: float | None = None,
    accumulate: int = 1,
    unknowns: Selective | None = None,
    train_mode: Callable[[nn.Module], object] = nn.Module.train,
    on_step: Callable[[StepInfo], None] | None = None,
    feedback: Feedback | None = None,
    running: Running | None = None,
    give_up_after: int = 10,
) -> Generator[TrainedEpoch]:
    """Train; each turn of the generator is one epoch.

        feedback = Feedback()
        for epoch in run_epochs(..., feedback=feedback):
            feedback.val_loss = validate(model)
            feedback.next_stage = patience_has_run_out()

    `break` ends the training. Nothing is computed before the first turn is asked for.

    Args:
        model: on `device`; pixels uint8 [B, 3, S, S] in, logits [B, A] out.
        stages: in order.
        batches: the batches of an epoch, given its number; of one that goes on, those that are left. They may hold any
            number of images, one as well.
        loss: elementwise, as `build_loss` gives it; it sees float32 logits and never an unknown label. Each epoch
            has it as `loss_at` gives it.
        device: where the batches are moved.
        precision: fp32, bf16 or fp16: of the forward pass.
        clip_norm: the gradient's norm is cut to it; None leaves it.
        accumulate: how many batches make one step; they are held together, and weigh as one batch.
        unknowns: which unknown labels count as absent; None: none.
        train_mode: puts the model into training mode before each epoch (and frozen parts into eval mode).
        on_step: called after each step; what it raises ends the training between two steps.
        feedback: what the caller writes between the epochs.
        running: kept up to date; see there for a training that goes on. A caller that keeps checkpoints sets
            `running.position.ended` once it has taken an epoch's figures in.
        give_up_after: steps in a row whose loss or gradient is not finite, after which the training fails.
            Each of them is skipped; fp16's search for its loss scale does not count.

    Raises:
        NumericalError: `give_up_after` such steps in a row, with the `indices` of their images; or the
            memory gave out.
        RecipeError: an unknown precision, a clip_norm out of range, a loss that is not elementwise.
    """
    feedback = Feedback() if feedback is None else feedback
    running = Running() if running is None else running
    position = running.position
    for index in range(position.stage, len(stages)):
        if stages[index].epochs < 1:
            continue
        optimizer, schedule = stages[index].begin()
        running.stepper = build_stepper(
            model,
            loss,
            optimizer,
            schedule,
            device=device,
            precision=precision,
            clip_norm=clip_norm,
            unknowns=unknowns,
        )
        if running.restore is None:
            position.begin_stage(index)
        else:
            running.restore(running.stepper)
            running.restore = None
        while position.epoch < position.first + stages[index].epochs:
            if not position.ended:
                train_mode(model)
                running.stepper = replace(running.stepper, loss=loss_at(loss, position.epoch))
                groups = _in_groups(batches(position.epoch), accumulate)
                yield _train_epoch(running.stepper, groups, position, give_up_after, on_step)
            schedule.after_epoch(feedback.val_loss)
            stage_is_over = feedback.next_stage
            feedback.val_loss, feedback.next_stage = None, False
            position.begin_epoch(position.epoch + 1)
            if stage_is_over:
                break


def _train_epoch(
    stepper: Stepper,
    groups: Iterable[list[Batch]],
    position: Position,
    give_up_after: int,
    on_step: Callable[[StepInfo], None] | None,
) -> TrainedEpoch:
    """The steps of an epoch that are left, summed up with those that were done before."""
    _check_finite(position, give_up_after)  # a checkpoint may be older than the look at its last step
    start = time.perf_counter() - position.seconds
    if not position.losses:
        position.lr = _highest_lr(stepper.optimizer)
    buffers = moving_buffers(stepper.model)
    for group in groups:
        step = take_step(stepper, group, buffers)
        size = sum(len(pixels) for pixels, _, _ in group)
        position.images += size
        position.skipped += not step.finite
        position.losses.append(None if step.loss_sum is None else step.loss_sum / step.known)
        if step.loss_sum is not None:
            position.loss_sum, position.known = position.loss_sum + step.loss_sum, position.known + step.known
        _look(position, step, group)
        position.seconds = time.perf_counter() - start
        if on_step is not None:
            lr, at = _highest_lr(stepper.optimizer), len(position.losses) - 1
            not_finite = not step.finite
            on_step(
                StepInfo(
                    position.epoch, position.stage, at, position.losses[-1], size, step.known, not_finite, lr
                )
            )
        _check_finite(position, give_up_after)
    position.seconds = seconds = time.perf_counter() - start
    return TrainedEpoch(
        epoch=position.epoch,
        stage=position.stage,
        train_loss=position.loss_sum / position.known if position.known else None,
        iteration_losses=tuple(position.losses),
        lr=position.lr,
        seconds=seconds,
        images=position.images,
        images_per_second=position.images / seconds if seconds > 0 else 0.0,
        skipped_steps=position.skipped,
    )


def _look(position: Position, step: Step, group: list[Batch]) -> None:
    """Count the steps in a row, over a whole stage, that were not finite."""
    if step.overflow or step.known == 0:
        return
    if step.finite:
        position.bad.clear()
        return
    position.bad.append(tuple(int(index) for _, _, indices in group for index in indices))


def _check_finite(position: Position, limit: int) -> None:
    """NumericalError where so many steps in a row were not finite."""
    if len(position.bad) >= limit:
        raise NumericalError(
            f"epoch {position.epoch}: the loss or its gradient was not finite in {limit} steps in a row; "
            "lower the learning rates (--lr-head, --lr-finetune), or try --precision fp32",
            indices=tuple(dict.fromkeys(index for step_indices in position.bad for index in step_indices)),
        )


def _in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Up to `size` batches at a time."""
    source = iter(batches)
    while group := list(islice(source, size)):
        yield group


def _highest_lr(optimizer: Optimizer) -> float:
    return max(float(group["lr"]) for group in optimizer.param_groups)
