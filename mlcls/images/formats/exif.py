"""Owns the directory of a TIFF, and of EXIF, which is a TIFF without pictures: tags and their numbers."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

ORIENTATION_TAG = 274  # 0x0112, the same number in EXIF and in TIFF
MOST_ENTRIES = 1000
INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}


class Directory(NamedTuple):
    """The first directory of a TIFF.

    Attributes:
        numbers: tag -> its values, of the tags of whole numbers; of a tag given twice, all.
        tags: every tag that stands there.
        following: where the next directory begins; 0 for none.
    """

    numbers: dict[int, Sequence[int]]
    tags: frozenset[int]
    following: int


def first_directory(data: bytes, most: int) -> Directory:
    """The tags of the first directory (TIFF 6.0 section 2, and BigTIFF), each with its first `most` values.

    Raises:
        struct.error: it does not lie in the data.
        ValueError: it holds more values than any writer puts there.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    word = "Q" if big else "I"
    (offset,) = struct.unpack_from(order + word, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, offset)
    first, size, value_at = (offset + 8, 20, 12) if big else (offset + 2, 12, 8)
    numbers: dict[int, Sequence[int]] = {}
    tags: set[int] = set()
    read = 0
    for entry in range(first, first + size * min(count, MOST_ENTRIES), size):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        tags.add(tag)
        if kind in INTEGERS:
            (length,) = struct.unpack_from(order + word, data, entry + 4)
            length = min(length, most)
            read += length
            if read > 4 * most + MOST_ENTRIES:
                raise ValueError("the TIFF is damaged: its directory holds a table many times")
            code = f"{order}{length}{INTEGERS[kind]}"
            at = entry + value_at
            if struct.calcsize(code) > size - value_at:
                (at,) = struct.unpack_from(order + word, data, at)
            if length <= 1 or at + struct.calcsize(code) <= len(data):
                numbers[tag] = (*numbers.get(tag, ()), *struct.unpack_from(code, data, at))
    end = first + size * count
    following = (
        struct.unpack_from(order + word, data, end)[0] if end + struct.calcsize(word) <= len(data) else 0
    )
    return Directory(numbers, frozenset(tags), following)


def exif_orientation(blob: bytes) -> int:
    """The orientation 1..8 that an EXIF block gives; 1 where it gives none, or is damaged."""
    blob = blob.removeprefix(b"Exif\0\0")
    try:
        found = first_directory(blob, 1).numbers.get(ORIENTATION_TAG, (1,))
    except (struct.error, ValueError, OverflowError):
        return 1
    orientation = max(found, default=1)
    return orientation if 1 <= orientation <= 8 else 1
