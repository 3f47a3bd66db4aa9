"""Owns the header of a BMP."""

import struct

from mlcls.images.claims import Header

SECONDS_A_BYTE = 4e-9  # of the file: of run lengths, each may fill nothing


def read_bmp(data: bytes) -> Header:
    """The header.

    Raises:
        struct.error: the file is cut off in it.
    """
    (header_size,) = struct.unpack_from("<I", data, 14)
    small = header_size == 12
    width, height = struct.unpack_from("<HH" if small else "<ii", data, 18)
    (bits,) = struct.unpack_from("<H", data, 24 if small else 28)
    return Header(
        "bmp",
        width,
        abs(height),  # a negative height means rows from the top
        pixel_bytes=4 if bits == 32 else 3,
        memory=16 * abs(width),
        seconds=len(data) * SECONDS_A_BYTE,
    )
