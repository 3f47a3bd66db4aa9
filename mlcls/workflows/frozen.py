"""The frozen part at work: where each stage is cut, and what it trains and validates on.

A stage whose first layers are frozen trains on what these made of the images, computed once for each view. What an
earlier stage needs is made from what a later one will need, so that the photos go through the lowest part once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlcls.images.dataset import Batches
from mlcls.learning.features import FeatureStore, Indices, feature_batches, make_store
from mlcls.learning.steps import Batch
from mlcls.models.classifier import Classifier
from mlcls.models.forward import autocast
from mlcls.models.frontier import Cut, bridge, find_cut
from mlcls.models.stages import count_parameters, set_trainable, train_mode
from mlcls.recipe import Recipe
from mlcls.workflows.arithmetic import (
    bf16_is_native,
    faster_precision,
    keep_ratio,
    precision_for,
    recall_ratio,
)

CHUNK_ON_CPU = (
    8  # images of 224 px that pass the frozen part together: more of them leave the caches of a CPU
)
CHUNK_NUMBERS = CHUNK_ON_CPU * 3 * 224 * 224
KEPT = torch.bfloat16  # what the training images' activations are kept in; those of validation in float32
MEASURED = "precision.json"
TIMED_IMAGES = 4  # of the step that is timed

Plan = tuple[
    str, str, float, int
]  # as `stage_plans` gives them: name, what trains beside the head, lr, epochs


@dataclass(frozen=True)
class Feed:
    """What one stage trains and validates on: pixels, or what the frozen part made of them.

    rest: what takes packed activations; None where the stage gets pixels.
    train: the batches of an epoch.
    val: the batches of validation, every image once.
    """

    rest: nn.Module | None
    train: Callable[[int], Iterable[Batch]]
    val: Callable[[], Iterable[Batch]]


@dataclass(frozen=True)
class Level:
    """What lies at one frontier: of the training images a row a view, of the validation images one row in float32."""

    cut: Cut
    train: FeatureStore
    val: FeatureStore


def find_cuts(classifier: Classifier, plans: Sequence[Plan], image_size: int, views: int) -> list[Cut | None]:
    """Where each stage is cut; None for one that trains everything, or whose network cannot be cut.

    Leaves the last stage's parameters trainable.
    """
    cuts = []
    for _, unfreeze, _, _ in plans:
        set_trainable(classifier, unfreeze)
        train_mode(classifier)
        cut = find_cut(classifier, image_size, fold=True) if views else None
        cuts.append(cut if cut is not None and _is_worth(cut, classifier, image_size) else None)
    return cuts


def _is_worth(cut: Cut, classifier: Classifier, image_size: int) -> bool:
    """Whether keeping beats computing again: rows at most twice the pixels they come from, or most of the network.

    Where a stem alone is frozen, what it makes of an image is several times the image, and soon computed.
    """
    trainable, frozen = count_parameters(classifier)
    return cut.width * KEPT.itemsize <= 2 * 3 * image_size**2 or frozen > trainable


def measured_precision(
    recipe: Recipe, classifier: Classifier, cut: Cut | None, image_size: int, folder: Path
) -> tuple[str, tuple[str, ...]]:
    """The faster arithmetic of this CPU for a step of the last stage, and what to tell of it.

    Args:
        cut: of the last stage, whose parameters are trainable.
        folder: where what was measured is kept.
    """
    if not bf16_is_native():
        return "fp32", ()
    nodes = "whole" if cut is None else ",".join(cut.nodes)
    network = f"{recipe.backbone} {dict(recipe.backbone_args)} {recipe.head}"
    machine = f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"
    step = f"{network}, {image_size} px, {nodes}, {machine} threads"
    ratio = recall_ratio(folder / MEASURED, step)
    precision = None if ratio is None else precision_for(ratio)
    if precision is None:
        precision, ratio = faster_precision(_step_of(classifier, cut, image_size))
        classifier.zero_grad(set_to_none=True)
        if ratio is not None:
            keep_ratio(folder / MEASURED, step, ratio)
    if ratio is None:
        return precision, ()
    said = {"bf16": "bfloat16", "fp32": "float32"}[precision]
    return precision, (f"{said}: a step in bfloat16 takes {ratio:.2f} times as long as in float32 here",)


def _step_of(classifier: Classifier, cut: Cut | None, image_size: int) -> Callable[[str], None]:
    """A step of a few images, in a precision."""
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        0, 256, (TIMED_IMAGES, 3, image_size, image_size), dtype=torch.uint8, generator=chance
    ).contiguous(memory_format=torch.channels_last)
    classifier.eval()  # the same work, and no statistics move
    if cut is not None:
        cut.rest.eval()

    def step(precision: str) -> None:
        with autocast(pixels.device, precision):
            logits = classifier(pixels) if cut is None else cut.rest(_frozen(cut.trunk, pixels))
        logits.float().sum().backward()

    return step


def build_feeds(
    recipe: Recipe,
    cuts: Sequence[Cut | None],
    plans: Sequence[Plan],
    train: Batches,
    val: Batches,
    folder: Path,
) -> tuple[list[Feed], tuple[str, ...]]:
    """What each stage trains on, and what to tell of it.

    Args:
        recipe: with device and precision resolved.
        folder: for what does not fit into `recipe.cache_gb` of memory.
    """
    views = min(recipe.views, sum(epochs for (*_, epochs), cut in zip(plans, cuts, strict=True) if cut))
    if train.dataset.transform is None:  # all views would be one
        views = min(views, 1)
    feeds: list[Feed] = []
    notes: list[str] = []
    below: Level | None = None
    memory = int(recipe.cache_gb * 1e9)
    for cut in reversed(cuts):  # from the last stage, whose frontier is the lowest
        level = None
        if cut is not None:
            try:
                level = _level(recipe, cut, below, train, val, views, memory, folder)
            except OSError as error:
                notes.append(
                    f"no room for what the frozen part computes ({error.strerror}), so it is computed in every epoch "
                    f"anew: fewer --views, or more --cache-gb"
                )
        if level is None:
            feeds.append(Feed(None, train.epoch, val.epoch))
            continue
        memory -= level.train.memory + level.val.memory
        notes.append(_size_note(level, views, folder))
        feeds.append(_feed(level, train, val))
        below = level
    return feeds[::-1], tuple(dict.fromkeys(notes))


def _size_note(level: Level, views: int, folder: Path) -> str:
    """What is kept of one frontier, and where."""
    stores = (level.train, level.val)
    size = sum(rows.numel() * rows.element_size() for store in stores for rows in store.rows)
    on_disk = size - sum(store.memory for store in stores)
    where = f"{size / 1e9:.2f} GB" + (f", {on_disk / 1e9:.2f} of it in {folder}" if on_disk else "")
    return f"the frozen part is computed once for {views} {'view' if views == 1 else 'views'} of each image ({where})"


def _level(
    recipe: Recipe,
    cut: Cut,
    below: Level | None,
    train: Batches,
    val: Batches,
    views: int,
    memory: int,
    folder: Path,
) -> Level:
    up = None if below is None else bridge(below.cut, cut)
    device = torch.device(recipe.device)
    chunk = max(CHUNK_ON_CPU, recipe.batch_size)

    def store(
        source: Batches, lower: FeatureStore | None, precision: str, memory: int, **settings: Any
    ) -> FeatureStore:
        if up is None or lower is None:
            compute = _from_pixels(cut.trunk, source, device, precision)
        else:
            compute = _from_below(up, lower, device, precision)
        return make_store(
            len(source.dataset), cut.width, compute, chunk=chunk, memory=memory, folder=folder, **settings
        )

    training = store(train, below.train if below else None, recipe.precision, memory, views=views, dtype=KEPT)
    left = memory - training.memory
    validation = store(val, below.val if below else None, "fp32", left, views=1, dtype=torch.float32)
    return Level(cut, training, validation)


def _from_pixels(
    trunk: nn.Module, source: Batches, device: torch.device, precision: str
) -> Callable[[int, Sequence[Indices]], Iterator[Tensor]]:
    def compute(view: int, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        keys = ([(view, int(index)) for index in chunk] for chunk in chunks)
        for pixels, _, _ in source.of(keys):
            with autocast(device, precision):
                yield _frozen(trunk, pixels.to(device, non_blocking=True))

    return compute


def _from_below(
    up: nn.Module, lower: FeatureStore, device: torch.device, precision: str
) -> Callable[[int, Sequence[Indices]], Iterator[Tensor]]:
    def compute(view: int, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        for rows in lower.obtain(view, chunks):
            with autocast(device, precision):
                yield _frozen(up, rows.to(device, non_blocking=True))

    return compute


@torch.no_grad()
def _frozen(module: nn.Module, inputs: Tensor) -> Tensor:
    """A frozen part's packed activations [B, K], a few images at a time on a CPU."""
    if inputs.device.type != "cpu":
        rows: Tensor = module(inputs)
        return rows
    together = max(CHUNK_ON_CPU, CHUNK_NUMBERS // inputs[0].numel())
    return torch.cat([module(part) for part in torch.split(inputs, together)])


def _feed(level: Level, train: Batches, val: Batches) -> Feed:
    def of_epoch(epoch: int) -> Iterator[Batch]:
        return feature_batches(level.train, epoch, train.positions(epoch), train.dataset.labels)

    def of_validation() -> Iterator[Batch]:
        return feature_batches(level.val, 0, val.positions(0), val.dataset.labels)

    return Feed(level.cut.rest, of_epoch, of_validation)
