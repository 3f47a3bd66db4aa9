"""Heads: shapes, layers and dropout."""

import pytest
import torch
from torch import nn

from mlcls.models.heads import HEADS, Head


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("dropout", [None, 0.0, 0.4])
def test_every_head_maps_features_to_one_logit_an_attribute(head: Head, dropout: float | None) -> None:
    logits = head(12, 5, dropout)(torch.randn(4, 12))
    assert logits.shape == (4, 5)
    assert logits.min() < 0  # logits, not probabilities


def dropouts(module: nn.Module) -> list[float]:
    return [m.p for m in module.modules() if isinstance(m, nn.Dropout)]


def test_the_published_dropouts_are_the_defaults() -> None:
    assert dropouts(HEADS["mlp"](8, 2, None)) == [0.5, 0.3]
    assert dropouts(HEADS["fc"](8, 2, None)) == [0.5]
    assert dropouts(HEADS["linear"](8, 2, None)) == []


def test_dropout_sets_the_first_and_scales_the_second() -> None:
    assert dropouts(HEADS["mlp"](8, 2, 0.4)) == pytest.approx([0.4, 0.24])
    assert dropouts(HEADS["mlp"](8, 2, 0.0)) == [0.0, 0.0]
    assert dropouts(HEADS["fc"](8, 2, 0.2)) == [0.2]
    assert dropouts(HEADS["linear"](8, 2, 0.2)) == [0.2]


def test_the_published_layers() -> None:
    kinds = [type(m).__name__ for m in HEADS["mlp"](8, 2, None).children()]
    assert kinds == ["BatchNorm1d", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    widths = [(m.in_features, m.out_features) for m in HEADS["fc"](256, 4, None) if isinstance(m, nn.Linear)]
    assert widths == [(256, 512), (512, 4)]
