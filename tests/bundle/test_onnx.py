"""`model.onnx`: scores as PyTorch does whatever the batch, for networks of several families; else there is none."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from mlcls.bundle import onnx as export_module
from mlcls.bundle.engines import OnnxEngine
from mlcls.bundle.onnx import EXPORTERS, PARITY, OnnxFacts, export_onnx
from mlcls.images.preprocess import Preprocessing
from mlcls.models.classifier import Classifier, build_classifier
from mlcls.scoring.line import Calibration

FAMILIES = [
    ("cnn4", "mlp", 32),
    ("resnet18", "linear", 32),
    ("mobilenetv3_small_050", "fc", 32),
    ("convnext_atto", "mlp", 32),
    ("test_vit", "linear", 160),
    ("test_efficientnet", "fc", 64),
]


def spirited(backbone: str, head: str, size: int) -> Classifier:
    """A classifier with statistics of its own and logits far from 0, so that a slip anywhere would be seen."""
    torch.manual_seed(0)
    classifier = build_classifier(backbone, head, 3, image_size=size)
    for module in classifier.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    with torch.no_grad():
        probe = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8)
        last = [module for module in classifier.head.modules() if isinstance(module, nn.Linear)][-1]
        last.weight.mul_(2 / classifier.eval()(probe).std())
    return classifier.train()


def noise(count: int, size: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def reference(classifier: Classifier, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    twin = copy.deepcopy(classifier).eval()
    with torch.no_grad():
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return twin(batch).numpy(), twin.embed(batch).numpy()


@pytest.mark.parametrize(("backbone", "head", "size"), FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_scores_and_features_are_those_of_pytorch(
    backbone: str, head: str, size: int, tmp_path: Path
) -> None:
    classifier, path = spirited(backbone, head, size), tmp_path / "model.onnx"
    facts = export_onnx(classifier, Preprocessing(size), path, noise(2, size))
    assert isinstance(facts, OnnxFacts), facts
    assert 0 <= facts.parity <= PARITY
    engine = OnnxEngine(path.read_bytes())
    assert engine.width() == classifier.features
    for count in (1, 7):
        pixels = noise(count, size, seed=count)
        logits, features = reference(classifier, pixels)
        assert np.abs(logits).max() > 0.5
        np.testing.assert_allclose(engine.logits(pixels), logits, atol=2e-4)
        np.testing.assert_allclose(engine.embed(pixels), features, atol=1e-3 * max(1, np.abs(features).max()))


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda exporter: exporter.__name__)
def test_each_exporter_writes_the_same_model(
    exporter: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "EXPORTERS", (exporter,))
    path = tmp_path / "model.onnx"
    facts = export_onnx(spirited("cnn4", "mlp", 32), Preprocessing(32), path)
    assert facts == OnnxFacts(18, getattr(facts, "parity", None))
    model = onnx.load(str(path), load_external_data=False)
    onnx.checker.check_model(model)
    assert [one.name for one in model.graph.input] == ["pixels"]
    assert [one.name for one in model.graph.output] == ["logits", "features"]
    kind = model.graph.input[0].type.tensor_type
    assert kind.elem_type == onnx.TensorProto.UINT8
    assert [one.dim_param or one.dim_value for one in kind.shape.dim] == ["batch", 32, 32, 3]
    assert list(tmp_path.iterdir()) == [path]  # one file: no weights beside it


def test_what_is_shown_is_compared_not_only_what_the_network_says(tmp_path: Path) -> None:
    """A calibration that is steep where the scores lie makes a rounding of the logits plain."""
    classifier = spirited("cnn4", "mlp", 32)
    pixels = noise(8, 32)
    logits, _ = reference(classifier, pixels)
    steep = Calibration(np.full(classifier.attributes, 1e6), -1e6 * logits[0].astype(np.float64))
    found = export_onnx(classifier, Preprocessing(32), tmp_path / "m.onnx", pixels, steep)
    assert isinstance(found, str)
    assert "differ from PyTorch's" in found
    assert not (tmp_path / "m.onnx").exists()


def test_the_classifier_is_left_as_it_was(tmp_path: Path) -> None:
    classifier = spirited("cnn4", "mlp", 32)
    classifier.backbone.eval()
    next(classifier.backbone.parameters()).requires_grad_(False)
    classifier.head(torch.zeros(2, classifier.features)).sum().backward()
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    modes = [module.training for module in classifier.modules()]
    wants = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in classifier.parameters()]
    assert isinstance(export_onnx(classifier, Preprocessing(32), tmp_path / "m.onnx"), OnnxFacts)
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())
    assert [module.training for module in classifier.modules()] == modes
    for parameter, (wanted, gradient) in zip(classifier.parameters(), wants, strict=True):
        assert parameter.requires_grad == wanted
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(parameter.grad, gradient)


class Unwritable(nn.Module):
    """A backbone with an operation that ONNX does not know."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.special.bessel_j0(pixels.mean(dim=(2, 3)))


class OneBatch(nn.Module):
    """A backbone that gives another answer for a batch of one, by a branch that tracing does not see."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean(dim=(2, 3)) * (5.0 if pixels.shape[0] == 1 else 1.0)


class Endless(nn.Module):
    """A backbone of weights that training has lost."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean(dim=(2, 3)) * float("nan")


def around(backbone: nn.Module) -> Classifier:
    torch.manual_seed(0)
    source = build_classifier("cnn4", "linear", 3, image_size=32)
    head = nn.Linear(3, 3)
    return Classifier(
        backbone, head, attributes=3, features=3, mean=[0.1] * 3, std=[0.1] * 3, weights=source.weights
    )


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [(Unwritable(), "cannot be written"), (OneBatch(), "differ from PyTorch's"), (Endless(), "differ")],
    ids=["unwritable", "other for a batch of one", "not a number"],
)
def test_where_it_cannot_be_there_is_a_reason_and_no_file(
    backbone: nn.Module, reason: str, tmp_path: Path
) -> None:
    found = export_onnx(around(backbone), Preprocessing(32), tmp_path / "model.onnx")
    assert isinstance(found, str)
    assert reason in found
    assert "\n" not in found
    assert not list(tmp_path.iterdir())


def test_what_one_file_cannot_hold_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "LARGEST", 1000)
    found = export_onnx(build_classifier("cnn4", "linear", 3), Preprocessing(32), tmp_path / "model.onnx")
    assert "one ONNX file holds less" in str(found)


def test_a_full_disk_is_not_taken_for_a_network_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        export_onnx(around(nn.Flatten()), Preprocessing(1), tmp_path / "nowhere" / "model.onnx")
