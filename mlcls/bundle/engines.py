"""What computes: engines take prepared pixels to logits and features. None is imported before it is opened."""

import importlib
import importlib.util
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.files import MODEL, Bundle, read_verified
from mlcls.bundle.graph import check_graph
from mlcls.errors import BundleError, RecipeError
from mlcls.naming import suggest

if TYPE_CHECKING:
    import torch

    from mlcls.models.classifier import Classifier

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

LOGITS, FEATURES, INPUT = "logits", "features", "pixels"  # of model.onnx


class Engine(Protocol):
    """Prepared pixels in, numbers out; may be called from several threads at once.

    Attributes:
        batch: how many images one pass takes best.
    """

    batch: int

    def logits(self, pixels: Pixels, threads: int = 0) -> Floats:
        """uint8 RGB [N, S, S, 3] -> float32 [N, A], N at least 1, in `threads` threads (0: all cores)."""
        ...

    def embed(self, pixels: Pixels, threads: int = 0) -> Floats:
        """uint8 RGB [N, S, S, 3] -> the backbone's pooled features, float32 [N, D], N at least 1."""
        ...

    def width(self) -> int:
        """The size D of the features."""
        ...


class OnnxEngine:
    """`model.onnx` through ONNX Runtime, on the CPU.

    Args:
        model: the bytes of the file.
    """

    batch = 8  # larger ones leave the processor's caches

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._lock = threading.Lock()
        first = self._open(0)
        self._sessions = {0: first}
        self.outputs = [one.name for one in first.get_outputs()]

    def logits(self, pixels: Pixels, threads: int = 0) -> Floats:
        return self._run(LOGITS, pixels, threads)

    def embed(self, pixels: Pixels, threads: int = 0) -> Floats:
        return self._run(FEATURES, pixels, threads)

    def width(self) -> int:
        size = self._session(0).get_inputs()[0].shape[1]
        return int(self.embed(np.zeros((1, size, size, 3), np.uint8)).shape[1])

    def _run(self, output: str, pixels: Pixels, threads: int) -> Floats:
        found: Floats = self._session(threads).run([output], {INPUT: pixels})[0]
        return found

    def _session(self, threads: int) -> Any:
        """A session that computes with so many threads; it may be run from several threads at once."""
        with self._lock:
            if threads not in self._sessions:
                self._sessions[threads] = self._open(threads)
            return self._sessions[threads]

    def _open(self, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors: they are raised too, and warnings say nothing to a user
        # threads that spin while they wait take the cores from those that decode
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # bytes that could be ONNX Runtime's own format are not taken for it: nobody has looked at these as such
        options.add_session_config_entry("session.load_model_format", "ONNX")
        return onnxruntime.InferenceSession(self._model, options, providers=["CPUExecutionProvider"])


class OpenVinoEngine:
    """`model.onnx` through OpenVINO, on the CPU, in float32 (by itself it would take bfloat16 where there is any).

    One pass at a time, in OpenVINO's own threads: requests of two Python threads at once can wait for each other
    forever, one for the interpreter, the other for a lock of OpenVINO's (2026.4).
    """

    batch = 16

    def __init__(self, model: bytes) -> None:
        import openvino

        core = openvino.Core()
        config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        compiled = core.compile_model(core.read_model(model), "CPU", config)
        self.outputs = [name for output in compiled.outputs for name in output.get_names()]
        self._request = compiled.create_infer_request()
        self._compiled = compiled
        self._lock = threading.Lock()

    def logits(self, pixels: Pixels, threads: int = 0) -> Floats:
        return self._run(LOGITS, pixels)

    def embed(self, pixels: Pixels, threads: int = 0) -> Floats:
        return self._run(FEATURES, pixels)

    def width(self) -> int:
        return int(self._compiled.output(FEATURES).get_partial_shape()[1].get_length())

    def _run(self, output: str, pixels: Pixels) -> Floats:
        with self._lock:
            return np.array(self._request.infer({INPUT: pixels})[output], dtype=np.float32)


class TorchEngine:
    """The network itself through PyTorch, in float32, on any device; one pass at a time, in PyTorch's own threads."""

    def __init__(self, classifier: "Classifier", device: "torch.device") -> None:
        self._classifier = classifier.to(device).eval()
        self._device = device
        self._lock = threading.Lock()
        self.batch = 16 if device.type == "cpu" else 32

    def logits(self, pixels: Pixels, threads: int = 0) -> Floats:
        return self._run(self._classifier, pixels)

    def embed(self, pixels: Pixels, threads: int = 0) -> Floats:
        return self._run(self._classifier.embed, pixels)

    def width(self) -> int:
        return self._classifier.features

    def _run(self, compute: Callable[["torch.Tensor"], "torch.Tensor"], pixels: Pixels) -> Floats:
        import torch

        with self._lock, torch.inference_mode():
            batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self._device)
            found: Floats = compute(batch).float().cpu().numpy()
        return found


def open_onnx(bundle: Bundle, device: str) -> Engine:
    """The engine `onnx` of a bundle."""
    if not _is_there("onnxruntime"):
        raise RecipeError(
            "--engine onnx: ONNX Runtime is not installed; pip install onnxruntime, or take --engine torch"
        )
    if trouble := _trouble("onnxruntime"):
        raise RecipeError(
            f"--engine onnx: ONNX Runtime cannot be imported ({trouble}); install it anew, or take --engine torch"
        )
    model = _model_of(bundle, "onnx", device)
    try:
        engine = OnnxEngine(model)
    except onnxruntime_errors() as error:
        raise _unreadable(bundle, "ONNX Runtime", error) from error
    _check_fit(bundle, engine, engine.outputs, onnxruntime_errors())
    return engine


def open_openvino(bundle: Bundle, device: str) -> Engine:
    """The engine `openvino` of a bundle."""
    if not _is_there("openvino"):
        raise RecipeError(
            "--engine openvino: OpenVINO is not installed; pip install openvino, or leave --engine out"
        )
    if trouble := _trouble("openvino"):
        raise RecipeError(
            f"--engine openvino: OpenVINO cannot be imported ({trouble}); install it anew, or leave --engine out"
        )
    model = _model_of(bundle, "openvino", device)
    try:
        engine = OpenVinoEngine(model)
    except RuntimeError as error:
        raise _unreadable(bundle, "OpenVINO", error) from error
    _check_fit(bundle, engine, engine.outputs, (RuntimeError,))
    return engine


def open_torch(bundle: Bundle, device: str) -> Engine:
    """The engine `torch` of a bundle."""
    if not _is_there("torch"):
        raise RecipeError("--engine torch: PyTorch is not installed; pip install torch torchvision timm")
    if trouble := _trouble("torch"):
        raise RecipeError(f"--engine torch: PyTorch cannot be imported ({trouble}); install it anew")
    from mlcls.bundle.network import load_classifier
    from mlcls.models.forward import resolve_device

    place = resolve_device(device)  # first: it costs nothing to say that there is no such device
    return TorchEngine(load_classifier(bundle), place)


ENGINES: dict[str, Callable[[Bundle, str], Engine]] = {
    "onnx": open_onnx,
    "torch": open_torch,
    "openvino": open_openvino,
}
ON_CPU = ("auto", "cpu")


def choose_engine(bundle: Bundle, engine: str, device: str) -> tuple[str, str | None]:
    """Which engine, and what to tell the user about the choice, if anything.

    Args:
        engine: a key of `ENGINES`, or auto: onnx on the CPU where the bundle has model.onnx, else torch.

    Raises:
        RecipeError: no such engine.
    """
    if engine != "auto":
        if engine not in ENGINES:
            raise RecipeError(f"--engine: unknown engine '{engine}'; {suggest(engine, ['auto', *ENGINES])}")
        return engine, None
    if device not in ON_CPU:
        return "torch", None
    if MODEL not in bundle.manifest["files"]:
        return (
            "torch",
            f"{bundle.folder} has no {MODEL}: predicting through PyTorch, which is slower to start",
        )
    if not _is_there("onnxruntime"):
        why = "ONNX Runtime is not installed (pip install onnxruntime)"
        return "torch", f"{why}: predicting through PyTorch, which is slower to start"
    if trouble := _trouble("onnxruntime"):
        why = f"ONNX Runtime cannot be imported ({trouble})"
        return "torch", f"{why}: predicting through PyTorch, which is slower to start"
    return "onnx", None


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises; its errors have no parent of their own. With those of its library in C++."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (
        found for found in vars(state).values() if isinstance(found, type) and issubclass(found, Exception)
    )
    return (*own, RuntimeError, ValueError, IndexError, OverflowError)


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _trouble(module: str) -> str | None:
    """Why a module that is installed cannot be imported, in one line; None where it can."""
    try:
        importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a library of the system that it loads is absent
        return _last_line(error)
    return None


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _model_of(bundle: Bundle, engine: str, device: str) -> bytes:
    if device not in ON_CPU:
        raise RecipeError(
            f"--engine {engine} --device {device}: this engine computes on the CPU; leave --device out, "
            "or take --engine torch"
        )
    if MODEL not in bundle.manifest["files"]:
        raise BundleError(
            f"--engine {engine}: {bundle.folder} has no {MODEL} (it is older, or training said why it wrote none); "
            "take --engine torch, or train again"
        )
    model = read_verified(bundle, MODEL)
    try:
        check_graph(model)
    except ValueError as error:
        raise BundleError(
            f"{bundle.folder / MODEL}: not opened, since {error}; take --engine torch, or train again"
        ) from error
    return model


def _unreadable(bundle: Bundle, runtime: str, error: Exception) -> BundleError:
    what = _last_line(error)  # OpenVINO begins with lines of its own source
    return BundleError(
        f"{bundle.folder / MODEL}: {runtime} cannot load it ({what}); take --engine torch, or train again"
    )


def _check_fit(bundle: Bundle, engine: Engine, names: list[str], errors: tuple[type[Exception], ...]) -> None:
    """Make sure, by one black image, that the model takes the bundle's images and gives its attributes."""
    if not {LOGITS, FEATURES} <= set(names):
        raise BundleError(
            f"{bundle.folder / MODEL}: expected the outputs {LOGITS} and {FEATURES}, found {', '.join(names)}"
        )
    size, expected = bundle.preprocessing.image_size, (1, len(bundle.attributes))
    try:
        shape = engine.logits(np.zeros((1, size, size, 3), np.uint8)).shape
    except errors as error:
        raise BundleError(
            f"{bundle.folder / MODEL}: does not take the images that bundle.json describes, {size} px a side "
            f"({_last_line(error)})"
        ) from error
    if shape != expected:
        raise BundleError(
            f"{bundle.folder / MODEL}: gives {shape[-1]} scores an image; bundle.json has {expected[1]} attributes"
        )
