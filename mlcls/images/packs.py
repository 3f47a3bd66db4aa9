"""Owns the files of the image cache: packs of decoded images, whole or not there, bounded, for many runs at once.

    FOLDER/FORM/NAME.rows    the pixels of the pack's images, one after the other, uint8 [n, S, S, 3]
    FOLDER/FORM/NAME.npz     its index: which images these are, and a checksum of each row
    FOLDER/FORM/NAME.lock    held by the run that writes the pack, and let go when that run ends, however it ends

The index is written last, once the rows are on disk, and renamed into place: a pack is there when its index is. Rows
without an index belong to a run that goes on, if their lock is held, or to one that was ended, and are removed. When a
pack was last used is the time of its index.
"""

import contextlib
import os
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

ROWS, INDEX, HALF, LOCK = ".rows", ".npz", ".tmp", ".lock"
LOCK_SECONDS = 20.0  # for which a run waits while others make room; then it does without the cache
MOST_PACKS = 300  # each costs a run a file to open
SPARE = 2_000_000_000  # bytes of the disk that are left to others
# what a damaged index makes NumPy and zipfile raise
DAMAGED = (
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    OverflowError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)

# of each row, in the index: name, type, shape
COLUMNS: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "keys": ("|u1", (32,)),  # SHA-256 of the image file
    "sizes": ("<i4", (2,)),  # true width and height
    "pictures": ("|u1", (32, 32)),  # the small gray picture
    "hashes": ("<u8", ()),  # the perceptual hash
    "checksums": ("<u4", ()),  # CRC-32 of the pixels
}
INDEX_HEAD = 4096  # bytes of an index besides its columns, at most
INDEX_BYTES = sum(np.dtype(kind).itemsize * int(np.prod(shape)) for kind, shape in COLUMNS.values())


@dataclass(frozen=True, slots=True)
class Pack:
    """A whole pack of n images.

    Attributes:
        index: the path of its index.
        keys: uint8 [n, 32].
        checksums: uint32 [n].
    """

    index: Path
    keys: NDArray[np.uint8]
    checksums: NDArray[np.uint32]

    @property
    def rows(self) -> Path:
        """The path of its pixels."""
        return self.index.with_suffix(ROWS)


def open_pack(index: Path) -> Pack | None:
    """The pack of this index. None where it was removed, cannot be opened, or is damaged: then it is removed."""
    columns = read_columns(index, ("keys", "checksums"))
    if columns is None:
        return None
    try:
        size = index.with_suffix(ROWS).stat().st_size
    except OSError:
        return None
    if size != len(columns["keys"]) * row_bytes(side_of(index.parent.name)):
        remove_pack(index)
        return None
    return Pack(index, columns["keys"], columns["checksums"])


def read_columns(index: Path, names: Collection[str]) -> dict[str, NDArray[Any]] | None:
    """Columns of an index, each with a row an image. None where it cannot be read; damaged, its pack is removed."""
    try:
        # the file holds a checksum of each column, which is compared
        with open(index, "rb") as file, np.load(file, allow_pickle=False) as loaded:
            columns = {name: loaded[name] for name in names}
        counts = {len(column) for column in columns.values()}
        for name, column in columns.items():
            kind, shape = COLUMNS[name]
            if column.dtype.str != kind or column.shape[1:] != shape or len(counts) != 1:
                raise ValueError(f"{index}: {name} is {column.dtype} {column.shape}")
    except DAMAGED:
        remove_pack(index)
        return None
    except OSError:  # gone, or not ours to read
        return None
    return columns


def row_bytes(side: int) -> int:
    """Bytes of the pixels of one image."""
    return side * side * 3


def side_of(form: str) -> int:
    """S, with which the name of a form's folder begins."""
    return int(form.partition("-")[0])


def folder_lock(folder: Path) -> AbstractContextManager[object]:
    """Held while packs are made room for, begun or removed: never for long.

    Raises (when it is entered):
        OSError: the folder cannot be written, or others held it for `LOCK_SECONDS`.
    """
    return FileLock(folder / LOCK, timeout=LOCK_SECONDS)


def indexes(folder: Path, form: str | None = None) -> list[Path]:
    """The indexes of the packs of one form, or of all; those used last come first."""
    found = []
    for path, status in _files(folder):
        if path.suffix == INDEX and form in (None, path.parent.name):
            found.append((status.st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def total_bytes(folder: Path) -> int:
    """What the packs of all forms take, those being written with the room that they have reserved."""
    return sum(status.st_size for _, status in _files(folder))


def touch(index: Path) -> None:
    """Say that a pack is used now."""
    with contextlib.suppress(OSError):  # gone, or not ours to write
        os.utime(index)


def remove_pack(index: Path) -> None:
    """Remove a pack, its index first: what a kill leaves of it is no pack."""
    for suffix in (INDEX, ROWS, HALF, LOCK):
        with contextlib.suppress(OSError):  # gone, or open in Windows: then a later run removes it
            index.with_suffix(suffix).unlink()


def clear_orphans(folder: Path) -> None:
    """Remove what runs left that were ended while they wrote. To be called with the folder's lock."""
    suffixes: dict[Path, set[str]] = {}
    for path, _ in _files(folder):
        suffixes.setdefault(path.with_suffix(INDEX), set()).add(path.suffix)
    for index, there in suffixes.items():
        whole = {INDEX, ROWS} <= there
        if (not whole or there & {HALF, LOCK}) and _is_free(index.with_suffix(LOCK)):
            for suffix in (HALF, LOCK) if whole else (INDEX, ROWS, HALF, LOCK):
                with contextlib.suppress(OSError):
                    index.with_suffix(suffix).unlink()


def free_bytes(folder: Path, limit: int) -> int:
    """What may still be written; below 0 where packs take too much.

    Args:
        limit: bytes that all packs may take.
    """
    taken = sum(status.st_size for _, status in _files(folder))
    return min(limit - taken, shutil.disk_usage(folder).free - SPARE)


def is_crowded(folder: Path, least: int, limit: int) -> bool:
    """Whether packs have to go before so many bytes are written as one more."""
    return free_bytes(folder, limit) < least or len(indexes(folder)) >= MOST_PACKS


def make_room(folder: Path, least: int, limit: int, keep: Collection[Path]) -> int:
    """Remove packs, least recently used first, until there is room. To be called with the folder's lock.

    Args:
        least: bytes that have to be written.
        limit: bytes that all packs may take.
        keep: indexes of packs that are not removed.

    Returns:
        Bytes that can be written; less than `least` where what is kept takes too much.
    """
    used_last = indexes(folder)
    free, count = free_bytes(folder, limit), len(used_last)
    for index in used_last[::-1]:
        if free >= least and count < MOST_PACKS:
            break
        if index not in keep:
            remove_pack(index)
            free, count = free_bytes(folder, limit), count - 1
    return free


def new_pack(folder: Path, form: str) -> tuple[Path, FileLock]:
    """The index of a pack that is to be written, which does not exist yet, and its lock, held by this process.

    To be called with the folder's lock, so that none removes the lock before it is held.
    """
    (folder / form).mkdir(parents=True, exist_ok=True)
    index = folder / form / f"{uuid.uuid4().hex}{INDEX}"
    lock = FileLock(index.with_suffix(LOCK), thread_local=False)
    lock.acquire(blocking=False)
    return index, lock


def _is_free(lock: Path) -> bool:
    """Whether no process holds this lock."""
    if not lock.exists():
        return True
    try:
        with FileLock(lock).acquire(blocking=False):
            return True
    except Timeout:
        return False


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The files of all packs; what bears another name is not ours."""
    for form in _entries(folder):
        if not form.name.partition("-")[0].isdecimal() or not form.is_dir(follow_symlinks=False):
            continue
        for entry in _entries(Path(form.path)):
            path = Path(entry.path)
            if path.suffix in (ROWS, INDEX, HALF, LOCK) and len(path.stem) == 32:
                with contextlib.suppress(OSError):  # removed in between
                    yield path, entry.stat(follow_symlinks=False)


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return list(entries)
    return []
