"""Reading: every kind of file as a viewer shows it, and every broken one by its name."""

import io
import os
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mlcls.errors import ImageError
from mlcls.images.header import read_header
from mlcls.images.read import IMAGE_SUFFIXES, decode_image, read_image, to_rgb

Show = Callable[[bytes], NDArray[np.int16]]


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def refused(data: bytes) -> bool:
    """Whether a file is an ImageError that begins with its name; pixels of the right kind otherwise."""
    try:
        pixels = decode_image(data, "the name")
    except ImageError as error:
        message = str(error)
    else:
        assert pixels.ndim == 3
        assert pixels.dtype == np.uint8
        return False
    assert message.startswith("the name: ")
    return True


def decode_chunks(data: bytes) -> list[tuple[int, int]]:
    """(start, end) of each chunk of a PNG."""
    chunks, position = [], 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        chunks.append((position, position + 12 + length))
        position += 12 + length
    return chunks


def test_every_kind_of_file_is_read_as_pillow_shows_it(zoo: dict[str, bytes], shown_by_pillow: Show) -> None:
    differences = {}
    for name, data in zoo.items():
        pixels = decode_image(data, name)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        shown = shown_by_pillow(data)
        assert pixels.shape == shown.shape, name
        differences[name] = int(np.abs(pixels - shown).max())
    # one level, where both round: CMYK, alpha, and two JPEG decoders
    assert {name: d for name, d in differences.items() if d > 1} == {}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(
    format: str, orientation: int, picture: NDArray[np.uint8], shown_by_pillow: Show
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(Image.fromarray(picture), format, exif=exif, **options)
    shown = shown_by_pillow(data)
    assert shown.shape[:2] == ((64, 48) if orientation > 4 else (48, 64))
    pixels = decode_image(data, "turned")
    assert pixels.shape == shown.shape
    assert np.abs(pixels - shown).max() <= 1


def test_orientation_is_applied_to_alpha_and_to_gray(
    picture: NDArray[np.uint8], shown_by_pillow: Show
) -> None:
    exif = Image.Exif()
    exif[274] = 6
    opacity = np.full(picture.shape[:2], 255, np.uint8)
    opacity[:10, :20] = 0
    for image in (Image.fromarray(np.dstack([picture, opacity])), Image.fromarray(picture).convert("L")):
        data = encode(image, "PNG", exif=exif)
        assert np.abs(decode_image(data, "turned") - shown_by_pillow(data)).max() <= 1


def test_damaged_exif_does_not_cost_the_picture(picture: NDArray[np.uint8]) -> None:
    for exif in (
        b"Exif\0\0",
        b"Exif\0\0MM\0*\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0",
    ):
        assert decode_image(encode(Image.fromarray(picture), "JPEG", exif=exif), "x").shape == picture.shape


def test_jpeg_cmyk_without_the_adobe_marker(zoo: dict[str, bytes], shown_by_pillow: Show) -> None:
    data = zoo["jpeg cmyk"]
    at = data.index(b"\xff\xee")
    (length,) = struct.unpack_from(">H", data, at + 2)
    plain = data[:at] + data[at + 2 + length :]
    assert np.abs(decode_image(plain, "plain") - shown_by_pillow(plain)).max() <= 1


def test_the_transparent_level_of_a_2_bit_gray_png() -> None:
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)),
        (b"tRNS", b"\0\1"),
        (b"IDAT", zlib.compress(bytes([0, 0b00_01_10_11]))),  # the four levels, one a pixel
        (b"IEND", b""),
    ]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    assert decode_image(data, "x")[0, :, 0].tolist() == [0, 255, 170, 255]


@pytest.mark.parametrize("bits", [0, 3, 255])
def test_an_impossible_bit_depth_is_an_error(bits: int, zoo: dict[str, bytes]) -> None:
    data = bytearray(zoo["png transparent gray"])
    data[24] = bits
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    assert refused(bytes(data))


@pytest.mark.parametrize(("extra_sample", "expected"), [(0, 100), (1, 100 + 55), (2, 80 + 55)])
def test_the_fourth_channel_of_a_tiff_is_what_its_tag_says(extra_sample: int, expected: int) -> None:
    pixels = np.full((4, 4, 4), 100, np.uint8)
    pixels[..., 3] = 200
    data = bytearray(encode(Image.fromarray(pixels), "TIFF"))
    struct.pack_into("<H", data, data.index(struct.pack("<HHI", 338, 3, 1)) + 8, extra_sample)
    # nothing said: colour alone; premultiplied: 100 + (255 - 200); plain alpha: 100 * 200 / 255 + 55, down to 133
    assert np.abs(decode_image(bytes(data), "x").astype(int) - expected).max() <= (
        2 if extra_sample == 2 else 0
    )


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_files_are_scaled_by_the_depth_of_their_data(bits: int, format: str) -> None:
    ramp = np.tile(np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16), (4, 1))
    pixels = decode_image(encode(Image.fromarray(ramp), format), "deep")
    expected = np.rint(ramp * (255 / (2**bits - 1)))
    assert (pixels == expected[..., np.newaxis]).all()
    assert pixels[0, 0, 0] == 0
    assert pixels[0, -1, 0] == 255


def test_16_bit_colour_with_alpha_lies_over_white() -> None:
    bgra = np.zeros((2, 2, 4), np.uint16)
    bgra[..., 2] = 4095  # red, of 12 bits
    bgra[0, :, 3] = 65535
    bgra[1, 1, 3] = 32768
    data = cv2.imencode(".png", bgra)[1].tobytes()
    expected = [[[255, 0, 0], [255, 0, 0]], [[255, 255, 255], [255, 127, 127]]]
    assert decode_image(data, "deep").tolist() == expected


def test_float_tiff_in_0_to_1_is_read_and_another_range_is_an_error() -> None:
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (4, 1))
    pixels = decode_image(encode(Image.fromarray(ramp), "TIFF"), "float")
    assert pixels[0, :, 1].tolist() == np.rint(ramp[0] * 255).tolist()
    for bad in (ramp * 3, np.where(ramp > 0.5, np.nan, ramp)):
        with pytest.raises(ImageError, match=r"^float\.tif: .*0\.\.1"):
            decode_image(encode(Image.fromarray(bad.astype(np.float32)), "TIFF"), "float.tif")
    with pytest.raises(ImageError, match=r"^depth\.tif: .*int32"):
        decode_image(encode(Image.fromarray(ramp.astype(np.int32)), "TIFF"), "depth.tif")


def test_the_suffix_is_not_believed(
    tmp_path: Path, zoo: dict[str, bytes], picture: NDArray[np.uint8]
) -> None:
    path = tmp_path / "really a png.jpg"
    path.write_bytes(zoo["png"])
    assert (read_image(path) == picture).all()
    assert path.suffix in IMAGE_SUFFIXES


def test_names_beyond_ascii(tmp_path: Path, zoo: dict[str, bytes], picture: NDArray[np.uint8]) -> None:
    path = tmp_path / "Käse 写真 ё.png"
    path.write_bytes(zoo["png"])
    assert (read_image(str(path)) == picture).all()


def test_a_long_thin_image(tmp_path: Path) -> None:
    for size in ((30_000, 1), (1, 30_000)):
        path = tmp_path / "thin.png"
        Image.new("RGB", size, (10, 20, 30)).save(path)
        pixels = read_image(path)
        assert pixels.shape == (size[1], size[0], 3)
        assert (pixels == (10, 20, 30)).all()


# -- broken files ---------------------------------------------------------------------------------------------


def test_every_cut_of_every_kind_of_file_is_an_error(zoo: dict[str, bytes]) -> None:
    numbers = random.Random(0)
    read_all_the_same: list[tuple[str, int, int]] = []
    for name, data in zoo.items():
        if name == "tiff pages":  # its first page may be whole
            continue
        cuts = [numbers.randrange(len(data)) for _ in range(40)]
        cuts += [*range(12), *range(len(data) - 8, len(data))]
        read_all_the_same += [(name, cut, len(data)) for cut in cuts if not refused(data[:cut])]
    assert read_all_the_same == []


def test_a_cut_jpeg_of_noise_is_not_half_gray(capfd: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 4}):
        data = encode(Image.fromarray(noise), "JPEG", **options)
        assert decode_image(data, "whole").shape == noise.shape
        for cut in (len(data) // 2, len(data) - 1):
            with pytest.raises(ImageError, match=r"^half\.jpg: the JPEG is cut off"):
                decode_image(data[:cut], "half.jpg")
    assert capfd.readouterr() == ("", "")  # no decoder complained beside our message


def test_a_webp_that_lost_only_its_orientation_is_cut_off(picture: NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[274] = 6
    data = encode(Image.fromarray(picture), "WEBP", exif=exif)
    assert not refused(data)
    with pytest.raises(ImageError, match=r"^x\.webp: the WebP is cut off"):
        decode_image(data[: data.index(b"EXIF")], "x.webp")


def test_a_damaged_animation_does_not_reach_the_decoder(
    zoo: dict[str, bytes], picture: NDArray[np.uint8]
) -> None:
    """Such damage has made OpenCV 5.0 crash and 4.12 loop for ever."""
    data = bytearray(zoo["png animated"])
    for at in (match.start() for match in re.finditer(b"fcTL|acTL|fdAT", bytes(data))):
        data[at + 3] ^= 0x06
        assert (decode_image(bytes(data), "x") == picture).all()
        data[at + 8] ^= 0xFF
        assert (decode_image(bytes(data), "x") == picture).all()


def test_bytes_after_the_end_do_no_harm(zoo: dict[str, bytes]) -> None:
    for name in ("jpeg", "png", "gif", "bmp", "webp", "tiff"):
        assert (decode_image(zoo[name] + b"appended", name) == decode_image(zoo[name], name)).all()


def test_a_damaged_png_is_told_by_its_checksum(
    zoo: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    for start, end in decode_chunks(zoo["png"]):
        damaged = bytearray(zoo["png"])
        damaged[end - 5 if end - start > 12 else end - 1] ^= 0x10
        with pytest.raises(ImageError, match=r"^x\.png: the PNG is damaged: the checksum"):
            decode_image(bytes(damaged), "x.png")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("format", ["png", "jpeg", "gif", "bmp", "webp", "tiff"])
def test_a_header_that_claims_60000_by_60000_is_refused_before_decoding(
    format: str, huge_claims: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("the decoder was asked")

    monkeypatch.setattr(cv2, "imdecode", decoded)
    with pytest.raises(
        ImageError, match=r"^bomb: its header claims 60,000 x 60,000 pixels; at most 200,000,000"
    ):
        decode_image(huge_claims[format], "bomb")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"image,label\na.jpg,1\n" * 20, "not an image"),
        (b"\xff\xd8\xff\xd9", "size of 0 x 0"),
        (b"RIFF\x04\0\0\0WEBP", "size of 0 x 0"),
        (b"BM" + bytes(60), "size of 0 x 0"),
        (b"II*\0\xff\xff\xff\x7f", "cut off in its header"),
    ],
)
def test_what_is_not_an_image_is_an_error_with_its_path(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


def test_what_cannot_be_opened_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"absent\.jpg: no such image; check the name and --images"):
        read_image(tmp_path / "absent.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError, match=r"folder\.jpg: .*not a file"):
        read_image(tmp_path / "folder.jpg")
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image("nul\0.jpg")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a file"):
        read_image(tmp_path / "pipe.jpg")


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_damage_gives_pixels_or_an_image_error(zoo: dict[str, bytes], data: st.DataObject) -> None:
    content = bytearray(zoo[data.draw(st.sampled_from(sorted(zoo)))])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    refused(bytes(content))


@settings(deadline=None, max_examples=100)
@given(
    start=st.sampled_from(
        [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF0000WEBP", b"MM\0*"]
    ),
    rest=st.binary(max_size=200),
)
def test_any_bytes_give_a_header_or_an_image_error(start: bytes, rest: bytes) -> None:
    try:
        header = read_header(start + rest, "bytes")
    except ImageError:
        return
    assert header.width > 0
    assert header.height > 0


# -- arrays ---------------------------------------------------------------------------------------------------


def test_arrays_of_every_usual_kind_become_rgb() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.repeat(gray[..., np.newaxis], 3, axis=2)
    assert (to_rgb(gray) == expected).all()
    assert (to_rgb(gray[..., np.newaxis]) == expected).all()
    assert (to_rgb(np.dstack([gray, np.full_like(gray, 255)])) == expected).all()
    assert (to_rgb(np.dstack([gray, np.zeros_like(gray)])) == 255).all()
    assert (to_rgb(gray.astype(np.uint16) * 257) == expected).all()
    assert (to_rgb(gray / 255) == expected).all()
    assert (to_rgb(gray > 100) == np.where(expected > 100, 255, 0)).all()
    assert to_rgb(expected) is not None
    assert np.shares_memory(to_rgb(expected), expected)


@settings(deadline=None, max_examples=60)
@given(colour=st.integers(0, 255), alpha=st.integers(0, 255))
def test_alpha_over_white_is_the_exact_blend_rounded(colour: int, alpha: int) -> None:
    pixel = np.array([[[colour, colour, colour, alpha]]], dtype=np.uint8)
    exact = (colour * alpha + 255 * (255 - alpha)) / 255
    assert abs(int(to_rgb(pixel)[0, 0, 0]) - exact) <= 0.5


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), np.int64),
        np.full((4, 4), np.nan),
    ],
)
def test_other_arrays_are_refused_by_name(array: NDArray[np.generic]) -> None:
    with pytest.raises(ImageError, match=r"^array 3: "):
        to_rgb(array, "array 3")
