"""Owns the first directory of a TIFF: its picture's size, how it is cut into strips or tiles, and what they claim."""

from mlcls.images.claims import Header
from mlcls.images.formats.exif import ORIENTATION_TAG, Directory, first_directory

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, ROWS = 256, 257, 258, 259, 262, 277, 278
STRIP_OFFSETS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 273, 279, 322, 323, 324, 325
PLANAR, EXTRA_SAMPLES = 284, 338
# none, CCITT (RLE, group 3 and 4), LZW, JPEG, deflate (two numbers), PackBits; what else there is libtiff may leave
# undecoded and call black
COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})
LAB = 8  # CIE L*a*b*, whose tables are computed anew for each strip
MOST_PARTS = 500_000  # strips or tiles
MOST_SCANS = 100  # of a JPEG in a TIFF; libtiff refuses more

SECONDS_A_BYTE = 1e-8  # of compressed data, and of each byte of the pixels once
SECONDS_A_PART, SECONDS_A_LAB_PART, SECONDS_A_LAB_PIXEL = 8e-6, 9e-5, 6e-8


def read_tiff(data: bytes) -> Header:
    """The header.

    Raises:
        ValueError: the parts do not lie in the file, are too many, or are of a rare compression.
        struct.error: the directory does not lie in the file.
    """
    directory = first_directory(data, MOST_PARTS + 1)

    def number(tag: int, default: int) -> int:
        """Of a value given twice, the one that costs more."""
        return max(directory.numbers.get(tag, (default,)), default=default)

    width, height, samples = number(WIDTH, 0), number(HEIGHT, 0), number(SAMPLES, 1)
    compression = number(COMPRESSION, 1)
    if compression not in COMPRESSIONS:
        raise ValueError(f"the TIFF is compressed by a rare method (number {compression}) that is not read")
    value = -(-number(BITS, 1) // 8)  # bytes
    value = 1 if value == 1 else 2 if value == 2 else 4 if value <= 4 else 8
    part_width, part_height = _part(directory, width, height)
    row = -(-part_width * samples * number(BITS, 1) // 8)
    last = row * (height - (height - 1) // max(1, part_height) * part_height)
    read = _check_parts(directory, len(data), last if compression == 1 else None)
    part = part_width * part_height * (samples * value + max(4, samples * value))
    parts = -(-width // max(1, part_width)) * -(-height // max(1, part_height))
    if number(PLANAR, 1) == 2:
        parts *= samples
    if parts > MOST_PARTS:
        raise ValueError(f"the TIFF consists of {parts:,} strips or tiles; at most {MOST_PARTS:,} are read")
    # a strip or tile is decoded whole, however little of it the picture shows
    pixels = max(width * height, parts * part_width * part_height)
    seconds = (read + pixels * samples * value) * SECONDS_A_BYTE + parts * SECONDS_A_PART
    if number(PHOTOMETRIC, 0) == LAB:
        seconds += parts * SECONDS_A_LAB_PART + pixels * SECONDS_A_LAB_PIXEL
    if compression == 7:
        seconds += pixels * min(MOST_SCANS, data.count(b"\xff\xda")) * samples * 1e-9
        part += 8 * part_width * part_height
    return Header(
        "tiff",
        width,
        height,
        extra_sample=max(directory.numbers[EXTRA_SAMPLES], default=None)
        if EXTRA_SAMPLES in directory.numbers
        else None,
        pixel_bytes=max(3 if samples < 4 else 4, samples) if value == 1 else max(samples, 3) * value,
        memory=part
        + _longest(directory)
        + 32 * parts
        + (width * height * 4 if number(ORIENTATION_TAG, 1) > 4 else 0)
        + (min(len(data) // 6, 1 << 20) * 160 if directory.following else 0),  # of pages, each is noted
        seconds=seconds,
        in_place=number(ORIENTATION_TAG, 1) <= 4,  # OpenCV turns it before it hands it over
    )


def _part(directory: Directory, width: int, height: int) -> tuple[int, int]:
    """Width and height of a tile, or of a strip."""
    if TILE_WIDTH in directory.tags or TILE_HEIGHT in directory.tags:
        across, down = directory.numbers.get(TILE_WIDTH, ()), directory.numbers.get(TILE_HEIGHT, ())
        return max(across, default=width), max(down, default=height)
    rows = max(directory.numbers.get(ROWS, ()), default=0)
    return width, min(rows, height) if rows else height


def _check_parts(directory: Directory, size: int, last: int | None) -> int:
    """How many bytes the strips or tiles have together.

    Args:
        directory: of the file.
        size: of the file.
        last: bytes that are needed of the last strip; None for all that its length says. It is shorter than the
            others, and some writers give it their length all the same.

    Raises:
        ValueError: one lies beyond the end of the file.
    """
    total = 0
    for offsets, lengths in ((STRIP_OFFSETS, STRIP_BYTES), (TILE_OFFSETS, TILE_BYTES)):
        counts = list(directory.numbers.get(lengths, ()))
        total += sum(min(count, size) for count in counts)
        if counts and last is not None and lengths == STRIP_BYTES:
            counts[-1] = min(counts[-1], last)
        for offset, count in zip(directory.numbers.get(offsets, ()), counts, strict=False):
            if offset + count > size:
                raise ValueError("the TIFF is cut off: its pixels lie beyond the end of the file")
    return total


def _longest(directory: Directory) -> int:
    """The most bytes of a strip or tile."""
    return max((*directory.numbers.get(STRIP_BYTES, ()), *directory.numbers.get(TILE_BYTES, ())), default=0)
