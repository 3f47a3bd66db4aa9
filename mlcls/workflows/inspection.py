"""What a table and its images hold, shown without training."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlcls.images.augment import build_augmentation
from mlcls.images.load import load_image
from mlcls.images.preprocess import Preprocessing
from mlcls.recipe import Recipe
from mlcls.reports.console_data import show_data
from mlcls.workflows.checks import augment_settings, check_names
from mlcls.workflows.data import LabelledImages, gather, subset_counts

if TYPE_CHECKING:
    from rich.console import Console

SHEET = 24  # images of a preview
PREVIEW_SIZE = 224  # px, when the recipe names no size


def inspect_data(recipe: Recipe, console: "Console", progress: "Console") -> LabelledImages:
    """Read, check and split as training would, and show it on `console` (how far it is, on `progress`).

    Raises:
        TableError, RecipeError: as training would.
    """
    check_names(recipe)
    data = gather(recipe, progress, preprocessing=None)
    source = f"{data.table.report.source}: {data.table.report.layout}"
    show_data(console, data.facts, subset_counts(data), source=source)
    return data


def write_preview(path: Path, recipe: Recipe, data: LabelledImages) -> None:
    """A sheet of training images as the network would see them in the first epoch, with their labels."""
    from mlcls.reports.contact_sheet import contact_sheet  # matplotlib

    size = recipe.image_size or PREVIEW_SIZE
    grey = (0.5, 0.5, 0.5)
    prep = Preprocessing(
        image_size=size, fit=recipe.fit, interpolation="bicubic", crop_pct=0.875, mean=grey, std=grey
    )
    augment = build_augmentation(recipe.augment, prep, augment_settings(recipe), recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    chosen = np.sort(rng.permutation(len(data.split.train))[:SHEET])
    paths = data.paths(data.split.train[chosen])
    images = [
        augment(load_image(path, prep, max_pixels=recipe.max_pixels), 0, int(row))
        for path, row in zip(paths, chosen, strict=True)
    ]
    captions = [_caption(data, int(row)) for row in data.split.train[chosen]]
    contact_sheet(path, images, captions)


def _caption(data: LabelledImages, row: int) -> str:
    """The attributes an image is known to show, and how many are unknown."""
    labels = data.table.labels[row]
    present = [name for name, label in zip(data.table.attributes, labels, strict=True) if label == 1]
    unknown = int(np.isnan(labels).sum())
    return ", ".join(present or ["none"]) + (f" (+{unknown} unknown)" if unknown else "")
