"""The frozen part's outputs, computed once: a store of them for each view of each image, filled as epochs need them.

A view is one augmentation of an image. Epoch e trains on view `e % views`; what the store lacks of it is computed
on the way, so that the first epoch is not kept waiting for the views of later ones. An image that a view shows as an
earlier one did has one row for both. Images are always computed in the same company, so that a row is the same to its
last bit whoever asks for it, and when: also in a run that was killed and goes on in the middle.
"""

import errno
import hashlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcls.learning.shelf import ShelvedRows
from mlcls.learning.steps import Batch

Indices = NDArray[np.int64]
Compute = Callable[[int, Sequence[Indices]], Iterable[Tensor]]
"""(view, chunks of image indices) -> for each chunk, in order, its packed activations [len(chunk), K]."""

_BITS = {torch.bfloat16: np.uint16, torch.float16: np.uint16, torch.float32: np.uint32}


def first_visits(visited: Sequence[Indices], images: int) -> Indices:
    """All images [N], each once: those that are visited in the order of their first visits, then the others by index.

    Args:
        visited: positions of images, batch by batch; one may stand there several times.
        images: how many there are, N.
    """
    order = np.concatenate([*visited, np.arange(images, dtype=np.int64)])
    _, first = np.unique(order, return_index=True)
    return order[np.sort(first)]


class Layout:
    """Which images are computed together: for each view, those that it alone shows so, in a fixed order, in chunks.

    A convolution or a product of matrices may round otherwise in another company, so what is computed together must
    not depend on what happens to be missing.
    """

    def __init__(
        self,
        images: int,
        chunk: int,
        order: Callable[[int], Indices] | None = None,
        origin: Callable[[int], NDArray[np.int32]] | None = None,
    ) -> None:
        """Which images, in which order.

        Args:
            images: how many, N.
            chunk: how many together.
            order: view -> int64 [N], each image once; None: by index.
            origin: view -> int32 [N], the first view that shows an image as this view does, which may be this one;
                None: each view shows every image in a way of its own.
        """
        self.images, self.size = images, chunk
        self._order, self._origin = order, origin
        self._known: dict[int, tuple[NDArray[np.int32], NDArray[np.int32]]] = {}

    @property
    def most_chunks(self) -> int:
        """As many chunks as a view may have."""
        return -(-self.images // self.size)

    def origins(self, view: int) -> NDArray[np.int32]:
        """For each image the view that its row of this view is computed in, this one or an earlier one, int32 [N]."""
        return np.full(self.images, view, dtype=np.int32) if self._origin is None else self._origin(view)

    def count(self, view: int) -> int:
        """How many images are computed in a view."""
        return self.images if self._origin is None else len(self._of(view)[0])

    def chunk(self, view: int, number: int) -> Indices:
        """The images of a chunk, in order; the last one may have fewer."""
        order, _ = self._of(view)
        return order[number * self.size : (number + 1) * self.size].astype(np.int64)

    def numbers(self, view: int, images: Indices) -> NDArray[np.int32]:
        """The chunk that each of these images [n] stands in, int32 [n]; -1 for those that have another origin."""
        _, numbers = self._of(view)
        return numbers[images]

    def digest(self, view: int) -> str:
        """Of what stands in which chunk."""
        order, _ = self._of(view)
        return hashlib.sha256(b"%d " % self.size + order.tobytes()).hexdigest()

    def _of(self, view: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The order of a view [n], and the chunk of each image [N]."""
        if self._order is None and self._origin is None:
            view = 0
        if view not in self._known:
            order = np.arange(self.images) if self._order is None else self._order(view)
            if self._origin is not None:
                order = order[self._origin(view)[order] == view]
            numbers = np.full(self.images, -1, dtype=np.int32)
            numbers[order] = np.arange(len(order)) // self.size
            self._known[view] = order.astype(np.int32), numbers
        return self._known[view]


@dataclass(slots=True)
class FeatureStore:
    """Packed activations [K] of each view of each image; which are there, `filled` tells.

    Rows that are filled are never changed, so that another thread may save them meanwhile: `filled` and `seconds` are
    written where rows are computed, `saved` and what follows it where they are saved.

    rows: [views] tensors [N, K], in memory or mapped from a file.
    layout: the images that are computed together.
    compute: gives what is missing.
    memory: bytes of the rows that lie in memory.
    below: the store that `compute` takes rows of, whose time is not counted here a second time.
    filled: bool [views, chunks]; what a view has fewer of stays False.
    seconds: that were spent on rows.
    saved: bool [views, chunks], of those that `save_rows` has saved; saved_seconds: what was spent on them.
    files: what it tells of its files; next_file: the number of the next one.
    shelf: where other runs may have left rows, and find those that are computed here; None where nothing is shared.
    """

    rows: tuple[Tensor, ...]
    layout: Layout
    compute: Compute
    memory: int
    below: "FeatureStore | None"
    filled: NDArray[np.bool_]
    seconds: float
    saved: NDArray[np.bool_]
    saved_seconds: float = 0.0
    next_file: int = 0
    files: list[dict[str, Any]] = field(default_factory=list)
    shelf: ShelvedRows | None = None

    @property
    def views(self) -> int:
        """How many augmentations of each image it has room for."""
        return len(self.rows)

    @property
    def unsaved_seconds(self) -> float:
        """How long the computing of those rows took that are not saved."""
        return self.seconds - self.saved_seconds

    def obtain(self, view: int, batches: Sequence[Indices]) -> Iterator[Tensor]:
        """The rows of each batch of images [len(batch), K], in order; chunks that are missing are computed and kept.

        Args:
            view: 0 <= view < views.
            batches: positions of images; one may stand in several batches.
        """
        if not batches:
            return
        origins = self.layout.origins(view)
        for earlier in np.unique(origins[np.concatenate(batches)]).tolist():
            if earlier != view:  # as a rule these are there; one pass over the images at a time
                for chunk in self._coming(earlier, [batch[origins[batch] == earlier] for batch in batches]):
                    self._fill(earlier, *chunk)
        coming = self._coming(view, [batch[origins[batch] == view] for batch in batches])
        for batch in batches:
            of_batch = origins[batch]
            while not self.filled[view, self.layout.numbers(view, batch[of_batch == view])].all():
                self._fill(view, *next(coming))
            yield self._rows(batch, of_batch)

    def _rows(self, images: Indices, origins: NDArray[np.int32]) -> Tensor:
        """The rows of images [n, K], each of the view that it is computed in, int32 [n]."""
        views: list[int] = np.unique(origins).tolist()
        if len(views) == 1:  # one copy
            return self.rows[views[0]][torch.from_numpy(images)]
        rows: Tensor = self.rows[0].new_empty(len(images), self.rows[0].shape[1])
        for view in views:
            here = np.flatnonzero(origins == view)
            rows[torch.from_numpy(here)] = self.rows[view][torch.from_numpy(images[here])]
        return rows

    def _coming(
        self, view: int, batches: Sequence[Indices]
    ) -> Iterator[tuple[int, Indices, Iterator[Tensor]]]:
        """Of each chunk that is neither there nor on the shelf: its number, its images, and what computes it next."""
        missing = [number for number in self._missing(view, batches) if not self._from_shelf(view, number)]
        chunks = [self.layout.chunk(view, number) for number in missing]
        computed = iter(self.compute(view, chunks)) if chunks else iter(())
        return zip(missing, chunks, itertools.repeat(computed), strict=False)

    def _fill(self, view: int, number: int, images: Indices, computed: Iterator[Tensor]) -> None:
        """The next chunk that is computed, and the time it takes."""
        started = time.monotonic() - (self.below.seconds if self.below else 0)
        rows = next(computed).to("cpu", self.rows[view].dtype)
        self.rows[view][torch.from_numpy(images)] = rows
        self.seconds += time.monotonic() - (self.below.seconds if self.below else 0) - started
        self.filled[view, number] = True  # last, so that who sees it sees the rows
        if self.shelf is not None:
            self.shelf.put(view, number, rows)

    def _from_shelf(self, view: int, number: int) -> bool:
        """Take a chunk from the shelf, where it is there."""
        rows = None if self.shelf is None else self.shelf.take(view, number)
        if rows is None:
            return False
        images = torch.from_numpy(self.layout.chunk(view, number))
        self.rows[view][images] = torch.from_numpy(rows).view(self.rows[view].dtype)
        self.filled[view, number] = True
        return True

    def _missing(self, view: int, batches: Sequence[Indices]) -> list[int]:
        """The chunks that are not there, in the order in which they are needed."""
        if not batches or self.filled[view, : -(-self.layout.count(view) // self.layout.size)].all():
            return []
        wanted, first = np.unique(self.layout.numbers(view, np.concatenate(list(batches))), return_index=True)
        wanted = wanted[np.argsort(first)]
        return [int(number) for number in wanted[~self.filled[view, wanted]]]


def make_store(
    layout: Layout,
    width: int,
    compute: Compute,
    *,
    views: int,
    dtype: torch.dtype = torch.bfloat16,
    memory: int,
    folder: Path,
    below: FeatureStore | None = None,
    shelf: ShelvedRows | None = None,
) -> FeatureStore:
    """An empty store.

    Args:
        layout: the images that `compute` is to take at a time.
        width: numbers of a row, K.
        compute: what fills it.
        views: augmentations of each image.
        dtype: bfloat16, float16 or float32.
        memory: bytes that may lie in memory; the views beyond them lie in files of `folder`, without a name where
            the system allows it, so that they end with the process.
        folder: made where it does not exist.
        below: the store that `compute` takes rows of, where it does.
        shelf: of the same images in the same chunks, and of the same width and dtype.

    Raises:
        OSError: the files have no room, or the folder cannot be written. More than half of what is free on the disk
            counts as no room (ENOSPC).
    """
    images = layout.images
    size = images * width * dtype.itemsize
    in_memory = min(views, max(0, memory) // max(1, size))
    check_room(folder, (views - in_memory) * size)
    rows = [torch.empty(images, width, dtype=dtype) for _ in range(in_memory)]
    rows += [_mapped(images, width, dtype, folder) for _ in range(views - in_memory)]
    filled, saved = (np.zeros((views, layout.most_chunks), dtype=np.bool_) for _ in range(2))
    return FeatureStore(
        tuple(rows), layout, compute, in_memory * size, below, filled, 0.0, saved, shelf=shelf
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
