"""Images on disk -> batches: the torch Dataset, the loaders, and the check of all files.

Nothing here keeps state between epochs. The order is f(seed, epoch), an augmentation f(seed, epoch, index),
and the epoch reaches persistent workers inside each item's key. Any number of workers, and a restart in the
middle of an epoch, give the same bytes.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mlcls.errors import ImageError
from mlcls.images.preprocess import Preprocessing, prepare
from mlcls.images.read import read_image
from mlcls.images.sampling import SAMPLERS, Order, split_batches
from mlcls.naming import look_up

Pixels = NDArray[np.uint8]
Transform = Callable[[Pixels, int, int], Pixels]  # (image [H, W, 3], epoch, index) -> [S, S, 3]; picklable
Key = tuple[int, int]  # (epoch, index)
MOST_WORKERS = 8


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
class Evaluation:
    """The transform without chance: `prepare`, whatever the epoch and the index."""

    preprocessing: Preprocessing

    def __call__(self, image: Pixels, epoch: int, index: int) -> Pixels:
        return prepare(image, self.preprocessing)


class ImageDataset(Dataset[Sample]):
    """Paths and labels as samples. An item's key is (epoch, index), so that it depends on nothing else."""

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], labels: NDArray[np.float32], transform: Transform
    ) -> None:
        """Args: paths [N]; labels float32 [N, A], NaN unknown; transform: decoded pixels -> the square."""
        if len(paths) != len(labels):
            raise ValueError(f"{len(paths)} paths, but labels of {len(labels)} images")
        self.paths = [os.fspath(path) for path in paths]
        self.labels = np.ascontiguousarray(labels, dtype=np.float32)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, key: Key) -> Sample:
        """Raises ImageError, naming the path, when the image cannot be read."""
        epoch, index = key
        pixels = self.transform(read_image(self.paths[index]), epoch, index)
        return Sample(pixels, self.labels[index], index)

    def __getitems__(self, keys: list[Key]) -> list[Sample | ImageError]:
        """What the loader calls. An unreadable image is a value here: torch would bury it in a traceback."""
        samples: list[Sample | ImageError] = []
        for key in keys:
            try:
                samples.append(self[key])
            except ImageError as error:
                samples.append(error)
        return samples


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


class _EpochKeys:
    """A batch sampler whose epoch and first batch are set before each pass; the loader is built once."""

    def __init__(self, order: Callable[[int], Order], batch_size: int) -> None:
        self.order, self.batch_size = order, batch_size
        self.epoch, self.start = 0, 0

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in split_batches(self.order(self.epoch), self.batch_size)[self.start :]:
            yield [(self.epoch, int(index)) for index in batch]


class Batches:
    """The batches of a dataset, epoch by epoch, with workers that live as long as this object does.

    One pass at a time: the loader, and with it the workers, is built once.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        order: Callable[[int], Order],
        *,
        batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        start_method: str | None = None,
    ) -> None:
        """Args: order: epoch -> int64 [n], positions; for the others see `training_batches`."""
        self.dataset = dataset
        self._keys = _EpochKeys(order, batch_size)
        self._loader = DataLoader(
            dataset,
            batch_sampler=self._keys,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            worker_init_fn=_start_worker,
            multiprocessing_context=start_method if workers > 0 else None,
            # each pass draws a seed; drawn from the global generator it would shift dropout's numbers
            generator=torch.Generator(),
        )

    def count(self, epoch: int = 0) -> int:
        """How many batches that epoch has."""
        return len(split_batches(self._keys.order(epoch), self._keys.batch_size))

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from batch number `start` on (for a run that goes on in the middle).

        Raises:
            ImageError: an image cannot be read; the message is the same with and without workers.
        """
        self._keys.epoch, self._keys.start = epoch, start
        for batch in self._loader:
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
        workers: processes that decode and augment, 0 for none; see `auto_workers`.
        pin_memory: page-locked batches, for a CUDA device.
        start_method: `fork`, `spawn` or `forkserver`; None for the system's own.
    """
    draw = look_up(SAMPLERS, sampler, "--sampler")
    return Batches(
        dataset,
        lambda epoch: draw(dataset.labels, seed=seed, epoch=epoch),
        batch_size=batch_size,
        workers=workers,
        pin_memory=pin_memory,
        start_method=start_method,
    )


def evaluation_batches(
    dataset: ImageDataset,
    *,
    batch_size: int,
    workers: int = 0,
    pin_memory: bool = False,
    start_method: str | None = None,
) -> Batches:
    """The batches of validation and prediction: every image once, in the dataset's order; iterate over it."""
    return Batches(
        dataset,
        lambda epoch: np.arange(len(dataset), dtype=np.int64),
        batch_size=batch_size,
        workers=workers,
        pin_memory=pin_memory,
        start_method=start_method,
    )


def auto_workers() -> int:
    """How many worker processes `--workers auto` means: one for each core but one, at most 8.

    The training process needs a core for itself, also where a GPU does the arithmetic, since it feeds it. So
    one core has no worker, and two have one. Each costs memory, hence the 8.
    """
    return min(_cores() - 1, MOST_WORKERS)


def check_images(
    paths: Sequence[str | os.PathLike[str]],
    workers: int | None = None,
    on_progress: Callable[[int], None] | None = None,
    on_pixels: Callable[[int, Pixels], None] | None = None,
) -> list[tuple[int, str]]:
    """The images that cannot be read, found by decoding each once, in threads (OpenCV lets go of the GIL).

    Args:
        paths: [N]; streamed, with a few images in memory at a time.
        workers: threads; None for one a core.
        on_progress: called in this thread, after each image, with how many are done.
        on_pixels: called in the thread that decoded the image, with its index and its pixels, uint8 RGB
            [H, W, 3]: what else there is to learn from them needs no second pass.

    Returns:
        (index, message) of each, in the order of `paths`; the message begins with the path.
    """
    threads = max(1, workers if workers is not None else _cores())
    unreadable: list[tuple[int, str]] = []
    pending: deque[tuple[int, Future[str | None]]] = deque()

    def take_first() -> None:
        index, future = pending.popleft()
        message = future.result()
        if message is not None:
            unreadable.append((index, message))
        if on_progress is not None:
            on_progress(index + 1)

    with ThreadPoolExecutor(threads, thread_name_prefix="check-images") as pool:
        for index, path in enumerate(paths):
            pending.append((index, pool.submit(_why_unreadable, path, index, on_pixels)))
            if len(pending) >= 4 * threads:
                take_first()
        while pending:
            take_first()
    return unreadable


def _why_unreadable(
    path: str | os.PathLike[str], index: int, on_pixels: Callable[[int, Pixels], None] | None
) -> str | None:
    try:
        pixels = read_image(path)
    except ImageError as error:
        return str(error)
    if on_pixels is not None:
        on_pixels(index, pixels)
    return None


def _cores() -> int:
    """Cores that this process may use: a container or `taskset` may leave it fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start_worker(worker: int) -> None:
    # a worker is one thread: the others belong to its siblings and to the training process
    cv2.setNumThreads(0)
    # Ctrl-C is the training process's to answer; it ends its workers when it is done with them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
