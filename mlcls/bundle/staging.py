"""A new bundle in `--out`: whether there is room for it, its files staged beside it, moved when all are whole.

Everything is first written into `checkpoint/bundle/`, then moved into place by renames, `bundle.json` last. An
ensemble's members are folders in it, `members/NAME`, each a bundle with a `bundle.json` of its own.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from mlcls import durable
from mlcls.bundle.files import FORMAT, MEMBERS, METRICS, MODEL, THRESHOLDS, WEIGHTS, is_member, is_plain
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
            below = [path for path in sorted(staging.rglob("*"), reverse=True) if path.is_dir()]
            for emptied in (*below, staging, staging.parent):
                if emptied.is_dir():
                    emptied.rmdir()


def _seal_staged(staging: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Write the staged bundle's `bundle.json`, all on disk; returns the names of the other files."""
    names, digests = _files_below(staging), {}
    for name in names:
        with open(staging / name, "r+b") as file:  # Windows flushes no file that is open for reading alone
            # of a member its `bundle.json` alone: it holds the digests of the others
            if name != THRESHOLDS and (is_plain(name) or name.endswith(f"/{MANIFEST}")):
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
            durable.flush(file)
    durable.write_flushed(staging / MANIFEST, seal({"format": FORMAT, **manifest, "files": digests}))
    for place in (*_folders_of(names), ""):
        durable.flush_folder(staging / place)
    return names


def _files_below(folder: Path) -> list[str]:
    """The files in a folder, and in those below it, by name, `/` between the parts."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _folders_of(names: Iterable[str]) -> list[str]:
    """The folders that hold files of these names, but for the one that all are in: each before what it is in."""
    found = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    return sorted(found - {"."}, key=lambda name: (-name.count("/"), name))


def _refuse_in_the_way(folder: Path, names: Sequence[str]) -> None:
    """Refuse, before anything moves, a folder that no rename could replace."""
    for name in (*names, MANIFEST):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            raise OutputError(f"{path}: a folder stands in the way of the bundle's file; move it away")
    for name in _folders_of(names):
        path = folder / name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise OutputError(f"{path}: stands in the way of the bundle's folder; move it away")


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
    _remove_members(replaced, folder)
    for name in reversed(_folders_of(names)):
        (folder / name).mkdir(exist_ok=True)
    for name in names:
        durable.rename(staging / name, folder / name)
    for name in sorted(earlier - {*names, MANIFEST}):
        durable.remove(folder / name)
    for place in (*_folders_of(names), ""):
        durable.flush_folder(folder / place)
    durable.remove(replaced)
    durable.rename(staging / MANIFEST, folder / MANIFEST)
    durable.flush_folder(folder)


def _remove_members(manifest: Path, folder: Path) -> None:
    """Remove the members in a folder that an ensemble's manifest says are its own, other files beside theirs left.

    Each one's `bundle.json` goes last: cut off before that, the next attempt knows its files still.
    """
    inside = os.path.realpath(folder)
    places = [
        folder / name
        for name in sorted(_names_in(manifest, MEMBERS))
        if is_member(name) and os.path.realpath(folder / name) == os.path.join(inside, *name.split("/"))
    ]
    for place in filter(Path.is_dir, places):
        for name in (*sorted(_files_of(place / MANIFEST, place) - {MANIFEST}), THRESHOLDS, MANIFEST):
            durable.remove(place / name)
    for place in (*places, folder / MEMBERS):
        with contextlib.suppress(OSError):  # not empty, or not there
            place.rmdir()


def _files_of(manifest: Path, folder: Path) -> set[str]:
    """The files in a folder that a bundle's manifest says are its own; none where it cannot be read."""
    return {name for name in _names_in(manifest, "files") if is_plain(name) and (folder / name).is_file()}


def _names_in(manifest: Path, field: str) -> set[str]:
    """The names that a field of a manifest holds; none where it cannot be read."""
    try:
        names = json.loads(manifest.read_text(encoding="utf-8"))[field]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    return set(map(str, names)) if isinstance(names, dict | list) else set()
