"""Prediction of images that nobody labelled: which ones, and the predictor that takes them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlcls.errors import ImageError

if TYPE_CHECKING:
    from mlcls.bundle.predictor import Predictor


def open_predictor(
    model: str | Path,
    device: str = "auto",
    threshold: float | None = None,
    *,
    raw: bool = False,
    engine: str = "auto",
) -> "Predictor":
    """The predictor of a bundle; see `mlcls.bundle.predictor.Predictor`."""
    from mlcls.bundle.predictor import Predictor

    return Predictor(model, device=device, threshold=threshold, raw=raw, engine=engine)


def paths_to_predict(images: Sequence[str], folder: str | None) -> list[str]:
    """The images asked for by name, in that order, then those of the folder and its subfolders, by name.

    Raises:
        ImageError: there is no such folder, or no image in it.
    """
    paths = list(images)
    if folder is not None:
        from mlcls.images.read import IMAGE_SUFFIXES

        root = Path(folder)
        if not root.is_dir():
            raise ImageError(f"--images {folder}: there is no such folder")
        before = len(paths)
        paths += _images_below("" if str(root) == "." else str(root), IMAGE_SUFFIXES)
        if len(paths) == before:
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ImageError(f"--images {folder}: no image in it (looked for {endings})")
    return paths


def _images_below(folder: str, endings: frozenset[str]) -> Iterator[str]:
    """Files with these endings in a folder and its subfolders, sorted by their whole paths; links to folders are left.

    Strings alone: Path objects of a hundred thousand names cost several times the memory and the time.
    """
    try:
        with os.scandir(folder or ".") as entries:
            found = [
                # a folder's images stand where its name with the separator does among the files beside it
                (entry.name + os.sep if entry.is_dir(follow_symlinks=False) else entry.name, entry.is_file())
                for entry in entries
            ]
    except PermissionError:
        return  # of someone else, such as lost+found
    for name, is_file in sorted(found):
        path = os.path.join(folder, name)
        if name.endswith(os.sep):
            yield from _images_below(path.removesuffix(os.sep), endings)
        elif is_file and (dot := name.rfind(".")) > 0 and name[dot:].lower() in endings:
            yield path
