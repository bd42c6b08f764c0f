"""The losses, each as (sum over labelled units, number of units), so that a step's mean can be formed over micro-batches.

Missing annotations are masked here: vanilla heads would turn the mark of a gap into a negative loss, silently.
All logits are cast to float32 before they are compared.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -100


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy over the labels that are not −100.

    Args:
        logits: [..., K].
        labels: [...], ids or −100.

    Returns:
        The sum in nats, and how many units it is over.
    """
    flat, target = logits.float().reshape(-1, logits.shape[-1]), labels.reshape(-1)
    return F.cross_entropy(flat, target, ignore_index=IGNORE, reduction="sum"), (target != IGNORE).sum()


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean binary cross entropy over a row's K labels, summed over rows; a row with a NaN is not labelled.

    Args:
        logits: [b, K].
        labels: [b, K] of 0 and 1.
    """
    labelled = ~labels.isnan().any(-1)
    loss = F.binary_cross_entropy_with_logits(logits.float(), labels.nan_to_num(), reduction="none").mean(-1)
    return (loss * labelled).sum(), labelled.sum()


def squared_error(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of a single output; a NaN is not labelled.

    Args:
        logits: [b, 1].
        labels: [b].
    """
    labelled = ~labels.isnan()
    loss = F.mse_loss(logits.float().squeeze(-1), labels.nan_to_num(), reduction="none")
    return (loss * labelled).sum(), labelled.sum()


def span_cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the cross entropies of an answer's first and last token, summed over rows.

    Args:
        logits: [b, T, 2].
        labels: [b, 2], token positions.
    """
    first, units = cross_entropy(logits[..., 0], labels[:, 0])
    last, _ = cross_entropy(logits[..., 1], labels[:, 1])
    return (first + last) / 2, units


def padded_choices(scores: Tensor, sizes: Tensor) -> Tensor:
    """Scores of all choices in a row → [b, C], with −inf where a text has fewer than C choices.

    Args:
        scores: [sum of sizes].
        sizes: [b], how many choices each text has.
    """
    most = int(sizes.max())
    if bool((sizes == most).all()):
        return scores.view(-1, most)
    table = scores.new_full((len(sizes), most), float("-inf"))
    table[torch.arange(most, device=scores.device) < sizes[:, None]] = scores
    return table
