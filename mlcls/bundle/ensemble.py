"""Ensembles: bundles without a network of their own, whose members are ordinary bundles in subfolders; free of torch.

The manifest of an ensemble names its members and holds the digest of each one's `bundle.json`, which holds the digests
of that member's files. Its probabilities are the mean of its members' calibrated ones; its thresholds are its own.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mlcls
from mlcls.bundle.files import MEMBERS, THRESHOLDS, Bundle, is_plain
from mlcls.bundle.unfinished import MANIFEST
from mlcls.errors import BundleError

Floats = NDArray[np.float32]

# what a file system says that has no hard links, has no more of them, or is another one
NO_LINK = (
    errno.EXDEV,
    errno.EPERM,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EMLINK,
    errno.ENOSYS,
    errno.EACCES,
)


def ensemble_manifest(
    members: Sequence[Bundle], names: Sequence[str], *, seed: int, versions: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What `bundle.json` of an ensemble says, ready for `staged_bundle`; the members are staged by `stage_members`.

    Args:
        members: ordinary bundles of the same attributes; the order of the first's is the ensemble's.
        names: of their folders in `members/`, e.g. `fold-0`.
        seed: of the run.
        versions: of the libraries, by name; None takes those of the last member.

    Raises:
        BundleError: a member is an ensemble itself, or of other attributes.
        ValueError: names that are none of a folder, or not as many as the members.
    """
    if (
        not members
        or len(members) != len(names)
        or len(set(names)) < len(names)
        or not all(map(is_plain, names))
    ):
        raise ValueError(
            f"expected a different folder's name for each of {len(members)} members, got {list(names)}"
        )
    for member in members:
        if member.members:
            raise BundleError(
                f"{member.folder}: an ensemble as a member of another; name its members instead"
            )
        check_same_attributes(members[0], member)
    return {
        "mlcls": mlcls.__version__,
        MEMBERS: [f"{MEMBERS}/{name}" for name in names],
        "attributes": list(members[0].attributes),
        "seed": seed,
        "versions": dict(members[-1].manifest.get("versions") or {} if versions is None else versions),
    }


def stage_members(staging: Path, members: Sequence[Bundle], names: Sequence[str]) -> None:
    """Put the members' files into a staged ensemble: as second names of the same files where the system has such.

    The members' own folders stay as they are. Files that no manifest names are left out.

    Args:
        staging: the folder that `staged_bundle` gives.
        members, names: as for `ensemble_manifest`.

    Raises:
        OSError: a file is missing, the disk is full.
    """
    for member, name in zip(members, names, strict=True):
        place = staging / MEMBERS / name
        place.mkdir(parents=True)
        for file in (*member.manifest["files"], THRESHOLDS, MANIFEST):
            _link_or_copy(member.folder / file, place / file)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        shutil.copyfile(source, target)


def check_same_attributes(first: Bundle, other: Bundle) -> None:
    """Make sure that two bundles know the same attributes, in whatever order.

    Raises:
        BundleError: names those that one of them lacks.
    """
    for one, two in ((first, other), (other, first)):
        if absent := [name for name in two.attributes if name not in one.attributes]:
            raise BundleError(
                f"{one.folder}: lacks the attributes {', '.join(absent[:8])}{' ...' if len(absent) > 8 else ''} of "
                f"{two.folder}; only bundles of the same attributes can be averaged"
            )


def mean_probabilities(found: Sequence[Floats]) -> Floats:
    """The mean of several probabilities float32 [..., A], in float64, rounded once; one alone stays as it is."""
    if len(found) == 1:
        return found[0]
    total = np.zeros(found[0].shape, dtype=np.float64)
    for one in found:
        total += one
    return (total / len(found)).astype(np.float32)
