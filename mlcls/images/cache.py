"""Owns where a run's S x S pixels come from."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from mlcls.images.load import load_image
from mlcls.images.paths import PathList
from mlcls.images.preprocess import Pixels, Preprocessing


def cache_folder() -> Path:
    """MLCLS_CACHE if it is set, else the user's cache folder of this platform."""
    return Path(os.environ.get("MLCLS_CACHE") or platformdirs.user_cache_dir("mlcls"))


@dataclass(frozen=True, slots=True)
class ImageStore:
    """The S x S pixels of N images: a picklable `load` for a dataset.

    Attributes:
        paths: of the N images.
        preprocessing: the form of the pixels.
    """

    paths: PathList
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.paths)

    def __call__(self, index: int) -> Pixels:
        """uint8 [S, S, 3]. Raises ImageError, naming the path, when the image cannot be read."""
        return load_image(self.paths[index], self.preprocessing)

    @property
    def cached(self) -> bool:
        """Whether no image has to be decoded."""
        return False

    def select(self, rows: NDArray[np.intp]) -> "ImageStore":
        """Of these rows, in this order: index i gives row rows[i]."""
        return ImageStore(self.paths.select(rows), self.preprocessing)
