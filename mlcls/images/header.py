"""What an image file's bytes say before a pixel is decoded: format, size, orientation, whether it is whole.

NumPy-free and OpenCV-free: a header that claims 60,000 x 60,000 pixels is met here, before memory is asked
for, and so is a file that was cut off, which some decoders fill with gray and call a success.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlcls.errors import ImageError

ORIENTATION_TAG = 274  # 0x0112, the same number in EXIF and in TIFF
WIDTH_TAG, HEIGHT_TAG, EXTRA_SAMPLES_TAG = 256, 257, 338


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an image file before it is decoded.

    Attributes:
        format: `jpeg`, `png`, `gif`, `bmp`, `webp` or `tiff`.
        width, height: in pixels, as stored, before the orientation is applied.
        orientation: EXIF orientation 1..8 that is still to be applied to the decoded pixels (1: as it is).
        transparent_gray: the one gray level, in 0..255 or 0..65535, that means transparent in a gray PNG.
        extra_sample: what a TIFF says of its channel beside colour: 0 nothing, 1 premultiplied alpha, 2 alpha;
            None for nothing said, and in other formats.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    transparent_gray: int | None = None
    extra_sample: int | None = None


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
            except (ValueError, IndexError, struct.error) as error:
                reason = str(error) if isinstance(error, ValueError) else "the file is cut off in its header"
                raise ImageError(f"{name}: {reason}; replace it or leave it out") from error
            if header.width < 1 or header.height < 1:
                raise ImageError(
                    f"{name}: its header gives a size of {header.width} x {header.height} pixels"
                )
            return header
    raise ImageError(f"{name}: not an image; expected JPEG, PNG, GIF, BMP, WebP or TIFF")


# -- JPEG (ITU T.81, annex B) --------------------------------------------------------------------------------

# in a scan, FF 00 is a stuffed byte, FF D0..D7 a restart, FF FF fill: anything else ends the scan
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def _jpeg(data: bytes) -> Header:
    cut_off = "the JPEG is cut off: it ends before its end-of-image marker"
    width = height = 0
    orientation = 1
    position = 2
    while True:
        position = data.find(b"\xff", position)
        while 0 <= position < len(data) - 1 and data[position + 1] == 0xFF:
            position += 1
        if position < 0 or position >= len(data) - 1:
            raise ValueError(cut_off)
        marker = data[position + 1]
        position += 2
        if marker == _EOI:
            return Header("jpeg", width, height, orientation)
        if marker == 0 or marker in _STANDALONE:
            continue
        if position + 2 > len(data):
            raise ValueError(cut_off)
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _FRAMES and not width:
            height, width = struct.unpack_from(">HH", data, position + 3)
        elif marker == _APP1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = _exif_orientation(data[position + 8 : position + length])
        position += length
        if marker == _SOS:
            scan_end = _END_OF_SCAN.search(data, position)
            if scan_end is None:
                raise ValueError(cut_off)
            position = scan_end.start()


# -- PNG (W3C recommendation, sections 5 and 11) -------------------------------------------------------------


# the chunks that the pixels of a still picture depend on
_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


def _png(data: bytes) -> Header:
    width, height, bits, colour_type = struct.unpack_from(">IIBB", data, 16)
    orientation, transparent = 1, None
    for kind, start, end in _png_chunks(data):
        body = data[start + 8 : end - 4] if kind in (b"eXIf", b"tRNS") else b""
        if kind == b"eXIf":
            orientation = _exif_orientation(body)
        elif kind == b"tRNS" and colour_type == 0 and len(body) >= 2:
            level = int.from_bytes(body[:2], "big")
            transparent = level * (255 // (2**bits - 1)) if bits in (1, 2, 4) else level
    return Header("png", width, height, orientation, transparent)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk up to IEND; those that the pixels depend on have passed their checksum."""
    view, position = memoryview(data), 8
    kind = b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise ValueError("the PNG is cut off: it ends before its IEND chunk")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise ValueError("the PNG is cut off: it ends before its IEND chunk")
        if kind in _PIXEL_CHUNKS:
            (checksum,) = struct.unpack_from(">I", data, end - 4)
            if zlib.crc32(view[position + 4 : end - 4]) != checksum:
                raise ValueError(
                    f"the PNG is damaged: the checksum of its {kind.decode()} chunk does not fit"
                )
        yield kind, position, end
        position = end


def still_png(data: bytes) -> bytes:
    """A whole PNG without what its pixels do not depend on: animation, text, colour profiles.

    A damaged animation chunk crashes OpenCV 5.0 and sends 4.12 into an endless loop; the still picture in the same
    file is decoded without it.
    """
    kept = [data[start:end] for kind, start, end in _png_chunks(data) if kind in _PIXEL_CHUNKS]
    return data[:8] + b"".join(kept)


# -- GIF, BMP, WebP ------------------------------------------------------------------------------------------


def _gif(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("gif", width, height)


def _bmp(data: bytes) -> Header:
    (header_size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_size == 12 else "<ii", data, 18)
    return Header("bmp", width, abs(height))  # a negative height means rows from the top


def _webp(data: bytes) -> Header:
    (riff_size,) = struct.unpack_from("<I", data, 4)
    if len(data) < riff_size + 8:
        raise ValueError("the WebP is cut off: it is shorter than its header says")
    width = height = 0
    orientation = 1
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + min(length, 10)]
        if kind == b"EXIF":
            orientation = _exif_orientation(data[position + 8 : position + 8 + length])
        elif not width and kind == b"VP8X":  # canvas, each side less one in 24 bits
            width, height = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        elif not width and kind == b"VP8L":  # lossless, each side less one in 14 bits after a signature byte
            packed = int.from_bytes(body[1:5], "little")
            width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        elif not width and kind == b"VP8 ":  # lossy, 14 bits each after a 3 byte tag and a 3 byte start code
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
        position += 8 + length + (length & 1)
    return Header("webp", width, height, orientation)


# -- TIFF, and EXIF, which is a TIFF without pictures --------------------------------------------------------


def _tiff(data: bytes) -> Header:
    tags = _first_directory(data)
    # the decoder applies a TIFF's own orientation itself, unlike EXIF's
    width, height = tags.get(WIDTH_TAG, 0), tags.get(HEIGHT_TAG, 0)
    return Header("tiff", width, height, extra_sample=tags.get(EXTRA_SAMPLES_TAG))


def _first_directory(data: bytes) -> dict[int, int]:
    """Tag -> first value, of the integer tags in the first directory (TIFF 6.0 section 2, and BigTIFF)."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    first, size, value_at = (offset + 8, 20, 12) if big else (offset + 2, 12, 8)
    integers = {1: "B", 3: "H", 4: "I", 16: "Q"}
    tags: dict[int, int] = {}
    for entry in range(first, first + size * min(count, 1000), size):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if kind in integers:
            (value,) = struct.unpack_from(order + integers[kind], data, entry + value_at)
            tags[tag] = max(value, tags.get(tag, 0))  # of a size given twice, the one that costs more memory
    return tags


def _exif_orientation(blob: bytes) -> int:
    """The orientation 1..8 that an EXIF block gives; 1 where it gives none, or is damaged."""
    blob = blob.removeprefix(b"Exif\0\0")
    try:
        orientation = _first_directory(blob).get(ORIENTATION_TAG, 1)
    except (struct.error, IndexError):
        return 1
    return orientation if 1 <= orientation <= 8 else 1


PARSERS: dict[re.Pattern[bytes], Callable[[bytes], Header]] = {
    re.compile(rb"\xff\xd8\xff"): _jpeg,
    re.compile(rb"\x89PNG\r\n\x1a\n"): _png,
    re.compile(rb"GIF8[79]a"): _gif,
    re.compile(rb"BM"): _bmp,
    re.compile(rb"RIFF....WEBP", re.DOTALL): _webp,
    re.compile(rb"II[*+]\0|MM\0[*+]"): _tiff,
}
