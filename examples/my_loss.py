"""A loss of one's own: run with `--loss my_loss:smoothed_bce`, where this file's folder can be imported from."""

import torch.nn.functional as F
from torch import Tensor


def smoothed_bce(logits: Tensor, targets: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """Binary cross-entropy towards targets that are not quite sure: [B, A] in, one loss a cell [B, A] out.

    The keyword is a setting: `--loss-args smoothing=0.05`. Unknown labels never get here.
    """
    smoothed = targets * (1 - smoothing) + 0.5 * smoothing
    return F.binary_cross_entropy_with_logits(logits, smoothed, reduction="none")
