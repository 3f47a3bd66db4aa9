"""The evaluation preprocessing: an image of any shape -> the model's square input. NumPy and OpenCV alone.

One function, `prepare`, for validation, prediction and every later path. It does not normalise: the model
does that on its own device, so that pixels travel as uint8.

A side that shrinks is averaged over the area that each new pixel covers (`INTER_AREA`); a side that grows
uses the configured interpolation. OpenCV's bicubic and bilinear do not widen their kernel when shrinking, as
PIL's and timm's do, and would alias.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.naming import look_up

Pixels = NDArray[np.uint8]

# timm's names; box and hamming are filters for shrinking, where the area rule holds anyway
INTERPOLATIONS: dict[str, int] = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
    "box": cv2.INTER_NEAREST,
    "hamming": cv2.INTER_LINEAR,
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the model's input; saved in the bundle.

    Attributes:
        image_size: S, the side of the square in pixels.
        fit: a key of `FITS`.
        interpolation: a key of `INTERPOLATIONS` (timm's names), for sides that grow.
        crop_pct: above 0, for `crop` alone: the part of the shorter side that the square takes. A few of timm's
            configurations have more than 1 and pad; here the square is then the whole shorter side.
        mean, std: of the RGB channels on the scale 0..1; the model applies them, `pad` fills with the mean.
    """

    image_size: int
    fit: str = "squash"
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise RecipeError(f"--image-size: expected a side in pixels of at least 1, got {self.image_size}")
        if not self.crop_pct > 0:
            raise RecipeError(f"crop_pct: expected a part of the image above 0, got {self.crop_pct}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise RecipeError(
                f"mean and std: expected three numbers each, std above 0; got {self.mean}, {self.std}"
            )
        look_up(FITS, self.fit, "--fit")
        look_up(INTERPOLATIONS, self.interpolation, "interpolation")

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean colour as uint8 values: what stands where there is no picture (0 after normalisation)."""
        red, green, blue = (min(255, max(0, round(255 * value))) for value in self.mean)
        return red, green, blue


def prepare(image: Pixels, preprocessing: Preprocessing) -> Pixels:
    """An image as the model's square input, not yet normalised.

    Args:
        image: uint8 RGB [H, W, 3], any H and W from 1 on.
        preprocessing: size, fit and interpolation.

    Returns:
        uint8 RGB [S, S, 3], contiguous.
    """
    return look_up(FITS, preprocessing.fit, "--fit")(image, preprocessing)


def resize(image: Pixels, width: int, height: int, interpolation: str) -> Pixels:
    """An image resized, each side by the rule of this file: shrinking averages areas, growing interpolates.

    Args:
        image: uint8 [H, W, 3].
        width, height: of the result, in pixels.
        interpolation: a key of `INTERPOLATIONS`, for the sides that grow.
    """
    small_width, small_height = min(width, image.shape[1]), min(height, image.shape[0])
    if (small_height, small_width) != image.shape[:2]:
        image = cv2.resize(image, (small_width, small_height), interpolation=cv2.INTER_AREA)
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=INTERPOLATIONS[interpolation])
    return image


def squash(image: Pixels, preprocessing: Preprocessing) -> Pixels:
    """The whole image, each side brought to S on its own."""
    side = preprocessing.image_size
    return np.ascontiguousarray(resize(image, side, side, preprocessing.interpolation))


def crop(image: Pixels, preprocessing: Preprocessing) -> Pixels:
    """timm's evaluation transform: the shorter side to floor(S / crop_pct), then the S x S centre."""
    side = preprocessing.image_size
    short = math.floor(side / min(1.0, preprocessing.crop_pct))
    image = _centre_of_long_side(image)
    height, width = image.shape[:2]
    # as torchvision's Resize: the longer side's fraction is dropped
    resized_width = short if width <= height else int(short * width / height)
    resized_height = short if height <= width else int(short * height / width)
    resized = resize(image, resized_width, resized_height, preprocessing.interpolation)
    # as torchvision's CenterCrop, Python's rounding (to even) included
    top, left = round((resized_height - side) / 2), round((resized_width - side) / 2)
    return np.ascontiguousarray(resized[top : top + side, left : left + side])


def pad(image: Pixels, preprocessing: Preprocessing) -> Pixels:
    """The whole image in its own proportions, the longer side S, centred on the mean colour."""
    side = preprocessing.image_size
    height, width = image.shape[:2]
    scale = side / max(height, width)
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = preprocessing.fill
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = resize(
        image, width, height, preprocessing.interpolation
    )
    return square


def _centre_of_long_side(image: Pixels) -> Pixels:
    """At most 2:1, around the centre: no crop sees more, and 1 x 30,000 pixels would grow to gigabytes."""
    height, width = image.shape[:2]
    spare_rows, spare_columns = max(0, height - 2 * width) // 2, max(0, width - 2 * height) // 2
    return image[spare_rows : height - spare_rows, spare_columns : width - spare_columns]


FITS: dict[str, Callable[[Pixels, Preprocessing], Pixels]] = {"squash": squash, "crop": crop, "pad": pad}
