"""The one pass over all images of a table: each is read and decoded once, in threads. Without torch."""

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from mlcls.errors import ImageError
from mlcls.images.cores import usable_cores
from mlcls.images.preprocess import Pixels
from mlcls.images.read import read_image


def check_images(
    paths: Iterable[str | os.PathLike[str]],
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
    threads = max(1, workers if workers is not None else usable_cores())
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
