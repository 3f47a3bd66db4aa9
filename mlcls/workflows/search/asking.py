"""Which trial of a study runs next, how it ended, and trials whose process has died, which are run again.

Optuna keeps the trials and draws their values. It does not see that a process has died: such a trial would be running
for ever. So each process holds a lock that dies with it, and whoever asks for a trial looks first at what the running
ones' processes have come to. Of another machine's, whose locks may not be seen here, a sign of life each minute tells.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from mlcls.bundle.lock import hold_folder
from mlcls.bundle.unfinished import CHECKPOINT, LOCK, remove_checkpoint
from mlcls.errors import BundleError, MlclsError
from mlcls.workflows.search.search_space import Range, Space
from mlcls.workflows.search.study import STARTUP, Shared

PULSE = 60.0  # seconds between two signs of life of a trial
LOST = 900.0  # seconds without one after which a trial of another machine counts as dead; clocks may differ a little
DIED = "its process died"
ATTEMPTS = 3  # times that values are tried whose process dies: they may be what ends it
OVER = (TrialState.COMPLETE, TrialState.PRUNED)


Ended = tuple[TrialState, float | None, Mapping[str, Any]]
"""How a trial ended: its state, its figure (of a complete one), and what the table says of it."""


def next_trial(shared: Shared, most: int, left: Callable[[Path], Ended | None]) -> Trial | None:
    """A trial to run, its values drawn; None while `most` trials are over or running.

    First, trials whose process has died are marked as failed, and their values are put into the queue again; but for
    those that had come to their end in its folder.

    Args:
        left: how the trial ended whose bundle stands in a folder; None where none does.
    """
    with shared.turn:
        revive(shared, left)
        trials = shared.study.get_trials(deepcopy=False)
        if sum(trial.state in (*OVER, TrialState.RUNNING) for trial in trials) >= most:
            return None
        seed = np.random.SeedSequence([shared.seed, len(trials)]).generate_state(1)[0]
        shared.study.sampler = optuna.samplers.TPESampler(seed=int(seed), n_startup_trials=STARTUP)
        trial = shared.study.ask(_distributions(shared.space))
        worker = shared.worker
        trial.set_user_attr(
            "worker", {"host": worker.host, "number": worker.number, "lock": str(worker.lock)}
        )
        trial.set_user_attr("seen", time.time())
        return trial


def count_over(shared: Shared) -> int:
    """How many trials have come to an end by themselves or were cut off."""
    return sum(trial.state in OVER for trial in shared.study.get_trials(deepcopy=False))


def same_before(shared: Shared, trial: Trial) -> Ended | None:
    """How a trial of the same values ended, which a run of them would repeat; None where none has.

    A space of few choices comes back to them.
    """
    known = ("val_loss", "val_map", "val_f1", "best_epoch", "epochs", "folder")
    for other in shared.study.get_trials(deepcopy=False, states=OVER):
        if other.params == trial.params and other.user_attrs.get("fields", {}) == trial.user_attrs.get(
            "fields", {}
        ):
            facts = {name: other.user_attrs[name] for name in known if name in other.user_attrs}
            facts |= {"seconds": 0.0, "reason": f"the same as trial {other.number + 1}"}
            return other.state, other.value, facts
    return None


def tell(shared: Shared, trial: Trial, ended: Ended) -> None:
    """Keep how a trial ended.

    Where it was given up as lost meanwhile, its values are tried again by another process, and nothing is kept here.
    """
    with shared.turn:
        _end(shared, trial._trial_id, ended)


def give_back(shared: Shared, trial: Trial, why: str) -> None:
    """End a trial that is no fault of its values': they are tried again."""
    with shared.turn:
        _end(shared, trial._trial_id, (TrialState.FAIL, None, {"reason": why, "dead": True}))
        _queue_again(shared)


def let_go(shared: Shared, left: Callable[[Path], Ended | None]) -> None:
    """Before this process ends: its trial, where it was cut off between asking and telling, is another's to run."""
    with shared.turn:
        for trial in shared.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("worker", {}).get("lock") == str(shared.worker.lock):
                folder = Path(trial.user_attrs.get("folder", ""))
                found = left(folder) if folder.name else None
                again = TrialState.FAIL, None, {"reason": "it was interrupted", "dead": True}
                _end(shared, trial._trial_id, found or again)
        _queue_again(shared)


def revive(shared: Shared, left: Callable[[Path], Ended | None]) -> None:
    """See to the running trials whose process has died. Hold `shared.turn`."""
    running = shared.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    workers = [trial.user_attrs["worker"] for trial in running if "worker" in trial.user_attrs]
    locks = {worker["lock"] for worker in workers if worker["host"] == shared.worker.host}
    with contextlib.ExitStack() as held:
        lives = {lock: _lives(shared, Path(lock), held) for lock in sorted(locks)}
        for trial in running:
            if not _is_dead(shared, trial, lives):
                continue
            folder = Path(trial.user_attrs.get("folder", ""))
            found = left(folder) if folder.name else None
            if found is None:
                _clear(folder)
            _end(shared, trial._trial_id, found or (TrialState.FAIL, None, {"reason": DIED, "dead": True}))
    for lock in locks:
        with contextlib.suppress(OSError):  # it stands no more, or its process lives
            Path(lock).rmdir()
    _queue_again(shared)


@contextmanager
def pulse(shared: Shared, trial: Trial) -> Iterator[None]:
    """Give a sign of life of a trial each minute, for processes of other machines, until the block is left."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(PULSE):
            with contextlib.suppress(optuna.exceptions.OptunaError, OSError):  # the next one will do
                trial.set_user_attr("seen", time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _lives(shared: Shared, lock: Path, held: contextlib.ExitStack) -> bool | None:
    """Whether a process lives, by its lock, which is held here from now on where it does not; None: cannot be told."""
    if lock == shared.worker.lock:
        return True
    if not (lock / CHECKPOINT / LOCK).exists():
        return None
    try:
        note = held.enter_context(hold_folder(lock))
    except BundleError:
        return True
    return None if note else False  # with a note: the file system has no locks


def _is_dead(shared: Shared, trial: FrozenTrial, lives: Mapping[str, bool | None]) -> bool:
    """Whether a running trial's process is no more."""
    worker: Mapping[str, Any] | None = trial.user_attrs.get("worker")
    if worker is None:  # its process had no time to say who it is
        return shared.on_file or _age(trial) > LOST
    alive = lives.get(worker["lock"])
    return _age(trial) > LOST if alive is None else not alive


def _age(trial: FrozenTrial) -> float:
    """Seconds since the last sign of life."""
    start = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    return time.time() - float(trial.user_attrs.get("seen", start))


def _end(shared: Shared, trial_id: int, ended: Ended) -> None:
    state, value, facts = ended
    storage = shared.study._storage
    with contextlib.suppress(optuna.exceptions.UpdateFinishedTrialError):  # another process was first
        for name, fact in facts.items():
            storage.set_trial_user_attr(trial_id, name, fact)
        storage.set_trial_state_values(trial_id, state, None if value is None else [value])


def _clear(folder: Path) -> None:
    """Remove the checkpoint of a run whose process has died, where it is seen here."""
    if folder.name and (folder / CHECKPOINT).is_dir():
        with contextlib.suppress(MlclsError, OSError):
            with hold_folder(folder):
                remove_checkpoint(folder)
            folder.rmdir()


def _queue_again(shared: Shared) -> None:
    """Queue the values of every dead trial that has not been yet: what died in between is found here too."""
    trials = shared.study.get_trials(deepcopy=False)
    followed = {trial.user_attrs.get("again_of") for trial in trials}
    for trial in trials:
        attempt = int(trial.user_attrs.get("attempt", 1))
        if trial.state != TrialState.FAIL or not trial.user_attrs.get("dead") or trial.number in followed:
            continue
        died = trial.user_attrs.get("reason") == DIED
        if died and attempt >= ATTEMPTS:
            continue
        known: dict[str, Any] = {
            name: trial.user_attrs[name] for name in ("name", "fields") if name in trial.user_attrs
        }
        shared.study.enqueue_trial(
            {**trial.system_attrs.get("fixed_params", {}), **trial.params},
            user_attrs={**known, "again_of": trial.number, "attempt": attempt + died},
        )


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {name: _distribution(one) for name, one in space.items()}


def _distribution(one: Any) -> BaseDistribution:
    if not isinstance(one, Range):
        return CategoricalDistribution(one.values)
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)
