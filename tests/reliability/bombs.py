"""Small files that ask for much: each would take minutes, or gigabytes, of a decoder that believes it.

And large plain pictures, which are read as long as they keep within the bounds.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

Tag = tuple[int, int, list[int]]  # number, type (3: 16 bits, 4: 32), values


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    size: tuple[int, int], bits: int, colour: int, row: bytes, *, others: bytes = b"", interlaced: int = 0
) -> bytes:
    """A PNG whose rows are all the same: the filter's number, and the bytes."""
    packer = zlib.compressobj(1)
    packed = b"".join([packer.compress(row) for _ in range(size[1] * (1 + interlaced))] + [packer.flush()])
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlaced)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + others + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def gif(size: tuple[int, int], bits: int, codes: bytes) -> bytes:
    """A GIF of one picture with these compressed data."""
    blocks = b"".join(
        bytes([len(codes[at : at + 255])]) + codes[at : at + 255] for at in range(0, len(codes), 255)
    )
    head = b"GIF89a" + struct.pack("<HHBBB", *size, 0xF7, 0, 0) + bytes(range(256)) * 3
    return head + b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + bytes([bits]) + blocks + b"\0;"


def tiff(
    size: tuple[int, int], samples: int, bits: int, compression: int, part: bytes, parts: int, *more: Tag
) -> bytes:
    """A TIFF of which each strip or tile is the same piece of the file."""
    tags: dict[int, tuple[int, list[int]]] = {
        256: (4, [size[0]]),
        257: (4, [size[1]]),
        258: (3, [bits] * samples),
        259: (3, [compression]),
        262: (3, [2]),
        277: (3, [samples]),
        284: (3, [1]),
    }
    tags |= {number: (kind, values) for number, kind, values in more}
    tiled = 322 in tags
    tags[324 if tiled else 273] = (4, [8] * parts)
    tags[325 if tiled else 279] = (4, [len(part)] * parts)
    file = bytearray(b"II*\0" + bytes(4) + part + bytes(len(part) % 2))
    entries = []
    for number, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        place = packed.ljust(4, b"\0") if len(packed) <= 4 else struct.pack("<I", len(file))
        file += packed + bytes(len(packed) % 2) if len(packed) > 4 else b""
        entries.append(struct.pack("<HHI", number, kind, len(values)) + place)
    struct.pack_into("<I", file, 4, len(file))
    return bytes(file) + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)


def jpeg_with_scans(side: int, times: int) -> bytes:
    """A progressive JPEG whose last scan comes many times."""
    data = encode(Image.new("RGB", (side, side), (9, 99, 200)), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    found = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]").search(data, start + 12)
    assert found is not None
    end = found.start()
    return data[:end] + data[start:end] * times + data[end:]


def codes_of(pattern: list[int], times: int) -> bytes:
    """Bits, the lowest of a byte first."""
    return np.packbits(np.tile(np.array(pattern, np.uint8), times), bitorder="little").tobytes()


def many_pages(count: int) -> bytes:
    """A TIFF with so many empty directories after the first."""
    file = bytearray(tiff((4, 4), 3, 8, 1, bytes(48), 1, (278, 4, [4])))
    struct.pack_into("<I", file, len(file) - 4, len(file))
    for number in range(count):
        file += struct.pack("<HI", 0, len(file) + 6 if number < count - 1 else 0)
    return bytes(file)


def _with_claim(data: bytes, at: int, code: str, side: int) -> bytes:
    claimed = bytearray(data)
    struct.pack_into(code, claimed, at, side, side)
    return bytes(claimed)


# all are refused, or decoded within the bounds
BOMBS: dict[str, Callable[[], bytes]] = {
    "jpeg: 3,000 scans of 25 million pixels": lambda: jpeg_with_scans(5000, 3000),
    "jpeg: a million segments": lambda: b"\xff\xd8\xff" + b"\xe5\0\2\xff" * 1_000_000 + b"\xd9",
    "jpeg: 100 MB of fill bytes": lambda: b"\xff\xd8\xff" + b"\xff" * 100_000_000 + b"\xd9",
    "png: a colour profile of 1 GB": lambda: png(
        (16, 16), 8, 2, bytes(49), others=chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 30), 9))
    ),
    "png: texts of 1 GB": lambda: png(
        (16, 16), 8, 2, bytes(49), others=chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 26), 9)) * 16
    ),
    "png: a million empty IDAT": lambda: png(
        (16, 16), 8, 2, bytes(49), others=chunk(b"IDAT", b"") * 1_000_000
    ),
    "png: 14,000 x 14,000 of 16-bit RGBA": lambda: png((14_000, 14_000), 16, 6, b"\4" + bytes(14_000 * 8)),
    "png: unfolds to 2 GB beyond its rows": lambda: png((16, 16), 8, 2, bytes(49) * 2_700_000),
    "gif: a million clear codes": lambda: gif((1000, 1000), 2, codes_of([0, 0, 1], 1_000_000)),
    "gif: a million end codes": lambda: gif((1000, 1000), 2, codes_of([1, 0, 1], 1_000_000)),
    "gif: 14,000 x 14,000": lambda: gif((14_000, 14_000), 8, bytes(1000)),
    "gif: a picture larger than its screen": lambda: _with_claim(
        gif((16, 16), 8, bytes(99)), 786, "<HH", 60_000
    ),
    "bmp: 14,000 x 14,000 in a kilobyte": lambda: _with_claim(
        encode(Image.new("RGB", (16, 16)), "BMP"), 18, "<ii", 14_000
    ),
    "bmp: run lengths that fill nothing": lambda: (
        b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 0, 0, 1078, 40, 10_000, 10_000, 1, 8, 1, 0, 0, 0, 0, 0)
        + bytes(range(256)) * 4
        + b"\0\2\0\0" * 10_000_000
    ),
    "webp: 16,383 x 12,000": lambda: encode(Image.new("RGB", (16_383, 12_000)), "WEBP", method=0),
    "webp: 16,383 x 12,000 without loss": lambda: encode(
        Image.new("RGB", (16_383, 12_000)), "WEBP", lossless=True, method=0, quality=0
    ),
    "tiff: a tile of 16,000 x 16,000 for a pixel": lambda: tiff(
        (1, 1), 3, 8, 1, bytes(768), 1, (322, 4, [16_000]), (323, 4, [16_000])
    ),
    "tiff: 100,000 strips of L*a*b*": lambda: tiff(
        (1, 100_000), 3, 8, 1, b"abc", 100_000, (278, 4, [1]), (262, 3, [8])
    ),
    "tiff: a million strips": lambda: tiff((1, 1_000_000), 3, 8, 1, b"abc", 1_000_000, (278, 4, [1])),
    "tiff: 20,000 strips, each the whole file": lambda: tiff(
        (1, 20_000), 3, 8, 1, bytes(2_000_000), 20_000, (278, 4, [1])
    ),
    "tiff: 6,000 x 6,000 of 64-bit floats": lambda: tiff(
        (6000, 6000), 3, 64, 8, zlib.compress(bytes(6000 * 24)), 6000, (278, 4, [1]), (339, 3, [3, 3, 3])
    ),
    "tiff: 300,000 pages": lambda: many_pages(300_000),
    "tiff: a table of 500,000 values 1,000 times": lambda: _repeated_table(),
}


def _repeated_table() -> bytes:
    entry = struct.pack("<HHII", 273, 4, 500_000, 8)
    table = bytes(2_000_000)
    return (
        b"II*\0"
        + struct.pack("<I", 8 + len(table))
        + table
        + struct.pack("<H", 1000)
        + entry * 1000
        + bytes(4)
    )


SIDE = 14_142  # squared, just below 200 million pixels

# all are read
LARGE: dict[str, Callable[[], bytes]] = {
    "jpeg, 200 million pixels": lambda: encode(Image.new("RGB", (SIDE, SIDE), (9, 99, 200)), "JPEG"),
    "png, 200 million pixels": lambda: png(
        (SIDE, SIDE), 8, 2, b"\4" + np.arange(3 * SIDE, dtype=np.uint8).tobytes()
    ),
    "png, gray, 200 million pixels": lambda: png((SIDE, SIDE), 8, 0, b"\1" + bytes(SIDE)),
    "jpeg turned, 108 million pixels": lambda: turned_jpeg((12_000, 9_000)),
}


def turned_jpeg(size: tuple[int, int]) -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encode(Image.new("RGB", size, (9, 99, 200)), "JPEG", exif=exif)
