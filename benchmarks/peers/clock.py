"""Owns the clock and the log of a contender: seconds since its process began, scoring the test images left out.

Each contender is a script, run as `python SCRIPT TASK.json LOG.jsonl` by `benchmarks/training.py`, which puts the
moment just before the process began into the environment. The log has a JSON object a line: one an epoch, and one at
the end. Time spent in `score` does not count.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

BEGAN = "MLCLS_BENCHMARK_BEGAN"  # seconds of time.monotonic, which all processes of a machine share


@dataclass(frozen=True)
class Task:
    """What every contender gets.

    table: a CSV with the columns `image` (relative to `images`), the attributes (1, 0 or NA) and `subset`.
    image_size: the side of the square the network sees, pixels.
    backbone, backbone_args: a timm model, what its constructor takes.
    weights: a file of its weights; None for timm's own source.
    scratch: {epochs, lr, batch_size} where the backbone has no weights and all of it trains; None to fine-tune.
    flips: whether an image may be mirrored.
    epochs: to stop early when debugging; None for as many as the contender's own way has.
    flags: those of `python -m mlcls.train`.
    """

    table: str
    images: str
    attributes: list[str]
    image_size: int
    backbone: str
    backbone_args: dict[str, Any]
    weights: str | None
    scratch: dict[str, Any] | None
    flips: bool
    epochs: int | None
    seed: int
    flags: list[str]

    def timm_arguments(self) -> dict[str, Any]:
        """What `timm.create_model` takes beside the name, to start from the task's own weights."""
        if self.scratch is not None:
            import mlcls.models.cnn  # noqa: F401 - it registers cnn4 with timm

            return {"pretrained": False, **self.backbone_args}
        file = {"pretrained_cfg_overlay": {"file": self.weights}} if self.weights else {}
        return {"pretrained": True, **file, **self.backbone_args}

    def rows(self, subset: str) -> "pd.DataFrame":
        """The rows of train, val or test, in the table's order."""
        import pandas as pd

        table = pd.read_csv(self.table)
        return table[table["subset"] == subset].reset_index(drop=True)


class Clock:
    """Counts, and writes the log."""

    def __init__(self, task: Task, log: Path) -> None:
        self.task = task
        self.log = log
        self.began = float(os.environ.get(BEGAN, time.monotonic()))
        self.away = 0.0  # seconds spent scoring
        self.epochs = 0
        log.write_text("", encoding="utf-8")

    def epoch(self, score: "Callable[[], NDArray[np.float32]]", **more: Any) -> "NDArray[np.float32]":
        """Note an epoch's end; `score` gives the test images' probabilities [N, A] in the table's order."""
        scores = self._write("epoch", score, number=self.epochs, **more)
        self.epochs += 1
        return scores

    def finish(self, score: "Callable[[], NDArray[np.float32]]", **more: Any) -> None:
        """Note the end and keep the probabilities of the model that the contender ends with, beside the log."""
        import numpy as np

        scores = self._write("end", score, **more)
        np.save(self.log.with_suffix(".npy"), scores.astype(np.float32))

    def _write(
        self, what: str, score: "Callable[[], NDArray[np.float32]]", **more: Any
    ) -> "NDArray[np.float32]":
        paused = time.monotonic()
        seconds = paused - self.began - self.away
        scores = score()
        figure = macro_average_precision(self.labels(), scores)
        self.away += time.monotonic() - paused
        line = {"what": what, **more, "seconds": seconds, "average_precision": figure, "away": self.away}
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
        return scores

    def labels(self) -> "NDArray[np.float32]":
        """The test images' labels [N, A], NaN where unknown."""
        import numpy as np

        return self.task.rows("test")[self.task.attributes].to_numpy(np.float32)


def start() -> tuple[Task, Clock]:
    """The task and the clock of this process, from its command line."""
    task = Task(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    return task, Clock(task, Path(sys.argv[2]))


def macro_average_precision(labels: "NDArray[np.float32]", scores: "NDArray[np.float32]") -> float:
    """scikit-learn's average precision over known labels, mean of the attributes that have both classes."""
    import numpy as np
    from sklearn.metrics import average_precision_score

    figures = []
    for of_attribute, scored in zip(labels.T, scores.T, strict=True):
        known = ~np.isnan(of_attribute)
        if len(np.unique(of_attribute[known])) == 2:
            figures.append(average_precision_score(of_attribute[known], scored[known]))
    return float(np.mean(figures))
