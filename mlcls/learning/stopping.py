"""Early stopping: which epoch is the best so far, and when waiting for a better one is over."""

import math
from dataclasses import dataclass
from typing import Literal

from mlcls.errors import RecipeError

Mode = Literal["min", "max"]

MONITORS: dict[str, Mode] = {"val_loss": "min", "val_map": "max", "val_f1": "max"}
"""What `--monitor` may watch beside `auto`, and which way is better."""


@dataclass(slots=True)
class EarlyStopping:
    """Counts the epochs since the best one.

    patience: epochs without a better value after which to stop; 0 never stops.
    mode: whether a lower or a higher value is better.
    best: the best value so far; None before the first.
    loss: the validation loss beside it, which decides between equal values; None where there is none.
    waited: epochs since then.

    Raises:
        RecipeError: a negative patience.
    """

    patience: int
    mode: Mode
    best: float | None = None
    loss: float | None = None
    waited: int = 0

    def __post_init__(self) -> None:
        if self.patience < 0:
            raise RecipeError(f"--patience: {self.patience}, expected 0 (never stop early) or more epochs")

    def update(self, value: float | None, loss: float | None = None) -> bool:
        """Take an epoch's value in; True when it is the best so far. None, NaN and infinities never are.

        Few validation images have few rankings, so equal values are common there: the lower loss is better then.
        """
        if value is None or not math.isfinite(value) or not self._is_better(value, loss):
            self.waited += 1
            return False
        self.best, self.loss, self.waited = value, loss, 0
        return True

    @property
    def should_stop(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= self.waited

    def restart(self) -> None:
        """A new stage begins: its patience counts from here, while the best so far stays the best."""
        self.waited = 0

    def _is_better(self, value: float, loss: float | None) -> bool:
        if self.best is None:
            return True
        if value == self.best:
            return loss is not None and self.loss is not None and loss < self.loss
        return value < self.best if self.mode == "min" else value > self.best
