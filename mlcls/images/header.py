"""What an image file's bytes say before a pixel is decoded: format, size, orientation, whether it is whole.

OpenCV-free: a header that claims 60,000 x 60,000 pixels is met here, before memory is asked for, and so is a file
that was cut off, which some decoders fill with gray and call a success. What is no format of `PARSERS` is refused.
"""

import re
import struct
from collections.abc import Callable

from mlcls.errors import ImageError
from mlcls.images.claims import Header
from mlcls.images.formats.bmp import read_bmp
from mlcls.images.formats.gif import read_gif
from mlcls.images.formats.jpeg import read_jpeg
from mlcls.images.formats.png import read_png
from mlcls.images.formats.tiff import read_tiff
from mlcls.images.formats.webp import read_webp

PARSERS: dict[re.Pattern[bytes], Callable[[bytes], Header]] = {
    re.compile(rb"\xff\xd8\xff"): read_jpeg,
    re.compile(rb"\x89PNG\r\n\x1a\n"): read_png,
    re.compile(rb"GIF8[79]a"): read_gif,
    re.compile(rb"BM"): read_bmp,
    re.compile(rb"RIFF....WEBP", re.DOTALL): read_webp,
    re.compile(rb"II[*+]\0|MM\0[*+]"): read_tiff,
}


def read_header(data: bytes, name: str) -> Header:
    """The header of an encoded image, after a walk over its segments that shows whether it is whole.

    Args:
        data: the whole file.
        name: how messages call it.

    Raises:
        ImageError: not a JPEG, PNG, GIF, BMP, WebP or TIFF; cut off; damaged; or without a size.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes); replace it or leave it out")
    for signature, parse in PARSERS.items():
        if signature.match(data):
            try:
                header = parse(data)
            except (ValueError, IndexError, OverflowError, struct.error) as error:
                reason = str(error) if isinstance(error, ValueError) else "the file is cut off in its header"
                raise ImageError(f"{name}: {reason}; replace it or leave it out") from error
            if header.width < 1 or header.height < 1:
                raise ImageError(
                    f"{name}: its header gives a size of {header.width} x {header.height} pixels"
                )
            return header
    raise ImageError(f"{name}: not an image; expected JPEG, PNG, GIF, BMP, WebP or TIFF")
