"""The files of a bundle, verified when they are opened, and its thresholds, replaced by one rename. Free of torch.

A bundle is finished exactly when `bundle.json` stands in it.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.fields import (
    calibration_of,
    check_manifest,
    members_of,
    names_of,
    preprocessing_of,
    thresholds_of,
)
from mlcls.bundle.unfinished import MANIFEST, how_to_go_on, is_unfinished
from mlcls.bundle.writing import write_whole
from mlcls.errors import BundleError, RecipeError
from mlcls.images.preprocess import Preprocessing
from mlcls.scoring.line import Calibration
from mlcls.scoring.tuned import TunedThreshold
from mlcls.sealed import digest_of, seal, unseal

FORMAT = 1
WEIGHTS, THRESHOLDS, GROUPS = "weights.safetensors", "thresholds.json", "groups.csv"
MODEL, METRICS = "model.onnx", "metrics.json"
MEMBERS = "members"  # of an ensemble: the field that names them, and the folder that they stand in


@dataclass(frozen=True)
class Bundle:
    """A finished bundle, opened: `bundle.json` and `thresholds.json` are read and verified, other files when asked.

    `prepared_as` says how the network's images are prepared, None of an ensemble, which has no network of its own but
    `members`, ordinary bundles whose probabilities are averaged. An ordinary bundle has no members.
    """

    folder: Path
    manifest: Mapping[str, Any]
    attributes: tuple[str, ...]
    prepared_as: Preprocessing | None
    thresholds: tuple[TunedThreshold, ...]
    calibration: Calibration
    members: tuple["Bundle", ...] = ()

    @property
    def preprocessing(self) -> Preprocessing:
        """How the network's images are prepared.

        Raises:
            BundleError: this is an ensemble; its members have one each.
        """
        if self.prepared_as is None:
            raise BundleError(f"{self.folder}: an ensemble has no network of its own, its members have")
        return self.prepared_as

    @property
    def networks(self) -> "tuple[Bundle, ...]":
        """The bundles that hold networks: the members of an ensemble, else this one alone."""
        return self.members or (self,)

    @property
    def tta(self) -> str:
        """The views that its predictions were averaged over, as `mlcls.images.tta.tta_views` reads them."""
        return str(self.manifest.get("tta") or "none")

    def threshold_values(self) -> NDArray[np.float64]:
        """The thresholds as an array [A]."""
        return np.array([t.threshold for t in self.thresholds], dtype=np.float64)


def load_bundle(folder: str | Path) -> Bundle:
    """Open a finished bundle.

    Raises:
        BundleError: there is none, it is unfinished, damaged, or of a format that this version does not know.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    thresholds = _unsealed(folder, THRESHOLDS)
    members = tuple(map(load_bundle, _member_folders(folder, manifest)))
    try:
        check_manifest(manifest)
        attributes = names_of(manifest["attributes"])
        tuned = thresholds_of(thresholds["attributes"])
        preprocessing = None if members else preprocessing_of(manifest["preprocessing"])
        calibration = calibration_of(manifest.get("calibration"), len(attributes))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecipeError) as error:
        raise BundleError(
            f"{folder}: {MANIFEST} or {THRESHOLDS} lacks or misnames a field: {error}"
        ) from error
    if tuple(t.name for t in tuned) != attributes:
        raise BundleError(f"{folder / THRESHOLDS}: its attributes are not those of {MANIFEST}")
    for member in members:
        if set(member.attributes) != set(attributes):
            raise BundleError(f"{member.folder}: its attributes are not those of the ensemble {folder}")
    return Bundle(folder, manifest, attributes, preprocessing, tuned, calibration, members)


def _member_folders(folder: Path, manifest: Mapping[str, Any]) -> list[Path]:
    """The folders of an ensemble's members, none of an ordinary bundle's.

    Each is sure to stand within the ensemble's, to be the one that was put there, and to be no ensemble itself.
    """
    if manifest.get(MEMBERS) is None:
        return []
    try:
        names = members_of(manifest[MEMBERS])
    except ValueError as error:
        raise BundleError(f"{folder / MANIFEST}: lacks or misnames a field: {error}") from error
    folders = []
    for name in names:
        place = folder / name
        if not is_member(name):
            raise BundleError(f"{folder / MANIFEST}: expected a member {MEMBERS}/NAME, found {name!r:.80}")
        if not place.is_dir():
            raise BundleError(f"{place}: missing; the ensemble is damaged")
        if not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
            raise BundleError(
                f"{place}: a link that leads out of the bundle; put the member itself in its place"
            )
        _verified(folder, manifest, f"{name}/{MANIFEST}")
        if read_manifest(place).get(MEMBERS) is not None:
            raise BundleError(f"{place}: an ensemble as a member of another; name its members instead")
        folders.append(place)
    return folders


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `bundle.json` says; `files` is sure to be a dict of strings.

    Raises:
        BundleError: as `load_bundle`.
    """
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
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise BundleError(f"{folder / MANIFEST}: lacks or misnames a field: files")
    return manifest


def read_verified(bundle: Bundle, name: str) -> bytes:
    """The bytes of one of the bundle's files, after its digest is found to be the one in `bundle.json`.

    Raises:
        BundleError: the bundle has no such file, or it is missing, damaged, or a link to a place outside.
    """
    return _verified(bundle.folder, bundle.manifest, name)


def _verified(folder: Path, manifest: Mapping[str, Any], name: str) -> bytes:
    expected = manifest["files"].get(name)
    if expected is None or not _is_file_of(name):
        raise BundleError(f"{folder / name}: the bundle was written without this file")
    with _opened(folder, name) as file:
        data = file.read()
    _check_digest(folder / name, digest_of(data), expected)
    return data


def verify_bundle(folder: str | Path) -> Bundle:
    """Open a finished bundle after every file of it is found to be as it was written. Others beside them are no fault.

    Of an ensemble, the files of its members too.

    Raises:
        BundleError: as `load_bundle`; names every file that is damaged or missing.
    """
    folder = Path(folder)
    manifest, bundle = read_manifest(folder), None
    faults = _file_faults(folder, manifest)
    try:
        bundle = load_bundle(folder)
    except BundleError as error:
        faults.append(str(error))
    for member in () if bundle is None else bundle.members:
        faults += _file_faults(member.folder, member.manifest)
    if bundle is None or faults:
        raise BundleError("\n".join(dict.fromkeys(faults)))
    return bundle


def _file_faults(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What is wrong with the files that a manifest names, a sentence each."""
    faults = []
    for name, expected in manifest["files"].items():
        try:
            if not _is_file_of(name):
                raise BundleError(f"{folder / MANIFEST}: names a file outside of the bundle, {name!r}")
            with _opened(folder, name) as file:
                _check_digest(folder / name, hashlib.file_digest(file, "sha256").hexdigest(), expected)
        except BundleError as error:
            faults.append(str(error))
    return faults


def _check_digest(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise BundleError(
            f"{path}: damaged or changed since it was written (its SHA-256 is not the one on record)"
        )


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[BufferedReader]:
    """A file of a folder; it may come from a stranger, so no device is opened, and nothing outside the folder."""
    path = folder / name
    try:
        mode = path.stat().st_mode
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
            raise BundleError(
                f"{path}: a link that leads out of the bundle; put the file itself in its place"
            )
        if not stat.S_ISREG(mode):
            raise BundleError(f"{path}: no file; the bundle is damaged")
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise BundleError(f"{path}: missing; the bundle is damaged") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); the bundle is damaged") from error


def _unsealed(folder: Path, name: str) -> dict[str, Any]:
    try:
        with _opened(folder, name) as file:
            content = unseal(file.read())
    except ValueError as error:
        raise BundleError(f"{folder / name}: {error}") from error
    if content.get("format") != FORMAT:
        raise BundleError(
            f"{folder / name}: format {content.get('format')}, this version of mlcls reads {FORMAT}; use the mlcls "
            "that wrote it"
        )
    return content


def write_thresholds(path: Path, thresholds: Sequence[TunedThreshold]) -> None:
    """Write `thresholds.json` with its own digest, by one rename."""
    rows = [asdict(threshold) for threshold in thresholds]
    write_whole(path, seal({"format": FORMAT, "attributes": rows}))


def replace_thresholds(bundle: Bundle, thresholds: Sequence[TunedThreshold]) -> None:
    """Replace the `thresholds.json` of a bundle that was opened.

    Raises:
        BundleError: a training has put another bundle in its place meanwhile; nothing was written.
        OutputError: it cannot be written.
    """
    if read_manifest(bundle.folder) != bundle.manifest:
        raise BundleError(f"{bundle.folder}: another bundle stands there now; tune its thresholds anew")
    write_thresholds(bundle.folder / THRESHOLDS, thresholds)


def is_plain(name: str) -> bool:
    """Whether a name that a manifest gives is that of a file in its own folder, on any system."""
    if name in ("", ".", "..") or any(sign in name for sign in "/\\:\0"):
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def is_member(name: str) -> bool:
    """Whether a name that a manifest gives is that of a member's folder: `members/NAME`."""
    place, _, last = name.partition("/")
    return place == MEMBERS and is_plain(last)


def _is_file_of(name: str) -> bool:
    """Whether a name is that of a file in the bundle's own folder, or of a member's `bundle.json`."""
    place, _, last = name.rpartition("/")
    return is_plain(name) or (is_member(place) and last == MANIFEST)
