"""Trials that processes share: which runs next, which is found dead and run again, what is kept after a kill."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from optuna.trial import TrialState

from mlcls.errors import RecipeError
from mlcls.workflows.search import asking
from mlcls.workflows.search.asking import ATTEMPTS, Ended, count_over, give_back, next_trial, revive, tell
from mlcls.workflows.search.search_space import Choices, Planned, Range, Space
from mlcls.workflows.search.study import Shared, agree, open_study, plan

SPACE: Space = {"lr_finetune": Range(1e-5, 1e-2, log=True), "optimizer": Choices(("adam", "sgd"))}
DIES = """
import os, sys
from pathlib import Path
from mlcls.workflows.search.asking import next_trial
from mlcls.workflows.search.search_space import Choices, Range
from mlcls.workflows.search.study import open_study
space = {"lr_finetune": Range(1e-5, 1e-2, log=True), "optimizer": Choices(("adam", "sgd"))}
with open_study(sys.argv[1], "t", Path(sys.argv[2]), space, metric="val_map", seed=0, warmup=0) as shared:
    for _ in range(int(sys.argv[3])):
        trial = next_trial(shared, 100, lambda folder: None)
        trial.set_user_attr("folder", str(Path(sys.argv[2], f"trial-{trial.number}").absolute()))
    print("running", flush=True)
    sys.stdin.read(1)
    os._exit(9)
"""


@pytest.fixture(params=["trials.journal", "sqlite:///trials.db"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return str(request.param)


@contextmanager
def opened(storage: str, out: str = "out") -> Iterator[Shared]:
    Path(out).mkdir(exist_ok=True)
    with open_study(storage, "t", Path(out), SPACE, metric="val_map", seed=0, warmup=0) as shared:
        yield shared


def nothing(folder: Path) -> Ended | None:
    return None


def states(shared: Shared) -> list[TrialState]:
    return [trial.state for trial in shared.study.get_trials(deepcopy=False)]


@contextmanager
def another(storage: str, trials: int = 1, out: str = "out") -> Iterator["subprocess.Popen[str]"]:
    """A process that has begun trials, and dies without a word when the block is left, if it has not before."""
    started = subprocess.Popen(
        [sys.executable, "-c", DIES, storage, out, str(trials)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert started.stdout is not None
    try:
        assert started.stdout.readline() == "running\n"
        yield started
    finally:
        started.kill()
        started.communicate()


def test_no_more_trials_are_begun_than_asked_for_those_of_other_processes_among_them(storage: str) -> None:
    with opened(storage) as one, opened(storage) as other:
        first, second = next_trial(one, 3, nothing), next_trial(other, 3, nothing)
        assert first is not None
        assert second is not None
        assert {first.number, second.number} == {0, 1}
        tell(one, first, (TrialState.COMPLETE, 0.5, {"val_loss": 0.1}))
        tell(other, second, (TrialState.FAIL, None, {"reason": "out of memory"}))
        third = next_trial(other, 3, nothing)
        assert third is not None
        fourth = next_trial(one, 3, nothing)  # the one that failed does not count
        assert fourth is not None
        assert next_trial(one, 3, nothing) is None
        tell(one, fourth, (TrialState.PRUNED, None, {}))
        tell(other, third, (TrialState.COMPLETE, 0.7, {}))
        assert count_over(one) == 3
        assert next_trial(other, 3, nothing) is None
        assert one.study.best_value == 0.7
        assert one.study.trials[0].user_attrs["val_loss"] == 0.1


def test_what_a_trial_draws_is_a_function_of_the_seed_and_those_before_it(tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        values = []
        for _ in range(2):  # opened anew between two trials, as after a kill
            with opened(str(tmp_path / f"{name}.journal"), str(tmp_path / name)) as shared:
                for _ in range(4):
                    trial = next_trial(shared, 100, nothing)
                    assert trial is not None
                    values.append(tuple(trial.params.values()))
                    tell(shared, trial, (TrialState.COMPLETE, trial.params["lr_finetune"], {}))
        drawn.append(values)
    assert drawn[0] == drawn[1]
    assert len({lr for lr, _ in drawn[0]}) == 8


def test_trials_of_a_process_that_died_are_run_again_with_their_values(storage: str) -> None:
    with another(storage, trials=2) as process, opened(storage) as shared:
        with shared.turn:
            revive(shared, nothing)
        assert states(shared) == [TrialState.RUNNING] * 2  # it lives
        process.kill()
        process.wait()
        again = next_trial(shared, 2, nothing)
        assert again is not None
        assert states(shared)[:3] == [TrialState.FAIL, TrialState.FAIL, TrialState.RUNNING]
        second = next_trial(shared, 2, nothing)
        assert second is not None
        assert next_trial(shared, 2, nothing) is None
        trials = shared.study.trials
        assert len(trials) == 4
        for old, new in ((0, again), (1, second)):
            assert trials[old].params == new.params
            assert trials[old].user_attrs["reason"] == asking.DIED
            assert new.user_attrs["again_of"] == old
    assert not list(Path("out").glob("workers/*"))


def test_values_whose_process_dies_again_and_again_are_given_up(storage: str) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        with another(storage), opened(storage) as shared:
            found = shared.study.trials
            assert len(found) == attempt
            assert found[-1].user_attrs.get("attempt", 1) == attempt
            assert len({trial.params["lr_finetune"] for trial in found}) == 1
    with opened(storage) as shared:
        fresh = next_trial(shared, 100, nothing)
        assert fresh is not None
        assert fresh.params["lr_finetune"] != shared.study.trials[0].params["lr_finetune"]
        assert states(shared) == [*[TrialState.FAIL] * ATTEMPTS, TrialState.RUNNING]


def test_a_trial_that_had_ended_before_its_process_died_is_kept_as_it_ended(storage: str) -> None:
    folders = []

    def left(folder: Path) -> Ended:
        folders.append(folder)
        return TrialState.COMPLETE, 0.9, {"val_map": 0.9}

    with another(storage):
        pass
    with opened(storage) as shared:
        assert next_trial(shared, 1, left) is None
        assert states(shared) == [TrialState.COMPLETE]
        assert shared.study.best_value == 0.9
    assert folders == [Path("out/trial-0").absolute()]


def test_a_trial_given_back_is_run_again_as_often_as_it_takes(storage: str) -> None:
    with opened(storage) as shared:
        plan(shared, (Planned("Trial 1", {"lr_finetune": 1e-3, "optimizer": "sgd"}, {"epochs": 7}),))
        plan(shared, (Planned("Trial 1", {"lr_finetune": 1e-3, "optimizer": "sgd"}, {"epochs": 7}),))
        for _ in range(ATTEMPTS + 2):
            trial = next_trial(shared, 1, nothing)
            assert trial is not None
            assert trial.params == {"lr_finetune": 1e-3, "optimizer": "sgd"}
            assert trial.user_attrs["fields"] == {"epochs": 7}
            assert trial.user_attrs["name"] == "Trial 1"
            give_back(shared, trial, "it was interrupted")
        assert states(shared).count(TrialState.FAIL) == ATTEMPTS + 2
        assert states(shared).count(TrialState.WAITING) == 1


def test_of_another_machine_only_silence_tells(storage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(storage) as shared:
        there, silent = next_trial(shared, 9, nothing), next_trial(shared, 9, nothing)
        assert there is not None
        assert silent is not None
        for trial in (there, silent):
            trial.set_user_attr("worker", {"host": "elsewhere", "number": 1, "lock": "/nowhere/at/all"})
        silent.set_user_attr("seen", time.time() - asking.LOST - 60)
        with shared.turn:
            revive(shared, nothing)
        assert states(shared) == [TrialState.RUNNING, TrialState.FAIL, TrialState.WAITING]
        tell(shared, silent, (TrialState.COMPLETE, 0.5, {}))  # it comes back: what is kept stays
        assert states(shared)[1] == TrialState.FAIL


def test_a_journal_whose_last_line_was_cut_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with opened("t.journal") as shared:
        trial = next_trial(shared, 9, nothing)
        assert trial is not None
        tell(shared, trial, (TrialState.COMPLETE, 0.5, {}))
    whole = Path("t.journal").read_bytes()
    Path("t.journal").write_bytes(whole + b'{"op_code":4,"wor')
    with opened("t.journal") as shared:
        assert count_over(shared) == 1
        trial = next_trial(shared, 9, nothing)
        assert trial is not None
        assert trial.number == 1
    assert Path("t.journal").read_bytes().startswith(whole)


@pytest.mark.parametrize("content", ["image,cat\na.png,1\n", "x", '{"a": 1}\n'])
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(RecipeError, match="no journal of trials"), opened(str(path), str(tmp_path / "out")):
        pass
    assert path.read_text() == content
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["labels.csv"]


@pytest.mark.parametrize("url", ["postgres://here/x", "sqlite:////nowhere/at/all/x.db", "nonsense://"])
def test_a_database_that_cannot_be_opened_is_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(RecipeError, match="--storage"), opened(url, str(tmp_path / "out")):
        pass


@pytest.mark.parametrize("place", ["folder", "file/x.journal", "/proc/x.journal"])
def test_a_place_where_no_journal_can_be_is_refused_and_not_waited_for(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    storage = str(tmp_path / place)
    with pytest.raises(RecipeError, match=r"--storage .*; name a"), opened(storage, str(tmp_path / "out")):
        pass
    assert (tmp_path / "file").read_text() == "x"


def test_a_study_that_was_begun_otherwise_is_refused_with_all_that_differs(storage: str) -> None:
    with opened(storage) as shared:
        agree(shared, {"--epochs": 5, "--head": "mlp", "--metric": "val_map"})
        agree(shared, {"--epochs": 5, "--head": "mlp", "--metric": "val_map"})
        with pytest.raises(RecipeError) as caught:
            agree(shared, {"--epochs": 6, "--head": "mlp", "--metric": "val_f1"})
    assert "--epochs: 5 then, 6 now" in str(caught.value)
    assert "--metric: val_map then, val_f1 now" in str(caught.value)
    assert "--head" not in str(caught.value)
