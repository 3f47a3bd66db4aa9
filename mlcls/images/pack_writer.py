"""Owns writing a pack of the image cache: rows as they come, then, once they are on disk, its index."""

import contextlib
import io
import threading
import zlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlcls.durable import flush, flush_folder, rename, write_all
from mlcls.images.packs import (
    COLUMNS,
    HALF,
    INDEX_BYTES,
    INDEX_HEAD,
    LOCK,
    ROWS,
    folder_lock,
    indexes,
    is_crowded,
    make_room,
    new_pack,
    remove_pack,
    row_bytes,
    side_of,
)
from mlcls.images.preprocess import Pixels

RESERVE = 64_000_000  # bytes that room is made for at a time

_COMMITS: set[threading.Thread] = set()


class Row(NamedTuple):
    """An image of a pack.

    Attributes:
        key: SHA-256 of its file.
        pixels: uint8 [S, S, 3].
        size: true width and height.
        picture: the small gray picture, uint8 [32, 32].
        hash: its perceptual hash.
    """

    key: bytes
    pixels: Pixels
    size: tuple[int, int]
    picture: Pixels
    hash: int


class PackWriter:
    """A pack that is being written. It becomes one with `commit`; a process that ends before leaves none.

    Attributes:
        index: the path that its index will have.
    """

    def __init__(self, folder: Path, form: str, limit: int) -> None:
        """Args: folder, form: where; limit: bytes that all packs may take.

        Raises:
            OSError: the folder cannot be written.
        """
        self._folder, self._limit, self._side = folder, limit, side_of(form)
        folder.mkdir(parents=True, exist_ok=True)
        with folder_lock(folder):
            self.index, self._lock = new_pack(folder, form)
        self._file: IO[bytes] = open(self.rows, "xb", buffering=0)  # noqa: SIM115 (closed by commit and discard)
        self._columns: dict[str, list[object]] = {name: [] for name in COLUMNS}
        self._reserved, self._full = 0, False

    @property
    def rows(self) -> Path:
        """The path of its pixels."""
        return self.index.with_suffix(ROWS)

    def __len__(self) -> int:
        return len(self._columns["keys"])

    def append(self, row: Row, keep: Callable[[], Collection[Path]]) -> bool:
        """Write a row, if there is room.

        Args:
            keep: the indexes of packs that must not be removed to make room; asked when room is to be made.

        Raises:
            OSError: the disk is full, or fails.
        """
        if not self._has_room(keep):
            return False
        write_all(self._file, row.pixels.data)
        values = (
            np.frombuffer(row.key, dtype=np.uint8),
            row.size,
            row.picture,
            row.hash,
            zlib.crc32(row.pixels.data),
        )
        for name, value in zip(COLUMNS, values, strict=True):
            self._columns[name].append(value)
        return True

    def commit(self) -> None:
        """Make it a pack, in a thread of its own: data go to disk while the run begins. See `finish_commits`.

        Raises:
            OSError: the disk fails.
        """
        self._file.truncate(len(self) * row_bytes(self._side))
        thread = threading.Thread(target=self._commit, name="commit-pack")
        _COMMITS.add(thread)
        thread.start()

    def discard(self) -> None:
        """Leave nothing of it."""
        self._file.close()
        remove_pack(self.index)
        self._lock.release()

    def checksums(self) -> NDArray[np.uint32]:
        """Of the rows written so far."""
        return np.array(self._columns["checksums"], dtype=np.uint32)

    def _has_room(self, keep: Callable[[], Collection[Path]]) -> bool:
        needed = INDEX_HEAD + (len(self) + 1) * (row_bytes(self._side) + INDEX_BYTES)
        least = needed - self._reserved
        if least > 0 and not self._full:
            crowded = is_crowded(self._folder, least, self._limit)
            kept = keep() if crowded else None  # it may read many files: not while others wait
            with folder_lock(self._folder):
                # where there seemed to be room, none is made
                free = make_room(
                    self._folder, least, self._limit, indexes(self._folder) if kept is None else kept
                )
                self._full = free < least
                if not self._full:
                    self._reserved += min(free, max(least, RESERVE))
                    self._file.truncate(self._reserved)  # what other runs count; it is not yet written
        return needed <= self._reserved

    def _commit(self) -> None:
        columns = {
            name: np.array(self._columns[name], dtype=kind).reshape(-1, *shape)
            for name, (kind, shape) in COLUMNS.items()
        }
        index = io.BytesIO()
        np.savez(index, **columns)  # type: ignore[arg-type]
        half = self.index.with_suffix(HALF)
        try:
            flush(self._file)
            self._file.close()
            with open(half, "xb", buffering=0) as file:
                write_all(file, index.getbuffer())
                flush(file)
            rename(half, self.index)
        except OSError:  # the disk is full after all: the images stay to be decoded
            self.discard()
        else:
            with contextlib.suppress(OSError):  # the index has its name
                flush_folder(self.index.parent)
            self._lock.release()
            with contextlib.suppress(OSError):
                self.index.with_suffix(LOCK).unlink()


def finish_commits() -> None:
    """Wait until every pack that this process has committed is one (the end of the process waits too)."""
    while _COMMITS:
        thread = _COMMITS.pop()
        thread.join()
