"""The forward pass: devices, precisions, and that predicting leaves a model as it was."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlcls.errors import RecipeError
from mlcls.models.classifier import Classifier, build_classifier
from mlcls.models.forward import Batch, autocast, predict_logits, resolve_device, resolve_precision, to_scores
from mlcls.models.stages import set_trainable, train_mode

CPU = torch.device("cpu")
PIXELS = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([[0.0, 1.0], [1.0, float("nan")]] * 3 + [[float("nan"), 0.0]])


def batches(size: int = 3) -> Iterator[Batch]:
    order = torch.arange(10, 17)
    for start in range(0, 7, size):
        part = slice(start, start + size)
        yield PIXELS[part], LABELS[part], order[part]


@pytest.fixture
def model() -> Classifier:
    torch.manual_seed(0)
    return build_classifier("cnn4", "mlp", 2, backbone_args={"widths": [8, 16]}, image_size=32)


def test_logits_labels_and_indices_come_in_the_order_of_the_batches(model: Classifier) -> None:
    told: list[int] = []
    logits, labels, indices = predict_logits(model, batches(), CPU, "fp32", on_batch=told.append)
    assert (logits.dtype, labels.dtype, indices.dtype) == (np.float32, np.float32, np.int64)
    with torch.no_grad():
        expected = model.eval()(PIXELS).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-6)
    np.testing.assert_array_equal(labels, LABELS.numpy())
    np.testing.assert_array_equal(indices, np.arange(10, 17))
    assert told == [3, 3, 1]


def test_no_batches_give_no_rows(model: Classifier) -> None:
    logits, labels, indices = predict_logits(model, iter(()), CPU)
    assert logits.shape == labels.shape == (0, 2)
    assert indices.shape == (0,)


def test_predicting_changes_neither_modes_nor_statistics(model: Classifier) -> None:
    set_trainable(model, "last")
    train_mode(model)
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    predict_logits(model, batches(), CPU)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_modes_are_put_back_after_an_error_too(model: Classifier) -> None:
    def broken() -> Iterator[Batch]:
        yield from batches()
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        predict_logits(model, broken(), CPU)
    assert model.training


def test_weights_that_came_after_a_prediction_are_the_ones_used() -> None:
    # LeViT keeps attention biases computed in eval mode; after new weights they would be stale.
    first, second = (build_classifier("levit_128s", "linear", 2, image_size=64) for _ in range(2))
    for module in second.modules():
        if hasattr(module, "attention_biases"):
            torch.nn.init.normal_(module.attention_biases)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    batch = [(pixels, torch.zeros(2, 2), torch.arange(2))]
    first.eval()
    before, _, _ = predict_logits(first, batch, CPU)
    first.load_state_dict(second.state_dict())
    after, _, _ = predict_logits(first, batch, CPU)
    expected, _, _ = predict_logits(second, batch, CPU)
    np.testing.assert_array_equal(after, expected)
    assert not np.allclose(before, after)


def test_bf16_on_a_cpu_is_near_fp32_and_gives_float32(model: Classifier) -> None:
    exact, _, _ = predict_logits(model, batches(), CPU, "fp32")
    rounded, _, _ = predict_logits(model, batches(), CPU, "bf16")
    assert rounded.dtype == np.float32
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(exact, rounded, atol=0.1)
    with autocast(CPU, "bf16"):
        assert model.embed(PIXELS).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert model.embed(PIXELS).dtype == torch.float32


def test_device_names() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:x", "cpu:1", "mps:0", "cuda:-1"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"--device: unknown device.*auto, cpu, cuda"):
        resolve_device(name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("cuda", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")),
        "cuda:99",
        pytest.param("mps", marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="has MPS")),
    ],
)
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"--device {name}: "):
        resolve_device(name)


def test_precisions() -> None:
    assert resolve_precision("auto", CPU) == "fp32"
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"
    assert resolve_precision("fp16", torch.device("mps")) == "fp16"
    with pytest.raises(RecipeError, match=r"--precision fp16: .*CPU"):
        resolve_precision("fp16", CPU)
    with pytest.raises(RecipeError, match="--precision: unknown precision 'half'"):
        resolve_precision("half", CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "auto", "fp16"])
def test_cuda_agrees_with_the_cpu(model: Classifier, precision: str) -> None:
    expected, _, _ = predict_logits(model, batches(), CPU)
    device = resolve_device("cuda")
    logits, _, _ = predict_logits(model.to(device), batches(), device, resolve_precision(precision, device))
    np.testing.assert_allclose(logits, expected, atol=0.1)


@settings(deadline=None, max_examples=50)
@given(hnp.arrays(np.float32, (5, 3), elements=st.floats(width=32, allow_nan=False)))
def test_scores_are_probabilities_in_the_order_of_the_logits(logits: np.ndarray) -> None:
    scores = to_scores(logits)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_allclose(scores, torch.from_numpy(logits).sigmoid().numpy(), rtol=1e-5, atol=1e-37)
    order = np.argsort(logits, axis=None)
    assert (np.diff(scores.ravel()[order]) >= 0).all()
