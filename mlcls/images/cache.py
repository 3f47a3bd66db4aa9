"""Owns where a run's S x S pixels come from: a row of a pack that is mapped, or a file that is decoded."""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlcls.images.load import load_image
from mlcls.images.packs import INDEX, remove_pack, row_bytes
from mlcls.images.paths import PathList
from mlcls.images.preprocess import Pixels, Preprocessing
from mlcls.images.read import MAX_PIXELS

MOST_OPEN = 16  # packs mapped at a time: each takes a file handle
DECODED = -1  # in the place of a pack's number


class Rows(NamedTuple):
    """The pixels of a pack that is whole, or that this run has written and not yet committed.

    Attributes:
        path: the file, uint8 [n, S, S, 3].
        checksums: uint32 [n], CRC-32 of each row.
    """

    path: Path
    checksums: NDArray[np.uint32]


class PackReader:
    """Rows of packs, mapped when they are first asked for, in each process anew.

    A row is compared with its checksum when this process reads it first. Where it differs, the pack is removed from
    the cache; its other rows are read on.
    """

    def __init__(self, packs: Sequence[Rows], side: int) -> None:
        self._packs, self._side = tuple(packs), side
        self._maps: dict[int, Pixels | None] = {}
        self._seen: dict[int, NDArray[np.bool_]] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return PackReader, (self._packs, self._side)

    def read(self, pack: int, row: int) -> Pixels | None:
        """A copy of the row, uint8 [S, S, 3]; None where it is damaged, or its pack is gone."""
        pixels = self._map(pack)
        if pixels is None:
            return None
        copy: Pixels = pixels[row].copy()  # what augments it must not reach the file
        seen = self._seen[pack]
        if not seen[row]:
            if zlib.crc32(copy.data) != self._packs[pack].checksums[row]:
                remove_pack(self._packs[pack].path.with_suffix(INDEX))
                return None
            seen[row] = True
        return copy

    def _map(self, pack: int) -> Pixels | None:
        pixels = self._maps.get(pack)
        if pixels is not None or pack in self._maps:
            return pixels
        for number in list(self._maps)[: max(0, len(self._maps) - MOST_OPEN + 1)]:
            self._maps.pop(number, None)
        path, checksums = self._packs[pack]
        self._seen.setdefault(pack, np.zeros(len(checksums), dtype=np.bool_))
        pixels = _mapped(path, len(checksums), self._side)
        self._maps[pack] = pixels
        return pixels


def _mapped(path: Path, count: int, side: int) -> Pixels | None:
    """The file's rows [count, S, S, 3], read-only; None where they are not there."""
    try:
        # reading beyond the end of a mapped file would end the process
        if os.stat(path).st_size < count * row_bytes(side):
            return None
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r", shape=(count, side, side, 3)))
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class ImageStore:
    """The S x S pixels of N images: a picklable `load` for a dataset, with the same pixels from cache and file.

    Attributes:
        paths: of the N images.
        preprocessing: the form of the pixels.
        reader: of the packs.
        packs: int32 [N], the number of the pack that holds the image; DECODED where none does.
        rows: int32 [N], its row there.
        max_pixels: a larger image is not decoded.
    """

    paths: PathList
    preprocessing: Preprocessing
    reader: PackReader
    packs: NDArray[np.int32]
    rows: NDArray[np.int32]
    max_pixels: int = MAX_PIXELS

    def __len__(self) -> int:
        return len(self.paths)

    def __call__(self, index: int) -> Pixels:
        """An array of its own, uint8 [S, S, 3].

        Raises:
            ImageError: the image is not cached and cannot be read; the message begins with its path.
        """
        pack = int(self.packs[index])
        pixels = None if pack == DECODED else self.reader.read(pack, int(self.rows[index]))
        if pixels is None:
            return load_image(self.paths[index], self.preprocessing, max_pixels=self.max_pixels)
        return pixels

    read = __call__

    @property
    def cached(self) -> bool:
        """Whether no image has to be decoded."""
        return bool((self.packs != DECODED).all())

    def select(self, rows: NDArray[np.intp]) -> "ImageStore":
        """Those of these rows, in this order: index i gives row rows[i]. They share what is mapped."""
        return ImageStore(
            self.paths.select(rows),
            self.preprocessing,
            self.reader,
            self.packs[rows],
            self.rows[rows],
            self.max_pixels,
        )
