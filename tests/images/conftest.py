"""The image zoo, built once, and how Pillow shows it."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from reliability import zoo as builder


@pytest.fixture(scope="session")
def picture() -> NDArray[np.uint8]:
    """Smooth, and different along each axis and in each channel: uint8 RGB [48, 64, 3]."""
    return builder.gradient()


@pytest.fixture(scope="session")
def zoo(picture: NDArray[np.uint8]) -> dict[str, bytes]:
    """Name -> file, of all kinds that Pillow can write and show in 8 bits."""
    return builder.every_kind(picture)


@pytest.fixture(scope="session")
def shown_by_pillow() -> Callable[[bytes], NDArray[np.int16]]:
    """A file -> what a viewer shows, on a white page: int16 RGB [H, W, 3], so that differences have a sign."""
    return builder.shown_by_pillow


@pytest.fixture(scope="session")
def huge_claims() -> dict[str, bytes]:
    """Small files whose headers claim 60,000 x 60,000 pixels (a WebP without VP8X cannot)."""
    return builder.huge_claims()
