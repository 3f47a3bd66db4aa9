"""Owns the chunks of a PNG (W3C recommendation, sections 5 and 11): size, checksums, and what the pixels depend on."""

import struct
import zlib
from collections.abc import Iterator, Sequence

from mlcls.images.claims import Header
from mlcls.images.formats.exif import exif_orientation

# the chunks that the pixels of a still picture depend on, and the longest of each
_PIXEL_CHUNKS = {b"IHDR": 13, b"PLTE": 768, b"tRNS": 256, b"IDAT": 1 << 31, b"IEND": 0}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
UNCHECKED = (
    8_000_000  # bytes of compressed data: they unfold to at most 1,032 times as many, in some 4 seconds
)
PIECE, SLACK = 1 << 16, 1 << 20  # bytes
MOST_CHUNKS = 300_000  # of 8 kB, as libpng writes them, these are more than the largest file that is read
SECONDS_A_BYTE = 4.5e-9  # of what the compressed data unfold to


def read_png(data: bytes) -> Header:
    """The header, after a walk over all chunks that verifies the checksums of those that the pixels depend on.

    Raises:
        ValueError, struct.error: the file is cut off or damaged.
    """
    width, height, bits, colour_type = struct.unpack_from(">IIBB", data, 16)
    orientation, transparent, has_transparency, others = 1, None, False, False
    pixel_data = []
    for kind, start, end in _chunks(data):
        body = data[start + 8 : end - 4] if kind in (b"eXIf", b"tRNS") else b""
        others |= kind not in _PIXEL_CHUNKS
        if kind == b"eXIf":
            orientation = exif_orientation(body)
        elif kind == b"tRNS":
            has_transparency = True
            if colour_type == 0 and len(body) >= 2:
                level = int.from_bytes(body[:2], "big")
                transparent = level * (255 // (2**bits - 1)) if bits in (1, 2, 4) else level
        elif kind == b"IDAT":
            pixel_data.append((start + 8, end - 4))
    channels = _CHANNELS.get(colour_type, 4)
    unfolded = (-(-width * channels * bits // 8) + 2) * height
    _check_unfolding(data, pixel_data, unfolded)
    shown = 1 if colour_type == 0 else 3 if colour_type in (2, 3) and not has_transparency else 4
    return Header(
        "png",
        width,
        height,
        orientation,
        transparent,
        pixel_bytes=shown * (2 if bits == 16 else 1),
        memory=(len(data) if others else 0) + 64 * width,
        seconds=unfolded * SECONDS_A_BYTE,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of each chunk up to IEND; those that the pixels depend on have passed their checksum."""
    view, position = memoryview(data), 8
    seen = set()
    for _ in range(MOST_CHUNKS):
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
            if length > _PIXEL_CHUNKS[kind] or (kind in seen and kind != b"IDAT"):
                raise ValueError(
                    f"the PNG is damaged: its {kind.decode()} chunk is too long or stands there twice"
                )
            seen.add(kind)
        yield kind, position, end
        if kind == b"IEND":
            return
        position = end
    raise ValueError(f"the PNG consists of more than {MOST_CHUNKS:,} chunks")


def _check_unfolding(data: bytes, parts: Sequence[tuple[int, int]], size: int) -> None:
    """Make sure that much compressed data do not unfold to more than the rows: libpng would unfold them to their end.

    Raises:
        ValueError: they do.
    """
    if sum(end - start for start, end in parts) <= UNCHECKED:
        return
    view, unfolding, left = memoryview(data), zlib.decompressobj(), size + SLACK
    try:
        for start, end in parts:
            for at in range(start, end, PIECE):
                piece: bytes | memoryview = view[at : min(at + PIECE, end)]
                while piece and left > 0 and not unfolding.eof:
                    left -= len(unfolding.decompress(piece, min(left, 16 * PIECE)))
                    piece = unfolding.unconsumed_tail
    except zlib.error as error:
        raise ValueError(f"the PNG is damaged: its pixels do not unfold ({error})") from error
    if left <= 0:
        raise ValueError("the PNG is damaged: its data unfold to more than its rows")


def still_png(data: bytes) -> bytes:
    """A whole PNG without what its pixels do not depend on: animation, text, colour profiles.

    A damaged animation chunk crashes OpenCV 5.0 and sends 4.12 into an endless loop, and a compressed profile unfolds
    to gigabytes; the still picture in the same file is decoded without them.
    """
    chunks = list(_chunks(data))
    if all(kind in _PIXEL_CHUNKS for kind, _, _ in chunks):
        return data
    view = memoryview(data)
    return b"".join([view[:8], *(view[start:end] for kind, start, end in chunks if kind in _PIXEL_CHUNKS)])
