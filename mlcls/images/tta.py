"""Test-time augmentation: the views of an image that a prediction averages. NumPy and OpenCV alone."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.images.preprocess import resize
from mlcls.naming import suggest

Pixels = NDArray[np.uint8]
View = Callable[[Pixels], Pixels]

NONE = "none"
ZOOM = 0.875  # the side of the centre that `zoom` looks at, of the image's own


def as_it_is(image: Pixels) -> Pixels:
    """The image itself, uint8 [S, S, 3]."""
    return image


def mirrored(image: Pixels) -> Pixels:
    """Left and right exchanged."""
    return np.ascontiguousarray(image[:, ::-1])


def nearer(image: Pixels) -> Pixels:
    """The centre, `ZOOM` of each side (at least a pixel), as large as the whole."""
    height, width = image.shape[:2]
    top, left = int(height * (1 - ZOOM) / 2), int(width * (1 - ZOOM) / 2)
    return resize(image[top : height - top, left : width - left], width, height, "bicubic")


def turned_once(image: Pixels) -> Pixels:
    """A quarter of a turn, against the clock."""
    return np.ascontiguousarray(np.rot90(image, 1))


def turned_twice(image: Pixels) -> Pixels:
    """Half a turn."""
    return np.ascontiguousarray(np.rot90(image, 2))


def turned_thrice(image: Pixels) -> Pixels:
    """Three quarters of a turn, against the clock."""
    return np.ascontiguousarray(np.rot90(image, 3))


VIEWS: dict[str, tuple[View, ...]] = {
    "flip": (mirrored,),
    "zoom": (nearer,),
    "rot90": (turned_once, turned_twice, turned_thrice),
}
"""What each name adds to the image as it is."""


@dataclass(frozen=True, slots=True)
class Steps:
    """One view of several names: their functions one after the other. Picklable, as they are."""

    steps: tuple[View, ...]

    def __call__(self, image: Pixels) -> Pixels:
        for step in self.steps:
            image = step(image)
        return image


def tta_views(names: str) -> tuple[View, ...]:
    """The views that names stand for: each a picklable function uint8 [S, S, 3] -> uint8 [S, S, 3].

    Args:
        names: `none`, or keys of `VIEWS` with commas between them, as `flip,zoom`. No other name is looked up: a bundle
            may come from a stranger, and names no code to import.

    Returns:
        The image as it is first, then every combination: `flip` 2 views, `flip,zoom` 4, `flip,rot90` 8.

    Raises:
        RecipeError: an unknown name, or one twice; the message suggests the nearest.
    """
    asked = [name.strip() for name in names.split(",")]
    if asked == [NONE]:
        return (as_it_is,)
    for name in asked:
        if name == NONE:
            raise RecipeError(f"--tta {names}: '{NONE}' stands alone, not among views")
        if name not in VIEWS:
            raise RecipeError(f"--tta: unknown view '{name}'; {suggest(name, [NONE, *VIEWS])}")
        if asked.count(name) > 1:
            raise RecipeError(f"--tta {names}: '{name}' stands there twice; name it once")
    choices = product(*((as_it_is, *VIEWS[name]) for name in asked))
    return tuple(map(_simplest, choices))


def _simplest(steps: tuple[View, ...]) -> View:
    needed = tuple(step for step in steps if step is not as_it_is)
    if not needed:
        return as_it_is
    return needed[0] if len(needed) == 1 else Steps(needed)
