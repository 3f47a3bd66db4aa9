"""A bundle at work: images in, probabilities and decisions out."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.files import MANIFEST, WEIGHTS, Bundle, load_bundle, read_verified
from mlcls.errors import BundleError, ImageError, RecipeError
from mlcls.images.preprocess import prepare
from mlcls.images.read import read_image, to_rgb
from mlcls.scoring.calibration import identity
from mlcls.scoring.cells import is_present

if TYPE_CHECKING:
    from mlcls.models.classifier import Classifier

BATCH = 32
Pixels = NDArray[np.uint8]


class Predictor:
    """Predicts with a bundle.

    Args:
        model: the bundle's folder.
        device: auto, cpu, cuda, cuda:N or mps.
        threshold: one threshold for every attribute instead of the bundle's tuned ones.
        raw: give the network's own scores instead of calibrated probabilities, and the thresholds on their scale; the
            decisions are the same. With `threshold`, that one number is on the raw scale.

    Raises:
        BundleError: the folder holds no finished, intact bundle.
    """

    def __init__(
        self,
        model: str | Path = "outputs",
        *,
        device: str = "auto",
        threshold: float | None = None,
        raw: bool = False,
    ) -> None:
        from mlcls.models.forward import resolve_device

        if threshold is not None and not 0 <= threshold <= 1:
            raise RecipeError(f"threshold: expected a number from 0 to 1, got {threshold}")
        self.bundle = load_bundle(model)
        self.attributes = self.bundle.attributes
        tuned = self.bundle.threshold_values()
        self.calibration = identity(len(tuned)) if raw else self.bundle.calibration
        if raw:
            tuned = self.bundle.calibration.invert(tuned)
        self.thresholds = tuned if threshold is None else np.full_like(tuned, threshold)
        self._device = resolve_device(device)
        self._classifier = load_classifier(self.bundle).to(self._device).eval()

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
        """As `predict`, row by row, holding a few batches of pixels and no more."""
        for names, pixels, errors in self._prepared(images):
            scores = iter(self.scores(np.stack(pixels))) if pixels else iter(())
            for name, error in zip(names, errors, strict=True):
                yield {"image": name, "error": error} if error else self._row(name, next(scores))

    def embed(self, images: Iterable[Any]) -> NDArray[np.float32]:
        """The backbone's pooled features, float32 [N, D].

        Raises:
            ImageError: an image cannot be read (there is no row to say so in).
        """
        import torch

        features = []
        for _, pixels, errors in self._prepared(images):
            failed = [error for error in errors if error]
            if failed:
                raise ImageError("\n".join(failed))
            with torch.inference_mode():
                batch = self._classifier.embed(self._batch(np.stack(pixels)))
            features.append(batch.float().cpu().numpy())
        return np.concatenate(features) if features else np.zeros((0, self._width()), np.float32)

    def scores(self, pixels: Pixels) -> NDArray[np.float32]:
        """Probabilities [N, A] of prepared images, uint8 [N, S, S, 3]."""
        import torch

        from mlcls.models.forward import to_scores

        with torch.inference_mode():
            logits = self._classifier(self._batch(pixels))
        return self.calibration.apply(to_scores(logits.float().cpu().numpy()))

    def _batch(self, pixels: Pixels) -> Any:
        import torch

        return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self._device)

    def _width(self) -> int:
        size = self.bundle.preprocessing.image_size
        import torch

        with torch.inference_mode():
            return int(self._classifier.embed(self._batch(np.zeros((1, size, size, 3), np.uint8))).shape[1])

    def _row(self, name: str, scores: NDArray[np.float32]) -> dict[str, Any]:
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

    def _prepared(self, images: Iterable[Any]) -> Iterator[tuple[list[str], list[Pixels], list[str | None]]]:
        """Batches of names, prepared pixels of the readable ones, and an error (or None) for each name.

        The next batch is decoded in threads (OpenCV lets go of the interpreter) while this one is used.
        """
        alone = isinstance(images, str | Path) or hasattr(images, "getexif") or getattr(images, "ndim", 4) < 4
        numbered = enumerate([images] if alone else images)
        with ThreadPoolExecutor() as threads:

            def submit() -> list[Any]:
                return [
                    threads.submit(self._load, number, image) for number, image in islice(numbered, BATCH)
                ]

            pending = submit()
            while pending:
                current, pending = pending, submit()
                loaded = [future.result() for future in current]
                names = [name for name, _, _ in loaded]
                yield names, [p for _, p, _ in loaded if p is not None], [error for _, _, error in loaded]

    def _load(self, number: int, image: Any) -> tuple[str, Pixels | None, str | None]:
        is_path = isinstance(image, str | Path)
        name = str(image) if is_path else f"array {number}"
        try:
            rgb = read_image(Path(image)) if is_path else _rgb_of(image)
        except ImageError as error:
            return name, None, str(error)
        return name, prepare(rgb, self.bundle.preprocessing), None


def _rgb_of(image: Any) -> Pixels:
    """uint8 RGB of an array or a PIL image (turned upright by its EXIF orientation, as a file is)."""
    if isinstance(image, np.ndarray):
        return to_rgb(image)
    if hasattr(image, "getexif") and hasattr(image, "convert"):
        from PIL import ImageOps

        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("P", "LA", "PA") or "transparency" in upright.info:
            upright = upright.convert("RGBA")
        elif upright.mode not in ("L", "RGB", "RGBA", "I;16"):
            upright = upright.convert("RGB")
        return to_rgb(np.asarray(upright))
    raise ImageError(f"expected a path, an array or a PIL image, got {type(image).__name__}")


def load_classifier(bundle: Bundle) -> "Classifier":
    """The bundle's network with its weights, on the CPU, in the mode `torch` builds it (training).

    Raises:
        BundleError: the weights are damaged or do not fit the network that `bundle.json` describes.
    """
    import safetensors
    import safetensors.torch

    from mlcls.models.classifier import build_classifier
    from mlcls.models.heads import HEADS

    manifest, preprocessing = bundle.manifest, bundle.preprocessing
    if manifest["head"] not in HEADS:  # a bundle may come from a stranger: it names no code to import
        raise BundleError(f"{bundle.folder / MANIFEST}: unknown head '{manifest['head']}'")
    try:
        classifier = build_classifier(
            manifest["backbone"],
            manifest["head"],
            len(bundle.attributes),
            backbone_args=manifest["backbone_args"],
            weights="none",
            dropout=manifest["dropout"],
            image_size=preprocessing.image_size,
            mean=preprocessing.mean,
            std=preprocessing.std,
        )
    except (KeyError, TypeError, RecipeError) as error:
        raise BundleError(f"{bundle.folder / MANIFEST}: its network cannot be built: {error}") from error
    try:
        classifier.load_state_dict(safetensors.torch.load(read_verified(bundle, WEIGHTS)))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise BundleError(
            f"{bundle.folder / WEIGHTS}: does not fit the network of bundle.json: {error}"
        ) from error
    return classifier
