"""A bundle at work: images in, probabilities and decisions out."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.engines import ENGINES
from mlcls.bundle.ensemble import check_same_attributes
from mlcls.bundle.files import Bundle, load_bundle
from mlcls.bundle.networks import Forms, check_not_raw, open_networks, tta_note
from mlcls.bundle.stream import Chunk, Compute, Load, run_stream
from mlcls.errors import ImageError, RecipeError
from mlcls.images.cores import usable_cores
from mlcls.images.load import load_image
from mlcls.images.preprocess import Preprocessing, prepare
from mlcls.images.read import MAX_PIXELS, to_rgb
from mlcls.images.tta import tta_views
from mlcls.scoring.cells import is_present
from mlcls.scoring.line import identity

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Models = str | Path | Sequence[str | Path]


class Predictor:
    """Predicts with a bundle, or with several together.

    An ensemble's probability is the mean of its members' calibrated ones, that of several models the mean of theirs.
    Every network sees an image in its own size and way; networks that see it alike share the decoding. All are held in
    memory at once.

    Args:
        model: the bundle's folder, or a list of folders: bundles of the same attributes, in whatever order (the first
            one's order is taken). The thresholds of several: see `mlcls.bundle.together.thresholds_together`.
        device: auto, cpu, cuda, cuda:N or mps.
        threshold: one threshold for every attribute instead of the bundle's tuned ones.
        raw: give the network's own scores instead of calibrated probabilities, and the thresholds on their scale; the
            decisions are the same. With `threshold`, that one number is on the raw scale. Not with several networks.
        engine: onnx, torch, openvino, or auto: onnx on the CPU where the bundle has model.onnx, else torch.
        max_pixels: a larger image file is refused before it is decoded; its row says so.
        tta: the views that each network's probabilities are the mean over, see `mlcls.images.tta.tta_views`; `none`
            for the image alone; None: those that each bundle was made with.

    Attributes:
        bundle: the first of `bundles`.
        engine: the engine's name; the names of all, with commas between them, where networks have different ones.
        note: what a user should know of the choice of engines, views and thresholds, a line each; else None.

    Raises:
        BundleError: a folder holds no finished, intact bundle, or lacks what the engine needs; bundles of other
            attributes.
        RecipeError: no such engine, device or view, the engine is not installed, a folder is named twice.
    """

    def __init__(
        self,
        model: Models = "outputs",
        *,
        device: str = "auto",
        threshold: float | None = None,
        raw: bool = False,
        engine: str = "auto",
        max_pixels: int = MAX_PIXELS,
        tta: str | None = None,
    ) -> None:
        _check_arguments(threshold, engine, max_pixels, tta)
        places = check_places(model)
        self.max_pixels = max_pixels
        self.bundles = tuple(map(load_bundle, places))
        self.bundle = self.bundles[0]
        self.attributes = self.bundle.attributes
        for other in self.bundles[1:]:
            check_same_attributes(self.bundle, other)
        if raw:
            check_not_raw(self.bundles)
        tuned, said = _thresholds(self.bundles, needed=threshold is None)
        self.calibration = identity(len(tuned)) if raw else self.bundle.calibration
        if raw:
            tuned = self.bundle.networks[0].calibration.invert(tuned)
        self.thresholds = tuned if threshold is None else np.full_like(tuned, threshold)
        self._networks = open_networks(self.bundles, engine, device, raw=raw, tta=tta)
        self.engine = self._networks.engine
        notes = [*self._networks.notes, tta_note(self.bundles, tta), said]
        self.note = "\n".join(note for note in notes if note) or None
        self._reopen = partial(
            type(self),
            [place.absolute() for place in places],
            device=device,
            threshold=threshold,
            raw=raw,
            engine=engine,
            max_pixels=max_pixels,
            tta=tta,
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
        """The backbone's pooled features, float32 [N, D], of the image as it is, whatever views predictions average.

        Of several networks, the features of each, one beside the other, in the order of the models and their members.

        Raises:
            ImageError: an image cannot be read (there is no row to say so in).
        """
        features = []
        for chunk in self._run(_several(images), self._load, self._networks.embed):
            if failed := [error for error in chunk.errors if error]:
                raise ImageError("\n".join(failed))
            if chunk.values is not None:
                features.append(chunk.values)
        return np.concatenate(features) if features else np.zeros((0, self._networks.width()), np.float32)

    @property
    def preprocessings(self) -> tuple[Preprocessing, ...]:
        """The forms in which the networks need an image, each once; one unless networks differ in it."""
        return self._networks.forms

    def stream_scores(self, count: int, *loads: Callable[[int], Pixels]) -> Iterator[Floats | str]:
        """Probabilities [A] of prepared images, one by one; for one that cannot be read, the reason.

        Args:
            count: how many images.
            loads: for each of `preprocessings` what gives image 0 .. count - 1 in that form, uint8 [S, S, 3]; raises
                ImageError. Called in threads.
        """
        self._check_forms(loads)
        for chunk in self._run(
            range(count), lambda number, _: [load(number) for load in loads], self._scores
        ):
            scores = iter(()) if chunk.values is None else iter(chunk.values)
            for error in chunk.errors:
                yield next(scores) if error is None else error

    def scores(self, *pixels: Pixels) -> Floats:
        """Probabilities [N, A] of prepared images, uint8 [N, S, S, 3] in each of `preprocessings`."""
        self._check_forms(pixels)
        return self._scores(pixels)

    def _check_forms(self, given: Sequence[object]) -> None:
        if len(given) != len(self.preprocessings):
            raise ValueError(f"expected images in {len(self.preprocessings)} forms, got {len(given)}")

    def _scores(self, forms: Forms, threads: int = 0) -> Floats:
        return self._networks.probabilities(forms, threads)

    def _run(self, images: Iterable[Any], load: Load, compute: Compute) -> Iterator[Chunk]:
        batch = self._networks.batch
        return run_stream(images, load, compute, workers=usable_cores(), batch=batch, stack=_stacked)

    def _load(self, number: int, image: Any) -> list[Pixels]:
        """The image in every form."""
        if isinstance(image, str | Path):
            return [load_image(image, form, max_pixels=self.max_pixels) for form in self.preprocessings]
        pixels = _rgb_of(image)
        return [prepare(pixels, form) for form in self.preprocessings]

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


def _check_arguments(threshold: object, engine: object, max_pixels: object, tta: object) -> None:
    """Refuse, before anything is opened, what can be no such argument. Raises RecipeError."""
    if threshold is not None and not _is_share(threshold):
        raise RecipeError(f"threshold: expected a number from 0 to 1, got {threshold!r}")
    if not isinstance(engine, str):
        raise RecipeError(f"engine: expected a name, one of auto, {', '.join(ENGINES)}, got {engine!r}")
    if not isinstance(max_pixels, int) or max_pixels < 1:
        raise RecipeError(f"max_pixels: expected a whole number of at least 1, got {max_pixels!r}")
    if tta is not None and not isinstance(tta, str):
        raise RecipeError(f"tta: expected names with commas between them, as flip,zoom, got {tta!r}")
    if tta is not None:
        tta_views(tta)


def check_places(model: Models) -> list[Path]:
    """The folders that are named.

    Raises:
        RecipeError: none, one twice, or one with its own member.
    """
    if isinstance(model, str | os.PathLike):
        return [Path(model)]
    places = list(map(Path, model))
    if not places:
        raise RecipeError("--model: name a bundle's folder, or several")
    seen: dict[str, Path] = {}
    for place in places:
        if (real := os.path.realpath(place)) in seen:
            raise RecipeError(f"--model {place}: is named twice; its say would count twice, name it once")
        seen[real] = place
    for real, place in seen.items():
        whole = next((seen[other] for other in seen if real.startswith(other + os.sep)), None)
        if whole is not None:
            raise RecipeError(
                f"--model {place}: is a member of {whole}; its say would count twice, name one of the two"
            )
    return places


def _thresholds(bundles: Sequence[Bundle], needed: bool) -> tuple[NDArray[np.float64], str | None]:
    """The thresholds for the mean of these bundles, and a sentence on them where they are no bundle's own."""
    if len(bundles) == 1 or not needed:
        return bundles[0].threshold_values(), None
    from mlcls.bundle.together import thresholds_together  # reads saved predictions and tunes: for this alone

    return thresholds_together(bundles)


def _stacked(rows: list[list[Pixels]]) -> list[Pixels]:
    """Images in several forms -> each form's images, uint8 [n, S, S, 3]."""
    return [np.stack(form) for form in zip(*rows, strict=True)]


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
