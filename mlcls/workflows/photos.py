"""Prediction of images that nobody labelled: which ones, and the predictor that takes them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlcls.errors import ImageError

if TYPE_CHECKING:
    from mlcls.bundle.predictor import Models, Predictor


def open_predictor(
    model: "Models",
    device: str = "auto",
    threshold: float | None = None,
    *,
    raw: bool = False,
    engine: str = "auto",
    max_pixels: int | None = None,
    tta: str | None = None,
) -> "Predictor":
    """The predictor of a bundle, or of several; see `mlcls.bundle.predictor.Predictor`."""
    from mlcls.bundle.predictor import Predictor
    from mlcls.images.read import MAX_PIXELS

    limit = MAX_PIXELS if max_pixels is None else max_pixels
    return Predictor(
        model, device=device, threshold=threshold, raw=raw, engine=engine, max_pixels=limit, tta=tta
    )


class Found(NamedTuple):
    """What there is to predict.

    Attributes:
        paths: of the images.
        unread: folders that cannot be read, each with the system's reason in brackets; they are passed over.
    """

    paths: list[str]
    unread: list[str]


def paths_to_predict(images: Sequence[str], folder: str | None) -> Found:
    """The images asked for by name, in that order, then those of the folder and its subfolders, by name.

    Raises:
        ImageError: there is no such folder, it cannot be read, or no image is in it; a name is empty.
    """
    if "" in images:
        raise ImageError(
            "--image '': expected the name of an image; is a variable of the command line empty?"
        )
    if folder is None:
        return Found(list(images), [])
    from mlcls.images.read import IMAGE_SUFFIXES

    if not folder:
        raise ImageError(
            "--images '': expected the name of a folder; is a variable of the command line empty?"
        )
    root = str(Path(folder))
    try:
        os.scandir(root).close()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a name with NUL
        raise ImageError(f"--images {folder}: there is no such folder") from error
    except OSError as error:
        raise ImageError(f"--images {folder}: cannot be read ({error.strerror})") from error
    found, unread = _images_below("" if root == "." else root, IMAGE_SUFFIXES)
    if not found:
        more = f"; {unread[0]} cannot be read" if unread else ""
        raise ImageError(
            f"--images {folder}: no image in it (looked for {', '.join(sorted(IMAGE_SUFFIXES))}){more}"
        )
    return Found([*images, *found], unread)


def _images_below(root: str, endings: frozenset[str]) -> Found:
    """Files with these endings in a folder and its subfolders, sorted by their whole paths.

    Links to folders are left, and so are names that begin with a dot: macOS puts `._x.jpg`, which is no image, beside
    `x.jpg` on other systems' disks. Strings alone: Path objects of a hundred thousand names cost several times the
    memory and the time.
    """
    paths: list[str] = []
    unread: list[str] = []
    waiting = [os.path.join(root, "")]  # the next at the end; folders end with the separator
    while waiting:
        path = waiting.pop()
        if path and not path.endswith(os.sep):
            paths.append(path)
            continue
        try:
            with os.scandir(path or ".") as entries:
                names = [name for entry in entries if (name := _wanted(entry, endings))]
        except OSError as error:
            unread.append(f"{path.rstrip(os.sep) or path} ({error.strerror})")
            continue
        # a folder's images stand where its name with the separator does among the files beside it
        waiting.extend(path + name for name in sorted(names, reverse=True))
    return Found(paths, unread)


def _wanted(entry: "os.DirEntry[str]", endings: frozenset[str]) -> str | None:
    """The name of an image, or of a folder with the separator; None for all else."""
    name = entry.name
    if name.startswith("."):
        return None
    try:
        if entry.is_dir(follow_symlinks=False):
            return name + os.sep
        is_file = entry.is_file()
    except OSError:  # a link that leads nowhere readable: its row will say so
        is_file = True
    dot = name.rfind(".")
    return name if is_file and dot > 0 and name[dot:].lower() in endings else None
