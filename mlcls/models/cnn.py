"""cnn4, a small convolutional network to train from scratch, registered with timm like any other backbone."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

POOLINGS: dict[str, type[nn.Module]] = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}


def _block(in_chans: int, width: int, depth: int, pooling: type[nn.Module] | None) -> nn.Sequential:
    """`depth` convolutions 3x3, each with BatchNorm and ReLU, after a pooling that halves the size."""
    layers: list[nn.Module] = [] if pooling is None else [pooling(2)]
    for i in range(depth):
        layers += [
            nn.Conv2d(in_chans if i == 0 else width, width, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class ConvNet(nn.Module):
    """Blocks of 3x3 convolutions with a pooling between each two, and a global pooling after the last.

    It has the methods and attributes that timm's models have, so that freezing, feature extraction and
    parameter groups work on it as on them.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier; 0 leaves it out, and `forward` returns the pooled features.
        widths: channels of each block; their number is the number of blocks.
        depth: convolutions in a block.
        pooling: between two blocks, a key of `POOLINGS`.
        global_pool: after the last block, as timm names them: avg, max, avgmax, catavgmax, or '' for none.
        drop_rate: dropout before the classifier.

    Raises:
        ValueError: widths, depth or pooling cannot be used.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        widths: Sequence[int] = (32, 64, 128, 256),
        depth: int = 1,
        pooling: str = "max",
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        widths = _whole_numbers(widths, "widths")
        (depth,) = _whole_numbers([depth], "depth")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is '{pooling}'; expected one of: {', '.join(POOLINGS)}")
        chans = [in_chans, *widths]
        between = POOLINGS[pooling]
        self.blocks = nn.Sequential(
            *(_block(chans[i], chans[i + 1], depth, between if i else None) for i in range(len(widths)))
        )
        self.feature_info = [
            {"num_chs": width, "reduction": 2**i, "module": f"blocks.{i}"} for i, width in enumerate(widths)
        ]
        self.num_features: int = widths[-1]
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Patterns of parameter names, as timm groups them by depth; a block is the finest group here."""
        return {"stem": r"^blocks\.0", "blocks": r"^blocks\.(\d+)" if coarse else r"^blocks\.(\d+)\.(\d+)"}

    def get_classifier(self) -> nn.Module:
        """The last layer, an Identity when there is no classifier."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier with `num_classes` outputs (0: none), and another global pooling when given."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.pool_type = global_pool
        pool, fc = create_classifier(self.num_features, num_classes, pool_type=self.pool_type)
        self.global_pool: nn.Module = pool
        self.fc: nn.Module = fc
        self.head_hidden_size: int = self.num_features * pool.feat_mult()

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """float [B, in_chans, H, W] -> feature maps [B, widths[-1], H / 2**(blocks-1), W / 2**(blocks-1)]."""
        features: torch.Tensor = self.blocks(x)
        return features

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Feature maps -> pooled features [B, head_hidden_size], or what the classifier makes of them."""
        x = self.head_drop(self.global_pool(x))
        if not pre_logits:
            x = self.fc(x)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float [B, in_chans, H, W], normalised -> [B, num_classes], or pooled features when that is 0."""
        return self.forward_head(self.forward_features(x))


def _whole_numbers(values: Any, name: str) -> list[int]:
    if isinstance(values, int):  # `widths=16` is one block
        values = [values]
    numbers = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    if not numbers or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in numbers):
        raise ValueError(f"{name} is {values!r}; expected whole numbers of at least 1, as in 32,64,128,256")
    return numbers


default_cfgs = generate_default_cfgs(
    {
        "cnn4": {
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (28, 28),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "blocks.0.0",
            "classifier": "fc",
        }
    }
)


@register_model  # type: ignore[untyped-decorator]
def cnn4(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Blocks of 32, 64, 128 and 256 channels, max pooling after the first three, global average pooling."""
    widths = kwargs.get("widths", (32, 64, 128, 256))
    blocks = len(widths) if isinstance(widths, Sequence) else 1  # what cannot be used, the network refuses
    model: nn.Module = build_model_with_cfg(
        ConvNet,
        "cnn4",
        pretrained,
        feature_cfg={"flatten_sequential": True, "out_indices": tuple(range(blocks))},
        **kwargs,
    )
    return model
