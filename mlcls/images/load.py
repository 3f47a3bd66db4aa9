"""An image file -> the model's S x S pixels: the one rule of training, validation, evaluation and prediction.

A JPEG is decoded at the smallest of libjpeg's scales (1/8, 1/4, 1/2, 1/1) whose sides both cover what the fit
resizes the picture to; `prepare` shrinks what remains. So a photo of 12 megapixels costs a fraction of its full
decoding, and no pixel of the square is ever interpolated from too few. NumPy and OpenCV alone.
"""

import os
from functools import partial
from typing import NamedTuple

from mlcls.images.preprocess import Preprocessing, needed_size, prepare_picture
from mlcls.images.read import MAX_PIXELS, Picture, Pixels, Size, decode_covering, read_bytes

LEAST = 32  # pixels a side: fingerprints are of 32 x 32, and must not depend on what the fit needs


class Decoded(NamedTuple):
    """All that one decoding tells of an image.

    Attributes:
        pixels: uint8 RGB [H, W, 3], as decoded: the picture, or at 1/2, 1/4 or 1/8 of its size.
        size: width and height of the picture as a viewer shows it.
        prepared: uint8 RGB [S, S, 3].
    """

    pixels: Pixels
    size: Size
    prepared: Pixels


def load_image(
    path: str | os.PathLike[str], preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """An image file as the model's square input, not yet normalised.

    Args:
        path: the file; its content says of what format it is.
        preprocessing: size, fit and interpolation.
        max_pixels: a larger image is refused before it is decoded.

    Returns:
        uint8 RGB [S, S, 3], contiguous.

    Raises:
        ImageError: the file is absent, cannot be opened, or cannot be decoded; the message begins with the path.
    """
    return decode_prepared(read_bytes(path), os.fspath(path), preprocessing, max_pixels=max_pixels)


def decode_prepared(
    data: bytes, name: str, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS
) -> Pixels:
    """As `load_image`, from the bytes of a whole file; messages call it `name`."""
    return decode_for(data, name, preprocessing, max_pixels=max_pixels).prepared


def decode_for(
    data: bytes, name: str, preprocessing: Preprocessing, *, max_pixels: int = MAX_PIXELS
) -> Decoded:
    """As `decode_prepared`, with the picture's true size and the pixels that were decoded.

    Raises:
        ImageError: another format than JPEG, PNG, GIF, BMP, WebP or TIFF, cut off, damaged, or too large.
    """
    needed = partial(_needed, preprocessing=preprocessing)
    picture = decode_covering(data, name, needed, max_pixels=max_pixels)
    return Decoded(picture.pixels, picture.size, prepare_picture(picture, preprocessing))


def glance(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """An image just large enough to tell it from others by: a JPEG's data are read to the end all the same.

    Raises:
        ImageError: as `decode_for`.
    """
    return decode_covering(data, name, _least, max_pixels=max_pixels)


def _least(width: int, height: int) -> Size:
    return min(width, LEAST), min(height, LEAST)


def _needed(width: int, height: int, preprocessing: Preprocessing) -> Size:
    """What has to be decoded of a picture: what the fit needs, and enough to tell it from others by."""
    needed_width, needed_height = needed_size(width, height, preprocessing)
    least_width, least_height = _least(width, height)
    return max(needed_width, least_width), max(needed_height, least_height)
