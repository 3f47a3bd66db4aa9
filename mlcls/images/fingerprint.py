"""Owns what is kept of each image while all are checked: its size, a small gray picture, and its perceptual hash.

About a kilobyte an image, computed in the threads that decode. What is near-identical is decided elsewhere,
from these arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

BAND = 512  # rows, an even number
SIDE = 32  # pixels of the small picture; the hash is made from 32 x 32 too, so it is not resized again

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What is known of N images; a row is filled by `add` or `put`, safely in several threads at once.

    Attributes:
        sizes: int32 [N, 2], width and height in pixels, as a viewer shows the image; 0 before `add`.
        pictures: uint8 [N, 32, 32], gray, the whole image squashed into the square; [0, 32, 32] when not asked for.
        hashes: uint64 [N], ImageHash's `phash` of the picture, its 64 bits row by row; [0] when not asked for.
    """

    sizes: NDArray[np.int32]
    pictures: NDArray[np.uint8]
    hashes: NDArray[np.uint64]

    def add(self, index: int, pixels: Pixels) -> None:
        """Keep the row of an image.

        Args:
            index: the row.
            pixels: uint8 RGB [H, W, 3], at its full size.
        """
        size = pixels.shape[1], pixels.shape[0]
        self.put(index, size, fingerprint(pixels) if len(self.hashes) else None)

    def put(self, index: int, size: ArrayLike, known: tuple[Pixels, int] | None) -> None:
        """Keep a row: width and height, and what `fingerprint` gave (None only where it is not asked for)."""
        self.sizes[index] = size
        if known is not None and len(self.hashes):
            self.pictures[index], self.hashes[index] = known

    def select(self, rows: NDArray[np.intp]) -> "Fingerprints":
        """Those of these rows alone."""
        if not len(self.hashes):
            return Fingerprints(self.sizes[rows], self.pictures, self.hashes)
        return Fingerprints(self.sizes[rows], self.pictures[rows], self.hashes[rows])


def make_fingerprints(count: int, *, hashes: bool = True) -> Fingerprints:
    """Room for `count` images; without `hashes` their sizes alone are kept."""
    kept = count if hashes else 0
    return Fingerprints(
        np.zeros((count, 2), dtype=np.int32),
        np.zeros((kept, SIDE, SIDE), dtype=np.uint8),
        np.zeros(kept, dtype=np.uint64),
    )


def fingerprint(pixels: Pixels) -> tuple[Pixels, int]:
    """The small picture of an image, uint8 [32, 32], and its perceptual hash, 64 bits.

    Args:
        pixels: uint8 RGB [H, W, 3]; a smaller decoding of the image, too, as long as its sides are not below 32.
    """
    from PIL import Image

    picture = shrink(pixels)
    bits = np.packbits(_phash()(Image.fromarray(picture)).hash.reshape(-1))
    return picture, int(bits.view(">u8")[0])


@cache
def _phash() -> Callable[[Any], Any]:
    from imagehash import (
        phash,
    )  # here alone: neither prediction nor a run that decodes nothing is to pay for it

    found: Callable[[Any], Any] = phash
    return found


def shrink(pixels: Pixels) -> Pixels:
    """The image in gray, squashed into 32 x 32 pixels, each the mean of what it covers.

    Args:
        pixels: uint8 RGB [H, W, 3].

    Returns:
        uint8 [32, 32].
    """
    if (
        min(pixels.shape[:2]) >= 8 * SIDE
    ):  # in bands: a large image has no room for a gray one of its size beside it
        height = pixels.shape[0] // 2 * 2
        bands = [pixels[top : min(top + BAND, height)] for top in range(0, height, BAND)]
        gray = np.concatenate([_halved(cv2.cvtColor(band, cv2.COLOR_RGB2GRAY)) for band in bands])
    else:
        gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    while min(gray.shape) >= 8 * SIDE:  # halving is many times faster than the general reduction
        gray = _halved(gray)
    return np.asarray(cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def _halved(gray: Pixels) -> Pixels:
    height, width = gray.shape[0] // 2, gray.shape[1] // 2
    return np.asarray(
        cv2.resize(gray[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    )
