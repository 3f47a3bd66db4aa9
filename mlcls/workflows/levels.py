"""What lies at one frontier: the stores of what the frozen part below it makes of the images, and what fills them.

What lies at a higher frontier is made from what lies at a lower one, so that photos go through the lowest part once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlcls.images.augment import Augment, mirrored, mirrors_alone
from mlcls.images.dataset import Batches
from mlcls.learning.features import FeatureStore, Indices, Layout, first_visits, make_store
from mlcls.models.forward import autocast
from mlcls.models.frontier import Cut, bridge
from mlcls.recipe import Recipe
from mlcls.workflows.shelf import RunShelf, digest_of_module

CHUNK_ON_CPU = (
    8  # images of 224 px that pass the frozen part together: more of them leave the caches of a CPU
)
CHUNK_NUMBERS = CHUNK_ON_CPU * 3 * 224 * 224
CHUNK = (
    4 * CHUNK_ON_CPU
)  # images of 224 px whose rows come into being together, on any device and for any batch size
MOST = 2 * CHUNK  # of smaller ones
KEPT = torch.bfloat16  # what the training images' activations are kept in; those of validation in float32


@dataclass(frozen=True)
class Level:
    """What lies at one frontier: of the training images a row a view, of the validation images one row in float32."""

    cut: Cut
    train: FeatureStore
    val: FeatureStore


@dataclass(frozen=True)
class Ground:
    """What all levels share.

    chunks_train, chunks_val: the images that pass the frozen part together, so that each image has the same company
        in every run, and at every level.
    shelf: where rows are shared with other runs; None where they are not.
    """

    recipe: Recipe
    train: Batches
    val: Batches
    views: int
    folder: Path
    chunks_train: Layout
    chunks_val: Layout
    shelf: RunShelf | None = None


def lay_ground(
    recipe: Recipe, train: Batches, val: Batches, views: int, folder: Path, shelf: RunShelf | None = None
) -> Ground:
    """Which images pass the frozen part together; nothing is computed.

    How many do follows from their size alone, so that runs with other batches can share what was computed.
    """
    side = recipe.image_size or 224
    chunk = min(MOST, max(CHUNK_ON_CPU, CHUNK * 224**2 // side**2))
    images = len(train.dataset)

    def order(view: int) -> Indices:
        """As the first epoch of a view visits the images, so that none of its batches waits for another's."""
        return first_visits(train.positions(view), images)

    layout = Layout(images, chunk, order, _origin(train.dataset.transform, images))
    return Ground(recipe, train, val, views, folder, layout, Layout(len(val.dataset), chunk), shelf)


def _origin(transform: object, images: int) -> Callable[[int], NDArray[np.int32]] | None:
    """View -> the first view that shows each image [N] as it does; None where that cannot be told beforehand.

    Where images are mirrored or not, and nothing else, of two views half of the second one's are those of the first.
    """
    if not (isinstance(transform, Augment) and mirrors_alone(transform)):
        return None

    @cache
    def shown(view: int) -> NDArray[np.bool_]:
        return mirrored(transform, view, images)

    @cache
    def origin(view: int) -> NDArray[np.int32]:
        first = np.full(images, view, dtype=np.int32)
        for earlier in reversed(range(view)):
            first[shown(earlier) == shown(view)] = earlier
        return first

    return origin


def make_level(ground: Ground, cut: Cut, below: Level | None, memory: int) -> Level:
    """The stores at a frontier, empty as yet.

    Args:
        below: the next lower one, of a later stage.
        memory: bytes that they may have; more of them lie in files.

    Raises:
        OSError: there is no room for these.
    """
    up = None if below is None else bridge(below.cut, cut)
    device = torch.device(ground.recipe.device)
    digest = "" if ground.shelf is None else digest_of_module(cut.trunk if up is None else up)

    def store(
        source: Batches,
        layout: Layout,
        lower: FeatureStore | None,
        precision: str,
        memory: int,
        dtype: torch.dtype,
        **settings: Any,
    ) -> FeatureStore:
        if up is None or lower is None:
            lower, compute = None, _from_pixels(cut.trunk, source, device, precision)
        else:
            compute = _from_below(up, lower, device, precision)
        shelved = None
        if (shelf := ground.shelf) is not None:
            images = shelf.train if source is ground.train else shelf.val
            shelved = shelf.rows(images, lower, digest, layout, cut.width, precision, dtype)
        return make_store(
            layout,
            cut.width,
            compute,
            memory=memory,
            folder=ground.folder,
            below=lower,
            shelf=shelved,
            dtype=dtype,
            **settings,
        )

    training = store(
        ground.train,
        ground.chunks_train,
        below.train if below else None,
        ground.recipe.precision,
        memory,
        KEPT,
        views=ground.views,
    )
    left = memory - training.memory
    validation = store(
        ground.val,
        ground.chunks_val,
        below.val if below else None,
        "fp32",
        left,
        torch.float32,
        views=1,
    )
    return Level(cut, training, validation)


def _from_pixels(
    trunk: nn.Module, source: Batches, device: torch.device, precision: str
) -> Callable[[int, Sequence[Indices]], Iterator[Tensor]]:
    def compute(view: int, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        keys = ([(view, int(index)) for index in chunk] for chunk in chunks)
        for pixels, _, _ in source.of(keys):
            with autocast(
                device, precision
            ):  # not around the yield: it would hold for whoever takes the rows
                packed = run_frozen(trunk, pixels.to(device, non_blocking=True))
            yield packed

    return compute


def _from_below(
    up: nn.Module, lower: FeatureStore, device: torch.device, precision: str
) -> Callable[[int, Sequence[Indices]], Iterator[Tensor]]:
    def compute(view: int, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        for rows in lower.obtain(view, chunks):
            with autocast(device, precision):
                packed = run_frozen(up, rows.to(device, non_blocking=True))
            yield packed

    return compute


@torch.no_grad()
def run_frozen(module: nn.Module, inputs: Tensor) -> Tensor:
    """A frozen part's packed activations [B, K], a few images at a time on a CPU."""
    if inputs.device.type != "cpu":
        rows: Tensor = module(inputs)
        return rows
    together = max(CHUNK_ON_CPU, CHUNK_NUMBERS // inputs[0].numel())
    return torch.cat([module(part) for part in torch.split(inputs, together)])


def size_note(level: Level, views: int, folder: Path) -> str:
    """What is kept of one frontier, and where."""
    stores = (level.train, level.val)
    size = sum(rows.numel() * rows.element_size() for store in stores for rows in store.rows)
    on_disk = size - sum(store.memory for store in stores)
    where = f"{size / 1e9:.2f} GB" + (f", {on_disk / 1e9:.2f} of it in {folder}" if on_disk else "")
    return f"the frozen part is computed once for {views} {'view' if views == 1 else 'views'} of each image ({where})"
