"""The rooms keep to their layers: what each file imports is read from its syntax tree, and from running processes."""

import ast
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from untrained_bundle import write_bundle

import mlcls

PACKAGE = Path(mlcls.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

GROUND = {"durable", "errors", "folders", "missing", "naming", "sealed"}  # may be imported by all
SIBLINGS = ("labels", "images", "models", "learning", "scoring", "reports")
MAY_IMPORT = {
    **dict.fromkeys(SIBLINGS, GROUND),
    "bundle": GROUND | {"images", "models", "scoring"},
    "workflows": GROUND | {*SIBLINGS, "bundle", "recipe"},
}
NEVER = {
    "labels": {"torch", "timm", "albumentations"},
    "scoring": {"torch", "timm", "pandas", "albumentations"},
    "reports": {"torch", "timm", "pandas", "albumentations", "sklearn"},
    "models": {"pandas", "sklearn", "albumentations", "rich"},
    "learning": {"pandas", "sklearn", "albumentations", "timm", "rich"},
    "bundle": {"pandas", "sklearn", "albumentations", "rich"},
}
NUMPY_AND_OPENCV_ALONE = ("images/read.py", "images/header.py", "images/preprocess.py", "images/load.py")


def imports(path: Path) -> set[str]:
    """Every module that a file imports anywhere, in full dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            found.add(node.module)
    return found


def rooms(path: Path) -> set[str]:
    """The rooms and top-level files of ours that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("mlcls.")}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_from_rooms_below_it(path: Path) -> None:
    room = room_of(path)
    if room in GROUND:
        assert rooms(path) <= {"errors"}
    elif room in ("kinds", "recipe"):
        assert rooms(path) <= GROUND | {"kinds"}
    elif room in MAY_IMPORT:
        assert rooms(path) - {room} <= MAY_IMPORT[room]
    top = {name.split(".")[0] for name in imports(path)}
    assert not top & NEVER.get(room, set())


@pytest.mark.parametrize("name", NUMPY_AND_OPENCV_ALONE)
def test_decoding_and_preprocessing_need_numpy_and_opencv_alone(name: str) -> None:
    top = {module.split(".")[0] for module in imports(PACKAGE / name)}
    assert top - set(sys.stdlib_module_names) <= {"numpy", "cv2", "mlcls"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_commands_print_or_exit(path: Path) -> None:
    is_command = path.parent == PACKAGE
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
    }
    if not is_command:
        assert not calls & {"print", "sys.exit", "exit", "sys.stdout.write", "sys.stderr.write"}


def test_every_file_says_what_it_owns() -> None:
    for path in FILES:
        assert ast.get_docstring(ast.parse(path.read_text("utf-8"))), f"{path} has no first line"


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after running `code`."""
    report = "import sys; sys.stderr.write('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, timeout=120, check=True
    )
    return set(done.stderr.splitlines()[-1].split())


HEAVY = {"torch", "timm", "pandas", "sklearn", "albumentations", "matplotlib", "cv2", "rich"}


def test_importing_mlcls_is_light() -> None:
    assert not loaded_by("import mlcls; mlcls.Recipe") & (HEAVY | {"numpy"})


@pytest.mark.parametrize(
    "command", ["train", "predict", "tune_thresholds", "inspect", "evaluate", "compare", "trials"]
)
def test_help_imports_nothing_heavy(command: str) -> None:
    code = f"import mlcls.{command} as c\ntry: c.main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_by(code) & (HEAVY | {"numpy"})


def test_opening_a_bundle_needs_no_training_code() -> None:
    assert not loaded_by("import mlcls.bundle.files") & {
        "torch",
        "timm",
        "pandas",
        "sklearn",
        "albumentations",
    }


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_predicting_a_photo_through_onnx_imports_nothing_that_training_needs(
    form: str, tmp_path: Path
) -> None:
    bundle, photo = write_bundle(tmp_path / "bundle"), tmp_path / "photo.jpg"
    cv2.imwrite(str(photo), np.full((60, 80, 3), 99, np.uint8))
    flags = ["--model", str(bundle), "--image", str(photo), "--format", form]
    loaded = loaded_by(f"import mlcls.predict as p; assert p.main({flags!r}) == 0")
    assert {"onnxruntime", "cv2"} <= loaded
    assert not loaded & {"torch", "timm", "pandas", "sklearn", "albumentations", "scipy", "matplotlib", "PIL"}
    assert ("rich" in loaded) == (form == "table")


def test_predicting_through_torch_imports_neither_pandas_nor_albumentations() -> None:
    loaded = loaded_by("import mlcls.bundle.predictor, mlcls.bundle.network, mlcls.models.forward")
    assert not loaded & {"pandas", "albumentations", "matplotlib"}


def test_public_names_load_and_none_is_a_submodule() -> None:
    submodules = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not set(mlcls.__all__) & submodules
    for name in mlcls.__all__:
        assert getattr(mlcls, name).__name__ == name


def test_the_dotted_names_of_the_documents_need_no_import_of_their_own() -> None:
    names = ("scoring.metrics.evaluate", "scoring.thresholds.tune", "labels.table.read_table")
    loaded = loaded_by("import mlcls\n" + "\n".join(f"mlcls.{name}" for name in names))
    assert "torch" not in loaded
    with pytest.raises(AttributeError):
        _ = mlcls.scoring.nothing


def test_evaluating_saved_predictions_needs_no_torch_pandas_or_matplotlib() -> None:
    loaded = loaded_by(
        "import mlcls.workflows.evaluation, mlcls.workflows.comparison, mlcls.workflows.tuning"
    )
    assert not loaded & {"torch", "timm", "pandas", "sklearn", "albumentations", "matplotlib"}
