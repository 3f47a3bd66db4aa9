"""The labels and batches of the three subsets, as the recipe has a training see them."""

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.images.augment import Choose, build_augmentation, rare_images
from mlcls.images.dataset import Batches, ImageDataset, Transform, evaluation_batches, training_batches
from mlcls.images.preprocess import Preprocessing
from mlcls.learning.losses import pos_weight_from, takes_pos_weight
from mlcls.missing import split_missing
from mlcls.recipe import Recipe
from mlcls.workflows.checks import augment_settings
from mlcls.workflows.data import LabelledImages


def training_labels(recipe: Recipe, data: LabelledImages) -> NDArray[np.float32]:
    """Labels of the training rows [n, A]; with `na = negative` what is unknown counts as absent."""
    labels: NDArray[np.float32] = data.table.labels[data.split.train]
    return split_missing(labels)[0] if recipe.na == "negative" else labels


def watched_figure(recipe: Recipe, data: LabelledImages) -> str:
    """What tells the best epoch: a key of `MONITORS`.

    Raises:
        RecipeError: a figure was asked for that is undefined on this validation subset.
    """
    if recipe.monitor == "val_loss" or can_be_ranked(data.table.labels[data.split.val]):
        return "val_map" if recipe.monitor == "auto" else recipe.monitor
    if recipe.monitor == "auto":
        return "val_loss"
    raise RecipeError(
        f"--monitor {recipe.monitor}: undefined, since no attribute has both a known positive and a known "
        "negative in the validation subset; use val_loss, or give validation a larger share (--split)"
    )


def can_be_ranked(labels: NDArray[np.float32]) -> bool:
    """Whether labels [n, A] define any ranking: some attribute has both a known positive and a known negative."""
    return bool(((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any())


def pos_weights(
    recipe: Recipe, labels: NDArray[np.float32], attributes: tuple[str, ...]
) -> NDArray[np.float32] | None:
    """One weight an attribute [A], or None."""
    if recipe.pos_weight == "none":
        return None
    if not takes_pos_weight(recipe.loss):
        if recipe.pos_weight == "auto":
            return None
        raise RecipeError(f"--pos-weight: the loss {recipe.loss} takes none; give --pos-weight none")
    if recipe.pos_weight == "auto":
        return pos_weight_from(labels, recipe.pos_weight_cap)
    try:
        with np.errstate(over="ignore"):  # 1e39 becomes infinite in float32, and is refused below
            weights = np.array([float(part) for part in recipe.pos_weight.split(",")], dtype=np.float32)
    except ValueError:
        weights = np.array([], dtype=np.float32)
    if weights.shape != (len(attributes),) or not (np.isfinite(weights) & (weights > 0)).all():
        raise RecipeError(
            f"--pos-weight: expected auto, none, or {len(attributes)} positive numbers with commas between them, one "
            f"for each of {', '.join(attributes[:8])}{' ...' if len(attributes) > 8 else ''}; "
            f"got '{recipe.pos_weight}' (of a run on another table? then --pos-weight auto)"
        )
    return weights


def _transform(recipe: Recipe, data: LabelledImages, preprocessing: Preprocessing) -> Transform | None:
    """The augmentation of training images; None where nothing is to change."""
    settings = augment_settings(recipe)
    common = build_augmentation(recipe.augment, preprocessing, settings, recipe.seed)
    is_rare = holds_rare(recipe, data)
    if not is_rare.any():
        return None if common.transforms is None else common
    rare = build_augmentation(
        recipe.augment_rare, preprocessing, settings, recipe.seed, flag="--augment-rare"
    )
    return Choose(common, rare, is_rare)


def holds_rare(recipe: Recipe, data: LabelledImages) -> NDArray[np.bool_]:
    """Which training images are augmented by `--augment-rare`, bool [n]; what is unknown counts neither way."""
    if recipe.augment_rare == "none":
        return np.zeros(len(data.split.train), dtype=np.bool_)
    return rare_images(data.table.labels[data.split.train], recipe.rare_share)


def rare_notes(recipe: Recipe, data: LabelledImages) -> tuple[str, ...]:
    if recipe.augment_rare == "none":
        return ()
    marked = holds_rare(recipe, data)
    return (
        f"{marked.sum():,} of {len(marked):,} training images hold an attribute that at most {recipe.rare_share:.3g} "
        f"of the known labels have, and are augmented by {recipe.augment_rare}",
    )


def subset_batches(
    recipe: Recipe,
    data: LabelledImages,
    preprocessing: Preprocessing,
    labels: NDArray[np.float32],
    *,
    pin: bool,
) -> tuple[Batches, Batches, Batches | None]:
    """The batches of the three subsets."""
    assert data.store is not None  # gathered with a preprocessing
    store = data.store
    train = training_batches(
        ImageDataset(store.select(data.split.train), labels, _transform(recipe, data, preprocessing)),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        sampler=recipe.sampler,
        workers=int(recipe.workers),
        pin_memory=pin,
    )

    def evaluation(rows: NDArray[np.intp]) -> Batches:
        dataset = ImageDataset(store.select(rows), data.table.labels[rows])
        return evaluation_batches(dataset, batch_size=2 * recipe.batch_size, pin_memory=pin)

    test = evaluation(data.split.test) if len(data.split.test) else None
    return train, evaluation(data.split.val), test
