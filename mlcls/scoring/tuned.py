"""Owns what is kept of a tuned threshold, light to import for prediction."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TunedThreshold:
    """One attribute's threshold and what it rests on.

    Attributes:
        name: the attribute.
        threshold: present means score >= threshold. Within [0, 1], but for one case: when never saying
            present is best and a score is exactly 1, it may be the next float32 above 1.
        objective: as written, e.g. `precision:0.9`.
        known, positive, negative: counts of known labels.
        value: the objective's figure at the threshold, on these very labels (so it flatters): F1, F-beta,
            Youden's J, the total cost; for `precision:P` the recall, for `recall:R` the precision. None for
            `fixed:T`, and without both a known positive and a known negative.
        note: what a person should know, or None: kept at 0.5, chosen for all attributes together, or a floor
            that is not met.
        estimator: a name of `ESTIMATORS`.
        cross_fitted: the same figure of thresholds tuned on folds of these labels and judged on the fold left
            out, see `cross_fit`; what the threshold is worth, as well as these labels can tell. None where
            `value` is, and with fewer than two images (or groups) of either class.
        interval: 95% percentile interval of the threshold over bootstrap samples; None where it was not tuned.
    """

    name: str
    threshold: float
    objective: str
    known: int
    positive: int
    negative: int
    value: float | None
    note: str | None
    estimator: str = "exact"
    cross_fitted: float | None = None
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.interval is not None:  # JSON has lists alone
            low, high = self.interval
            object.__setattr__(self, "interval", (low, high))
