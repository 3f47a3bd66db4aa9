"""Runs of Weights & Biases: one id a run of ours, whatever processes it takes, an epoch never twice."""

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlcls.errors import OutputError
from mlcls.reports.record import Record


def append_to_run(
    folder: Path,
    epochs: Sequence[tuple[int, Mapping[str, float]]],
    final: Mapping[str, float],
    record: Record,
    state: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Add figures to the run, which is begun where it is not open in this process, and finished with the final ones.

    Args:
        epochs: number and figures by name of those that are new.
        final: figures by name, for the run's summary.
        state: what this returned the last time, among others; None to begin a new run.

    Returns:
        `id`, of the run.

    Raises:
        OutputError: wandb refuses, or cannot be reached.
        OSError: the folder cannot be written.
    """
    import wandb

    name = str((state or {}).get("id") or secrets.token_hex(4))
    try:
        if state is not None and record.stopped_because is not None and not epochs and not final:
            return {"id": name}  # all is written
        run = _open(wandb, folder, name, record)
        for number, figures in epochs:
            run.log(dict(figures), step=number)
        if final:
            run.summary.update(dict(final))
            run.finish()
    except wandb.Error as error:
        raise OutputError(
            f"--log wandb: {error}; WANDB_MODE=offline keeps the figures in {folder} for `wandb sync`"
        ) from error
    return {"id": name}


def _open(wandb: Any, folder: Path, name: str, record: Record) -> Any:
    """The run of this id, open in this process."""
    if wandb.run is not None:
        if wandb.run.id == name:
            return wandb.run
        wandb.run.finish()  # of a training that was ended
    folder.mkdir(parents=True, exist_ok=True)
    return wandb.init(
        dir=str(folder),
        id=name,
        name=folder.name,
        project=None if "WANDB_PROJECT" in os.environ else "mlcls",
        mode=None if "WANDB_MODE" in os.environ or _has_key(wandb) else "offline",
        resume="allow",
        config=record.recipe,
        # figures alone: not what stands on the terminal, nor what else this machine holds and does
        settings=wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            disable_code=True,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        ),
    )


def _has_key(wandb: Any) -> bool:
    """Whether wandb knows a key, without asking a person or its server."""
    return bool(wandb.login(prompt=False, verify=False))
