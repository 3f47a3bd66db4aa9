"""A new bundle in `--out`: whether there is room for it, its files staged beside it, moved when all are whole.

Everything is first written into `checkpoint/bundle/`, then moved into place by renames, `bundle.json` last.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlcls import durable
from mlcls.bundle.files import FORMAT, METRICS, MODEL, THRESHOLDS, WEIGHTS, is_plain
from mlcls.bundle.unfinished import (
    CHECKPOINT,
    MANIFEST,
    REPLACED,
    STAGED,
    check_checkpoint_folder,
    clear_staged,
    how_to_go_on,
    is_unfinished,
)
from mlcls.bundle.writing import FULL, writing
from mlcls.errors import BundleError, OutputError
from mlcls.sealed import seal

OTHER_FILES = (WEIGHTS, MODEL, THRESHOLDS, "recipe.toml", METRICS, "iterations.csv", "split.csv")


def prepare_folder(folder: Path, *, overwrite: bool, resume: bool = False) -> None:
    """Make sure, before any work is done, that a bundle can be written to `folder`. Changes nothing.

    Args:
        overwrite: whether a bundle or an unfinished run that stands there is to be replaced.
        resume: whether an unfinished run is to go on; then a finished bundle is the caller's matter.

    Raises:
        BundleError: it holds a bundle, an unfinished run or files of these names, and neither flag allows for it; a
            file or a folder stands in the way; it cannot be written to.
        OutputError: the disk is full.
    """
    if any(char == "\0" or "\ud800" <= char <= "\udfff" for char in str(folder)):
        raise BundleError(
            f"--out {folder}: the name is no UTF-8, which the bundle's files are; name another folder"
        )
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"--out {folder}: a file stands there; name a folder")
    check_checkpoint_folder(folder)
    if not overwrite:
        _refuse_what_stands(folder, resume)
    for name in (MANIFEST, *OTHER_FILES):
        if (folder / name).is_dir():
            raise BundleError(f"--out {folder}: a folder {name} stands in the way; name another folder")
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as probe:
            probe.write(b"0")
    except OSError as error:
        if error.errno in FULL:
            raise OutputError(f"--out {folder}: the disk is full; make room and run it again") from error
        raise BundleError(
            f"--out {folder}: cannot be written ({error.strerror}); name another folder"
        ) from error


def _refuse_what_stands(folder: Path, resume: bool) -> None:
    """Refuse a folder that holds what a run would replace."""
    if is_unfinished(folder):
        if resume:
            return  # also where the run was cut off while its files moved to their places
        raise BundleError(
            f"--out {folder}: an unfinished run stands there: --resume goes on with it, --overwrite begins anew"
        )
    if (folder / MANIFEST).exists():
        if resume:
            return
        raise BundleError(
            f"--out {folder}: a finished bundle stands there; name another folder, or add --overwrite"
        )
    for name in OTHER_FILES:
        if (folder / name).exists():
            raise BundleError(
                f"--out {folder}: a file {name} that would be replaced stands there; name another folder, or add "
                "--overwrite"
            )


@contextmanager
def staged_bundle(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to write a bundle's files into; on leaving the block they move to `folder` and are sealed.

    Until the first of them moves, what stands in `folder` is not touched. From then on until the last, `bundle.json`,
    no bundle stands there; an unfinished run in `checkpoint/` does all the while, and is for the caller to remove.

    Args:
        manifest: what `bundle.json` says beside the format, the files' digests and its own; it is read on leaving.

    Raises:
        OutputError: the disk is full or the folder cannot be written; what stood there before is intact, unless the
            renames themselves failed half way, and then no `bundle.json` stands there.
    """
    staging = folder / CHECKPOINT / STAGED
    moving = False
    try:
        with writing(folder):
            clear_staged(folder)  # of a run that was cut off
            staging.mkdir(parents=True)
            yield staging
            names = _seal_staged(staging, manifest)
            _refuse_in_the_way(folder, names)
            moving = True
            _move(staging, folder, names)
    except OutputError as error:
        if not is_unfinished(folder):
            raise
        raise OutputError(f"{error}. The training is kept; then: {how_to_go_on(folder)}") from error
    finally:
        with contextlib.suppress(OSError):
            if not moving:
                clear_staged(folder)
            for emptied in (staging, staging.parent):
                if emptied.is_dir():
                    emptied.rmdir()


def _seal_staged(staging: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Write the staged bundle's `bundle.json`, all on disk; returns the names of the other files."""
    names, digests = sorted(path.name for path in staging.iterdir() if path.is_file()), {}
    for name in names:
        with open(staging / name, "r+b") as file:  # Windows flushes no file that is open for reading alone
            if name != THRESHOLDS:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
            durable.flush(file)
    durable.write_flushed(staging / MANIFEST, seal({"format": FORMAT, **manifest, "files": digests}))
    durable.flush_folder(staging)
    return names


def _refuse_in_the_way(folder: Path, names: Sequence[str]) -> None:
    """Refuse, before anything moves, a folder that no rename could replace."""
    for name in (*names, MANIFEST):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            raise OutputError(f"{path}: a folder stands in the way of the bundle's file; move it away")


def _move(staging: Path, folder: Path, names: Sequence[str]) -> None:
    """Replace the bundle in `folder`; from the first rename on there is none, until the last.

    The `bundle.json` of the one that goes is kept till then: a run that goes on in the middle has to know its files.
    """
    replaced = staging.parent / REPLACED
    with contextlib.suppress(FileNotFoundError):
        durable.rename(folder / MANIFEST, replaced)
    durable.flush_folder(staging.parent)
    durable.flush_folder(folder)
    earlier = _files_of(replaced, folder)
    for name in names:
        durable.rename(staging / name, folder / name)
    for name in sorted(earlier - {*names, MANIFEST}):
        durable.remove(folder / name)
    durable.flush_folder(folder)
    durable.remove(replaced)
    durable.rename(staging / MANIFEST, folder / MANIFEST)
    durable.flush_folder(folder)


def _files_of(manifest: Path, folder: Path) -> set[str]:
    """The files in a folder that a bundle's manifest says are its own; none where it cannot be read."""
    try:
        names = dict(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    return {name for name in names if is_plain(name) and (folder / name).is_file()}
