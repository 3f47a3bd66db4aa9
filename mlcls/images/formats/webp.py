"""Owns the chunks of a WebP (RFC 9649): size, orientation, animation, and whether the file is whole."""

import struct

from mlcls.images.claims import Header
from mlcls.images.formats.exif import exif_orientation
from mlcls.images.formats.vp8l import count_groups

MOST_CHUNKS = 100_000
SECONDS_A_BYTE = 4e-8
# lossless pixels may have up to 65,536 groups of code tables, one for as little as 4 x 4 pixels. A group takes the
# lesser number of bytes for as little as 20 bits of the file, and up to the greater for more of them
MOST_GROUPS, GROUP_BITS, LEAST_GROUP, LARGEST_GROUP, GROUP_BYTES_A_BYTE = 65_536, 20, 5_700, 20_700, 65
UNCOUNTED = (
    450_000_000  # bytes of such tables: only a file that may have more is looked into for their number
)
SECONDS_A_PIXEL = 1e-8


def read_webp(data: bytes) -> Header:
    """The header, after a walk over all chunks.

    Raises:
        ValueError, struct.error: the file is cut off.
    """
    (riff_size,) = struct.unpack_from("<I", data, 4)
    if len(data) < riff_size + 8:
        raise ValueError("the WebP is cut off: it is shorter than its header says")
    width = height = 0
    orientation = 1
    position = 12
    kinds = set()
    parts: list[tuple[bytes, int, int]] = []
    for _ in range(MOST_CHUNKS):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        kinds.add(kind)
        if kind in (b"VP8L", b"ALPH"):
            parts.append((kind, position + 8, length))
        body = data[position + 8 : position + 8 + min(length, 10)]
        if kind == b"EXIF":
            orientation = exif_orientation(data[position + 8 : position + 8 + length])
        elif not width and kind == b"VP8X":  # canvas, each side less one in 24 bits
            width, height = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
        elif not width and kind == b"VP8L":  # lossless, each side less one in 14 bits after a signature byte
            packed = int.from_bytes(body[1:5], "little")
            width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        elif not width and kind == b"VP8 ":  # lossy, 14 bits each after a 3 byte tag and a 3 byte start code
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
        position += 8 + length + (length & 1)
    else:
        raise ValueError(f"the WebP consists of more than {MOST_CHUNKS:,} chunks")
    pixels = width * height
    lossy = kinds <= {b"VP8 ", b"VP8X", b"EXIF", b"ICCP", b"XMP "}
    tables = 0 if lossy else _table_bytes(data, parts, width, height)
    animated = b"ANIM" in kinds or b"ANMF" in kinds
    return Header(
        "webp",
        width,
        height,
        orientation,
        pixel_bytes=4 if b"VP8X" in kinds or b"VP8L" in kinds else 3,
        # an animation has two canvases beside the picture; lossless pixels are collected in a buffer of their own
        memory=(12 if animated else 0 if lossy else 4) * pixels + 256 * width + tables,
        seconds=len(data) * SECONDS_A_BYTE + (3 if animated else 1) * pixels * SECONDS_A_PIXEL,
    )


def _table_bytes(data: bytes, parts: list[tuple[bytes, int, int]], width: int, height: int) -> int:
    """The most memory that code tables of lossless data take.

    Args:
        data: the file.
        parts: kind, start and length of each chunk of such data outside of an animation.
        width, height: of the picture.
    """
    size = len(data)
    groups = min(MOST_GROUPS, -(-width // 4) * -(-height // 4), 8 * size // GROUP_BITS)

    def most(groups: int) -> int:
        return min(groups * LARGEST_GROUP, groups * LEAST_GROUP + size * GROUP_BYTES_A_BYTE)

    if most(groups) > UNCOUNTED and parts:
        view = memoryview(data)
        groups = 1
        for kind, start, length in parts:
            body = view[start : start + length]
            if kind == b"VP8L":
                groups = max(groups, count_groups(body[5:], width, height))
            elif length and body[0] & 3 == 1:
                groups = max(groups, count_groups(body[1:], width, height))
    return most(groups)
