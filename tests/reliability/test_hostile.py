"""Bundles, tables and recipes from a stranger: nothing outside of the folders that were given is read or written,
no code that they name is imported, and what they claim ends in a sentence."""

import ast
import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper
from toy_data import TINY

import mlcls
from mlcls import compare, evaluate, inspect, predict, sealed, train, tune_thresholds

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")

Run = Callable[..., tuple[int, str]]
ATTRIBUTES = ("red", "bright", "square_left")  # of the toy data
CANARY = "stranger_s_module"


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_bundle, tmp_path / "given" / "bundle"))


@pytest.fixture
def image(bundle: Path) -> Path:
    path = bundle.parent / "x.png"
    cv2.imwrite(str(path), np.full((40, 48, 3), 90, np.uint8))
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command: its exit code and what it said. What it raises, a traceback for a user, fails the test."""

    def run(main: Callable[[list[str]], int], *arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return code, said.err + said.out

    return run


_watched: dict[str, Any] = {"outside": None, "opened": [], "unpickled": []}


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched["outside"] is None:
        return
    if event == "open" and isinstance(arguments[0], str | bytes):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.startswith(_watched["outside"]):
            _watched["opened"].append(path)
    elif event == "pickle.find_class":
        _watched["unpickled"].append(arguments)


@pytest.fixture(scope="session")
def _hook() -> None:
    sys.addaudithook(_watch)  # cannot be taken away again: does nothing outside of these tests


@pytest.fixture
def outside(tmp_path: Path, _hook: None) -> Iterator[Path]:
    """A folder that no command is given, with an image and a text in it: none may be opened."""
    folder = tmp_path / "outside"
    folder.mkdir()
    cv2.imwrite(str(folder / "secret.png"), np.full((40, 48, 3), 90, np.uint8))
    (folder / "secret.txt").write_text("secret")
    _watched.update(outside=str(folder.resolve()) + os.sep, opened=[], unpickled=[])
    yield folder
    opened = list(_watched["opened"])
    _watched.update(outside=None)
    assert opened == []
    assert sorted(path.name for path in folder.iterdir()) == ["secret.png", "secret.txt"]


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module that the working folder offers to whoever imports it: nobody may."""
    (tmp_path / f"{CANARY}.py").write_text("def run(*arguments, **more): raise SystemExit('ran')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    assert CANARY not in sys.modules


def reseal(bundle: Path, name: str = "bundle.json", **changes: Any) -> None:
    """Change fields of a sealed file as its maker could: with all digests right."""
    content = json.loads((bundle / name).read_text())
    content.pop("digest")
    content.update(changes)
    if name == "bundle.json":
        for file in content["files"] if isinstance(content["files"], dict) else ():
            if file and Path(file).name == file and (bundle / file).is_file():
                content["files"][file] = sealed.digest_of((bundle / file).read_bytes())
    (bundle / name).write_bytes(sealed.seal(content))


def fields(bundle: Path) -> dict[str, Any]:
    return dict(json.loads((bundle / "bundle.json").read_text()))


def all_commands(run: Run, bundle: Path, image: Path) -> list[tuple[int, str]]:
    """Every command that takes a bundle."""
    table = bundle.parent / "labels.csv"
    table.write_text(f"image,{','.join(ATTRIBUTES)}\nx.png,{','.join('1' for _ in ATTRIBUTES)}\n")
    return [
        run(predict.main, "--image", image, "--model", bundle, "--engine", "torch"),
        run(predict.main, "--image", image, "--model", bundle, "--engine", "onnx"),
        run(evaluate.main, "--model", bundle, "--resamples", 0),
        run(evaluate.main, "--model", bundle, "--resamples", 0, "--labels", table, "--images", image.parent),
        run(tune_thresholds.main, "--model", bundle, "--dry-run"),
        run(compare.main, bundle, bundle, "--resamples", 0),
        run(inspect.main, "--model", bundle),
    ]


# Code that is named


@pytest.mark.parametrize("name", [f"{CANARY}:run", "os:system", "builtins:exec"])
@pytest.mark.parametrize("place", ["head", "backbone", "fit", "interpolation", "objective"])
@pytest.mark.usefixtures("canary")
def test_no_code_that_a_bundle_names_is_imported(
    place: str, name: str, bundle: Path, image: Path, run: Run
) -> None:
    if place in ("fit", "interpolation"):
        reseal(bundle, preprocessing=fields(bundle)["preprocessing"] | {place: name})
    elif place == "objective":
        rows = json.loads((bundle / "thresholds.json").read_text())["attributes"]
        reseal(bundle, "thresholds.json", attributes=[row | {"objective": name} for row in rows])
    else:
        reseal(bundle, **{place: name})
    outcomes = all_commands(run, bundle, image)
    assert all(code in (0, 2) for code, _ in outcomes)
    if place != "objective":  # words that are shown
        assert outcomes[0][0] == 2
        assert "bundle.json" in outcomes[0][1]


ARGUMENTS = {
    "checkpoint_path": "{outside}/secret.txt",
    "pretrained_cfg": {"file": "{outside}/secret.txt"},
    "pretrained_cfg_overlay": {"file": "{outside}/secret.txt", "custom_load": True},
    "pretrained": True,
    "cache_dir": "{outside}",
    "model_cfg": {"a": 1},
    "kwargs_filter": ["x"],
    "pretrained_filter_fn": "os.system",
    "features_only": True,
    "device": "meta",
    "no_such_argument": 1,
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_of_the_backbone_that_read_files_are_refused(
    name: str, bundle: Path, image: Path, run: Run, outside: Path
) -> None:
    value = json.loads(json.dumps(ARGUMENTS[name]).replace("{outside}", str(outside)))
    reseal(bundle, backbone_args={name: value})
    code, said = run(predict.main, "--image", image, "--model", bundle, "--engine", "torch")
    assert code == 2
    assert "bundle.json: its network cannot be built: --backbone-args" in said


@pytest.mark.parametrize(
    "place",
    ["local-dir:{outside}", "hf-hub:stranger/model", "hf_hub:stranger/model", "{outside}", "../outside"],
)
def test_a_backbone_is_a_name_and_no_place(
    place: str, bundle: Path, image: Path, run: Run, outside: Path
) -> None:
    reseal(bundle, backbone=place.replace("{outside}", str(outside)))
    code, said = run(predict.main, "--image", image, "--model", bundle, "--engine", "torch")
    assert code == 2
    assert "is a place, not a model" in said


# Files elsewhere


@pytest.mark.parametrize("kind", ["link", "pipe", "device", "folder"])
def test_files_of_a_bundle_lie_in_it(kind: str, bundle: Path, image: Path, run: Run, outside: Path) -> None:
    """Each in turn a link out of it, a pipe that gives nothing, a device without end, a folder."""
    names = [*fields(bundle)["files"], "thresholds.json", "bundle.json"]
    opened = {name for name in names if name.endswith((".json", ".csv", ".safetensors", ".onnx"))}
    for name in sorted(opened - {"iterations.csv"}):
        path, kept = bundle / name, bundle / "kept"
        path.rename(kept)
        if kind == "link":
            copy = outside.with_name("elsewhere")
            shutil.copy(
                kept, copy
            )  # even the right bytes: who knows their digest learns whether they are there
            path.symlink_to(copy)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            (os.mkfifo if kind == "pipe" else os.mkdir)(path)
        outcomes = all_commands(run, bundle, image)
        assert outcomes[-1][0] == 2, name
        assert str(path) in outcomes[-1][1], name
        assert any(code == 2 for code, _ in outcomes[:-1]), name
        path.rmdir() if kind == "folder" else path.unlink()
        kept.rename(path)


@pytest.mark.parametrize(
    "name", ["../../outside/secret.txt", "ABSOLUTE", "..", "a/b", "C:x", "a\\b", "a\0b", ""]
)
def test_files_that_a_manifest_names_are_plain_names(
    name: str, bundle: Path, run: Run, outside: Path
) -> None:
    name = str(outside / "secret.txt") if name == "ABSOLUTE" else name
    reseal(bundle, files=fields(bundle)["files"] | {name: sealed.digest_of(b"secret")})
    code, said = run(inspect.main, "--model", bundle)
    assert code == 2
    assert "outside of the bundle" in said


def test_images_of_a_table_lie_in_their_folder(bundle: Path, run: Run, outside: Path) -> None:
    names = ",".join(ATTRIBUTES)
    images = bundle.parent / "images"
    images.mkdir()
    (images / "link.png").symlink_to(outside / "secret.png")
    (images / "sub").symlink_to(outside)
    table = bundle.parent / "labels.csv"
    for name in ("../../outside/secret.png", outside / "secret.png", "link.png", "sub/secret.png"):
        table.write_text(f"image,{names}\n{name},1,0,1\n")
        for code, said in (
            run(evaluate.main, "--model", bundle, "--labels", table, "--images", images),
            run(tune_thresholds.main, "--model", bundle, "--labels", table, "--images", images),
            run(inspect.main, "--labels", table, "--images", images),
            run(train.main, "--labels", table, "--out", bundle.parent / "new", *TINY),
            run(train.main, "--labels", table, "--val-labels", table, "--out", bundle.parent / "new", *TINY),
        ):
            assert code == 2
            assert "line 2" in said
            assert "leads out of the images folder" in said or "is an absolute path" in said
    assert not (bundle.parent / "new" / "bundle.json").exists()


def test_a_split_file_names_no_other_images(toy: Path, bundle: Path, run: Run, outside: Path) -> None:
    split = bundle.parent / "split.csv"
    split.write_text(f"image,subset\n{outside / 'secret.png'},train\n../outside/secret.png,val\n")
    code, said = run(
        train.main, "--labels", toy, "--split", f"file:{split}", "--out", bundle.parent / "new", *TINY
    )
    assert code == 2
    assert "says nothing of" in said


# The model and its weights


def with_model(bundle: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    model = onnx.load(str(bundle / "model.onnx"))
    change(model)
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    reseal(bundle)


def external(location: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value

    return change


@pytest.mark.parametrize("engine", ["auto", "onnx", "openvino"])
@pytest.mark.parametrize(
    "place", ["../../outside/secret.txt", "ABSOLUTE", "weights.safetensors", "*/_ORT_MEM_ADDR_/*"]
)
def test_a_model_keeps_its_weights_to_itself(
    place: str, engine: str, bundle: Path, image: Path, run: Run, outside: Path
) -> None:
    with_model(bundle, external(str(outside / "secret.txt") if place == "ABSOLUTE" else place))
    code, said = run(predict.main, "--image", image, "--model", bundle, "--engine", engine)
    assert code == 2
    assert "model.onnx: not opened, since it keeps weights outside of itself" in said


def test_a_model_has_onnx_s_own_operators(bundle: Path, image: Path, run: Run) -> None:
    node = helper.make_node("Run", ["pixels"], ["x"], domain="com.stranger")
    with_model(bundle, lambda model: model.graph.node.append(node))
    code, said = run(predict.main, "--image", image, "--model", bundle)
    assert code == 2
    assert "'Run' of 'com.stranger'" in said


@pytest.mark.parametrize(
    "start", [b"\x00\x00\x00\x00ORTM", b"\x08\x00\x00\x00ORTM", b"<?xml version='1.0'?><net>", b""]
)
def test_a_model_is_onnx_and_of_no_other_format(start: bytes, bundle: Path, image: Path, run: Run) -> None:
    (bundle / "model.onnx").write_bytes(start + bytes(1000))
    reseal(bundle)
    for engine in ("onnx", "openvino"):
        code, said = run(predict.main, "--image", image, "--model", bundle, "--engine", engine)
        assert code == 2
        assert "model.onnx" in said


def test_shapes_that_no_memory_holds(bundle: Path, image: Path, run: Run) -> None:
    def change(model: onnx.ModelProto) -> None:
        shape = helper.make_node(
            "Constant", [], ["s"], value=helper.make_tensor("v", TensorProto.INT64, [2], [1 << 40, 1 << 40])
        )
        model.graph.node.insert(0, shape)
        model.graph.node.insert(1, helper.make_node("ConstantOfShape", ["s"], ["huge"]))
        model.graph.node.insert(2, helper.make_node("ReduceMax", ["huge"], ["top"], keepdims=0))
        out = model.graph.output[0].name
        last = next(node for node in model.graph.node if out in node.output)
        last.output[list(last.output).index(out)] = "before"
        model.graph.node.append(helper.make_node("Add", ["before", "top"], [out]))

    with_model(bundle, change)
    code, said = run(predict.main, "--image", image, "--model", bundle)
    assert code in (2, 3)
    assert said.startswith("error: ")


def header(**tensors: Any) -> bytes:
    content = json.dumps(tensors).encode()
    return len(content).to_bytes(8, "little") + content


WEIGHTS = {
    "a header without end": b"\xff" * 8 + b"{}",
    "a header of a terabyte": (1 << 40).to_bytes(8, "little") + b"{}",
    "not JSON": (2).to_bytes(8, "little") + b"[[",
    "nested": (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "a tensor of a terabyte": header(a={"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}),
    "nothing of an endless shape": header(a={"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}),
    "numbers of no kind": header(a={"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}) + bytes(3),
    "offsets backwards": header(a={"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}),
    "empty": b"",
    "a pickle": pickle.dumps({"a": 1}),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_claim_much(what: str, bundle: Path, toy: Path, image: Path, run: Run) -> None:
    (bundle / "weights.safetensors").write_bytes(WEIGHTS[what])
    reseal(bundle)
    code, said = run(predict.main, "--image", image, "--model", bundle, "--engine", "torch")
    assert code == 2
    assert "weights.safetensors" in said
    for suffix in (".safetensors", ".pth"):
        path = bundle.parent / f"weights{suffix}"
        path.write_bytes(WEIGHTS[what])
        flags = ["--labels", toy, "--out", bundle.parent / "new", *TINY, "--weights", path]
        code, said = run(train.main, *flags)
        assert code == 2, said
        assert f"--weights {path}" in said


@pytest.mark.parametrize(
    "arguments",
    [
        {"layers": [1, 1, 1, 10**9]},
        {"channels": [10**6] * 4},
        {"channels": [32, 64, 96, 10**5]},
        {"layers": [10**5] * 4},
    ],
)
def test_a_network_is_no_larger_than_its_weights(
    arguments: dict[str, Any], bundle: Path, image: Path, run: Run
) -> None:
    reseal(bundle, backbone="test_resnet", backbone_args=arguments)
    code, said = run(predict.main, "--image", image, "--model", bundle, "--engine", "torch")
    assert code == 2
    assert "describes a network that is larger than its weights" in said or "cannot be built" in said


def test_weights_of_pickled_code_are_refused(toy: Path, tmp_path: Path, run: Run, outside: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return open, (str(outside / "made.txt"), "w")

    torch.save({"model": Hostile()}, tmp_path / "hostile.pth")
    flags = ["--labels", toy, "--out", tmp_path / "new", *TINY, "--weights", tmp_path / "hostile.pth"]
    code, said = run(train.main, *flags)
    assert code == 2
    assert "never loaded because they can run code" in said


# Fields


VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 10**30, 10**400, "", "x", "\ud800", "\0", "\x1b]0;x\x07", [], {}, [[]]),
    *(["x"], ["x"] * 3, {"x": 1}, [None, None, None], [1e308] * 3, "9" * 10_000),
)


def paths_in(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where each value of a JSON tree stands; of lists only the first entry."""
    if path:
        yield path
    if isinstance(tree, dict):
        for key in tree:
            yield from paths_in(tree[key], (*path, key))
    elif isinstance(tree, list) and tree:
        yield from paths_in(tree[0], (*path, 0))


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = changed(tree[path[0]], path[1:], value)
    return copy


def light_commands(run: Run, bundle: Path) -> list[tuple[int, str]]:
    return [
        run(tune_thresholds.main, "--model", bundle, "--dry-run", "--objective", "fixed:0.5"),
        run(evaluate.main, "--model", bundle, "--resamples", 0),
        run(inspect.main, "--model", bundle),
    ]


@pytest.mark.parametrize("name", ["bundle.json", "thresholds.json"])
def test_any_value_in_any_field_of_a_sealed_file(name: str, bundle: Path, image: Path, run: Run) -> None:
    """A digest is no secret: whoever changes a field can seal it again. A sentence, or nothing changes."""
    whole = (bundle / name).read_bytes()
    content = json.loads(whole)
    content.pop("digest")
    places = [path for path in paths_in(content) if path[0] != "files" and path[:1] != ("versions",)]
    for number, path in enumerate(places):
        for offset, value in enumerate(VALUES):
            if (number + offset) % 8 and path[-1] not in ("attributes", "threshold", "image_size"):
                continue  # one in eight
            new = changed(content, path, value)
            try:
                (bundle / name).write_bytes(sealed.seal(new))
            except (ValueError, UnicodeEncodeError):
                continue
            ask = run(predict.main, "--image", image, "--model", bundle)
            for code, said in (ask, *light_commands(run, bundle)[(number + offset) % 3 :][:1]):
                assert code in (0, 2, 3), (path, value, said)
                assert code == 0 or "error: " in said, (path, value, said)
    (bundle / name).write_bytes(whole)


def test_any_value_in_any_field_of_the_record(bundle: Path, run: Run) -> None:
    content = json.loads((bundle / "metrics.json").read_text())
    places = list(paths_in(content))[::4]
    for number, path in enumerate(places):
        for value in VALUES[number % len(VALUES) :: len(VALUES)]:
            new = changed(content, path, value)
            (bundle / "metrics.json").write_text(json.dumps(new))
            reseal(bundle)
            code, said = run(evaluate.main, "--model", bundle, "--resamples", 0)
            assert code in (0, 2), (path, value, said)


DEEP = {
    "lists without end": b"[" * 200_000,
    "objects without end": b'{"a":' * 100_000,
    "a long number": b'{"format":' + b"9" * 100_000 + b"}",
    "an infinite number": b'{"format":1e999}',
    "NaN": b'{"format":NaN}',
    "half a surrogate pair": b'{"\\ud800":1}',
    "not UTF-8": b"\xff\xfe",
    "nothing": b"",
}


@pytest.mark.parametrize("what", DEEP)
def test_json_that_goes_too_deep(what: str, bundle: Path, run: Run) -> None:
    for name in ("bundle.json", "thresholds.json", "metrics.json"):
        kept = (bundle / name).read_bytes()
        (bundle / name).write_bytes(DEEP[what])
        if name == "metrics.json":
            reseal(bundle)
        code, said = run(evaluate.main, "--model", bundle, "--resamples", 0)
        assert code == 2
        assert name in said
        (bundle / name).write_bytes(kept)
        reseal(bundle)


@pytest.mark.parametrize(
    "toml",
    [
        "a = " + "[" * 50_000,
        "a = " + "{b = " * 50_000,
        "seed = " + "9" * 50_000,
        "seed = 1e999",
        "[" + "a." * 5_000 + "b]",
    ],
    ids=["lists", "tables", "a long number", "an infinite number", "a long name"],
)
def test_recipes_that_go_too_deep(toml: str, toy: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "recipe.toml").write_text(toml)
    code, said = run(
        train.main, "--labels", toy, "--out", tmp_path / "new", "--recipe", tmp_path / "recipe.toml"
    )
    assert code == 2
    assert "recipe.toml" in said or "--seed" in said


# No pickle


def test_no_source_of_ours_loads_a_pickle() -> None:
    """`torch.load` with weights_only, NumPy's loads without pickles, and of `pickle` its errors alone."""
    allowed = {("pickle", "UnpicklingError")}
    for path in Path(mlcls.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = (node.value.id, node.attr)
                assert (
                    used[0] not in ("pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal")
                    or used in allowed
                ), path
                assert used[1] not in ("read_pickle", "to_pickle"), path
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            owner = ast.unparse(node.func.value)
            if (owner, node.func.attr) in (("torch", "load"), ("torch", "save")):
                assert node.func.attr == "load", path
                assert said.get("weights_only") == "True", path
            if owner in ("np", "numpy") and node.func.attr == "load":
                assert said.get("allow_pickle") == "False", path
            assert said.get("allow_pickle", "False") == "False", path


def test_no_pickle_is_loaded_by_any_command(
    toy: Path, bundle: Path, image: Path, tmp_path: Path, run: Run, outside: Path
) -> None:
    """Python tells of each class that a pickle names."""
    flags = ["--epochs", "2", "--unfreeze-epoch", "1", "--augment", "light"]
    code, said = run(train.main, "--labels", toy, "--out", tmp_path / "new", *TINY, *flags)
    assert code == 0, said
    assert all(code == 0 for code, _ in all_commands(run, tmp_path / "new", image)[:3])
    assert _watched["unpickled"] == []
    pickle.loads(pickle.dumps(Path))
    assert _watched["unpickled"] != []  # the hook is at work


def test_a_bundle_holds_no_pickle(toy_bundle: Path) -> None:
    for path in toy_bundle.iterdir():
        assert path.suffix in (".json", ".safetensors", ".onnx", ".toml", ".csv", ".png", ".html"), path
        assert not path.read_bytes().startswith(
            (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
        ), path
    assert safetensors.torch.load_file(toy_bundle / "weights.safetensors")
