"""Attention of rows in groups of similar length, on a CPU, forward and backward.

The products of heads are small (384 of 20 × 20 for 32 texts), so what torch does between them decides: scaling, copies into the
order that a batched product wants, softmax in half precision, a gradient for each. Here the heads' parts of the tokens are fetched
straight into that order, the scale is a factor of the product, softmax is in float32, and the gradient is worked out as

    ∂scores = P − weights · Σ P,    P = ∂dropped · dropped,

the sum over the keys, where `dropped` are the weights after dropout: so that the masks need not be kept.

Letters: N tokens, S slots of all groups, b rows and t slots a row of a group, h heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from .dropout import MaskSource


@dataclass(frozen=True)
class HeadGroup:
    """One group, every head a row of its own.

    Attributes:
        begin, end: where it stands among the S · h slots.
        rows: b.
        heads: h.
        width: t.
        bias: [b or 1, 1, t or 1, t], what is added to the scores.
    """

    begin: int
    end: int
    rows: int
    heads: int
    width: int
    bias: Tensor | None


@dataclass(frozen=True)
class HeadSlots:
    """How the heads' parts of the tokens, [N · h, d], are fetched into groups and back.

    Attributes:
        parts: [S · h] what stands in each slot, groups behind one another, each [b, h, t].
        homes: [N · h] where each part stands.
        groups: the groups.
    """

    parts: Tensor
    homes: Tensor
    groups: list[HeadGroup]


def head_slots(
    tokens: Tensor, homes: Tensor, groups: Sequence[tuple[int, int, Tensor | None]], heads: int
) -> HeadSlots:
    """The slots of all heads.

    Args:
        tokens: [S], the token in each slot, groups behind one another, each [b, t].
        homes: [N], each token's slot.
        groups: (b, t, what is added to the scores: [b or 1, 1, t or 1, t]).
        heads: h.
    """
    head = torch.arange(heads)
    place = torch.empty(len(tokens), heads, dtype=torch.long)  # of a slot's part, by head
    parts, found, begin = [], [], 0
    for rows, width, bias in groups:
        slots = slice(begin, begin + rows * width)
        own = tokens[slots].view(rows, 1, width) * heads + head[:, None]
        parts.append(own.view(-1))
        places = torch.arange(begin * heads, slots.stop * heads).view(rows, heads, width)
        place[slots] = places.transpose(1, 2).reshape(-1, heads)
        found.append(HeadGroup(begin * heads, slots.stop * heads, rows, heads, width, bias))
        begin = slots.stop
    return HeadSlots(torch.cat(parts) if parts else tokens, place[homes].view(-1), found)


class _GroupAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        slots: HeadSlots,
        dropout: float,
        scale: float,
        source: MaskSource | None,
    ) -> Tensor:
        fetched = [states.reshape(-1, states.shape[-1]).index_select(0, slots.parts) for states in (query, key, value)]
        answers, kept = torch.empty_like(fetched[2]), []
        for group in slots.groups:
            q, k, v, answer = (_of(group, states) for states in (*fetched, answers))
            weights = _scores(q, k, group, scale).softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))
            dropped = (_dropped(weights, dropout, source) if dropout else weights).to(q.dtype)
            torch.bmm(dropped, v, out=answer)
            kept.append((weights, dropped))
        ctx.slots, ctx.scale, ctx.kept = slots, scale, kept
        ctx.save_for_backward(*fetched)
        return answers.index_select(0, slots.homes).view(*query.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        slots, fetched = ctx.slots, ctx.saved_tensors
        (given,) = gradients
        flat = given.reshape(-1, given.shape[-1])
        # Nothing comes back to a slot beyond a row's end.
        coming = (torch.empty_like if len(flat) == len(fetched[2]) else torch.zeros_like)(fetched[2])
        coming.index_copy_(0, slots.homes, flat)
        going = [torch.empty_like(states) for states in fetched]
        for group, (weights, dropped) in zip(slots.groups, ctx.kept, strict=True):
            q, k, v, answer = (_of(group, states) for states in (*fetched, coming))
            to_query, to_key, to_value = (_of(group, states) for states in going)
            torch.bmm(dropped.transpose(1, 2), answer, out=to_value)
            part = torch.mul(torch.bmm(answer, v.transpose(1, 2)), dropped, out=torch.empty_like(weights))
            scores = part.addcmul_(weights, part.sum(-1, keepdim=True), value=-1.0).to(q.dtype)
            torch.baddbmm(to_query, scores, k, beta=0, alpha=ctx.scale, out=to_query)
            torch.baddbmm(to_key, scores.transpose(1, 2), q, beta=0, alpha=ctx.scale, out=to_key)
        back = [states.index_select(0, slots.homes).view(*given.shape[:-1], -1) for states in going]
        return *back, None, None, None, None


def group_attention(
    states: Sequence[Tensor], slots: HeadSlots, dropout: float, scale: float, source: MaskSource | None
) -> Tensor:
    """Attention inside the rows, [N, h, d]; a gradient of the gradient there is not.

    Args:
        states: queries, keys and values, [N, h, d].
        slots: made for h heads.
        dropout: of the attention weights.
        source: draws the masks; torch's generator where None.
    """
    query, key, value = states
    return _GroupAttention.apply(query, key, value, slots, dropout, scale, source)


def _of(group: HeadGroup, states: Tensor) -> Tensor:
    return states[group.begin : group.end].view(group.rows * group.heads, group.width, states.shape[-1])


def _scores(q: Tensor, k: Tensor, group: HeadGroup, scale: float) -> Tensor:
    scores = torch.baddbmm(q.new_zeros(()), q, k.transpose(1, 2), beta=0, alpha=scale)
    if group.bias is not None:
        scores.view(group.rows, group.heads, group.width, group.width).add_(group.bias)
    return scores


def _dropped(weights: Tensor, p: float, source: MaskSource | None) -> Tensor:
    return F.dropout(weights, p) if source is None else weights * source.scale(weights.shape, p, weights.dtype)
