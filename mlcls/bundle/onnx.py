"""The bundle's `model.onnx`: written from the trained classifier, and kept only where it scores as PyTorch does."""

import copy
import importlib.util
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlcls.bundle.engines import OnnxEngine, onnxruntime_errors
from mlcls.images.preprocess import Preprocessing
from mlcls.models.classifier import Classifier
from mlcls.scoring.line import Calibration
from mlcls.scoring.platt import sigmoid

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

OPSET = 18  # the newest that both exporters below write by themselves
PARITY = 1e-4  # of probabilities
FEATURES = 1e-3  # of the features, as a part of the largest
LARGEST = 2**31 - 2**24  # a protobuf message holds less than 2 GiB; the graph itself needs a little
INPUT, OUTPUTS = "pixels", ("logits", "features")
NEEDED = ("onnx", "onnxscript", "onnxruntime")

# What exporters raise where they meet a network that they cannot write down: their own errors are RuntimeErrors, and
# the network's own code, run on stand-ins for tensors, raises whatever code raises that gets a value it did not expect.
EXPORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    AssertionError,
    ImportError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """What `bundle.json` says of `model.onnx`.

    Attributes:
        opset: the version of ONNX's operators that it is written in.
        parity: the largest difference between its probabilities, raw and calibrated, and PyTorch's over the probe
            batches, at most 1e-4.
    """

    opset: int
    parity: float


class _Graph(nn.Module):
    """What is exported: uint8 pixels [B, S, S, 3], as they are decoded -> logits [B, A] and features [B, D]."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.classifier.embed(pixels.permute(0, 3, 1, 2))
        return self.classifier.head(features), features


def export_onnx(
    classifier: Classifier,
    preprocessing: Preprocessing,
    path: Path,
    probe: Pixels | None = None,
    calibration: Calibration | None = None,
) -> OnnxFacts | str:
    """Write the classifier as one ONNX file, and hold it against PyTorch in float32 on the CPU.

    The input is `pixels`, uint8 [batch, S, S, 3]; the outputs are `logits`, float32 [batch, A], and `features`,
    float32 [batch, D]. Normalisation is inside, calibration and thresholds are not. The classifier itself is not
    touched: a copy in eval mode is exported.

    Args:
        preprocessing: says S.
        path: of the file; nothing stands there in the end where the answer is a reason.
        probe: prepared images uint8 [N, S, S, 3], compared beside made ones.
        calibration: of the probabilities that are shown, which are compared beside the raw ones.

    Returns:
        The facts, or in half a sentence why there is no file.

    Raises:
        OSError: the file cannot be written.
    """
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        return f"{' and '.join(absent)} cannot be imported (pip install {' '.join(absent)})"
    weights = sum(t.numel() * t.element_size() for t in classifier.state_dict().values())
    if weights > LARGEST:
        return f"its weights take {weights / 1e9:.1f} GB, and one ONNX file holds less than 2.1"
    try:
        twin = copy.deepcopy(classifier).cpu().float().eval().requires_grad_(False)
        batches = list(_probe_batches(preprocessing.image_size, probe))
        expected = [_reference(twin, batch) for batch in batches]
    except EXPORT_ERRORS as error:
        return f"its network cannot be copied to the CPU ({_first_line(error)})"
    reason, refusals = "", EXPORT_ERRORS + onnxruntime_errors()
    for export in EXPORTERS:
        try:
            with _quiet(), torch.no_grad():
                export(_Graph(twin), torch.from_numpy(batches[0][:2]), path)
            difference = _difference(path, batches, expected, calibration)
        except refusals as error:
            reason = reason or f"its network cannot be written in ONNX ({_first_line(error)})"
            continue
        if difference <= PARITY:
            return OnnxFacts(_opset(path), difference)
        reason = (
            f"the ONNX model's probabilities differ from PyTorch's by {difference:.1e}, more than {PARITY:g}"
        )
    path.unlink(missing_ok=True)
    return reason


def _traced(graph: nn.Module, example: Tensor, path: Path) -> None:
    """PyTorch's exporter by tracing: 0.2 to 0.6 s for networks of which the other takes 2 to 9.

    It records one pass and sees no branches that hang on a tensor; the probe batches of other sizes would tell.
    """
    names = (INPUT, *OUTPUTS)
    torch.onnx.export(
        graph,
        (example,),
        str(path),
        dynamo=False,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_axes={name: {0: "batch"} for name in names},
        opset_version=OPSET,
    )


def _captured(graph: nn.Module, example: Tensor, path: Path) -> None:
    """PyTorch's exporter by torch.export: it will outlive the other, which PyTorch calls legacy."""
    torch.onnx.export(
        graph,
        (example,),
        str(path),
        dynamo=True,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
        dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1)}},
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )


EXPORTERS: tuple[Callable[[nn.Module, Tensor, Path], None], ...] = (_traced, _captured)
"""In the order in which they are tried; the first whose file scores as PyTorch does is taken."""


def _probe_batches(size: int, given: Pixels | None) -> Iterator[Pixels]:
    """Batches of 5, of 1 and of the images given: noise, flat, slopes of colour, coarse noise."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0, 255, size, dtype=np.uint8)
    across, down = np.meshgrid(slope, slope)
    coarse = rng.integers(0, 256, (-(-size // 16), -(-size // 16), 3), dtype=np.uint8)
    made = np.stack(
        [
            rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
            np.stack([across, down, across[::-1]], axis=-1),
            coarse.repeat(16, axis=0).repeat(16, axis=1)[:size, :size],
            np.full((size, size, 3), 128, dtype=np.uint8),
            np.stack([down, down, down], axis=-1)[:, ::-1],
        ]
    )
    yield made
    yield made[1:2]
    if given is not None and len(given):
        yield np.ascontiguousarray(given)


def _reference(classifier: Classifier, pixels: Pixels) -> tuple[Floats, Floats]:
    with torch.no_grad():
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return classifier(batch).numpy(), classifier.embed(batch).numpy()


def _difference(
    path: Path,
    batches: Sequence[Pixels],
    expected: Sequence[tuple[Floats, Floats]],
    calibration: Calibration | None,
) -> float:
    """The largest difference of any probability; infinite where shapes or features differ, NaN for NaN."""
    engine, found = OnnxEngine(path.read_bytes()), [0.0]
    for pixels, (logits, features) in zip(batches, expected, strict=True):
        written, embedded = engine.logits(pixels), engine.embed(pixels)
        if written.shape != logits.shape or embedded.shape != features.shape:
            return float("inf")
        scale = max(1.0, float(np.abs(features).max()))
        if not np.abs(embedded - features).max() <= FEATURES * scale:
            return float("inf")
        scores, reference = sigmoid(written.astype(np.float64)), sigmoid(logits.astype(np.float64))
        found.append(np.abs(scores - reference).max())
        if calibration is not None:
            shown = calibration.apply(scores.astype(np.float32))
            found.append(np.abs(shown - calibration.apply(reference.astype(np.float32))).max())
    return float(np.max(found))  # NaN where any is


def _opset(path: Path) -> int:
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return max(int(one.version) for one in model.opset_import if one.domain in ("", "ai.onnx"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say on their way: that the quick one is to go some day, that a branch was taken as seen.

    Whether anything came of it, the comparison of scores decides.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    """The kind and the first line of what lies at the bottom of an error, without the colours of a terminal."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().split("\n", 1)[0]
    kind = type(error).__name__
    return f"{kind}: {text[:200]}" if text else kind
