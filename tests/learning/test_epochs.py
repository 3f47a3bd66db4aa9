"""Epochs: normalisation by known labels, stages, feedback, and what a turn of the generator tells."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcls.errors import RecipeError
from mlcls.learning.epochs import Feedback, Stage, StepInfo, run_epochs
from mlcls.learning.losses import build_loss
from mlcls.learning.optimizers import build_optimizer
from mlcls.learning.schedules import build_schedule

CPU = torch.device("cpu")
Images = tuple[Tensor, Tensor, Tensor]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def bce() -> Any:
    return build_loss("bce", pos_weight=None, settings={})


def test_it_trains_as_if_unknown_cells_were_not_there(tiny: Any, train: Any, images: Images) -> None:
    pixels, labels, _ = images
    model, reference = tiny(), tiny()
    optimizer = build_optimizer("sgd", reference, 0.1, 1e-4, {})
    losses = []
    for start in (0, 8, 16):
        part, known = labels[start : start + 8], ~labels[start : start + 8].isnan()
        loss = F.binary_cross_entropy_with_logits(reference(pixels[start : start + 8])[known], part[known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append((loss.item(), int(known.sum())))
    (epoch,) = train(model, epochs=1)
    torch.testing.assert_close(weights(model), weights(reference))
    assert epoch.iteration_losses == pytest.approx([loss for loss, _ in losses])
    # over the epoch too every known label weighs the same, whichever batch it was in
    assert epoch.train_loss == pytest.approx(sum(a * n for a, n in losses) / sum(n for _, n in losses))


def test_what_an_unknown_label_stands_beside_does_not_matter(tiny: Any, train: Any, images: Images) -> None:
    """Images without a known label can be taken out of their batches: nothing changes."""
    pixels, labels, indices = images
    labels = labels.clone()
    labels[5:8] = torch.nan
    with_them, without = tiny(), tiny()
    train(with_them, epochs=1, data=(pixels[:8], labels[:8], indices[:8]))
    train(without, epochs=1, data=(pixels[:5], labels[:5], indices[:5]))
    torch.testing.assert_close(weights(with_them), weights(without))


@pytest.mark.parametrize(("batch_size", "accumulate"), [(5, 4), (10, 2), (3, 7), (1, 20)])
def test_accumulated_batches_weigh_as_one(tiny: Any, train: Any, batch_size: int, accumulate: int) -> None:
    whole, parts = tiny(), tiny()
    (expected, _) = train(whole, batch_size=20)
    (found, _) = train(parts, batch_size=batch_size, accumulate=accumulate)
    torch.testing.assert_close(weights(parts), weights(whole))
    assert found.train_loss == pytest.approx(expected.train_loss)
    assert len(found.iteration_losses) == 1
    assert found.images == 20


def test_the_last_accumulated_step_takes_what_is_left(tiny: Any, train: Any) -> None:
    (epoch,) = train(tiny(), epochs=1, batch_size=3, accumulate=2)
    assert len(epoch.iteration_losses) == 4  # seven batches


def test_a_turn_tells_what_happened(tiny: Any, train: Any) -> None:
    told: list[StepInfo] = []
    first, second = train(tiny(), on_step=told.append)
    assert (first.epoch, second.epoch, first.stage, second.stage) == (0, 1, 0, 0)
    assert (first.images, first.skipped_steps, first.lr) == (20, 0, 0.1)
    assert first.seconds > 0
    assert first.images_per_second == pytest.approx(20 / first.seconds)
    assert [(info.epoch, info.step, info.images) for info in told] == [
        (0, 0, 8),
        (0, 1, 8),
        (0, 2, 4),
        (1, 0, 8),
        (1, 1, 8),
        (1, 2, 4),
    ]
    assert tuple(info.loss for info in told[:3]) == first.iteration_losses
    assert not any(info.skipped for info in told)
    assert second.train_loss < first.train_loss


def test_a_batch_without_a_known_label_takes_no_step(tiny: Any, train: Any, images: Images) -> None:
    pixels, labels, indices = images
    labels = labels.clone()
    labels[8:16] = torch.nan
    with_it, without, told = tiny(norm=True), tiny(norm=True), []
    (epoch,) = train(with_it, epochs=1, data=(pixels, labels, indices), on_step=told.append)
    rest = torch.cat([torch.arange(8), torch.arange(16, 20)])
    train(without, epochs=1, data=(pixels[rest], labels[rest], indices[rest]))
    assert epoch.iteration_losses[1] is None
    assert epoch.skipped_steps == 0
    assert (told[1].loss, told[1].known, told[1].skipped) == (None, 0, False)
    # not even BatchNorm has seen it
    for (name, found), expected in zip(
        with_it.state_dict().items(), without.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(found, expected, msg=name)


def test_nothing_known_at_all_trains_nothing(tiny: Any, train: Any, images: Images) -> None:
    pixels, labels, indices = images
    model, before = tiny(), weights(tiny())
    epochs = train(model, epochs=12, data=(pixels, torch.full_like(labels, torch.nan), indices))
    assert [epoch.train_loss for epoch in epochs] == [None] * 12
    assert epochs[0].iteration_losses == (None, None, None)
    assert torch.equal(weights(model), before)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_close_to_float32(tiny: Any, train: Any, precision: str) -> None:
    whole, half, seen = tiny(norm=True), tiny(norm=True), set()

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        seen.add(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")

    expected = train(whole, lr=0.05)
    found = train(half, lr=0.05, precision=precision, loss=loss)
    assert [epoch.train_loss for epoch in found] == pytest.approx(
        [epoch.train_loss for epoch in expected], rel=0.05
    )
    assert found[0].train_loss != expected[0].train_loss  # it did compute otherwise
    assert seen == {torch.float32}  # the loss itself does not


def test_the_gradient_is_cut_to_its_norm(tiny: Any, train: Any, images: Images) -> None:
    pixels, labels, indices = images
    model, before = tiny(), weights(tiny())
    data = (pixels[:8], labels[:8], indices[:8])
    train(model, epochs=1, lr=1.0, clip_norm=0.01, data=data)
    assert (weights(model) - before).norm().item() == pytest.approx(
        0.01, rel=0.05
    )  # weight decay adds a little
    loose, free = tiny(), tiny()
    train(loose, epochs=1, clip_norm=1e6, data=data)
    train(free, epochs=1, data=data)
    assert torch.equal(weights(loose), weights(free))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"precision": "fp8"}, "--precision: 'fp8'"), ({"clip_norm": -1.0}, "clip_norm: -1.0")],
)
def test_mistakes_are_named(tiny: Any, train: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        train(tiny(), **options)


class TwoStages:
    """A head that trains for three epochs, then everything for two; notes when each stage began."""

    def __init__(self, model: nn.Module, images: Images, schedule: str = "cosine", **own: Any) -> None:
        self.model, self.images, self.schedule, self.own = model, images, schedule, own
        self.began: list[str] = []

    def begin(self, name: str, epochs: int, lr: float) -> Any:
        self.began.append(name)
        self.model.body.requires_grad_(name == "all")
        optimizer = build_optimizer("adamw", self.model, lr, 1e-4, {})
        return optimizer, build_schedule(
            self.schedule, optimizer, steps_per_epoch=3, epochs=epochs, settings=self.own
        )

    def run(self, epochs: tuple[int, int] = (3, 2), **options: Any) -> Any:
        stages = [
            Stage("head", epochs[0], lambda: self.begin("head", epochs[0], 2e-3)),
            Stage("all", epochs[1], lambda: self.begin("all", epochs[1], 1e-4)),
        ]

        def batches(epoch: int) -> Any:
            self.asked_for = epoch
            return zip(*(tensor.split(8) for tensor in self.images), strict=True)

        def train_mode(model: nn.Module) -> None:
            model.train()
            if not next(self.model.body.parameters()).requires_grad:
                self.model.body.eval()

        return run_epochs(self.model, stages, batches, bce(), device=CPU, train_mode=train_mode, **options)


def test_stages_follow_one_another_and_epochs_count_on(tiny: Any, images: Images) -> None:
    model = tiny(norm=True)
    two = TwoStages(model, images)
    body = {name: tensor.clone() for name, tensor in model.body.state_dict().items()}
    seen = []
    for trained in two.run():
        model.eval()  # as a validation leaves it
        seen.append((trained.epoch, two.asked_for, trained.stage, trained.lr))
        unchanged = all(torch.equal(body[name], tensor) for name, tensor in model.body.state_dict().items())
        assert unchanged == (trained.stage == 0)  # the frozen BatchNorm's statistics as well
    assert two.began == ["head", "all"]
    assert [turn[:3] for turn in seen] == [(0, 0, 0), (1, 1, 0), (2, 2, 0), (3, 3, 1), (4, 4, 1)]
    # each stage has its own rate, and its schedule begins anew
    assert (seen[0][3], seen[3][3]) == (2e-3, 1e-4)
    assert seen[2][3] < seen[1][3] < 2e-3
    assert seen[4][3] == pytest.approx(5e-5)


def test_feedback_ends_a_stage_and_then_the_training(tiny: Any, images: Images) -> None:
    two, feedback, seen = TwoStages(tiny(), images), Feedback(), []
    for trained in two.run(feedback=feedback):
        seen.append((trained.epoch, trained.stage))
        feedback.next_stage = trained.epoch in (0, 1)
    assert seen == [(0, 0), (1, 1)]
    assert feedback == Feedback()


def test_feedback_reaches_the_schedule(tiny: Any, images: Images) -> None:
    two, feedback, seen = TwoStages(tiny(), images, "plateau", factor=0.5, patience=0), Feedback(), []
    for trained in two.run(epochs=(5, 0), feedback=feedback):
        seen.append(trained.lr)
        if trained.epoch != 2:  # a loss is not kept for the epoch after
            feedback.val_loss = 1.0
    assert seen == pytest.approx([2e-3, 2e-3, 1e-3, 1e-3, 5e-4])


def test_a_stage_of_no_epochs_never_begins(tiny: Any, images: Images) -> None:
    two = TwoStages(tiny(), images)
    assert [(trained.epoch, trained.stage) for trained in two.run(epochs=(0, 2))] == [(0, 1), (1, 1)]
    assert two.began == ["all"]


def test_nothing_happens_before_the_first_turn_and_after_the_last(tiny: Any, images: Images) -> None:
    model = tiny()
    two, before = TwoStages(model, images), weights(model)
    epochs = two.run()
    assert two.began == []
    assert torch.equal(weights(model), before)
    next(epochs)
    after = weights(model)
    epochs.close()
    assert torch.equal(weights(model), after)
    assert two.began == ["head"]


def test_a_loss_that_is_not_elementwise_stops_it(tiny: Any, train: Any) -> None:
    reduced = build_loss("torch.nn.functional:binary_cross_entropy_with_logits", pos_weight=None, settings={})
    with pytest.raises(RecipeError, match="elementwise"):
        train(tiny(), loss=reduced)


def test_its_batches_are_asked_for_one_step_at_a_time(tiny: Any, images: Images) -> None:
    """An epoch of any length streams: it is never held whole."""
    held: list[int] = []
    told: list[StepInfo] = []
    model = tiny()

    def batches(epoch: int) -> Any:
        for number, batch in enumerate(zip(*(tensor.split(2) for tensor in images), strict=True)):
            held.append(number - 2 * len(told))
            yield batch

    def begin() -> Any:
        optimizer = build_optimizer("sgd", model, 0.1, 0.0, {})
        return optimizer, build_schedule("none", optimizer, steps_per_epoch=5, epochs=1, settings={})

    stages: list[Stage] = [Stage("all", 1, begin)]
    on_step: Callable[[StepInfo], None] = told.append
    assert (
        len(list(run_epochs(model, stages, batches, bce(), device=CPU, accumulate=2, on_step=on_step))) == 1
    )
    assert held == [0, 1] * 5
