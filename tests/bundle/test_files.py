"""A bundle's files: whole or absent, verified when opened, nothing outside the folder."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from mlcls.bundle.files import (
    load_bundle,
    prepare_folder,
    read_verified,
    staged_bundle,
    write_thresholds,
    write_whole,
)
from mlcls.bundle.network import load_classifier
from mlcls.errors import BundleError, OutputError


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_bundle, tmp_path / "bundle"))


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


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(BundleError, match="unfinished run"):
        prepare_folder(tmp_path, overwrite=False)
    prepare_folder(tmp_path, overwrite=True)


def test_a_file_is_replaced_by_one_rename(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.json", b"one")
    write_whole(tmp_path / "a.json", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"two")]


def test_every_changed_byte_of_the_manifest_and_the_thresholds_is_found(bundle: Path) -> None:
    for name in ("bundle.json", "thresholds.json"):
        data = (bundle / name).read_bytes()
        for place in range(0, len(data), 37):
            changed = bytearray(data)
            changed[place] ^= 4
            (bundle / name).write_bytes(changed)
            try:
                load_bundle(bundle)
            except BundleError:
                continue
            # the one change that means nothing: white space between the parts
            assert json.loads(bytes(changed)) == json.loads(data)
        (bundle / name).write_bytes(data)


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
    from mlcls.bundle import files

    manifest = json.loads((folder / "bundle.json").read_text())
    manifest.pop("digest")
    (folder / "bundle.json").write_bytes(files._sealed({**manifest, **changes}))


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
        (7, "cannot be built"),
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
    from mlcls.bundle.files import _sealed

    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest.pop("digest")
    manifest = {name: value for name, value in {**manifest, **changes}.items() if value is not None}
    (bundle / "bundle.json").write_bytes(_sealed(manifest))


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
