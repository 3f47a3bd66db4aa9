"""Files that are whole or not there: written under another name, flushed to the disk, renamed, the folder flushed.

Every write, flush, rename and removal that a bundle or a checkpoint rests on goes through the five functions at the
top, so that a test can let each of them fail.
"""

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO

PART = ".part"  # what a file is called until it is whole: `.NAME.part`


def write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """All of the data, from where an unbuffered file stands. Raises OSError, as when the disk is full."""
    view = memoryview(data).cast("B")
    while len(view):
        view = view[file.write(view) :]


def flush(file: IO[bytes]) -> None:
    """Wait until the file's data are on disk."""
    os.fsync(file.fileno())


def rename(path: Path, target: Path) -> None:
    """Give a file its name, in one step; what had that name before is gone."""
    os.replace(path, target)


def remove(path: Path) -> None:
    """Remove a file; one that is not there is no fault."""
    path.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Wait until the folder's names are on disk, where the system can.

    Raises:
        OSError: the disk fails.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # some systems do not open folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # nor flush them
            raise
    finally:
        os.close(handle)


def write_flushed(path: Path, data: bytes | memoryview | Iterable[bytes | memoryview]) -> None:
    """Write a file under its own name and wait until its data are on disk; an earlier one, or a link, is replaced.

    Args:
        data: all of it, or piece by piece.

    Raises:
        OSError: the disk is full, the folder cannot be written.
    """
    remove(path)  # a link that somebody left there is not followed
    with open(path, "xb", buffering=0) as file:
        for piece in [data] if isinstance(data, bytes | memoryview) else data:
            write_all(file, piece)
        flush(file)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all, whatever ends this process or the machine, and wait until it is on disk.

    Raises:
        OSError: as `write_flushed`; what stood there before still stands.
    """
    part = path.with_name(f".{path.name}{PART}")
    try:
        write_flushed(part, data)
        rename(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)
