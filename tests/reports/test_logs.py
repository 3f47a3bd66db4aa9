"""Logs for tools of others: whole, live, an epoch once; read back as the tools read them."""

import csv
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlcls.errors import RecipeError
from mlcls.reports import logs
from mlcls.reports.logs import LOGS, build_logs, final_figures, log_csv, log_tensorboard, news_of
from mlcls.reports.record import EpochFigures, Record

ENTRY = {
    "n": 20,
    "macro": {"average_precision": 0.75, "auroc": None},
    "micro": {"average_precision": 0.5},
    "hamming_loss": 0.25,
    "exact_match": None,
    "undefined": [],
    "attributes": [
        {"name": "a,b", "known": 20, "average_precision": 0.75, "auroc": None, "confusion": {"tn": 1}}
    ],
}


@pytest.fixture
def so_far(record: Record, epoch: Callable[..., EpochFigures]) -> Callable[..., Record]:
    """The record of a run after so many epochs; `done`: it is over."""

    def make(epochs: int, *, done: bool = False, **changes: Any) -> Record:
        return dataclasses.replace(
            record,
            epochs=tuple(epoch(number, **changes) for number in range(epochs)),
            stopped_because="all epochs are done" if done else None,
            evaluation={"val": ENTRY if done else None, "test": None},
        )

    return make


def rows(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text(encoding="utf-8").splitlines()))


def test_csv_has_a_row_an_epoch_and_in_the_end_every_figure(
    so_far: Callable[..., Record], tmp_path: Path
) -> None:
    folder = tmp_path / "logs" / "run"
    log_csv(folder, so_far(0))
    assert len(rows(folder / "epochs.csv")) == 1
    log_csv(folder, so_far(3, val_map=None, val_loss=0.1 + 0.2))
    table = rows(folder / "epochs.csv")
    assert table[0] == [field.name for field in dataclasses.fields(EpochFigures)]
    assert [row[0] for row in table[1:]] == ["0", "1", "2"]
    last = dict(zip(table[0], table[-1], strict=True))
    assert last["val_map"] == ""
    assert float(last["val_loss"]) == 0.1 + 0.2
    assert not (folder / "figures.csv").exists()
    log_csv(folder, so_far(3, done=True))
    figures = rows(folder / "figures.csv")
    assert ["val", "macro", "average_precision", "0.75"] in figures
    assert ["val", "a,b", "auroc", ""] in figures
    assert ["val", "", "exact_match", ""] in figures
    log_csv(folder, so_far(1))  # another run
    assert not (folder / "figures.csv").exists()
    assert len(rows(folder / "epochs.csv")) == 2


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: of each tag, step and value."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def texts(folder: Path) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    (tag,) = found.Tags()["tensors"]
    return [one.tensor_proto.string_val[0].decode() for one in found.Tensors(tag)]


def test_tensorboard_reads_scalars_by_epoch_and_the_recipe(
    so_far: Callable[..., Record], tmp_path: Path
) -> None:
    log_tensorboard(tmp_path, so_far(0))
    for epochs in (1, 2, 3):
        log_tensorboard(tmp_path, so_far(epochs, val_map=None))
        assert [step for step, _ in scalars(tmp_path)["loss/val"]] == list(range(epochs))
    log_tensorboard(tmp_path, so_far(3, done=True, val_map=None))
    found = scalars(tmp_path)
    assert found["loss/train"] == [(n, pytest.approx(0.8 * 0.9**n)) for n in range(3)]
    assert "val/map" not in found  # undefined is not 0
    assert found["val/macro/average_precision"] == [(1, 0.75)]
    assert "val/macro/auroc" not in found
    (text,) = texts(tmp_path)
    assert '"backbone": "resnet18"' in text


def test_tensorboard_has_no_epoch_twice_after_a_kill(so_far: Callable[..., Record], tmp_path: Path) -> None:
    for epochs in (0, 1, 2, 3, 4):
        log_tensorboard(tmp_path, so_far(epochs))
    for epochs in (2, 3, 4, 4, 5):  # from its checkpoint; epochs that are trained again take another time
        log_tensorboard(tmp_path, so_far(epochs, seconds=9.0, images_per_second=7.0))
    found = scalars(tmp_path)
    assert [step for step, _ in found["loss/val"]] == [0, 1, 2, 3, 4]
    assert [value for _, value in found["run/seconds"]] == [3.5, 3.5, 3.5, 3.5, 9.0]
    for _ in range(2):
        log_tensorboard(tmp_path, so_far(5, done=True))
    assert scalars(tmp_path)["val/micro/average_precision"] == [(1, 0.5)]


def test_tensorboard_drops_what_a_kill_left_of_a_record(
    so_far: Callable[..., Record], tmp_path: Path
) -> None:
    log_tensorboard(tmp_path, so_far(2))
    (events,) = tmp_path.glob("events.*")
    with events.open("ab") as file:
        file.write(b"\x40\0\0\0\0\0\0\0half a record")
    log_tensorboard(tmp_path, so_far(3))
    assert [step for step, _ in scalars(tmp_path)["loss/val"]] == [0, 1, 2]


def test_tensorboard_begins_anew_with_another_run(so_far: Callable[..., Record], tmp_path: Path) -> None:
    log_tensorboard(tmp_path, so_far(3, done=True))
    (before,) = tmp_path.glob("events.*")
    log_tensorboard(tmp_path, so_far(1, val_loss=0.125))
    (after,) = tmp_path.glob("events.*")
    assert after.name > before.name  # the order in which TensorBoard reads them
    assert scalars(tmp_path)["loss/val"] == [(0, 0.125)]
    (tmp_path / "tensorboard.json").write_text("{not json", encoding="utf-8")
    log_tensorboard(tmp_path, so_far(2, val_loss=0.125))
    assert [step for step, _ in scalars(tmp_path)["loss/val"]] == [0, 1]


def test_news_are_what_is_not_written(so_far: Callable[..., Record]) -> None:
    first = news_of(so_far(2), None)
    assert (first.anew, [number for number, _ in first.epochs], first.final) == (False, [0, 1], {})
    state = json.loads(json.dumps(first.state))
    assert news_of(so_far(2), state).epochs == ()
    assert [number for number, _ in news_of(so_far(4), state).epochs] == [2, 3]
    other = news_of(so_far(4, val_f1=0.75), state)
    assert other.anew
    assert len(other.epochs) == 4
    done = news_of(so_far(2, done=True), state)
    assert done.final == final_figures(so_far(2, done=True)) != {}
    again = news_of(so_far(2, done=True), done.state)
    assert (again.anew, again.epochs, again.final) == (False, (), {})


def parts_of(data: bytes) -> list[bytes]:
    """The records of a .wandb file: LevelDB's log format, blocks of 32 KiB, behind a head of 7 bytes."""
    found, part, at = [], b"", 7
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            found.append(part)
            part = b""
    return found


def offline_runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Of each process's part of the run: the figures of each step."""
    from wandb.proto import wandb_internal_pb2

    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        steps = found.setdefault(path.parent.name, [])
        for data in parts_of(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                steps.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    return found


def test_wandb_keeps_a_run_offline_where_no_key_is_known(
    so_far: Callable[..., Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    folder = tmp_path / "logs" / "run"
    for epochs in (0, 1, 2):
        LOGS["wandb"](folder, so_far(epochs))
    for epochs in (1, 2, 3):  # it goes on from its checkpoint
        LOGS["wandb"](folder, so_far(epochs, seconds=9.0))
    LOGS["wandb"](folder, so_far(3, done=True))
    for _ in range(300):  # its own process writes, on a busy machine a moment after the run is over
        ((name, steps),) = offline_runs(folder).items()
        if len(steps) == 3:
            break
        time.sleep(0.2)
    assert name.endswith(json.loads((folder / "wandb.json").read_text())["id"])
    assert [step["_step"] for step in steps] == [0, 1, 2]
    assert steps[1]["loss/val"] == pytest.approx(0.9 * 0.92)
    assert not list(folder.rglob("requirements.txt"))
    import wandb

    assert wandb.run is None


def test_an_unknown_log_is_told_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match="--log: unknown name 'tensorbord'; did you mean 'tensorboard'"):
        build_logs(("csv", "tensorbord"), Path())


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_package_that_is_not_installed_is_told_with_what_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "find_spec", lambda package: None)
    with pytest.raises(RecipeError, match=rf"--log {name}: .* pip install 'mlcls\[{name}\]'"):
        build_logs((name,), Path())
    build_logs(("csv",), Path())


def test_a_function_from_outside_is_a_log(record: Record, tmp_path: Path) -> None:
    build_logs(("mlcls.reports.logs:log_csv",), tmp_path)(record)
    assert (tmp_path / "epochs.csv").is_file()


def test_no_package_is_imported_before_its_log_is_called() -> None:
    import subprocess

    code = (
        "import mlcls.reports.logs as l, pathlib, sys; l.build_logs(('csv', 'tensorboard'), pathlib.Path()); "
    )
    code += "assert not {'tensorboard', 'wandb'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
