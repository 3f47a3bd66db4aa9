"""A bundle's files: whole or absent, verified when opened, nothing outside the folder."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlcls import durable, sealed
from mlcls.bundle.files import (
    load_bundle,
    read_verified,
    replace_thresholds,
    verify_bundle,
    write_thresholds,
)
from mlcls.bundle.network import load_classifier
from mlcls.bundle.staging import prepare_folder, staged_bundle
from mlcls.bundle.writing import write_whole
from mlcls.errors import BundleError, OutputError


@pytest.fixture
def bundle(small_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle, tmp_path / "bundle"))


def test_the_files_are_there_only_when_all_of_them_are(tmp_path: Path) -> None:
    def write() -> None:
        with staged_bundle(tmp_path, {}) as folder:
            (folder / "metrics.json").write_text("{}")
            raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_earlier_bundle(bundle: Path) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}

    def write() -> None:
        with staged_bundle(bundle, {}) as folder:
            (folder / "weights.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match="disk is full"):
        write()
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    load_bundle(bundle)


def test_a_folder_that_cannot_be_written_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="a file stands there"):
        prepare_folder(tmp_path / "file", overwrite=False)
    with pytest.raises(BundleError, match="cannot be written"):
        prepare_folder(tmp_path / "file" / "below", overwrite=False)


def test_a_file_is_replaced_by_one_rename(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", b"one")
    write_whole(tmp_path / "a.json", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"two")]


def test_every_changed_byte_of_the_manifest_and_the_thresholds_is_found(bundle: Path) -> None:
    for name in ("bundle.json", "thresholds.json"):
        data = (bundle / name).read_bytes()
        for place in range(0, len(data), 37):
            for bit in (1, 4, 32, 128):  # 32 makes `E` of `e`, and a space of a NUL
                changed = bytearray(data)
                changed[place] ^= bit
                (bundle / name).write_bytes(changed)
                with pytest.raises(BundleError, match=name):
                    load_bundle(bundle)
        (bundle / name).write_bytes(data)


@pytest.mark.parametrize(
    "change", [lambda text: text + " ", lambda text: text.replace("\n", "\r\n"), json.dumps]
)
def test_white_space_that_was_not_written_is_found(change: Callable[[str], str], bundle: Path) -> None:
    text = (bundle / "thresholds.json").read_text("utf-8")
    changed = change(text) if change is not json.dumps else json.dumps(json.loads(text))
    (bundle / "thresholds.json").write_bytes(changed.encode())
    with pytest.raises(BundleError, match="damaged or edited"):
        load_bundle(bundle)


def test_bundles_of_the_former_version_still_load(bundle: Path) -> None:
    for name in ("bundle.json", "thresholds.json"):  # written as they were then
        content = json.loads((bundle / name).read_text("utf-8"))
        content.pop("digest")
        plain = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        digest = hashlib.sha256(plain.encode()).hexdigest()
        text = json.dumps({**content, "digest": digest}, indent=2, ensure_ascii=False, allow_nan=False)
        (bundle / name).write_bytes((text + "\n").encode())
    load_bundle(bundle)


@pytest.mark.parametrize("keep", [0, 10, 500])
def test_a_cut_off_manifest_is_found(bundle: Path, keep: int) -> None:
    data = (bundle / "bundle.json").read_bytes()
    (bundle / "bundle.json").write_bytes(data[:keep])
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(bundle)


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "weights.safetensors").unlink()
    with pytest.raises(BundleError, match=r"weights\.safetensors"):
        load_classifier(load_bundle(bundle))


def test_files_that_the_manifest_does_not_name_are_not_read(bundle: Path) -> None:
    (bundle.parent / "secret").write_text("x")
    with pytest.raises(BundleError, match="without this file"):
        read_verified(load_bundle(bundle), "../secret")


def test_thresholds_of_other_attributes_are_refused(bundle: Path) -> None:
    write_thresholds(bundle / "thresholds.json", load_bundle(bundle).thresholds[:2])
    with pytest.raises(BundleError, match="attributes are not those"):
        load_bundle(bundle)


def seal(folder: Path, **changes: object) -> None:
    """Rewrite a bundle's manifest as a stranger could: with a digest that fits."""
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest.pop("digest")
    (folder / "bundle.json").write_bytes(sealed.seal({**manifest, **changes}))


def test_a_newer_format_is_refused_in_a_sentence(bundle: Path) -> None:
    seal(bundle, format=99)
    with pytest.raises(BundleError, match="format 99"):
        load_bundle(bundle)


def test_a_bundle_names_no_code_to_import(bundle: Path) -> None:
    seal(bundle, head="os:system")
    with pytest.raises(BundleError, match="unknown head"):
        load_classifier(load_bundle(bundle))


@pytest.mark.parametrize("field", ["attributes", "preprocessing", "files"])
def test_a_manifest_without_a_field_is_refused(bundle: Path, field: str) -> None:
    seal(bundle, **{field: None})
    with pytest.raises(BundleError):
        load_classifier(load_bundle(bundle))


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("test_efficientnet.r160_in1k", "does not fit"),
        ("no_such_net", "cannot be built"),
        (7, "misnames a field: backbone"),
    ],
)
def test_weights_of_another_network_are_refused(backbone: object, expected: str, bundle: Path) -> None:
    seal(bundle, backbone=backbone)
    with pytest.raises(BundleError, match=expected):
        load_classifier(load_bundle(bundle))


def test_overwriting_removes_nothing_outside_the_folder(bundle: Path) -> None:
    (bundle.parent / "precious").write_text("x")
    (bundle / "mine.txt").write_text("x")
    manifest = json.loads((bundle / "bundle.json").read_text())
    seal(bundle, files={**manifest["files"], "../precious": "0", "..": "0"})
    with staged_bundle(bundle, {}) as folder:
        (folder / "thresholds.json").write_text("{}")
    assert (bundle.parent / "precious").exists()
    assert sorted(path.name for path in bundle.iterdir()) == ["bundle.json", "mine.txt", "thresholds.json"]


def reseal(bundle: Path, **changes: object) -> None:
    """Rewrite `bundle.json` with other fields (None: without the field) and a digest that fits."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest.pop("digest")
    manifest = {name: value for name, value in {**manifest, **changes}.items() if value is not None}
    (bundle / "bundle.json").write_bytes(sealed.seal(manifest))


def test_a_bundle_from_before_calibration_keeps_its_scores(bundle: Path) -> None:
    reseal(bundle, calibration=None)
    loaded = load_bundle(bundle).calibration
    assert (loaded.slope == 1).all()
    assert (loaded.intercept == 0).all()


@pytest.mark.parametrize(
    "calibration",
    [
        {"slope": [1, 1, 1]},
        {"slope": [1, 0, 1], "intercept": [0, 0, 0]},
        {"slope": [1], "intercept": [0]},
        "x",
    ],
)
def test_a_calibration_that_is_none_is_a_damaged_bundle(bundle: Path, calibration: object) -> None:
    reseal(bundle, calibration=calibration)
    with pytest.raises(BundleError, match="lacks or misnames a field"):
        load_bundle(bundle)


def cut_off(monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> None:
    """Let one of the five functions that touch the disk fail once it has been called so often."""
    real, calls = getattr(durable, name), [0]

    def fails(*arguments: object) -> None:
        calls[0] += 1
        if calls[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    monkeypatch.setattr(durable, name, fails)


def rewrite(bundle: Path) -> None:
    with staged_bundle(bundle, {"seed": 7}) as folder:
        (folder / "weights.safetensors").write_bytes(b"new")
        (folder / "thresholds.json").write_bytes(b"{}")


@pytest.mark.parametrize(("name", "after"), [("write_all", 0), ("flush", 0), ("flush", 1), ("flush", 2)])
def test_until_the_moves_the_earlier_bundle_stays_whole(
    name: str, after: int, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    cut_off(monkeypatch, name, after)
    with pytest.raises(OutputError, match="disk is full"):
        rewrite(bundle)
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_cut_off_before_the_moves_the_earlier_bundle_stands(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = load_bundle(bundle).manifest
    cut_off(monkeypatch, "rename", 0)
    with pytest.raises(OutputError, match="disk is full"):
        rewrite(bundle)
    assert verify_bundle(bundle).manifest == manifest


@pytest.mark.parametrize("after", range(1, 4))
def test_cut_off_among_the_moves_no_bundle_stands_and_nothing_is_lost(
    after: int, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(monkeypatch, "rename", after)
    with pytest.raises(OutputError, match="disk is full"):
        rewrite(bundle)
    with pytest.raises(BundleError, match="no finished bundle"):
        load_bundle(bundle)
    assert {b"new", b"{}"} <= {path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


def test_a_finished_bundle_leaves_nothing_beside_itself(bundle: Path) -> None:
    rewrite(bundle)
    assert sorted(path.name for path in bundle.iterdir()) == [
        "bundle.json", "thresholds.json", "weights.safetensors",
    ]  # fmt: skip
    assert json.loads((bundle / "bundle.json").read_text())["seed"] == 7


def test_a_folder_in_a_files_place_is_named_and_nothing_moves(bundle: Path) -> None:
    (bundle / "picture.png").mkdir()

    def write() -> None:
        with staged_bundle(bundle, {}) as folder:
            (folder / "weights.safetensors").write_bytes(b"new")
            (folder / "picture.png").write_bytes(b"")

    with pytest.raises(OutputError, match=r"picture\.png: a folder stands in the way"):
        write()
    assert (bundle / "weights.safetensors").read_bytes() != b"new"
    load_bundle(bundle)


def test_a_folder_in_a_files_place_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").mkdir()
    with pytest.raises(BundleError, match=r"a folder metrics\.json stands in the way"):
        prepare_folder(tmp_path, overwrite=True)


@pytest.mark.parametrize("names", [["a\0b"], ["\ud800"], "weights.safetensors", 7, {"/etc": ""}])
def test_what_a_strangers_manifest_names_is_not_taken_for_files(names: object, bundle: Path) -> None:
    (bundle / "bundle.json").write_text(json.dumps({"files": names}))
    rewrite(bundle)
    assert json.loads((bundle / "bundle.json").read_text())["seed"] == 7


def test_a_link_that_leads_out_of_the_bundle_is_refused(bundle: Path) -> None:
    for name in ("weights.safetensors", "thresholds.json", "bundle.json"):
        shutil.move(bundle / name, bundle.parent / name)
        (bundle / name).symlink_to(bundle.parent / name)
        with pytest.raises(BundleError, match=f"{name}: a link that leads out of the bundle"):
            load_classifier(load_bundle(bundle))


def test_a_link_within_the_bundle_and_a_link_to_the_bundle_are_none_of_our_matter(bundle: Path) -> None:
    (bundle / "weights.safetensors").rename(bundle / "blob")
    (bundle / "weights.safetensors").symlink_to("blob")
    (bundle.parent / "link").symlink_to(bundle)
    load_classifier(load_bundle(bundle.parent / "link"))


def test_no_device_and_no_pipe_is_read(bundle: Path) -> None:
    (bundle / "weights.safetensors").unlink()
    os.mkfifo(bundle / "weights.safetensors")
    with pytest.raises(BundleError, match="no file"):
        load_classifier(load_bundle(bundle))


def test_a_link_in_the_place_of_a_temporary_name_is_not_followed(bundle: Path) -> None:
    (bundle.parent / "precious").write_text("x")
    (bundle / ".thresholds.json.part").symlink_to(bundle.parent / "precious")
    write_thresholds(bundle / "thresholds.json", load_bundle(bundle).thresholds)
    assert (bundle.parent / "precious").read_text() == "x"


def test_verification_names_every_file_that_is_not_as_it_was_written(bundle: Path) -> None:
    verify_bundle(bundle)
    (bundle / "mine.txt").write_text("beside it")
    verify_bundle(bundle)
    manifest = json.loads((bundle / "bundle.json").read_text())
    seal(bundle, files={**manifest["files"], "metrics.json": "0", "../secret": "0", "a\0b": "0"})
    with (bundle / "weights.safetensors").open("r+b") as file:
        file.seek(100)
        file.write(b"?")
    (bundle / "thresholds.json").write_text("{}")
    with pytest.raises(BundleError) as raised:
        verify_bundle(bundle)
    lines = str(raised.value).splitlines()
    assert len(lines) == 5
    for name in (
        r"weights.safetensors: dam",
        "metrics.json: miss",
        "../secret",
        "a\\x00b",
        "thresholds.json: dam",
    ):
        assert any(name in line for line in lines), name


def reseal_thresholds(bundle: Path, **changes: object) -> None:
    """Rewrite the first row of `thresholds.json` as a stranger could."""
    content = json.loads((bundle / "thresholds.json").read_text())
    content.pop("digest")
    content["attributes"][0].update(changes)
    (bundle / "thresholds.json").write_bytes(sealed.seal(content))


@pytest.mark.parametrize(
    "change",
    [
        {"threshold": "0.5"},
        {"threshold": 10**400},
        {"known": 1.5},
        {"value": []},
        {"interval": [1]},
        {"x": 1},
    ],
)
def test_a_threshold_that_is_none_is_a_damaged_bundle(change: dict[str, object], bundle: Path) -> None:
    reseal_thresholds(bundle, **change)
    with pytest.raises(BundleError, match="lacks or misnames a field"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "changes",
    [
        {"attributes": "one"},
        {"attributes": [1, 2, 3]},
        {"files": [["weights.safetensors", "0"]]},
        {"files": {"weights.safetensors": 0}},
        {"preprocessing": {"image_size": 10**9}},
        {"preprocessing": {"image_size": 32, "mean": ["a", "b", "c"]}},
        {"preprocessing": {"image_size": 32, "fit": ["squash"]}},
        {"calibration": {"slope": [10**400, 1, 1], "intercept": [0, 0, 0]}},
    ],
)
def test_a_field_of_another_kind_is_a_damaged_bundle(changes: dict[str, object], bundle: Path) -> None:
    seal(bundle, **changes)
    with pytest.raises(BundleError, match="lacks or misnames a field"):
        load_bundle(bundle)


def test_thresholds_are_not_written_into_another_bundle_than_they_are_of(bundle: Path) -> None:
    loaded = load_bundle(bundle)
    replace_thresholds(loaded, loaded.thresholds)
    seal(bundle, seed=8)  # as a training that ends just now
    before = (bundle / "thresholds.json").read_bytes()
    with pytest.raises(BundleError, match="another bundle stands there now"):
        replace_thresholds(loaded, [])
    assert (bundle / "thresholds.json").read_bytes() == before
