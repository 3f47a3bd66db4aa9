"""A tiny network, twenty fixed images, and a way to train on them in a line."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlcls.learning.epochs import Stage, TrainedEpoch, run_epochs
from mlcls.learning.losses import build_loss
from mlcls.learning.optimizers import build_optimizer
from mlcls.learning.schedules import build_schedule

IMAGES, ATTRIBUTES, SIDE = 20, 3, 4


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small wait for their threads longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Tiny(nn.Module):
    """Pixels on 0..255 to logits, through a convolution and, if asked, BatchNorm."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4) if norm else nn.Identity(),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Sequential(nn.BatchNorm1d(4) if norm else nn.Identity(), nn.Linear(4, ATTRIBUTES))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.body(pixels / 127.5 - 1.0))


@pytest.fixture
def tiny() -> Callable[..., Tiny]:
    """`tiny(norm=False)`: always the same first weights, drawn by NumPy: they depend on no version of PyTorch."""

    def make(norm: bool = False) -> Tiny:
        model, random = Tiny(norm), np.random.default_rng(7)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                elif parameter.ndim > 1:
                    values = random.normal(scale=0.4, size=tuple(parameter.shape))
                    parameter.copy_(torch.from_numpy(values.astype(np.float32)))
        return model

    return make


@pytest.fixture
def images() -> tuple[Tensor, Tensor, Tensor]:
    """pixels uint8 [20, 3, 4, 4], labels float32 [20, 3] of which a fifth is unknown, indices int64 [20]."""
    random = np.random.default_rng(11)
    pixels = random.integers(0, 256, size=(IMAGES, 3, SIDE, SIDE), dtype=np.uint8)
    labels = (random.random((IMAGES, ATTRIBUTES)) < 0.4).astype(np.float32)
    labels[random.random((IMAGES, ATTRIBUTES)) < 0.2] = np.nan
    return torch.from_numpy(pixels), torch.from_numpy(labels), torch.arange(IMAGES)


@pytest.fixture
def train(images: tuple[Tensor, Tensor, Tensor]) -> Callable[..., list[TrainedEpoch]]:
    """`train(model, epochs=2, ...)` on `images`, or on `data`, in their order; every epoch that was trained."""

    def run(
        model: nn.Module,
        *,
        epochs: int = 2,
        batch_size: int = 8,
        optimizer: str = "sgd",
        lr: float = 0.1,
        loss: Any = None,
        data: Sequence[Tensor] = images,
        **options: Any,
    ) -> list[TrainedEpoch]:
        pixels, labels, indices = data

        def begin() -> Any:
            built = build_optimizer(optimizer, model, lr, 1e-4, {})
            steps = -(-len(pixels) // batch_size // options.get("accumulate", 1))
            return built, build_schedule("none", built, steps_per_epoch=steps, epochs=epochs, settings={})

        def batches(epoch: int) -> Any:
            for start in range(0, len(pixels), batch_size):
                part = slice(start, start + batch_size)
                yield pixels[part], labels[part], indices[part]

        loss = loss or build_loss("bce", pos_weight=None, settings={})
        stages = [Stage("all", epochs, begin)]
        return list(run_epochs(model, stages, batches, loss, device=torch.device("cpu"), **options))

    return run
