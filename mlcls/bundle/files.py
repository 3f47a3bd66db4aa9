"""The files of a bundle: written whole or not at all, verified when they are opened. Free of torch.

A bundle is finished exactly when `bundle.json` stands in it. Everything is first written into a folder of its own
inside the bundle's, then moved into place by renames, `bundle.json` last.
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import BundleError, OutputError, RecipeError
from mlcls.images.preprocess import Preprocessing
from mlcls.scoring.line import Calibration, identity
from mlcls.scoring.tuned import TunedThreshold

FORMAT = 1
MANIFEST, WEIGHTS, THRESHOLDS, GROUPS = "bundle.json", "weights.safetensors", "thresholds.json", "groups.csv"
MODEL = "model.onnx"
OTHER_FILES = (WEIGHTS, MODEL, THRESHOLDS, "recipe.toml", "metrics.json", "iterations.csv", "split.csv")
STAGING, CHECKPOINT = ".writing", "checkpoint"
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


def prepare_folder(folder: Path, *, overwrite: bool) -> None:
    """Make sure, before any work is done, that a bundle can be written to `folder`.

    Raises:
        BundleError: it holds a bundle, a checkpoint or files of these names and `overwrite` is off; a file stands in
            its place; it cannot be written to.
        OutputError: the disk is full.
    """
    if folder.exists() and not folder.is_dir():
        raise BundleError(f"--out {folder}: a file stands there; name a folder")
    kinds = {MANIFEST: "a finished bundle", CHECKPOINT: "an unfinished run"}
    for name in (MANIFEST, CHECKPOINT, *OTHER_FILES):
        if (folder / name).exists() and not overwrite:
            what = kinds.get(name, f"a file {name} that would be replaced")
            raise BundleError(f"--out {folder}: {what} stands there; name another folder, or add --overwrite")
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

    Args:
        manifest: what `bundle.json` says beside the format, the files' digests and its own.

    Raises:
        OutputError: the disk is full or the folder cannot be written; what stood there before is intact, unless the
            renames themselves failed half way, and then no `bundle.json` stands there.
    """
    staging = folder / STAGING
    with _writing(folder):
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            yield staging
            written = sorted(path for path in staging.iterdir() if path.is_file())
            digests = {path.name: _digest(path.read_bytes()) for path in written if path.name != THRESHOLDS}
            sealed = _sealed({"format": FORMAT, **manifest, "files": digests})
            for path in written:
                _flush(path)
            earlier = _files_of(folder / MANIFEST)
            # from here on there is no bundle, until the last rename
            (folder / MANIFEST).unlink(missing_ok=True)
            for name in earlier - {path.name for path in written}:
                (folder / name).unlink(missing_ok=True)
            for path in written:
                path.replace(folder / path.name)
            write_whole(folder / MANIFEST, sealed)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _files_of(manifest: Path) -> set[str]:
    """The files that a bundle's manifest says are its own, plain names alone; none where it cannot be read."""
    try:
        names = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        return {name for name in names if name not in ("", "..") and Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk, and rename it: whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    with _writing(path):
        temporary.write_bytes(data)
        _flush(temporary)
        temporary.replace(path)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_thresholds(path: Path, thresholds: Sequence[TunedThreshold]) -> None:
    """Write `thresholds.json` with its own digest, by one rename."""
    rows = [asdict(threshold) for threshold in thresholds]
    write_whole(path, _sealed({"format": FORMAT, "attributes": rows}))


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
    if not (folder / MANIFEST).is_file():
        raise BundleError(
            f"--model {folder}: no {MANIFEST} stands there, so it is no finished bundle (training writes that file "
            "last); train again, or name another folder"
        )
    manifest = _unsealed(folder / MANIFEST)
    thresholds = _unsealed(folder / THRESHOLDS)
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
    """The bytes of one of the bundle's files, after its digest is found to be the one in `bundle.json`."""
    path = bundle.folder / name
    expected = bundle.manifest["files"].get(name)
    if expected is None:
        raise BundleError(f"{path}: the bundle was written without this file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); the bundle is damaged") from error
    if _digest(data) != expected:
        raise BundleError(
            f"{path}: damaged or changed since it was written (its SHA-256 is not the one on record)"
        )
    return data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sealed(content: Mapping[str, Any]) -> bytes:
    """JSON for people, with the SHA-256 of its canonical form as the last field."""
    sealed = {**content, "digest": _digest(_canonical(content))}
    return (json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _unsealed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest = content.pop("digest")
        intact = digest == _digest(_canonical(content))
    except FileNotFoundError as error:
        raise BundleError(f"{path}: missing; the bundle is damaged") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BundleError(f"{path}: damaged, not the JSON that was written ({error})") from error
    if not intact:
        raise BundleError(f"{path}: damaged or edited (its digest does not fit its content)")
    if content.get("format") != FORMAT:
        raise BundleError(
            f"{path}: format {content.get('format')}, this version of mlcls reads {FORMAT}; use the mlcls that wrote it"
        )
    return dict(content)
