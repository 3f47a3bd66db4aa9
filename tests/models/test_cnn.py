"""cnn4 behaves as timm's own models do."""

import pytest
import timm
import torch
from timm.models import group_parameters
from torch import nn

import mlcls.models.cnn  # noqa: F401  (registers cnn4)


def layers(model: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_channels, m.out_channels) for m in model.modules() if isinstance(m, nn.Conv2d)]


def test_the_published_network() -> None:
    model = timm.create_model("cnn4", num_classes=4)
    assert layers(model) == [(3, 32), (32, 64), (64, 128), (128, 256)]
    assert sum(isinstance(m, nn.MaxPool2d) for m in model.modules()) == 3
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 4
    assert model.forward_features(torch.zeros(1, 3, 64, 48)).shape == (1, 256, 8, 6)
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 4)


def test_widths_depth_and_pooling_are_arguments() -> None:
    model = timm.create_model(
        "cnn4", num_classes=0, widths=[8, 16], depth=2, pooling="avg", global_pool="catavgmax"
    )
    assert layers(model) == [(3, 8), (8, 8), (8, 16), (16, 16)]
    assert sum(isinstance(m, nn.AvgPool2d) for m in model.modules()) == 1
    assert model.head_hidden_size == 32
    assert model(torch.zeros(2, 3, 20, 20)).shape == (2, 32)


@pytest.mark.parametrize(
    "arguments",
    [{"widths": ()}, {"widths": "8"}, {"widths": (8, 0)}, {"depth": 0}, {"depth": 1.5}, {"pooling": "sum"}],
)
def test_arguments_that_make_no_network_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        timm.create_model("cnn4", **arguments)


def test_the_global_pooling_is_the_one_asked_for() -> None:
    x = torch.randn(2, 3, 16, 16)
    model = timm.create_model("cnn4", num_classes=0, global_pool="max").eval()
    torch.testing.assert_close(model(x), model.forward_features(x).amax((2, 3)))
    model.reset_classifier(0, "avg")
    torch.testing.assert_close(model(x), model.forward_features(x).mean((2, 3)))


def test_forward_is_features_then_head_and_the_classifier_can_be_replaced() -> None:
    x = torch.randn(2, 3, 16, 16)
    model = timm.create_model("cnn4", num_classes=3).eval()
    torch.testing.assert_close(model(x), model.forward_head(model.forward_features(x)))
    pooled = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(7)
    assert model.get_classifier().out_features == 7
    torch.testing.assert_close(model(x), model.get_classifier()(pooled))


def test_timm_extracts_its_features_and_groups_its_parameters() -> None:
    x = torch.randn(1, 3, 32, 32)
    maps = timm.create_model("cnn4", features_only=True)(x)
    assert [tuple(m.shape[1:]) for m in maps] == [(32, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4)]
    model = timm.create_model("cnn4", num_classes=0)
    groups = group_parameters(model, model.group_matcher(coarse=True))
    assert len(groups) == 4
    assert all(name.startswith("blocks.3.") for name in groups[3])


def test_drop_rate_drops_pooled_features_in_training_only() -> None:
    model = timm.create_model("cnn4", num_classes=0, drop_rate=0.5)
    x = torch.randn(4, 3, 16, 16).abs()
    assert (model(x) == 0).float().mean() > 0.2
    model.eval()
    torch.testing.assert_close(model(x), model(x))
