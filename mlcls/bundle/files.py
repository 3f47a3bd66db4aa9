"""The files of a bundle: written whole or not at all, verified when they are opened. Free of torch.

A bundle is finished exactly when `bundle.json` stands in it. Everything is first written into a folder of its own
in `checkpoint/`, then moved into place by renames, `bundle.json` last.
"""

import contextlib
import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls import durable
from mlcls.bundle.unfinished import (
    CHECKPOINT as CHECKPOINT,
)
from mlcls.bundle.unfinished import (
    STAGED,
    check_checkpoint_folder,
    clear_staged,
    how_to_go_on,
    is_unfinished,
)
from mlcls.errors import BundleError, OutputError, RecipeError
from mlcls.images.preprocess import Preprocessing
from mlcls.scoring.line import Calibration, identity
from mlcls.scoring.tuned import TunedThreshold
from mlcls.sealed import digest_of, seal, unseal

FORMAT = 1
MANIFEST, WEIGHTS, THRESHOLDS, GROUPS = "bundle.json", "weights.safetensors", "thresholds.json", "groups.csv"
MODEL, METRICS = "model.onnx", "metrics.json"
OTHER_FILES = (WEIGHTS, MODEL, THRESHOLDS, "recipe.toml", METRICS, "iterations.csv", "split.csv")
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Bundle:
    """A finished bundle, opened: `bundle.json` and `thresholds.json` are read and verified, other files when asked."""

    folder: Path
    manifest: Mapping[str, Any]
    attributes: tuple[str, ...]
    preprocessing: Preprocessing
    thresholds: tuple[TunedThreshold, ...]
    calibration: Calibration

    def threshold_values(self) -> NDArray[np.float64]:
        """The thresholds as an array [A]."""
        return np.array([t.threshold for t in self.thresholds], dtype=np.float64)


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
def _writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a write into a message that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise OutputError(f"{path}: the disk is full; make room and run it again") from error
        where = error.filename or path
        raise OutputError(
            f"{where}: cannot be written ({error.strerror or error}); name another --out"
        ) from error


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
        with _writing(folder):
            clear_staged(folder)  # of a run that was cut off
            staging.mkdir(parents=True)
            yield staging
            names = _seal_staged(staging, manifest)
            _refuse_in_the_way(folder, names)
            moving = True
            _move(staging, folder, names)
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
            go_on = f", then: {how_to_go_on(folder)}" if is_unfinished(folder) else ""
            raise OutputError(f"{path}: a folder stands in the way of the bundle's file; move it away{go_on}")


def _move(staging: Path, folder: Path, names: Sequence[str]) -> None:
    """Replace the bundle in `folder`; from the first line on there is none, until the last rename."""
    earlier = _files_of(folder / MANIFEST)
    durable.remove(folder / MANIFEST)
    durable.flush_folder(folder)
    for name in names:
        durable.rename(staging / name, folder / name)
    for name in sorted(earlier - {*names, MANIFEST}):
        durable.remove(folder / name)
    durable.flush_folder(folder)
    durable.rename(staging / MANIFEST, folder / MANIFEST)
    durable.flush_folder(folder)


def _files_of(manifest: Path) -> set[str]:
    """The files in its folder that a bundle's manifest says are its own; none where it cannot be read."""
    try:
        names = dict(json.loads(manifest.read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    return {name for name in names if is_plain(name) and (manifest.parent / name).is_file()}


def is_plain(name: str) -> bool:
    """Whether a name that a manifest gives is that of a file in its own folder, on any system."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\\:\0"):
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it: whole or not at all.

    Raises:
        OutputError: the disk is full or the file cannot be written.
    """
    with _writing(path):
        durable.remove(path.with_name(f".{path.name}{durable.PART}"))  # a link of this name would be followed
        durable.write_whole(path, data)


def write_thresholds(path: Path, thresholds: Sequence[TunedThreshold]) -> None:
    """Write `thresholds.json` with its own digest, by one rename."""
    rows = [asdict(threshold) for threshold in thresholds]
    write_whole(path, seal({"format": FORMAT, "attributes": rows}))


def load_bundle(folder: str | Path) -> Bundle:
    """Open a finished bundle.

    Raises:
        BundleError: there is none, it is unfinished, damaged, or of a format that this version does not know.
    """
    folder = Path(folder)
    if folder.is_file():
        raise BundleError(f"--model {folder}: is a file; name the bundle's folder, {folder.parent}")
    if not folder.is_dir():
        raise BundleError(
            f"--model {folder}: there is no such folder; train one with: mlcls train --out {folder}"
        )
    if not (folder / MANIFEST).exists():
        if is_unfinished(folder):
            raise BundleError(
                f"--model {folder}: holds an unfinished run; go on with: {how_to_go_on(folder)}"
            )
        raise BundleError(
            f"--model {folder}: no {MANIFEST} stands there, so it is no finished bundle (training writes that file "
            "last); train again, or name another folder"
        )
    manifest = _unsealed(folder, MANIFEST)
    thresholds = _unsealed(folder, THRESHOLDS)
    try:
        attributes = tuple(manifest["attributes"])
        tuned = tuple(TunedThreshold(**row) for row in thresholds["attributes"])
        preprocessing = _preprocessing(manifest["preprocessing"])
        calibration = _calibration(manifest.get("calibration"), len(attributes))
        dict(manifest["files"])
    except (KeyError, TypeError, ValueError, AttributeError, RecipeError) as error:
        raise BundleError(
            f"{folder}: {MANIFEST} or {THRESHOLDS} lacks or misnames a field: {error}"
        ) from error
    if tuple(t.name for t in tuned) != attributes:
        raise BundleError(f"{folder / THRESHOLDS}: its attributes are not those of {MANIFEST}")
    return Bundle(folder, manifest, attributes, preprocessing, tuned, calibration)


def _preprocessing(fields: Mapping[str, Any]) -> Preprocessing:
    arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    return Preprocessing(**arguments)


def _calibration(fields: Mapping[str, Any] | None, attributes: int) -> Calibration:
    """How scores become probabilities; a bundle from before there was calibration leaves them as they are."""
    if fields is None:
        return identity(attributes)
    slope, intercept = (np.asarray(fields[name], dtype=np.float64) for name in ("slope", "intercept"))
    finite = np.isfinite(slope).all() and np.isfinite(intercept).all()
    if slope.shape != (attributes,) or intercept.shape != (attributes,) or not finite or (slope <= 0).any():
        raise ValueError("calibration: expected a slope above 0 and an intercept for each attribute")
    return Calibration(slope, intercept)


def read_verified(bundle: Bundle, name: str) -> bytes:
    """The bytes of one of the bundle's files, after its digest is found to be the one in `bundle.json`.

    Raises:
        BundleError: the bundle has no such file, or it is missing, damaged, or a link to a place outside.
    """
    expected = bundle.manifest["files"].get(name)
    if expected is None or not is_plain(name):
        raise BundleError(f"{bundle.folder / name}: the bundle was written without this file")
    data = _read(bundle.folder, name)
    if digest_of(data) != expected:
        raise BundleError(
            f"{bundle.folder / name}: damaged or changed since it was written (its SHA-256 is not the one on record)"
        )
    return data


def _read(folder: Path, name: str) -> bytes:
    """A file of a folder; it may come from a stranger, so no device is read, and nothing outside the folder."""
    path = folder / name
    try:
        mode = path.stat().st_mode
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise BundleError(
                f"{path}: a link that leads out of the bundle; put the file itself in its place"
            )
        if not stat.S_ISREG(mode):
            raise BundleError(f"{path}: no file; the bundle is damaged")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{path}: missing; the bundle is damaged") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); the bundle is damaged") from error


def _unsealed(folder: Path, name: str) -> dict[str, Any]:
    try:
        content = unseal(_read(folder, name))
    except ValueError as error:
        raise BundleError(f"{folder / name}: {error}") from error
    if content.get("format") != FORMAT:
        raise BundleError(
            f"{folder / name}: format {content.get('format')}, this version of mlcls reads {FORMAT}; use the mlcls "
            "that wrote it"
        )
    return content
