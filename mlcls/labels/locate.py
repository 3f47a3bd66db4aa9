"""Owns the way from a name in the table to an image's file: extensions found, names that lead out refused."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mlcls.errors import TableError
from mlcls.labels.detect import IMAGE_EXTENSIONS

_DRIVE: Final = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The files under a folder, each subfolder listed once, when a name first asks for it."""

    path: Path
    _files: dict[str, frozenset[str]] = field(default_factory=dict)  # subfolder -> its files
    _stems: dict[str, dict[str, list[str]]] = field(
        default_factory=dict
    )  # subfolder -> name without extension -> images

    def find(self, name: str) -> str | None:
        """The image that a table calls `name`, relative to the folder, with `/` and its extension; None if missing.

        A name may lack its extension, may have backslashes, and may begin with the folder's own name
        (`images/x.jpg` under `.../images`) when there is no such subfolder's file.

        Raises:
            ValueError: the name is absolute, leads out of the folder, or fits several files; the message says so.
        """
        clean = _clean(name)
        found = self._match(clean)
        top, _, rest = clean.partition("/")
        if found is None and rest and top == self.path.absolute().name:
            found = self._match(rest)
        return found

    def _match(self, name: str) -> str | None:
        folder, _, file = name.rpartition("/")
        if file in self._list(folder):
            return name
        if name.lower().endswith(IMAGE_EXTENSIONS):
            return None
        fits = self._index(folder).get(file, [])
        if len(fits) > 1:
            raise ValueError(f"'{name}' fits several images: {', '.join(sorted(fits))}; write the extension")
        return (f"{folder}/{fits[0]}" if folder else fits[0]) if fits else None

    def _list(self, folder: str) -> frozenset[str]:
        if folder not in self._files:
            self._files[folder] = frozenset(list_files(self.path / folder))
        return self._files[folder]

    def _index(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._stems:
            stems = self._stems[folder] = {}
            for file in self._list(folder):
                if file.lower().endswith(IMAGE_EXTENSIONS):
                    stems.setdefault(os.path.splitext(file)[0], []).append(file)
        return self._stems[folder]

    def explain_missing(self, names: Sequence[str]) -> str:
        """The likely cause why images called `names` are not there, as a sentence; "" where none is found."""
        cleaned = [clean for name in names[:5] if (clean := _clean_or_none(name))]
        for clean in cleaned:
            folder, _, file = clean.rpartition("/")
            near = sorted(other for other in self._list(folder) if other.lower() == file.lower())
            if near:
                return f"the folder has '{near[0]}' for '{file}': upper and lower case differ"
        for clean in cleaned:
            for place in self._places():
                if ImageFolder(place).find_quietly(clean):
                    return f"'{clean}' is in {place}: say --images {place}"
                if ImageFolder(place).find_quietly(clean.rpartition("/")[2]):
                    return f"'{clean}' is in {place} without its folder: write the names relative to --images"
        return ""

    def find_quietly(self, name: str) -> str | None:
        """As `find`, but None for a name that is refused."""
        try:
            return self.find(name)
        except ValueError:
            return None

    def _places(self) -> list[Path]:
        """Folders near by where misplaced images may be."""
        try:
            with os.scandir(self.path) as entries:
                inner = sorted(entry.name for entry in entries if entry.is_dir())[:50]
        except OSError:
            inner = []
        return [
            self.path,
            *(self.path / name for name in inner),
            self.path.parent,
            self.path.parent / "images",
        ]


def list_files(folder: Path) -> list[str]:
    """The names of the files in a folder, links followed; none where there is no such folder."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    names.append(entry.name)  # noqa: PERF401 - what was listed before a broken link stays
    except (OSError, ValueError):  # absent, not to be read, or not a name at all on this system
        return names
    return names


def _clean(name: str) -> str:
    """The name with `/` between its parts and none of them empty or `.`.

    Raises:
        ValueError: it is absolute, or leads out of the folder it is relative to.
    """
    path = name.replace("\\", "/")
    parts = path.split("/")
    if path.startswith("/") or _DRIVE.match(path):
        raise ValueError(f"'{name}' is an absolute path; names are relative to the images folder (--images)")
    if ".." in parts or "\0" in path:
        raise ValueError(f"'{name}' leads out of the images folder; write names relative to --images")
    if "" in parts or "." in parts:
        path = "/".join(part for part in parts if part not in ("", "."))
    return path


def _clean_or_none(name: str) -> str | None:
    try:
        return _clean(name)
    except ValueError:
        return None


def images_folder(images_dir: str | os.PathLike[str] | None, beside: Path) -> Path:
    """The folder that names are relative to: as given, else `images/` in the folder `beside`, else that folder.

    Raises:
        TableError: the folder that was given does not exist.
    """
    if images_dir is None:
        return beside / "images" if (beside / "images").is_dir() else beside
    if not Path(images_dir).is_dir():
        raise TableError(
            f"--images: no folder '{images_dir}'; give the folder that the table's names are relative to"
        )
    return Path(images_dir)
