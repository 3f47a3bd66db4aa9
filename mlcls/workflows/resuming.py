"""A run that goes on: its checkpoint found, what it was begun with, and what setting it up again has to know."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlcls.bundle.unfinished import CHECKPOINT, MANIFEST
from mlcls.errors import BundleError
from mlcls.learning.checkpoint import Checkpoint, read_checkpoint
from mlcls.models.weights import WeightsReport
from mlcls.recipe import Recipe, recipe_values
from mlcls.reports.record import ModelFacts, facts_from_plain
from mlcls.sealed import digest_of
from mlcls.workflows.identity import Identity, read_identity

FIRST, RUN, NOW, BEST, SCORES, STEP = "first", "run", "now", "best", "scores", "step"
"""What the files hold: the first weights, the data in short, what differs from the first weights now, what differs in
the best epoch, its validation scores, and the optimizer with all else that the next step needs."""

FOLDS = (
    "folds"  # of a run of folds alone: in its state what some fold lacks, and the file of each image's fold
)


@dataclass(frozen=True)
class Begun:
    """How a run was begun: what has to be the same when it goes on, and what is told of it in the end.

    recipe: as it was given. replaces: the SHA-256 of the `bundle.json` that stood in `--out` then, or None.
    threads: of PyTorch, on which the last bits of sums depend.
    folder: the working folder, from which the recipe's relative names lead.
    """

    command: str
    recipe: dict[str, Any]
    replaces: str | None
    threads: int
    folder: str


@dataclass(frozen=True)
class Earlier:
    """A run that goes on, as far as setting it up again has to know of it.

    first: all weights as the run began with; weights: as they were in the end, by name.
    report: what those of the backbone were loaded from. precision, cut, facts: as decided then.
    """

    checkpoint: Checkpoint
    begun: Begun
    first: dict[str, Tensor]
    weights: dict[str, Tensor]
    report: WeightsReport
    precision: str
    cut: tuple[bool, ...]
    facts: ModelFacts
    seconds: float


def unfinished(out: Path) -> Checkpoint | None:
    """The checkpoint of the run in `--out`; None where there is none, or where that run's bundle stands already.

    Raises:
        BundleError: it is damaged.
    """
    checkpoint = read_checkpoint(out / CHECKPOINT)
    if checkpoint is None or _is_done(out, read_begun(checkpoint)):
        return None
    return checkpoint


def _is_done(out: Path, begun: Begun) -> bool:
    """Whether the bundle in `--out` is the run's own: killed after its last file, before its checkpoint was gone."""
    found = bundle_digest(out)
    return found is not None and found != begun.replaces


def bundle_digest(out: Path) -> str | None:
    """The SHA-256 of the `bundle.json` that stands in `--out`; None where none does."""
    try:
        return digest_of((out / MANIFEST).read_bytes())
    except OSError:
        return None


def read_begun(checkpoint: Checkpoint) -> Begun:
    try:
        return Begun(**checkpoint.state["begun"])
    except (KeyError, TypeError) as error:
        raise foreign(checkpoint, error) from error


def foreign(checkpoint: Checkpoint, error: Exception) -> BundleError:
    return BundleError(
        f"{checkpoint.folder}: of another version of mlcls, or damaged ({error!r}); go on with the version that wrote "
        "it, or train again with --overwrite"
    )


def read_earlier(checkpoint: Checkpoint) -> Earlier:
    """What setting up a run again has to know.

    Raises:
        BundleError: a file is damaged, or of another version.
    """
    state = checkpoint.state
    first = checkpoint.tensors(FIRST)
    try:
        return Earlier(
            checkpoint,
            read_begun(checkpoint),
            first,
            {**first, **checkpoint.tensors(NOW)},
            WeightsReport(state["weights"][0], state["weights"][1], tuple(state["weights"][2])),
            str(state["precision"]),
            tuple(bool(cut) for cut in state["cut"]),
            facts_from_plain(ModelFacts, state["facts"], str(checkpoint.folder)),
            float(state["seconds"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise foreign(checkpoint, error) from error


def has_folds(recipe: Recipe | None, checkpoint: Checkpoint | None) -> bool:
    """Whether a run is one of folds: by its recipe, or because the one that goes on is."""
    return bool(recipe is not None and recipe.folds) or (checkpoint is not None and FOLDS in checkpoint.state)


def identity_before(checkpoint: Checkpoint) -> Identity:
    """The data that a run was begun with.

    Raises:
        BundleError: damaged.
    """
    try:
        return read_identity(checkpoint.state["attributes"], checkpoint.tensors(RUN))
    except (KeyError, ValueError) as error:
        raise foreign(checkpoint, error) from error


def begun_by(command: str, recipe: Recipe, out: Path) -> Begun:
    """How a run begins now."""
    return Begun(
        command, recipe_values(recipe), bundle_digest(out), torch.get_num_threads(), working_folder()
    )


def working_folder() -> str:
    """Where relative names lead from, in words: a name that is no UTF-8 with escapes, as JSON has no form for it."""
    return os.path.abspath(os.curdir).encode("utf-8", "backslashreplace").decode()


def recipe_of(earlier: Earlier) -> Recipe:
    """The recipe that a run was begun with."""
    try:
        return Recipe(**earlier.begun.recipe)
    except TypeError as error:
        raise foreign(earlier.checkpoint, error) from error
