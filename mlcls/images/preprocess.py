"""The evaluation preprocessing: an image of any shape -> the model's square input. NumPy and OpenCV alone.

One function, `prepare`, for validation, prediction and every later path. It does not normalise: the model
does that on its own device, so that pixels travel as uint8.

A side that shrinks is averaged over the area that each new pixel covers (`INTER_AREA`); a side that grows
uses the configured interpolation. OpenCV's bicubic and bilinear do not widen their kernel when shrinking, as
PIL's and timm's do, and would alias.

A fit is geometry alone: a size in, what is kept of it and what that is resized to out. So the pixels and the
choice of the smallest decoding that is large enough (`needed_size`) follow from one statement.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.images.read import Picture, Size
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


class Geometry(NamedTuple):
    """What becomes of an image of some size, everything about the centre.

    Attributes:
        kept: width and height of the part of the image that is looked at.
        resized: width and height of that part once resized; what exceeds the S x S square is then cut off, what
            lacks is filled with the mean colour.
    """

    kept: Size
    resized: Size


def prepare(image: Pixels, preprocessing: Preprocessing) -> Pixels:
    """An image as the model's square input, not yet normalised.

    Args:
        image: uint8 RGB [H, W, 3], any H and W from 1 on.
        preprocessing: size, fit and interpolation.

    Returns:
        uint8 RGB [S, S, 3], contiguous.
    """
    return prepare_picture(Picture(image, (image.shape[1], image.shape[0])), preprocessing)


def prepare_picture(picture: Picture, preprocessing: Preprocessing) -> Pixels:
    """As `prepare`, of a picture that may have been decoded at a smaller scale (not below `needed_size`)."""
    geometry = look_up(FITS, preprocessing.fit, "--fit")(*picture.size, preprocessing)
    if picture.divisor > 1:
        return _centred(_shrink(picture, geometry), preprocessing)
    (width, height), (kept_width, kept_height) = picture.size, geometry.kept
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    part = picture.pixels[top : height - top, left : width - left]
    return _centred(resize(part, *geometry.resized, preprocessing.interpolation), preprocessing)


def _shrink(picture: Picture, geometry: Geometry) -> Pixels:
    """A smaller decoding, brought to the size its geometry asks for by averaging areas of the picture itself.

    Where the picture's side is no multiple of the divisor, the last pixel stands for less than the others. Taken
    for a whole one, it would stretch the picture by up to a pixel of the square.
    """
    pixels = _flipped(
        picture.pixels, picture.mirrored
    )  # as decoded: the pixel that stands for less is the last
    width, height = geometry.resized
    (across, fx), (down, fy) = (
        _span(picture.size[axis], geometry.kept[axis], geometry.resized[axis], picture.divisor)
        for axis in (0, 1)
    )
    # OpenCV makes as many pixels as the factors say, rounded; at least those asked for, and at most one more
    shrunk = np.asarray(cv2.resize(pixels[down, across], None, fx=fx, fy=fy, interpolation=cv2.INTER_AREA))
    return _flipped(shrunk[:height, :width], picture.mirrored)


def _flipped(image: Pixels, mirrored: tuple[bool, bool]) -> Pixels:
    """An image with its columns, its rows or both reversed."""
    columns, rows = mirrored
    if not (columns or rows):
        return image
    return np.asarray(cv2.flip(image, -1 if columns and rows else int(columns)))


def _span(side: int, kept: int, resized: int, divisor: int) -> tuple[slice, float]:
    """Along one side, the decoded pixels of the part that is kept, and the factor that makes `resized` of them."""
    length = kept / divisor
    whole, decoded = math.ceil(length), math.ceil(side / divisor)
    start = min(round((side - kept) / 2 / divisor), decoded - whole)
    return slice(start, start + whole), resized / length


def needed_size(width: int, height: int, preprocessing: Preprocessing) -> Size:
    """The least sides of a decoding of the whole picture that the fit only shrinks.

    Args:
        width, height: of the picture, as a viewer shows it.

    Returns:
        width, height; more than the picture's own where the fit makes it grow.
    """
    kept, resized = look_up(FITS, preprocessing.fit, "--fit")(width, height, preprocessing)
    return -(-resized[0] * width // kept[0]), -(-resized[1] * height // kept[1])


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


def _centred(image: Pixels, preprocessing: Preprocessing) -> Pixels:
    """The S x S centre of an image; where it is smaller, the image about the centre of the mean colour."""
    side = preprocessing.image_size
    height, width = image.shape[:2]
    # as torchvision's CenterCrop, Python's rounding (to even) included
    top, left = max(0, round((height - side) / 2)), max(0, round((width - side) / 2))
    image = image[top : top + side, left : left + side]
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return np.ascontiguousarray(image)
    square = np.empty((side, side, 3), dtype=np.uint8)
    square[:] = preprocessing.fill
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def squash(width: int, height: int, preprocessing: Preprocessing) -> Geometry:
    """The whole image, each side brought to S on its own."""
    return Geometry((width, height), (preprocessing.image_size, preprocessing.image_size))


def crop(width: int, height: int, preprocessing: Preprocessing) -> Geometry:
    """timm's evaluation transform: the shorter side to floor(S / crop_pct), then the S x S centre.

    At most 2:1 is kept, around the centre: no crop sees more, and 1 x 30,000 pixels would grow to gigabytes.
    """
    short = math.floor(preprocessing.image_size / min(1.0, preprocessing.crop_pct))
    width -= max(0, width - 2 * height) // 2 * 2
    height -= max(0, height - 2 * width) // 2 * 2
    # as torchvision's Resize: the longer side's fraction is dropped
    resized_width = short if width <= height else int(short * width / height)
    resized_height = short if height <= width else int(short * height / width)
    return Geometry((width, height), (resized_width, resized_height))


def pad(width: int, height: int, preprocessing: Preprocessing) -> Geometry:
    """The whole image in its own proportions, the longer side S, centred on the mean colour."""
    scale = preprocessing.image_size / max(width, height)
    return Geometry((width, height), (max(1, round(width * scale)), max(1, round(height * scale))))


FITS: dict[str, Callable[[int, int, Preprocessing], Geometry]] = {"squash": squash, "crop": crop, "pad": pad}
