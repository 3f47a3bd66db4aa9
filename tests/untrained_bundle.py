"""A small bundle with `model.onnx`, made without training: an untrained network says as much about engines."""

from dataclasses import asdict
from pathlib import Path

import safetensors.torch
import torch

from mlcls.bundle.files import MODEL, THRESHOLDS, WEIGHTS, write_thresholds
from mlcls.bundle.onnx import OnnxFacts, export_onnx
from mlcls.bundle.staging import staged_bundle
from mlcls.images.preprocess import Preprocessing
from mlcls.models.classifier import build_classifier
from mlcls.scoring.thresholds import TunedThreshold

ATTRIBUTES = ("one", "two", "three")


def write_bundle(folder: Path, *, with_model: bool = True) -> Path:
    """A bundle of the small network, its logits spread; with calibration, and thresholds of their own."""
    torch.manual_seed(0)
    classifier = build_classifier("cnn4", "linear", 3, image_size=32).eval()
    with torch.no_grad():
        classifier.head.weight.mul_(20)
    preprocessing = Preprocessing(32)
    manifest = {
        "backbone": "cnn4",
        "backbone_args": {},
        "head": "linear",
        "dropout": None,
        "attributes": list(ATTRIBUTES),
        "preprocessing": asdict(preprocessing),
        "calibration": {"slope": [1.5, 1.0, 0.5], "intercept": [0.1, 0.0, -0.2]},
        "onnx": None,
    }
    with staged_bundle(folder, manifest) as staging:
        weights = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
        (staging / WEIGHTS).write_bytes(safetensors.torch.save(weights))
        write_thresholds(
            staging / THRESHOLDS,
            [TunedThreshold(name, 0.4, "f1", 9, 4, 5, 0.8, None) for name in ATTRIBUTES],
        )
        if with_model:
            facts = export_onnx(classifier, preprocessing, staging / MODEL)
            assert isinstance(facts, OnnxFacts), facts
            manifest["onnx"] = asdict(facts)
    return folder
