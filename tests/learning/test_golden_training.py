"""Golden numbers: the training loss of four epochs for each loss, optimizer and schedule, at a tolerance of 1e-4.

A change of these numbers is a change of what people's trainings do: it needs a reason of its own. They were printed
by `pytest tests/learning/test_golden_training.py` with the expected numbers taken out.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from mlcls.learning.epochs import Feedback, Stage, run_epochs
from mlcls.learning.losses import LOSSES, build_loss, pos_weight_from
from mlcls.learning.optimizers import OPTIMIZERS, build_optimizer
from mlcls.learning.schedules import SCHEDULES, build_schedule

LEARNING_RATES = {"adam": 0.02, "adamw": 0.02, "sgd": 0.1}
GOLDEN: dict[tuple[str, str, str], list[float]] = {
    ("bce", "adam", "none"): [0.6848295, 0.6250728, 0.5882544, 0.5969438],
    ("bce", "adamw", "none"): [0.6867087, 0.6243218, 0.5866212, 0.5960012],
    ("bce", "sgd", "none"): [0.6776479, 0.645685, 0.608493, 0.6177738],
    ("focal", "adam", "none"): [0.1965031, 0.1561137, 0.1401916, 0.1488551],
    ("focal", "adamw", "none"): [0.1969661, 0.1564516, 0.1413405, 0.1499881],
    ("focal", "sgd", "none"): [0.1948439, 0.1727166, 0.150517, 0.1595594],
    ("asl", "adam", "none"): [0.3449097, 0.3052225, 0.2713641, 0.273921],
    ("asl", "adamw", "none"): [0.3427373, 0.3028517, 0.2701335, 0.2734269],
    ("asl", "sgd", "none"): [0.3429462, 0.3235635, 0.2895884, 0.284128],
    ("bce", "adamw", "step"): [0.6762726, 0.6500905, 0.6081401, 0.6287417],
    ("bce", "adamw", "plateau"): [0.6762726, 0.6500905, 0.6081401, 0.6294475],
    ("bce", "adamw", "cosine"): [0.6762726, 0.6500985, 0.6078925, 0.623118],
}


def train_losses(
    model: torch.nn.Module, images: tuple[Tensor, ...], loss: str, optimizer: str, schedule: str
) -> list[float | None]:
    pos_weight = torch.from_numpy(pos_weight_from(images[1].numpy()))

    def begin() -> Any:
        built = build_optimizer(optimizer, model, LEARNING_RATES[optimizer], 0.01, {})
        own = {"warmup_epochs": 1.0, "step_size": 2, "gamma": 0.3, "factor": 0.3, "patience": 0}
        own = {} if schedule == "none" else own
        return built, build_schedule(schedule, built, steps_per_epoch=3, epochs=4, settings=own)

    def batches(epoch: int) -> Any:
        return zip(*(tensor.roll(epoch, 0).split(8) for tensor in images), strict=True)

    feedback = Feedback()
    built_loss = build_loss(loss, pos_weight=pos_weight, settings={})
    seen = []
    for trained in run_epochs(
        model, [Stage("all", 4, begin)], batches, built_loss, device=torch.device("cpu"), feedback=feedback
    ):
        seen.append(trained.train_loss)
        feedback.val_loss = 1.0
    return seen


CASES = [(loss, optimizer, "none") for loss in LOSSES for optimizer in OPTIMIZERS]
CASES += [("bce", "adamw", schedule) for schedule in SCHEDULES if schedule != "none"]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_training_losses(tiny: Any, images: tuple[Tensor, ...], case: tuple[str, str, str]) -> None:
    found = train_losses(tiny(norm=True), images, *case)
    print(case, [None if loss is None else round(loss, 7) for loss in found])
    assert found == pytest.approx(GOLDEN[case], rel=1e-4)
