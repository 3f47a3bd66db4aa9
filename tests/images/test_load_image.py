"""From file to square: a JPEG at the smallest scale that is large enough, and the square of the whole picture."""

import io
import random
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mlcls.errors import ImageError
from mlcls.images import load
from mlcls.images.load import decode_for, decode_prepared, load_image
from mlcls.images.preprocess import FITS, Preprocessing, needed_size, prepare
from mlcls.images.read import decode_covering, decode_image


@pytest.fixture(autouse=True)
def no_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fit needs alone decides: what fingerprints need is tested by itself."""
    monkeypatch.setattr(load, "LEAST", 1)


def waves(height: int, width: int) -> Image.Image:
    """Smooth, and other along each axis and in each channel: a wrong place, turn or order of channels shows."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [np.sin(7 * x / width), np.cos(5 * y / height), np.sin(4 * (x / width + y / height))]
    return Image.fromarray(np.rint(127.5 + 127.5 * np.stack(channels, axis=-1)).astype(np.uint8))


def jpeg(image: Image.Image, orientation: int = 1, **options: object) -> bytes:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    image.save(stream, "JPEG", **{"quality": 95, "subsampling": 0, "exif": exif, **options})
    return stream.getvalue()


def from_all_of_it(data: bytes, preprocessing: Preprocessing) -> NDArray[np.int16]:
    return prepare(decode_image(data, "x"), preprocessing).astype(np.int16)


@pytest.mark.parametrize(
    ("size", "preprocessing", "decoded"),
    [  # width, height of the file -> of what is decoded
        ((640, 480), Preprocessing(224), (320, 240)),
        ((640, 480), Preprocessing(120), (160, 120)),
        ((640, 480), Preprocessing(121), (320, 240)),
        ((640, 480), Preprocessing(60), (80, 60)),
        ((641, 487), Preprocessing(60), (81, 61)),
        ((640, 479), Preprocessing(60), (160, 120)),  # 479 / 8 pixels are rounded up, but fewer than 60
        ((300, 200), Preprocessing(224), (300, 200)),
        ((100, 80), Preprocessing(224), (100, 80)),
        ((640, 480), Preprocessing(210, "crop", crop_pct=0.875), (320, 240)),  # the shorter side to 240
        ((640, 480), Preprocessing(211, "crop", crop_pct=0.875), (640, 480)),  # to 241
        ((640, 480), Preprocessing(320, "pad"), (320, 240)),  # to 320 x 240
        ((640, 480), Preprocessing(321, "pad"), (640, 480)),
        (
            (1600, 200),
            Preprocessing(100, "crop", crop_pct=1.0),
            (800, 100),
        ),  # of which 200 x 100 are looked at
        ((1600, 200), Preprocessing(100, "squash"), (800, 100)),
        ((1600, 200), Preprocessing(100, "pad"), (200, 25)),
    ],
)
def test_the_smallest_scale_whose_sides_cover_what_the_fit_resizes_to(
    size: tuple[int, int], preprocessing: Preprocessing, decoded: tuple[int, int]
) -> None:
    for orientation in (1, 3, 6):
        shown, expected = (size[::-1], decoded[::-1]) if orientation == 6 else (size, decoded)
        result = decode_for(jpeg(Image.new("RGB", size), orientation), "x", preprocessing)
        assert result.size == shown
        assert result.pixels.shape == (expected[1], expected[0], 3)
        assert result.prepared.shape == (preprocessing.image_size, preprocessing.image_size, 3)


def test_sides_swapped_by_the_orientation_are_compared_as_they_are_seen() -> None:
    """Stored 800 x 200 and shown 200 x 800: `pad` to 80 needs 20 x 80, and 25 x 100 are enough."""
    data = jpeg(waves(200, 800), orientation=8)
    assert decode_for(data, "x", Preprocessing(80, "pad")).pixels.shape == (100, 25, 3)

    def tall(width: int, height: int) -> tuple[int, int]:
        assert (width, height) == (200, 800)
        return 1, 400

    assert decode_covering(data, "x", tall).pixels.shape == (400, 100, 3)


@pytest.mark.parametrize("fit", sorted(FITS))
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_square_is_the_one_of_the_whole_picture(fit: str, orientation: int) -> None:
    preprocessing = Preprocessing(48, fit)
    data = jpeg(waves(433, 611), orientation)
    result = decode_for(data, "x", preprocessing)
    assert result.pixels.size < 433 * 611 * 3 / 4
    assert np.abs(result.prepared - from_all_of_it(data, preprocessing)).mean() < 1.2


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(40, 700),
    height=st.integers(40, 700),
    side=st.integers(16, 90),
    fit=st.sampled_from(sorted(FITS)),
    crop_pct=st.sampled_from([0.5, 0.875, 1.0]),
)
def test_any_size_is_covered_and_keeps_its_geometry(
    width: int, height: int, side: int, fit: str, crop_pct: float
) -> None:
    preprocessing = Preprocessing(side, fit, crop_pct=crop_pct)
    data = jpeg(waves(height, width))
    result = decode_for(data, "x", preprocessing)
    assert result.size == (width, height)
    needed = needed_size(width, height, preprocessing)
    for decoded, true, least in zip(result.pixels.shape[1::-1], (width, height), needed, strict=True):
        assert decoded >= min(true, least)
    if any(true // 2 < least for true, least in zip((width, height), needed, strict=True)):
        assert result.pixels.shape == (height, width, 3)
    # 0.3 on average; most where a panorama's part begins between two pixels of a small square
    assert np.abs(result.prepared - from_all_of_it(data, preprocessing)).mean() < 6


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    side=st.integers(1, 20),
    fit=st.sampled_from(sorted(FITS)),
)
def test_the_thinnest_pictures_become_the_square(width: int, height: int, side: int, fit: str) -> None:
    colour = (9, 120, 250)
    preprocessing = Preprocessing(side, fit, mean=(9 / 255, 120 / 255, 250 / 255))
    square = decode_prepared(jpeg(Image.new("RGB", (width, height), colour)), "x", preprocessing)
    assert square.shape == (side, side, 3)
    assert np.abs(square.astype(int) - colour).max() <= 2


@pytest.mark.parametrize("size", [(2000, 90), (90, 2000), (3001, 31)])
@pytest.mark.parametrize("fit", sorted(FITS))
def test_a_panorama_keeps_its_geometry(fit: str, size: tuple[int, int]) -> None:
    preprocessing = Preprocessing(14, fit, crop_pct=1.0)
    data = jpeg(waves(size[1], size[0]))
    result = decode_for(data, "x", preprocessing)
    assert result.pixels.shape[0] < size[1]
    assert np.abs(result.prepared - from_all_of_it(data, preprocessing)).mean() < 3


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"subsampling": 2}),
        ("RGB", {"progressive": True}),
        ("RGB", {"keep_rgb": True}),
        ("RGB", {"restart_marker_blocks": 3}),
        ("L", {}),
        ("CMYK", {}),
        ("CMYK", {"progressive": True}),
    ],
)
@pytest.mark.parametrize("side", [16, 32, 64])
def test_every_kind_of_jpeg_in_the_order_red_green_blue(
    mode: str, options: dict[str, object], side: int
) -> None:
    data = jpeg(waves(190, 256).convert(mode), **options)
    result = decode_for(data, "x", Preprocessing(side))
    divisor = {16: 8, 32: 4, 64: 2}[side]
    assert result.pixels.shape == (-(-190 // divisor), 256 // divisor, 3)
    assert np.abs(result.prepared - from_all_of_it(data, Preprocessing(side))).mean() < 2


def test_a_lossless_jpeg_has_one_scale_alone() -> None:
    """ITU T.81, annex H: each sample is the one before it and a difference, the first 128; all differences are 0."""
    side = 64
    frame = struct.pack(">BHHB", 8, side, side, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    table = bytes([0x00, 1, *[0] * 15, 0])  # one code, a single 0 bit, for differences of 0 bits
    segments = {0xC3: frame, 0xC4: table, 0xDA: bytes([3, 1, 0, 2, 0, 3, 0, 1, 0, 0])}
    data = b"\xff\xd8"
    for marker, body in segments.items():
        data += bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    data += bytes(3 * side * side // 8) + b"\xff\xd9"
    result = decode_for(data, "x", Preprocessing(8, "pad"))
    assert result.pixels.shape == (side, side, 3)
    assert (result.prepared == 128).all()
    assert decode_covering(data, "x", lambda width, height: (1, 1)).divisor == 1


def test_other_formats_are_decoded_in_full(zoo: dict[str, bytes]) -> None:
    preprocessing = Preprocessing(8)
    for name, data in zoo.items():
        result = decode_for(data, name, preprocessing)
        assert result.size == (64, 48)
        if name.startswith("jpeg"):
            assert result.pixels.shape == (12, 16, 3)
        else:
            assert (result.pixels == decode_image(data, name)).all()
            assert (result.prepared == prepare(decode_image(data, name), preprocessing)).all()


def test_a_turned_tiff_has_the_size_it_is_seen_in() -> None:
    stream = io.BytesIO()
    waves(40, 60).save(stream, "TIFF", tiffinfo={274: 6})
    assert decode_for(stream.getvalue(), "x", Preprocessing(8)).size == (40, 60)


def test_a_file_and_its_bytes_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "Käse.jpg"
    path.write_bytes(jpeg(waves(100, 150)))
    preprocessing = Preprocessing(32)
    square = load_image(path, preprocessing)
    assert square.flags.c_contiguous
    assert (square == decode_prepared(path.read_bytes(), "x", preprocessing)).all()
    assert (square == decode_for(path.read_bytes(), "x", preprocessing).prepared).all()


# -- broken files ---------------------------------------------------------------------------------------------


def why_refused(data: bytes, divisor: int) -> str | None:
    try:
        decode_covering(data, "x", lambda width, height: (-(-width // divisor), -(-height // divisor)))
    except ImageError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}, {"subsampling": 1}]
)
def test_what_is_damaged_or_cut_off_is_so_at_every_scale(options: dict[str, object]) -> None:
    """The whole file is parsed whatever the scale; libjpeg's own complaints are not ours to compare."""
    numbers = random.Random(0)
    noise = np.random.default_rng(0).integers(0, 256, (60, 83, 3), dtype=np.uint8)
    whole = jpeg(Image.fromarray(noise), **options)
    damaged = [whole[: numbers.randrange(len(whole))] for _ in range(100)]
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(numbers.randint(1, 4)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        damaged.append(bytes(data))
    reasons = [why_refused(data, 1) for data in damaged]
    assert all(reasons[:100])
    assert 5 < sum(reason is not None for reason in reasons[100:]) < 295
    for divisor in (2, 4, 8):
        assert [why_refused(data, divisor) for data in damaged] == reasons


def test_a_cut_photo_is_refused_although_its_first_rows_would_do(tmp_path: Path) -> None:
    data = jpeg(waves(480, 640))
    for cut in (len(data) // 2, len(data) - 1):
        path = tmp_path / "half.jpg"
        path.write_bytes(data[:cut])
        with pytest.raises(ImageError, match=r"half\.jpg: the JPEG is cut off"):
            load_image(path, Preprocessing(32))


def test_the_most_pixels_are_those_of_the_file_not_of_the_scale(
    huge_claims: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(*_: object) -> None:
        raise AssertionError("the decoder was asked")

    monkeypatch.setattr(cv2, "imdecode", decoded)
    for data in huge_claims.values():
        with pytest.raises(ImageError, match=r"^bomb: its header claims 60,000 x 60,000 pixels"):
            decode_prepared(data, "bomb", Preprocessing(32))


def test_an_absent_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"absent\.jpg: no such image; check the name and --images"):
        load_image(tmp_path / "absent.jpg", Preprocessing(32))


def test_enough_is_decoded_to_tell_pictures_apart_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit that needs few rows of a panorama must not leave its fingerprint to them."""
    monkeypatch.setattr(load, "LEAST", 32)
    panorama = jpeg(Image.new("RGB", (1600, 64)), 1)
    for preprocessing in (Preprocessing(64, "pad"), Preprocessing(8)):
        assert min(decode_for(panorama, "x", preprocessing).pixels.shape[:2]) >= 32
    assert decode_for(jpeg(Image.new("RGB", (1600, 20)), 1), "x", Preprocessing(8)).pixels.shape[0] == 20
