"""A small bundle with `model.onnx`, made without training: an untrained network says as much about engines."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch

from mlcls.bundle.ensemble import ensemble_manifest, stage_members
from mlcls.bundle.files import MODEL, THRESHOLDS, WEIGHTS, load_bundle, write_thresholds
from mlcls.bundle.onnx import OnnxFacts, export_onnx
from mlcls.bundle.staging import staged_bundle
from mlcls.images.preprocess import Preprocessing
from mlcls.models.classifier import build_classifier
from mlcls.scoring.predictions import Predictions, write_predictions
from mlcls.scoring.thresholds import TunedThreshold

ATTRIBUTES = ("one", "two", "three")


def write_bundle(
    folder: Path,
    *,
    with_model: bool = True,
    seed: int = 0,
    size: int = 32,
    attributes: Sequence[str] = ATTRIBUTES,
    tta: str | None = None,
    val: Predictions | None = None,
    test: Predictions | None = None,
) -> Path:
    """A bundle of the small network, its logits spread; with calibration, and thresholds of their own.

    Args:
        seed: of the weights.
        size: of the images, px a side.
        tta: the views that its predictions are averaged over; None: its `bundle.json` says nothing of them.
        val, test: predictions to save with it.
    """
    torch.manual_seed(seed)
    classifier = build_classifier("cnn4", "linear", 3, image_size=size).eval()
    with torch.no_grad():
        classifier.head.weight.mul_(20)
    preprocessing = Preprocessing(size)
    manifest = {
        "backbone": "cnn4",
        "backbone_args": {},
        "head": "linear",
        "dropout": None,
        "attributes": list(attributes),
        "preprocessing": asdict(preprocessing),
        "calibration": {"slope": [1.5, 1.0, 0.5], "intercept": [0.1, 0.0, -0.2]},
        "onnx": None,
        **({} if tta is None else {"tta": tta}),
    }
    with staged_bundle(folder, manifest) as staging:
        weights = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
        (staging / WEIGHTS).write_bytes(safetensors.torch.save(weights))
        write_thresholds(
            staging / THRESHOLDS,
            [TunedThreshold(name, 0.4, "f1", 9, 4, 5, 0.8, None) for name in attributes],
        )
        for subset, predictions in (("val", val), ("test", test)):
            if predictions is not None:
                write_predictions(staging / f"predictions-{subset}.csv", predictions)
        if with_model:
            facts = export_onnx(classifier, preprocessing, staging / MODEL)
            assert isinstance(facts, OnnxFacts), facts
            manifest["onnx"] = asdict(facts)
    return folder


def write_ensemble(folder: Path, members: Sequence[Path], threshold: float = 0.3) -> Path:
    """An ensemble of these bundles, `members/fold-0` and so on, with one threshold for all."""
    bundles = [load_bundle(member) for member in members]
    names = [f"fold-{number}" for number in range(len(members))]
    with staged_bundle(folder, ensemble_manifest(bundles, names, seed=0)) as staging:
        stage_members(staging, bundles, names)
        tuned = [TunedThreshold(name, threshold, "f1", 9, 4, 5, 0.8, None) for name in bundles[0].attributes]
        write_thresholds(staging / THRESHOLDS, tuned)
    return folder
