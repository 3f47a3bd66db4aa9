"""Trainings in forked processes that can be killed, stopped or given faults at a chosen point, and what they left.

One process imports torch and mlcls once and starts no thread; each run is a child of it, which calls
`mlcls.train.main` in a working folder of its own. The functions of `mlcls.durable` are wrapped, so that a run can be
ended before, after or in the middle of any write; a piece of shared memory tells where a run was when it ended.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: a pool of threads does not outlive a fork

import builtins
import errno
import io
import json
import mmap
import re
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else its import asks the network for a newer version

import albumentations  # noqa: F401  (what a run imports when it needs it)
import cv2
import imagehash  # noqa: F401
import matplotlib
import numpy as np
import onnx  # noqa: F401
import safetensors.torch
import tomli_w  # noqa: F401
import torch

matplotlib.use("Agg")

import mlcls.train
from mlcls import durable
from mlcls.bundle import staging
from mlcls.bundle.files import verify_bundle
from mlcls.errors import MlclsError
from mlcls.learning import epochs as learning_epochs
from mlcls.learning.checkpoint import Writer, read_checkpoint
from mlcls.sealed import digest_of
from mlcls.workflows import checkpoints, epochs, finishing, training  # noqa: F401  (all that a run would import)

sys.path.insert(0, str(Path(__file__).parents[1]))

from toy_data import write_toy

cv2.setNumThreads(0)
torch.set_num_threads(1)

TINY = [
    "--backbone", "cnn4", "--backbone-args", "widths=8,16", "--weights", "none", "--image-size", "32", "--batch-size",
    "4", "--epochs", "5", "--unfreeze-epoch", "2", "--unfreeze", "all", "--augment", "rich", "--resamples", "20",
    "--device", "cpu", "--precision", "fp32", "--split", "0.6,0.2,0.2", "--lr-head", "0.02", "--lr-finetune", "0.01",
]  # fmt: skip
DURABLE = ("write_all", "flush", "rename", "remove", "flush_folder")
OTHERS = ("open", "mkdir")  # of what is written beside them
PHASES = (
    "set-up", "stage 1", "stage 2", "validation", "thresholds", "bundle", "onnx", "pictures", "moving", "removal", "end"
)  # fmt: skip
LAYOUT = struct.Struct("BBxxiiii")  # phase, depth of saves, calls of mlcls.durable, epoch, step, checkpoints
TIMES = ("seconds", "images_per_second")
WITH_TIMES = ("metrics.json", "report.html", "training_history.png")


@dataclass(frozen=True)
class Configuration:
    """A way of training.

    flags: after `TINY`; cached: decoded images are kept in the configuration's own cache folder.
    over: the run replaces a bundle that stands in its `--out`.
    """

    name: str
    flags: tuple[str, ...]
    cached: bool = False
    over: bool = False


@dataclass(frozen=True)
class Fault:
    """What is to happen at the `call`-th call of the functions of `mlcls.durable`, counted from 1.

    what: `before`, `after` or `middle` (half of the bytes are written): the process is killed there; ENOSPC or
        EACCES: the call fails so, a write after half of its bytes.
    lasting: every later call fails too.
    """

    call: int
    what: str
    lasting: bool = False


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative: the signal that killed it), and where it was.

    phase: a name of `PHASES`; saving: inside a save of a checkpoint or the moving of a bundle.
    calls: of `mlcls.durable`; epoch, step: of the last step that was done; said: what it wrote.
    """

    code: int
    phase: str
    saving: bool
    calls: int
    epoch: int
    step: int
    saves: int
    seconds: float
    said: str


class _State:
    """What a run tells its parent: shared memory, of which each child writes its own page."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, mmap.PAGESIZE)
        self.lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        self.fields = [0, 0, 0, -1, -1, 0]
        self._write()

    def _write(self) -> None:
        LAYOUT.pack_into(self.memory, 0, *self.fields)

    def set(self, index: int, value: int) -> None:
        with self.lock:
            self.fields[index] = value
            self._write()

    def add(self, index: int, value: int = 1) -> int:
        with self.lock:
            self.fields[index] += value
            self._write()
            return self.fields[index]

    def read(self) -> tuple[int, ...]:
        return LAYOUT.unpack_from(self.memory, 0)


STATE = _State()
PHASE, SAVING, CALLS, EPOCH, STEP, SAVES = range(6)
_fault: Fault | None = None
_log: list[str] = []  # the kind and file of each call, in a run that counts them


def phase(name: str) -> None:
    STATE.set(PHASE, PHASES.index(name))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def _durable(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """A function that can be ended, or fail, at a call."""

    @wraps(original)
    def call(*given: Any, **named: Any) -> Any:
        place = given[0].name if name in ("write_all", "flush") else given[0]
        if name in OTHERS and not _is_written(place, given):
            return original(*given, **named)
        number = STATE.add(CALLS)
        _log.append(f"{name} {_plain_name(place)}")
        fault = _fault
        if fault is None or number < fault.call or (number > fault.call and not fault.lasting):
            return original(*given, **named)
        if fault.what in ("ENOSPC", "EACCES"):
            return _fail(fault.what, name, original, given)
        if fault.what == "middle":
            if name == "write_all":
                file, data = given
                view = memoryview(data).cast("B")
                original(file, view[: len(view) // 2])
            _die()
        if fault.what == "after":
            original(*given, **named)
        _die()
        return None

    return call


def _is_written(place: object, given: tuple[Any, ...]) -> bool:
    """Whether something in the bundle's folder is to be made or opened for writing."""
    if not isinstance(place, str | Path) or "out" not in Path(place).parts:
        return False
    return len(given) < 2 or not isinstance(given[1], str) or bool(set("wax+") & set(given[1]))


def _fail(what: str, name: str, original: Callable[..., Any], given: tuple[Any, ...]) -> None:
    """A call that the system refuses."""
    if name == "flush_folder":  # which says nothing of what the system refuses
        return
    if what == "ENOSPC" and name == "remove":  # that works on a full disk
        original(*given)
        return
    if name == "write_all":
        file, data = given
        view = memoryview(data).cast("B")
        original(file, view[: len(view) // 2])
    number = getattr(errno, what)
    place = given[0].name if name in ("write_all", "flush") else given[0]
    raise OSError(number, os.strerror(number), str(place))


def _plain_name(path: object) -> str:
    """A file's name without the number that tells checkpoints apart."""
    name = Path(str(path)).name
    return re.sub(r"-\d+(-\d+)?\.", "-N.", name)


def _around(module: Any, name: str, during: str, *, saving: bool = False, after: str | None = None) -> None:
    """Have a function tell that it is running."""
    original = getattr(module, name)

    @wraps(original)
    def call(*given: Any, **named: Any) -> Any:
        if during:
            phase(during)
        if saving:
            STATE.add(SAVING)
        try:
            return original(*given, **named)
        finally:
            if saving:
                STATE.add(SAVING, -1)
            if after:
                phase(after)

    setattr(module, name, call)


def _watch() -> None:
    """Wrap what tells where a run is."""
    for name in DURABLE:
        setattr(durable, name, _durable(name, getattr(durable, name)))
    builtins.open = _durable("open", builtins.open)
    io.open = _durable("open", io.open)  # that of pathlib
    Path.mkdir = _durable("mkdir", Path.mkdir)  # type: ignore[method-assign]
    _around(checkpoints, "write_checkpoint", "", saving=True)
    _around(staging, "_seal_staged", "moving", saving=True)
    _around(staging, "_move", "moving", saving=True, after="bundle")
    _around(finishing, "judge", "thresholds", after="bundle")
    _around(finishing, "_export", "onnx", after="bundle")
    _around(finishing, "_draw", "pictures", after="bundle")
    _around(finishing, "_predict_test", "thresholds")
    _around(epochs, "validate", "validation")

    written = checkpoints.write_checkpoint

    def counted(*given: Any, **named: Any) -> Any:
        kept = written(*given, **named)
        STATE.add(SAVES)
        return kept

    checkpoints.write_checkpoint = counted
    shown = epochs._shown

    def entered(built: Any, epoch: int, table: Any, progress: Any) -> Any:
        phase(f"stage {progress.running.position.stage + 1}")
        return shown(built, epoch, table, progress)

    epochs._shown = entered
    look = learning_epochs._look

    def stepped(position: Any, *given: Any) -> None:
        STATE.set(EPOCH, position.epoch)
        STATE.set(STEP, len(position.losses))
        look(position, *given)

    learning_epochs._look = stepped
    remove = finishing.remove_checkpoint

    def recorded(out: Path) -> None:
        _record_last(out)
        phase("removal")
        STATE.add(SAVING)
        remove(out)
        STATE.add(SAVING, -1)
        phase("end")

    finishing.remove_checkpoint = recorded


def _record_last(out: Path) -> None:
    """Keep the last checkpoint in short: the SHA-256 of its files, and its state without the times."""
    manifest = out / "checkpoint" / "manifest.json"
    if not manifest.exists():
        return
    content = json.loads(manifest.read_text())
    state = without_times(content["state"])
    files = {
        role: digest_of((out / "checkpoint" / name).read_bytes())
        for role, (name, _) in content["files"].items()
    }
    files = {role: digest for role, digest in files.items() if not role.startswith(("rows", "train", "val"))}
    state = {key: value for key, value in state.items() if key not in ("begun", "rows", "kept")}
    Path("last.part").write_text(json.dumps({"state": state, "files": files}, indent=1, sort_keys=True))
    Path("last.part").replace("last.json")


def no_pictures(folder: Path, *_: Any) -> str:
    """What takes the place of drawing in most runs."""
    return "<p>no pictures</p>"


_watch()


def no_onnx(folder: Path, *_: Any) -> dict[str, Any]:
    """What takes the place of the export in runs that look at files alone."""
    (folder / "model.onnx").write_bytes(b"a graph")
    return {"opset": 18, "parity": 0.0}


def _in_turn() -> None:
    """Have a training wait for each checkpoint, so that the calls of mlcls.durable are the same in every run."""
    submit = Writer.submit

    def waited(writer: Writer, job: Callable[[], None]) -> None:
        submit(writer, job)
        with writer._turn:
            while writer._busy:
                writer._turn.wait()

    Writer.submit = waited  # type: ignore[method-assign]


def _child(
    folder: Path, argv: Sequence[str], fault: Fault | None, drawn: bool, light: bool, env: dict[str, str]
) -> int:
    global _fault
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.update(env)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    handle = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    _fault = fault
    _log.clear()  # of what the parent wrote
    if not drawn:
        finishing._draw = no_pictures
    if light:
        finishing._export = no_onnx
        _in_turn()
    return mlcls.train.main(argv)


class Run:
    """A training that is running in a child."""

    def __init__(
        self,
        folder: Path,
        argv: Sequence[str],
        *,
        fault: Fault | None = None,
        drawn: bool = False,
        light: bool = False,
        log: bool = False,
        worth: float = 0.0,
        env: dict[str, str],
    ) -> None:
        """Begin it in `folder`.

        Args:
            drawn: with pictures.
            light: without ONNX, and waiting for each checkpoint.
            log: leave the calls of mlcls.durable in `calls.txt`.
            worth: its `checkpoints.WORTH`; with 0 every epoch's end is saved, however short the epoch.
            env: added to the environment.
        """
        self.folder, self.started = folder, time.monotonic()
        said = folder / "said.txt"
        said.touch()
        self._before = said.stat().st_size
        STATE.clear()
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            checkpoints.WORTH = worth
            try:
                code = _child(folder, argv, fault, drawn, light, env)
                if log:
                    Path("calls.txt").write_text("\n".join(_log))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal, to the processes that load images too where it is to be so."""
        if group:
            try:
                os.killpg(self.pid, number)
                return
            except ProcessLookupError:
                pass
        os.kill(self.pid, number)

    def wait(self, until: float | None = None) -> Ended | None:
        """How it ended; None where it still runs at `until`, by `time.monotonic`."""
        while True:
            pid, status = os.waitpid(self.pid, 0 if until is None else os.WNOHANG)
            if pid:
                break
            if until is not None and time.monotonic() >= until:
                return None
            time.sleep(0.0005)
        now, saving, calls, epoch, step, saves = STATE.read()
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            self._clear()
        said = (self.folder / "said.txt").read_bytes()[self._before :].decode("utf-8", "replace")
        seconds = time.monotonic() - self.started
        return Ended(code, PHASES[now], saving > 0, calls, epoch, step, saves, seconds, said)

    def _clear(self) -> None:
        """End the processes that loaded images, which `os._exit` leaves behind."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return


class Place:
    """The toy data, a cache for each configuration, and a working folder for each run."""

    def __init__(self, root: Path, images: int = 60) -> None:
        self.root = root
        self._runs = 0
        write_toy(root / "toy", images)

    def folder(self) -> Path:
        """A new working folder."""
        self._runs += 1
        path = self.root / "runs" / f"{self._runs:04d}"
        path.mkdir(parents=True)
        return path

    def argv(self, configuration: Configuration, *more: str) -> list[str]:
        """The flags of a run: the same words in every working folder, since the record holds them."""
        cache = [] if configuration.cached else ["--image-cache-gb", "0"]
        return [
            "--labels",
            "../../toy/labels.txt",
            "--out",
            "out",
            *TINY,
            *cache,
            *configuration.flags,
            *more,
        ]

    def env(self, configuration: Configuration) -> dict[str, str]:
        return {"MLCLS_CACHE": str(self.root / "cache" / configuration.name)}

    def begin(self, configuration: Configuration, folder: Path, *more: str, **named: Any) -> Run:
        return Run(folder, self.argv(configuration, *more), env=self.env(configuration), **named)


def first_flag(folder: Path, old: Path | None) -> str:
    """How a run begins in a folder, or goes on, as a person would say it.

    Args:
        old: where the bundle was made that stood in the folder at first; None where none did.
    """
    if old is None or (folder / "out" / "checkpoint" / "manifest.json").exists():
        return "--resume"
    mine, first = folder / "out" / "bundle.json", old / "out" / "bundle.json"
    return "--overwrite" if not mine.exists() or mine.read_bytes() == first.read_bytes() else "--resume"


def fault_of(folder: Path) -> str | None:
    """What is wrong with what stands in the folder of a run that ended, however it did; None where all is whole."""
    out = folder / "out"
    try:
        if (out / "bundle.json").exists():
            verify_bundle(out)
        checkpoint = read_checkpoint(out / "checkpoint")
        for role in checkpoint.kept if checkpoint else ():
            checkpoint.tensors(role)
    except MlclsError as error:
        return f"not whole: {error}"
    if checkpoint is None and not (out / "bundle.json").exists() and out.exists():
        stray = [path.name for path in out.iterdir() if path.name != "checkpoint"]
        return f"without bundle or checkpoint there stand {stray}" if stray else None
    return None


def without_times(value: Any) -> Any:
    """JSON without the times that no two runs share."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return value


def result(folder: Path) -> dict[str, Any]:
    """What must be the same in every run: bytes of files, and JSON without times."""
    found: dict[str, Any] = {}
    out = folder / "out"
    for path in sorted(out.iterdir()):
        if path.name in ("metrics.json", "bundle.json"):
            content = without_times(json.loads(path.read_text()))
            content.pop("command", None)  # of the first of several, which may have said --overwrite
            if path.name == "bundle.json":
                del content["digest"]
                for name in WITH_TIMES:
                    content["files"].pop(name, None)
            found[path.name] = content
        elif path.name not in WITH_TIMES:
            found[path.name] = path.read_bytes() if path.is_file() else "a folder"
    last = folder / "last.json"
    found["last checkpoint"] = json.loads(last.read_text()) if last.exists() else None
    return found


def difference(expected: dict[str, Any], found: dict[str, Any]) -> str | None:
    """The files that differ and the first field of the one that the others come from, or None."""
    first = ["iterations.csv", "weights.safetensors", "predictions-val.csv", "thresholds.json"]
    names = [*first, *sorted(expected.keys() | found.keys() - {*first})]
    if found.get("last checkpoint") is None:  # killed after the last move, before it was recorded
        names = [name for name in names if name != "last checkpoint"]
    faults = [name for name in dict.fromkeys(names) if expected.get(name) != found.get(name)]
    if not faults:
        return None
    name = faults[0]
    if name not in found or name not in expected:
        what = "missing" if name in expected else "should not be there"
    elif isinstance(expected[name], bytes):
        what = _difference_of_bytes(name, expected[name], found[name])
    else:
        what = next(_paths(expected[name], found[name]))
    return f"{name}: {what}" + (f" (also: {', '.join(faults[1:])})" if faults[1:] else "")


def _difference_of_bytes(name: str, a: bytes, b: bytes) -> str:
    if name.endswith(".safetensors"):
        x, y = safetensors.torch.load(a), safetensors.torch.load(b)
        apart = {
            k: float((x[k].double() - y[k].double()).abs().max()) for k in x if not torch.equal(x[k], y[k])
        }
        return f"{len(apart)} of {len(x)} tensors differ, by up to {max(apart.values(), default=np.nan):.3g}"
    for number, (one, other) in enumerate(zip(a.splitlines(), b.splitlines(), strict=False), 1):
        if one != other:
            return f"line {number}: {one[:80]!r}, {other[:80]!r}"
    return f"{len(a)} and {len(b)} bytes"


def _paths(a: Any, b: Any, path: str = "") -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if a.get(key) != b.get(key):
                yield from _paths(a.get(key), b.get(key), f"{path}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            if x != y:
                yield from _paths(x, y, f"{path}[{index}]")
    else:
        yield f"{path}: {str(a)[:80]}, {str(b)[:80]}"
