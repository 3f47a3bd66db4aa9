"""The engines agree with each other, refuse in one sentence, and check what they load."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlcls import sealed
from mlcls.bundle import engines
from mlcls.bundle.engines import ENGINES, choose_engine
from mlcls.bundle.files import load_bundle
from mlcls.bundle.predictor import Predictor
from mlcls.errors import BundleError, MlclsError, RecipeError
from mlcls.evaluate import main as evaluate
from mlcls.predict import main as predict

Photos = Callable[[int], list[str]]


@pytest.fixture
def bundle(onnx_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(onnx_bundle, tmp_path / "bundle"))


def without_model(bundle: Path) -> Path:
    """The bundle as it would be had the export failed."""
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest.pop("digest")
    manifest["files"].pop("model.onnx")
    (bundle / "bundle.json").write_bytes(sealed.seal({**manifest, "onnx": None}))
    (bundle / "model.onnx").unlink()
    return bundle


def needs(engine: str) -> None:
    if engine == "openvino":
        pytest.importorskip("openvino")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_same_rows_and_features(
    engine: str, onnx_bundle: Path, photos: Photos
) -> None:
    needs(engine)
    paths = photos(9)
    by_torch, found = Predictor(onnx_bundle, engine="torch"), Predictor(onnx_bundle, engine=engine)
    assert found.engine == engine
    wanted = by_torch.predict(paths)
    spread = [attribute["probability"] for row in wanted for attribute in row["attributes"]]
    assert max(spread) - min(spread) > 0.2  # else agreement would mean little
    for row, other in zip(wanted, found.predict(paths), strict=True):
        assert row["image"] == other["image"]
        assert row["present"] == other["present"]
        ours, theirs = ([one["probability"] for one in r["attributes"]] for r in (row, other))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    embedded = found.embed(paths)
    assert embedded.dtype == np.float32
    np.testing.assert_allclose(embedded, by_torch.embed(paths), atol=1e-3)
    assert found.embed([]).shape == (0, embedded.shape[1])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_scores_the_same_alone_and_among_others(
    engine: str, onnx_bundle: Path, photos: Photos
) -> None:
    needs(engine)
    paths, predictor = photos(40), Predictor(onnx_bundle, engine=engine)
    alone = predictor.predict(paths[-1])[0]
    among = predictor.predict(paths)[-1]
    for one, other in zip(alone["attributes"], among["attributes"], strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_by_itself_the_engine_is_onnx_on_the_cpu_and_torch_elsewhere(onnx_bundle: Path) -> None:
    bundle = load_bundle(onnx_bundle)
    assert choose_engine(bundle, "auto", "auto") == ("onnx", None)
    assert choose_engine(bundle, "auto", "cpu") == ("onnx", None)
    assert choose_engine(bundle, "auto", "cuda:1") == ("torch", None)
    assert choose_engine(bundle, "torch", "auto") == ("torch", None)
    with pytest.raises(RecipeError, match="did you mean 'onnx'"):
        choose_engine(bundle, "onx", "auto")


def test_a_bundle_without_the_model_predicts_through_torch_and_says_so_once(
    bundle: Path, photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = photos(3)
    assert predict(["--model", str(without_model(bundle)), "--format", "json", "--image", *paths]) == 0
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if "model.onnx" in line]
    assert len(said) == 1
    assert "predicting through PyTorch" in said[0]
    assert [row["image"] for row in json.loads(captured.out)] == paths


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_an_engine_without_its_model_says_what_to_do(engine: str, bundle: Path) -> None:
    needs(engine)
    with pytest.raises(BundleError, match=f"--engine {engine}: .*has no model.onnx.*--engine torch"):
        Predictor(without_model(bundle), engine=engine)


@pytest.mark.parametrize(
    ("engine", "install"),
    [
        ("onnx", "pip install onnxruntime"),
        ("openvino", "pip install openvino"),
        ("torch", "pip install torch"),
    ],
)
def test_an_engine_that_is_not_installed_says_what_to_install(
    engine: str, install: str, onnx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_is_there", lambda module: False)
    with pytest.raises(RecipeError, match=install):
        Predictor(onnx_bundle, engine=engine)


def test_by_itself_torch_steps_in_where_onnx_runtime_is_not_installed(
    onnx_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_is_there", lambda module: module != "onnxruntime")
    predictor = Predictor(onnx_bundle)
    assert predictor.engine == "torch"
    assert "pip install onnxruntime" in str(predictor.note)


@pytest.mark.parametrize(
    ("engine", "module"), [("onnx", "onnxruntime"), ("openvino", "openvino"), ("torch", "torch")]
)
@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_an_engine_that_cannot_be_imported_is_one_message(
    engine: str, module: str, error: str, onnx_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise {error}('libgone.so: no such library')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(RecipeError, match=f"--engine {engine}: .*cannot be imported .*libgone.so"):
        Predictor(onnx_bundle, engine=engine)
    if engine == "onnx":
        predictor = Predictor(onnx_bundle)
        assert predictor.engine == "torch"
        assert "libgone.so" in str(predictor.note)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_engines_of_the_cpu_refuse_another_device(engine: str, onnx_bundle: Path) -> None:
    needs(engine)
    with pytest.raises(RecipeError, match="computes on the CPU"):
        Predictor(onnx_bundle, engine=engine, device="cuda")


def test_a_changed_model_is_found_before_it_is_run(bundle: Path) -> None:
    data = bytearray((bundle / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.onnx: damaged or changed"):
        Predictor(bundle)
    (bundle / "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx: missing; the bundle is damaged"):
        Predictor(bundle)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_file_that_is_no_model_is_one_message(engine: str, bundle: Path) -> None:
    needs(engine)
    model = b"\x08\x0a"  # ONNX's version, and nothing else
    (bundle / "model.onnx").write_bytes(model)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest.pop("digest")
    manifest["files"]["model.onnx"] = sealed.digest_of(model)
    (bundle / "bundle.json").write_bytes(sealed.seal(manifest))
    with pytest.raises(MlclsError, match=r"model\.onnx: .*cannot load it"):
        Predictor(bundle, engine=engine)


@pytest.mark.parametrize("engine", ["onnx", "openvino"])
@pytest.mark.parametrize(("field", "value"), [("image_size", 40), ("attributes", None)])
def test_a_model_of_another_bundle_is_one_message(
    field: str, value: int | None, engine: str, bundle: Path
) -> None:
    """Sealed anew by hand: the digests fit, the model does not."""
    needs(engine)
    for name, rows in (("bundle.json", None), ("thresholds.json", "attributes")):
        content = json.loads((bundle / name).read_text())
        content.pop("digest")
        if field == "image_size" and rows is None:
            content["preprocessing"]["image_size"] = value
        if field == "attributes":
            content["attributes"] = content["attributes"][:-1]
            if rows is None and content.get("calibration"):
                for numbers in content["calibration"].values():
                    numbers.pop()
        (bundle / name).write_bytes(sealed.seal(content))
    with pytest.raises(BundleError, match=r"model\.onnx: (does not take the images|gives \d+ scores)"):
        Predictor(bundle, engine=engine)


def test_openvino_is_optional() -> None:
    assert importlib.util.find_spec("openvino") is not None, (
        "the tests want it: requirements-dev.txt names it"
    )


def test_evaluating_another_table_takes_an_engine_too(
    toy_bundle: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for engine in ("torch", "auto"):
        flags = ["--labels", str(toy), "--engine", engine, "--format", "json", "--resamples", "0"]
        assert evaluate(["--model", str(toy_bundle), *flags]) == 0
        found[engine] = json.loads(capsys.readouterr().out)
    assert found["torch"]["n"] == found["auto"]["n"] == 60
    for figure in ("average_precision", "auroc"):
        assert found["torch"]["macro"][figure] == pytest.approx(found["auto"]["macro"][figure], abs=1e-6)


def test_an_engine_for_nothing_to_predict_is_refused(
    toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(["--model", str(toy_bundle), "--engine", "torch"]) == 2
    assert "--engine torch: nothing is predicted without --labels" in capsys.readouterr().err
