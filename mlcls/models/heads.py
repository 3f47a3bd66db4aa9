"""Classification heads: from the backbone's pooled features [B, D] to logits [B, A], one per attribute."""

from collections.abc import Callable

from torch import nn

Head = Callable[[int, int, float | None], nn.Module]
"""`fn(in_features, attributes, dropout)`: maps float [B, in_features] to logits [B, attributes]."""


def mlp(in_features: int, attributes: int, dropout: float | None = None) -> nn.Module:
    """BatchNorm, dropout, 128 hidden units with ReLU, dropout, one logit an attribute.

    Args:
        in_features: size D of the pooled features.
        attributes: number A of logits.
        dropout: probability of the first dropout (0.5 unless given); the second is 0.6 of it (0.3).
    """
    first = 0.5 if dropout is None else dropout
    return nn.Sequential(
        nn.BatchNorm1d(in_features),
        nn.Dropout(first),
        nn.Linear(in_features, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(first * 0.6),
        nn.Linear(128, attributes),
    )


def linear(in_features: int, attributes: int, dropout: float | None = None) -> nn.Module:
    """One linear layer, after a dropout of probability `dropout` when one is given."""
    layer = nn.Linear(in_features, attributes)
    return layer if dropout is None else nn.Sequential(nn.Dropout(dropout), layer)


def fc(in_features: int, attributes: int, dropout: float | None = None) -> nn.Module:
    """512 hidden units with ReLU, a dropout (0.5 unless given), one logit an attribute."""
    return nn.Sequential(
        nn.Linear(in_features, 512),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5 if dropout is None else dropout),
        nn.Linear(512, attributes),
    )


HEADS: dict[str, Head] = {"mlp": mlp, "linear": linear, "fc": fc}
