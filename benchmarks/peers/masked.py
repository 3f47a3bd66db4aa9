"""Owns the loss of the peers on labels that may be unknown: binary cross-entropy, NaN targets left out."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def masked_bce(logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None) -> Tensor:
    """The mean over known targets; logits and targets [B, A]. What a person writes around PyTorch's own."""
    known = ~torch.isnan(targets)
    filled = torch.where(known, targets, 0.0)
    losses = binary_cross_entropy_with_logits(logits, filled, pos_weight=pos_weight, reduction="none")
    return losses[known].mean()
