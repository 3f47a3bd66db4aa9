"""Weights from files: what fits is loaded, a classifier is left out and named, everything else is refused."""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor, nn

from mlcls.errors import WeightsError
from mlcls.models.classifier import build_classifier
from mlcls.models.weights import load_weights, read_weights


def backbone(name: str = "test_resnet", **arguments: Any) -> nn.Module:
    model: nn.Module = timm.create_model(name, num_classes=0, **arguments)
    return model


def state(name: str = "test_resnet", **arguments: Any) -> dict[str, Tensor]:
    return dict(timm.create_model(name, **arguments).state_dict())


def assert_loaded(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    own = model.state_dict()
    assert own
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in own.items())


@pytest.mark.parametrize("classes", [0, 1000])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_with_or_without_a_classifier(tmp_path: Path, suffix: str, classes: int) -> None:
    tensors = state(num_classes=classes)
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(tensors, path)
    model = backbone()
    report = load_weights(model, path)
    assert_loaded(model, tensors)
    assert report.source == str(path)
    assert report.loaded == len(model.state_dict())
    assert report.left_out == (("fc.bias", "fc.weight") if classes else ())


def test_none_leaves_the_backbone_alone() -> None:
    model = backbone()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_weights(model, "none")
    assert_loaded(model, before)
    assert (report.source, report.loaded, report.left_out) == ("none", 0, ())


@pytest.mark.parametrize(
    "name", ["cnn4", "mobilenetv3_small_050", "test_efficientnet", "test_convnext", "test_vit"]
)
def test_every_family_leaves_out_just_its_classifier(tmp_path: Path, name: str) -> None:
    tensors = state(name, num_classes=7)
    save_file(tensors, tmp_path / "w.safetensors")
    model = backbone(name)
    report = load_weights(model, tmp_path / "w.safetensors")
    assert_loaded(model, tensors)
    assert [tensors[left].shape[0] for left in report.left_out] == [7, 7]


WRAPPERS: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 3, "optimizer": {"lr": 0.1}},
    "model": lambda s: {"model": s},
    "averaged before plain": lambda s: {
        "state_dict": {name: torch.zeros_like(tensor) for name, tensor in s.items()},
        "model_ema": s,
    },
    "data parallel": lambda s: {f"module.{name}": tensor for name, tensor in s.items()},
    "compiled": lambda s: {"state_dict": {f"_orig_mod.module.{name}": tensor for name, tensor in s.items()}},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_checkpoints_of_training_programs_are_unwrapped(tmp_path: Path, wrap: Callable[..., Any]) -> None:
    tensors = state()
    torch.save(wrap(tensors), tmp_path / "checkpoint.pth")
    model = backbone()
    assert load_weights(model, tmp_path / "checkpoint.pth").left_out == ("fc.bias", "fc.weight")
    assert_loaded(model, tensors)


def test_the_weights_of_a_whole_classifier_give_their_backbone(tmp_path: Path) -> None:
    trained = build_classifier("test_resnet", "linear", 4, image_size=64)
    tensors = {name: tensor.contiguous() for name, tensor in trained.state_dict().items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    model = build_classifier("test_resnet", "mlp", 9, image_size=64, weights=tmp_path / "weights.safetensors")
    assert_loaded(model.backbone, dict(trained.backbone.state_dict()))
    assert model.weights.left_out == ("head.bias", "head.weight")
    assert model.weights.loaded == len(trained.backbone.state_dict())


def test_position_embeddings_of_another_image_size_are_resampled(tmp_path: Path) -> None:
    tensors = state("test_vit")
    save_file(tensors, tmp_path / "vit.safetensors")
    model = build_classifier("test_vit", "linear", 2, image_size=64, weights=tmp_path / "vit.safetensors")
    assert model.backbone.pos_embed.shape == (1, 1 + 16, 64)
    expected = timm.layers.resample_abs_pos_embed(tensors["pos_embed"], new_size=[4, 4], num_prefix_tokens=1)
    torch.testing.assert_close(model.backbone.pos_embed.detach(), expected)
    assert torch.equal(model.backbone.norm.weight, tensors["norm.weight"])
    assert model.weights.left_out == ("head.bias", "head.weight")


def test_batch_counters_may_be_missing(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in state().items() if not name.endswith("num_batches_tracked")}
    save_file(tensors, tmp_path / "old.safetensors")
    assert load_weights(backbone(), tmp_path / "old.safetensors").loaded == len(tensors) - 2


MISFITS: dict[str, tuple[Callable[[], dict[str, Tensor]], str]] = {
    "missing": (
        lambda: {n: t for n, t in state().items() if "layer3" not in n},
        "missing .layer3.0.conv1.weight",
    ),
    "another shape": (
        lambda: state() | {"layer1.0.conv1.weight": torch.zeros(5, 5)},
        r"1 tensors of another shape .layer1.0.conv1.weight \(5, 5\) for \(",
    ),
    "a deeper network": (
        lambda: state() | {"layer1.7.conv1.weight": torch.zeros(3)},
        "1 tensors superfluous .layer1.7.conv1.weight",
    ),
    "another family": (lambda: state("test_efficientnet"), "missing"),
}


@pytest.mark.parametrize(("make", "message"), MISFITS.values(), ids=MISFITS)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    tmp_path: Path, make: Callable[[], dict[str, Tensor]], message: str
) -> None:
    path = tmp_path / "misfit.safetensors"
    save_file(make(), path)
    model = backbone()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"--weights .*misfit.*{message}.*--backbone"):
        load_weights(model, path)
    assert_loaded(model, before)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_a_family_with_a_conversion_of_its_own_refuses_strangers_too(tmp_path: Path, name: str) -> None:
    save_file(state("cnn4"), tmp_path / "w.safetensors")
    with torch.device("meta"):
        model = backbone(name)
    with pytest.raises(WeightsError, match="they do not fit the backbone"):
        load_weights(model, tmp_path / "w.safetensors")


class _RunsCode:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": state(), "more": _RunsCode(tmp_path / "hacked")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"--weights .*w\.pth: .*never\s+loaded because they can run code"):
        read_weights(tmp_path / "w.pth")
    assert not (tmp_path / "hacked").exists()


def damaged(path: Path, how: str) -> Path:
    (save_file if path.suffix == ".safetensors" else torch.save)(state(), path)
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "empty": b"",
            "text": b"this is not a weights file\n" * 9,
            "truncated": content[:middle],
            "header": content[:20] + b"\xff" * 40 + content[60:],
        }[how]
    )
    return path


@pytest.mark.parametrize("how", ["empty", "text", "truncated", "header"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str, how: str) -> None:
    with pytest.raises(WeightsError, match=rf"--weights .*w{suffix}: "):
        read_weights(damaged(tmp_path / f"w{suffix}", how))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # what torch says of a damaged protocol byte
@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["zip", "legacy", "safetensors"]),
    st.integers(0, 2**16),
    st.binary(min_size=1, max_size=6),
)
def test_any_bytes_give_tensors_or_a_weights_error(kind: str, position: int, replacement: bytes) -> None:
    tensors = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    buffer = io.BytesIO()
    if kind == "safetensors":
        buffer.write(save(tensors))
    else:
        torch.save({"model": tensors, "epoch": 1}, buffer, _use_new_zipfile_serialization=kind == "zip")
    content = bytearray(buffer.getvalue())
    start = position % len(content)
    content[start : start + len(replacement)] = replacement
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("w.safetensors" if kind == "safetensors" else "w.pth")
        path.write_bytes(content)
        with contextlib.suppress(WeightsError):  # what the message says is tested above
            assert read_weights(path)


def test_what_is_no_weights_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.pth: there is no such file"):
        read_weights(tmp_path / "nothing.pth")
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"cannot tell the kind of file by '\.onnx'"):
        read_weights(tmp_path / "model.onnx")
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match="no tensors by name"):
        read_weights(tmp_path / "list.pth")
    save_file(state(), tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match=r"did you mean .*weights\.safetensors"):
        read_weights(tmp_path)
