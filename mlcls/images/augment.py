"""Training augmentation: named lists of albumentations transforms, made functions of (seed, epoch, index).

Every augmentation starts from the S x S pixels of the evaluation preprocessing, which are what is kept of an image
between epochs. albumentations is imported when an augmentation is built, so that nothing that predicts waits for it.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.images.preprocess import INTERPOLATIONS, Preprocessing
from mlcls.missing import split_missing
from mlcls.naming import look_up

Pixels = NDArray[np.uint8]
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """The probabilities (`*_p`, in 0..1, a picture) and ranges (least, most) of `light`, `rich` and `strong`.

    Attributes:
        hflip_p: mirrored left to right.
        crop_scale: part of the square's area that the random crop keeps; multi-label pictures lose labels to
            small crops, so at least half by default.
        crop_ratio: width / height of the crop in the square, before it becomes a square itself.
        jitter_p: brightness, contrast, saturation and hue, in random order.
        brightness, contrast, saturation: largest change of the factor around 1.
        hue: largest shift, as a part of the colour circle, at most 0.5.
        perspective_p, perspective_scale: corners moved; the deviation of the way, as a part of the side.
        blur_p, blur_sigma: Gaussian, its deviation in pixels of the square.
        erasing_p, erasing_scale, erasing_ratio: one rectangle, of this part of the area and of this width by
            height, becomes the mean colour (Zhong et al. 2017, "Random erasing data augmentation").
        turn_p, turn: of `strong` alone: turned about the middle, by so many degrees at most to either side.
        gray_p: of `strong` alone: colour is lost.
        noise_p, noise: of `strong` alone: Gaussian, a pixel and channel of its own; its deviation as a part of 255.
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
    turn_p: float = 0.5
    turn: float = 15.0
    gray_p: float = 0.1
    noise_p: float = 0.3
    noise: Range = (0.01, 0.06)

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
    "turn": (0.0, 180.0),
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
        transforms: an albumentations `Compose` that leaves S x S pixels; None where nothing is to change.
        seed: of the run.
    """

    transforms: Any
    seed: int

    def __call__(self, image: Pixels, epoch: int, index: int) -> Pixels:
        """Args: image uint8 RGB [S, S, 3], left alone. Returns: the same shape; without transforms, the image."""
        if self.transforms is None:
            return image
        state = np.random.SeedSequence((self.seed, epoch, index))
        # one generator for all transforms: `set_random_seed` gives each the same numbers, so that a picture
        # would be blurred only where it is also mirrored
        self.transforms.set_random_state(
            np.random.default_rng(state), random.Random(int(state.generate_state(1, np.uint64)[0]))
        )
        augmented: Pixels = self.transforms(image=image)["image"]
        return augmented


@dataclass(frozen=True, slots=True)
class Choose:
    """Two augmentations, the one or the other by the image: a picklable function of (seed, epoch, index) as they are.

    Attributes:
        common: for most images.
        rare: for those that `is_rare` marks.
        is_rare: bool [N], by index.
    """

    common: Augment
    rare: Augment
    is_rare: NDArray[np.bool_]

    def __call__(self, image: Pixels, epoch: int, index: int) -> Pixels:
        """Args: image uint8 RGB [S, S, 3], left alone. Returns: the same shape."""
        return (self.rare if self.is_rare[index] else self.common)(image, epoch, index)


def mirrors_alone(augment: Augment) -> bool:
    """Whether an augmentation leaves every image either as it is or mirrored, and does nothing else."""
    if augment.transforms is None:
        return False
    return all(type(step) is _albumentations().HorizontalFlip for step in augment.transforms)


def mirrored(augment: Augment, epoch: int, images: int) -> NDArray[np.bool_]:
    """Which images an augmentation that mirrors alone mirrors in an epoch, bool [images]: what it draws is no image's.

    60 microseconds an image.
    """
    marker = np.array([[[0, 0, 0], [255, 255, 255]]], dtype=np.uint8)
    return np.array(
        [augment(marker, epoch, index)[0, 0, 0] == 255 for index in range(images)], dtype=np.bool_
    )


def rare_images(labels: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """Which images are known to have a rare attribute.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        share: an attribute is rare where at most this part of its known labels, 0..1, is present; one that no image
            is known to have is not.

    Returns:
        bool [N].
    """
    values, known = split_missing(labels)
    positive = known & (values > 0.5)
    is_rare = positive.sum(axis=0) <= share * known.sum(axis=0)
    marked: NDArray[np.bool_] = (positive & is_rare).any(axis=1)
    return marked


def build_augmentation(
    name: str,
    preprocessing: Preprocessing,
    settings: AugmentSettings | None = None,
    seed: int = 0,
    *,
    flag: str = "--augment",
) -> Augment:
    """The augmentation of that name.

    Args:
        name: a key of `AUGMENTATIONS`, or `package.module:function` with the same arguments.
        preprocessing: gives the size, the interpolation and the mean colour.
        settings: probabilities and ranges; None for the defaults.
        seed: of the run, from 0 on.
        flag: which gave the name, for the message.

    Raises:
        RecipeError: an unknown name.
    """
    listed = look_up(AUGMENTATIONS, name, flag)
    transforms = listed(preprocessing, settings or AugmentSettings())
    return Augment(_albumentations().Compose(transforms) if transforms else None, seed)


def _albumentations() -> Any:
    os.environ.setdefault(
        "NO_ALBUMENTATIONS_UPDATE", "1"
    )  # else its import asks the network for a newer version
    import albumentations

    return albumentations


def none(preprocessing: Preprocessing, settings: AugmentSettings) -> list[Any]:
    """The evaluation preprocessing alone."""
    return []


def light(preprocessing: Preprocessing, settings: AugmentSettings) -> list[Any]:
    """The evaluation preprocessing, mirrored or not."""
    if settings.hflip_p == 0:  # nothing changes then, so one view is all views
        return []
    return [_albumentations().HorizontalFlip(p=settings.hflip_p)]


def rich(preprocessing: Preprocessing, settings: AugmentSettings) -> list[Any]:
    """Random resized crop of the square, flip, perspective, colour jitter, blur, random erasing."""
    A = _albumentations()
    interpolation = INTERPOLATIONS[preprocessing.interpolation]
    side = preprocessing.image_size
    return [
        A.RandomResizedCrop(
            size=(side, side),
            scale=settings.crop_scale,
            ratio=settings.crop_ratio,
            interpolation=interpolation,
            area_for_downscale="image",
        ),
        A.HorizontalFlip(p=settings.hflip_p),
        A.Perspective(scale=settings.perspective_scale, fill=preprocessing.fill, p=settings.perspective_p),
        A.ColorJitter(
            brightness=settings.brightness,
            contrast=settings.contrast,
            saturation=settings.saturation,
            hue=settings.hue,
            p=settings.jitter_p,
        ),
        A.GaussianBlur(sigma_limit=settings.blur_sigma, p=settings.blur_p),
        A.Erasing(
            scale=settings.erasing_scale,
            ratio=settings.erasing_ratio,
            fill=preprocessing.fill,
            p=settings.erasing_p,
        ),
    ]


def strong(preprocessing: Preprocessing, settings: AugmentSettings) -> list[Any]:
    """`rich` with larger changes, twice as likely each; then turned, without colour, or noisy.

    The crop and the erased part stay as they are: more of them would take away what the label is about.
    """
    A = _albumentations()
    return [
        *rich(preprocessing, _stronger(settings)),
        A.Affine(rotate=(-settings.turn, settings.turn), fill=preprocessing.fill, p=settings.turn_p),
        A.ToGray(p=settings.gray_p),
        A.GaussNoise(std_range=settings.noise, p=settings.noise_p),
    ]


def _stronger(settings: AugmentSettings) -> AugmentSettings:
    """The changes of colour, shape and sharpness doubled, within their bounds; mirroring stays."""
    twice: dict[str, Any] = {
        name: min(2 * getattr(settings, name), _BOUNDS.get(name, (0.0, 1.0))[1])
        for name in ("jitter_p", "brightness", "contrast", "saturation", "hue", "perspective_p", "blur_p")
    }
    ranges: dict[str, Any] = {
        name: (least, min(2 * most, _BOUNDS.get(name, (0.0, 1.0))[1]))
        for name in ("perspective_scale", "blur_sigma")
        for least, most in [getattr(settings, name)]
    }
    return replace(settings, **twice, **ranges)


AUGMENTATIONS: dict[str, Callable[[Preprocessing, AugmentSettings], list[Any]]] = {
    "none": none,
    "light": light,
    "rich": rich,
    "strong": strong,
}
