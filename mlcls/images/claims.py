"""What an image file claims of itself, and the bounds on what decoding it may take: both known before a pixel is.

The costs are those of OpenCV 5.0 on one core of a machine of 2020, measured on the worst files of each kind that we
could build. They are estimates from above, not promises: a file is refused where they come to more than the bounds.
"""

from dataclasses import dataclass

from mlcls.errors import ImageError

MAX_PIXELS = 200_000_000
MAX_BYTES = 500_000_000  # of an encoded file, which is held in memory beside its pixels
MEMORY = 900_000_000  # bytes that one decode may take, the file included, at MAX_PIXELS; more where more are allowed
SECONDS = 5.0  # of one core; likewise
SECONDS_A_PIXEL = 6e-9  # to colour, copy and turn a decoded one


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of an image file before it is decoded.

    Attributes:
        format: `jpeg`, `png`, `gif`, `bmp`, `webp` or `tiff`.
        width, height: in pixels, as stored, before the orientation is applied.
        orientation: EXIF orientation 1..8 that is still to be applied to the decoded pixels (1: as it is).
        transparent_gray: the one gray level, in 0..255 or 0..65535, that means transparent in a gray PNG.
        extra_sample: what a TIFF says of its channel beside colour: 0 nothing, 1 premultiplied alpha, 2 alpha;
            None for nothing said, and in other formats.
        pixel_bytes: of a decoded pixel as the decoder gives it, at most.
        memory: bytes that the decoder holds beside the file and its result, at most.
        seconds: that the decoder computes beside what each decoded pixel takes in any format, at most.
        in_place: whether the decoder can put the pixels into memory that is handed to it.
    """

    format: str
    width: int
    height: int
    orientation: int = 1
    transparent_gray: int | None = None
    extra_sample: int | None = None
    pixel_bytes: int = 3
    memory: int = 0
    seconds: float = 0.0
    in_place: bool = True


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Make sure that an image is not too large.

    Raises:
        ImageError: it has more than `max_pixels` pixels.
    """
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: its header claims {width:,} x {height:,} pixels; at most {max_pixels:,} are read (--max-pixels)"
        )


def check_claims(header: Header, size: int, divisor: int, max_pixels: int, name: str) -> bool:
    """Make sure that a file can be decoded within the bounds.

    Args:
        header: of the file.
        size: bytes of the file.
        divisor: a JPEG is decoded at so small a scale.
        max_pixels: that are read; above `MAX_PIXELS` the bounds grow with it.
        name: how the message calls the file.

    Returns:
        Whether memory lasts for the decoder's pixels and a copy of them, which OpenCV makes for Python.

    Raises:
        ImageError: it would take more memory or time; says what it claims.
    """
    check_size(header.width, header.height, name, max_pixels)
    generous = max(1.0, max_pixels / MAX_PIXELS)
    pixels = -(-header.width // divisor) * -(-header.height // divisor)
    decoded, limit = pixels * header.pixel_bytes, MEMORY * generous
    copied = 3 * pixels if header.pixel_bytes < 3 else 0
    if header.orientation >= 5:  # rows become columns: not in place
        copied += 3 * pixels
    least = size + decoded + max(header.memory + (0 if header.in_place else decoded), copied + pixels // 4)
    seconds = header.seconds + pixels * SECONDS_A_PIXEL
    if least > limit or seconds > SECONDS * generous:
        what = f"about {least / 1e6:,.0f} MB of memory" if least > limit else f"about {seconds:,.0f} seconds"
        most = f"{limit / 1e6:,.0f} MB" if least > limit else f"{SECONDS * generous:,.0f} seconds"
        raise ImageError(
            f"{name}: to decode what the {header.format.upper()} claims ({header.width:,} x {header.height:,} pixels "
            f"in {size:,} bytes) would take {what}; at most {most} are spent on an image; save it smaller or plainer"
        )
    return not header.in_place or size + header.memory + 2 * decoded <= limit
