"""A finished bundle at a glance, after each of its files is found to be as it was written."""

from pathlib import Path
from typing import TYPE_CHECKING

from mlcls.bundle.files import MODEL, Bundle, verify_bundle
from mlcls.reports.console import say

if TYPE_CHECKING:
    from rich.console import Console

UNTUNED = "fixed:"  # how the objective of a threshold begins that rests on no labels


def show_verified(model: str | Path, console: "Console") -> None:
    """Verify every file of a bundle and say what it is.

    Raises:
        BundleError: it is unfinished, or files are missing or damaged: names them all.
    """
    bundle = verify_bundle(model)
    count = len(bundle.manifest["files"]) + 2  # bundle.json and thresholds.json have digests of their own
    say(console, f"{bundle.folder}: {count} files, all as they were written")
    for name, text in _facts(bundle):
        say(console, f"{name:<12} {text}", indent=2)


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    manifest, preprocessing = bundle.manifest, bundle.preprocessing
    versions = manifest.get("versions")
    written = [
        f"mlcls {manifest.get('mlcls', 'unknown')}",
        *(f"{name} {value}" for name, value in dict(versions or {}).items()),
    ]
    return [
        ("backbone", f"{manifest.get('backbone')}, head {manifest.get('head')}"),
        ("images", f"{preprocessing.image_size} x {preprocessing.image_size} px, {preprocessing.fit}"),
        ("attributes", f"{len(bundle.attributes)}: {', '.join(bundle.attributes)}"),
        ("thresholds", _thresholds(bundle)),
        ("calibration", "yes" if manifest.get("calibration") else "no"),
        (MODEL, "yes" if MODEL in manifest["files"] else "no: predicting needs PyTorch"),
        ("written by", ", ".join(written)),
    ]


def _thresholds(bundle: Bundle) -> str:
    objectives = sorted({threshold.objective for threshold in bundle.thresholds})
    tuned = [objective for objective in objectives if not objective.startswith(UNTUNED)]
    return f"tuned for {', '.join(tuned)}" if tuned else f"not tuned ({', '.join(objectives)})"
