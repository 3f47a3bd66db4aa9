"""What a run was begun with: its table, images and split in short, to tell what has changed before it goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcls.errors import BundleError
from mlcls.recipe import Recipe, flag_of, recipe_values
from mlcls.workflows.data import LabelledImages

FREE = ("workers", "cache_gb", "image_cache_gb", "checkpoint_minutes", "log", "log_dir")
"""Settings that change how fast a run is and what it keeps, and not a bit of what comes out."""

BLOCK = 65_536  # rows whose labels are summed up at a time
SHOWN = 5


@dataclass(frozen=True)
class Identity:
    """N images in short.

    Attributes:
        attributes: their names, in order.
        names: of the images [N].
        labels: int64 [N], a sum over each row's labels that another row of labels hardly has.
        images: uint8 [N, 16], of the SHA-256 of each file.
        subsets: uint8 [N]: 0 training, 1 validation, 2 test.
        groups: int64 [N]: images that share one belong together, which intervals rest on.
    """

    attributes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    images: NDArray[np.uint8]
    subsets: NDArray[np.uint8]
    groups: NDArray[np.int64]

    def tensors(self) -> dict[str, Tensor]:
        """All but the attributes, for a file."""
        names = "\0".join(self.names).encode("utf-8", "surrogatepass")
        return {
            "names": torch.from_numpy(np.frombuffer(names, dtype=np.uint8).copy()),
            "labels": torch.from_numpy(self.labels),
            "images": torch.from_numpy(self.images),
            "subsets": torch.from_numpy(self.subsets),
            "groups": torch.from_numpy(self.groups),
        }


def identity_of(data: LabelledImages) -> Identity:
    """The images that take part in a run, in short."""
    subsets = np.zeros(len(data.table.images), dtype=np.uint8)
    subsets[data.split.val], subsets[data.split.test] = 1, 2
    return Identity(
        data.table.attributes,
        tuple(str(name) for name in data.table.images),
        _sums(data.table.labels),
        np.ascontiguousarray(data.digests[:, :16]),
        subsets,
        np.ascontiguousarray(data.groups, dtype=np.int64),
    )


def read_identity(attributes: Sequence[str], tensors: Mapping[str, Tensor]) -> Identity:
    """What `Identity.tensors` gave."""
    text = tensors["names"].numpy().tobytes().decode("utf-8", "surrogatepass")
    return Identity(
        tuple(attributes),
        tuple(text.split("\0")),
        tensors["labels"].numpy(),
        tensors["images"].numpy(),
        tensors["subsets"].numpy(),
        tensors["groups"].numpy(),
    )


def _sums(labels: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of each row's labels, weighed by fixed random odd numbers and summed modulo 2**64."""
    weights = np.random.default_rng(0).integers(0, 2**63, labels.shape[1], dtype=np.uint64) * np.uint64(2) + 1
    sums = np.empty(len(labels), dtype=np.uint64)
    for start in range(0, len(labels), BLOCK):
        block = labels[start : start + BLOCK]
        codes = np.where(np.isnan(block), 2, block).astype(np.uint64)
        sums[start : start + BLOCK] = (codes * weights).sum(axis=1, dtype=np.uint64)
    return sums.view(np.int64)


def check_unchanged(before: Identity, now: Identity, source: str) -> None:
    """Refuse to go on with other data than the run was begun with.

    Args:
        source: how the message calls the table.

    Raises:
        BundleError: naming all that has changed.
    """
    faults = _changes(before, now)
    if faults:
        raise BundleError(
            f"--resume: {source} or its images have changed since the run was begun: {'; '.join(faults)}; put them "
            "back as they were, or train anew with --overwrite"
        )


def _changes(before: Identity, now: Identity) -> list[str]:
    faults = []
    if before.attributes != now.attributes:
        gone = [name for name in before.attributes if name not in now.attributes]
        new = [name for name in now.attributes if name not in before.attributes]
        if gone:
            faults.append(f"without the attributes {_some(gone)}")
        if new:
            faults.append(f"with the new attributes {_some(new)}")
        return faults or ["the attributes stand in another order"]
    if before.names != now.names:
        known, there = set(before.names), set(now.names)
        gone = [name for name in before.names if name not in there]
        new = [name for name in now.names if name not in known]
        if gone:
            faults.append(f"{len(gone)} images are gone or cannot be read any more ({_some(gone)})")
        if new:
            faults.append(f"{len(new)} images are new ({_some(new)})")
        return faults or ["the images stand in another order"]
    for what, differs in (
        ("have other labels", before.labels != now.labels),
        ("are other pictures", (before.images != now.images).any(axis=1)),
        ("are in another subset of the split", before.subsets != now.subsets),
        ("belong to another group", before.groups != now.groups),
    ):
        names = [now.names[row] for row in np.flatnonzero(differs)]
        if names:
            faults.append(f"{len(names)} images {what} ({_some(names)})")
    return faults


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def check_recipe(before: Mapping[str, Any], now: Recipe, names: Sequence[str] | None = None) -> None:
    """Refuse to go on with another recipe than the run was begun with; `FREE` settings may differ.

    Args:
        before: `recipe_values` of that one.
        names: the settings to look at; None for all.

    Raises:
        BundleError: naming every setting that differs, or that the version of then did not have.
    """
    values = recipe_values(now)
    unheard = [flag_of(name) for name in values if name not in before and name not in FREE]
    if unheard:
        raise BundleError(
            f"--resume: the run was begun by another version of mlcls, which had no {_some(unheard)}; go on with the "
            "version that began it, or train anew with --overwrite"
        )
    faults = [
        f"{flag_of(name)}: {_shown(before[name])} then, {_shown(values[name])} now"
        for name in (values if names is None else names)
        if name not in FREE and before[name] != values[name]
    ]
    if faults:
        raise BundleError(
            "--resume: the recipe is not that of the unfinished run:\n"
            + "\n".join(faults)
            + "\nleave these flags out to go on with it, or train anew with --overwrite"
        )


def _shown(value: Any) -> str:
    return "not set" if value is None or value == {} else str(value)
