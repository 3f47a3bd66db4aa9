"""The frozen part at work: where each stage is cut, and what it trains and validates on.

A stage whose first layers are frozen trains on what these made of the images, computed once for each view.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from mlcls.errors import BundleError, OutputError
from mlcls.images.dataset import Batches
from mlcls.learning.features import FeatureStore, feature_batches
from mlcls.learning.steps import Batch
from mlcls.models.classifier import Classifier
from mlcls.models.forward import autocast
from mlcls.models.frontier import Cut, find_cut
from mlcls.models.stages import count_parameters, set_trainable, train_mode
from mlcls.recipe import Recipe
from mlcls.workflows.arithmetic import (
    TOO_SHORT,
    bf16_is_native,
    faster_precision,
    keep_ratio,
    precision_for,
    recall_ratio,
)
from mlcls.workflows.levels import KEPT, Ground, Level, lay_ground, make_level, run_frozen, size_note
from mlcls.workflows.shelf import RunShelf

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
    if ratio is None:
        ratio = faster_precision(_step_of(classifier, cut, image_size))[1] or TOO_SHORT
        classifier.zero_grad(set_to_none=True)
        keep_ratio(folder / MEASURED, step, ratio)
    if ratio == TOO_SHORT:
        return "fp32", ()
    precision = precision_for(ratio)
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
            logits = classifier(pixels) if cut is None else cut.rest(run_frozen(cut.trunk, pixels))
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
    shelf: RunShelf | None = None,
) -> tuple[list[Feed], tuple[str, ...]]:
    """What each stage trains on, and what to tell of it.

    Args:
        recipe: with device and precision resolved.
        folder: for what does not fit into `recipe.cache_gb` of memory.
        kept: of a run that goes on: which stages were cut. None: those that can be, and have room.
        shelf: where other runs leave rows and find them.

    Raises:
        OutputError: no room for a stage that was cut.
        BundleError: a stage that was cut cannot be.
    """
    views = min(recipe.views, sum(epochs for (*_, epochs), cut in zip(plans, cuts, strict=True) if cut))
    if train.dataset.transform is None:  # all views would be one
        views = min(views, 1)
    ground = lay_ground(recipe, train, val, views, folder, shelf)
    feeds: list[Feed] = []
    notes: list[str] = []
    below: Level | None = None
    memory = int(recipe.cache_gb * 1e9)
    for stage, cut in reversed(list(enumerate(cuts))):  # from the last, whose frontier is the lowest
        level = None
        if kept is None or kept[stage]:
            try:
                level = None if cut is None else make_level(ground, cut, below, memory)
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
        notes.append(size_note(level, views, folder))
        feeds.append(_feed(stage, level, train, val))
        below = level
    return feeds[::-1], tuple(dict.fromkeys(notes))


def _no_room(ground: Ground, cut: Cut | None, error: OSError) -> str:
    """What to tell of a run that cannot go on, as it has kept activations."""
    width = 0 if cut is None else cut.width
    rows = ground.views * ground.chunks_train.images * KEPT.itemsize + ground.chunks_val.images * 4
    return (
        f"--resume needs {width * rows / 1e9:.2f} GB for what the frozen part computes, as the run did before, and "
        f"finds no room ({error.strerror}): make room in {ground.folder}, or raise --cache-gb"
    )


def _feed(stage: int, level: Level, train: Batches, val: Batches) -> Feed:
    def of_epoch(epoch: int, start: int = 0, /) -> Iterator[Batch]:
        return feature_batches(level.train, epoch, train.positions(epoch)[start:], train.dataset.labels)

    def of_validation() -> Iterator[Batch]:
        return feature_batches(level.val, 0, val.positions(0), val.dataset.labels)

    stores = {f"train{stage}": level.train, f"val{stage}": level.val}
    return Feed(level.cut.rest, of_epoch, of_validation, stores)
