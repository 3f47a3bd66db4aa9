"""One study that several processes share: its storage, whose turn it is, and what all of its trials have in common."""

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import optuna

from mlcls.bundle.lock import hold_folder
from mlcls.errors import RecipeError
from mlcls.workflows.search.search_space import Planned, Space

_BEGIN = b'{"op_code"'  # of every line of a journal
STARTUP = 5  # trials drawn at random, of which none is cut off, before the others are held against them
MAXIMIZED = {"val_map": True, "val_f1": True, "val_loss": False}
"""The validation figures that trials can be compared by, and whether more of it is better."""


@dataclass(frozen=True)
class Worker:
    """This process, as the others know it: `lock` is a folder that it holds as long as it lives."""

    host: str
    number: int
    lock: Path


@dataclass(frozen=True)
class Shared:
    """A study that several processes share.

    turn: a lock to hold while the list of trials is looked at and added to.
    on_file: whether `turn` keeps out every process of the study, not those of this machine alone.
    """

    study: optuna.Study
    space: Space
    seed: int
    turn: filelock.BaseFileLock
    on_file: bool
    worker: Worker


class _JournalLock:
    """What Optuna's journal takes for a lock, as one of the system's own: it ends with the process that holds it."""

    def __init__(self, path: Path) -> None:
        self._lock = filelock.FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


@contextmanager
def open_study(
    storage: str, name: str, out: Path, space: Space, *, metric: str, seed: int, warmup: int
) -> Iterator[Shared]:
    """The study called `name` in a journal file or at the address of a database; made where there is none.

    Args:
        out: the folder that keeps this process's lock.
        metric: a key of `MAXIMIZED`.
        warmup: epochs of a trial before it can be cut off.

    Raises:
        RecipeError: the storage cannot be opened, or is no study's.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    url = is_url(storage)
    turn = filelock.FileLock(out / ".turn" if url else f"{storage}.turn")
    host = socket.gethostname()
    lock = (out / "workers" / f"{host}-{os.getpid()}-{uuid.uuid4().hex[:8]}").absolute()
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=warmup, n_min_trials=3)
    if not url:
        _check_begin(Path(storage))
    _check_place(turn, storage if not url else str(out))
    with turn:
        kept = _database(storage) if url else _journal(Path(storage))
        try:
            study = optuna.create_study(
                storage=kept,
                study_name=name,
                direction="maximize" if MAXIMIZED[metric] else "minimize",
                pruner=pruner,
                load_if_exists=True,
            )
        except (KeyError, TypeError, AttributeError) as error:  # JSON, and no journal of Optuna's
            raise _no_journal(storage, error) from error
    try:
        with hold_folder(lock):
            yield Shared(study, space, seed, turn, not url, Worker(host, os.getpid(), lock))
    finally:
        with contextlib.suppress(OSError):  # others work there still
            lock.parent.rmdir()


def check_storage(storage: str, out: Path) -> None:
    """Refuse, before any work is done and with nothing written, what can be seen to be no storage.

    Args:
        out: the folder of the trials, which is made if need be; the database may be put there.

    Raises:
        RecipeError: no journal, no kind of database, a driver that is not installed, a folder that is not there.
    """
    if not is_url(storage):
        _check_begin(Path(storage))
        return
    import sqlalchemy

    try:
        database = sqlalchemy.create_engine(storage).url.database
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        raise _no_database(storage, error) from error
    if not storage.startswith("sqlite") or not database or database.startswith("file:"):
        return
    folder = Path(database).parent
    if not folder.is_dir() and folder.absolute() != out.absolute():
        raise _no_database(storage, FileNotFoundError(f"there is no folder {folder}"))


def is_url(storage: str) -> bool:
    """Whether a storage is a database's address, no file."""
    return "://" in storage


def _journal(path: Path) -> optuna.storages.JournalStorage:
    from optuna.storages.journal import JournalFileBackend

    try:
        place = path.with_name(f"{path.name}.lock")
        _mend(path, filelock.FileLock(place))
        lock: Any = _JournalLock(place)
        return optuna.storages.JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except OSError as error:
        raise RecipeError(
            f"--storage {path}: cannot be written ({error.strerror}); name another file"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_journal(str(path), error) from error


def _check_place(lock: filelock.BaseFileLock, said: str) -> None:
    """Refuse a place where no lock can be written: to take one there could be tried for ever."""
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        with Path(lock.lock_file).open("ab"):
            pass
    except OSError as error:
        raise RecipeError(
            f"--storage {said}: cannot be written ({error.strerror}); name another file"
        ) from error


def _check_begin(path: Path) -> None:
    """Refuse, before anything is written, a file that is no journal."""
    if path.is_dir():
        raise RecipeError(
            f"--storage {path}: a folder stands there; name a file in it, as {path / 'trials.journal'}"
        )
    if not path.is_file():
        return
    with path.open("rb") as file:
        begin = file.read(len(_BEGIN))
    if not _BEGIN.startswith(begin):
        raise _no_journal(str(path), ValueError(f"it begins with {begin!r}"))


def _mend(path: Path, lock: filelock.BaseFileLock) -> None:
    """Take off a last line that was not written to its end, after which no other could be read."""
    with lock:
        data = path.read_bytes() if path.is_file() else b""
        if data and not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)


def _no_journal(storage: str, error: Exception) -> RecipeError:
    return RecipeError(
        f"--storage {storage}: is no journal of trials ({error}); name another file, or one that is not there yet"
    )


def _database(url: str) -> optuna.storages.BaseStorage:
    import sqlalchemy.exc

    try:
        return optuna.storages.RDBStorage(url)
    except (sqlalchemy.exc.SQLAlchemyError, ImportError, ValueError) as error:
        raise _no_database(url, error) from error


def _no_database(url: str, error: Exception) -> RecipeError:
    first, kind = str(error).splitlines()[0], url.partition("://")[0]  # the rest may hold a password
    return RecipeError(
        f"--storage {kind}://...: cannot be opened ({first}); name a file, or an address as sqlite:///trials.db or "
        "postgresql://USER@HOST/NAME, with its driver installed"
    )


def agree(shared: Shared, facts: Mapping[str, Any]) -> None:
    """Keep with the study what all of its trials have in common, or refuse where another is kept there.

    Args:
        facts: JSON values by a name that the message can use.

    Raises:
        RecipeError: naming all that differs.
    """
    with shared.turn:
        kept = shared.study.user_attrs.get("facts")
        if kept is None:
            shared.study.set_user_attr("facts", dict(facts))
            return
    faults = []
    for name in dict.fromkeys((*kept, *facts)):
        then, now = kept.get(name), facts.get(name)
        if then != now:
            faults.append(f"{name}: {_shown(then)} then, {_shown(now)} now")
    if faults:
        raise RecipeError(
            f"the study '{shared.study.study_name}' was begun otherwise:\n"
            + "\n".join(faults)
            + "\ngive the same flags to go on with it, or begin another one with --study NAME and --out DIR"
        )


def _shown(value: Any) -> str:
    text = "not set" if value in (None, {}, "") else str(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def plan(shared: Shared, planned: tuple[Planned, ...]) -> None:
    """Put these trials first, once for the whole study."""
    with shared.turn:
        if shared.study.user_attrs.get("planned"):
            return
        for one in planned:
            shared.study.enqueue_trial(one.values, user_attrs={"name": one.name, "fields": one.fields})
        shared.study.set_user_attr("planned", True)
