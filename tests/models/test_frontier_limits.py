"""Networks that no family prepares for: what is left whole, what is not folded, heads that begin oddly."""

import logging

import pytest
import torch
from timm.layers import StdConv2dSame
from torch import Tensor, nn

from mlcls.models.classifier import Classifier
from mlcls.models.frontier import find_cut
from mlcls.models.stages import set_trainable, train_mode
from mlcls.models.weights import WeightsReport

POOLED = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def pixels(size: int) -> Tensor:
    return torch.randint(
        0, 256, (5, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def small_classifier(backbone: nn.Module, features: int) -> Classifier:
    """A classifier of any module, the head alone trainable."""
    torch.manual_seed(0)
    model = Classifier(
        backbone,
        nn.Linear(features, 2),
        attributes=2,
        features=features,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        weights=WeightsReport("none", 0, ()),
    )
    set_trainable(model, "none")
    train_mode(model)
    return model


class Awkwardly(nn.Module):
    """A head that begins with chance, by writing into what it is given, or with what does not run once traced."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 2)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "drops":
            x = self.drop(x)
        if self.way == "drops by itself":
            x = nn.functional.dropout(x, 0.5, self.training)
        y: Tensor = self.fc(x)
        if self.way == "crashes" and not isinstance(x, Tensor):
            y = y.view(3, 5, 7)
        if self.way == "writes":
            x.add_(y.detach().sum(1, keepdim=True))
            y = y * x.mean(1, keepdim=True)
        return y


@pytest.mark.parametrize("way", ["drops", "drops by itself", "writes"])
def test_a_head_that_begins_with_chance_or_by_writing(way: str) -> None:
    model = small_classifier(POOLED, 8)
    model.head = Awkwardly(way)
    train_mode(model)
    cut = find_cut(model, 16, fold=False)
    assert cut is not None
    rows = cut.trunk(pixels(16))
    before = rows.clone()
    for mode in (True, False):
        cut.rest.train(mode)
        torch.manual_seed(4)
        got = cut.rest(rows)
        torch.manual_seed(4)
        model.train(mode)
        assert torch.equal(got, model(pixels(16)))
        assert torch.equal(rows, before)


def test_nothing_is_folded_that_is_no_plain_pair_of_convolution_and_norm() -> None:
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # timm's own, left whole by the trace as a plain convolution is, but it standardises its weight
            self.standardized, self.norm1 = StdConv2dSame(3, 8, 1), nn.BatchNorm2d(8)
            self.twice, self.norm2 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
            self.branching, self.norm3 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
            self.batch_only, self.norm4 = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm2(self.twice(self.twice(self.norm1(self.standardized(x)))))
            x = self.branching(x)
            return (self.norm3(x) + x).mean((2, 3))

    model = small_classifier(Backbone(), 8)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    cut = find_cut(model, 8, fold=True)
    assert cut is not None
    assert sum(isinstance(module, nn.BatchNorm2d) for module in cut.trunk.modules()) == 3
    model.eval()
    cut.rest.eval()
    images = pixels(8)
    assert torch.equal(cut.rest(cut.trunk(images)), model(images))


class Awkward(nn.Module):
    """A backbone that no graph stands for, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.way = way

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.way == "branches" and x.mean() > 0:
            x = -x
        if self.way == "counts":
            x = x * float(len(x.flatten()))
        if self.way == "draws":
            x = x * torch.rand(1)
        if self.way == "gambles" and torch.rand(()) < 1e-6:
            x = -x
        if self.way == "mixes":
            x = x - x.mean(0)
        return x.mean((2, 3))


@pytest.mark.parametrize("way", ["branches", "counts", "draws", "gambles", "mixes"])
def test_what_cannot_be_cut_is_left_whole_and_said_at_debug_level(
    way: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    model = small_classifier(Awkward(way), 8)
    random = torch.get_rng_state()
    with caplog.at_level(logging.DEBUG, "mlcls"):
        assert find_cut(model, 16, fold=True) is None
    assert "the network is not cut" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]
    assert capfd.readouterr() == ("", "")
    assert torch.equal(random, torch.get_rng_state())
    assert find_cut(small_classifier(Awkward("plain"), 8), 16, fold=True) is not None


class Crashes(nn.Module):
    """Traces, and then does not run: what it asks of a stand-in is not what it gets of a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if not isinstance(x, Tensor):
            x = x.view(3, 5, 7)
        return x.mean((2, 3))


@pytest.mark.parametrize("half", ["trunk", "rest"])
def test_a_network_that_traces_but_does_not_run_is_left_whole(
    half: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    model = small_classifier(Crashes() if half == "trunk" else POOLED, 8)
    if half == "rest":
        model.head = Awkwardly("crashes")
    with caplog.at_level(logging.DEBUG, "mlcls"):
        assert find_cut(model, 16, fold=False) is None
    assert "the network is not cut (RuntimeError" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_network_that_computes_otherwise_for_a_stand_in_is_left_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Differs(Crashes):
        def forward(self, x: Tensor) -> Tensor:
            traced = not isinstance(x, Tensor)
            x = self.conv(x).mean((2, 3))
            return x * 2 if traced else x

    with caplog.at_level(logging.DEBUG, "mlcls"):
        assert find_cut(small_classifier(Differs(), 8), 16, fold=False) is None
    assert "logits: a difference of" in caplog.text
