"""The names and numbers of a recipe, checked in the rooms that own them before any work is done."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlcls.errors import MlclsError, RecipeError, WeightsError
from mlcls.images.augment import AUGMENTATIONS, AugmentSettings
from mlcls.images.preprocess import FITS
from mlcls.images.sampling import SAMPLERS
from mlcls.images.tta import tta_views
from mlcls.labels.split import parse_fractions
from mlcls.learning.losses import LOSSES, build_loss
from mlcls.learning.optimizers import OPTIMIZERS, build_optimizer
from mlcls.learning.schedules import SCHEDULES, build_schedule
from mlcls.learning.stopping import MONITORS
from mlcls.learning.unknowns import build_unknowns
from mlcls.models.classifier import data_config
from mlcls.models.forward import resolve_device, resolve_precision
from mlcls.models.heads import HEADS
from mlcls.naming import look_up, suggest
from mlcls.recipe import Recipe, flag_of
from mlcls.reports.logs import build_logs
from mlcls.scoring.estimators import estimator_named
from mlcls.scoring.objectives import Cuts
from mlcls.scoring.optima import judge
from mlcls.scoring.thresholds import parse_objective

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "augment": AUGMENTATIONS,
    "augment_rare": AUGMENTATIONS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "loss": LOSSES,
    "sampler": SAMPLERS,
    "monitor": {**MONITORS, "auto": None},
}
GRADUAL = "gradual"  # of `--unfreeze`


def check_names(recipe: Recipe) -> None:
    """Look up every name of the recipe in the room that owns it, before any work is done.

    Raises:
        RecipeError: naming all that are unknown, each with the nearest known one.
    """
    faults = []
    # a bundle names no code of its own to import, so these are ours: else it could not be opened after the training
    for flag, name, ours in (("--head", recipe.head, HEADS), ("--fit", recipe.fit, FITS)):
        if name not in ours:
            faults.append(f"{flag}: unknown name '{name}'; {suggest(name, ours)}")
    checks: list[Callable[[], Any]] = [
        partial(look_up, registry, getattr(recipe, name), flag_of(name)) for name, registry in CHOICES.items()
    ]
    checks += [
        partial(_check_objective, recipe),
        partial(estimator_named, recipe.estimator),
        partial(augment_settings, recipe),
        partial(tta_views, recipe.tta),
        partial(_check_machine, recipe),
        partial(_check_model, recipe),
        partial(_check_split, recipe),
        partial(_check_loss, recipe),
        partial(_check_optimizer, recipe),
        partial(build_logs, recipe.log or (), Path()),
    ]
    for check in checks:
        try:
            check()
        except MlclsError as error:
            faults.append(str(error))
    if recipe.soup == 1:
        faults.append("--soup: a soup of one epoch is that epoch; expected 2 or more (or 0: off), got 1")
    if recipe.na == "selective" and (recipe.mixup or recipe.cutmix):
        faults.append(
            "--na selective: not together with --mixup or --cutmix, where a cell that one parent has as present could "
            "count as absent; leave one of the two out"
        )
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


def _check_objective(recipe: Recipe) -> None:
    """One from outside has to judge three cut points now, not after hours of training."""
    aim = parse_objective(recipe.objective)
    if aim.rank is not None:
        judge(aim, Cuts(np.array([2, 1, 0]), np.array([2, 0, 0]), 2, 2))


def _check_loss(recipe: Recipe) -> None:
    build_loss(recipe.loss, pos_weight=None, settings=recipe.loss_args)
    build_unknowns(recipe.na, priors=np.array([0.5]), settings=recipe.na_args)


def _check_optimizer(recipe: Recipe) -> None:
    for _, _, lr, epochs in stage_plans(recipe):
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


def stage_plans(recipe: Recipe, order: Sequence[str] = ("all",)) -> list[tuple[str, str, float, int]]:
    """Name, what trains beside the head, learning rate and epochs of each stage.

    Args:
        order: what trains in turn with `--unfreeze gradual`, as `unfreezing_order` has it of a backbone. The epochs
            after the head's are shared equally, what is left over goes to the last.
    """
    if recipe.unfreeze == "none":
        return [("head", "none", recipe.lr_head, recipe.epochs)]
    head_epochs = min(recipe.unfreeze_epoch, recipe.epochs)
    parts = tuple(order) if recipe.unfreeze == GRADUAL else (recipe.unfreeze,)
    left = recipe.epochs - head_epochs
    epochs = [left // len(parts)] * (len(parts) - 1)
    epochs.append(left - sum(epochs))
    plans = [("head", "none", recipe.lr_head, head_epochs)]
    plans += [(f"head + {part}", part, recipe.lr_finetune, n) for part, n in zip(parts, epochs, strict=True)]
    return [plan for plan in plans if plan[3] > 0]
