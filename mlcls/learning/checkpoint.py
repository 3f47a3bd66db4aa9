"""A training between two steps on disk: files that are whole or not there, a manifest that is written last, a thread.

A checkpoint is a folder. Its manifest names the files that belong to it with their SHA-256; a new one gets new files,
and the old ones go when the new manifest stands. Whatever ends the process, the last manifest's files are all there.
"""

import contextlib
import errno
import hashlib
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from mlcls import durable
from mlcls.errors import BundleError
from mlcls.learning.streamed import pieces_of
from mlcls.sealed import digest_of, seal, unseal

FORMAT = 1
MANIFEST = "manifest.json"
TENSORS = ".safetensors"

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Kept:
    """A file of a checkpoint that stands: its name and SHA-256."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as it was read.

    number: how many were written before it in this folder.
    state: plain JSON.
    kept: its files by what they hold.
    """

    folder: Path
    number: int
    state: Mapping[str, Any]
    kept: Mapping[str, Kept]

    def tensors(self, role: str) -> dict[str, Tensor]:
        """What a file holds, after its digest is found to be the one in the manifest.

        Raises:
            BundleError: it is missing or damaged.
        """
        if role not in self.kept:
            raise BundleError(f"{self.folder / MANIFEST}: names no file of '{role}'; {_LOST}")
        kept = self.kept[role]
        path = self.folder / kept.file
        try:
            data = _read_regular(path)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror}); {_LOST}") from error
        if digest_of(data) != kept.sha256:
            raise BundleError(
                f"{path}: damaged or changed since it was written (its SHA-256 is not the one on record); {_LOST}"
            )
        return safetensors.torch.load(data)


_LOST = "the unfinished run is lost: train again with --overwrite"


def write_checkpoint(
    folder: Path, number: int, state: Mapping[str, Any], tensors: Mapping[str, Tensors | Kept]
) -> dict[str, Kept]:
    """Write a checkpoint, and remove the files of the one before.

    Args:
        folder: is there.
        number: one more than the last one's.
        state: plain JSON, without NaN.
        tensors: by what they hold; `Kept` for a file that stands already. They share no memory.

    Returns:
        the files by what they hold.

    Raises:
        OSError: the disk is full or the folder cannot be written; the checkpoint before it stands as it was.
    """
    written: dict[int, Kept] = {}  # one file for two roles that are the same
    kept: dict[str, Kept] = {}
    for role, what in tensors.items():
        if isinstance(what, Kept):
            kept[role] = what
        else:
            if id(what) not in written:
                try:
                    written[id(what)] = _write_tensors(folder, f"{role}-{number}{TENSORS}", what)
                except OSError:  # a full disk is not to be filled further by each attempt
                    _remove_all(
                        folder, [f"{role}-{number}{TENSORS}", *(one.file for one in written.values())]
                    )
                    raise
            kept[role] = written[id(what)]
    durable.flush_folder(folder)
    files = {role: [one.file, one.sha256] for role, one in kept.items()}
    manifest = seal({"format": FORMAT, "number": number, "state": state, "files": files})
    durable.write_whole(folder / MANIFEST, manifest)
    names = {one.file for one in kept.values()}
    _remove_all(folder, [path.name for path in folder.glob(f"*{TENSORS}") if path.name not in names])
    return kept


def _remove_all(folder: Path, names: Sequence[str]) -> None:
    """Remove files that no manifest names; those that stay cost room, not the checkpoint."""
    with contextlib.suppress(OSError):
        for name in names:
            durable.remove(folder / name)


def _write_tensors(folder: Path, name: str, tensors: Tensors) -> Kept:
    digest = hashlib.sha256()

    def told() -> Iterator[bytes | memoryview]:
        for piece in pieces_of(tensors):
            digest.update(piece)
            yield piece

    durable.write_flushed(folder / name, told())
    return Kept(name, digest.hexdigest())


def read_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in a folder, its files not yet read; None where no manifest stands there.

    Raises:
        BundleError: the manifest is damaged or of a format that this version does not know.
    """
    path = folder / MANIFEST
    try:
        data = _read_regular(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        content = unseal(data)
    except ValueError as error:
        raise BundleError(f"{path}: {error}; {_LOST}") from error
    if content.get("format") != FORMAT:
        raise BundleError(
            f"{path}: format {content.get('format')}, this version of mlcls reads {FORMAT}; go on with the mlcls that "
            "wrote it, or train again with --overwrite"
        )
    try:
        kept = {role: Kept(str(file), str(sha256)) for role, (file, sha256) in content["files"].items()}
        number, state = int(content["number"]), dict(content["state"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(f"{path}: lacks or misnames a field ({error}); {_LOST}") from error
    for one in kept.values():
        if Path(one.file).name != one.file or one.file in ("", ".", "..") or "\0" in one.file:
            raise BundleError(f"{path}: names a file outside of its folder, '{one.file}'")
    return Checkpoint(folder, number, state, kept)


def _read_regular(path: Path) -> bytes:
    """The bytes of a file; OSError for a link, a pipe or a device, which a stranger's folder may hold."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError(errno.EINVAL, "no file of a run", str(path))
    return path.read_bytes()


class Writer:
    """Runs jobs one after the other in a thread; of those that wait, the newest alone is done.

    A training hands over a copy of its state and goes on, and never waits for the disk.
    """

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._waiting: Callable[[], None] | None = None
        self._busy = False
        self._problem: BaseException | None = None
        self._thread: threading.Thread | None = None

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job done, in the place of one that waits still."""
        with self._turn:
            self._waiting = job
            if not self._busy:
                self._busy = True
                self._thread = threading.Thread(target=self._run, name="write-checkpoint", daemon=True)
                self._thread.start()

    def wait(self) -> BaseException | None:
        """Wait until nothing is left to do; what the last job failed with, once."""
        with self._turn:
            while self._busy:
                self._turn.wait(0.2)  # so that Ctrl-C is heard in between
            problem, self._problem = self._problem, None
            return problem

    def problem(self) -> BaseException | None:
        """What the last job that ended failed with, once; does not wait."""
        with self._turn:
            problem, self._problem = self._problem, None
            return problem

    def _run(self) -> None:
        while True:
            with self._turn:
                job, self._waiting = self._waiting, None
                if job is None:
                    self._busy = False
                    self._turn.notify_all()
                    return
            problem: BaseException | None = None
            try:
                job()
            except BaseException as error:  # of any kind: who waits has to know that nothing was written
                problem = error
            with self._turn:
                self._problem = problem
