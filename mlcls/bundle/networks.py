"""Networks at work side by side: images prepared for each in, the mean of their calibrated probabilities out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.engines import ENGINES, Engine, choose_engine
from mlcls.bundle.ensemble import mean_probabilities
from mlcls.bundle.files import Bundle
from mlcls.errors import RecipeError
from mlcls.images.preprocess import Preprocessing
from mlcls.images.tta import View, tta_views
from mlcls.scoring.line import Calibration, identity
from mlcls.scoring.platt import sigmoid

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Forms = Sequence[Pixels]  # the same images in each form that networks need


@dataclass(frozen=True, eq=False)
class Network:
    """One network of a bundle, opened.

    Attributes:
        bundle: its own, of an ensemble the member.
        engine: what computes.
        calibration: of its probabilities.
        views: of an image, that its probabilities are the mean over, before calibration.
        columns: [A], where the attributes that are asked for stand among its own; None where they are its own.
        form: which of the forms of an image it takes.
    """

    bundle: Bundle
    engine: Engine
    calibration: Calibration
    views: tuple[View, ...]
    columns: NDArray[np.intp] | None
    form: int

    def probabilities(self, forms: Forms, threads: int) -> Floats:
        """Calibrated, float32 [N, A], in the order of the attributes that are asked for."""
        pixels = forms[self.form]
        seen = [
            self._scores(pixels if len(self.views) == 1 else _viewed(pixels, v), threads) for v in self.views
        ]
        found = self.calibration.apply(mean_probabilities(seen))
        return found if self.columns is None else found[:, self.columns]

    def _scores(self, pixels: Pixels, threads: int) -> Floats:
        scores: Floats = sigmoid(self.engine.logits(pixels, threads).astype(np.float64)).astype(np.float32)
        return scores


def _viewed(pixels: Pixels, view: View) -> Pixels:
    return np.stack([view(image) for image in pixels])


@dataclass(frozen=True, eq=False)
class Averaged:
    """Several models, each the mean of its networks, and all together the mean of the models.

    Attributes:
        models: the networks of each.
        forms: how images are prepared, each form once, whatever number of networks takes it.
        engine: the engines' names, with commas between them where they differ.
        notes: sentences on the choice of the engines where a user should know.
    """

    models: tuple[tuple[Network, ...], ...]
    forms: tuple[Preprocessing, ...]
    engine: str
    notes: tuple[str, ...]

    @property
    def networks(self) -> tuple[Network, ...]:
        """All, in the order of the models and of their members."""
        return tuple(chain.from_iterable(self.models))

    @property
    def batch(self) -> int:
        """How many images one pass takes best."""
        return min(network.engine.batch for network in self.networks)

    def probabilities(self, forms: Forms, threads: int = 0) -> Floats:
        """float32 [N, A] of images in all forms, each uint8 [N, S, S, 3], N at least 1."""
        return mean_probabilities(
            [
                mean_probabilities([network.probabilities(forms, threads) for network in model])
                for model in self.models
            ]
        )

    def embed(self, forms: Forms, threads: int = 0) -> Floats:
        """The networks' features of images in all forms, side by side: float32 [N, D]."""
        return np.concatenate([one.engine.embed(forms[one.form], threads) for one in self.networks], axis=1)

    def width(self) -> int:
        """The size D of the features."""
        return sum(network.engine.width() for network in self.networks)


def open_networks(
    bundles: Sequence[Bundle], engine: str, device: str, *, raw: bool, tta: str | None
) -> Averaged:
    """Open every network of these bundles.

    Args:
        bundles: of the same attributes; the order of the first one's is that of the probabilities.
        engine, device: see `mlcls.bundle.engines.choose_engine`, for each network.
        raw: leave their scores as they are, not calibrated.
        tta: views for all of them, see `tta_views`; None: each network's own.

    Raises:
        BundleError: a network lacks what its engine needs, or is damaged.
        RecipeError: no such engine, device or view.
    """
    attributes, forms = bundles[0].attributes, dict[Preprocessing, Preprocessing]()
    chosen, notes = dict[str, None](), dict[str, None]()

    def opened(bundle: Bundle) -> Network:
        name, note = choose_engine(bundle, engine, device)
        chosen[name] = None
        if note:
            notes[note] = None
        form = _form_of(bundle.preprocessing)
        forms.setdefault(form, bundle.preprocessing)
        return Network(
            bundle,
            ENGINES[name](bundle, device),
            identity(len(attributes)) if raw else bundle.calibration,
            tta_views(bundle.tta if tta is None else tta),
            _columns(attributes, bundle.attributes),
            list(forms).index(form),
        )

    models = tuple(tuple(opened(network) for network in bundle.networks) for bundle in bundles)
    return Averaged(models, tuple(forms.values()), ",".join(chosen), tuple(notes))


def _columns(wanted: tuple[str, ...], own: tuple[str, ...]) -> NDArray[np.intp] | None:
    return None if wanted == own else np.array([own.index(name) for name in wanted], dtype=np.intp)


def _form_of(preprocessing: Preprocessing) -> Preprocessing:
    """A preprocessing without what the pixels do not depend on, so that equal pixels are prepared once.

    The network normalises by mean and std itself; of the pixels, the mean is no more than the colour around an image
    that is padded, and `crop_pct` is of one fit alone.
    """
    plain = Preprocessing(preprocessing.image_size)
    return replace(
        preprocessing,
        crop_pct=preprocessing.crop_pct if preprocessing.fit == "crop" else plain.crop_pct,
        mean=plain.mean if preprocessing.fit == "squash" else preprocessing.mean,
        std=plain.std,
    )


def tta_note(bundles: Sequence[Bundle], tta: str | None) -> str | None:
    """What to tell who predicts with other views than the thresholds and the calibration were made with."""
    if tta is None:
        return None
    own = {network.tta: None for bundle in bundles for network in bundle.networks}
    others = [
        names for names in own if set(map(str.strip, names.split(","))) != set(map(str.strip, tta.split(",")))
    ]
    if not others:
        return None
    return (
        f"--tta {tta}: calibration and thresholds were made with --tta {', '.join(others)}; probabilities may be a "
        "little too high or too low, and decisions the worse for it"
    )


def check_not_raw(bundles: Sequence[Bundle]) -> None:
    """Refuse raw scores where several networks are averaged.

    Raises:
        RecipeError: they have no scale in common.
    """
    if sum(len(bundle.networks) for bundle in bundles) > 1:
        raise RecipeError(
            "--raw: the mean of several networks' own scores has no scale of its own, for thresholds to be on; leave "
            "this flag out, or name one of the networks"
        )
