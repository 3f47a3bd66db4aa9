"""A training from beginning to end: `fit` reads from top to bottom what the command `train` does."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

import mlcls
from mlcls.bundle.files import prepare_folder
from mlcls.errors import ImageError, MlclsError, NumericalError, is_out_of_memory
from mlcls.learning.epochs import Feedback, TrainedEpoch, run_epochs
from mlcls.learning.losses import masked_loss
from mlcls.learning.steps import Batch
from mlcls.learning.stopping import MONITORS, EarlyStopping
from mlcls.models.forward import predict_logits, to_scores
from mlcls.models.staged import StagedClassifier
from mlcls.models.stages import train_mode
from mlcls.recipe import Recipe, recipe_values
from mlcls.reports.console_data import show_data, show_model
from mlcls.reports.progress import EpochTable
from mlcls.reports.record import EpochFigures, Record
from mlcls.scoring.metrics import evaluate
from mlcls.scoring.predictions import Predictions
from mlcls.workflows.checks import check_names
from mlcls.workflows.data import gather, subset_counts
from mlcls.workflows.finishing import FAILED, finish
from mlcls.workflows.frozen import Feed
from mlcls.workflows.setup import Setup, preprocessing_for, set_up

if TYPE_CHECKING:
    from pandas import DataFrame

INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Learned:
    """What the epochs left: every figure, and the best epoch's weights with its validation predictions."""

    epochs: tuple[EpochFigures, ...]
    iterations: tuple[tuple[int, float | None], ...]  # (epoch, loss) of each optimizer step; None: skipped
    best_epoch: int
    best_weights: dict[str, Tensor]
    val: Predictions
    stopped_because: str


def fit(
    recipe: Recipe | None = None,
    *,
    labels: "str | Path | DataFrame | None" = None,
    images: str | Path | None = None,
    out: str | Path = "outputs",
    overwrite: bool = False,
    console: Console | None = None,
    command: str = "mlcls.fit",
) -> Record:
    """Train, tune and save a classifier: what `python -m mlcls.train` runs.

    Args:
        recipe: every setting; `Recipe()` when not given.
        labels: the label table (a path, or a DataFrame), in the place of `recipe.labels`.
        images: the images' folder, in the place of `recipe.images`.
        out: the folder of the bundle.
        overwrite: replace a bundle that stands there.
        console: a rich console to show tables and progress on; silent when not given.
        command: what the record says it was run by.

    Returns:
        The record of the run, as in `metrics.json`.

    Raises:
        MlclsError: a mistake in the recipe, the table, the images or the weights; a loss that stays not finite
            before the first epoch has ended.
    """
    started = time.monotonic()
    console = console or Console(quiet=True)
    out = Path(out)
    recipe = _with_data(recipe or Recipe(), labels, images)
    check_names(recipe)
    prepare_folder(out, overwrite=overwrite)
    table = None if labels is None or isinstance(labels, str | Path) else labels
    preprocessing = preprocessing_for(recipe)
    data = gather(recipe, console, table, preprocessing=preprocessing)
    show_data(
        console,
        data.facts,
        subset_counts(data),
        source=f"{data.table.report.source}: {data.table.report.layout}",
    )
    setup = set_up(recipe, data, preprocessing)
    show_model(console, setup.facts)
    learned = learn(setup, console)
    record = Record(
        mlcls=mlcls.__version__,
        seed=recipe.seed,
        command=command,
        data=data.facts,
        model=setup.facts,
        recipe=recipe_values(setup.recipe),
        epochs=learned.epochs,
        best_epoch=learned.best_epoch,
        stopped_because=learned.stopped_because,
    )
    return finish(setup, learned.best_weights, learned.val, learned.iterations, record, out, started, console)


def _with_data(recipe: Recipe, labels: Any, images: str | Path | None) -> Recipe:
    changes: dict[str, Any] = {}
    if isinstance(labels, str | Path):
        changes["labels"] = str(labels)
    elif labels is not None:
        changes["labels"] = "DataFrame"
    if images is not None:
        changes["images"] = str(images)
    return dataclasses.replace(recipe, **changes)


def learn(
    setup: Setup, console: Console, on_epoch: Callable[[Setup, EpochFigures], None] | None = None
) -> Learned:
    """Run the epochs; keep the best one's weights; stop when patience runs out in the last stage.

    Args:
        on_epoch: called after each epoch's validation, when the classifier holds that epoch's weights.

    Raises:
        NumericalError: the loss stayed not finite before one epoch was through.
    """
    recipe = setup.recipe
    stopping = EarlyStopping(recipe.patience, MONITORS[recipe.monitor])
    figures: list[EpochFigures] = []
    iterations: list[tuple[int, float | None]] = []
    best: tuple[int, dict[str, Tensor], Predictions] | None = None
    stopped, stage = "all epochs are done", 0
    feedback = Feedback()
    with EpochTable(console) as table:
        epochs = run_epochs(
            setup.model,
            setup.stages,
            lambda epoch: _shown(setup, epoch, table),
            setup.loss,
            device=setup.device,
            precision=recipe.precision,
            clip_norm=recipe.clip_norm or None,
            accumulate=recipe.accumulate,
            train_mode=lambda _: _train_mode(setup.model),
            feedback=feedback,
        )
        try:
            for trained in epochs:
                if trained.stage != stage:
                    stage = trained.stage
                    stopping.restart()
                row, val = _validate(setup, trained, table)
                figures.append(row)
                if on_epoch is not None:
                    on_epoch(setup, row)
                iterations += [(trained.epoch, loss) for loss in trained.iteration_losses]
                improved = stopping.update(getattr(row, recipe.monitor))
                if improved or best is None:
                    best = (trained.epoch, _snapshot(setup.classifier), val)
                table.finish_epoch(row, improved)
                feedback.val_loss = row.val_loss
                if stopping.should_stop:
                    if stage == len(setup.stages) - 1:
                        stopped = f"{recipe.monitor} has not been better for {recipe.patience} epochs"
                        break
                    feedback.next_stage = True  # the head has learned what it can: on with its best weights
                    setup.classifier.load_state_dict(best[1])
        except (MlclsError, MemoryError, OSError, RuntimeError) as error:
            what = _gave_out(setup, error)
            if what is None or (best is None and not isinstance(error, NumericalError)):
                raise
            if best is None:
                raise NumericalError(what) from error
            stopped = FAILED + what  # what was learned is not lost with it
        except KeyboardInterrupt:
            if best is None:
                raise
            stopped = INTERRUPTED
    assert best is not None
    return Learned(tuple(figures), tuple(iterations), *best, stopped)


def _shown(setup: Setup, epoch: int, table: EpochTable) -> Iterator[Batch]:
    """An epoch's batches with the bar moving; chance (dropout) begins anew, as a function of seed and epoch."""
    torch.manual_seed(int(np.random.SeedSequence([setup.recipe.seed, epoch]).generate_state(1)[0]))
    table.start_epoch(epoch, len(setup.train.dataset))
    for batch in running_feed(setup).train(epoch):
        yield batch
        table.advance(len(batch[2]))


def running_feed(setup: Setup) -> Feed:
    """What the stage that runs now trains and validates on."""
    return next(feed for feed in setup.feeds if feed.rest is setup.model.rest)


def _train_mode(model: StagedClassifier) -> None:
    """Training mode where the classifier trains; what is above the frontier follows the stage, not its modules."""
    if model.rest is not None:
        model.rest.train()
    train_mode(model.classifier)


def _validate(setup: Setup, trained: TrainedEpoch, table: EpochTable) -> tuple[EpochFigures, Predictions]:
    """The epoch's figures on validation, at threshold 0.5, and the predictions they come from."""
    started = time.monotonic()
    table.start_validation(len(setup.val.dataset))
    logits, labels = predict(setup, running_feed(setup).val(), table)
    total, known = masked_loss(
        setup.loss, torch.from_numpy(logits).to(setup.device), torch.from_numpy(labels).to(setup.device)
    )
    val_loss = float(total) / int(known)
    scores = to_scores(logits)
    entry = evaluate(labels, scores, np.full(labels.shape[1], 0.5))
    macro = entry["macro"]
    row = EpochFigures(
        epoch=trained.epoch,
        stage=trained.stage,
        lr=trained.lr,
        train_loss=trained.train_loss,
        val_loss=val_loss if np.isfinite(val_loss) else None,
        val_map=macro["average_precision"],
        val_f1=macro["f1"],
        val_precision=macro["precision"],
        val_recall=macro["recall"],
        val_hamming_loss=entry["hamming_loss"],
        val_exact_match=entry["exact_match"],
        seconds=trained.seconds + time.monotonic() - started,
        images_per_second=trained.images_per_second,
        skipped_steps=trained.skipped_steps,
    )
    names = setup.data.names(setup.data.split.val)
    return row, Predictions(names, setup.data.table.attributes, scores, labels)


def predict(
    setup: Setup, batches: Iterable[Batch], table: EpochTable | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits and labels [N, A] of a subset, in its own order; in float32, as a bundle predicts."""
    advance = table.advance if table else None
    logits, labels, indices = predict_logits(setup.model, batches, setup.device, "fp32", on_batch=advance)
    order = np.argsort(indices)
    return logits[order], labels[order]


def _snapshot(classifier: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in classifier.state_dict().items()}


def _gave_out(setup: Setup, error: Exception) -> str | None:
    """What to say when numbers, memory, a disk or a loader gave out in the middle; None for a fault of the program."""
    if isinstance(error, NumericalError):
        return _with_images(setup, error)
    if isinstance(error, ImageError | OSError):
        return str(error)
    if isinstance(error, MemoryError) or is_out_of_memory(error):
        return "out of memory: try a smaller --batch-size or --image-size"
    if "DataLoader worker" in str(error):
        return f"a process that loads images was ended from outside ({error}); try fewer --workers"
    return None


def _with_images(setup: Setup, error: NumericalError) -> str:
    """The error's sentence with the names of the images that were at hand, where there are any."""
    names = setup.data.names(setup.data.split.train[list(error.indices)])
    if not names:
        return str(error)
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"{error}\nimages in these steps: {shown}"
