"""One optimizer step: forward, loss over known labels, backward, clipping; no update when not finite."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from mlcls.errors import NumericalError, RecipeError
from mlcls.learning.batchnorm import lone_values_allowed, put_back
from mlcls.learning.losses import Loss, count_cells, masked_loss
from mlcls.learning.schedules import Schedule
from mlcls.learning.unknowns import Selective

Batch = tuple[Tensor, Tensor, Tensor]
"""pixels uint8 [B, 3, S, S], labels float32 [B, A] with NaN where unknown, indices int64 [B]."""

PRECISIONS: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Stepper:
    """What every step of a stage shares. `build_stepper` makes one."""

    model: nn.Module
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    device: torch.device
    dtype: torch.dtype
    clip_norm: float | None
    unknowns: Selective | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one step.

    loss_sum: over the labels that count; None where no step was taken.
    known: how many labels of the batches count: the known, and unknown ones that count as absent.
    finite: False where the loss or the gradient's norm was not finite (the step was skipped).
    overflow: True where the loss was finite and fp16's loss scale was merely too high, and has been lowered.
    """

    loss_sum: float | None
    known: int
    finite: bool = True
    overflow: bool = False


def build_stepper(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    schedule: Schedule,
    *,
    device: torch.device,
    precision: str,
    clip_norm: float | None,
    unknowns: Selective | None = None,
) -> Stepper:
    """A stepper; see `run_epochs` for the arguments.

    Raises:
        RecipeError: an unknown precision, a clip_norm that is not above 0.
    """
    if precision not in PRECISIONS:
        raise RecipeError(f"--precision: '{precision}', expected one of: {', '.join(PRECISIONS)}")
    if clip_norm is not None and not clip_norm > 0:
        raise RecipeError(f"clip_norm: {clip_norm}, expected above 0, or nothing")
    # fp16 alone needs its loss scaled: bf16 has float32's range
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    dtype = PRECISIONS[precision]
    return Stepper(model, loss, optimizer, schedule, scaler, device, dtype, clip_norm, unknowns)


def take_step(stepper: Stepper, batches: Sequence[Batch], buffers: Sequence[Tensor]) -> Step:
    """One optimizer step over one batch, or over several as if they were one.

    The loss is the sum over the labels of all the batches that count, divided by their number, which is counted
    before the first forward pass. Without such a label nothing is computed. Where the loss or the gradient's
    norm is not finite, parameters, optimizer, schedule and BatchNorm statistics are as before.

    Args:
        stepper: what all steps share.
        batches: at least one.
        buffers: the model's `moving_buffers`, found once for many steps.

    Raises:
        NumericalError: the device's memory gave out.
    """
    known = sum(count_cells(labels, stepper.unknowns) for _, labels, _ in batches)
    if known == 0:
        return Step(None, 0)
    before = [buffer.clone() for buffer in buffers]
    stepper.optimizer.zero_grad(set_to_none=True)
    try:
        loss_sum = torch.stack([_backward(stepper, batch, known) for batch in batches]).sum()
    except torch.OutOfMemoryError as error:
        images = sum(len(pixels) for pixels, _, _ in batches)
        raise NumericalError(
            f"the memory of {stepper.device} gave out in a step of {images} images; "
            "lower --batch-size or --image-size, or unfreeze less (--unfreeze)"
        ) from error
    # the one wait for the device in a step: without it a NaN would be in the weights before anybody looked
    loss_value, norm = torch.stack([loss_sum, _clipped_norm(stepper)]).tolist()
    if not (math.isfinite(loss_value) and math.isfinite(norm)):
        overflow = math.isfinite(loss_value) and stepper.scaler.get_scale() > 1.0
        stepper.scaler.update()
        put_back(buffers, before)
        stepper.optimizer.zero_grad(set_to_none=True)
        return Step(None, known, finite=False, overflow=overflow)
    stepper.scaler.step(stepper.optimizer)
    stepper.scaler.update()
    stepper.schedule.after_step()
    return Step(loss_value, known)


def _backward(stepper: Stepper, batch: Batch, known: int) -> Tensor:
    """Add the gradient of (sum of losses) / known; the sum, a detached float32 scalar on the device."""
    pixels, labels, _ = (tensor.to(stepper.device, non_blocking=True) for tensor in batch)
    half = stepper.dtype != torch.float32
    autocast = torch.autocast(stepper.device.type, stepper.dtype) if half else nullcontext()
    with autocast, lone_values_allowed(stepper.model) if len(pixels) == 1 else nullcontext():
        logits = stepper.model(pixels)
    loss_sum, _ = masked_loss(stepper.loss, logits.float(), labels, stepper.unknowns)
    stepper.scaler.scale(loss_sum / known).backward()  # type: ignore[no-untyped-call]
    return loss_sum.detach()


def _clipped_norm(stepper: Stepper) -> Tensor:
    """The norm of the whole gradient before it is clipped: a float32 scalar on the device."""
    stepper.scaler.unscale_(stepper.optimizer)
    trained = [parameter for group in stepper.optimizer.param_groups for parameter in group["params"]]
    if stepper.clip_norm is not None:
        return clip_grad_norm_(trained, stepper.clip_norm).float()
    return get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None]).float()
