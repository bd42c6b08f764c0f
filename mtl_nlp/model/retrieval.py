"""The retrieval head: queries and passages as vectors of one space, so that an answer is found by the nearest one.

A bi-encoder (Karpukhin et al. 2020, arXiv:2004.04906) whose two towers are the shared encoder: mean of a row's token states,
optionally projected, at length 1. It is trained with in-batch negatives (Henderson et al. 2017, arXiv:1705.00652): of all passages
of a micro-batch each query has to find its own.

Letters: r rows of a micro-batch, b queries, p passages (a positive a query, and hard negatives where there are some), D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .heads import Head
from .losses import cross_entropy

SCALE = 20.0  # cosines reach from −1 to 1; the softmax over them needs more (1 / temperature)


class Pooler(nn.Module):
    """Mean over tokens, an optional projection, length 1.

    Args:
        hidden: H, the encoder's width.
        size: D of the projection; None for none, D = H.
    """

    def __init__(self, hidden: int, size: int | None) -> None:
        super().__init__()
        # Without a projection the head still has its own say: a gain a dimension, which starts at 1.
        self.gain = nn.Parameter(torch.ones(hidden))
        self.projection = nn.Linear(hidden, size, bias=False) if size else None

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor) -> Tensor:
        """[r, T, H] hidden states → [r, D] vectors of length 1, float32."""
        mask = attention_mask[:, :, None].to(inputs_embeds.dtype)
        mean = (inputs_embeds * mask).sum(1) / mask.sum(1).clamp_min(1.0)
        pooled = mean * self.gain
        if self.projection is not None:
            pooled = self.projection(pooled)
        return F.normalize(pooled.float(), dim=-1)


class Retrieval(Head):
    """A passage for a query. Logits [r, D], vectors of rows; in training [b, p], scaled cosines; labels [b], each query's passage.

    Passages of the same tokens as a query's own, and the own passages of other queries of the same tokens, are no negatives: their
    logit is −inf. The loss is the cross entropy over a query's passages; with `loss.symmetric` the mean of that and of the cross
    entropy of each positive over the queries. The unit is the query.
    """

    @property
    def outputs(self) -> int:
        """0: its logits are no classes."""
        return 0

    def build(self, encoder_config: Any) -> nn.Module:
        """The pooler."""
        return Pooler(encoder_config.hidden_size, self.task.projection)

    def logits(
        self, module: nn.Module, hidden: Tensor, mask: Tensor, ids: Tensor, rows: Mapping[str, Tensor]
    ) -> Tensor:
        """Vectors of all rows; where the batch says which are queries (`rows["sizes"]`), the scaled cosines with all passages."""
        vectors: Tensor = module(inputs_embeds=hidden, attention_mask=mask)
        if "same" not in rows:
            return vectors
        queries, passages = split_rows(rows["sizes"].to(vectors.device))
        scale = self.task.loss.scale or SCALE
        with torch.autocast(vectors.device.type, enabled=False):  # cosines near 1 differ in digits that bfloat16 lacks
            cosines = vectors[queries] @ vectors[passages].T
        return masked(scale * cosines, rows["same"].to(vectors.device), rows["sizes"])

    def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy over the passages, summed over queries."""
        forward, units = cross_entropy(logits, labels)
        if not self.task.loss.symmetric:
            return forward, units
        known = labels >= 0
        backward, _ = cross_entropy(
            logits[known][:, labels[known]].T, torch.arange(int(known.sum()), device=labels.device)
        )
        return (forward + backward) / 2, units

    def scores(self, logits: Tensor) -> Tensor:
        """The vectors themselves."""
        return logits.float()


def split_rows(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """(rows of the queries, rows of the passages): of a text's rows the first is the query."""
    starts = sizes.cumsum(0) - sizes
    passages = torch.ones(int(sizes.sum()), dtype=torch.bool, device=sizes.device)
    passages[starts] = False
    return starts, passages.nonzero().view(-1)


def masked(logits: Tensor, same: Tensor, sizes: Tensor) -> Tensor:
    """Logits [b, p] in which no query has as a negative what is an answer to it.

    Args:
        same: [r], a number for each row's tokens: rows of the same tokens have the same.
        sizes: [b], rows of each text.
    """
    queries, passages = split_rows(sizes.to(logits.device))
    own = torch.arange(len(queries), device=logits.device)
    column = (queries - own)[:, None]  # of each query's own passage, its first
    every = torch.arange(len(passages), device=logits.device)
    # [b, b]: queries of the same tokens share their answers.
    alike = same[queries][:, None] == same[queries][None, :]
    answers = same[passages[column.view(-1)]]  # [b]
    right = (alike[:, :, None] & (answers[None, :, None] == same[passages][None, None, :])).any(1)  # [b, p]
    return logits.masked_fill(right & (every[None] != column), float("-inf"))
