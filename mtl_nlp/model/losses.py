"""The losses, each as (sum over labelled units, number of units), so that a step's mean can be formed over micro-batches.

Missing annotations are masked here: vanilla heads would turn the mark of a gap into a negative loss, silently.
All logits are cast to float32 before they are compared. Where labels have weights, a unit counts as much as its weight, so that the
mean is torch's weighted mean, over micro-batches and processes too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -100


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
    focal: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross entropy over the labels that are not −100; with weights a weighted mean, as `torch.nn.CrossEntropyLoss` forms it.

    Args:
        logits: [..., K].
        labels: [...], ids or −100.
        weights: one a label. A unit's term is multiplied by the weight of its label, and counts as that many units.
        smoothing: ε of label smoothing: the target is 1 − ε on the label and ε / K on all (weighted as torch does).
        focal: γ; a unit's term is multiplied by (1 − p)^γ, p the probability of its label (Lin et al. 2017). Not with smoothing.

    Returns:
        The sum in nats, and how many units it is over: their number, or the sum of their weights.
    """
    flat, target = logits.float().reshape(-1, logits.shape[-1]), labels.reshape(-1)
    weight = None if weights is None else torch.tensor(weights, device=flat.device, dtype=flat.dtype)
    if focal is None:
        total = F.cross_entropy(
            flat, target, weight=weight, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing
        )
    else:
        plain = F.cross_entropy(flat, target, ignore_index=IGNORE, reduction="none")
        # −expm1 keeps 1 − p exact near 0; the bound keeps the power's derivative finite for γ below 1.
        modulated = (-torch.expm1(-plain)).clamp_min(1e-12) ** focal * plain
        total = (modulated if weight is None else modulated * weight[target.clamp_min(0)]).sum()
    return total, mass(labels, weights)


def mass(labels: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """How many units labels are: the number that is not −100, or the sum of their labels' weights."""
    labelled = labels != IGNORE
    if weights is None:
        return labelled.sum()
    exact = torch.float32 if labels.device.type == "mps" else torch.float64  # which MPS lacks
    table = torch.tensor(weights, device=labels.device, dtype=exact)
    return (table[labels.clamp_min(0)] * labelled).sum()


def binary_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    pos_weight: Sequence[float] | None = None,
    smoothing: float = 0.0,
    focal: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean binary cross entropy over a row's K labels, summed over rows; a row with a NaN is not labelled.

    Args:
        logits: [b, K].
        labels: [b, K] of 0 and 1.
        pos_weight: one a label, a factor on the term of a positive, as torch's; the count of units does not change.
        smoothing: ε: the targets are 1 − ε / 2 and ε / 2.
        focal: γ; a label's term is multiplied by (1 − p)^γ, p the probability of what is right. Not with smoothing.
    """
    labelled = ~labels.isnan().any(-1)
    right = labels.nan_to_num()
    weight = None if pos_weight is None else torch.tensor(pos_weight, device=logits.device)
    target = right * (1 - smoothing) + smoothing / 2 if smoothing else right
    loss = F.binary_cross_entropy_with_logits(logits.float(), target, pos_weight=weight, reduction="none")
    if focal is not None:
        plain = F.binary_cross_entropy_with_logits(logits.float(), right, reduction="none")
        loss = (-torch.expm1(-plain)).clamp_min(1e-12) ** focal * loss
    return (loss.mean(-1) * labelled).sum(), labelled.sum()


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
