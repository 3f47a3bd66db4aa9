"""One training at a time in an `--out`: a lock that dies with the process that holds it."""

import contextlib
import errno
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlcls.bundle.unfinished import CHECKPOINT, LOCK, check_checkpoint_folder
from mlcls.bundle.writing import FULL
from mlcls.errors import BundleError, OutputError

TAKEN = (errno.EACCES, errno.EAGAIN)
TRIES = 100  # to lock a file that others remove as they end
PLACE = 1 << 30  # the byte that is locked, far behind the text: on Windows nobody could read it

# POSIX locks do not keep a process from itself: folder -> the process that holds it (a forked child is another)
_held: dict[str, int] = {}
_turn = threading.Lock()


@contextmanager
def hold_folder(folder: Path) -> Iterator[str | None]:
    """Keep other trainings out of `folder` until the block is left; makes it, and `checkpoint/` in it.

    The lock is a POSIX record lock on `checkpoint/lock`: forked processes that load images do not inherit it, so that
    it ends with the run even where they live on. On leaving, the lock's file goes, and folders that are empty.

    Yields:
        None; or, where the file system has no locks, a note that says so.

    Raises:
        BundleError: another training writes there, or the folder cannot be written.
        OutputError: the disk is full.
    """
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"--out {folder}: a file stands there; name a folder")
    check_checkpoint_folder(folder)
    real = os.path.realpath(folder)
    with _turn:
        if _held.get(real) == os.getpid():
            raise _taken(folder, str(os.getpid()))
        _held[real] = os.getpid()
    made: list[Path] = []
    try:
        made = _missing(folder / CHECKPOINT)
        handle, note = _acquire(folder)
        try:
            yield note
        finally:
            _release(folder / CHECKPOINT / LOCK, handle)
    finally:
        for path in dict.fromkeys((folder / CHECKPOINT, *made)):
            with contextlib.suppress(OSError):  # a checkpoint or a bundle stands there
                path.rmdir()
        with _turn:
            del _held[real]


def _missing(folder: Path) -> list[Path]:
    """The folders that are not there yet, the innermost first."""
    missing = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    return missing


def _acquire(folder: Path) -> tuple[int, str | None]:
    """The open and locked file, and what to say where the file system cannot lock."""
    path = folder / CHECKPOINT / LOCK
    for _ in range(TRIES):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except FileNotFoundError:  # a run that ended just now removed the folder
            continue
        except OSError as error:
            raise _unwritable(folder, error) from error
        note = None
        try:
            try:
                _lock(handle)
            except OSError as error:
                if error.errno in TAKEN:
                    raise _taken(folder, _holder(handle)) from error
                note = (
                    f"{folder}: this file system has no locks ({error.strerror}); make sure yourself that no second "
                    "training writes there"
                )
            if not _is_at(handle, path):  # removed between open and lock, by a run that ended
                os.close(handle)
                continue
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()} {socket.gethostname()}\n".encode())
        except OSError as error:
            os.close(handle)
            raise _unwritable(folder, error) from error
        except BaseException:
            os.close(handle)
            raise
        return handle, note
    raise BundleError(f"--out {folder}: {path} does not stay; is something removing it?")


def _is_at(handle: int, path: Path) -> bool:
    """Whether a path still names an open file."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _release(path: Path, handle: int) -> None:
    """Remove the lock's file while it is held, so that none of another run is removed; then let go."""
    if sys.platform != "win32":  # there an open file stays
        with contextlib.suppress(OSError):
            if _is_at(handle, path):
                path.unlink()
    os.close(handle)
    if sys.platform == "win32":
        with contextlib.suppress(OSError):
            path.unlink()


def _holder(handle: int) -> str:
    """Which process wrote its number into a lock's file; on another machine also which."""
    os.lseek(handle, 0, os.SEEK_SET)
    number, _, host = os.read(handle, 200).decode("utf-8", "replace").strip().partition(" ")
    return number if host in ("", socket.gethostname()) else f"{number} on {host}"


def _taken(folder: Path, holder: str) -> BundleError:
    process = f" (process {holder})" if holder else ""
    return BundleError(
        f"--out {folder}: another training{process} writes there; wait for it, or name another folder"
    )


def _unwritable(folder: Path, error: OSError) -> BundleError | OutputError:
    if error.errno in FULL:
        return OutputError(f"--out {folder}: the disk is full; make room and run it again")
    return BundleError(
        f"--out {folder}: cannot be written ({error.filename or LOCK}: {error.strerror}); name another folder"
    )


if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        os.lseek(handle, PLACE, os.SEEK_SET)
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        os.lseek(handle, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
