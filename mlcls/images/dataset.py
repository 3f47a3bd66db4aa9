"""S x S images and labels -> batches: the torch Dataset, and its passes in worker processes or in threads.

Nothing here keeps state between epochs. The order is f(seed, epoch), an augmentation f(seed, epoch, index),
and the epoch reaches persistent workers inside each item's key. Any number of workers, and a restart in the
middle of an epoch, give the same bytes.
"""

import multiprocessing
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mlcls.errors import ImageError
from mlcls.images.cores import usable_cores
from mlcls.images.load import load_image
from mlcls.images.paths import PathList
from mlcls.images.preprocess import Preprocessing
from mlcls.images.read import MAX_PIXELS
from mlcls.images.sampling import SAMPLERS, Order, split_batches
from mlcls.naming import look_up

Pixels = NDArray[np.uint8]
Load = Callable[[int], Pixels]  # index -> [S, S, 3]; picklable; raises ImageError naming the path
Transform = Callable[[Pixels, int, int], Pixels]  # (image [S, S, 3], epoch, index) -> [S, S, 3]; picklable
Key = tuple[int, int]  # (epoch, index)
AHEAD = 2  # batches that threads prepare while one is computed on


class Batch(NamedTuple):
    """What the model is trained on and asked about.

    Attributes:
        pixels: uint8 [B, 3, S, S], RGB 0..255, in channels-last memory.
        labels: float32 [B, A], 0 absent, 1 present, NaN unknown.
        indices: int64 [B], positions in the dataset.
    """

    pixels: Tensor
    labels: Tensor
    indices: Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """One image: uint8 [S, S, 3], its labels float32 [A], its position."""

    pixels: Pixels
    labels: NDArray[np.float32]
    index: int


@dataclass(frozen=True, slots=True)
class PathLoader:
    """A `Load` that decodes the file at each call; see `load_paths`."""

    paths: PathList
    preprocessing: Preprocessing
    max_pixels: int = MAX_PIXELS

    def __call__(self, index: int) -> Pixels:
        return load_image(self.paths[index], self.preprocessing, max_pixels=self.max_pixels)

    def __len__(self) -> int:
        return len(self.paths)


def load_paths(paths: PathList, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS) -> PathLoader:
    """What gives the S x S pixels of these images, of at most `max_pixels` each, by decoding each anew."""
    return PathLoader(paths, preprocessing, max_pixels)


class ImageDataset(Dataset[Sample]):
    """Images and labels as samples. An item's key is (epoch, index), so that it depends on nothing else."""

    def __init__(self, load: Load, labels: NDArray[np.float32], transform: Transform | None = None) -> None:
        """Args: load: gives an image by its index; labels float32 [N, A], NaN unknown; transform: augments it."""
        images = _length(load)
        if images not in (None, len(labels)):
            raise ValueError(f"{images} images, but labels of {len(labels)}")
        self.load = load
        self.labels = np.ascontiguousarray(labels, dtype=np.float32)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Key) -> Sample:
        """Raises ImageError, naming the path, when the image cannot be read."""
        epoch, index = key
        pixels = self.load(index)
        if self.transform is not None:
            pixels = self.transform(pixels, epoch, index)
        return Sample(pixels, self.labels[index], index)

    def __getitems__(self, keys: list[Key]) -> list[Sample | ImageError]:
        """What a feed calls. An unreadable image is a value here: torch would bury it in a traceback."""
        samples: list[Sample | ImageError] = []
        for key in keys:
            try:
                samples.append(self[key])
            except ImageError as error:
                samples.append(error)
        return samples


def _length(load: object) -> int | None:
    return len(load) if isinstance(load, Sized) else None


def collate(samples: list[Sample | ImageError]) -> Batch | ImageError:
    """Samples of one size as a Batch, or the first of their errors."""
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, ImageError):
            return sample
        good.append(sample)
    pixels = torch.from_numpy(np.stack([sample.pixels for sample in good])).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.stack([sample.labels for sample in good]))
    return Batch(pixels, labels, torch.tensor([sample.index for sample in good], dtype=torch.int64))


class Feed(Protocol):
    """Batches of keys -> batches of images, in the same order; the dataset is the feed's own."""

    def __call__(self, batches: Iterable[list[Key]]) -> Iterator[Batch | ImageError]: ...


class _Plan:
    """A batch sampler whose batches are set before each pass; the loader, and its workers, are built once."""

    def __init__(self) -> None:
        self.batches: Iterable[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.batches)


class WorkerFeed:
    """Loading and augmenting in processes that live as long as this object; in this one with `workers` 0."""

    def __init__(
        self,
        dataset: ImageDataset,
        workers: int,
        *,
        pin_memory: bool = False,
        start_method: str | None = None,
    ) -> None:
        self._plan = _Plan()
        with warnings.catch_warnings():  # more processes than cores were asked for by name
            warnings.filterwarnings("ignore", "This DataLoader will create")
            self._loader = DataLoader(
                dataset,
                batch_sampler=self._plan,
                num_workers=workers,
                collate_fn=collate,
                pin_memory=pin_memory,
                persistent_workers=workers > 0,
                worker_init_fn=_start_worker,
                multiprocessing_context=start_method if workers > 0 else None,
                # each pass draws a seed; drawn from the global generator it would shift dropout's numbers
                generator=torch.Generator(),
            )

    def __call__(self, batches: Iterable[list[Key]]) -> Iterator[Batch | ImageError]:
        self._plan.batches = batches
        return iter(self._loader)


class ThreadFeed:
    """Loading in threads of this process, a few batches ahead: reading, decoding and resizing let go of the GIL."""

    def __init__(self, dataset: ImageDataset, threads: int, *, pin_memory: bool = False) -> None:
        """Args: threads: one alone where the dataset augments: albumentations keeps the numbers it drew."""
        if dataset.transform is not None and threads > 1:
            raise ValueError(f"an augmentation in {threads} threads would not be repeatable")
        self._dataset, self._threads, self._pin_memory = dataset, threads, pin_memory

    def __call__(self, batches: Iterable[list[Key]]) -> Iterator[Batch | ImageError]:
        pending: deque[list[Future[list[Sample | ImageError]]]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="load-images")
        try:
            for keys in batches:
                size = -(-len(keys) // self._threads)
                parts = [keys[start : start + size] for start in range(0, len(keys), size)]
                pending.append([pool.submit(self._dataset.__getitems__, part) for part in parts])
                if len(pending) > AHEAD:
                    yield self._batch(pending.popleft())
            while pending:
                yield self._batch(pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(self, parts: list[Future[list[Sample | ImageError]]]) -> Batch | ImageError:
        batch = collate([sample for part in parts for sample in part.result()])
        if self._pin_memory and not isinstance(batch, ImageError):
            return Batch(*(tensor.pin_memory() for tensor in batch))
        return batch


class Batches:
    """The batches of a dataset, epoch by epoch. One pass at a time."""

    def __init__(
        self, dataset: ImageDataset, order: Callable[[int], Order], *, batch_size: int, feed: Feed
    ) -> None:
        """Args: order: epoch -> int64 [n], positions; feed: what makes batches of them."""
        self.dataset = dataset
        self._order, self._batch_size, self._feed = order, batch_size, feed

    def positions(self, epoch: int = 0) -> list[Order]:
        """The positions in the dataset of each batch of that epoch, int64 [B] each."""
        return split_batches(self._order(epoch), self._batch_size)

    def count(self, epoch: int = 0) -> int:
        """How many batches that epoch has."""
        return len(self.positions(epoch))

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch number `start` on (for a run that goes on in the middle).

        Raises:
            ImageError: an image cannot be read; the message is the same with and without workers.
        """
        return self.of([(epoch, int(index)) for index in batch] for batch in self.positions(epoch)[start:])

    def of(self, batches: Iterable[Sequence[Key]]) -> Iterator[Batch]:
        """Batches of these keys, (epoch, index) each: any images, in any order.

        Raises:
            ImageError: as `epoch`.
        """
        for batch in self._feed(list(keys) for keys in batches):
            if isinstance(batch, ImageError):
                raise batch
            yield batch

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)

    def __len__(self) -> int:
        return self.count(0)


def training_batches(
    dataset: ImageDataset,
    *,
    batch_size: int,
    seed: int,
    sampler: str = "shuffle",
    workers: int = 0,
    pin_memory: bool = False,
    start_method: str | None = None,
) -> Batches:
    """The batches of training: `.epoch(e)` gives those of epoch e, in the order of `SAMPLERS[sampler]`.

    Args:
        dataset: with an augmentation as its transform.
        batch_size: images a batch; a last batch of one joins the one before it.
        seed: with the epoch, all that the order depends on.
        sampler: a key of `SAMPLERS`, or `package.module:function`.
        workers: processes that load and augment, 0 for none; see `mlcls.images.cores.auto_workers`.
        pin_memory: page-locked batches, for a CUDA device.
        start_method: `fork`, `spawn` or `forkserver`; None for the system's own.
    """
    draw = look_up(SAMPLERS, sampler, "--sampler")
    return Batches(
        dataset,
        lambda epoch: draw(dataset.labels, seed=seed, epoch=epoch),
        batch_size=batch_size,
        feed=WorkerFeed(dataset, workers, pin_memory=pin_memory, start_method=start_method),
    )


def evaluation_batches(
    dataset: ImageDataset, *, batch_size: int, threads: int | None = None, pin_memory: bool = False
) -> Batches:
    """The batches of validation and prediction: every image once, in the dataset's order; iterate over it.

    Args:
        threads: that load images while the model computes; None for one where the dataset augments, or its `load`
            says that it only copies (a true attribute `cached`); else one for each core.
    """
    if threads is None:
        alone = dataset.transform is not None or getattr(dataset.load, "cached", False)
        threads = 1 if alone else usable_cores()
    return Batches(
        dataset,
        lambda epoch: np.arange(len(dataset), dtype=np.int64),
        batch_size=batch_size,
        feed=ThreadFeed(dataset, threads, pin_memory=pin_memory),
    )


def _start_worker(worker: int) -> None:
    # a worker is one thread: the others belong to its siblings and to the training process
    cv2.setNumThreads(0)
    # Ctrl-C is the training process's to answer; it ends its workers when it is done with them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # SIGTERM to a whole group ends a worker too; had it died of it, torch would raise wherever the training process is
    signal.signal(signal.SIGTERM, _end_in_order)
    # torch ends the workers of a process that died, but not where it died before they looked whose they are
    parent = multiprocessing.parent_process()
    if (
        sys.platform != "win32"
        and parent is not None
        and os.getppid() != parent.pid
        and not _is_there(parent.pid)
    ):
        os._exit(0)


def _is_there(process: int | None) -> bool:
    try:
        os.kill(process or 0, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another's by now, or a system that does not tell
        return True
    return True


def _end_in_order(number: int, frame: FrameType | None) -> None:
    os._exit(0)
