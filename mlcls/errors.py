"""The errors of mlcls: one tree, each message written for the person who reads it.

    MlclsError                exit code 2 unless said otherwise
    ├── TableError            the label table, or a split of it, is not what it should be
    ├── RecipeError           a flag or a field of a recipe
    ├── ImageError            an image cannot be read
    ├── WeightsError          pretrained weights cannot be had or do not fit
    ├── BundleError           a bundle is absent, unfinished, damaged or of another format
    ├── OutputError           exit code 3: the disk is full, a folder cannot be written
    └── NumericalError        exit code 3: the loss stays not finite, memory gave out

    Interrupted               a KeyboardInterrupt, exit code 130: a person ended a run; it says how to go on

A message names the file, the line and column or the flag, says what was expected and what to do.
"""

from typing import ClassVar


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch says so: a device's memory, or the processor's own, gave out."""
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


class MlclsError(Exception):
    """A mistake that a person can mend. Commands print it as one message and exit with `exit_code`."""

    exit_code: ClassVar[int] = 2


class TableError(MlclsError):
    """The label table, or a split of it, is not what it should be."""


class RecipeError(MlclsError):
    """A flag or a field of a recipe has a value that cannot be used."""


class ImageError(MlclsError):
    """An image cannot be read."""


class WeightsError(MlclsError):
    """Pretrained weights cannot be had, or do not fit the backbone."""


class BundleError(MlclsError):
    """A bundle is absent, unfinished, damaged or of another format."""


class OutputError(MlclsError):
    """What was to be written could not be: the disk is full, the folder is read-only."""

    exit_code: ClassVar[int] = 3


class NumericalError(MlclsError):
    """The machine or the numbers gave out: a loss that stays not finite, memory exhausted.

    indices: of the images at hand when it happened, for whoever knows their names; may be empty.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, indices: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.indices = indices


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a run; the message says what is kept and how to go on.

    No MlclsError: whoever tries one recipe after the other and goes on after a mistake must not go on after this.
    """
