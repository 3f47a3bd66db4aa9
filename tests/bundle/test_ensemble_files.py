"""Ensembles on disk: members in their folders, verified with the whole, replaced and removed with it."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from untrained_bundle import ATTRIBUTES, write_bundle, write_ensemble

from mlcls import durable
from mlcls.bundle.ensemble import ensemble_manifest
from mlcls.bundle.files import load_bundle, read_verified, replace_thresholds, verify_bundle
from mlcls.errors import BundleError, OutputError
from mlcls.sealed import digest_of, seal, unseal


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles of other weights and sizes, without model.onnx. Tests must not change them."""
    folder = tmp_path_factory.mktemp("members")
    return [
        write_bundle(folder / f"m{seed}", with_model=False, seed=seed, size=16 * (seed + 1))
        for seed in range(2)
    ]


@pytest.fixture
def ensemble(members: list[Path], tmp_path: Path) -> Path:
    return write_ensemble(tmp_path / "out", members)


def files_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def reseal(path: Path, change: Callable[[dict], None]) -> None:
    content = unseal(path.read_bytes())
    change(content)
    path.unlink()  # a second name of a file that other tests need
    path.write_bytes(seal(content))


def test_an_ensemble_holds_its_members_whole(ensemble: Path, members: list[Path]) -> None:
    bundle = verify_bundle(ensemble)
    assert bundle.attributes == ATTRIBUTES
    assert bundle.networks == bundle.members
    assert [member.folder for member in bundle.members] == [
        ensemble / "members" / f"fold-{n}" for n in (0, 1)
    ]
    assert [member.preprocessing.image_size for member in bundle.members] == [16, 32]
    for number, member in enumerate(members):
        assert files_of(ensemble / "members" / f"fold-{number}") == files_of(member)
    assert set(bundle.manifest["files"]) == {f"members/fold-{n}/bundle.json" for n in (0, 1)}
    assert not (ensemble / "checkpoint").exists()
    with pytest.raises(BundleError, match="an ensemble has no network of its own"):
        _ = bundle.preprocessing


def test_an_ordinary_bundle_is_its_own_network(members: list[Path]) -> None:
    bundle = load_bundle(members[0])
    assert bundle.networks == (bundle,)
    assert bundle.tta == "none"


def test_the_copies_are_independent_of_what_becomes_of_the_members(
    members: list[Path], tmp_path: Path
) -> None:
    own = [Path(shutil.copytree(member, tmp_path / member.name)) for member in members]
    ensemble = write_ensemble(tmp_path / "out", own)
    replace_thresholds(load_bundle(own[0]), load_bundle(own[0]).thresholds)
    shutil.rmtree(own[1])
    verify_bundle(ensemble)


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP])
def test_where_there_are_no_hard_links_files_are_copied(
    number: int, members: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    verify_bundle(write_ensemble(tmp_path / "out", members))


def test_every_damaged_file_of_a_member_is_named(ensemble: Path) -> None:
    for number in (0, 1):
        path = ensemble / "members" / f"fold-{number}" / "weights.safetensors"
        data = path.read_bytes()
        path.unlink()  # it is a second name of a file that other tests need
        path.write_bytes(data[:-1] + b"x")
    with pytest.raises(BundleError) as caught:
        verify_bundle(ensemble)
    said = str(caught.value).splitlines()
    assert len(said) == 2
    assert all(f"fold-{n}/weights.safetensors: damaged" in said[n] for n in (0, 1))


def test_another_bundle_in_the_place_of_a_member_is_refused(ensemble: Path) -> None:
    shutil.rmtree(ensemble / "members" / "fold-0")
    shutil.copytree(ensemble / "members" / "fold-1", ensemble / "members" / "fold-0")
    with pytest.raises(BundleError, match=r"fold-0/bundle.json: damaged or changed"):
        load_bundle(ensemble)
    shutil.rmtree(ensemble / "members" / "fold-0")
    with pytest.raises(BundleError, match=r"fold-0: missing; the ensemble is damaged"):
        load_bundle(ensemble)


@pytest.mark.parametrize(
    "names",
    [
        ["../other"],
        ["/etc"],
        ["members/.."],
        ["members/a/b"],
        ["members/a\\b"],
        ["checkpoint/fold-0"],
        ["members/fold-0", "members/fold-0"],
        [],
        "members/fold-0",
        [7],
        {},
    ],
)
def test_what_a_stranger_calls_a_member_is_not_opened(names: object, ensemble: Path) -> None:
    reseal(ensemble / "bundle.json", lambda content: content.update(members=names))
    with pytest.raises(BundleError, match=r"members"):
        load_bundle(ensemble)


def test_a_link_that_leads_out_is_no_member(ensemble: Path, members: list[Path]) -> None:
    shutil.rmtree(ensemble / "members" / "fold-0")
    (ensemble / "members" / "fold-0").symlink_to(members[0], target_is_directory=True)
    with pytest.raises(BundleError, match="a link that leads out of the bundle"):
        load_bundle(ensemble)


def test_an_ensemble_is_no_member(ensemble: Path, tmp_path: Path) -> None:
    bundle = load_bundle(ensemble)
    with pytest.raises(BundleError, match="an ensemble as a member of another"):
        ensemble_manifest([bundle], ["fold-0"], seed=0)
    inner = ensemble / "members" / "fold-0"  # a stranger's, that names itself
    reseal(inner / "bundle.json", lambda content: content.update(members=["members/fold-0"]))
    digest = digest_of((inner / "bundle.json").read_bytes())
    reseal(
        ensemble / "bundle.json",
        lambda content: content["files"].update({"members/fold-0/bundle.json": digest}),
    )
    for opened in (load_bundle, verify_bundle):
        with pytest.raises(BundleError, match="an ensemble as a member of another"):
            opened(ensemble)


def test_members_of_other_attributes_are_refused_by_name(members: list[Path], tmp_path: Path) -> None:
    other = write_bundle(tmp_path / "other", with_model=False, attributes=("one", "two", "four"))
    with pytest.raises(BundleError, match=r"lacks the attributes four of .*other"):
        ensemble_manifest([load_bundle(members[0]), load_bundle(other)], ["a", "b"], seed=0)


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["a", "../b"], ["a", ""]])
def test_names_of_members_are_names_of_folders(names: list[str], members: list[Path]) -> None:
    with pytest.raises(ValueError, match="a different folder's name for each"):
        ensemble_manifest([load_bundle(member) for member in members], names, seed=0)


def test_a_smaller_ensemble_leaves_nothing_of_a_larger_one(ensemble: Path, members: list[Path]) -> None:
    (ensemble / "members" / "notes.txt").write_text("a person's own")
    write_ensemble(ensemble, members[1:])
    verify_bundle(ensemble)
    assert sorted(path.name for path in (ensemble / "members").iterdir()) == ["fold-0", "notes.txt"]
    assert files_of(ensemble / "members" / "fold-0") == files_of(members[1])


def test_an_ordinary_bundle_leaves_nothing_of_an_ensemble(ensemble: Path) -> None:
    write_bundle(ensemble, with_model=False)
    assert sorted(path.name for path in ensemble.iterdir()) == [
        "bundle.json",
        "thresholds.json",
        "weights.safetensors",
    ]
    assert verify_bundle(ensemble).members == ()


def test_removal_touches_no_file_outside(ensemble: Path, members: list[Path], tmp_path: Path) -> None:
    outside = Path(shutil.copytree(members[0], tmp_path / "outside"))
    before = files_of(outside)
    shutil.rmtree(ensemble / "members" / "fold-0")
    (ensemble / "members" / "fold-0").symlink_to(outside, target_is_directory=True)
    write_bundle(ensemble, with_model=False)
    assert files_of(outside) == before
    with pytest.raises(OutputError, match="stands in the way of the bundle's folder"):
        write_ensemble(ensemble, members)
    assert files_of(outside) == before
    verify_bundle(ensemble)


def test_cut_off_at_any_move_the_next_attempt_ends_whole(
    members: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over an older ensemble of three: no `bundle.json` half way, and in the end nothing of the older one."""
    third, whole = (
        write_bundle(tmp_path / "third", seed=2),
        files_of(write_ensemble(tmp_path / "new", members)),
    )
    older = write_ensemble(tmp_path / "older", [third, *members])
    calls = 0
    for fails_at in range(0, 100, 7):  # of about forty renames and removals
        out = Path(shutil.copytree(older, tmp_path / f"out{fails_at}"))
        with monkeypatch.context() as patch:
            calls = 0

            def counted(function: Callable[..., None], last: int = fails_at) -> Callable[..., None]:
                def call(*arguments: Path) -> None:
                    nonlocal calls
                    calls += 1
                    if calls > last:
                        raise KeyboardInterrupt
                    function(*arguments)

                return call

            patch.setattr(durable, "rename", counted(durable.rename))
            patch.setattr(durable, "remove", counted(durable.remove))
            try:
                write_ensemble(out, members)
            except KeyboardInterrupt:
                done = False
            else:
                done = True
        if (out / "bundle.json").exists():
            assert len(verify_bundle(out).members) in (2, 3)
        if done:
            break
        write_ensemble(out, members)
        assert files_of(out) == whole
    assert 20 < calls < 100


def test_thresholds_of_an_ensemble_are_replaced_alone(ensemble: Path) -> None:
    bundle, before = load_bundle(ensemble), files_of(ensemble)
    replace_thresholds(bundle, bundle.thresholds[::-1][::-1])
    assert files_of(ensemble) == before
    assert json.loads((ensemble / "thresholds.json").read_text())["attributes"][0]["threshold"] == 0.3


def test_a_file_of_a_member_is_read_through_the_member(ensemble: Path) -> None:
    bundle = load_bundle(ensemble)
    with pytest.raises(BundleError, match="written without this file"):
        read_verified(bundle, "members/fold-0/weights.safetensors")
    assert read_verified(bundle.members[0], "weights.safetensors")
