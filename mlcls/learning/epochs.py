"""The generator of epochs: trains stage after stage, an epoch a turn; what comes between is its caller's."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn
from torch.optim import Optimizer

from mlcls.errors import NumericalError
from mlcls.learning.batchnorm import moving_buffers
from mlcls.learning.losses import Loss
from mlcls.learning.schedules import Schedule
from mlcls.learning.steps import Batch, Step, Stepper, build_stepper, take_step


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


@dataclass(frozen=True, slots=True)
class StepInfo:
    """One optimizer step, as `on_step` gets it.

    epoch, stage: counted from 0 through all stages; step: from 0 in the epoch.
    loss: over the known labels of the step; None where it was skipped or nothing was known.
    images, known: how many images and known labels it had.
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
    train_loss: sum of the losses over the number of known labels, of the steps taken; None where none was.
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
    train_mode: Callable[[nn.Module], object] = nn.Module.train,
    on_step: Callable[[StepInfo], None] | None = None,
    feedback: Feedback | None = None,
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
        batches: the batches of an epoch, given its number. They may hold any number of images, one as well.
        loss: elementwise, as `build_loss` gives it; it sees float32 logits and never an unknown label.
        device: where the batches are moved.
        precision: fp32, bf16 or fp16: of the forward pass.
        clip_norm: the gradient's norm is cut to it; None leaves it.
        accumulate: how many batches make one step; they are held together, and weigh as one batch.
        train_mode: puts the model into training mode before each epoch (and frozen parts into eval mode).
        on_step: called after each step.
        feedback: what the caller writes between the epochs.
        give_up_after: steps in a row whose loss or gradient is not finite, after which the training fails.
            Each of them is skipped; fp16's search for its loss scale does not count.

    Raises:
        NumericalError: `give_up_after` such steps in a row, with the `indices` of their images; or the
            memory gave out.
        RecipeError: an unknown precision, a clip_norm out of range, a loss that is not elementwise.
    """
    feedback = Feedback() if feedback is None else feedback
    epoch = 0
    for index, stage in enumerate(stages):
        if stage.epochs < 1:
            continue
        optimizer, schedule = stage.begin()
        stepper = build_stepper(
            model, loss, optimizer, schedule, device=device, precision=precision, clip_norm=clip_norm
        )
        watch = _Watch(give_up_after, [])
        for _ in range(stage.epochs):
            train_mode(model)
            groups = _in_groups(batches(epoch), accumulate)
            yield _train_epoch(stepper, groups, epoch, index, watch, on_step)
            schedule.after_epoch(feedback.val_loss)
            epoch, stage_is_over = epoch + 1, feedback.next_stage
            feedback.val_loss, feedback.next_stage = None, False
            if stage_is_over:
                break


def _train_epoch(
    stepper: Stepper,
    groups: Iterable[list[Batch]],
    epoch: int,
    stage: int,
    watch: "_Watch",
    on_step: Callable[[StepInfo], None] | None,
) -> TrainedEpoch:
    """Every step of one epoch, summed up."""
    start, first_lr = time.perf_counter(), _highest_lr(stepper.optimizer)
    losses: list[float | None] = []
    buffers = moving_buffers(stepper.model)
    loss_sum, known, images, skipped = 0.0, 0, 0, 0
    for group in groups:
        step = take_step(stepper, group, buffers)
        size = sum(len(pixels) for pixels, _, _ in group)
        images += size
        skipped += not step.finite
        losses.append(None if step.loss_sum is None else step.loss_sum / step.known)
        if step.loss_sum is not None:
            loss_sum, known = loss_sum + step.loss_sum, known + step.known
        if on_step is not None:
            lr, at = _highest_lr(stepper.optimizer), len(losses) - 1
            on_step(StepInfo(epoch, stage, at, losses[-1], size, step.known, not step.finite, lr))
        watch.look(step, group, epoch)
    seconds = time.perf_counter() - start
    return TrainedEpoch(
        epoch=epoch,
        stage=stage,
        train_loss=loss_sum / known if known else None,
        iteration_losses=tuple(losses),
        lr=first_lr,
        seconds=seconds,
        images=images,
        images_per_second=images / seconds if seconds > 0 else 0.0,
        skipped_steps=skipped,
    )


@dataclass(frozen=True, slots=True)
class _Watch:
    """Counts the steps in a row that were not finite, over a whole stage; `bad`: the images of each."""

    limit: int
    bad: list[tuple[int, ...]]

    def look(self, step: Step, group: list[Batch], epoch: int) -> None:
        """Take a step in; NumericalError when it is one too many."""
        if step.overflow or step.known == 0:
            return
        if step.finite:
            self.bad.clear()
            return
        self.bad.append(tuple(int(index) for _, _, indices in group for index in indices))
        if len(self.bad) >= self.limit:
            raise NumericalError(
                f"epoch {epoch}: the loss or its gradient was not finite in {self.limit} steps in a row; "
                "lower the learning rates (--lr-head, --lr-finetune), or try --precision fp32",
                indices=tuple(dict.fromkeys(index for step_indices in self.bad for index in step_indices)),
            )


def _in_groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Up to `size` batches at a time."""
    source = iter(batches)
    while group := list(islice(source, size)):
        yield group


def _highest_lr(optimizer: Optimizer) -> float:
    return max(float(group["lr"]) for group in optimizer.param_groups)
