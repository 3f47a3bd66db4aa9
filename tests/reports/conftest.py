"""A record to show, and streams to show it on."""

import io
import os
from collections.abc import Callable

import pytest
from rich.console import Console

from mlcls.reports.console import make_console
from mlcls.reports.record import (
    AttributeCount,
    DataFacts,
    EpochFigures,
    ModelFacts,
    Record,
    SplitCounts,
    StageFacts,
)

LONG = "an_attribute_name_that_is_very_long_indeed_sixty_characters_xx"


class Terminal(io.StringIO):
    """A stream that says it is a terminal and keeps what was written."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def pipe() -> Console:
    return make_console(io.StringIO())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Console]:
    for name in ("NO_COLOR", "COLORTERM", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(os.environ, "TERM", "xterm-256color")
    return lambda width: make_console(Terminal(), width=width)


@pytest.fixture
def written() -> Callable[[Console], str]:
    def read(console: Console) -> str:
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    return read


@pytest.fixture
def epoch() -> Callable[..., EpochFigures]:
    def make(number: int = 0, **other: object) -> EpochFigures:
        values: dict[str, object] = {
            "epoch": number,
            "stage": int(number >= 3),
            "lr": 2e-3 * 0.8**number,
            "train_loss": 0.8 * 0.9**number,
            "val_loss": 0.9 * 0.92**number,
            "val_map": 1 - 0.9**number,
            "val_f1": 0.5,
            "val_precision": 0.4,
            "val_recall": 0.7,
            "val_hamming_loss": 0.25,
            "val_exact_match": 0.125,
            "seconds": 3.5,
            "images_per_second": 123.4,
        }
        return EpochFigures(**(values | other))  # type: ignore[arg-type]

    return make


@pytest.fixture
def data() -> DataFacts:
    return DataFacts(
        rows=1240,
        images=1234,
        missing=("a[1].jpg", "b.jpg"),
        unreadable=("c.jpg",),
        metadata=("age",),
        duplicates=(("d.jpg", "e.jpg"),),
        conflicts=(("d.jpg", "e.jpg"), ("f.jpg",)),
        attributes=(AttributeCount("hat", 234, 900, 100), AttributeCount("[bold]", 0, 0, 1234)),
        split=SplitCounts(864, 185, 185),
        notes=("'[bold]' is known for no image",),
    )


@pytest.fixture
def model() -> ModelFacts:
    return ModelFacts(
        backbone="resnet18",
        backbone_args={"drop_path_rate": 0.1},
        weights="none",
        head="mlp",
        features=512,
        image_size=224,
        stages=(
            StageFacts(name="head", first_epoch=0, trainable=66_436, frozen=11_176_512, modules=("head",)),
            StageFacts(
                name="last", first_epoch=3, trainable=8_460_164, frozen=2_782_784, modules=("layer4",)
            ),
        ),
    )


@pytest.fixture
def record(data: DataFacts, model: ModelFacts, epoch: Callable[..., EpochFigures]) -> Record:
    entry = {"n": 185, "macro": {"f1": 0.5, "auroc": None}, "undefined": ["[bold]"], "attributes": []}
    return Record(
        mlcls="0.1.0",
        seed=0,
        command="mlcls train --labels data/labels.txt",
        data=data,
        model=model,
        recipe={"backbone": "resnet18", "epochs": 50, "lr_head": 2e-3, "title": None},
        thresholds=({"name": "hat", "threshold": 0.4321},),
        epochs=(epoch(0), epoch(1, val_map=None)),
        best_epoch=1,
        stopped_because="all epochs are done",
        seconds=12.5,
        evaluation={"val": entry, "test": None},
    )
