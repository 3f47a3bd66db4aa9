"""Images through an engine, chunk by chunk: decoded and computed in several threads at once, given back in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcls.errors import ImageError

if TYPE_CHECKING:
    from concurrent.futures import Future

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Load = Callable[[int, Any], Any]
Stack = Callable[[list[Any]], Any]
Compute = Callable[[Any, int], Floats]
Item = tuple[int, Any]

AHEAD = 2  # chunks a thread, at work or waiting to be taken


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some images in a row, and what was computed from those that can be read.

    Attributes:
        items: [n], each with its number counted from 0.
        errors: [n], None for an image that can be read.
        values: [readable images, ...], in order; None where there is none.
    """

    items: list[Item]
    errors: list[str | None]
    values: Floats | None


def run_stream(
    images: Iterable[Any], load: Load, compute: Compute, *, workers: int, batch: int, stack: Stack = np.stack
) -> Iterator[Chunk]:
    """Decode and compute; at most `AHEAD * workers` chunks of at most `batch` images are held at once.

    Each of `workers` threads takes a chunk, decodes its images and computes them in that one thread. So no core waits,
    whatever the two cost beside each other, and nothing is handed from core to core. (Threads that only decode beside
    threads that only compute leave cores idle, unless the two happen to cost what their numbers are to each other.)
    The first chunks are small: the first rows come soon, and a few images are spread over all threads.

    A handful, at most one image a thread, is decoded side by side and then computed at once, in all threads.

    Args:
        load: number and image -> prepared pixels, uint8 [S, S, 3]; raises ImageError for one that cannot be read.
        compute: pixels [n, S, S, 3] and the number of threads to compute with (0: all) -> values [n, ...].
        workers: threads, at least 1.
        batch: the most images of a chunk, at least 1.
        stack: what `load` gave for n images -> what `compute` takes, where that is another thing than pixels.
    """

    def compute_stacked(loaded: list[Any], threads: int) -> Floats:
        return compute(stack(loaded), threads)

    numbered = enumerate(images)
    first = list(islice(numbered, workers + 1))
    if len(first) <= workers:
        if first:
            yield _handful(first, load, compute_stacked)
        return
    from concurrent.futures import ThreadPoolExecutor  # costs as much to load as a photo to predict

    chunks = _chunks(chain(first, numbered), workers, batch)
    pending: deque[Future[Chunk]] = deque()
    with _one_thread_each(), ThreadPoolExecutor(workers, "mlcls-predict") as threads:
        try:
            for items in chunks:
                pending.append(threads.submit(_compute_chunk, items, load, compute_stacked, 1))
                if len(pending) >= AHEAD * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:  # the taker has had enough, or something broke
                future.cancel()


def _handful(items: list[Item], load: Load, compute: Compute) -> Chunk:
    if len(items) == 1:
        return _compute_chunk(items, load, compute, 0)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(items), "mlcls-predict") as threads:
        loaded = list(threads.map(lambda item: _try_load(load, item), items))
    return _compute(items, loaded, compute, 0)


def _chunks(numbered: Iterator[Item], workers: int, batch: int) -> Iterator[list[Item]]:
    count = 0
    while items := list(islice(numbered, min(batch, 1 + count // workers))):
        yield items
        count += 1


def _compute_chunk(items: list[Item], load: Load, compute: Compute, threads: int) -> Chunk:
    return _compute(items, [_try_load(load, item) for item in items], compute, threads)


def _try_load(load: Load, item: Item) -> Any:
    """What was loaded, or the reason why it cannot be."""
    try:
        return load(*item)
    except ImageError as error:
        return str(error)


def _compute(items: list[Item], loaded: list[Any], compute: Compute, threads: int) -> Chunk:
    pixels = [one for one in loaded if not isinstance(one, str)]
    errors = [one if isinstance(one, str) else None for one in loaded]
    return Chunk(items, errors, compute(pixels, threads) if pixels else None)


_streams_lock = threading.Lock()
_streams = {"running": 0, "before": 0}  # how many put OpenCV's threads aside, and how many threads it had


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """OpenCV's own threads put aside: there is one of ours for each core already.

    Their number is the process's, and streams may overlap: the first puts them aside, the last brings them back.
    """
    with _streams_lock:
        if _streams["running"] == 0:
            _streams["before"] = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _streams["running"] += 1
    try:
        yield
    finally:
        with _streams_lock:
            _streams["running"] -= 1
            if _streams["running"] == 0:
                cv2.setNumThreads(_streams["before"])
