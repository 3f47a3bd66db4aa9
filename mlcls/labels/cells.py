"""Owns what a label cell may say: the words, their kinds, and the values that stand for them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError

ABSENT: Final = 0
PRESENT: Final = 1
UNKNOWN: Final = 2
EMPTY: Final = 3  # unknown as well, but tells a trailing delimiter from a column of NA
MINUS_ONE: Final = 4
OTHER: Final = 5  # not a label: a fault in an attribute, metadata elsewhere
KINDS: Final = 6

# in lower case; longer spellings of a number (1.000) are not labels
LABEL_WORDS: Final[dict[str, int]] = {
    **dict.fromkeys(("1", "1.0", "true", "yes", "present"), PRESENT),
    **dict.fromkeys(("0", "0.0", "false", "no", "absent"), ABSENT),
    **dict.fromkeys(("na", "n/a", "nan", "null", "none", "?"), UNKNOWN),
    **dict.fromkeys(("-1", "-1.0"), MINUS_ONE),
    "": EMPTY,
}

EXPECTED: Final = (
    "a label is 1 or 0, true or false, yes or no, present or absent; "
    "an unknown one is NA, N/A, NaN, null, none, ?, -1 or an empty cell"
)

MINUS_ONE_MEANINGS: Final = ("absent", "unknown")


def kind_of(cell: str) -> int:
    """The kind of a cell's text: ABSENT, PRESENT, ... or OTHER. Case is free; outer spaces are gone."""
    return LABEL_WORDS.get(cell.lower(), OTHER)


def is_unknown(cell: str) -> bool:
    """Whether a cell says nothing: an unknown word, -1 or empty."""
    return kind_of(cell) in (UNKNOWN, EMPTY, MINUS_ONE)


def kind_values(minus_one: str | None) -> NDArray[np.float32]:
    """float32 [KINDS]: the label that each kind stands for; NaN for the unknown and for what is no label.

    Raises:
        RecipeError: `minus_one` is neither None, `absent` nor `unknown`.
    """
    if minus_one not in (None, *MINUS_ONE_MEANINGS):
        raise RecipeError(f"--minus-one: '{minus_one}' is not a meaning; say absent or unknown")
    values = np.full(KINDS, np.nan, np.float32)
    values[ABSENT], values[PRESENT] = 0.0, 1.0
    if minus_one == "absent":
        values[MINUS_ONE] = 0.0
    return values
