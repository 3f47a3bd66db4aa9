"""Owns which images the packs of the image cache hold, and what is known of each besides its pixels."""

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mlcls.images.packs import Pack, clear_orphans, folder_lock, indexes, open_pack, read_columns
from mlcls.images.preprocess import FITS, Pixels, Preprocessing

VERSION = 2  # of the rule from a file to its pixels, and of the index; a change takes the next number
KNOWN = ("sizes", "pictures", "hashes")  # columns of an index, in the order of `Known`


class Place(NamedTuple):
    """Where an image lies: the number of its pack, and its row there."""

    pack: int
    row: int


class Known(NamedTuple):
    """What the index holds of an image: true width and height, the small gray picture, its perceptual hash."""

    size: NDArray[np.int32]
    picture: Pixels
    hash: np.uint64


class Catalogue:
    """The packs of one form, or of all. Several threads may look images up at once.

    Attributes:
        packs: those used last come first.
    """

    def __init__(self, packs: Sequence[Pack]) -> None:
        self.packs = tuple(packs)
        keys = [pack.keys for pack in self.packs] or [np.zeros((0, 32), dtype=np.uint8)]
        self._keys = np.concatenate(keys)
        self._starts = np.cumsum([0, *(len(pack.keys) for pack in self.packs)])
        heads = np.ascontiguousarray(self._keys[:, :8]).view("<u8").ravel()
        self._order = np.argsort(heads, kind="stable")
        self._heads = heads[self._order]
        self._known: dict[int, dict[str, NDArray[Any]] | None] = {}
        self._loading = threading.Lock()

    def find(self, key: bytes) -> Place | None:
        """Where the image with this SHA-256 lies; None where no pack holds it."""
        head = np.frombuffer(key[:8], dtype="<u8")[0]
        at = int(np.searchsorted(self._heads, head))
        while at < len(self._heads) and self._heads[at] == head:
            row = int(self._order[at])
            if self._keys[row].tobytes() == key:
                pack = int(np.searchsorted(self._starts, row, side="right")) - 1
                return Place(pack, row - int(self._starts[pack]))
            at += 1
        return None

    def look_up(self, key: bytes) -> tuple[Place, Known] | None:
        """As `find`, with what the index holds of the image. A pack whose index is damaged there is removed."""
        place = self.find(key)
        if place is None:
            return None
        with self._loading:
            if place.pack not in self._known:
                self._known[place.pack] = read_columns(self.packs[place.pack].index, KNOWN)
        columns = self._known[place.pack]
        if columns is None:
            return None
        return place, Known(*(columns[name][place.row] for name in KNOWN))


def open_catalogue(folder: Path, form: str | None) -> Catalogue:
    """The packs that stand in the cache; damaged ones, and what ended runs left, are removed.

    Args:
        folder: of the cache; it need not exist, and may be one that cannot be written.
        form: as `form_name` gives it; None for the packs of all forms.
    """
    if not folder.is_dir():
        return Catalogue(())
    # where it cannot be written it can be read all the same; who writes will be told why not
    with contextlib.suppress(OSError), folder_lock(folder):
        clear_orphans(folder)
    packs = [open_pack(index) for index in indexes(folder, form)]
    return Catalogue([pack for pack in packs if pack is not None])


def form_name(preprocessing: Preprocessing) -> str | None:
    """What the pixels of an image depend on beside its file, as a folder's name that begins with S.

    None where the fit is not one of `FITS`: what other code does may change, and no name would tell.
    """
    if preprocessing.fit not in FITS:
        return None
    parts = [str(preprocessing.image_size), preprocessing.fit, preprocessing.interpolation]
    if preprocessing.fit == "crop":
        parts.append(f"{preprocessing.crop_pct!r}")
    if preprocessing.fit != "squash":
        parts.append("".join(f"{value:02x}" for value in preprocessing.fill))
    return "-".join((*parts, f"v{VERSION}", f"opencv{cv2.__version__}"))
