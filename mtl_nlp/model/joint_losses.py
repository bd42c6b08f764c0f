"""The cross entropies of many heads at once, for a step that goes backward once through their sum.

Thirty tasks with a text or two each are thirty times the way to a small operator and back; heads with equally many labels take it
together. A task's sum is over its own labelled units as ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .heads import Head, SequenceClassification
from .losses import IGNORE


def cross_entropies(
    kinds: Mapping[str, Head], logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Per task (sum, units), of the tasks on a CPU whose loss is the plain cross entropy of a row and that are not alone in it.

    Args:
        logits: task → [b, K].
        labels: task → [b], ids or −100.
    """
    alike: dict[tuple[int, torch.dtype], list[str]] = {}
    for name in labels:
        own = logits[name]
        # Sums by index are in no fixed order on a GPU.
        if own.device.type == "cpu" and own.dim() == 2 and is_plain(kinds[name]):
            alike.setdefault((own.shape[1], own.dtype), []).append(name)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for names in alike.values():
        if len(names) > 1:
            sums, units = _together([logits[name] for name in names], [labels[name] for name in names])
            found |= zip(names, zip(sums, units, strict=True), strict=True)
    return found


def is_plain(kind: Head) -> bool:
    """Whether a head's loss is `losses.cross_entropy` without class weights, smoothing or a focal term."""
    own, loss = type(kind), kind.task.loss
    overridden = (
        own.loss is not SequenceClassification.loss
        or own.batch_loss is not Head.batch_loss
        or own.classes_loss is not Head.classes_loss
    )
    return not overridden and loss.class_weights is None and loss.focal is None and not loss.smoothing


def _together(logits: Sequence[Tensor], labels: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    target = torch.cat(list(labels))
    each = F.cross_entropy(torch.cat(list(logits)).float(), target, ignore_index=IGNORE, reduction="none")
    place = torch.tensor([place for place, own in enumerate(labels) for _ in range(own.shape[0])])
    sums = each.new_zeros(len(labels)).index_add(0, place, each)
    units = target.new_zeros(len(labels)).index_add(0, place, (target != IGNORE).long())
    return sums.unbind(), units.unbind()
