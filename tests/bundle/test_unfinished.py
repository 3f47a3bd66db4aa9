"""A folder with an unfinished run: what may be done to it, and what is said of it."""

import errno
import shutil
from pathlib import Path

import pytest

from mlcls import durable
from mlcls.bundle.files import load_bundle
from mlcls.bundle.staging import prepare_folder, staged_bundle
from mlcls.bundle.unfinished import remove_checkpoint, unfinished_notes
from mlcls.errors import BundleError, OutputError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with an unfinished run."""
    checkpoint = tmp_path / "my out" / "checkpoint"
    (checkpoint / "bundle").mkdir(parents=True)
    for name in ("manifest.json", "first-1.safetensors", ".manifest.json.part", "bundle/metrics.json"):
        (checkpoint / name).write_text("{}")
    return checkpoint.parent


def test_an_unfinished_run_is_refused_without_a_flag_that_says_what_to_do(out: Path) -> None:
    with pytest.raises(BundleError, match="--resume goes on with it, --overwrite begins anew"):
        prepare_folder(out, overwrite=False)
    before = sorted(out.rglob("*"))
    prepare_folder(out, overwrite=True)
    prepare_folder(out, overwrite=False, resume=True)
    assert sorted(out.rglob("*")) == before


def test_a_run_cut_off_among_its_last_moves_goes_on(out: Path) -> None:
    (out / "weights.safetensors").write_text("")
    prepare_folder(out, overwrite=False, resume=True)
    remove_checkpoint(out)
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        prepare_folder(out, overwrite=False, resume=True)


def test_a_finished_bundle_is_refused_and_with_resume_left_to_the_caller(
    small_bundle: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(small_bundle, tmp_path / "bundle"))
    with pytest.raises(BundleError, match="a finished bundle stands there"):
        prepare_folder(bundle, overwrite=False)
    prepare_folder(bundle, overwrite=False, resume=True)
    prepare_folder(bundle, overwrite=True)


def test_what_a_run_left_before_its_first_checkpoint_counts_as_none(out: Path) -> None:
    (out / "checkpoint" / "manifest.json").unlink()
    prepare_folder(out, overwrite=False)
    remove_checkpoint(out)
    assert list(out.iterdir()) == []


def test_a_folder_of_that_name_that_no_run_wrote_is_left_alone(out: Path) -> None:
    (out / "checkpoint" / "manifest.json").unlink()
    (out / "checkpoint" / "model.pth").write_text("mine")
    with pytest.raises(BundleError, match=r"model\.pth was not written by a training"):
        prepare_folder(out, overwrite=True)


def test_a_link_of_that_name_is_refused_and_not_followed(out: Path) -> None:
    elsewhere = (out / "checkpoint").rename(out.parent / "elsewhere")
    (out / "checkpoint").symlink_to(elsewhere)
    with pytest.raises(BundleError, match="is no folder"):
        prepare_folder(out, overwrite=True)
    remove_checkpoint(out)
    assert (elsewhere / "manifest.json").exists()


def test_removal_begins_with_the_manifest(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(durable, "remove", lambda path: removed.append(path.name))
    with pytest.raises(OutputError, match="cannot be removed"):  # nothing was: folders are not empty
        remove_checkpoint(out)
    assert removed[0] == "manifest.json"


def test_a_model_that_is_an_unfinished_run_says_how_to_go_on(out: Path) -> None:
    with pytest.raises(
        BundleError, match=r"unfinished run; go on with: python -m mlcls.train --out '.*my out' "
    ):
        load_bundle(out)


def test_a_bundle_with_a_newer_run_over_it_is_used_and_that_is_said(small_bundle: Path, out: Path) -> None:
    shutil.copytree(small_bundle, out, dirs_exist_ok=True)
    load_bundle(out)
    (note,) = unfinished_notes(small_bundle, out, out.parent)
    assert note.startswith(f"an unfinished run stands in {out / 'checkpoint'}")


def test_an_unfinished_run_without_a_bundle_is_no_note_but_an_error(out: Path) -> None:
    assert unfinished_notes(out) == []


def test_a_full_disk_at_the_end_of_a_run_says_how_to_go_on(out: Path) -> None:
    def write() -> None:
        with staged_bundle(out, {}) as folder:
            raise OSError(errno.ENOSPC, "No space left on device", str(folder / "weights.safetensors"))

    with pytest.raises(OutputError, match=r"disk is full.* The training is kept; then: python .* --resume"):
        write()
    assert (out / "checkpoint" / "manifest.json").exists()


def test_staging_leaves_the_run_as_it_is(out: Path) -> None:
    def write() -> None:
        with staged_bundle(out, {}) as folder:
            assert list(folder.iterdir()) == []
            (folder / "metrics.json").write_text("{}")
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        write()
    assert [path.name for path in out.iterdir()] == ["checkpoint"]
    kept = sorted(path.name for path in (out / "checkpoint").iterdir())
    assert kept == [".manifest.json.part", "first-1.safetensors", "manifest.json"]


@pytest.mark.parametrize("moves", [1, 2])
def test_cut_off_among_the_moves_over_an_older_bundle_no_file_of_it_is_left_in_the_end(
    out: Path, monkeypatch: pytest.MonkeyPatch, moves: int
) -> None:
    def write() -> None:
        with staged_bundle(out, {}) as folder:
            (folder / "metrics.json").write_text("new")

    (out / "bundle.json").write_text('{"files": {"groups.csv": "", "metrics.json": ""}}')
    for name in ("groups.csv", "metrics.json", "mine.txt"):
        (out / name).write_text("old")
    rename, count = durable.rename, 0

    def cut_off(path: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count > moves:
            raise KeyboardInterrupt
        rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "rename", cut_off)
        with pytest.raises(KeyboardInterrupt):
            write()
    assert not (out / "bundle.json").exists()
    write()
    found = sorted(path.name for path in out.iterdir())
    assert found == ["bundle.json", "checkpoint", "metrics.json", "mine.txt"]
    assert (out / "metrics.json").read_text() == "new"
    remove_checkpoint(out)
    assert not (out / "checkpoint").exists()
