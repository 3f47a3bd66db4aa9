"""The image zoo: small files of every kind, whole and broken, and how a viewer shows those that are whole."""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

HEIGHT, WIDTH = 48, 64
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "gif": ".gif", "bmp": ".bmp", "webp": ".webp", "tiff": ".tif"}


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def gradient() -> NDArray[np.uint8]:
    """Smooth, and different along each axis and in each channel: uint8 RGB [48, 64, 3]."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 4, y * 5, (x + y) * 2], axis=-1).astype(np.uint8)


def every_kind(picture: NDArray[np.uint8]) -> dict[str, bytes]:
    """Name -> file, of all kinds that Pillow can write and show in 8 bits; a name begins with the format."""
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


def turned(picture: NDArray[np.uint8]) -> dict[str, bytes]:
    """The picture with each EXIF orientation, in each format that has one."""
    files = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        for format in ("jpeg", "png", "webp", "tiff"):
            options = {"lossless": True} if format == "webp" else {}
            files[f"{format} turned {orientation}"] = encode(
                Image.fromarray(picture), format.upper(), exif=exif, **options
            )
    return files


def deep(bits: int = 16) -> dict[str, bytes]:
    """Files of 16 bits a value, which Pillow shows otherwise."""
    ramp = np.tile(np.linspace(0, 2**bits - 1, WIDTH).round().astype(np.uint16), (HEIGHT, 1))
    bgr = np.dstack([ramp, ramp[:, ::-1], ramp])
    return {
        "png 16 bits": encode(Image.fromarray(ramp), "PNG"),
        "tiff 16 bits": encode(Image.fromarray(ramp), "TIFF"),
        "png 16 bits colour": cv2.imencode(".png", bgr)[1].tobytes(),
    }


def shown_by_pillow(data: bytes) -> NDArray[np.int16]:
    """What a viewer shows of a file, on a white page: int16 RGB [H, W, 3], so that differences have a sign."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if "A" in image.getbands() or "transparency" in image.info:
        page = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(page, image.convert("RGBA"))
    return np.asarray(image.convert("RGB")).astype(np.int16)


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


def broken(picture: NDArray[np.uint8]) -> dict[str, tuple[bytes, str]]:
    """Name -> a file that no one can read, and what its message says."""
    whole = every_kind(picture)
    files = {
        "empty.jpg": (b"", "the file is empty"),
        "text.jpg": (b"image,label\na.jpg,1\n" * 20, "not an image"),
        "pdf.png": (b"%PDF-1.7\n" + bytes(200), "not an image"),
        "pickle.png": (b"\x80\x04\x95" + bytes(200), "not an image"),
    }
    for format, suffix in SUFFIXES.items():
        data = whole[format]
        files[f"half a {format}{suffix}"] = (data[: len(data) // 2], "")
    for format, data in huge_claims().items():
        files[f"huge {format}{SUFFIXES[format]}"] = (data, "its header claims 60,000 x 60,000 pixels")
    return files


def odd_places(folder: Path) -> dict[str, str]:
    """Make things that are no image files in a folder; name -> what the message says."""
    (folder / "folder.jpg").mkdir()
    (folder / "nowhere.jpg").symlink_to(folder / "absent.jpg")
    found = {"folder.jpg": "not a file", "nowhere.jpg": "no such image", "absent.jpg": "no such image"}
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.jpg")
        found["pipe.jpg"] = "not a file"
    if Path("/dev/zero").exists():
        (folder / "zero.jpg").symlink_to("/dev/zero")
        found["zero.jpg"] = "not a file"
    return found
