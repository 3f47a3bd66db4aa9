"""The checkpoints of a run: what a training has come to, copied between two steps, and written beside it."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy import float32
from numpy.typing import NDArray
from torch import Tensor, nn

import mlcls
from mlcls.bundle.unfinished import CHECKPOINT
from mlcls.errors import RecipeError
from mlcls.learning.averaging import Ema, Ingredient
from mlcls.learning.checkpoint import Kept, Tensors, Writer, write_checkpoint
from mlcls.learning.epochs import Feedback, Running
from mlcls.learning.plain_state import to_plain
from mlcls.learning.saved_rows import save_rows
from mlcls.learning.steps import Stepper
from mlcls.learning.stopping import MONITORS, EarlyStopping
from mlcls.recipe import Recipe, recipe_values
from mlcls.reports.record import EpochFigures, facts_to_plain
from mlcls.workflows.identity import identity_of
from mlcls.workflows.resuming import BEST, FIRST, NOW, RUN, SCORES, STEP, Begun, Earlier
from mlcls.workflows.setup import Setup

CHANCE, DEVICE_CHANCE = "chance", "device_chance"
# files of a moving average, and of each epoch that a soup may take
AVERAGE, INGREDIENT = "average", "ingredient"
WORTH = 50.0  # an epoch's end is saved when that costs at most one part in so many of the time since the last time


@dataclass(frozen=True)
class Best:
    """The best epoch so far.

    moved: its weights that differ from the first ones, by name; scores: float32 [n, A], of validation.
    """

    epoch: int
    moved: dict[str, Tensor]
    scores: NDArray[float32]


@dataclass
class Progress:
    """What the epochs have come to.

    running: where the training stands between two steps; feedback: what it will hear of the epoch that ended.
    chance: the states of the random number generators, of an epoch that goes on in the middle.
    stage: of the last epoch; iterations: (epoch, loss) of each optimizer step of the epochs that ended.
    stopped: why the training is over; None while it is not.
    ema: the moving average of the weights, where there is one; averages: its state, of a stage that goes on.
    ingredients: the best epochs, of which a soup may be made; best first.
    """

    stopping: EarlyStopping
    running: Running = field(default_factory=Running)
    feedback: Feedback = field(default_factory=Feedback)
    stage: int = 0
    figures: list[EpochFigures] = field(default_factory=list)
    iterations: list[tuple[int, float | None]] = field(default_factory=list)
    best: Best | None = None
    stopped: str | None = None
    chance: dict[str, Tensor] = field(default_factory=dict)
    ema: Ema | None = None
    averages: dict[str, Tensor] = field(default_factory=dict)
    ingredients: list[Ingredient] = field(default_factory=list)


def new_progress(recipe: Recipe) -> Progress:
    """Of a training that has not begun."""
    return Progress(EarlyStopping(recipe.patience, MONITORS[recipe.monitor]))


def moved_from(first: Mapping[str, Tensor], classifier: nn.Module) -> dict[str, Tensor]:
    """Copies, on the CPU, of the weights that may differ from the first ones: all that train, and buffers that do.

    A stage trains whatever an earlier one has trained, so a parameter that is frozen now is as it was.
    """
    parameters = dict(classifier.named_parameters())
    moved = {}
    for name, tensor in classifier.state_dict().items():
        trains = parameters[name].requires_grad if name in parameters else None
        if trains or (trains is None and not torch.equal(first[name], tensor.detach().cpu())):
            moved[name] = tensor.detach().to("cpu", copy=True)
    return moved


def copy_weights(classifier: nn.Module) -> dict[str, Tensor]:
    """Copies, on the CPU, of all weights."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in classifier.state_dict().items()}


class Saver:
    """Writes the checkpoints of one run: copies its state between two steps, and leaves the disk to a thread.

    first: all weights as the run began with; progress: what is kept.
    Where one does not reach the disk, that is told once; the training goes on, and the last one stands.
    """

    def __init__(
        self,
        out: Path,
        setup: Setup,
        progress: Progress,
        begun: Begun,
        first: dict[str, Tensor],
        *,
        started: float,
        tell: Callable[[str], object],
        earlier: Earlier | None = None,
    ) -> None:
        """Args: started: when the run began, by `time.monotonic`; earlier: the run that goes on."""
        self.folder, self.first = out / CHECKPOINT, first
        self._setup, self.progress, self._begun, self._started = setup, progress, begun, started
        self._writer = Writer()
        # the first step is saved at once: what a run was begun with stands from then on, to go on with no other flag
        self._last = -math.inf if earlier is None else time.monotonic()
        self._number = 0 if earlier is None else earlier.checkpoint.number
        # files that stand already; BEST and SCORES with the epoch that they are of
        self._kept: dict[str, Kept] = {}
        self._best_epoch: int | None = None
        if earlier is not None:
            self._kept = {role: earlier.checkpoint.kept[role] for role in (FIRST, RUN)}
        self._problems: set[str] = set()
        self._rows_problem: OSError | None = None
        self._exposed = 0.0  # seconds of work on rows that were not worth saving at the last checkpoint
        self._copying, self._writing = 0.0, 0.0  # seconds that the last checkpoint took of the processor
        self._stores = {name: store for feed in setup.feeds for name, store in feed.stores.items()}
        self._tell = tell

    def due(self) -> bool:
        """Whether so much would be lost by now that another checkpoint is to be made."""
        minutes = self._setup.recipe.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self._last + self._exposed >= 60 * minutes

    def is_worth(self) -> bool:
        """Whether so much was done since the last checkpoint that one more is cheap beside it."""
        cost = self._copying + self._writing
        return time.monotonic() - self._last >= WORTH * cost

    @property
    def has_saved(self) -> bool:
        """Whether a checkpoint of this run stands."""
        return FIRST in self._kept

    def save(self, *, wait: bool = False) -> str | None:
        """Copy the state as it is, and have it written; with `wait`, until it is on the disk.

        Returns:
            why it is not on the disk, as far as that is known: always with `wait`.
        """
        self._last = time.monotonic()
        try:
            state, tensors = self._copy()
        except RecipeError as error:
            self._told(str(error))
            return str(error)
        self._copying = time.monotonic() - self._last
        unsaved = sum(store.unsaved_seconds for store in self._stores.values())
        # what is soon computed is not worth the disk
        rows = unsaved >= 30 * self._setup.recipe.checkpoint_minutes
        self._exposed = 0.0 if rows else unsaved
        self._writer.submit(partial(self._write, state, tensors, self.progress.best, rows))
        return self.wait() if wait else self._tell_of(self._writer.problem())

    def wait(self) -> str | None:
        """Wait until the last checkpoint is on the disk, or has failed; then why."""
        return self._tell_of(self._writer.wait())

    def _tell_of(self, problem: BaseException | None) -> str | None:
        if (unsaved := self._rows_problem) is not None:
            self._told(
                f"{self.folder}: what the frozen part computed could not be kept ({_why(unsaved)}); after a kill it is "
                "computed again"
            )
        if problem is None:
            return None
        stands = "the one before stands" if self.has_saved else "none stands yet"
        self._told(
            f"{self.folder}: a checkpoint could not be written ({_why(problem)}); {stands}, the training goes on, and "
            "the next one is tried in time"
        )
        return _why(problem)

    def _told(self, problem: str) -> None:
        if problem not in self._problems:
            self._problems.add(problem)
            self._tell(problem)

    def _copy(self) -> tuple[dict[str, Any], dict[str, Tensors]]:
        """The state as JSON, and the tensors that go with it."""
        setup, progress = self._setup, self.progress
        step: dict[str, Tensor] = {CHANCE: torch.get_rng_state()}
        if setup.device.type == "cuda":
            step[DEVICE_CHANCE] = torch.cuda.get_rng_state(setup.device)
        stepper = progress.running.stepper
        position = progress.running.position
        step["losses"] = _as_tensor(position.losses)
        step["iteration_epochs"] = torch.tensor(
            [epoch for epoch, _ in progress.iterations], dtype=torch.int64
        )
        step["iteration_losses"] = _as_tensor([loss for _, loss in progress.iterations])
        plain = {f.name: getattr(position, f.name) for f in fields(position) if f.name != "losses"}
        plain["bad"] = list(position.bad)
        best = progress.best
        state = {
            "mlcls": mlcls.__version__,
            "begun": asdict(self._begun),
            "attributes": list(setup.data.table.attributes),
            "seconds": time.monotonic() - self._started,
            "weights": [
                setup.classifier.weights.source,
                setup.classifier.weights.loaded,
                list(setup.classifier.weights.left_out),
            ],
            "precision": setup.recipe.precision,
            "cut": [feed.rest is not None for feed in setup.feeds],
            "facts": facts_to_plain(setup.facts),
            "resolved": recipe_values(setup.recipe),
            "position": plain,
            "feedback": asdict(progress.feedback),
            "stage": progress.stage,
            "figures": [facts_to_plain(row) for row in progress.figures],
            "best": None if best is None else best.epoch,
            "stopping": {
                "best": progress.stopping.best,
                "loss": progress.stopping.loss,
                "waited": progress.stopping.waited,
            },
            "stopped": progress.stopped,
            "stepper": None if stepper is None else _stepper_state(stepper, step),
        }
        if progress.ema is None and best is not None and position.ended and best.epoch == position.epoch:
            now = best.moved  # one file for both
        else:
            now = moved_from(self.first, setup.classifier)
        tensors: dict[str, Tensors] = {NOW: now, STEP: step}
        if progress.ema is not None:
            now.update(progress.ema.raw_weights())  # in a validation the network holds the averages
            tensors[AVERAGE] = progress.ema.state()
        tensors |= {f"{INGREDIENT}-{one.epoch}": one.weights for one in progress.ingredients}
        state["ingredients"] = [[one.epoch, one.figure] for one in progress.ingredients]
        return state, tensors

    def _write(
        self, state: dict[str, Any], tensors: dict[str, Tensors], best: Best | None, rows: bool
    ) -> None:
        """In the thread."""
        started = time.thread_time()
        self.folder.mkdir(parents=True, exist_ok=True)
        if rows:
            try:
                for name, store in self._stores.items():
                    save_rows(store, self.folder, name)
            except OSError as error:
                self._rows_problem = error
        state["rows"] = {name: list(store.files) for name, store in self._stores.items() if store.files}
        # an ingredient never changes: one that stands already is not written again
        files: dict[str, Tensors | Kept] = {
            role: self._kept.get(role, what) for role, what in tensors.items()
        }
        files[FIRST] = self._kept.get(FIRST, self.first)
        files[RUN] = self._kept.get(RUN) or identity_of(self._setup.data).tensors()
        if best is not None:
            known = best.epoch == self._best_epoch
            files[BEST] = self._kept[BEST] if known else best.moved
            files[SCORES] = self._kept[SCORES] if known else {"scores": torch.from_numpy(best.scores)}
        self._number += 1
        kept = write_checkpoint(self.folder, self._number, state, files)
        lasting = (FIRST, RUN, BEST, SCORES)
        self._kept = {
            role: one for role, one in kept.items() if role in lasting or role.startswith(INGREDIENT)
        }
        self._best_epoch = None if best is None else best.epoch
        self._writing = time.thread_time() - started


def _why(problem: BaseException) -> str:
    """What went wrong, in words; an error without any, as MemoryError, by its name."""
    return (problem.strerror if isinstance(problem, OSError) else None) or str(problem) or repr(problem)


def _as_tensor(losses: list[float | None]) -> Tensor:
    """float64, NaN for None: a loss that is kept is finite."""
    return torch.tensor([float("nan") if loss is None else loss for loss in losses], dtype=torch.float64)


def _stepper_state(stepper: Stepper, tensors: dict[str, Tensor]) -> dict[str, Any]:
    parts = [part.state_dict() for part in stepper.schedule.parts]
    return {
        "optimizer": to_plain(stepper.optimizer.state_dict(), "--optimizer", tensors),
        "schedule": to_plain(parts, "--schedule", tensors),
        "scaler": to_plain(stepper.scaler.state_dict(), "scaler", tensors),
    }
