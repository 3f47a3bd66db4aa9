"""A bundle at work: images in, probabilities and decisions out."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.engines import ENGINES, choose_engine
from mlcls.bundle.files import load_bundle
from mlcls.bundle.stream import Chunk, Compute, Load, run_stream
from mlcls.errors import ImageError, RecipeError
from mlcls.images.cores import usable_cores
from mlcls.images.load import load_image
from mlcls.images.preprocess import prepare
from mlcls.images.read import MAX_PIXELS, to_rgb
from mlcls.scoring.cells import is_present
from mlcls.scoring.line import identity
from mlcls.scoring.platt import sigmoid

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Predictor:
    """Predicts with a bundle.

    Args:
        model: the bundle's folder.
        device: auto, cpu, cuda, cuda:N or mps.
        threshold: one threshold for every attribute instead of the bundle's tuned ones.
        raw: give the network's own scores instead of calibrated probabilities, and the thresholds on their scale; the
            decisions are the same. With `threshold`, that one number is on the raw scale.
        engine: onnx, torch, openvino, or auto: onnx on the CPU where the bundle has model.onnx, else torch.
        max_pixels: a larger image file is refused before it is decoded; its row says so.

    Attributes:
        engine: the engine's name.
        note: a sentence on the choice of the engine where a user should know; else None.

    Raises:
        BundleError: the folder holds no finished, intact bundle, or lacks what the engine needs.
        RecipeError: no such engine or device, or the engine is not installed.
    """

    def __init__(
        self,
        model: str | Path = "outputs",
        *,
        device: str = "auto",
        threshold: float | None = None,
        raw: bool = False,
        engine: str = "auto",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if threshold is not None and not _is_share(threshold):
            raise RecipeError(f"threshold: expected a number from 0 to 1, got {threshold!r}")
        if not isinstance(engine, str):
            raise RecipeError(f"engine: expected a name, one of auto, {', '.join(ENGINES)}, got {engine!r}")
        if not isinstance(max_pixels, int) or max_pixels < 1:
            raise RecipeError(f"max_pixels: expected a whole number of at least 1, got {max_pixels!r}")
        self.max_pixels = max_pixels
        self.bundle = load_bundle(model)
        self.attributes = self.bundle.attributes
        tuned = self.bundle.threshold_values()
        self.calibration = identity(len(tuned)) if raw else self.bundle.calibration
        if raw:
            tuned = self.bundle.calibration.invert(tuned)
        self.thresholds = tuned if threshold is None else np.full_like(tuned, threshold)
        self.engine, self.note = choose_engine(self.bundle, engine, device)
        self._engine = ENGINES[self.engine](self.bundle, device)
        place = Path(model).absolute()
        self._reopen = partial(
            type(self),
            place,
            device=device,
            threshold=threshold,
            raw=raw,
            engine=engine,
            max_pixels=max_pixels,
        )

    def __reduce__(self) -> tuple[Callable[[], "Predictor"], tuple[()]]:
        """Copied and pickled as what it was opened with: no session of an engine travels, a copy opens its own."""
        return self._reopen, ()

    def predict(self, images: Iterable[Any]) -> list[dict[str, Any]]:
        """The rows of `--format json`, one an image, in the order given.

        Args:
            images: paths, uint8 RGB arrays [H, W, 3] (also gray or with alpha), or PIL images; one of them alone
                is a list of one.

        Returns:
            For each image `{"image", "attributes": [{"name", "probability", "threshold", "present"}], "present"}`,
            or `{"image", "error"}` where it cannot be read. `image` is the path, or `array N` counted from 0.
        """
        return list(self.stream(images))

    def stream(self, images: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """As `predict`, row by row as they come, holding a few chunks of images and no more."""
        for chunk in self._run(_several(images), self._load, self._scores):
            scores = iter(()) if chunk.values is None else iter(chunk.values)
            for item, error in zip(chunk.items, chunk.errors, strict=True):
                name = _name_of(*item)
                yield {"image": name, "error": error} if error else self._row(name, next(scores))

    def embed(self, images: Iterable[Any]) -> Floats:
        """The backbone's pooled features, float32 [N, D].

        Raises:
            ImageError: an image cannot be read (there is no row to say so in).
        """
        features = []
        for chunk in self._run(_several(images), self._load, self._engine.embed):
            if failed := [error for error in chunk.errors if error]:
                raise ImageError("\n".join(failed))
            if chunk.values is not None:
                features.append(chunk.values)
        return np.concatenate(features) if features else np.zeros((0, self._engine.width()), np.float32)

    def stream_scores(self, count: int, load: Callable[[int], Pixels]) -> Iterator[Floats | str]:
        """Probabilities [A] of prepared images, one by one; for one that cannot be read, the reason.

        Args:
            count: how many images.
            load: gives image 0 .. count - 1, uint8 [S, S, 3]; raises ImageError. Called in threads.
        """
        for chunk in self._run(range(count), lambda number, _: load(number), self._scores):
            scores = iter(()) if chunk.values is None else iter(chunk.values)
            for error in chunk.errors:
                yield next(scores) if error is None else error

    def scores(self, pixels: Pixels) -> Floats:
        """Probabilities [N, A] of prepared images, uint8 [N, S, S, 3]."""
        return self._scores(pixels)

    def _scores(self, pixels: Pixels, threads: int = 0) -> Floats:
        logits = self._engine.logits(pixels, threads).astype(np.float64)
        return self.calibration.apply(sigmoid(logits).astype(np.float32))

    def _run(self, images: Iterable[Any], load: Load, compute: Compute) -> Iterator[Chunk]:
        return run_stream(images, load, compute, workers=usable_cores(), batch=self._engine.batch)

    def _load(self, number: int, image: Any) -> Pixels:
        if isinstance(image, str | Path):
            return load_image(image, self.bundle.preprocessing, max_pixels=self.max_pixels)
        return prepare(_rgb_of(image), self.bundle.preprocessing)

    def _row(self, name: str, scores: Floats) -> dict[str, Any]:
        present = is_present(scores[None], self.thresholds)[0]
        attributes = [
            {"name": a, "probability": float(score), "threshold": float(threshold), "present": bool(decision)}
            for a, score, threshold, decision in zip(
                self.attributes, scores, self.thresholds, present, strict=True
            )
        ]
        return {
            "image": name,
            "attributes": attributes,
            "present": [a["name"] for a in attributes if a["present"]],
        }


def _several(images: Any) -> Iterable[Any]:
    """Images one by one, where one of them alone may have been given."""
    alone = isinstance(images, str | Path) or hasattr(images, "getexif") or getattr(images, "ndim", 4) < 4
    kind = getattr(getattr(images, "dtype", None), "kind", None)
    if kind in ("U", "O", "T") and images.ndim > 0:  # an array or a pandas Series of paths or of images
        alone = False
    return [images] if alone else images


def _is_share(value: object) -> bool:
    return isinstance(value, Real) and 0 <= float(value) <= 1


def _name_of(number: int, image: Any) -> str:
    return str(image) if isinstance(image, str | Path) else f"array {number}"


def _rgb_of(image: Any) -> Pixels:
    """uint8 RGB of an array or a PIL image (turned upright by its EXIF orientation, as a file is)."""
    if isinstance(image, np.ndarray):
        return to_rgb(image)
    if hasattr(image, "getexif") and hasattr(image, "convert"):
        from PIL import ImageOps

        try:  # PIL decodes only now
            upright = ImageOps.exif_transpose(image)
            if upright.mode in ("P", "LA", "PA") or "transparency" in upright.info:
                upright = upright.convert("RGBA")
            elif upright.mode not in ("L", "RGB", "RGBA", "I;16"):
                upright = upright.convert("RGB")
            pixels = np.asarray(upright)
        except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: PIL's for a broken PNG
            raise ImageError(f"the PIL image cannot be decoded ({error})") from error
        return to_rgb(pixels)
    raise ImageError(f"expected a path, an array or a PIL image, got {type(image).__name__}")
