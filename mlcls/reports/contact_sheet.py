"""A sheet of small images with their captions, to look at what a training will see."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlcls.reports.picture import DPI, fonts, new_figure, save, text

_NARROWEST = 180  # pixels of a cell, so that a caption has room
_MOST_LINES = 4
_LINE = 15  # pixels
_GAP = 10


def contact_sheet(
    path: str | Path, images: Sequence[NDArray[np.uint8]], captions: Sequence[str], *, columns: int = 6
) -> None:
    """Write images side by side, each pixel as it is (small images enlarged by a whole factor).

    Args:
        images: uint8 RGB [H, W, 3] each; sizes may differ.
        captions: one an image, below it, folded into at most four lines.
        columns: how many images stand in a row.
    """
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} images, but {len(captions)} captions")
    longest = max([1, *(max(image.shape[:2]) for image in images)])
    factor = max(1, -(-_NARROWEST // longest))
    side = longest * factor
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    folded = [_fold(caption, int(side / 6.2)) for caption in captions]
    below = _LINE * max([1, *(len(lines) for lines in folded)]) + _GAP
    height, width = rows * (side + below) + _GAP, columns * (side + _GAP) + _GAP
    sheet = np.full((height, width, 3), 255, dtype=np.uint8)
    figure = new_figure(width / DPI, height / DPI, layout=None)
    for i, (image, lines) in enumerate(zip(images, folded, strict=True)):
        y, x = _GAP + (i // columns) * (side + below), _GAP + (i % columns) * (side + _GAP)
        large = image.repeat(factor, axis=0).repeat(factor, axis=1)
        sheet[y : y + large.shape[0], x : x + large.shape[1]] = large
        figure.text(
            x / width, 1 - (y + side + 3) / height, "\n".join(lines), fontsize=7.2, va="top",
            fontfamily=list(fonts()), linespacing=1.25,
        )  # fmt: skip
    figure.figimage(sheet, zorder=-1)
    save(figure, path)


def _fold(caption: str, width: int) -> list[str]:
    lines = textwrap.wrap(caption, max(8, width), max_lines=_MOST_LINES, placeholder=" …")
    return [text(line) for line in lines]
