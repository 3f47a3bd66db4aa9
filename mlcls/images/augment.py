"""Training augmentation: named lists of steps on S x S pixels, made functions of (seed, epoch, index).

Every augmentation starts from the pixels of the evaluation preprocessing, which are what is kept of an image
between epochs. albumentations is imported for an augmentation from outside that is made of its transforms alone:
that takes a second, in each worker too.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.images.distort import Blur, Erase, Mirror, Recolour, View
from mlcls.images.preprocess import INTERPOLATIONS, Preprocessing
from mlcls.naming import look_up

Pixels = NDArray[np.uint8]
Range = tuple[float, float]
Step = Callable[[Pixels, Random], Pixels]  # picklable; leaves the pixels it is given alone


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """The probabilities (`*_p`, in 0..1, a picture) and ranges (least, most) of `light` and `rich`.

    Attributes:
        hflip_p: mirrored left to right.
        crop_scale: part of the square's area that the random crop keeps; multi-label pictures lose labels to
            small crops, so at least half by default.
        crop_ratio: width / height of the crop in the square, before it becomes a square itself.
        jitter_p: brightness, contrast, saturation and hue, all four at once.
        brightness, contrast, saturation: largest change of the factor around 1.
        hue: largest shift, as a part of the colour circle, at most 0.5.
        perspective_p, perspective_scale: corners moved inwards; the deviation of the way, as a part of the side.
        blur_p, blur_sigma: Gaussian, its deviation in pixels of the square.
        erasing_p, erasing_scale, erasing_ratio: one rectangle, of this part of the area and of this width by
            height, becomes the mean colour (Zhong et al. 2017, "Random erasing data augmentation").
    """

    hflip_p: float = 0.5
    crop_scale: Range = (0.5, 1.0)
    crop_ratio: Range = (0.75, 1.3333)
    jitter_p: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.03
    perspective_p: float = 0.2
    perspective_scale: Range = (0.02, 0.08)
    blur_p: float = 0.1
    blur_sigma: Range = (0.5, 1.5)
    erasing_p: float = 0.2
    erasing_scale: Range = (0.02, 0.15)
    erasing_ratio: Range = (0.4, 2.5)

    def __post_init__(self) -> None:
        faults = []
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):  # as TOML gives a pair
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            least, most = _BOUNDS.get(field.name, (0.0, 1.0))
            fault = _fault(value, least, most, is_pair=isinstance(field.default, tuple))
            if fault:
                faults.append(f"--augment-args {field.name}: {fault}")
        if not faults and self.erasing_scale[0] > min(self.erasing_ratio[0], 1 / self.erasing_ratio[1]):
            faults.append(
                f"--augment-args erasing_scale: a rectangle of {self.erasing_scale[0]} of the square cannot have "
                f"every shape in {self.erasing_ratio}; lower it, or bring erasing_ratio nearer to 1"
            )
        if faults:
            raise RecipeError("\n".join(faults))


_ABOVE_0 = 1e-6
_BOUNDS = {
    "crop_scale": (_ABOVE_0, 1.0),
    "crop_ratio": (_ABOVE_0, 1e3),
    "brightness": (0.0, 10.0),
    "contrast": (0.0, 10.0),
    "saturation": (0.0, 10.0),
    "hue": (0.0, 0.5),
    "blur_sigma": (_ABOVE_0, 1e3),
    "erasing_scale": (_ABOVE_0, 1.0),
    "erasing_ratio": (_ABOVE_0, 1e3),
}


def _fault(value: object, least: float, most: float, *, is_pair: bool) -> str | None:
    numbers = value if isinstance(value, tuple) else (value,)
    if isinstance(value, tuple) != is_pair or (is_pair and len(numbers) != 2):
        return f"expected {'two numbers, least and most' if is_pair else 'a number'}, got {value!r}"
    if not all(
        isinstance(n, int | float) and not isinstance(n, bool) and least <= n <= most for n in numbers
    ):
        return f"expected {'numbers' if is_pair else 'a number'} from {least:g} to {most:g}, got {value!r}"
    if is_pair and numbers[0] > numbers[1]:
        return f"expected least before most, got {value!r}"
    return None


@dataclass(frozen=True, slots=True)
class Augment:
    """A picklable function of (seed, epoch, index) and the image, whatever was augmented before.

    Attributes:
        steps: each takes uint8 RGB [S, S, 3] and the generator that it may draw from, and gives the same.
        seed: of the run.
    """

    steps: tuple[Step, ...]
    seed: int

    def __call__(self, image: Pixels, epoch: int, index: int) -> Pixels:
        """Args: image uint8 RGB [S, S, 3], left alone. Returns: uint8 RGB [S, S, 3]; without steps, the image."""
        if self.steps:
            # seeded with text, it hashes (SHA-512): keys that resemble each other give numbers that do not
            rng = Random(f"{self.seed} {epoch} {index}")
            for step in self.steps:
                image = step(image, rng)
        return image


def build_augmentation(
    name: str, preprocessing: Preprocessing, settings: AugmentSettings | None = None, seed: int = 0
) -> Augment:
    """The augmentation of that name.

    Args:
        name: a key of `AUGMENTATIONS`, or `package.module:function` with the same arguments; it may give
            albumentations transforms in place of steps.
        preprocessing: gives the interpolation and the mean colour.
        settings: probabilities and ranges; None for the defaults.
        seed: of the run, from 0 on.

    Raises:
        RecipeError: an unknown name.
    """
    listed = look_up(AUGMENTATIONS, name, "--augment")
    steps = listed(preprocessing, settings or AugmentSettings())
    if any(hasattr(step, "set_random_state") for step in steps):
        os.environ.setdefault(
            "NO_ALBUMENTATIONS_UPDATE", "1"
        )  # else its import asks the network for a newer version
        import albumentations

        steps = [Composed(albumentations.Compose(steps))]
    return Augment(tuple(steps), seed)


@dataclass(frozen=True, slots=True)
class Composed:
    """albumentations transforms as one step.

    Attributes:
        transforms: a `Compose` that leaves S x S pixels.
    """

    transforms: Any

    def __call__(self, image: Pixels, rng: Random) -> Pixels:
        # one generator for all transforms: `set_random_seed` gives each the same numbers, so that a picture
        # would be blurred only where it is also mirrored
        self.transforms.set_random_state(np.random.default_rng(rng.getrandbits(128)), rng)
        augmented: Pixels = self.transforms(image=image)["image"]
        return augmented


def none(preprocessing: Preprocessing, settings: AugmentSettings) -> list[Step]:
    """The evaluation preprocessing alone."""
    return []


def light(preprocessing: Preprocessing, settings: AugmentSettings) -> list[Step]:
    """The evaluation preprocessing, mirrored or not."""
    return [Mirror(settings.hflip_p)]


def rich(preprocessing: Preprocessing, settings: AugmentSettings) -> list[Step]:
    """Random resized crop of the square, flip, perspective, colour jitter, blur, random erasing."""
    return [
        View(
            scale=settings.crop_scale,
            ratio=settings.crop_ratio,
            hflip_p=settings.hflip_p,
            perspective_p=settings.perspective_p,
            perspective_scale=settings.perspective_scale,
            interpolation=INTERPOLATIONS[preprocessing.interpolation],
        ),
        Recolour(
            p=settings.jitter_p,
            brightness=settings.brightness,
            contrast=settings.contrast,
            saturation=settings.saturation,
            hue=settings.hue,
        ),
        Blur(settings.blur_p, settings.blur_sigma),
        Erase(settings.erasing_p, settings.erasing_scale, settings.erasing_ratio, preprocessing.fill),
    ]


AUGMENTATIONS: dict[str, Callable[[Preprocessing, AugmentSettings], Sequence[Step]]] = {
    "none": none,
    "light": light,
    "rich": rich,
}
