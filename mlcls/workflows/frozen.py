"""The frozen part at work: where each stage is cut, and what it trains and validates on.

A stage whose first layers are frozen trains on what these made of the images, computed once for each view. What an
earlier stage needs is made from what a later one will need, so that the photos go through the lowest part once.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mlcls.errors import BundleError, OutputError
from mlcls.images.dataset import Batches
from mlcls.learning.features import (
    FeatureStore,
    Indices,
    Layout,
    feature_batches,
    first_visits,
    make_store,
)
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


class EpochBatches(Protocol):
    """The batches of an epoch, from number `start` on."""

    def __call__(self, epoch: int, start: int = 0, /) -> Iterable[Batch]: ...


@dataclass(frozen=True)
class Feed:
    """What one stage trains and validates on: pixels, or what the frozen part made of them.

    rest: what takes packed activations; None where the stage gets pixels, as it is not cut.
    train: the batches of an epoch.
    val: the batches of validation, every image once.
    stores: where the activations are kept, by names that are the same in every process of a run, and differ from
        stage to stage; none where the stage gets pixels.
    """

    rest: nn.Module | None
    train: EpochBatches
    val: Callable[[], Iterable[Batch]]
    stores: dict[str, FeatureStore] = field(default_factory=dict)


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
    *,
    kept: Sequence[bool] | None = None,
) -> tuple[list[Feed], tuple[str, ...]]:
    """What each stage trains on, and what to tell of it.

    Args:
        recipe: with device and precision resolved.
        folder: for what does not fit into `recipe.cache_gb` of memory.
        kept: of a run that goes on: which stages were cut. None: those that can be, and have room.

    Raises:
        OutputError: no room for a stage that was cut.
        BundleError: a stage that was cut cannot be.
    """
    views = min(recipe.views, sum(epochs for (*_, epochs), cut in zip(plans, cuts, strict=True) if cut))
    if train.dataset.transform is None:  # all views would be one
        views = min(views, 1)
    ground = _ground(recipe, train, val, views, folder)
    feeds: list[Feed] = []
    notes: list[str] = []
    below: Level | None = None
    memory = int(recipe.cache_gb * 1e9)
    for stage, cut in reversed(list(enumerate(cuts))):  # from the last, whose frontier is the lowest
        level = None
        if kept is None or kept[stage]:
            try:
                level = None if cut is None else _level(ground, cut, below, memory)
            except OSError as error:
                if kept is not None:
                    raise OutputError(_no_room(ground, cut, error)) from error
                notes.append(
                    f"no room for what the frozen part computes ({error.strerror}), so it is computed in every epoch "
                    f"anew: fewer --views, or more --cache-gb"
                )
        if level is None:
            if kept is not None and kept[stage]:
                raise BundleError(
                    f"the network cannot be cut for stage {stage} as it was when the run began: --resume with the "
                    "versions of torch and timm that it was begun with, or train again with --overwrite"
                )
            feeds.append(Feed(None, train.epoch, val.epoch))
            continue
        memory -= level.train.memory + level.val.memory
        notes.append(_size_note(level, views, folder))
        feeds.append(_feed(stage, level, train, val))
        below = level
    return feeds[::-1], tuple(dict.fromkeys(notes))


@dataclass(frozen=True)
class _Ground:
    """What all levels share.

    chunks_train, chunks_val: the images that pass the frozen part together, so that each image has the same company
        in every run, and at every level.
    """

    recipe: Recipe
    train: Batches
    val: Batches
    views: int
    folder: Path
    chunks_train: Layout
    chunks_val: Layout


def _ground(recipe: Recipe, train: Batches, val: Batches, views: int, folder: Path) -> _Ground:
    chunk = max(CHUNK_ON_CPU, recipe.batch_size)
    images = len(train.dataset)

    def order(view: int) -> Indices:
        """As the first epoch of a view visits the images, so that none of its batches waits for another's."""
        return first_visits(train.positions(view), images)

    layout = Layout(images, chunk, order)
    return _Ground(recipe, train, val, views, folder, layout, Layout(len(val.dataset), chunk))


def _no_room(ground: _Ground, cut: Cut | None, error: OSError) -> str:
    """What to tell of a run that cannot go on, as it has kept activations."""
    width = 0 if cut is None else cut.width
    rows = ground.views * ground.chunks_train.images * KEPT.itemsize + ground.chunks_val.images * 4
    return (
        f"--resume needs {width * rows / 1e9:.2f} GB for what the frozen part computes, as the run did before, and "
        f"finds no room ({error.strerror}): make room in {ground.folder}, or raise --cache-gb"
    )


def _size_note(level: Level, views: int, folder: Path) -> str:
    """What is kept of one frontier, and where."""
    stores = (level.train, level.val)
    size = sum(rows.numel() * rows.element_size() for store in stores for rows in store.rows)
    on_disk = size - sum(store.memory for store in stores)
    where = f"{size / 1e9:.2f} GB" + (f", {on_disk / 1e9:.2f} of it in {folder}" if on_disk else "")
    return f"the frozen part is computed once for {views} {'view' if views == 1 else 'views'} of each image ({where})"


def _level(ground: _Ground, cut: Cut, below: Level | None, memory: int) -> Level:
    up = None if below is None else bridge(below.cut, cut)
    device = torch.device(ground.recipe.device)

    def store(
        source: Batches,
        layout: Layout,
        lower: FeatureStore | None,
        precision: str,
        memory: int,
        **settings: Any,
    ) -> FeatureStore:
        if up is None or lower is None:
            lower, compute = None, _from_pixels(cut.trunk, source, device, precision)
        else:
            compute = _from_below(up, lower, device, precision)
        return make_store(
            layout, cut.width, compute, memory=memory, folder=ground.folder, below=lower, **settings
        )

    training = store(
        ground.train,
        ground.chunks_train,
        below.train if below else None,
        ground.recipe.precision,
        memory,
        views=ground.views,
        dtype=KEPT,
    )
    left = memory - training.memory
    validation = store(
        ground.val,
        ground.chunks_val,
        below.val if below else None,
        "fp32",
        left,
        views=1,
        dtype=torch.float32,
    )
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


def _feed(stage: int, level: Level, train: Batches, val: Batches) -> Feed:
    def of_epoch(epoch: int, start: int = 0, /) -> Iterator[Batch]:
        return feature_batches(level.train, epoch, train.positions(epoch)[start:], train.dataset.labels)

    def of_validation() -> Iterator[Batch]:
        return feature_batches(level.val, 0, val.positions(0), val.dataset.labels)

    stores = {f"train{stage}": level.train, f"val{stage}": level.val}
    return Feed(level.cut.rest, of_epoch, of_validation, stores)
