"""A finished bundle at a glance, after each of its files is found to be as it was written."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mlcls.bundle.files import MEMBERS, MODEL, Bundle, verify_bundle
from mlcls.reports.console import say

if TYPE_CHECKING:
    from rich.console import Console

UNTUNED = "fixed:"  # how the objective of a threshold begins that rests on no labels


def show_verified(model: str | Path, console: "Console") -> None:
    """Verify every file of a bundle, of an ensemble those of its members too, and say what it is.

    Raises:
        BundleError: it is unfinished, or files are missing or damaged: names them all.
    """
    bundle = verify_bundle(model)
    # bundle.json and thresholds.json have digests of their own; an ensemble's files name its members' bundle.json
    count = sum(len(one.manifest["files"]) + 2 for one in (bundle, *bundle.members)) - len(bundle.members)
    say(console, f"{bundle.folder}: {count} files, all as they were written")
    for name, text in _facts(bundle):
        say(console, f"{name:<12} {text}", indent=2)


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    manifest, networks = bundle.manifest, bundle.networks
    versions = manifest.get("versions")
    written = [
        f"mlcls {manifest.get('mlcls', 'unknown')}",
        *(f"{name} {value}" for name, value in dict(versions or {}).items()),
    ]
    without = sum(MODEL not in network.manifest["files"] for network in networks)
    lacking = "no" if without == len(networks) else f"{without} of {len(networks)} have none"
    sizes = [
        f"{one.image_size} x {one.image_size} px, {one.fit}" for one in (n.preprocessing for n in networks)
    ]
    return [
        *([("members", f"{len(networks)}, in {bundle.folder / MEMBERS}")] if bundle.members else []),
        ("backbone", _each(f"{n.manifest.get('backbone')}, head {n.manifest.get('head')}" for n in networks)),
        ("images", _each(sizes)),
        ("attributes", f"{len(bundle.attributes)}: {', '.join(bundle.attributes)}"),
        ("thresholds", _thresholds(bundle)),
        ("calibration", _each("yes" if n.manifest.get("calibration") else "no" for n in networks)),
        ("views", _each(n.tta for n in networks)),
        (MODEL, f"{lacking}: predicting needs PyTorch" if without else "yes"),
        ("written by", ", ".join(written)),
    ]


def _each(said: Iterable[str]) -> str:
    """What is true of every network, or what is true of how many."""
    counts = Counter(said)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{text} ({count})" for text, count in counts.items())


def _thresholds(bundle: Bundle) -> str:
    objectives = sorted({threshold.objective for threshold in bundle.thresholds})
    tuned = [objective for objective in objectives if not objective.startswith(UNTUNED)]
    return f"tuned for {', '.join(tuned)}" if tuned else f"not tuned ({', '.join(objectives)})"
