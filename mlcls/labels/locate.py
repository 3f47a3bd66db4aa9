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
class Listing:
    """The names of the files in a folder, those of links to files among them; `links` are these again."""

    files: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The files under a folder, each subfolder listed once, when a name first asks for it.

    The folder may be a link itself. What lies in it may be links too, to what lies in it: a link that leads out is
    refused, so that no table and no folder from elsewhere has files read that nobody named.
    """

    path: Path
    _real: str = field(init=False)  # the folder without links
    _listings: dict[str, Listing] = field(default_factory=dict, init=False)  # by subfolder
    _stems: dict[str, dict[str, list[str]]] = field(
        default_factory=dict, init=False
    )  # subfolder -> name without extension -> images

    def __post_init__(self) -> None:
        object.__setattr__(self, "_real", os.path.realpath(self.path))

    def find(self, name: str) -> str | None:
        """The image that a table calls `name`, relative to the folder, with `/` and its extension; None if missing.

        A name may lack its extension, may have backslashes, and may begin with the folder's own name
        (`images/x.jpg` under `.../images`) when there is no such subfolder's file.

        Raises:
            ValueError: the name is absolute, leads out of the folder, be it through a link, or fits several files;
                the message says so.
        """
        clean = _clean(name)
        found = self._match(clean)
        top, _, rest = clean.partition("/")
        if found is None and rest and top == self.path.absolute().name:
            found = self._match(rest)
        return found

    def _match(self, name: str) -> str | None:
        folder, _, file = name.rpartition("/")
        listing = self._list(folder)
        if file not in listing.files:
            if name.lower().endswith(IMAGE_EXTENSIONS):
                return None
            fits = self._index(folder).get(file, [])
            if len(fits) > 1:
                raise ValueError(
                    f"'{name}' fits several images: {', '.join(sorted(fits))}; write the extension"
                )
            if not fits:
                return None
            file = fits[0]
            name = f"{folder}/{file}" if folder else file
        if file in listing.links:
            self._check_inside(name)
        return name

    def _list(self, folder: str) -> Listing:
        if folder not in self._listings:
            if folder:
                self._check_inside(folder)
            self._listings[folder] = list_files(self.path / folder)
        return self._listings[folder]

    def _check_inside(self, name: str) -> None:
        """Raise the ValueError of a link, or of a folder reached through one, that leads out of this folder."""
        real = os.path.realpath(self.path / name)
        if real != self._real and not real.startswith(os.path.join(self._real, "")):
            raise ValueError(
                f"'{name}' leads out of the images folder through a link, to {real}; put the file itself there, or "
                "give --images the folder that holds both"
            )

    def _index(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._stems:
            stems = self._stems[folder] = {}
            for file in self._list(folder).files:
                if file.lower().endswith(IMAGE_EXTENSIONS):
                    stems.setdefault(os.path.splitext(file)[0], []).append(file)
        return self._stems[folder]

    def explain_missing(self, names: Sequence[str]) -> str:
        """The likely cause why images called `names` are not there, as a sentence; "" where none is found."""
        cleaned = [clean for name in names[:5] if (clean := _clean_or_none(name))]
        for clean in cleaned:
            folder, _, file = clean.rpartition("/")
            near = sorted(other for other in self._list(folder).files if other.lower() == file.lower())
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


def list_files(folder: Path) -> Listing:
    """The files in a folder, and the links in it to files; nothing where there is no such folder.

    Devices, pipes and what links to them are no files.
    """
    files: list[str] = []
    links: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    if _leads_to_file(entry):
                        links.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.append(entry.name)
    except (OSError, ValueError):  # absent, not to be read, or not a name at all on this system
        pass
    return Listing(frozenset((*files, *links)), frozenset(links))


def _leads_to_file(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_file()
    except OSError:  # links in a circle, or into a folder that is not to be read
        return False


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
