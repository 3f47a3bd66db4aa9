"""Steps that cannot be taken: a loss or gradient that is not finite, one value a channel, no memory."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlcls.errors import NumericalError
from mlcls.learning.batchnorm import lone_values_allowed
from mlcls.learning.epochs import StepInfo

Images = tuple[Tensor, Tensor, Tensor]


class Breaks(nn.Module):
    """A network whose logits (`where = "loss"`) or gradient alone (`"gradient"`) break at a white image."""

    def __init__(self, inside: nn.Module, where: str) -> None:
        super().__init__()
        self.inside, self.where = inside, where

    def forward(self, pixels: Tensor) -> Tensor:
        white = (pixels == 255).flatten(1).all(dim=1)
        if self.where == "loss" and white.any():
            pixels = pixels.float().masked_fill(white[:, None, None, None], torch.nan)
        logits: Tensor = self.inside(pixels)
        if self.where == "gradient" and white.any():
            logits.register_hook(lambda gradient: gradient * torch.inf)
        return logits


def with_white(images: Images, *white: int) -> Images:
    pixels, labels, indices = images
    pixels = pixels.clone()
    pixels[list(white)] = 255
    return pixels, torch.nan_to_num(labels), indices


def without(data: Images, batch: int) -> Images:
    kept = [index for index in range(20) if index // 4 != batch]
    return data[0][kept], data[1][kept], data[2][kept]


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_step_that_is_not_finite_never_happened(
    tiny: Any, train: Any, images: Images, where: str, optimizer: str
) -> None:
    data = with_white(images, 9)  # in the third batch of five
    broken, whole = tiny(norm=True), tiny(norm=True)
    told: list[StepInfo] = []
    (first, second) = train(
        Breaks(broken, where), data=data, batch_size=4, optimizer=optimizer, on_step=told.append
    )
    train(whole, data=without(data, 2), batch_size=4, optimizer=optimizer)
    assert (first.skipped_steps, second.skipped_steps) == (1, 1)
    assert [loss is None for loss in first.iteration_losses] == [False, False, True, False, False]
    assert [info.skipped for info in told[:5]] == [False, False, True, False, False]
    assert first.train_loss == pytest.approx(
        sum(info.loss * info.known for info in told[:5] if info.loss) / (16 * 3)
    )
    # weights, optimizer state and BatchNorm statistics: as if the batch had not been there
    for (name, found), expected in zip(broken.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(found, expected), name


def test_an_infinite_loss_is_skipped_though_its_gradient_is_finite(tiny: Any, train: Any) -> None:
    calls: list[int] = []

    def infinite_once(logits: Tensor, targets: Tensor) -> Tensor:
        calls.append(1)
        offset = torch.inf if len(calls) == 2 else 0.0
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none") + offset

    (epoch,) = train(tiny(), epochs=1, loss=infinite_once)
    assert epoch.skipped_steps == 1
    assert [loss is None for loss in epoch.iteration_losses] == [False, True, False]


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_ten_in_a_row_fail_and_name_their_images(tiny: Any, train: Any, images: Images, where: str) -> None:
    data = with_white(images, *range(8, 20))
    model = Breaks(tiny(), where)
    with pytest.raises(NumericalError, match="10 steps in a row") as caught:
        train(model, data=data, batch_size=1, epochs=5)
    assert caught.value.indices == tuple(range(8, 18))
    assert caught.value.exit_code == 3
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_a_good_step_begins_the_row_anew_and_a_row_goes_on_into_the_next_epoch(
    tiny: Any, train: Any, images: Images
) -> None:
    data = with_white(images, 0, 1, 2, 17, 18, 19)
    epochs = train(Breaks(tiny(), "loss"), data=data, batch_size=1, epochs=1, give_up_after=4)
    assert epochs[0].skipped_steps == 6
    with pytest.raises(NumericalError, match=r"epoch 1: .* 4 steps in a row") as caught:
        train(Breaks(tiny(), "loss"), data=data, batch_size=1, epochs=3, give_up_after=4)
    assert caught.value.indices == (17, 18, 19, 0)


def test_a_step_without_labels_neither_adds_to_the_row_nor_ends_it(
    tiny: Any, train: Any, images: Images
) -> None:
    pixels, labels, indices = with_white(images, 0, 1, 3, 4)
    labels[2] = torch.nan
    with pytest.raises(NumericalError) as caught:
        train(Breaks(tiny(), "loss"), data=(pixels, labels, indices), batch_size=1, give_up_after=4)
    assert caught.value.indices == (0, 1, 3, 4)


def test_fp16_lowers_its_scale_without_giving_up(tiny: Any, train: Any, images: Images) -> None:
    """A gradient that overflows by its scale alone is found a lower scale, and then trains."""
    pixels, labels, indices = images

    def steep(logits: Tensor, targets: Tensor) -> Tensor:
        return 3e3 * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")

    model = tiny()
    (epoch,) = train(
        model,
        data=(pixels, labels, indices),
        loss=steep,
        lr=1e-6,
        batch_size=1,
        epochs=1,
        precision="fp16",
        give_up_after=2,
    )
    assert 2 <= epoch.skipped_steps < 15
    assert epoch.iteration_losses[-1] is not None


def test_fp16_gives_up_when_no_scale_helps(tiny: Any, train: Any, images: Images) -> None:
    data = with_white(images, *range(20))
    with pytest.raises(NumericalError, match="3 steps in a row"):
        train(
            Breaks(tiny(), "gradient"), data=data, batch_size=1, epochs=2, precision="fp16", give_up_after=3
        )


@pytest.mark.parametrize("accumulate", [1, 3])
def test_batches_of_one_image_train_through_batchnorm(tiny: Any, train: Any, accumulate: int) -> None:
    model = tiny(norm=True)
    epochs = train(model, batch_size=1, epochs=3, accumulate=accumulate, lr=0.02)
    assert epochs[-1].train_loss < epochs[0].train_loss
    assert all(module.training for module in model.modules())
    # the convolution's BatchNorm has sixteen values an image and learns; the head's has one and stays as it was
    assert model.body[1].num_batches_tracked == 3 * 20
    assert model.head[0].num_batches_tracked == 0


def test_a_last_batch_of_one_image(tiny: Any, train: Any, images: Images) -> None:
    model = tiny(norm=True)
    (epoch,) = train(model, batch_size=16, epochs=1, data=tuple(tensor[:17] for tensor in images))
    assert len(epoch.iteration_losses) == 2
    assert None not in epoch.iteration_losses
    assert model.head[0].num_batches_tracked == 1


@pytest.mark.parametrize(
    ("norm", "shape"),
    [(nn.BatchNorm1d(3), (1, 3)), (nn.BatchNorm2d(3), (1, 3, 1, 1)), (nn.BatchNorm3d(3), (1, 3, 1, 1, 1))],
)
def test_every_batchnorm_takes_one_value_and_is_as_before(norm: nn.Module, shape: tuple[int, ...]) -> None:
    values = torch.randn(shape)
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(values)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    with lone_values_allowed(norm):
        torch.testing.assert_close(norm(values), norm.eval()(values))
        norm.train()
    assert norm.training
    # PyTorch's refused call counted; ours did not
    assert all(torch.equal(before[name], tensor) for name, tensor in norm.state_dict().items())
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(values)


def test_a_frozen_batchnorm_stays_in_eval_mode(tiny: Any, train: Any) -> None:
    model = tiny(norm=True)

    def train_mode(module: nn.Module) -> None:
        module.train()
        model.body.eval()

    train(model, batch_size=1, epochs=1, train_mode=train_mode)
    assert not model.body[1].training
    assert model.body[1].num_batches_tracked == 0


def test_memory_that_gives_out_is_said(tiny: Any, train: Any) -> None:
    class Huge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = tiny()

        def forward(self, pixels: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("tried to allocate 3 GiB")

    with pytest.raises(
        NumericalError, match="memory of cpu gave out in a step of 8 images; lower --batch-size"
    ):
        train(Huge())
