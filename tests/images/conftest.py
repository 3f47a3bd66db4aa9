"""The image zoo: small files of every kind, written by Pillow, and how Pillow shows them."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

HEIGHT, WIDTH = 48, 64


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


@pytest.fixture(scope="session")
def picture() -> NDArray[np.uint8]:
    """Smooth, and different along each axis and in each channel: uint8 RGB [48, 64, 3]."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 4, y * 5, (x + y) * 2], axis=-1).astype(np.uint8)


@pytest.fixture(scope="session")
def zoo(picture: NDArray[np.uint8]) -> dict[str, bytes]:
    """Name -> file, of all kinds that Pillow can write and show in 8 bits."""
    rgb = Image.fromarray(picture)
    opacity = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    rgba = Image.fromarray(np.dstack([picture, opacity]))
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    gray, cmyk, turned = rgb.convert("L"), rgb.convert("CMYK"), rgb.rotate(180)
    return {
        "jpeg": encode(rgb, "JPEG", quality=95),
        "jpeg progressive": encode(rgb, "JPEG", progressive=True),
        "jpeg gray": encode(gray, "JPEG"),
        "jpeg cmyk": encode(cmyk, "JPEG", quality=95),
        "png": encode(rgb, "PNG"),
        "png gray": encode(gray, "PNG"),
        "png 1 bit": encode(rgb.convert("1"), "PNG"),
        "png palette": encode(palette, "PNG"),
        "png palette transparent": encode(palette, "PNG", transparency=3),
        "png alpha": encode(rgba, "PNG"),
        "png gray alpha": encode(rgba.convert("LA"), "PNG"),
        "png transparent colour": encode(rgb, "PNG", transparency=(0, 0, 0)),
        "png transparent gray": encode(gray, "PNG", transparency=100),
        "png animated": encode(rgb, "PNG", save_all=True, append_images=[turned]),
        "gif": encode(palette, "GIF"),
        "gif transparent": encode(rgba, "GIF"),
        "gif animated": encode(rgb, "GIF", save_all=True, append_images=[turned]),
        "bmp": encode(rgb, "BMP"),
        "bmp gray": encode(gray, "BMP"),
        "bmp 1 bit": encode(rgb.convert("1"), "BMP"),
        "bmp palette": encode(palette, "BMP"),
        "webp": encode(rgb, "WEBP", quality=95),
        "webp lossless": encode(rgb, "WEBP", lossless=True),
        "webp alpha": encode(rgba, "WEBP", lossless=True),
        "webp animated": encode(rgb, "WEBP", save_all=True, append_images=[turned], lossless=True),
        "tiff": encode(rgb, "TIFF"),
        "tiff lzw": encode(rgb, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": encode(rgb, "TIFF", compression="jpeg"),
        "tiff gray": encode(gray, "TIFF"),
        "tiff 1 bit": encode(rgb.convert("1"), "TIFF"),
        "tiff palette": encode(palette, "TIFF"),
        "tiff alpha": encode(rgba, "TIFF"),
        "tiff cmyk": encode(cmyk, "TIFF"),
        "tiff pages": encode(rgb, "TIFF", save_all=True, append_images=[turned]),
    }


@pytest.fixture(scope="session")
def shown_by_pillow() -> Callable[[bytes], NDArray[np.int16]]:
    """A file -> what a viewer shows, on a white page: int16 RGB [H, W, 3], so that differences have a sign."""

    def show(data: bytes) -> NDArray[np.int16]:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        if "A" in image.getbands() or "transparency" in image.info:
            page = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(page, image.convert("RGBA"))
        return np.asarray(image.convert("RGB")).astype(np.int16)

    return show


@pytest.fixture(scope="session")
def huge_claims() -> dict[str, bytes]:
    """Small files whose headers claim 60,000 x 60,000 pixels (a WebP without VP8X cannot)."""
    side = 60_000
    rgb = Image.new("RGB", (16, 16))

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    png += chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    jpeg = bytearray(encode(rgb, "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, side, side)
    gif = bytearray(encode(rgb, "GIF"))
    struct.pack_into("<HH", gif, 6, side, side)
    bmp = bytearray(encode(rgb, "BMP"))
    struct.pack_into("<ii", bmp, 18, side, -side)
    webp = bytearray(encode(Image.new("RGBA", (16, 16), (1, 2, 3, 4)), "WEBP", exif=b"Exif\0\0MM\0*"))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = (side - 1).to_bytes(3, "little") * 2
    tiff = b"MM\0*" + struct.pack(">IH", 8, 2)  # a directory with a width and a height, and nothing more
    tiff += struct.pack(">HHIIHHIII", 256, 4, 1, side, 257, 4, 1, side, 0)
    files = {"png": png, "jpeg": jpeg, "gif": gif, "bmp": bmp, "webp": webp, "tiff": tiff}
    return {name: bytes(data) for name, data in files.items()}
