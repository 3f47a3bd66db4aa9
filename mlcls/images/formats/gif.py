"""Owns the header of a GIF, and how often its compressed data begin anew."""

import struct

import numpy as np

from mlcls.images.claims import Header

SECONDS_A_BYTE = 1.5e-8
SECONDS_A_PIXEL = 1.5e-8
SECONDS_A_RESET = 1e-5  # the decoder clears a table of 4,096 entries, for as little as 3 bits of the file
MOST_BLOCKS = 2_100_000  # of 255 bytes, as all write them: more than the largest file that is read
FIRST_LOOK = 32  # codes
MOST_RESETS = 60_000  # a writer that does not compress begins anew each 254 pixels


def read_gif(data: bytes) -> Header:
    """The header.

    Raises:
        struct.error, IndexError: the file is cut off in it.
        ValueError: it consists of too many blocks.
    """
    width, height = struct.unpack_from("<HH", data, 6)
    pixels = width * height
    codes, bits = _first_picture(data)
    resets = count_resets(codes, bits) if 2 <= bits <= 11 else 0
    if resets > MOST_RESETS:
        raise ValueError(f"the GIF begins its table anew more than {MOST_RESETS:,} times")
    return Header(
        "gif",
        width,
        height,
        pixel_bytes=4,
        memory=9 * pixels,  # codes, the canvas, and what the next picture would be laid on
        seconds=len(data) * SECONDS_A_BYTE + pixels * SECONDS_A_PIXEL + resets * SECONDS_A_RESET,
    )


def _first_picture(data: bytes) -> tuple[bytes, int]:
    """The compressed data of the first picture, and bits a code has at first, less one; none where there is none."""
    position = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    blocks = 0
    while position < len(data) and data[position] == 0x21:  # an extension: a label, and blocks
        position += 2
        while data[position]:
            position += 1 + data[position]
            blocks += 1
            if blocks > MOST_BLOCKS:
                raise ValueError(f"the GIF consists of more than {MOST_BLOCKS:,} blocks")
        position += 1
    if position >= len(data) or data[position] != 0x2C:
        return b"", 0
    flags = data[position + 9]
    position += 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    bits = data[position]
    parts = []
    position += 1
    while position < len(data) and data[position]:
        parts.append(data[position + 1 : position + 1 + data[position]])
        position += 1 + data[position]
        if len(parts) + blocks > MOST_BLOCKS:
            raise ValueError(f"the GIF consists of more than {MOST_BLOCKS:,} blocks")
    return b"".join(parts), bits


def count_resets(codes: bytes, bits: int) -> int:
    """How many clear and end codes the compressed data hold, at most; counted only where they could be many.

    The width of a code follows from how many codes came since the last clear code (GIF 89a, appendix F). Beyond the
    number that is refused, what is left is not counted.
    """
    most = len(codes) * 8 // (bits + 1)
    if most <= MOST_RESETS:
        return most
    clear = 1 << bits
    # code n after a clear code has so many bits: one more each time that the table has doubled, and at most 12
    grown = clear + 1 + np.arange(4096)
    widths = np.minimum(12, np.maximum(bits + 1, np.floor(np.log2(grown)).astype(np.int64) + 1))
    ends = np.cumsum(widths)
    starts = ends - widths
    padded = np.frombuffer(codes + bytes(4), dtype=np.uint8)
    total, position, resets, since, look = 8 * len(codes), 0, 0, 0, FIRST_LOOK
    while position < total and resets <= MOST_RESETS:
        if since < len(widths):
            stop = min(since + look, len(widths))
            at = position + starts[since:stop] - starts[since]
            width, step = widths[since:stop], int(ends[stop - 1] - starts[since])
        else:
            at = position + 12 * np.arange(look)
            width, step = np.full(look, 12), 12 * look
        inside = at < total
        at, width = at[inside], width[inside]
        byte = at >> 3
        three = padded[byte].astype(np.int64) | padded[byte + 1].astype(np.int64) << 8
        three |= padded[byte + 2].astype(np.int64) << 16
        found = np.flatnonzero((three >> (at & 7) & (1 << width) - 1) >> 1 == clear >> 1)
        if len(found):
            position = int(at[found[0]] + width[found[0]])
            resets, since, look = resets + 1, 0, FIRST_LOOK
        else:
            position, since, look = position + step, since + len(at), min(4 * look, 4096)
    return resets
