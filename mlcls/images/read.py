"""Reading an image: path or bytes -> RGB uint8 [H, W, 3], whatever the file holds. NumPy and OpenCV alone.

What every path (training, validation, prediction) gets: EXIF orientation applied, gray and palette expanded,
transparency laid over white, 16 bits brought to 8, CMYK converted, the first frame of an animation. A file
that is cut off is an error with its name, and so is damage that a checksum or the decoder notices; it is never
replaced by another picture. (Bits flipped inside a whole JPEG can go unnoticed: the format has no checksum.)

A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size for a fraction of the work (`decode_covering`); the
compressed data are read to the end all the same, so that what is found damaged is the same at every scale.
"""

import os
import stat
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcls.errors import ImageError
from mlcls.images.claims import MAX_BYTES, MAX_PIXELS, Header, check_claims, check_size
from mlcls.images.colour import Pixels, decoded_to_rgb, to_rgb
from mlcls.images.formats.png import still_png
from mlcls.images.header import read_header

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Picture",
    "Pixels",
    "Size",
    "check_size",
    "decode_covering",
    "decode_image",
    "read_bytes",
    "read_image",
    "to_rgb",
]

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".webp", ".tif", ".tiff"}
)
Size = tuple[int, int]  # width, height, in pixels

# what to ask of libjpeg, smallest first. Named for gray, these are the bits of the scale alone: those named for
# colour ask for BGR besides, which OpenCV 5 refuses beside RGB
JPEG_SCALES: dict[int, int] = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    1: 0,
}


class Picture(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: uint8 RGB [H, W, 3], oriented as a viewer shows it.
        size: width and height of the picture, as a viewer shows it.
        divisor: 1, 2, 4 or 8; each pixel stands for so many of the picture in either direction.
        mirrored: whether the columns, and whether the rows, were reversed after decoding. Of a smaller decoding
            the last pixels before that stand for less than `divisor` where the size is no multiple of it.
    """

    pixels: Pixels
    size: Size
    divisor: int = 1
    mirrored: tuple[bool, bool] = (False, False)


# decoders complain on stderr about each damaged file, in the middle of a progress bar; our message names it
if "OPENCV_LOG_LEVEL" not in os.environ:
    _set_log_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
    _set_log_level(0)  # silent; OpenCV 5 moved the function


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The pixels of an image file, at its full size.

    Args:
        path: the file; its suffix is not looked at, its content says what it is.
        max_pixels: a larger image is refused before it is decoded.

    Returns:
        uint8 RGB [H, W, 3], oriented as a viewer shows it.

    Raises:
        ImageError: the file is absent, cannot be opened, or cannot be decoded; the message begins with
            the path.
    """
    return decode_image(read_bytes(path), os.fspath(path), max_pixels=max_pixels)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file, not yet looked at.

    Raises:
        ImageError: the file is absent, no file, larger than `MAX_BYTES`, or cannot be opened; the message begins
            with the path.
    """
    name = os.fspath(path)
    try:
        status = os.stat(path)  # before opening: that would wait for the writer of a pipe
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name}: expected an image, found something that is not a file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{name}: {status.st_size:,} bytes; at most {MAX_BYTES:,} are read")
        # Python opens the file, not OpenCV: a name beyond ASCII works on Windows too
        with open(path, "rb") as file:
            return file.read(MAX_BYTES)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such image; check the name and --images") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise ImageError(f"{name}: cannot be opened: {reason}") from error


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The pixels of an encoded image, at its full size.

    Args:
        data: the bytes of a whole JPEG, PNG, GIF, BMP, WebP or TIFF file.
        name: how messages call it.
        max_pixels: a larger image is refused before it is decoded.

    Returns:
        uint8 RGB [H, W, 3], oriented as a viewer shows it.

    Raises:
        ImageError: another format, cut off, damaged, or more than `max_pixels` pixels (told before decoding).
    """
    return decode_covering(data, name, lambda width, height: (width, height), max_pixels=max_pixels).pixels


def decode_covering(
    data: bytes, name: str, needed: Callable[[int, int], Size], *, max_pixels: int = MAX_PIXELS
) -> Picture:
    """An encoded image, a JPEG at the smallest of libjpeg's scales 1/8, 1/4, 1/2 and 1/1 that is large enough.

    Args:
        data: the bytes of a whole JPEG, PNG, GIF, BMP, WebP or TIFF file.
        name: how messages call it.
        needed: width and height, as a viewer shows the image -> the least width and height of its pixels. Where
            they are more than the image has, and in the other formats, the image is decoded in full.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        ImageError: as `decode_image`.
    """
    header = read_header(data, name)
    check_size(header.width, header.height, name, max_pixels)  # before a question is asked about such a size
    size, divisor = (header.width, header.height), 1
    if header.format == "jpeg":
        # half of the orientations swap the sides
        size = (header.height, header.width) if header.orientation >= 5 else size
        divisor = _largest_divisor(size, needed(*size))
    roomy = check_claims(header, len(data), divisor, max_pixels, name)
    if header.format == "jpeg":
        # a JPEG has neither alpha nor 16 bits: the decoder may write RGB at once (and converts CMYK either way)
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | JPEG_SCALES[divisor]
        pixels = _oriented(_decode(data, flags, header, name, roomy), header.orientation)
        if pixels.shape[:2] == size[::-1]:  # a lossless JPEG has one scale alone
            divisor = 1
        return Picture(pixels, size, divisor, _mirrored(header.orientation))
    if header.format == "png":
        data = still_png(data)
    decoded = _decode(data, cv2.IMREAD_UNCHANGED, header, name, roomy)
    pixels = _oriented(decoded_to_rgb(decoded, header, name), header.orientation)
    return Picture(pixels, (pixels.shape[1], pixels.shape[0]))


def _largest_divisor(size: Size, needed: Size) -> int:
    """That of the smallest scale at which both sides have the pixels needed.

    libjpeg rounds the sides up; a pixel of which the picture fills a part alone does not count as one.
    """
    for divisor in JPEG_SCALES:
        if all(side // divisor >= least for side, least in zip(size, needed, strict=True)):
            return divisor
    return 1


def _decode(data: bytes, flags: int, header: Header, name: str, roomy: bool) -> NDArray[Any]:
    """What OpenCV makes of the bytes, in its own order of channels unless the flags say otherwise.

    Args:
        roomy: whether there is memory for its pixels twice: what it decodes from memory it copies for Python.
    """
    try:
        decoded = _decode_bytes(data, flags) if roomy else _decode_file(data, flags, name)
    except cv2.error as error:
        # an exception of unknown kind has no text
        reason = getattr(error, "err", None) or "its decoder failed"
        raise ImageError(f"{name}: cannot be decoded ({reason}); replace it or leave it out") from error
    except MemoryError as error:
        raise ImageError(f"{name}: there is no memory to decode it in; save it smaller") from error
    if decoded is None or decoded.size == 0:
        raise ImageError(
            f"{name}: the {header.format.upper()} is damaged, cut off, or of a rare kind; "
            "replace it or leave it out"
        )
    return np.asarray(decoded)


def _decode_bytes(data: bytes, flags: int) -> NDArray[Any] | None:
    decoded: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    return decoded


def _decode_file(data: bytes, flags: int, name: str) -> NDArray[Any] | None:
    """The same bytes from a temporary file: what OpenCV reads from a file it decodes into NumPy's own memory."""
    try:
        with tempfile.TemporaryDirectory(prefix="mlcls-") as folder:
            path = os.path.join(folder, "image")
            with open(path, "wb") as file:
                file.write(data)
            decoded: NDArray[Any] | None = cv2.imread(path, None, flags)
            return decoded
    except OSError as error:
        raise ImageError(
            f"{name}: so large an image is decoded from a temporary file, which cannot be written "
            f"({error.strerror or error}); make room there, or save the image smaller"
        ) from error


# EXIF 2.3, tag 0x0112: what brings the stored rows and columns to the way the picture is to be seen. OpenCV's turns
# take a twentieth of the time of NumPy's views made contiguous
_TURNS = {
    3: cv2.ROTATE_180,
    4: cv2.ROTATE_180,
    5: cv2.ROTATE_90_CLOCKWISE,
    6: cv2.ROTATE_90_CLOCKWISE,
    7: cv2.ROTATE_90_COUNTERCLOCKWISE,
    8: cv2.ROTATE_90_COUNTERCLOCKWISE,
}
_THEN_MIRRORED = frozenset({2, 4, 5, 7})


def _oriented(pixels: NDArray[Any], orientation: int) -> Pixels:
    """Stored pixels as they are to be seen, contiguous."""
    pixels = np.ascontiguousarray(pixels)
    if orientation in _TURNS:
        turned = None if orientation >= 5 else pixels  # half a turn takes no second copy
        pixels = np.asarray(cv2.rotate(pixels, _TURNS[orientation], turned))
    if orientation in _THEN_MIRRORED:
        pixels = np.asarray(cv2.flip(pixels, 1, pixels))
    return pixels


def _mirrored(orientation: int) -> tuple[bool, bool]:
    """Whether an orientation reverses the columns, and the rows, of the picture as it is seen."""
    return orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
