"""The random distortions that augmentations are made of: steps on S x S pixels, drawn from one generator.

NumPy and OpenCV alone, and as few passes over the pixels as it takes: crop, flip and perspective are one
resampling, and brightness, contrast, saturation and hue one affine map of the colours. On two cores
augmentation competes with training, so that each pass is time the network lacks.
"""

import math
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Range = tuple[float, float]
Box = tuple[int, int, int, int]  # left, top, width, height, in pixels
TRIES = 10  # to draw a rectangle that fits, as torchvision's transforms have it
FARTHEST = 0.32  # of the side: corners that move no farther in leave a proper quadrilateral


def _whether(rng: Random, probability: float) -> bool:
    return rng.random() < probability


@dataclass(frozen=True, slots=True)
class Mirror:
    """Left to right, with probability `p`."""

    p: float

    def __call__(self, image: Pixels, rng: Random) -> Pixels:
        return np.asarray(cv2.flip(image, 1)) if _whether(rng, self.p) else image


@dataclass(frozen=True, slots=True)
class View:
    """A part of the picture, mirrored or not, seen askew or not, as the whole square: one resampling.

    Attributes:
        scale, ratio: part of the area and width by height of the part, drawn as torchvision's RandomResizedCrop
            does (Szegedy et al. 2015, "Going deeper with convolutions"): the area uniformly, the ratio
            log-uniformly, again when the part does not fit.
        hflip_p: probability of mirroring.
        perspective_p, perspective_scale: probability that the part's corners move inwards, and the range of the
            deviation of a half-normal way, as a part of the side.
        interpolation: OpenCV's, for the plain part; the askew one is bilinear, as others cost many times as much.
    """

    scale: Range
    ratio: Range
    hflip_p: float
    perspective_p: float
    perspective_scale: Range
    interpolation: int

    def __call__(self, image: Pixels, rng: Random) -> Pixels:
        side = image.shape[0]
        left, top, width, height = self._part(side, rng)
        mirrored = _whether(rng, self.hflip_p)
        if _whether(rng, self.perspective_p):
            corners = self._corners((left, top, width, height), rng)
            return _askew(image, corners[[1, 0, 3, 2]] if mirrored else corners)
        if (width, height) != (side, side):
            part = image[top : top + height, left : left + width]
            image = np.asarray(cv2.resize(part, (side, side), interpolation=self.interpolation))
        return np.asarray(cv2.flip(image, 1)) if mirrored else image

    def _part(self, side: int, rng: Random) -> Box:
        for _ in range(TRIES):
            width, height = _rectangle(side, self.scale, self.ratio, rng)
            if 0 < width <= side and 0 < height <= side:
                return rng.randint(0, side - width), rng.randint(0, side - height), width, height
        # the largest part about the centre whose shape is allowed
        ratio = min(max(1.0, self.ratio[0]), self.ratio[1])
        width, height = max(1, round(side * min(1, ratio))), max(1, round(side / max(1, ratio)))
        return (side - width) // 2, (side - height) // 2, width, height

    def _corners(self, part: Box, rng: Random) -> NDArray[np.float32]:
        """Float32 [4, 2], x and y: top left, top right, bottom right, bottom left."""
        left, top, width, height = part
        deviation = rng.uniform(*self.perspective_scale)
        inwards = [abs(rng.gauss(0, deviation)) % FARTHEST for _ in range(8)]
        right, bottom = left + width, top + height
        corners = [(left, top, 1, 1), (right, top, -1, 1), (right, bottom, -1, -1), (left, bottom, 1, -1)]
        moved = [
            (x + inwards[2 * i] * width * to_x, y + inwards[2 * i + 1] * height * to_y)
            for i, (x, y, to_x, to_y) in enumerate(corners)
        ]
        return np.array(moved, dtype=np.float32)


def _askew(image: Pixels, corners: NDArray[np.float32]) -> Pixels:
    """The quadrilateral [4, 2] of a square image as the whole square."""
    side = image.shape[0]
    square = np.array([(0, 0), (side, 0), (side, side), (0, side)], dtype=np.float32)
    # corners lie between pixels, and OpenCV counts from the centres of pixels
    matrix = cv2.getPerspectiveTransform(corners - 0.5, square - 0.5)
    # four channels take less than half the time of three
    four = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
    warped = cv2.warpPerspective(
        four, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB))


def _rectangle(side: int, scale: Range, ratio: Range, rng: Random) -> tuple[int, int]:
    """Width and height: a part of the square's area, uniform in `scale`, of a shape log-uniform in `ratio`."""
    area = rng.uniform(*scale) * side * side
    shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    return round(math.sqrt(area * shape)), round(math.sqrt(area / shape))


# ITU-R BT.601, as OpenCV and Pillow make gray of RGB
_LUMA = np.array([0.299, 0.587, 0.114])
_TO_GRAY = np.tile(_LUMA, (3, 1))


def _keeping_luma(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """A part of a map of colours, so shifted along the gray axis that it adds nothing to the luma."""
    return matrix - np.tile(_LUMA @ matrix, (3, 1))


# Rodrigues' rotation about the gray axis by an angle a is I + sin(a) K + (1 - cos(a)) K K
_AXIS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
_SINE, _VERSINE = _keeping_luma(_AXIS), _keeping_luma(_AXIS @ _AXIS)


@dataclass(frozen=True, slots=True)
class Recolour:
    """Brightness, contrast, saturation and hue at once, with probability `p`.

    Each is an affine map of RGB. Hue is a turn about the gray axis sheared so that the luma stays (Haeberli 1993,
    "Matrix operations for image processing"). So the four can change places, and are one matrix: nothing is
    rounded or cut off at 0 and 255 between them.

    Attributes:
        brightness, contrast, saturation: largest change of the factor around 1, which is not below 0.
        hue: largest shift, as a part of the colour circle.
    """

    p: float
    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, image: Pixels, rng: Random) -> Pixels:
        if not _whether(rng, self.p):
            return image
        brightness, contrast, saturation = (
            rng.uniform(max(0.0, 1 - most), 1 + most)
            for most in (self.brightness, self.contrast, self.saturation)
        )
        angle = 2 * math.pi * rng.uniform(-self.hue, self.hue)
        turn = np.eye(3) + math.sin(angle) * _SINE + (1 - math.cos(angle)) * _VERSINE
        gray = float(_LUMA @ cv2.mean(image)[:3])
        matrix = np.empty((3, 4))
        matrix[:, :3] = brightness * contrast * (saturation * turn + (1 - saturation) * _TO_GRAY)
        matrix[:, 3] = brightness * (1 - contrast) * gray
        return np.asarray(cv2.transform(image, matrix))


@dataclass(frozen=True, slots=True)
class Blur:
    """Gaussian, its deviation uniform in `sigma`, in pixels, with probability `p`."""

    p: float
    sigma: Range

    def __call__(self, image: Pixels, rng: Random) -> Pixels:
        if not _whether(rng, self.p):
            return image
        sigma = rng.uniform(*self.sigma)
        reach = min(max(1, math.ceil(3 * sigma)), image.shape[0])
        kernel = cv2.getGaussianKernel(2 * reach + 1, sigma)
        # five times as fast as cv2.GaussianBlur of the same kernel, which is exact to the last bit
        return np.asarray(cv2.sepFilter2D(image, -1, kernel, kernel))


@dataclass(frozen=True, slots=True)
class Erase:
    """One rectangle filled with a colour, with probability `p` (Zhong et al. 2017, "Random erasing").

    Attributes:
        scale, ratio: of the rectangle, drawn as `View` draws its part.
        fill: RGB.
    """

    p: float
    scale: Range
    ratio: Range
    fill: tuple[int, int, int]

    def __call__(self, image: Pixels, rng: Random) -> Pixels:
        if not _whether(rng, self.p):
            return image
        side = image.shape[0]
        for _ in range(TRIES):
            width, height = _rectangle(side, self.scale, self.ratio, rng)
            if width <= side and height <= side:
                left, top = rng.randint(0, side - width), rng.randint(0, side - height)
                erased = image.copy()
                erased[top : top + height, left : left + width] = self.fill
                return erased
        return image
