"""Rows of a feature store on disk: the new ones appended as files, found again after a kill, each digest verified.

A file holds whole chunks of one view: the positions of their images, int64 [n], then their rows [n, K], as they lie
in the store. It never changes once it is written, and counts once a manifest names it.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlcls import durable
from mlcls.learning.features import FeatureStore, Indices, check_room

ROWS = ".rows"  # what the files' names end with
PIECE = 16 * 2**20  # bytes that are written or read at a time


def save_rows(store: FeatureStore, folder: Path, name: str) -> list[dict[str, Any]]:
    """Write the rows that no file holds yet, one file a view: `{name}-{view}-{number}.rows`.

    May run in a thread of its own while the store is being filled, but not twice at a time. What is written is on the
    disk when it returns; the files' names are once the folder is flushed.

    Args:
        folder: is there.
        name: of the store, a part of a file name.

    Returns:
        plain JSON of all files that hold rows of the store by now, those of earlier saves as well: `file`, `number`,
        `view`, `chunks` as [[first, last], ...], `sha256` of the file.

    Raises:
        OSError: no room (more than half of what is free on the disk counts as none), or the folder cannot be
            written. Then no file is there that was not before, and the next save tries again.
    """
    seconds = store.seconds  # before what is filled: at worst a little is taken for unsaved that is saved
    fresh = store.filled & ~store.saved
    views = np.flatnonzero(fresh.any(axis=1)).tolist()
    images = {view: _images_of(store, view, np.flatnonzero(fresh[view])) for view in views}
    check_room(folder, sum(images[view].nbytes + len(images[view]) * _width(store, view) for view in views))
    new: list[dict[str, Any]] = []
    try:
        for number, view in enumerate(views, store.next_file):
            file, chunks = f"{name}-{view}-{number}{ROWS}", _ranges(np.flatnonzero(fresh[view]))
            new.append({"file": file, "number": number, "view": view, "chunks": chunks})
            new[-1]["sha256"] = _write(folder / file, store, view, images[view])
    except OSError:
        for fact in new:
            with contextlib.suppress(OSError):
                durable.remove(folder / fact["file"])
        raise
    store.saved |= fresh
    store.saved_seconds = seconds
    store.next_file += len(new)
    store.files += new
    return list(store.files)


def load_rows(store: FeatureStore, folder: Path, facts: Any) -> list[str]:
    """Fill an empty store with what `save_rows` wrote, in the same process or in another.

    Args:
        store: of the same images, view by view in the same chunks, and of the same width.
        facts: as `save_rows` returned them; anything else is taken for damage.

    Returns:
        the names of files that are damaged, missing or of another store. Nothing of them is used: their rows will be
        computed again.
    """
    lost: list[str] = []
    for fact in facts if isinstance(facts, list) else [facts]:
        try:
            file, number, view, chunks, digest = _checked(fact, store)
        except (KeyError, TypeError, ValueError):
            lost.append(str(fact.get("file") if isinstance(fact, dict) else fact)[:80])
            continue
        store.next_file = max(store.next_file, number + 1)
        if _read(folder / file, store, view, chunks) == digest:
            store.filled[view, chunks] = store.saved[view, chunks] = True
            store.files.append(dict(fact))
        else:
            lost.append(file)
    return lost


def _width(store: FeatureStore, view: int) -> int:
    """Bytes of a row."""
    return store.rows[view].shape[1] * store.rows[view].dtype.itemsize


def _bytes_of(store: FeatureStore, view: int) -> NDArray[np.uint8]:
    """The rows of a view as they lie in memory or in its file, uint8 [N, bytes of a row]."""
    rows: NDArray[np.uint8] = store.rows[view].view(torch.uint8).numpy()
    return rows


def _images_of(store: FeatureStore, view: int, chunks: NDArray[np.intp]) -> Indices:
    """The images of these chunks, in order."""
    return np.concatenate([store.layout.chunk(view, int(chunk)) for chunk in chunks])


def _ranges(numbers: NDArray[np.intp]) -> list[list[int]]:
    """Rising numbers as [[first, last], ...]."""
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return [[int(part[0]), int(part[-1])] for part in parts]


def _pieces(images: Indices, width: int) -> Iterator[Indices]:
    """Images whose rows of `width` bytes are moved at a time."""
    step = max(1, PIECE // width)
    for start in range(0, len(images), step):
        yield images[start : start + step]


def _write(path: Path, store: FeatureStore, view: int, images: Indices) -> str:
    """Write a file and wait until its data are on disk; its SHA-256."""
    digest, rows = hashlib.sha256(), _bytes_of(store, view)
    durable.remove(path)  # what a save left that was killed
    with open(path, "xb", buffering=0) as file:

        def put(block: memoryview) -> None:
            durable.write_all(file, block)
            digest.update(block)

        put(images.data.cast("B"))
        for piece in _pieces(images, _width(store, view)):
            put(np.take(rows, piece, axis=0).data.cast("B"))
        durable.flush(file)
    return digest.hexdigest()


def _checked(fact: Any, store: FeatureStore) -> tuple[str, int, int, NDArray[np.intp], str]:
    """A file's name, number, view, chunks, digest. Raises KeyError, TypeError, ValueError: it is not of this store."""
    file, number, view, digest = fact["file"], fact["number"], fact["view"], fact["sha256"]
    if not isinstance(file, str) or Path(file).name != file or not file.endswith(ROWS) or "\0" in file:
        raise ValueError("names no file of the folder")
    if not (
        isinstance(number, int) and isinstance(view, int) and 0 <= number < 10**9 and 0 <= view < store.views
    ):
        raise ValueError("no such view")
    end = -1
    for first, last in fact["chunks"]:
        if not (
            isinstance(first, int)
            and isinstance(last, int)
            and end < first <= last < store.layout.most_chunks
        ):
            raise ValueError("no such chunks")
        end = last
    return file, number, view, np.concatenate([np.arange(a, b + 1) for a, b in fact["chunks"]]), str(digest)


def _read(path: Path, store: FeatureStore, view: int, chunks: NDArray[np.intp]) -> str | None:
    """Put a file's rows in their places; its SHA-256, or None where it cannot be read or holds something else.

    Rows that are filled already stay; the others count for nothing until they are marked as filled.
    """
    images, width, rows = _images_of(store, view, chunks), _width(store, view), _bytes_of(store, view)
    digest = hashlib.sha256()
    try:
        if path.is_symlink() or not path.is_file():
            return None
        if path.stat().st_size != images.nbytes + len(images) * width:
            return None
        with open(path, "rb") as file:

            def take(size: int) -> bytes:
                data = file.read(size)
                digest.update(data)
                return data

            if take(images.nbytes) != images.tobytes():
                return None
            for piece in _pieces(images, width):
                data = np.frombuffer(take(len(piece) * width), dtype=np.uint8).reshape(len(piece), width)
                new = ~store.filled[view, store.layout.numbers(view, piece)]
                rows[piece[new]] = data[new]
    except (OSError, ValueError):  # cannot be read; became shorter meanwhile
        return None
    return digest.hexdigest()
