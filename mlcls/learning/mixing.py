"""Changes of training batches: mixup, cutmix, smaller images at first, smoothed labels.

Each change is a pure function of the batch, the seed, the epoch and the batch's number in it, so that a run that goes
on in the middle of an epoch has the batches that it would have had.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mlcls.errors import RecipeError
from mlcls.learning.steps import Batch
from mlcls.missing import split_missing

Change = Callable[[Batch, int, int], Batch]
"""(batch, epoch, number of the batch in the epoch) -> batch; the one that came in is not written to."""

_STREAM = 0x6D69780A  # apart from whatever else is drawn by seed and epoch


def build_changes(
    *,
    seed: int,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    label_smoothing: float = 0.0,
    size: Callable[[int], int] | None = None,
) -> tuple[Change, ...]:
    """What training batches go through, in order; nothing where nothing is asked for.

    Args:
        seed: of the run.
        mixup, cutmix: parameter of the Beta distribution that shares are drawn from, 0 for off; with both, one of
            the two is drawn for each batch.
        label_smoothing: see `smooth`.
        size: epoch -> side of the images in it, in pixels; None leaves them.

    Raises:
        RecipeError: a number out of range.
    """
    for flag, number in (("--mixup", mixup), ("--cutmix", cutmix)):
        if not 0 <= number < math.inf:
            raise RecipeError(f"{flag}: {number}, expected 0 (off) or more, as in 0.2 or 1")
    if not 0 <= label_smoothing < 1:
        raise RecipeError(f"--label-smoothing: {label_smoothing}, expected 0 (off) up to, but not, 1")
    changes: list[Change] = []
    if size is not None:
        changes.append(lambda batch, epoch, number: shrink(batch, size(epoch)))
    if mixup or cutmix:
        changes.append(partial(_mix, seed, mixup, cutmix))
    if label_smoothing:
        changes.append(lambda batch, epoch, number: smooth(batch, label_smoothing))
    return tuple(changes)


def changed(
    batches: Iterable[Batch], changes: Sequence[Change], epoch: int, start: int = 0
) -> Iterator[Batch]:
    """The batches of an epoch after all changes.

    Args:
        batches: from number `start` of the epoch on.
    """
    for number, batch in enumerate(batches, start):
        for change in changes:
            batch = change(batch, epoch, number)
        yield batch


def growing_size(epoch: int, *, epochs: int, first: int, full: int, multiple: int = 32) -> int:
    """The side of the images in an epoch of a stage, which grows to the full one by the stage's middle.

    In even steps, as in progressive resizing (Howard 2018; Tan and Le 2021, section 4), but rounded to a multiple
    that networks divide by; the first and the full side are as given. A single epoch has the full one.

    Args:
        epoch: of the stage, counted from 0.
        epochs: of the stage.
        first, full: pixels a side.

    Raises:
        RecipeError: `first` is larger than `full`.
    """
    if first > full:
        raise RecipeError(f"--first-image-size: {first} is larger than the images are ({full}, --image-size)")
    growing = epochs // 2
    if epoch >= growing:
        return full
    if epoch <= 0:
        return first
    between = first + (full - first) * epoch / growing
    return min(max(round(between / multiple) * multiple, first), full)


def shrink(batch: Batch, size: int) -> Batch:
    """Pixels [B, 3, S, S] made smaller, to `size` a side; packed activations and smaller images stay.

    Bilinear over the area that a pixel stands for, which keeps the kind of the pixels and their memory format.
    """
    pixels, labels, indices = batch
    if pixels.ndim != 4 or size >= min(pixels.shape[2:]):
        return pixels, labels, indices
    smaller = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return smaller.contiguous(memory_format=_format_of(pixels)), labels, indices


def smooth(batch: Batch, amount: float) -> Batch:
    """Known labels drawn toward one half: t (1 - amount) + amount / 2; the unknown stay unknown."""
    inputs, labels, indices = batch
    return inputs, labels * (1 - amount) + amount / 2, indices


def mixup(batch: Batch, alpha: float, random: np.random.Generator) -> Batch:
    """Each image mixed with another of the batch (Zhang et al. 2018), or what a frozen part made of them.

    Mixing packed activations is manifold mixup (Verma et al. 2019) at the layer where they were taken. The share of
    the image itself is drawn from Beta(alpha, alpha), for each anew. Labels mix alike; known are those that both
    parents know. A batch of one stays.

    Args:
        batch: pixels uint8 or float [B, 3, S, S], or packed activations of any float dtype [B, K].

    Returns:
        uint8 pixels as float32 on the same scale; what are floats in their own dtype; the memory format stays.
    """
    inputs, labels, indices = batch
    if len(inputs) < 2:
        return inputs, labels, indices
    partners = _partners(len(inputs), random)
    others = torch.from_numpy((1 - random.beta(alpha, alpha, len(inputs))).astype(np.float32))
    mixed = torch.empty_like(inputs, dtype=inputs.dtype if inputs.is_floating_point() else torch.float32)
    # image by image: whole batches in float32 would be new memory each time, which costs more than the mixing
    for image, (partner, other) in enumerate(zip(partners.tolist(), others.tolist(), strict=True)):
        mixed[image] = torch.lerp(inputs[image].float(), inputs[partner].float(), other)
    return mixed, _mixed_labels(labels, partners, others), indices


def cutmix(batch: Batch, alpha: float, random: np.random.Generator) -> Batch:
    """A rectangle of another image of the batch in the place of each one's own (Yun et al. 2019).

    Of the image's own shape, at a place drawn evenly, cut at the border; its area, as a share of the image, is drawn
    from Beta(alpha, alpha), for each anew. Labels mix by the area that is really there; known are those that both
    parents know. Packed activations and a batch of one stay.
    """
    pixels, labels, indices = batch
    if len(pixels) < 2 or pixels.ndim != 4:
        return pixels, labels, indices
    partners = _partners(len(pixels), random)
    height, width = pixels.shape[2:]
    sides = np.sqrt(random.beta(alpha, alpha, len(pixels)))
    tops, bottoms = _spans(sides, height, random)
    lefts, rights = _spans(sides, width, random)
    mixed = pixels.clone()
    for image, other in enumerate(partners.tolist()):
        rows, columns = slice(tops[image], bottoms[image]), slice(lefts[image], rights[image])
        mixed[image, :, rows, columns] = pixels[other, :, rows, columns]
    areas = (bottoms - tops) * (rights - lefts) / (height * width)
    return mixed, _mixed_labels(labels, partners, torch.from_numpy(areas.astype(np.float32))), indices


def _mix(seed: int, mixup_alpha: float, cutmix_alpha: float, batch: Batch, epoch: int, number: int) -> Batch:
    """One of the two; packed activations can only be mixed."""
    random = np.random.default_rng(np.random.SeedSequence([_STREAM, seed, epoch, number]))
    cuts = bool(cutmix_alpha) and (not mixup_alpha or random.random() < 0.5)
    if mixup_alpha and not (cuts and batch[0].ndim == 4):
        return mixup(batch, mixup_alpha, random)
    return cutmix(batch, cutmix_alpha, random)


def _partners(images: int, random: np.random.Generator) -> Tensor:
    """For each image [B] another one, each once: the next in a circle drawn at random."""
    circle = random.permutation(images)
    partners = np.empty(images, dtype=np.int64)
    partners[circle] = np.roll(circle, -1)
    return torch.from_numpy(partners)


def _spans(
    sides: NDArray[np.float64], length: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where stretches of such shares of a length begin and end, around a place drawn evenly, within 0 to length."""
    half = np.rint(sides * length / 2).astype(np.int64)
    centres = random.integers(0, length, len(sides))
    return np.maximum(centres - half, 0), np.minimum(centres + half, length)


def _mixed_labels(labels: Tensor, partners: Tensor, others: Tensor) -> Tensor:
    """Labels [B, A] after `others` [B], a share of each image, came from its partner.

    Of whom nothing came is no parent.
    """
    values, known = split_missing(labels)
    mixed = torch.lerp(values, values[partners], others[:, None]).masked_fill(
        ~(known & known[partners]), torch.nan
    )
    return torch.where(others[:, None] > 0, mixed, labels)


def _format_of(pixels: Tensor) -> torch.memory_format:
    channels_last = pixels.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format
