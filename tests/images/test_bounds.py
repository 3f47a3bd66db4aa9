"""What decoding may take is known, and bounded, before a pixel is decoded; and large pictures need no second copy."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mlcls.errors import ImageError
from mlcls.images import claims, colour, read
from mlcls.images.claims import Header
from mlcls.images.colour import decoded_to_rgb
from mlcls.images.fingerprint import SIDE, shrink
from mlcls.images.formats.gif import count_resets
from mlcls.images.formats.vp8l import count_groups
from mlcls.images.header import read_header
from mlcls.images.load import decode_for, glance
from mlcls.images.preprocess import Preprocessing
from mlcls.images.read import decode_image


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_the_most_pixels_are_whoever_asks_s_to_say(format: str) -> None:
    data = encode(Image.new("RGB", (30, 20)), format)
    assert decode_image(data, "x", max_pixels=600).shape == (20, 30, 3)
    assert glance(data, "x", max_pixels=600).size == (30, 20)
    with pytest.raises(ImageError, match=r"^x: its header claims 30 x 20 pixels; at most 599 .*--max-pixels"):
        decode_image(data, "x", max_pixels=599)
    with pytest.raises(ImageError, match="at most 599"):
        decode_for(data, "x", Preprocessing(8), max_pixels=599)


def progressive(side: int, scans: int) -> bytes:
    """A JPEG whose last scan comes several times."""
    data = encode(Image.new("RGB", (side, side), (9, 99, 200)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + scan * scans + b"\xff\xd9"


def test_scans_without_end_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decode_image(progressive(1600, 5), "x").shape == (1600, 1600, 3)
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(
        ImageError, match=r"^x: to decode what the JPEG claims .* about \d+ seconds; at most 5"
    ):
        decode_for(progressive(1600, 20_000), "x", Preprocessing(8))


def test_the_coefficients_of_a_progressive_jpeg_count_as_memory() -> None:
    plain, held = (
        read_header(encode(Image.new("RGB", (800, 600)), "JPEG", subsampling=0, progressive=p), "x")
        for p in (0, 1)
    )
    assert held.memory - plain.memory == 800 * 600 * 3 * 2
    halved = read_header(encode(Image.new("RGB", (800, 608)), "JPEG", subsampling=2, progressive=True), "x")
    assert halved.memory - plain.memory == 800 * 608 * 3


@pytest.mark.parametrize(
    ("size", "divisor", "bits"),
    [((20_000, 10_000), 1, 3), ((20_000, 10_000), 8, 3), ((14_000, 14_000), 1, 4)],
)
def test_what_is_plain_is_read_up_to_the_most_pixels(size: tuple[int, int], divisor: int, bits: int) -> None:
    header = Header("png", *size, pixel_bytes=bits)
    assert claims.check_claims(header, 10_000_000, divisor, claims.MAX_PIXELS, "x") == (divisor == 8)


def test_bounds_grow_with_the_most_pixels_and_never_shrink() -> None:
    header = Header("png", 14_000, 14_000, pixel_bytes=8)
    for few in (claims.MAX_PIXELS, 14_000 * 14_000):
        with pytest.raises(ImageError, match=r"would take about 1,\d+ MB of memory; at most 900 MB"):
            claims.check_claims(header, 1000, 1, few, "x")
    assert claims.check_claims(header, 1000, 1, 4 * claims.MAX_PIXELS, "x")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_an_image_without_room_for_a_copy_has_the_same_pixels(
    format: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 83, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    if format not in ("GIF", "BMP"):
        options |= {"exif": exif}
    data = encode(Image.fromarray(noise if format == "PNG" else noise[..., :3]), format, **options)
    expected = decode_image(data, "x")
    monkeypatch.setattr(read, "check_claims", lambda header, *_: not header.in_place)
    monkeypatch.setattr(colour, "BAND", 400)
    assert np.array_equal(decode_image(data, "x"), expected)
    with pytest.raises(ImageError, match=r"^x: "):
        decode_image(data[:40], "x")


def test_without_room_for_a_temporary_file_the_image_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "check_claims", lambda *_: False)
    monkeypatch.setattr(read.tempfile, "tempdir", "/nowhere/at/all")
    with pytest.raises(ImageError, match=r"^x: so large an image is decoded from a temporary file"):
        decode_image(encode(Image.new("RGB", (9, 9)), "PNG"), "x")


@settings(deadline=None, max_examples=80)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([0, 3, 4]),
    deep=st.sampled_from(["uint8", "uint16", "float32"]),
    extra=st.sampled_from([None, 0, 1, 2]),
    band=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_bands_give_the_same_colours_as_the_whole(
    shape: tuple[int, int], channels: int, deep: str, extra: int | None, band: int, seed: int
) -> None:
    numbers = np.random.default_rng(seed)
    full = (*shape, channels) if channels else shape
    values: NDArray[np.generic] = numbers.random(full, dtype=np.float32)
    if deep != "float32":
        values = (values * {"uint8": 255, "uint16": 1023}[deep]).astype(deep)
    header = Header("tiff", 1, 1, transparent_gray=None if deep == "float32" else 7, extra_sample=extra)
    whole = decoded_to_rgb(values.copy(), header, "x")
    before, colour.BAND = colour.BAND, band
    try:
        assert np.array_equal(decoded_to_rgb(values.copy(), header, "x"), whole)
    finally:
        colour.BAND = before


def test_the_small_picture_is_the_same_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlcls.images import fingerprint

    pixels = np.random.default_rng(0).integers(0, 256, (9 * SIDE + 1, 20 * SIDE, 3), dtype=np.uint8)
    whole = shrink(pixels)
    monkeypatch.setattr(fingerprint, "BAND", 14)
    assert np.array_equal(shrink(pixels), whole)


# -- formats --------------------------------------------------------------------------------------------------


def lzw(pixels: NDArray[np.uint8]) -> bytes:
    """The compressed data of a GIF that Pillow writes."""
    data = encode(Image.fromarray(pixels), "GIF")
    at = data.index(b",") + 10
    if data[at - 1] & 0x80:
        at += 3 << (data[at - 1] & 7) + 1
    parts, at = [], at + 1
    while data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b"".join(parts)


def resets_one_by_one(codes: bytes, bits: int) -> int:
    """As the decoder goes through them."""
    number, total, position, resets = int.from_bytes(codes, "little"), 8 * len(codes), 0, 0
    size, width = (1 << bits) + 1, bits + 1
    while position < total:
        code = number >> position & (1 << width) - 1
        position += width
        if code >> 1 == 1 << bits >> 1:
            resets, size, width = resets + 1, (1 << bits) + 1, bits + 1
        else:
            size = min(size + 1, 4096)
            width = width + (size == 1 << width and width < 12)
    return resets


@settings(deadline=None, max_examples=40)
@given(data=st.binary(min_size=1, max_size=3000), bits=st.integers(2, 8))
def test_resets_are_counted_as_the_decoder_meets_them(data: bytes, bits: int) -> None:
    from mlcls.images.formats import gif

    before, gif.MOST_RESETS = gif.MOST_RESETS, 3
    try:
        counted, exact = count_resets(data, bits), resets_one_by_one(data, bits)
    finally:
        gif.MOST_RESETS = before
    assert min(counted, 4) == min(exact, 4) or 8 * len(data) // (bits + 1) <= 3


def test_a_gif_that_begins_its_table_anew_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlcls.images.formats import gif

    noise = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    codes = lzw(noise)
    assert 5 < resets_one_by_one(codes, 8) < 60
    data = encode(Image.fromarray(noise), "GIF")
    monkeypatch.setattr(gif, "MOST_RESETS", 60)
    assert decode_image(data, "x").shape == (200, 300, 3)
    monkeypatch.setattr(gif, "MOST_RESETS", 4)
    with pytest.raises(ImageError, match=r"^x: the GIF begins its table anew"):
        decode_image(data, "x")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(rows: bytes, *others: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + b"".join(others)
        + chunk(b"IDAT", zlib.compress(rows, 1))
        + chunk(b"IEND", b"")
    )


def test_png_data_beyond_its_rows_are_not_unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlcls.images.formats import png as room

    monkeypatch.setattr(room, "UNCHECKED", 0)
    rows = bytes(16 * 49)
    assert decode_image(png(rows), "x").shape == (16, 16, 3)
    with pytest.raises(ImageError, match=r"^x: the PNG is damaged: its data unfold to more than its rows"):
        decode_image(png(rows + bytes(room.SLACK + 10_000)), "x")


def test_png_chunks_that_count_stand_there_once_and_are_short() -> None:
    rows = bytes(16 * 49)
    for wrong in ([chunk(b"PLTE", bytes(771))], [chunk(b"PLTE", bytes(6))] * 2, [chunk(b"tRNS", bytes(300))]):
        with pytest.raises(ImageError, match="too long or stands there twice"):
            decode_image(png(rows, *wrong), "x")
    with pytest.raises(ImageError, match=r"more than 300,000 chunks"):
        decode_image(png(rows, chunk(b"IDAT", b"") * 300_000), "x")


def changed_tag(data: bytes, number: int, value: int) -> bytes:
    """A little-endian TIFF with another value of a tag that it has; LONG, inline."""
    changed = bytearray(data)
    (start,) = struct.unpack_from("<I", changed, 4)
    (count,) = struct.unpack_from("<H", changed, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", changed, entry)[0] == number:
            struct.pack_into("<HII", changed, entry + 2, 4, 1, value)
            return bytes(changed)
    raise AssertionError(number)


def test_a_tiff_is_refused_where_libtiff_would_leave_it_black() -> None:
    data = encode(Image.new("RGB", (16, 16), (9, 99, 200)), "TIFF", compression="tiff_lzw")
    assert decode_image(data, "x")[0, 0].tolist() == [9, 99, 200]
    with pytest.raises(ImageError, match=r"^x: the TIFF is compressed by a rare method \(number 34712\)"):
        decode_image(changed_tag(data, 259, 34712), "x")
    with pytest.raises(ImageError, match=r"^x: the TIFF is cut off: its pixels lie beyond the end"):
        decode_image(changed_tag(data, 273, len(data) - 5), "x")


def test_the_length_of_a_plain_last_strip_may_be_that_of_the_others() -> None:
    data = encode(Image.new("RGB", (16, 16), (9, 99, 200)), "TIFF")
    moved = data + bytes(2)  # so that what the length says ends beyond the file
    moved = changed_tag(moved, 273, len(moved) - 768)
    assert decode_image(changed_tag(moved, 279, 1000), "x").shape == (16, 16, 3)


def test_a_float_tiff_with_premultiplied_alpha_lies_over_white() -> None:
    header = Header("tiff", 2, 1, extra_sample=1)
    bgra = np.array([[[0.25, 0.5, 0.5, 0.5], [0, 0, 0, 0]]], dtype=np.float32)
    assert decoded_to_rgb(bgra, header, "x").tolist() == [[[255, 255, 191], [255, 255, 255]]]


@pytest.mark.parametrize("fill", [b"\xff" * 3_000_000, b"\xd0\xff" * 100_001, b"\xe5\0\2\xff" * 100_001])
def test_a_jpeg_of_fill_bytes_or_of_countless_segments_ends_soon(fill: bytes) -> None:
    with pytest.raises(ImageError, match=r"^x: "):
        read_header(b"\xff\xd8\xff" + fill + b"\xd9", "x")


def many_groups(groups: int, side: int) -> bytes:
    """Lossless WebP data, after their header, of so many groups of code tables of one symbol each (RFC 9649)."""
    bits: list[int] = []

    def put(value: int, count: int) -> None:
        bits.extend(value >> place & 1 for place in range(count))

    def one(symbol: int) -> None:
        put(0b101, 3)  # a simple code, one symbol, of 8 bits
        put(symbol, 8)

    def all_of_8_bits(size: int) -> None:
        put(0, 1)
        put(8, 4)  # lengths of 12 lengths' codes: those of 0 and 8 are 1
        for place in range(12):
            put(place in (2, 11), 3)
        put(0, 1)
        for symbol in range(size):
            put(symbol < 256, 1)

    put(0b100, 3)  # no transform, no cache; groups of their own
    put(0, 3)  # for each 4 x 4 pixels
    put(0, 1)
    all_of_8_bits(280)
    all_of_8_bits(256)
    for symbol in (0, 255, 0):
        one(symbol)
    for tile in range((side // 4) ** 2):
        for byte in ((tile % groups) & 255, (tile % groups) >> 8):
            put(int(f"{byte:08b}"[::-1], 2), 8)
    for _ in range(groups):
        for symbol in (7, 8, 9, 255, 0):
            one(symbol)
    return np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


def webp_of_groups(groups: int, side: int) -> bytes:
    body = b"\x2f" + (side - 1 | side - 1 << 14).to_bytes(4, "little") + many_groups(groups, side)
    body += bytes(len(body) & 1)
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


def test_the_groups_of_a_lossless_webp_are_counted_as_the_decoder_makes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlcls.images.formats import webp

    data = webp_of_groups(200, 64)
    assert (decode_image(data, "x") == (8, 7, 9)).all()
    assert count_groups(data[25:], 64, 64) == 200
    monkeypatch.setattr(webp, "UNCOUNTED", 0)
    assert read_header(data, "x").memory - 4 * 64 * 64 - 256 * 64 <= 200 * webp.LARGEST_GROUP
    with pytest.raises(ImageError, match=r"^x: "):
        read_header(data[:16] + struct.pack("<I", 60) + data[20:80], "x")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_what_a_writer_makes_has_few_groups(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 83, 4), dtype=np.uint8)
    image = Image.fromarray(noise // 64 * 64).convert("RGB")
    image = image.convert("P", colors=7).convert("RGB") if mode == "P" else image.convert(mode)
    data = encode(image, "WEBP", lossless=True)
    assert 1 <= count_groups(data[data.index(b"VP8L") + 13 :], 83, 60) <= 21 * 15
