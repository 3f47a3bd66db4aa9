"""What rows of the frozen part depend on, as keys under which runs share them: a digest of all of it.

Anything left out here would let one run train on what another computed of other images, with other weights or other
roundings; so what cannot be told from outside, as a person's own augmentation, is not shared.
"""

import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import timm
import torch
from torch import nn

import mlcls
from mlcls.folders import cache_folder
from mlcls.images.preprocess import Preprocessing
from mlcls.learning.features import FeatureStore, Layout
from mlcls.learning.shelf import Shelf, ShelvedRows
from mlcls.recipe import Recipe
from mlcls.workflows.checks import augment_settings
from mlcls.workflows.data import LabelledImages

FOLDER = "features"
CODE = ("images", "models", "learning/features.py", "learning/shelf.py", "workflows/levels.py")
"""What of mlcls decides over the bits of a row: with other code there are other keys."""


def open_shelf(folder: Path | None = None, *, gigabytes: float = 10.0) -> Shelf:
    """A shelf for `fit(..., shelf=)`, in any number of runs and processes; nothing is made before rows come.

    Args:
        folder: of its files; None for one in the cache folder.
        gigabytes: that it may hold; what was used least recently goes first.
    """
    return Shelf(cache_folder() / FOLDER if folder is None else folder, int(gigabytes * 1e9))


@dataclass(frozen=True)
class RunShelf:
    """A shelf as one run uses it.

    train, val: digests of the images as the frozen part sees them, without the view; None for those not shared.
    arithmetic: how this machine computes.
    used: keys that the run uses.
    """

    shelf: Shelf
    train: str | None
    val: str | None
    arithmetic: str
    used: set[str] = field(default_factory=set)

    def rows(
        self,
        source: str | None,
        lower: FeatureStore | None,
        module: str,
        layout: Layout,
        width: int,
        precision: str,
        dtype: torch.dtype,
    ) -> ShelvedRows | None:
        """What a store shares; None where that is nothing.

        Args:
            source: `train` or `val`: the images.
            lower: the store whose rows the frozen part takes, and None where it takes pixels.
            module: `digest_of_module` of the frozen part.
            layout, width, precision, dtype: of the store and of how it is computed.
        """
        if source is None or (lower is not None and lower.shelf is None):
            return None
        below = None if lower is None or lower.shelf is None else lower.shelf.keys
        fixed = [self.arithmetic, precision, str(dtype), width, module]

        @cache
        def key(view: int) -> str:
            given = source if below is None else below(view)
            return digest_of([*fixed, view, layout.digest(view), given])

        return ShelvedRows(self.shelf, key, layout.count, layout.size, width * dtype.itemsize, self.used)


def shelve(
    shelf: Shelf, recipe: Recipe, data: LabelledImages, preprocessing: Preprocessing, is_rare: Any = None
) -> RunShelf:
    """What a run shares on a shelf.

    Args:
        recipe: with its device resolved.
        is_rare: bool [n], the training images that `augment_rare` augments; None where none are.
    """
    form = [dataclasses.asdict(preprocessing), recipe.max_pixels]
    augmented = [recipe.augment, dataclasses.asdict(augment_settings(recipe)), recipe.seed]
    if is_rare is not None:
        augmented += [recipe.augment_rare, hashlib.sha256(np.packbits(is_rare).tobytes()).hexdigest()]
    of_others = any(
        ":" in name for name in (recipe.augment, recipe.augment_rare)
    )  # code that is not known here

    def images(rows: Any, *facts: Any) -> str:
        files = hashlib.sha256(np.ascontiguousarray(data.digests[rows]).tobytes()).hexdigest()
        return digest_of([files, form, *facts])

    train = None if of_others else images(data.split.train, augmented)
    return RunShelf(shelf, train, images(data.split.val), _arithmetic(recipe))


def digest_of(facts: Any) -> str:
    """A digest of plain values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()


def digest_of_module(module: nn.Module) -> str:
    """Of a module's operations, parameters and buffers, to the last bit."""
    digest = hashlib.sha256(repr(module).encode())
    for part in module.modules():
        graph = getattr(part, "graph", None)
        if isinstance(graph, torch.fx.Graph):
            digest.update(str(graph).encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        here = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {here.dtype} {tuple(here.shape)} {here.requires_grad}".encode())
        digest.update(here.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _arithmetic(recipe: Recipe) -> str:
    """All of this machine and its programs that the last bit of a sum may depend on."""
    device = torch.device(recipe.device)
    facts: dict[str, Any] = {
        "mlcls": [mlcls.__version__, _code()],
        "packages": [torch.__version__, timm.__version__, cv2.__version__, np.__version__, albumentations.__version__],
        "backbone": [recipe.backbone, recipe.backbone_args],
        "device": device.type,
        "matmul": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }  # fmt: skip
    if device.type == "cuda":
        known = torch.backends.cudnn
        version = known.version()  # type: ignore[no-untyped-call]
        facts["cuda"] = [torch.cuda.get_device_name(device), torch.version.cuda, version]
        facts["cudnn"] = [known.benchmark, known.deterministic, known.allow_tf32]
    else:
        facts["cpu"] = [_processor(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()]
        names = ("ONEDNN_", "DNNL_", "MKL_", "ATEN_")
        facts["settings"] = {name: value for name, value in os.environ.items() if name.startswith(names)}
    return digest_of(facts)


@cache
def _processor() -> str:
    """Which processor this is, and what it can: kernels are chosen by that."""
    known = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for name in ("model name", "flags", "Features"):
        known += [line for line in lines if line.startswith(name)][:1]
    return digest_of(known)


@cache
def _code() -> str:
    """Of the files that decide over the bits of a row."""
    root = Path(mlcls.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(_files(root / name for name in CODE)):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        yield from path.rglob("*.py") if path.is_dir() else [path]
