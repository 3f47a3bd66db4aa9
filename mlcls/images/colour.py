"""Owns the colours of decoded pixels: gray, palette, alpha and depth of any usual kind -> RGB uint8.

Large images are converted in bands of rows, into the memory they lie in where that is large enough: beside the
decoder's pixels there is never a second whole copy in more than 8 bits.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcls.errors import ImageError
from mlcls.images.claims import Header

Pixels = NDArray[np.uint8]
BAND = 1 << 20  # pixels of a band


class Levels(NamedTuple):
    """The values that mean white, and opaque."""

    white: int
    opaque: int


def to_rgb(array: NDArray[Any], name: str = "image") -> Pixels:
    """Pixels of any of the usual kinds as RGB uint8.

    Args:
        array: [H, W] or [H, W, C] with 1 (gray), 2 (gray and alpha), 3 (RGB) or 4 (RGB and alpha) channels;
            bool, uint8, uint16, or floats in [0, 1]. Transparent pixels are laid over white.
        name: how messages call it.

    A uint16 image holds data of 8, 10, 12, 14 or 16 bits, and the file does not say which: the fewest of
        these that its largest colour value fits in are taken for white (2**bits - 1 -> 255), alpha apart by
        the same rule. So 12-bit camera data is not black; the price is that a very dark 16-bit picture turns
        out brighter.

    Returns:
        uint8 RGB [H, W, 3]; the array itself where it already is that.

    Raises:
        ImageError: another shape or type, no pixels, or floats outside [0, 1].
    """
    pixels = array[..., np.newaxis] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 2, 3, 4) or pixels.size == 0:
        raise ImageError(
            f"{name}: expected pixels [H, W], [H, W, 1], [.., 2], [.., 3] or [.., 4], got {array.shape}"
        )
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3:
        return pixels
    return _in_bands(pixels, lambda band: band, name, None)


def decoded_to_rgb(decoded: NDArray[Any], header: Header, name: str) -> Pixels:
    """What OpenCV decoded, BGR or gray with or without alpha, as RGB uint8 [H, W, 3]; it may be overwritten.

    Raises:
        ImageError: as `to_rgb`.
    """
    height, width = decoded.shape[:2]
    reused = None
    if decoded.flags.c_contiguous and decoded.flags.writeable and decoded.nbytes >= 3 * height * width:
        flat = decoded.reshape(-1).view(np.uint8)
        reused = flat[: 3 * height * width].reshape(height, width, 3)
    return _in_bands(decoded, lambda band: _from_bgr(band, header), name, reused)


def _in_bands(
    pixels: NDArray[Any], arrange: Callable[[NDArray[Any]], NDArray[Any]], name: str, out: Pixels | None
) -> Pixels:
    """Convert band by band.

    Args:
        arrange: puts a band's channels in the order gray or RGB, and alpha.
        out: where to; it may be the beginning of the memory of `pixels`: a band is read before it is written, and
            what is written of the bands before it ends where it begins, or earlier.
    """
    height, width = pixels.shape[:2]
    rows = max(1, BAND // width)
    bands = [slice(top, top + rows) for top in range(0, height, rows)]
    if len(bands) == 1:
        arranged = arrange(pixels)
        return _convert(arranged, _levels([arranged], name))
    levels = _levels((arrange(pixels[band]) for band in bands), name)
    result = np.empty((height, width, 3), dtype=np.uint8) if out is None else out
    for band in bands:
        result[band] = _convert(arrange(pixels[band]), levels)
    return result


def _levels(bands: Iterable[NDArray[Any]], name: str) -> Levels:
    """What is white, and opaque, in all bands together.

    Raises:
        ImageError: values of another kind, or floats outside [0, 1].
    """
    brightest = [0, 0]  # of the colours, of the opacity
    for band in bands:
        if band.dtype == np.uint8:
            return Levels(255, 255)
        if band.dtype == np.bool_:
            return Levels(1, 1)
        if np.issubdtype(band.dtype, np.floating):
            if not (band.min() >= 0 and band.max() <= 1):  # also when it holds a NaN
                raise ImageError(f"{name}: an image of floats is expected in 0..1; convert it to 8 bits")
        elif band.dtype == np.uint16:
            for index, values in enumerate(_parted(band)):
                brightest[index] = max(brightest[index], int(values.max(initial=0)))
        else:
            raise ImageError(
                f"{name}: expected pixels of 8 or 16 bits, got {band.dtype}; convert the image to 8 bits"
            )
    if not any(brightest):
        return Levels(1, 1) if np.issubdtype(band.dtype, np.floating) else Levels(255, 255)
    return Levels(*(2 ** (bits + bits % 2) - 1 for bits in (max(8, most.bit_length()) for most in brightest)))


def _parted(band: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Colour [H, W, 1 or 3] and opacity [H, W, 1 or 0]."""
    if band.ndim == 2:
        band = band[..., np.newaxis]
    colours = 1 if band.shape[2] <= 2 else 3
    return band[..., :colours], band[..., colours:]


def _convert(band: NDArray[Any], levels: Levels) -> Pixels:
    colour, opacity = _parted(band)
    rgb = _to_8_bits(colour, levels.white)
    if rgb.shape[2] == 1:
        rgb = np.repeat(rgb, 3, axis=2)
    if opacity.shape[2]:
        rgb = _over_white(rgb, _to_8_bits(opacity, levels.opaque))
    return rgb


def _to_8_bits(values: NDArray[Any], white: int) -> Pixels:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    scaled = np.multiply(values, 255.0 / white, dtype=np.float32)
    rounded: Pixels = np.rint(scaled, out=scaled).astype(np.uint8)
    return rounded


def _over_white(colour: Pixels, alpha: Pixels) -> Pixels:
    """Colours [H, W, 3] with opacity [H, W, 1] over a white ground, rounded: (c a + 255 (255 - a)) / 255."""
    if int(alpha.min()) == 255:
        return np.ascontiguousarray(colour)
    opacity = alpha.astype(np.uint16)
    blended = colour * opacity + (255 - opacity) * np.uint16(255)  # at most 65,025
    blended += 127
    blended //= 255
    return blended.astype(np.uint8)


def _from_bgr(decoded: NDArray[Any], header: Header) -> NDArray[Any]:
    """OpenCV's BGR(A) turned to RGB(A); the transparent level of a gray PNG becomes an alpha channel."""
    if decoded.ndim == 2:
        if header.transparent_gray is None:
            return decoded
        opaque = np.where(decoded == header.transparent_gray, 0, np.iinfo(decoded.dtype).max)
        return np.stack([decoded, opaque.astype(decoded.dtype)], axis=-1)
    if decoded.shape[2] == 3 or header.extra_sample == 0:  # a fourth channel of unknown meaning is no alpha
        return np.asarray(cv2.cvtColor(decoded[..., :3], cv2.COLOR_BGR2RGB))
    if header.extra_sample == 1 or (header.extra_sample == 2 and decoded.dtype == np.uint8):
        # premultiplied, by the file or (8 bits) by libtiff: over white it only lacks the page's own share
        colour, alpha = decoded[..., :3], decoded[..., 3:]
        opaque_level = 1 if decoded.dtype.kind == "f" else np.iinfo(decoded.dtype).max
        over_white = np.minimum(colour, alpha) + (opaque_level - alpha)
        return np.asarray(cv2.cvtColor(over_white, cv2.COLOR_BGR2RGB))
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA))
