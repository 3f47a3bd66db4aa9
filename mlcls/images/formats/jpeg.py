"""Owns the segments of a JPEG (ITU T.81, annex B): size, orientation, scans, and whether the file is whole."""

import re
import struct

from mlcls.images.claims import Header
from mlcls.images.formats.exif import exif_orientation

# in a scan, FF 00 is a stuffed byte, FF D0..D7 a restart, FF FF fill: anything else ends the scan
_END_OF_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_MARKER = re.compile(rb"\xff+([^\xff])", re.DOTALL)
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE, _LOSSLESS, _ARITHMETIC = (
    frozenset({0xC2, 0xCA}),
    frozenset({0xC3, 0xCB}),
    frozenset({0xC9, 0xCA, 0xCB}),
)
_STANDALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_SAVED = range(0xE0, 0xF0)  # application data, which the decoder copies
MOST_SEGMENTS = 100_000

SECONDS_A_BYTE = 8e-9  # of entropy-coded data
SECONDS_A_VISIT = 1.2e-9  # of a scan to a sample it may refine
SECONDS_A_DECISION = 4e-8  # of the arithmetic decoder, a sample and scan


def read_jpeg(data: bytes) -> Header:
    """The header, after a walk over all segments.

    Raises:
        ValueError, struct.error: the file is cut off, or made of more segments than any camera writes.
    """
    cut_off = "the JPEG is cut off: it ends before its end-of-image marker"
    frame = b""
    kind = width = height = scans = visits = copied = 0
    orientation, position, interleaved = 1, 2, True
    for _ in range(MOST_SEGMENTS):
        found = _MARKER.search(data, position)
        if found is None:
            raise ValueError(cut_off)
        marker, position = found[1][0], found.end()
        if marker == _EOI:
            break
        if marker in _STANDALONE:
            continue
        if position + 2 > len(data):
            raise ValueError(cut_off)
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _FRAMES and not width:
            height, width = struct.unpack_from(">HH", data, position + 3)
            kind, frame = marker, data[position + 7 : position + length]
        elif marker == _APP1 and data[position + 2 : position + 8] == b"Exif\0\0":
            orientation = exif_orientation(data[position + 8 : position + length])
        if marker in _SAVED:
            copied += length
        if marker == _SOS and position + 2 < len(data):
            scans, visits = scans + 1, visits + data[position + 2]
            interleaved &= bool(frame) and data[position + 2] == frame[0]
        position += length
        if marker == _SOS:
            scan_end = _END_OF_SCAN.search(data, position)
            if scan_end is None:
                raise ValueError(cut_off)
            position = scan_end.start()
    else:
        raise ValueError(f"the JPEG consists of more than {MOST_SEGMENTS:,} segments")
    whole = kind in _PROGRESSIVE or kind in _LOSSLESS or scans > 1 or not interleaved
    samples, coefficients = _samples(frame, width, height)
    seconds = len(data) * SECONDS_A_BYTE + samples * visits * SECONDS_A_VISIT
    if kind in _ARITHMETIC:
        seconds += samples * visits * SECONDS_A_DECISION
    memory = 2 * copied + 64 * width  # a few rows besides
    if whole:
        memory += (4 if kind in _LOSSLESS else 2) * coefficients
    return Header("jpeg", width, height, orientation, memory=memory, seconds=seconds)


def _samples(frame: bytes, width: int, height: int) -> tuple[int, int]:
    """How many values the largest component has, and all together, in whole blocks of 8 x 8 of whole units."""
    count = frame[0] if frame else 0
    factors = [(max(1, byte >> 4), max(1, byte & 15)) for byte in frame[2 : 2 + 3 * count : 3]] or [(1, 1)]
    across, down = max(h for h, _ in factors), max(v for _, v in factors)
    columns, rows = -(-width // (8 * across)), -(-height // (8 * down))  # units
    sizes = [columns * h * rows * v * 64 for h, v in factors]
    return max(sizes), sum(sizes)
