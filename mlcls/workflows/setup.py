"""From a recipe and split images to all that training needs: every name looked up, every `auto` resolved."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mlcls.errors import BundleError, RecipeError
from mlcls.folders import cache_folder
from mlcls.images.cores import auto_workers
from mlcls.images.dataset import Batches
from mlcls.images.preprocess import Preprocessing
from mlcls.learning.epochs import Stage
from mlcls.learning.losses import Loss, build_loss
from mlcls.learning.mixing import growing_size
from mlcls.learning.optimizers import build_optimizer
from mlcls.learning.schedules import Schedule, build_schedule
from mlcls.learning.shelf import Shelf
from mlcls.learning.unknowns import Selective, build_unknowns, priors_from
from mlcls.models.classifier import Classifier, build_classifier, data_config
from mlcls.models.forward import predict_logits, resolve_device, resolve_precision
from mlcls.models.frontier import Cut
from mlcls.models.staged import StagedClassifier
from mlcls.models.stages import count_parameters, layer_scales, set_trainable, unfreezing_order
from mlcls.recipe import Recipe
from mlcls.reports.record import ModelFacts, StageFacts
from mlcls.workflows.checks import GRADUAL, stage_plans
from mlcls.workflows.data import LabelledImages
from mlcls.workflows.frozen import Feed, Plan, build_feeds, find_cuts, measured_precision
from mlcls.workflows.resuming import Earlier
from mlcls.workflows.shelf import shelve
from mlcls.workflows.subsets import (
    holds_rare,
    pos_weights,
    rare_notes,
    subset_batches,
    training_labels,
    watched_figure,
)


@dataclass(frozen=True)
class Setup:
    """All that a training needs, built.

    `recipe` has every `auto` resolved. `unknowns` says which unknown labels count as absent in training, None for none.
    `model` is what is trained: `classifier`, by way of what each stage's feed gives (`feeds` has one for each of
    `stages`).
    """

    recipe: Recipe
    data: LabelledImages
    preprocessing: Preprocessing
    classifier: Classifier
    train: Batches
    val: Batches
    test: Batches | None
    loss: Loss
    unknowns: Selective | None
    model: StagedClassifier
    feeds: tuple[Feed, ...]
    stages: tuple[Stage, ...]
    facts: ModelFacts
    device: torch.device


def set_up(
    recipe: Recipe,
    data: LabelledImages,
    preprocessing: Preprocessing,
    earlier: Earlier | None = None,
    shelf: Shelf | None = None,
) -> Setup:
    """Build everything that training needs.

    Args:
        preprocessing: as `preprocessing_for` gives it; the data was gathered with it.
        earlier: the run that goes on, whose weights and decisions are taken.
        shelf: where runs share what the frozen part makes of the images.

    Raises:
        RecipeError, WeightsError: a backbone, weights, device or number that cannot be used.
        TableError: a subset without a single known label.
        BundleError: the earlier run's weights are not of this network.
    """
    device = resolve_device(recipe.device)
    labels = training_labels(recipe, data)
    weights = pos_weights(recipe, labels, data.table.attributes)
    asked, watched = recipe.monitor, watched_figure(recipe, data)
    recipe = dataclasses.replace(
        recipe,
        device=str(device),
        image_size=preprocessing.image_size,
        workers=auto_workers() if recipe.workers == "auto" else recipe.workers,
        monitor=watched,
        pos_weight="none" if weights is None else ",".join(repr(float(w)) for w in weights),
    )
    torch.manual_seed(recipe.seed)
    classifier = _classifier(recipe, preprocessing, len(data.table.attributes), earlier)
    classifier.to(device)
    train, val, test = subset_batches(recipe, data, preprocessing, labels, pin=device.type == "cuda")
    pos_weight = None if weights is None else torch.from_numpy(weights).to(device)
    loss = build_loss(recipe.loss, pos_weight=pos_weight, settings=recipe.loss_args)
    order = unfreezing_order(classifier.backbone) if recipe.unfreeze == GRADUAL else (recipe.unfreeze,)
    set_trainable(classifier, order[-1])  # a wrong name is told now, not when its stage begins
    plans = stage_plans(recipe, order)
    _check_first_size(recipe, classifier, preprocessing.image_size, plans)
    # a rectangle is put into pixels: what the frozen part made of an image has no place for it
    cuts = find_cuts(classifier, plans, preprocessing.image_size, 0 if recipe.cutmix else recipe.views)
    if earlier is None:
        precision, said = _precision(recipe, classifier, cuts[-1], device)
    else:
        precision, said = earlier.precision, ()
    recipe = dataclasses.replace(recipe, precision=precision)
    kept = None if earlier is None else earlier.cut
    rare = holds_rare(recipe, data) if recipe.augment_rare != "none" else None
    shared = None if shelf is None else shelve(shelf, recipe, data, preprocessing, rare)
    feeds, told = build_feeds(recipe, cuts, plans, train, val, cache_folder(), kept=kept, shelf=shared)
    if earlier is not None:  # after the cuts, which are found on the weights that they were found on then
        _load(classifier, earlier, earlier.weights)
    model = StagedClassifier(classifier)
    steps = -(-train.count(0) // recipe.accumulate)
    stages = tuple(
        Stage(plan[0], plan[3], partial(_begin, recipe, model, feed.rest, plan, steps))
        for plan, feed in zip(plans, feeds, strict=True)
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
        notes=(
            *_model_notes(recipe, classifier, feeds),
            *rare_notes(recipe, data),
            *_watch_notes(asked, watched),
            *said,
            *told,
        ),
    )
    return Setup(
        recipe,
        data,
        preprocessing,
        classifier,
        train,
        val,
        test,
        loss,
        build_unknowns(recipe.na, priors=priors_from(labels), settings=recipe.na_args),
        model,
        tuple(feeds),
        stages,
        facts if earlier is None else earlier.facts,
        device,
    )


def _watch_notes(asked: str, watched: str) -> tuple[str, ...]:
    if (asked, watched) != ("auto", "val_loss"):
        return ()
    return (
        "val_loss tells the best epoch: in validation no attribute has both a known positive and a known negative, so "
        "val_map is undefined",
    )


def preprocessing_for(recipe: Recipe) -> Preprocessing:
    """How images become the backbone's input.

    Raises:
        RecipeError: a backbone that timm does not have, a size or fit that cannot be used.
    """
    config = data_config(recipe.backbone, recipe.backbone_args)
    if recipe.image_size is not None:
        config["image_size"] = recipe.image_size
    return Preprocessing(fit=recipe.fit, **config)


def _precision(
    recipe: Recipe, classifier: Classifier, cut: Cut | None, device: torch.device
) -> tuple[str, tuple[str, ...]]:
    """The arithmetic that the recipe asks for, `auto` decided, and what to tell of it.

    Args:
        cut: of the last stage, whose parameters are trainable.
    """
    if recipe.precision == "auto" and device.type == "cpu":
        return measured_precision(recipe, classifier, cut, recipe.image_size or 0, cache_folder())
    return resolve_precision(recipe.precision, device), ()


def _stage_facts(classifier: Classifier, plans: list[Plan]) -> tuple[StageFacts, ...]:
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
    recipe: Recipe, model: StagedClassifier, rest: nn.Module | None, plan: Plan, steps: int
) -> tuple[torch.optim.Optimizer, Schedule]:
    """Freeze and unfreeze for a stage, with an optimizer and a schedule of its own."""
    _, unfreeze, lr, epochs = plan
    set_trainable(model.classifier, unfreeze)
    model.rest = rest
    if recipe.compile == "on":
        (model.classifier if rest is None else rest).compile()
    scales = None if recipe.layer_decay == 1 else layer_scales(model.classifier, recipe.layer_decay)
    optimizer = build_optimizer(
        recipe.optimizer, model.classifier, lr, recipe.weight_decay, recipe.optimizer_args, scales
    )
    schedule = build_schedule(
        recipe.schedule, optimizer, steps_per_epoch=steps, epochs=epochs, settings=recipe.schedule_args
    )
    return optimizer, schedule


def _classifier(
    recipe: Recipe, preprocessing: Preprocessing, attributes: int, earlier: Earlier | None
) -> Classifier:
    """The network with its first weights, those of the run that goes on where there is one."""
    classifier = build_classifier(
        recipe.backbone,
        recipe.head,
        attributes,
        backbone_args=recipe.backbone_args,
        weights=recipe.weights if earlier is None else "none",
        dropout=recipe.dropout,
        image_size=preprocessing.image_size,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )
    if earlier is not None:
        _load(classifier, earlier, earlier.first)
        classifier.weights = earlier.report
    return classifier


def _load(classifier: Classifier, earlier: Earlier, weights: Mapping[str, Tensor]) -> None:
    """Put a checkpoint's weights into the network."""
    try:
        classifier.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(
            f"{earlier.checkpoint.folder}: its weights do not fit the network "
            f"({' '.join(str(error).split())[:300]}); go on with the versions of timm and mlcls that wrote it, or "
            "train again with --overwrite"
        ) from error


def _check_first_size(recipe: Recipe, classifier: Classifier, image_size: int, plans: Sequence[Plan]) -> None:
    """Refuse a first size from which the images grow through one that the network does not take."""
    size = recipe.first_image_size
    if size is None:
        return
    if size > image_size:
        raise RecipeError(
            f"--first-image-size: {size} is larger than the images are ({image_size}, --image-size)"
        )
    sides = {
        growing_size(epoch, epochs=epochs, first=size, full=image_size)
        for _, _, _, epochs in plans
        for epoch in range(epochs)
    }
    for side in sorted(sides):
        image = torch.zeros(1, 3, side, side, dtype=torch.uint8)
        try:
            predict_logits(
                classifier,
                [(image, torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64))],
                _device_of(classifier),
            )
        except (AssertionError, RuntimeError, ValueError) as error:
            raise RecipeError(
                f"--first-image-size {size}: {recipe.backbone} does not take images of {side} px "
                f"({' '.join(str(error).split())[:200]}); leave the flag out, or try a multiple of 32"
            ) from error


def _device_of(classifier: Classifier) -> torch.device:
    return next(classifier.parameters()).device


def _model_notes(recipe: Recipe, classifier: Classifier, feeds: Sequence[Feed]) -> tuple[str, ...]:
    notes, left_out = [], classifier.weights.left_out
    if left_out:
        shown = ", ".join(left_out[:4]) + (f" and {len(left_out) - 4} more" if len(left_out) > 4 else "")
        notes.append(f"of the weights, {classifier.weights.loaded} tensors were loaded; left out: {shown}")
    if (recipe.mixup or recipe.cutmix) and recipe.batch_size == 1:
        notes.append(
            "--mixup and --cutmix change nothing: in a batch of one image there is no other to mix it with"
        )
    if recipe.cutmix and recipe.views:
        notes.append(
            "--cutmix trains on pixels: what the frozen part makes of them is computed in every epoch anew, and "
            "--views does nothing"
        )
    if recipe.first_image_size is not None and all(feed.rest is not None for feed in feeds):
        notes.append(
            "--first-image-size changes nothing: every stage trains on what its frozen part made of the images, not on "
            "pixels (--views 0 has it train on pixels)"
        )
    if recipe.weights == "none" and recipe.unfreeze not in ("all", GRADUAL):
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
