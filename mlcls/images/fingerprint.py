"""Owns what is kept of each image while all are checked: its size, a small gray picture, and its perceptual hash.

About a kilobyte an image, computed in the threads that decode. What is near-identical is decided elsewhere,
from these arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 32  # pixels of the small picture; the hash is made from 32 x 32 too, so it is not resized again

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What is known of N images; a row is filled by `add`.

    Attributes:
        sizes: int32 [N, 2], width and height in pixels, as a viewer shows the image; 0 before `add`.
        pictures: uint8 [N, 32, 32], gray, the whole image squashed into the square; [0, 32, 32] when not asked for.
        hashes: uint64 [N], ImageHash's `phash` of the picture, its 64 bits row by row; [0] when not asked for.
    """

    sizes: NDArray[np.int32]
    pictures: NDArray[np.uint8]
    hashes: NDArray[np.uint64]
    phash: Callable[[Any], Any] | None = None

    def add(self, index: int, pixels: Pixels) -> None:
        """Keep the image's row. Safe in several threads at once: each index has a place of its own.

        Args:
            index: the row.
            pixels: uint8 RGB [H, W, 3].
        """
        self.sizes[index] = pixels.shape[1], pixels.shape[0]
        if self.phash is None:
            return
        from PIL import Image

        picture = shrink(pixels)
        self.pictures[index] = picture
        bits = np.packbits(self.phash(Image.fromarray(picture)).hash.reshape(-1))
        self.hashes[index] = bits.view(">u8")[0]

    def select(self, rows: NDArray[np.intp]) -> "Fingerprints":
        """Those of these rows alone."""
        if self.phash is None:
            return Fingerprints(self.sizes[rows], self.pictures, self.hashes)
        return Fingerprints(self.sizes[rows], self.pictures[rows], self.hashes[rows], self.phash)


def make_fingerprints(count: int, *, hashes: bool = True) -> Fingerprints:
    """Room for `count` images; without `hashes` their sizes alone are kept, and ImageHash is not loaded."""
    if not hashes:
        nothing = np.zeros((0, SIDE, SIDE), dtype=np.uint8)
        return Fingerprints(np.zeros((count, 2), dtype=np.int32), nothing, np.zeros(0, dtype=np.uint64))
    from imagehash import phash  # here alone: neither prediction nor `import mlcls` is to pay for it

    return Fingerprints(
        np.zeros((count, 2), dtype=np.int32),
        np.zeros((count, SIDE, SIDE), dtype=np.uint8),
        np.zeros(count, dtype=np.uint64),
        phash,
    )


def shrink(pixels: Pixels) -> Pixels:
    """The image in gray, squashed into 32 x 32 pixels, each the mean of what it covers.

    Args:
        pixels: uint8 RGB [H, W, 3].

    Returns:
        uint8 [32, 32].
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    while min(gray.shape) >= 8 * SIDE:  # halving is many times faster than the general reduction
        height, width = gray.shape[0] // 2, gray.shape[1] // 2
        gray = cv2.resize(gray[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(gray, (SIDE, SIDE), interpolation=cv2.INTER_AREA))
