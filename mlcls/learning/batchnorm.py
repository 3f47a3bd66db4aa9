"""BatchNorm during a step: batches with one value a channel, and statistics put back after a skipped step."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@contextmanager
def lone_values_allowed(model: nn.Module) -> Generator[None]:
    """Within it, a BatchNorm in training mode that meets one value a channel uses its running statistics.

    One value has no variance, and PyTorch refuses it: a head's BatchNorm1d meets it in any batch of one
    image, a backbone's BatchNorm2d only where the image has shrunk to one pixel. The others train as ever.
    Put it around the forward pass; the modes are back afterwards.
    """
    changed: list[nn.Module] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        values: Tensor = inputs[0]
        if module.training and values.numel() == values.shape[1]:
            module.training = False  # not .eval(), which would reach an activation or a dropout inside
            changed.append(module)

    norms = [module for module in model.modules() if isinstance(module, _BATCH_NORMS)]
    handles = [module.register_forward_pre_hook(before) for module in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in changed:
            module.training = True


def moving_buffers(model: nn.Module) -> list[Tensor]:
    """The buffers that a forward pass may change: those of modules in training mode (BatchNorm's)."""
    return [
        buffer for module in model.modules() if module.training for buffer in module.buffers(recurse=False)
    ]


@torch.no_grad()
def put_back(buffers: Sequence[Tensor], before: Sequence[Tensor]) -> None:
    """Write the copies `before` over `buffers`, pairwise."""
    for buffer, copy in zip(buffers, before, strict=True):
        buffer.copy_(copy)
