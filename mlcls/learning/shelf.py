"""A folder of rows that several runs share: what one has computed of an image, the next one finds.

    FOLDER/KEY.shelf    of one view: for each chunk whether it is there, with a checksum; then the chunks' rows

A row is the same to its last bit whoever computes it, so that any number of processes may read and write at once:
two that write a chunk write the same bytes. A chunk counts once its entry is written, after its rows; rows that are
not what the checksum says, as after the machine went down, count as not there. Any file may be removed at any time.
"""

import contextlib
import io
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcls import durable

SHELVED, HALF = ".shelf", ".half"
ENTRY = 8  # bytes of a chunk's entry: the CRC-32 of its rows, and 1 above it where they are there
THERE = 1 << 32
SPARE = 2  # of what is free on the disk, at most one part in so many is taken


@dataclass(frozen=True)
class Shelf:
    """Where rows are shared.

    Attributes:
        folder: made when the first rows come.
        limit: bytes that it may hold; the files that were used least recently go first.
    """

    folder: Path
    limit: int

    def file(self, key: str, size: int, keep: Collection[str]) -> Path | None:
        """The file of a key, which is made where it is not there; None where it cannot be.

        Args:
            key: a part of a file name.
            size: of the file, in bytes.
            keep: keys of files that are not removed to make room.
        """
        path = self.folder / f"{key}{SHELVED}"
        try:
            if path.is_file() and path.stat().st_size == size:
                os.utime(path)  # it is used now
                return path
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self._make_room(size, keep):
                return None
            half = self.folder / f"{uuid.uuid4().hex}{HALF}"
            try:
                with open(half, "xb") as file:
                    file.truncate(size)  # without data: no disk is taken before rows come
                durable.rename(half, path)
            finally:
                durable.remove(half)
        except OSError:  # not ours to write, or on its way out: the run does without
            return None
        return path

    def _make_room(self, size: int, keep: Collection[str]) -> bool:
        """Remove files, the least recently used first, until one of this size has room; whether it has."""
        there = []
        for path in (*self.folder.glob(f"*{SHELVED}"), *self.folder.glob(f"*{HALF}")):
            with contextlib.suppress(OSError):  # another process has removed it
                status = path.stat()
                there.append((status.st_mtime_ns, path, status.st_size))
        there.sort()
        taken = sum(bytes_ for _, _, bytes_ in there)
        for _, path, bytes_ in there:
            if taken + size <= self.limit:
                break
            if path.stem not in keep:
                durable.remove(path)
                taken -= bytes_
        return taken + size <= self.limit and size <= shutil.disk_usage(self.folder).free // SPARE


@dataclass(slots=True)
class ShelvedRows:
    """The rows of one store on a shelf, a file a view.

    Attributes:
        shelf: where.
        keys: view -> the key of its rows: a digest of all that they depend on.
        count: view -> how many images have a row there.
        chunk: how many images to a chunk; the last one may have fewer.
        width: bytes of a row.
        used: keys that this run uses, its other stores' as well, so that none makes room for another.
    """

    shelf: Shelf
    keys: Callable[[int], str]
    count: Callable[[int], int]
    chunk: int
    width: int
    used: set[str]
    taken: int = 0
    _files: dict[int, Path | None] = field(default_factory=dict)

    def take(self, view: int, number: int) -> NDArray[np.uint8] | None:
        """The rows of a chunk, uint8 [n, width], in the chunk's order; None where they are not there."""
        path = self._file(view)
        if path is None:
            return None
        count = min(self.chunk, self.count(view) - number * self.chunk)
        try:
            with open(path, "rb", buffering=0) as file:
                file.seek(ENTRY * number)
                entry = int.from_bytes(file.read(ENTRY), "little")
                if not entry & THERE:
                    return None
                file.seek(self._start(view, number))
                rows = np.empty((count, self.width), dtype=np.uint8)
                if _read_into(file, rows) and zlib.crc32(rows.data) == entry - THERE:
                    self.taken += count
                    return rows
        except OSError:
            self._files[view] = None
        return None

    def put(self, view: int, number: int, rows: Tensor) -> None:
        """Keep the rows of a chunk [n, K] on the CPU, where there is room for them."""
        path = self._file(view)
        if path is None:
            return
        data = rows.contiguous().view(torch.uint8).numpy().data.cast("B")
        try:
            with open(path, "r+b", buffering=0) as file:
                file.seek(self._start(view, number))
                durable.write_all(file, data)
                file.seek(ENTRY * number)
                durable.write_all(file, (THERE | zlib.crc32(data)).to_bytes(ENTRY, "little"))
        except OSError:  # the disk is full, or another run has made room: this one does without
            self._files[view] = None

    def _start(self, view: int, number: int) -> int:
        """Where the rows of a chunk begin."""
        return ENTRY * -(-self.count(view) // self.chunk) + number * self.chunk * self.width

    def _file(self, view: int) -> Path | None:
        if view not in self._files:
            key = self.keys(view)
            self.used.add(key)
            size = self._start(view, 0) + self.count(view) * self.width
            self._files[view] = self.shelf.file(key, size, self.used)
        return self._files[view]


def _read_into(file: io.RawIOBase, rows: NDArray[np.uint8]) -> bool:
    """Fill the rows from where the file stands; whether it has so many bytes."""
    view = rows.data.cast("B")
    while len(view):
        count = file.readinto(view)
        if not count:
            return False
        view = view[count:]
    return True
