"""The frozen part's outputs, computed once: a store of them for each view of each image, filled as epochs need them.

A view is one augmentation of an image. Epoch e trains on view `e % views`; what the store lacks of it is computed
on the way, so that the first epoch is not kept waiting for the views of later ones.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcls.learning.steps import Batch

Indices = NDArray[np.int64]
Compute = Callable[[int, Sequence[Indices]], Iterable[Tensor]]
"""(view, chunks of image indices) -> for each chunk, in order, its packed activations [len(chunk), K]."""

_BITS = {torch.bfloat16: np.uint16, torch.float16: np.uint16, torch.float32: np.uint32}


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """Packed activations [K] of each view of each image; which are there, `filled` tells.

    rows: [views] tensors [N, K], in memory or mapped from a file.
    filled: bool [views, N].
    compute: gives what is missing.
    chunk: images that are computed together.
    memory: bytes of the rows that lie in memory.
    """

    rows: tuple[Tensor, ...]
    filled: NDArray[np.bool_]
    compute: Compute
    chunk: int
    memory: int

    @property
    def views(self) -> int:
        """How many augmentations of each image it has room for."""
        return len(self.rows)

    def obtain(self, view: int, chunks: Sequence[Indices]) -> Iterator[Tensor]:
        """The rows of each chunk of images [len(chunk), K], in order; what is missing is computed and kept.

        Args:
            view: 0 <= view < views.
            chunks: positions of images; one may stand in several chunks.
        """
        missing = self._missing(view, chunks)
        computed = iter(self.compute(view, missing)) if missing else iter(())
        coming = iter(missing)
        for chunk in chunks:
            while not self.filled[view, chunk].all():
                indices = next(coming)
                self.rows[view][torch.from_numpy(indices)] = next(computed).to("cpu", self.rows[view].dtype)
                self.filled[view, indices] = True
            yield self.rows[view][torch.from_numpy(chunk)]

    def _missing(self, view: int, chunks: Sequence[Indices]) -> list[Indices]:
        """The images that are not there, each once, in the order in which they are needed, cut anew."""
        if not chunks or self.filled[view].all():
            return []
        wanted = np.concatenate(list(chunks))
        _, first = np.unique(wanted, return_index=True)
        wanted = wanted[np.sort(first)]
        wanted = wanted[~self.filled[view, wanted]]
        return [wanted[start : start + self.chunk] for start in range(0, len(wanted), self.chunk)]


def make_store(
    images: int,
    width: int,
    compute: Compute,
    *,
    views: int,
    chunk: int,
    dtype: torch.dtype = torch.bfloat16,
    memory: int,
    folder: Path,
) -> FeatureStore:
    """An empty store.

    Args:
        images: how many, N.
        width: numbers of a row, K.
        compute: what fills it.
        views: augmentations of each image.
        chunk: images that `compute` is to take at a time.
        dtype: bfloat16, float16 or float32.
        memory: bytes that may lie in memory; the views beyond them lie in files of `folder`, without a name where
            the system allows it, so that they end with the process.
        folder: made where it does not exist.

    Raises:
        OSError: the files have no room, or the folder cannot be written. More than half of what is free on the disk
            counts as no room (ENOSPC).
    """
    size = images * width * dtype.itemsize
    in_memory = min(views, max(0, memory) // max(1, size))
    check_room(folder, (views - in_memory) * size)
    rows = [torch.empty(images, width, dtype=dtype) for _ in range(in_memory)]
    rows += [_mapped(images, width, dtype, folder) for _ in range(views - in_memory)]
    return FeatureStore(
        tuple(rows), np.zeros((views, images), dtype=np.bool_), compute, chunk, in_memory * size
    )


def check_room(folder: Path, size: int) -> None:
    """Raise OSError where `size` bytes are more than half of what is free on the folder's disk."""
    if size == 0:
        return
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free // 2:
        raise OSError(
            errno.ENOSPC, f"{size / 1e9:.1f} GB would be needed, {free / 1e9:.1f} GB are free", str(folder)
        )


def _mapped(images: int, width: int, dtype: torch.dtype, folder: Path) -> Tensor:
    """Rows that lie in a file without a name; its room is taken now, since a full disk later would be a crash."""
    with tempfile.TemporaryFile(dir=folder, prefix="features-") as file:
        size = images * width * dtype.itemsize
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        rows = np.memmap(file, dtype=_BITS[dtype], mode="r+", shape=(images, width))
    return torch.from_numpy(rows).view(dtype)


def feature_batches(
    store: FeatureStore, epoch: int, batches: Sequence[Indices], labels: NDArray[np.float32]
) -> Iterator[Batch]:
    """The batches of an epoch, with packed activations [B, K] in the place of pixels.

    Args:
        store: what gives them.
        epoch: chooses the view.
        batches: positions of the images of each batch.
        labels: float32 [N, A], NaN unknown.
    """
    rows = store.obtain(epoch % store.views, batches)
    for indices, features in zip(batches, rows, strict=True):
        yield features, torch.from_numpy(labels[indices]), torch.from_numpy(indices)
