"""The forward pass outside training: device, precision, and batches in, logits out."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlcls.errors import RecipeError
from mlcls.models.classifier import Classifier
from mlcls.models.staged import StagedClassifier

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Batch = tuple[Tensor, Tensor, Tensor]
"""pixels uint8 [B, 3, S, S], labels float32 [B, A] (NaN unknown), indices int64 [B]."""


def resolve_device(name: str) -> torch.device:
    """The device called auto, cpu, cuda, cuda:N or mps; auto takes CUDA, else MPS, else the CPU.

    Raises:
        RecipeError: no such name, or this machine (or this build of PyTorch) lacks the device.
    """
    if name == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(kind)
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (":" in name and not (kind == "cuda" and number.isdecimal())):
        raise RecipeError(f"--device: unknown device '{name}'; expected auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise RecipeError(
            f"--device {name}: PyTorch {torch.__version__} finds no CUDA device; use --device auto or cpu"
        )
    if number and int(number) >= torch.cuda.device_count():
        raise RecipeError(f"--device {name}: the last CUDA device is cuda:{torch.cuda.device_count() - 1}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise RecipeError("--device mps: PyTorch finds no Apple GPU here; use --device auto or cpu")
    return torch.device(name)


def resolve_precision(name: str, device: torch.device) -> str:
    """The arithmetic of the forward pass: "fp32", "bf16" or "fp16".

    auto is bf16 on a CUDA device that has it, else fp16 on CUDA, and fp32 on CPU and MPS.

    Raises:
        RecipeError: no such name, or the device lacks it.
    """
    if name not in ("auto", *PRECISIONS):
        raise RecipeError(f"--precision: unknown precision '{name}'; expected auto, fp32, bf16 or fp16")
    if name == "auto":
        if device.type != "cuda":
            return "fp32"
        return "bf16" if _has_bf16(device) else "fp16"
    if name == "fp16" and device.type == "cpu":
        raise RecipeError("--precision fp16: a CPU trains in fp32 or bf16 only; use --precision auto")
    if name == "bf16" and not _has_bf16(device):
        raise RecipeError(f"--precision bf16: the device {device} lacks it; use --precision auto or fp16")
    return name


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a forward pass runs in `precision`; weights stay float32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def predict_logits(
    model: Classifier | StagedClassifier,
    batches: Iterable[Batch],
    device: torch.device,
    precision: str = "fp32",
    on_batch: Callable[[int], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """The logits of every image, in eval mode, without gradients; each module's mode is put back afterwards.

    Args:
        model: on `device` already.
        batches: pixels, labels, indices.
        device, precision: as `resolve_device` and `resolve_precision` gave them.
        on_batch: told the number of images of each batch once it is computed.

    Returns:
        logits float32 [N, A], labels float32 [N, A] with NaN, indices int64 [N], in the order of the batches.
    """
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    indices: list[Tensor] = []
    # no_grad rather than inference_mode: some backbones keep tensors from one pass to the next (rotary
    # position embeddings), and an inference tensor kept so would break the next training step.
    with _evaluating(model), torch.no_grad():
        for pixels, known, index in batches:
            with autocast(device, precision):
                output = model(pixels.to(device, non_blocking=True))
            logits.append(output.float())
            labels.append(known)
            indices.append(index)
            if on_batch is not None:
                on_batch(len(index))
    if not logits:
        empty = np.empty((0, model.attributes), dtype=np.float32)
        return empty, empty.copy(), np.empty(0, dtype=np.int64)
    return (
        torch.cat(logits).cpu().numpy(),
        torch.cat(labels).cpu().numpy().astype(np.float32, copy=False),
        torch.cat(indices).cpu().numpy().astype(np.int64, copy=False),
    )


def to_scores(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of any shape -> probabilities in [0, 1], float32: the sigmoid, never overflowing."""
    small = np.exp(-np.abs(logits.astype(np.float64)))
    scores = np.where(logits >= 0, 1.0, small) / (1.0 + small)
    return scores.astype(np.float32)


def _has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself (PyTorch emulates it on older CUDA devices, slowly)."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" or bool(torch.backends.mps.is_macos_or_newer(14, 0))


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()  # in any case: some backbones (LeViT) keep what they computed from older weights until this call
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
