"""Small JPEG copies of images, to stand in a report."""

import cv2
import numpy as np
from numpy.typing import NDArray

_QUALITY = 80  # of 100; some 4 to 8 kB at 160 pixels


def thumbnail(rgb: NDArray[np.uint8], size: int = 160) -> bytes:
    """A JPEG of the image whose longer side is `size` pixels; a smaller image keeps its size.

    Args:
        rgb: uint8 RGB [H, W, 3].
        size: pixels of the longer side, at least 1.

    Raises:
        ValueError: not uint8 [H, W, 3], or empty.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ValueError(f"a thumbnail is made of uint8 [H, W, 3], not {rgb.dtype} {list(rgb.shape)}")
    height, width = rgb.shape[:2]
    factor = min(1.0, size / max(height, width))
    shape = max(1, round(width * factor)), max(1, round(height * factor))
    small = rgb if factor == 1 else cv2.resize(rgb, shape, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    if not done:
        raise ValueError(f"OpenCV could not write a JPEG of {list(small.shape)}")
    return bytes(encoded)
