"""Owns what a threshold may be chosen for: F1, a floor of precision, a cost, ... and how people write it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.naming import look_up, suggest

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FLAG = "--objective"


@dataclass(frozen=True, slots=True)
class Cuts:
    """What K cut points of one attribute's known labels predict present.

    Attributes:
        tp: int64 [K], known positives at or above each cut.
        fp: int64 [K], known negatives at or above each cut.
        positive: known positives in all, at least 1.
        negative: known negatives in all, at least 1.

    For the objectives of this file (not for one from outside) B resamples are judged at once: `tp` and `fp`
    are then [K, B], `positive` and `negative` [B].
    """

    tp: IntArray
    fp: IntArray
    positive: int | IntArray
    negative: int | IntArray

    def __getitem__(self, rows: slice) -> "Cuts":
        """Some of the K cut points."""
        return Cuts(self.tp[rows], self.fp[rows], self.positive, self.negative)

    @property
    def precision(self) -> FloatArray:
        """[K]; 0 where nothing is predicted present."""
        figure: FloatArray = self.tp / np.maximum(self.tp + self.fp, 1)
        return figure

    @property
    def recall(self) -> FloatArray:
        """[K]"""
        return self.tp / self.positive


@dataclass(frozen=True, slots=True)
class Merit:
    """How good each of K cut points is.

    Attributes:
        value: [K], the figure to report.
        order: the best cut has the largest first array; among equals the largest second; and so on.
        floored: [K], the figure that has to reach the objective's first number, if there is one; None for an
            objective without numbers, as all from outside are.

    All are finite: a cut that must not be chosen gets a very small number.
    """

    value: FloatArray
    order: tuple[FloatArray, ...]
    floored: FloatArray | None = None


def f1(cuts: Cuts) -> Merit:
    """The harmonic mean of precision and recall."""
    return fbeta(cuts, 1.0)


def fbeta(cuts: Cuts, beta: float) -> Merit:
    """F-beta (van Rijsbergen 1979): recall counts `beta` times as much as precision."""
    weight = beta * beta
    value = (1 + weight) * cuts.tp / (weight * cuts.positive + cuts.tp + cuts.fp)
    return Merit(value, (value,))


def wilson_lower(hits: IntArray, trials: int | IntArray, z: float) -> FloatArray:
    """What a share is at least: the lower end of the one-sided interval of Wilson (1927, JASA 22).

    Args:
        hits, trials: counts that broadcast, `hits` at most `trials`; without a trial the bound is 0.
        z: quantile of the normal distribution, 1.645 for 95% confidence.
    """
    n = np.maximum(trials, 1)
    share = hits / n
    spread = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    bound: FloatArray = np.maximum(share + z * z / (2 * n) - spread, 0) / (1 + z * z / n)
    return bound


# Recall only falls as the threshold rises, so its bound is tested once, in effect, and 95% is 95%. Precision
# goes up and down, and the best of many cut points is looked for: at 95% a floor that is called met would fail
# on fresh images in up to 15% of the samples, at 97.5% in about 5% (benchmarks/thresholds.py).
RECALL_Z = 1.6448536269514722  # 95%, one-sided
PRECISION_Z = 1.959963984540054  # 97.5%, one-sided


def precision(cuts: Cuts, least: float) -> Merit:
    """The most recall with a precision of surely at least `least`; where none is sure, the surest precision.

    Sure: `wilson_lower` at 97.5%. The value is the recall.
    """
    floored, value = wilson_lower(cuts.tp, cuts.tp + cuts.fp, PRECISION_Z), cuts.recall
    return Merit(value, (np.minimum(floored, least), value, floored), floored)


def recall(cuts: Cuts, least: float) -> Merit:
    """The most precision with a recall of surely at least `least`; where none is sure, the surest recall.

    Sure: `wilson_lower` at 95%. The value is the precision.
    """
    floored, value = wilson_lower(cuts.tp, cuts.positive, RECALL_Z), cuts.precision
    return Merit(value, (np.minimum(floored, least), value, floored), floored)


def youden(cuts: Cuts) -> Merit:
    """Sensitivity + specificity - 1 (Youden 1950)."""
    # over one denominator, so that equal cuts come out equal to the last bit
    value = (cuts.tp * cuts.negative - cuts.fp * cuts.positive) / (cuts.positive * cuts.negative)
    return Merit(value, (value,))


def cost(cuts: Cuts, false_positive: float, false_negative: float) -> Merit:
    """The least sum of what the errors cost; the value is that sum over the known labels."""
    value = false_positive * cuts.fp + false_negative * (cuts.positive - cuts.tp)
    return Merit(value, (-value,))


@dataclass(frozen=True, slots=True)
class _Number:
    """A number behind the colon: the letter that stands for it, and what it may be."""

    letter: str
    expected: str
    accepts: Callable[[float], bool]


def _positive(letter: str) -> _Number:
    # beyond these bounds squares and sums over images can leave the range of a float
    return _Number(letter, "a number above 0, from 1e-9 to 1e9", lambda number: 1e-9 <= number <= 1e9)


def _fraction(letter: str) -> _Number:
    return _Number(letter, "a number from 0 to 1", lambda number: 0 <= number <= 1)


Rank = Callable[..., Merit]  # (cuts, *numbers); None stands for a threshold that is given, not chosen

OBJECTIVES: dict[str, tuple[Rank | None, tuple[_Number, ...]]] = {
    "f1": (f1, ()),
    "fbeta": (fbeta, (_positive("B"),)),
    "precision": (precision, (_fraction("P"),)),
    "recall": (recall, (_fraction("R"),)),
    "youden": (youden, ()),
    "cost": (cost, (_positive("FP"), _positive("FN"))),
    "fixed": (None, (_fraction("T"),)),
}


@dataclass(frozen=True, slots=True)
class Objective:
    """What thresholds are chosen for.

    Attributes:
        text: as it is written in flags and files, e.g. `fbeta:2`.
        rank: the function that judges cut points; None for `fixed:T`.
        numbers: what stands behind the colon.
    """

    text: str
    rank: Rank | None
    numbers: tuple[float, ...] = ()


def parse_objective(text: str) -> Objective:
    """Read an objective as people write it.

    Args:
        text: `f1`, `fbeta:B`, `precision:P`, `recall:R`, `youden`, `cost:FP,FN`, `fixed:T`, or
            `package.module:function` for a function from outside that takes `Cuts` and returns a `Merit`.

    Raises:
        RecipeError: an unknown name, or numbers that are not what the objective needs; names `--objective`.
    """
    text = text.strip()
    name, _, rest = text.partition(":")
    if name not in OBJECTIVES:
        return Objective(text, _from_outside(text))
    rank, needed = OBJECTIVES[name]
    words = rest.split(",") if ":" in text else []
    if len(words) != len(needed):
        raise _wrong_form(text, name)
    return Objective(
        text, rank, tuple(_number(text, name, *pair) for pair in zip(words, needed, strict=True))
    )


def written_form(name: str) -> str:
    """How an objective is written: `cost:FP,FN`."""
    letters = ",".join(number.letter for number in OBJECTIVES[name][1])
    return f"{name}:{letters}" if letters else name


def _number(text: str, name: str, word: str, needed: _Number) -> float:
    try:
        number = float(word)
    except ValueError:
        raise _wrong_form(text, name) from None
    if not math.isfinite(number) or not needed.accepts(number):
        raise _wrong_form(text, name)
    return number


def _wrong_form(text: str, name: str) -> RecipeError:
    needed = OBJECTIVES[name][1]
    where = " and ".join(f"{number.letter} is {number.expected}" for number in needed)
    form = f"{written_form(name)}, where {where}" if needed else f"{name}, without a number"
    return RecipeError(f"{FLAG}: '{text}' cannot be used; write {form}")


def _from_outside(text: str) -> Rank:
    if not text.partition(":")[2].isidentifier():  # `fbta:2` is a slip of the pen, `my.code:gain` is not
        hint = suggest(text, [written_form(known) for known in OBJECTIVES])
        raise RecipeError(f"{FLAG}: unknown objective '{text}'; {hint}")
    nothing: dict[str, Rank] = {}
    rank = look_up(nothing, text, FLAG)
    if not callable(rank):
        raise RecipeError(f"{FLAG}: '{text}' is not a function; expected one from Cuts to Merit")
    return rank
