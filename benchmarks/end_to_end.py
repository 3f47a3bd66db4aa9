"""Measures an epoch end to end against the same steps on tensors that lie in memory already.

    python benchmarks/end_to_end.py                                     # resnet18, random weights, made-up photos
    python benchmarks/end_to_end.py --backbone mobilenetv2_100 --image-size 160 --images 1000 --out ratios.json
    python benchmarks/end_to_end.py --device cuda --batch-size 256

Trains as `python -m mlcls.train` does: reads the table, decodes, augments, fills and reads the caches. After each
epoch, by turns with it, as many steps of the same sizes are taken on random tensors; the ratio of an epoch is
its images a second over theirs. A stage's first epoch is left out, medians are shown. While a view is filled the
steps on random tensors go through the frozen part too. On a CUDA device also the bound that memory bandwidth sets.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from machine import machine_words
from rich.console import Console
from torch import Tensor

from mlcls.learning.batchnorm import moving_buffers
from mlcls.learning.steps import Batch, build_stepper, take_step
from mlcls.models.forward import autocast
from mlcls.models.frontier import find_cut
from mlcls.models.stages import train_mode
from mlcls.recipe import Recipe
from mlcls.reports.record import EpochFigures
from mlcls.workflows.data import gather
from mlcls.workflows.epochs import learn
from mlcls.workflows.levels import CHUNK_ON_CPU
from mlcls.workflows.setup import Setup, preprocessing_for, set_up

ATTRIBUTES = 5
FILLING, READING, FRESH = "fills a view", "reads the cache", "from pixels"


@dataclass(frozen=True)
class Epoch:
    """One epoch beside its steps on random tensors: images a second of each."""

    stage: str
    kind: str
    real: float
    synthetic: float


def main() -> None:
    flags = parse_flags()
    with tempfile.TemporaryDirectory() as folder:
        table = write_photos(Path(folder), flags.images, flags.photo_size)
        result = measure(table, flags)
    print(words(flags))
    print("\n".join(table_lines(result["rows"])))
    for line in result["bounds"]:
        print(line)
    if flags.out:
        flags.out.write_text(json.dumps(result, indent=1, allow_nan=False), encoding="utf-8")


def parse_flags(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--backbone-args", default="", help="KEY=VALUE pairs with spaces between them")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--images", type=int, default=256, help="photos that are made up")
    parser.add_argument("--photo-size", type=int, default=640, help="their longer side, pixels")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--augment", default="rich")
    parser.add_argument("--views", type=int, default=2, help="each is filled in an epoch")
    parser.add_argument("--epochs", type=int, default=3, help="that are measured of each kind")
    parser.add_argument("--workers", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, help="a JSON file with every epoch")
    return parser.parse_args(argv)


def write_photos(folder: Path, count: int, longer: int) -> Path:
    """A table of random labels and JPEGs whose detail is that of a photo, more or less: blurred noise."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    lines = [",".join(["image", *(f"a{i}" for i in range(ATTRIBUTES)), "subset"])]
    shape = (longer * 3 // 4, longer, 3)
    for number in range(count + 2):
        coarse = rng.integers(0, 256, (max(shape[0] // 16, 2), max(shape[1] // 16, 2), 3), dtype=np.uint8)
        photo = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        photo += rng.integers(-12, 13, shape, dtype=np.int16)
        name = f"{number:05d}.jpg"
        cv2.imwrite(str(folder / "images" / name), photo.clip(0, 255).astype(np.uint8))
        # two of validation, with both labels of every attribute: what is measured is training
        labels = rng.integers(0, 2, ATTRIBUTES) if number < count else np.full(ATTRIBUTES, number % 2)
        lines.append(
            ",".join([name, *(str(int(label)) for label in labels), "train" if number < count else "val"])
        )
    table = folder / "labels.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table


def measure(table: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """Three trainings: with cached views, without, and of everything; a row for each stage and kind of epoch."""
    cached = flags.views + flags.epochs
    runs = {
        f"views {flags.views}": {
            "views": flags.views,
            "unfreeze": "last",
            "unfreeze_epoch": cached + 1,
            "epochs": cached + flags.epochs + 2,
        },
        "views 0": {
            "views": 0,
            "unfreeze": "last",
            "unfreeze_epoch": flags.epochs + 1,
            "epochs": 2 * flags.epochs + 2,
        },
        "unfreeze all": {"unfreeze": "all", "unfreeze_epoch": 0, "epochs": flags.epochs + 1},
    }
    rows: list[dict[str, Any]] = []
    bounds: list[str] = []
    for name, settings in runs.items():
        epochs, setup = train(recipe_of(table, flags, **settings))
        if setup.device.type == "cuda" and name == "unfreeze all":
            bounds = bandwidth_bound(setup, epochs)
        for stage, kind in dict.fromkeys((epoch.stage, epoch.kind) for epoch in epochs):
            of_kind = [epoch for epoch in epochs if (epoch.stage, epoch.kind) == (stage, kind)]
            rows.append(row(f"{stage}, {name}", kind, of_kind))
    return {"machine": words(flags), "rows": rows, "bounds": bounds}


def recipe_of(table: Path, flags: argparse.Namespace, **settings: Any) -> Recipe:
    """The recipe of one training; it never stops by itself."""
    return Recipe(
        labels=str(table),
        split="column:subset",
        near_duplicates="ignore",
        backbone=flags.backbone,
        backbone_args=dict(pair.split("=", 1) for pair in flags.backbone_args.split()),
        weights="none",
        image_size=flags.image_size,
        augment=flags.augment,
        batch_size=flags.batch_size,
        workers=flags.workers,
        device=flags.device,
        precision=flags.precision,
        patience=0,
        **settings,
    )


def train(recipe: Recipe) -> tuple[list[Epoch], Setup]:
    """Train by the recipe; each epoch is followed by its steps on random tensors."""
    console = Console(quiet=True)
    preprocessing = preprocessing_for(recipe)
    setup = set_up(recipe, gather(recipe, console, preprocessing=preprocessing), preprocessing)
    epochs: list[Epoch] = []
    seen: set[int] = set()

    def after(figures: EpochFigures) -> None:
        filling = setup.feeds[figures.stage].rest is not None and figures.epoch < setup.recipe.views
        synthetic = synthetic_rate(setup, figures, filling)
        if figures.stage in seen:  # a stage's first epoch starts workers and fills caches of the processor
            kind = FILLING if filling else READING if setup.feeds[figures.stage].rest is not None else FRESH
            real = figures.images_per_second
            epochs.append(Epoch(setup.stages[figures.stage].name, kind, real, synthetic))
        seen.add(figures.stage)

    learn(setup, console, after)
    return epochs, setup


def synthetic_rate(setup: Setup, figures: EpochFigures, filling: bool) -> float:
    """Images a second of the epoch's steps on random tensors; the frozen part first where a view is filled."""
    optimizer, schedule = setup.stages[figures.stage].begin()
    stepper = build_stepper(
        setup.model,
        setup.loss,
        optimizer,
        schedule,
        device=setup.device,
        precision=setup.recipe.precision,
        clip_norm=setup.recipe.clip_norm or None,
    )
    train_mode(setup.classifier)
    if setup.model.rest is not None:
        setup.model.rest.train()
    sizes = [len(positions) for positions in setup.train.positions(figures.epoch)]
    buffers = moving_buffers(setup.model)
    make_batch = synthetic_batch(setup, figures.stage, max(sizes), filling)
    take_step(stepper, [make_batch(sizes[0])], buffers)
    started = time.perf_counter()
    for size in sizes:
        take_step(stepper, [make_batch(size)], buffers)
    return sum(sizes) / (time.perf_counter() - started)


def synthetic_batch(setup: Setup, stage: int, most: int, filling: bool) -> Callable[[int], Batch]:
    """What gives a random batch of so many images: rows where the stage reads rows, else pixels.

    All is in memory before; while a view is filled, the rows are computed from pixels in memory each time.
    """
    side, device = setup.preprocessing.image_size, setup.device
    pixels = torch.randint(0, 256, (most, 3, side, side), dtype=torch.uint8)
    pixels = pixels.contiguous(memory_format=torch.channels_last).to(device)
    labels = torch.randint(0, 2, (most, ATTRIBUTES)).float()
    indices = torch.arange(most)
    if setup.feeds[stage].rest is None:
        return lambda size: (pixels[:size], labels[:size], indices[:size])
    cut = find_cut(setup.classifier, side, fold=True)
    rows = frozen(cut.trunk, pixels, setup)
    if filling:
        return lambda size: (frozen(cut.trunk, pixels[:size], setup), labels[:size], indices[:size])
    return lambda size: (rows[:size], labels[:size], indices[:size])


def frozen(trunk: torch.nn.Module, pixels: Tensor, setup: Setup) -> Tensor:
    """The frozen part's rows as a store has them, computed as training computes them."""
    parts = pixels.split(CHUNK_ON_CPU) if pixels.device.type == "cpu" else [pixels]
    with torch.no_grad(), autocast(setup.device, setup.recipe.precision):
        return torch.cat([trunk(part) for part in parts]).to("cpu", torch.bfloat16)


def row(stage: str, kind: str, epochs: list[Epoch]) -> dict[str, Any]:
    """The medians of one kind of epoch, with all that they come from."""
    ratios = [epoch.real / epoch.synthetic for epoch in epochs]
    return {
        "stage": stage,
        "epoch": kind,
        "images_per_second": statistics.median(epoch.real for epoch in epochs),
        "synthetic_images_per_second": statistics.median(epoch.synthetic for epoch in epochs),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def table_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown."""
    lines = [
        "| stage | an epoch that | images/s | on tensors in memory | ratio (lowest to highest) |",
        "|---|---|---|---|---|",
    ]
    for one in rows:
        ends = f"{min(one['ratios']):.2f} to {max(one['ratios']):.2f}"
        lines.append(
            f"| {one['stage']} | {one['epoch']} | {one['images_per_second']:,.0f} | "
            f"{one['synthetic_images_per_second']:,.0f} | {one['ratio']:.2f} ({ends}) |"
        )
    return lines


def bandwidth_bound(setup: Setup, epochs: list[Epoch]) -> list[str]:
    """What the device's memory allows: each layer's tensors moved once forward and twice backward, and no more."""
    bandwidth = copy_bandwidth(setup.device)
    moved = 3 * forward_traffic(setup)
    bound = bandwidth / moved
    real = statistics.median(epoch.real for epoch in epochs)
    return [
        "",
        f"{torch.cuda.get_device_name(setup.device)}: {bandwidth / 1e9:,.0f} GB/s measured by copying; "
        f"{moved / 1e6:,.1f} MB an image and step: {bound:,.0f} images/s at most; "
        f"{real:,.0f} are trained, {real / bound:.2f} of it",
    ]


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that the device's memory reads and writes, copying 1 GiB ten times."""
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(10):
        target.copy_(source)
    torch.cuda.synchronize(device)
    return 2 * 10 * source.numel() / (time.perf_counter() - started)


def forward_traffic(setup: Setup, images: int = 4) -> float:
    """Bytes an image that the layers read and write in a forward pass."""
    total = 0

    def count(_: torch.nn.Module, given: tuple[Any, ...], made: Any) -> None:
        nonlocal total
        total += sum(t.numel() * t.element_size() for t in (*given, made) if isinstance(t, Tensor))

    layers = [module for module in setup.classifier.modules() if not list(module.children())]
    handles = [layer.register_forward_hook(count) for layer in layers]
    size = setup.preprocessing.image_size
    pixels = torch.zeros(images, 3, size, size, dtype=torch.uint8, device=setup.device)
    with torch.no_grad(), autocast(setup.device, setup.recipe.precision):
        setup.classifier(pixels)
    for handle in handles:
        handle.remove()
    return total / images


def words(flags: argparse.Namespace) -> str:
    """The machine and the setting in a line."""
    return (
        f"{machine_words()}. {flags.backbone}, {flags.image_size} px, batches of {flags.batch_size}, "
        f"augment {flags.augment}, {flags.images} made-up photos of {flags.photo_size} px"
    )


if __name__ == "__main__":
    main()
