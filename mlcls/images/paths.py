"""Owns where many images lie: a folder and their names in one buffer, not as so many Python strings.

A Python string costs its worker process 50 bytes and more beside its text, and a page of memory of its own in a
forked worker as soon as it is looked at, since looking at it counts a reference.
"""

import os
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray


class PathList:
    """The paths `folder / name` of N images. Pickled and shared with worker processes as two buffers.

    Attributes:
        folder: what names are relative to; "" for names that are paths themselves.
    """

    __slots__ = ("_ends", "_text", "folder")

    def __init__(self, folder: str | os.PathLike[str], names: Iterable[str]) -> None:
        """Args: names [N], relative to the folder; one that is absolute stays as it is."""
        # surrogates: what a name on disk holds beside UTF-8 comes back as it was
        encoded = [name.encode("utf-8", "surrogatepass") for name in names]
        self.folder = os.fspath(folder)
        self._text = b"".join(encoded)
        self._ends: NDArray[np.int64] = np.cumsum(
            np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        )

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        """The path of one image. Raises IndexError outside 0 <= index < N."""
        if not 0 <= index < len(self._ends):
            raise IndexError(f"image {index} of {len(self._ends)}")
        return os.path.join(self.folder, self._name(index).decode("utf-8", "surrogatepass"))

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def select(self, rows: NDArray[np.integer]) -> "PathList":
        """The paths of these rows."""
        selected = PathList(self.folder, ())
        parts = [self._name(int(row)) for row in rows]
        selected._text = b"".join(parts)
        selected._ends = np.cumsum(np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)))
        return selected

    def _name(self, index: int) -> bytes:
        start = int(self._ends[index - 1]) if index else 0
        return self._text[start : int(self._ends[index])]
