"""A file that is written whole or not at all, and what is said of one that cannot be."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlcls import durable
from mlcls.errors import OutputError

FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a write into a message that says what to do. Raises OutputError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OutputError(f"{path}: the disk is full; make room and run it again") from error
        where = error.filename or path
        raise OutputError(
            f"{where}: cannot be written ({error.strerror or error}); make it writable, or name another place"
        ) from error


def is_of_the_disk(error: Exception, folder: Path) -> bool:
    """Whether a disk is full, or a file of that folder cannot be written."""
    if not isinstance(error, OSError):
        return False
    return error.errno in FULL or (error.filename is not None and Path(error.filename).parent == folder)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it: whole or not at all.

    Raises:
        OutputError: the disk is full or the file cannot be written.
    """
    with writing(path):
        durable.remove(path.with_name(f".{path.name}{durable.PART}"))  # a link of this name would be followed
        durable.write_whole(path, data)
