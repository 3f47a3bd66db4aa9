"""What the record of an ensemble says of its members, and of itself beside them."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFigures:
    """One member of an ensemble: how its training went, and its own macro average precision.

    `train` and `val` are images; `val_map` is on its own fold, which its epoch, calibration and thresholds were chosen
    on, `test_map` on the test subset. None is undefined.
    """

    name: str
    seed: int
    train: int
    val: int
    epochs: int
    best_epoch: int | None
    stopped_because: str | None
    seconds: float
    val_map: float | None
    test_map: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleFacts:
    """An ensemble beside its members.

    `predictions` says which predictions each subset's figures are of, in words. `mean_val_map` and `mean_test_map` are
    the members' means. `test_difference` are the ensemble's macro figures less the mean of its members', on the same
    test images: {figure: {"difference", "interval"}}; None where there was no test subset.
    """

    predictions: dict[str, str]
    mean_val_map: float | None
    mean_test_map: float | None
    test_difference: dict[str, Any] | None
