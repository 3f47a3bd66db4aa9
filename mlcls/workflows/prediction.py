"""Which images to predict, and the predictor that does."""

from collections.abc import Sequence
from pathlib import Path

from mlcls.bundle.predictor import Predictor
from mlcls.errors import ImageError
from mlcls.images.read import IMAGE_SUFFIXES


def open_predictor(model: str | Path, device: str = "auto", threshold: float | None = None) -> Predictor:
    """The predictor of a bundle; see `mlcls.bundle.predictor.Predictor`."""
    return Predictor(model, device=device, threshold=threshold)


def paths_to_predict(images: Sequence[str], folder: str | None) -> list[str]:
    """The images asked for by name, in that order, then those of the folder and its subfolders, by name.

    Raises:
        ImageError: there is no such folder, or no image in it.
    """
    paths = list(images)
    if folder is not None:
        root = Path(folder)
        if not root.is_dir():
            raise ImageError(f"--images {folder}: there is no such folder")
        found = sorted(str(p) for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not found:
            endings = ", ".join(sorted(IMAGE_SUFFIXES))
            raise ImageError(f"--images {folder}: no image in it (looked for {endings})")
        paths += found
    return paths
