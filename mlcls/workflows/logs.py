"""The logs of a run: where they lie, when they are written, and that none of them costs a training."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from mlcls.errors import MlclsError, OutputError, RecipeError
from mlcls.recipe import Recipe
from mlcls.reports.logs import build_logs
from mlcls.reports.record import EpochFigures, Record
from mlcls.workflows.checkpoints import Progress

LOGS_FOLDER = Path("logs")


def log_folder(recipe: Recipe, out: Path) -> Path:
    """`recipe.log_dir`, or `logs/` and the name of `--out`.

    Raises:
        RecipeError: it lies in `--out`, which is replaced as a whole when the run is over.
    """
    folder = LOGS_FOLDER / out.resolve().name if recipe.log_dir is None else Path(recipe.log_dir)
    if recipe.log and out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise RecipeError(
            f"--log-dir {folder}: lies in --out {out}, which holds the bundle and nothing else; name a folder outside"
        )
    return folder


class RunLog:
    """What a run tells its logs: once it has begun, after each epoch, when it is over."""

    def __init__(self, recipe: Recipe, out: Path, tell: Callable[[str], object]) -> None:
        """Args: tell: told, once, what keeps figures from a log.

        Raises:
            RecipeError: as `log_folder`.
        """
        self._write = build_logs(recipe.log or (), log_folder(recipe, out)) if recipe.log else None
        self._tell, self._told = tell, False

    def begin(self, record: Record) -> None:
        """Raise OutputError: a log cannot be written, which is told before the training and not after it."""
        if self._write is not None:
            try:
                self._write(record)
            except OSError as error:
                raise OutputError(
                    f"--log-dir: {error.filename or ''}: cannot be written ({error.strerror or error}); name another "
                    "folder"
                ) from error

    def write(self, record: Record) -> None:
        """What keeps figures from a log is told; the training goes on, and the next record holds them again."""
        if self._write is None:
            return
        try:
            self._write(record)
        except (MlclsError, OSError) as error:
            if not self._told:
                self._tell(
                    f"--log: not written ({error}); the training goes on, and what is missing is tried again"
                )
            self._told = True

    def after_epochs(
        self, record: Record, progress: Progress, on_epoch: Callable[[EpochFigures], None] | None
    ) -> Callable[[EpochFigures], None]:
        """What is to be called after each epoch; calls `on_epoch` too.

        Args:
            record: of the run as it began.
            progress: of the run, which has taken the epoch in by then.
        """

        def heard(row: EpochFigures) -> None:
            self.write(dataclasses.replace(record, epochs=tuple(progress.figures)))
            if on_epoch is not None:
                on_epoch(row)

        return heard
