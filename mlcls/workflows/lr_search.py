"""`train --find-lr`: a learning-rate range test of each stage, its picture, and what it speaks for; trains nothing."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch.optim import Optimizer

from mlcls.errors import RecipeError
from mlcls.learning.batchnorm import moving_buffers
from mlcls.learning.epochs import Stage
from mlcls.learning.lr_range import (
    STEPS,
    LrCurve,
    Suggestion,
    range_test,
    smooth,
    still_stepper,
    suggest,
)
from mlcls.learning.mixing import build_changes, changed
from mlcls.learning.steps import Batch, Stepper, take_step
from mlcls.models.stages import train_mode
from mlcls.recipe import Recipe
from mlcls.reports.console import say
from mlcls.reports.console_data import show_data, show_model
from mlcls.reports.plots_lr import LrPanel, lr_range_picture
from mlcls.reports.progress import progress
from mlcls.workflows.checks import check_names
from mlcls.workflows.data import gather, subset_counts
from mlcls.workflows.setup import Setup, preprocessing_for, set_up
from mlcls.workflows.validating import running_feed

PROBE = 4  # batches that the loss is followed on: they cost as much again as the steps


@dataclass(frozen=True)
class StageRates:
    """What the range test of one stage found.

    flag: of the recipe's field that sets its rate; now: what it has there.
    """

    stage: str
    flag: str
    now: float
    curve: LrCurve
    suggestion: Suggestion


def find_lr(
    recipe: Recipe, picture: str | Path, *, console: Console | None = None, steps: int = STEPS
) -> tuple[StageRates, ...]:
    """Test the learning rates of each stage on the training images, and draw the curves.

    A later stage is tested from where `steps` steps of each stage before it lead at the recipe's own rate, as its
    test would otherwise be that of a head which has learned nothing. All of it is forgotten afterwards.

    Args:
        recipe: as for `fit`; its table is split the same way, and the training subset alone is looked at.
        picture: the PNG that is written, once all stages are through.
        console: for the tables, and a line a stage; silent when not given.
        steps: of each test, and of each stage on the way to a later one; from 2 on.

    Raises:
        MlclsError: as `fit`; the picture cannot be written.
    """
    console = console or Console(quiet=True)
    check_names(recipe)
    preprocessing = preprocessing_for(recipe)
    data = gather(recipe, console, preprocessing=preprocessing)
    source = f"{data.table.report.source}: {data.table.report.layout}"
    show_data(console, data.facts, subset_counts(data), source=source)
    setup = set_up(recipe, data, preprocessing)
    show_model(console, setup.facts)
    stages = [stage for stage in setup.stages if stage.epochs]
    with progress(console, "learning rates", (2 * len(stages) - 1) * steps, "steps") as advance:
        found = tuple(
            _tested(setup, stage, steps, stage is stages[-1], lambda _: advance(1)) for stage in stages
        )
    lr_range_picture(picture, [_panel(one) for one in found])
    for one in found:
        say(console, _sentence(one))
    say(console, f"drawn in {picture}; nothing was trained, and no bundle written")
    return found


def _tested(
    setup: Setup, stage: Stage, steps: int, is_last: bool, on_step: Callable[[int], object]
) -> StageRates:
    """The test of one stage, and, where another follows, the steps that lead to that."""
    optimizer, _ = stage.begin()
    now = _undo_warmup(optimizer)
    stepper = still_stepper(
        setup.model,
        setup.loss,
        optimizer,
        device=setup.device,
        precision=setup.recipe.precision,
        clip_norm=setup.recipe.clip_norm or None,
        unknowns=setup.unknowns,
    )
    if setup.model.rest is not None:
        setup.model.rest.train()
    train_mode(setup.classifier)
    torch.manual_seed(setup.recipe.seed)  # dropout
    with closing(_steps(setup)) as batches:
        probe = [batch for _ in range(-(-PROBE // setup.recipe.accumulate)) for batch in next(batches)]
        curve = range_test(stepper, batches, probe, steps, on_step=on_step)
        if not is_last:
            _practise(stepper, batches, steps, on_step)
    flag = "--lr-head" if stage.name == "head" else "--lr-finetune"
    return StageRates(stage.name, flag, now, curve, suggest(curve))


def _undo_warmup(optimizer: Optimizer) -> float:
    """Put the rates back that a warm-up has lowered at once; the highest of them."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])
    return max(float(group["lr"]) for group in optimizer.param_groups)


def _steps(setup: Setup) -> Generator[list[Batch]]:
    """The batches of each step, epoch after epoch without an end, as the training sees them; each has a known label."""
    recipe, feed = setup.recipe, running_feed(setup)
    changes = build_changes(
        seed=recipe.seed, mixup=recipe.mixup, cutmix=recipe.cutmix, label_smoothing=recipe.label_smoothing
    )
    group: list[Batch] = []
    epoch = 0
    while True:
        is_known = False
        for batch in changed(feed.train(epoch), changes, epoch):
            if bool(torch.isnan(batch[1]).all()):
                continue
            is_known = True
            group.append(batch)
            if len(group) == recipe.accumulate:
                yield group
                group = []
        if not is_known:
            raise RecipeError(
                f"--find-lr: in epoch {epoch} no batch has a known label: without --mixup and --cutmix more are known, "
                "and so with a larger --batch-size"
            )
        epoch += 1


def _practise(
    stepper: Stepper, batches: Iterator[list[Batch]], steps: int, on_step: Callable[[int], object]
) -> None:
    """Train so many steps at the stage's own rate."""
    buffers = moving_buffers(stepper.model)
    for step, group in zip(range(steps), batches, strict=False):
        take_step(stepper, group, buffers)
        on_step(step)


def _panel(one: StageRates) -> LrPanel:
    return LrPanel(
        title=one.stage,
        rates=one.curve.rates,
        losses=one.curve.losses,
        smoothed=smooth(one.curve)[0],
        steepest=one.suggestion.steepest,
        tenth=one.suggestion.tenth,
        now=one.now,
    )


def _sentence(one: StageRates) -> str:
    """One stage's suggestion, in words."""
    begins = f"stage '{one.stage}': "
    has = f"the recipe has {one.now:.2g}"
    if one.suggestion.steepest is None or one.suggestion.tenth is None:
        return f"{begins}no rate is suggested, since the loss falls at none of them for sure; {has}"
    return (
        f"{begins}{one.flag} {one.suggestion.steepest:.1e} (the loss falls fastest there), or "
        f"{one.suggestion.tenth:.1e} (a tenth of where it is lowest); {has}"
    )
