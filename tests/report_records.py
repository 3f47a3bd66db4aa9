"""Records to show in reports: figures computed from made labels and scores, in the form `metrics.json` has."""

import types
from dataclasses import fields
from typing import Any

import numpy as np

from mlcls.reports.record import (
    AttributeCount,
    DataFacts,
    EpochFigures,
    ModelFacts,
    Record,
    SplitCounts,
    StageFacts,
)
from mlcls.scoring.metrics import evaluate

FIGURES = ("precision", "recall", "f1", "accuracy", "average_precision", "auroc")
WORDS = (
    "helmet", "no-helmet", "vest", "no-vest", "person", "gloves", "goggles", "boots", "ladder", "scaffold",
    "crane", "truck", "cone", "rope", "harness", "mask", "hammer", "drill", "barrier", "sign",
)  # fmt: skip


def attribute_names(number: int) -> tuple[str, ...]:
    """Names as tables have them, each another."""
    return tuple(WORDS[i] if i < len(WORDS) else f"{WORDS[i % len(WORDS)]}_{i:03d}" for i in range(number))


def make_record(
    names: tuple[str, ...],
    *,
    images: int = 150,
    skill: float = 1.5,
    seed: int = 0,
    assessed: bool = True,
    test: bool = True,
) -> Record:
    """A record of a run on made labels.

    Args:
        skill: how far scores of present and absent lie apart; 0 is chance.
        assessed: with intervals, baselines, chance test, calibration and cross-fitted thresholds, as opposed
            to what the first version wrote.
        test: whether there is a test subset.
    """
    rng = np.random.default_rng(seed)
    A = len(names)
    rates = np.clip(rng.beta(1, 3, A), 0.01, 0.97)
    entries: dict[str, dict[str, Any] | None] = {"val": None, "test": None}
    for subset in ("val", "test") if test else ("val",):
        labels = (rng.random((images, A)) < rates).astype(np.float32)
        logits = rng.normal(0, 1, (images, A)) + skill * (labels - 0.5) * rng.uniform(0.3, 2, A)
        labels[rng.random((images, A)) < 0.05] = np.nan
        scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
        entry = evaluate(labels, scores, np.full(A, 0.5), attributes=names)
        entries[subset] = _assess(entry, skill) if assessed else entry
    tuned = [_threshold(name, i, assessed) for i, name in enumerate(names)]
    return Record(
        mlcls="0.1.0",
        seed=0,
        command="mlcls train --labels data/labels.txt --backbone resnet18 --out outputs",
        data=DataFacts(
            rows=1006,
            images=1004,
            missing=("image_489.jpg", "image_624.jpg"),
            duplicates=(("image_145.jpg", "image_737.jpg"), ("image_297.jpg", "image_452.jpg")),
            conflicts=(("image_297.jpg", "image_452.jpg"),),
            attributes=tuple(
                AttributeCount(name, int(904 * rate), 904 - int(904 * rate), 100)
                for name, rate in zip(names, rates, strict=True)
            ),
            split=SplitCounts(704, images, images if test else 0),
            notes=("'helmet' and 'no-helmet' are opposites in every row",),
        ),
        model=ModelFacts(
            backbone="resnet18",
            weights="pretrained",
            head="mlp",
            features=512,
            image_size=224,
            fit="squash",
            stages=(
                StageFacts(name="head", first_epoch=0, trainable=66_436, frozen=11_176_512, modules=("head",)),
                StageFacts(
                    name="head + last", first_epoch=3, trainable=8_460_164, frozen=2_782_784,
                    modules=("head", "backbone.layer4"),
                ),
            ),
            device="cpu",
            precision="fp32",
        ),
        recipe={"labels": "data/labels.txt", "images": None, "epochs": 50, "lr_head": 0.002, "clip": False}
        | {"schedule_args": {"warmup": 2}, "augment_args": {}, "split": [0.7, 0.15, 0.15]},
        thresholds=tuple(tuned),
        epochs=tuple(_epoch(i) for i in range(12)),
        best_epoch=6,
        stopped_because="val_loss has not been better for 5 epochs",
        seconds=203.3,
        evaluation=entries,
    )  # fmt: skip


def _interval(value: float | None, n: int) -> list[float] | None:
    if value is None:
        return None
    half = 1.96 * float(np.sqrt(max(value * (1 - value), 0.01) / max(n, 1)))
    return [max(0.0, value - half), min(1.0, value + half)]


def _intervals(figures: dict[str, Any], n: int) -> dict[str, list[float] | None]:
    return {key: _interval(figures[key], n) for key in FIGURES}


def _assess(entry: dict[str, Any], skill: float) -> dict[str, Any]:
    """The entry with what resampling, guessing and testing add; figures are plausible, not resampled."""
    n, attributes = entry["n"], []
    for one in entry["attributes"]:
        positive, negative = one["positive"], one["known"] - one["positive"]
        undefined = one["name"] in entry["undefined"]
        rate = positive / one["known"] if one["known"] else None
        p = (
            None
            if undefined
            else float(np.exp(-40 * max(0.0, one["auroc"] - 0.5) * np.sqrt(min(positive, negative)) / 5))
        )
        attributes.append(
            one
            | {
                "negative": negative,
                "intervals": _intervals(one, min(positive, negative) + 3),
                "baselines": {"base_rate": rate} | _baselines(None if undefined else rate),
                "chance": {
                    "p": p,
                    "p_adjusted": p,
                    "distinguishable": None if p is None else bool(skill) and p < 0.05,
                },
            }
        )
    rates = [a["baselines"]["base_rate"] for a in attributes if a["name"] not in entry["undefined"]]
    presents = [
        a["baselines"]["always_present"]["f1"] for a in attributes if a["name"] not in entry["undefined"]
    ]
    baselines = _baselines(float(np.mean(rates)) if rates else None)
    baselines["always_present"]["f1"] = float(np.mean(presents)) if presents else None
    return entry | {
        "attributes": attributes,
        "samples": {"precision": 0.71, "recall": 0.66, "f1": 0.64, "accuracy": 0.83},
        "known_share": 0.95,
        "coverage_error": 2.4,
        "label_ranking_average_precision": 0.77,
        "intervals": {
            "level": 0.95,
            "resamples": 1000,
            "unit": "images",
            "macro": _intervals(entry["macro"], n),
            "micro": _intervals(entry["micro"], n * 2),
            "samples": {"precision": [0.6, 0.8], "recall": None, "f1": [0.6, 0.7], "accuracy": [0.8, 0.9]},
            "hamming_loss": _interval(entry["hamming_loss"], n),
            "exact_match": _interval(entry["exact_match"], n),
            "coverage_error": [2.1, 2.8],
            "label_ranking_average_precision": None,
        },
        "baselines": baselines,
        "not_distinguishable": [a["name"] for a in attributes if a["chance"]["distinguishable"] is False],
    }


def _baselines(rate: float | None) -> dict[str, dict[str, float | None]]:
    if rate is None:
        none = dict.fromkeys(FIGURES)
        return {"always_present": dict(none), "always_absent": dict(none)}
    both = {"average_precision": rate, "auroc": 0.5}
    present = {"precision": rate, "recall": 1.0, "f1": 2 * rate / (1 + rate), "accuracy": rate}
    absent = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "accuracy": 1 - rate}
    return {"always_present": present | both, "always_absent": absent | both}


def _threshold(name: str, i: int, assessed: bool) -> dict[str, Any]:
    row = {
        "name": name,
        "threshold": 0.2 + 0.6 * ((i * 37) % 100) / 100,
        "objective": "f1",
        "known": 140,
        "positive": 2 if i == 3 else 20 + i,
        "negative": 138 if i == 3 else 120 - i,
        "value": None if i == 3 else 0.74,
        "note": "fewer than 3 known positives: kept at 0.5" if i == 3 else None,
    }
    if not assessed:
        return row
    return row | {
        "estimator": "robust",
        "cross_fitted": None if i == 3 else 0.74 - 0.01 * (i % 9),
        "interval": None if i == 3 else [0.15, 0.85],
    }


def _epoch(i: int) -> EpochFigures:
    return EpochFigures(
        epoch=i, stage=int(i >= 3), lr=2e-3 * 0.8**i, train_loss=0.8 * 0.9**i,
        val_loss=0.9 - 0.05 * min(i, 6) + 0.02 * i,
        val_map=None if i == 0 else 0.5 + 0.02 * i, val_f1=0.5, val_precision=0.4, val_recall=0.7,
        val_hamming_loss=0.25, val_exact_match=0.125, seconds=3.5, images_per_second=123.4,
    )  # fmt: skip


def make_calibration(names: tuple[str, ...]) -> dict[str, Any]:
    """The `calibration` of a record, with both subsets."""

    def errors(scale: float) -> dict[str, Any]:
        each = [{"name": name, "ece": scale * 0.11, "brier": scale * 0.16} for name in names]
        return {"ece": scale * 0.11, "brier": scale * 0.16, "attributes": each}

    both = {"before": errors(1.0), "after": errors(0.6)}
    return {
        "method": "known shift, then ridge Platt scaling",
        "attributes": [{"name": name, "slope": 0.8, "intercept": -0.4} for name in names],
        "val": both,
        "test": both,
    }


def widened(record: Record, *, calibration: dict[str, Any] | None = None, **data: Any) -> Any:
    """The record with fields that one written by another version may have: `calibration`, and those of `data`."""
    wider = types.SimpleNamespace(
        **{field.name: getattr(record.data, field.name) for field in fields(record.data)}
    )
    vars(wider).update(data)
    found = types.SimpleNamespace(**{field.name: getattr(record, field.name) for field in fields(record)})
    vars(found).update(data=wider, calibration=calibration)
    return found
