"""A bundle and photos for the tests of prediction."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from untrained_bundle import write_bundle


@pytest.fixture(scope="session")
def onnx_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with model.onnx. Tests must not change it: copy it first."""
    return write_bundle(tmp_path_factory.mktemp("onnx") / "outputs")


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without model.onnx. Tests must not change it: copy it first."""
    return write_bundle(tmp_path_factory.mktemp("small") / "outputs", with_model=False)


@pytest.fixture
def photos(tmp_path: Path) -> Callable[[int], list[str]]:
    """A function that writes so many small JPEGs, each of its own colours."""

    def write(count: int) -> list[str]:
        rng, paths = np.random.default_rng(0), []
        for number in range(count):
            picture = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            paths.append(str(tmp_path / f"photo_{number:04d}.jpg"))
            cv2.imwrite(paths[-1], picture)
        return paths

    return write
