"""From a recipe and split images to all that training needs: every name looked up, every `auto` resolved."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlcls.errors import MlclsError, RecipeError, WeightsError
from mlcls.images.augment import AUGMENTATIONS, AugmentSettings, build_augmentation
from mlcls.images.dataset import (
    Batches,
    Evaluation,
    ImageDataset,
    auto_workers,
    evaluation_batches,
    training_batches,
)
from mlcls.images.preprocess import FITS, Preprocessing
from mlcls.images.sampling import SAMPLERS
from mlcls.labels.split import parse_fractions
from mlcls.learning.epochs import Stage
from mlcls.learning.losses import LOSSES, Loss, build_loss, pos_weight_from, takes_pos_weight
from mlcls.learning.optimizers import OPTIMIZERS, build_optimizer
from mlcls.learning.schedules import SCHEDULES, Schedule, build_schedule
from mlcls.learning.stopping import MONITORS
from mlcls.missing import split_missing
from mlcls.models.classifier import Classifier, build_classifier, data_config
from mlcls.models.forward import resolve_device, resolve_precision
from mlcls.models.heads import HEADS
from mlcls.models.stages import count_parameters, set_trainable
from mlcls.naming import look_up, suggest
from mlcls.recipe import Recipe, flag_of
from mlcls.reports.record import ModelFacts, StageFacts
from mlcls.scoring.thresholds import parse_objective
from mlcls.workflows.data import LabelledImages

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "fit": FITS,
    "augment": AUGMENTATIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": LOSSES,
    "sampler": SAMPLERS,
    "monitor": MONITORS,
}


@dataclass(frozen=True)
class Setup:
    """All that a training needs, built. `recipe` has every `auto` resolved."""

    recipe: Recipe
    data: LabelledImages
    preprocessing: Preprocessing
    classifier: Classifier
    train: Batches
    val: Batches
    test: Batches | None
    loss: Loss
    stages: tuple[Stage, ...]
    facts: ModelFacts
    device: torch.device


def check_names(recipe: Recipe) -> None:
    """Look up every name of the recipe in the room that owns it, before any work is done.

    Raises:
        RecipeError: naming all that are unknown, each with the nearest known one.
    """
    faults = []
    if recipe.head not in HEADS:  # a bundle names no code of its own to import, so its head is one of ours
        faults.append(f"--head: unknown name '{recipe.head}'; {suggest(recipe.head, HEADS)}")
    checks: list[Callable[[], Any]] = [
        partial(look_up, registry, getattr(recipe, name), flag_of(name)) for name, registry in CHOICES.items()
    ]
    checks += [
        partial(parse_objective, recipe.objective),
        partial(augment_settings, recipe),
        partial(_check_machine, recipe),
        partial(_check_model, recipe),
        partial(_check_split, recipe),
        partial(_check_loss, recipe),
        partial(_check_optimizer, recipe),
    ]
    for check in checks:
        try:
            check()
        except MlclsError as error:
            faults.append(str(error))
    if faults:
        raise RecipeError("\n".join(dict.fromkeys(faults)))


def _check_split(recipe: Recipe) -> None:
    kind, _, name = recipe.split.partition(":")
    if kind == "file" and not Path(name).is_file():
        raise RecipeError(f"--split {recipe.split}: no such file; name a bundle's split.csv")
    if kind == "column" and not name:
        raise RecipeError("--split column: expected the column's name, as in column:subset")
    if kind not in ("file", "column"):
        parse_fractions(recipe.split)


def _check_loss(recipe: Recipe) -> None:
    build_loss(recipe.loss, pos_weight=None, settings=recipe.loss_args)


def _check_optimizer(recipe: Recipe) -> None:
    for _, _, lr, epochs in _plans(recipe):
        optimizer = build_optimizer(
            recipe.optimizer, torch.nn.Linear(1, 1), lr, recipe.weight_decay, recipe.optimizer_args
        )
        build_schedule(
            recipe.schedule, optimizer, steps_per_epoch=1, epochs=epochs, settings=recipe.schedule_args
        )


def _check_machine(recipe: Recipe) -> None:
    resolve_precision(recipe.precision, resolve_device(recipe.device))


def _check_model(recipe: Recipe) -> None:
    data_config(recipe.backbone, recipe.backbone_args)
    if recipe.weights not in ("pretrained", "none") and not Path(recipe.weights).is_file():
        raise WeightsError(
            f"--weights {recipe.weights}: no such file; give a .safetensors or .pth file, 'pretrained' or 'none'"
        )


def augment_settings(recipe: Recipe) -> AugmentSettings:
    """The augmentation's numbers: the defaults with the recipe's over them."""
    known = [field.name for field in dataclasses.fields(AugmentSettings)]
    for name in recipe.augment_args:
        if name not in known:
            raise RecipeError(
                f"--augment-args: '{name}' is not a setting of the augmentation; {suggest(name, known)}"
            )
    arguments: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in recipe.augment_args.items()
    }
    return AugmentSettings(**arguments)


def set_up(recipe: Recipe, data: LabelledImages) -> Setup:
    """Build everything that training needs.

    Raises:
        RecipeError, WeightsError: a backbone, weights, device or number that cannot be used.
        TableError: a subset without a single known label.
    """
    device = resolve_device(recipe.device)
    precision = resolve_precision(recipe.precision, device)
    config = data_config(recipe.backbone, recipe.backbone_args)
    if recipe.image_size is not None:
        config["image_size"] = recipe.image_size
    preprocessing = Preprocessing(fit=recipe.fit, **config)
    labels = _training_labels(recipe, data)
    _check_monitor(recipe, data)
    weights = _pos_weight(recipe, labels, data.table.attributes)
    recipe = dataclasses.replace(
        recipe,
        device=str(device),
        precision=precision,
        image_size=preprocessing.image_size,
        workers=auto_workers() if recipe.workers == "auto" else recipe.workers,
        pos_weight="none" if weights is None else ",".join(repr(float(w)) for w in weights),
    )
    torch.manual_seed(recipe.seed)
    classifier = _classifier(recipe, preprocessing, len(data.table.attributes))
    classifier.to(device)
    train, val, test = _batches(recipe, data, preprocessing, labels, pin=device.type == "cuda")
    pos_weight = None if weights is None else torch.from_numpy(weights).to(device)
    loss = build_loss(recipe.loss, pos_weight=pos_weight, settings=recipe.loss_args)
    steps = -(-train.count(0) // recipe.accumulate)
    set_trainable(classifier, recipe.unfreeze)  # a wrong name is told now, not when its stage begins
    plans = _plans(recipe)
    stages = tuple(
        Stage(name, epochs, partial(_begin, recipe, classifier, unfreeze, lr, steps, epochs))
        for name, unfreeze, lr, epochs in plans
    )
    facts = ModelFacts(
        backbone=recipe.backbone,
        backbone_args=dict(recipe.backbone_args),
        weights=classifier.weights.source,
        head=recipe.head,
        features=classifier.features,
        image_size=preprocessing.image_size,
        fit=recipe.fit,
        stages=_stage_facts(classifier, plans),
        device=str(device),
        precision=precision,
        notes=_model_notes(recipe, classifier),
    )
    return Setup(recipe, data, preprocessing, classifier, train, val, test, loss, stages, facts, device)


def _plans(recipe: Recipe) -> list[tuple[str, str, float, int]]:
    """Name, what trains beside the head, learning rate and epochs of each stage."""
    if recipe.unfreeze == "none":
        return [("head", "none", recipe.lr_head, recipe.epochs)]
    finetune = f"head + {recipe.unfreeze}"
    head_epochs = min(recipe.unfreeze_epoch, recipe.epochs)
    plans = [
        ("head", "none", recipe.lr_head, head_epochs),
        (finetune, recipe.unfreeze, recipe.lr_finetune, recipe.epochs - head_epochs),
    ]
    return [plan for plan in plans if plan[3] > 0]


def _stage_facts(classifier: Classifier, plans: list[tuple[str, str, float, int]]) -> tuple[StageFacts, ...]:
    facts, first = [], 0
    for name, unfreeze, _, epochs in plans:
        modules = set_trainable(classifier, unfreeze)
        trainable, frozen = count_parameters(classifier)
        facts.append(
            StageFacts(name=name, first_epoch=first, trainable=trainable, frozen=frozen, modules=modules)
        )
        first += epochs
    return tuple(facts)


def _begin(
    recipe: Recipe, classifier: Classifier, unfreeze: str, lr: float, steps: int, epochs: int
) -> tuple[torch.optim.Optimizer, Schedule]:
    """Freeze and unfreeze for a stage, with an optimizer and a schedule of its own."""
    set_trainable(classifier, unfreeze)
    optimizer = build_optimizer(recipe.optimizer, classifier, lr, recipe.weight_decay, recipe.optimizer_args)
    schedule = build_schedule(
        recipe.schedule, optimizer, steps_per_epoch=steps, epochs=epochs, settings=recipe.schedule_args
    )
    return optimizer, schedule


def _training_labels(recipe: Recipe, data: LabelledImages) -> NDArray[np.float32]:
    """Labels of the training rows [n, A]; with `na = negative` what is unknown counts as absent."""
    labels: NDArray[np.float32] = data.table.labels[data.split.train]
    return split_missing(labels)[0] if recipe.na == "negative" else labels


def _check_monitor(recipe: Recipe, data: LabelledImages) -> None:
    """Refuse to watch a figure that is undefined on this validation subset."""
    if recipe.monitor != "val_loss":
        labels = data.table.labels[data.split.val]
        if not (((labels == 1).any(axis=0)) & ((labels == 0).any(axis=0))).any():
            raise RecipeError(
                f"--monitor {recipe.monitor}: undefined, since no attribute has both a known positive and a known "
                "negative in the validation subset; use val_loss, or give validation a larger share (--split)"
            )


def _pos_weight(
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


def _classifier(recipe: Recipe, preprocessing: Preprocessing, attributes: int) -> Classifier:
    """The network with its first weights."""
    return build_classifier(
        recipe.backbone,
        recipe.head,
        attributes,
        backbone_args=recipe.backbone_args,
        weights=recipe.weights,
        dropout=recipe.dropout,
        image_size=preprocessing.image_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )


def _model_notes(recipe: Recipe, classifier: Classifier) -> tuple[str, ...]:
    notes, left_out = [], classifier.weights.left_out
    if left_out:
        shown = ", ".join(left_out[:4]) + (f" and {len(left_out) - 4} more" if len(left_out) > 4 else "")
        notes.append(f"of the weights, {classifier.weights.loaded} tensors were loaded; left out: {shown}")
    if recipe.weights == "none" and recipe.unfreeze != "all":
        notes.append(
            "the backbone's weights are random and most of them stay so: with --weights none, train them all "
            "(--unfreeze all --unfreeze-epoch 0)"
        )
    if recipe.unfreeze != "none" and recipe.epochs <= recipe.unfreeze_epoch:
        notes.append(
            f"only the head trains: the second stage would begin at epoch {recipe.unfreeze_epoch} (--unfreeze-epoch), "
            f"and there are {recipe.epochs} (--epochs)"
        )
    return tuple(notes)


def _batches(
    recipe: Recipe,
    data: LabelledImages,
    preprocessing: Preprocessing,
    labels: NDArray[np.float32],
    *,
    pin: bool,
) -> tuple[Batches, Batches, Batches | None]:
    """The batches of the three subsets."""
    workers = int(recipe.workers)
    augment = build_augmentation(recipe.augment, preprocessing, augment_settings(recipe), recipe.seed)
    train = training_batches(
        ImageDataset(data.paths(data.split.train), labels, augment),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        sampler=recipe.sampler,
        workers=workers,
        pin_memory=pin,
    )

    def evaluation(rows: NDArray[np.intp]) -> Batches:
        dataset = ImageDataset(data.paths(rows), data.table.labels[rows], Evaluation(preprocessing))
        return evaluation_batches(dataset, batch_size=2 * recipe.batch_size, workers=workers, pin_memory=pin)

    test = evaluation(data.split.test) if len(data.split.test) else None
    return train, evaluation(data.split.val), test
