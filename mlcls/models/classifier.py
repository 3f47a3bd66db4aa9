"""The classifier: pixels in, logits out; normalisation, backbone and head in one module."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlcls.errors import RecipeError
from mlcls.models.backbones import create_backbone, feature_size
from mlcls.models.backbones import data_config as data_config  # the other half of building: exported here too
from mlcls.models.heads import HEADS
from mlcls.models.weights import WeightsReport
from mlcls.naming import look_up


class Classifier(nn.Module):
    """Normalisation, backbone and head.

    Args:
        backbone: float [B, 3, H, W], normalised -> float [B, D].
        head: float [B, D] -> logits [B, attributes].
        attributes: number A of logits.
        features: size D of the backbone's pooled features.
        mean, std: of each channel, on the scale 0..1, as timm has them.
        weights: what was loaded into the backbone.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        *,
        attributes: int,
        features: int,
        mean: Sequence[float],
        std: Sequence[float],
        weights: WeightsReport,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.attributes = attributes
        self.features = features
        self.weights = weights
        # On the pixels' own scale. Not persistent: the bundle states them, a weights file need not.
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1) * 255, persistent=False)

    def embed(self, pixels: Tensor) -> Tensor:
        """RGB pixels, uint8 or float on 0..255, [B, 3, H, W] -> the backbone's pooled features [B, D]."""
        features: Tensor = self.backbone((pixels.to(self.mean.dtype) - self.mean) / self.std)
        return features

    def forward(self, pixels: Tensor) -> Tensor:
        """RGB pixels, uint8 or float on 0..255, [B, 3, H, W] -> logits [B, A]."""
        logits: Tensor = self.head(self.embed(pixels))
        return logits


def build_classifier(
    backbone: str,
    head: str,
    attributes: int,
    *,
    backbone_args: Mapping[str, Any] | None = None,
    weights: str | Path = "none",
    dropout: float | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """A classifier of any timm backbone, on the CPU, in training mode, everything trainable.

    Args:
        backbone: timm's name, or `cnn4`.
        head: a key of `HEADS`, or `package.module:function`.
        attributes: number A of logits, at least 1.
        backbone_args: keyword arguments for the backbone's constructor.
        weights: "pretrained" (timm's own source), "none", or a .safetensors or .pth file.
        dropout: of the head, 0 <= dropout < 1; None for the head's own.
        image_size: pixels a side; None for the backbone's own.
        mean, std: three floats on the scale 0..1; None for the backbone's own.

    Raises:
        RecipeError: a name, an argument or a number cannot be used; the message names its flag.
        WeightsError: the weights cannot be had or do not fit.
    """
    if attributes < 1:
        raise RecipeError(f"a classifier needs at least one attribute, not {attributes}")
    if dropout is not None and not 0 <= dropout < 1:
        raise RecipeError(f"--dropout: {dropout} is no probability; expected at least 0 and below 1")
    make_head = look_up(HEADS, head, "--head")
    config = data_config(backbone, backbone_args)
    size = config["image_size"] if image_size is None else image_size
    if size < 1:
        raise RecipeError(f"--image-size: {size} is no size; expected pixels a side, as in 224")
    module, report = create_backbone(backbone, backbone_args or {}, size, weights)
    features = feature_size(module, size, backbone)
    classifier = Classifier(
        module,
        make_head(features, attributes, dropout),
        attributes=attributes,
        features=features,
        mean=config["mean"] if mean is None else mean,
        std=config["std"] if std is None else std,
        weights=report,
    )
    # how decoded pixels lie in memory anyway; convolutions on a CPU are up to half again as fast
    return classifier.to(memory_format=torch.channels_last)
