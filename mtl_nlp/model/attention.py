"""Attention over rows that stand one behind the other in a single sequence, without padding between them.

`Layout` says where each row of a padded batch stands in the sequence. The function registered here under `PACKED` (transformers'
`AttentionInterface`) is called by each attention layer with queries, keys and values [1, heads, N, d] of all N real tokens. On a
GPU in half precision torch's flash attention for rows of various lengths takes the sequence as it is (`varlen`). Elsewhere the
rows are taken apart, a group of similar lengths at a time, and put back (on a CPU by `group_attention`): what padding remains is
inside a group, for the attention product alone.

Letters: B rows, T tokens of the longest row, N real tokens of all rows, h heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from .dropout import MaskSource
from .group_attention import HeadSlots, group_attention, head_slots
from .last_layer import Answers, LastLayer
from .rows_operator import EVERYTHING, rows_attention
from .varlen import HALF, varlen_attention, varlen_works

PACKED = "mtl_packed"
# A row joins a group while it fills at least this part of the group's width.
FULLNESS = 0.8
# Longer rows are attended to by torch's fused kernel on a CPU too (which has none with dropout): at 2 048 tokens a step took 2.3
# times as long with it, and less than half of the memory; texts of 8 192 tokens did not fit 23 GiB without it.
LONG = 4096


@dataclass(frozen=True)
class Group:
    """Rows of similar length, side by side in slots.

    Attributes:
        rows: b.
        width: t, the longest of them.
        bias: [b, 1, 1, t], −inf beyond a row's end; None where all rows are equally long.
    """

    rows: int
    width: int
    bias: Tensor | None


@dataclass(frozen=True)
class Slots:
    """How rows are taken apart into groups.

    Attributes:
        tokens: [S] the token in each slot of the groups; any token in a slot beyond a row's end.
        homes: [N] each token's slot.
        groups: rows by length, one group's slots [b · t] behind the other's.
    """

    tokens: Tensor
    homes: Tensor
    groups: list[Group]


@dataclass(frozen=True)
class Layout:
    """Where the rows of a padded batch stand in the sequence.

    Attributes:
        places: [N] flattened positions of the real tokens in [B · T].
        positions: [1, N] each token's position in its row.
        ends: [B + 1] int32, where each row ends in the sequence, behind a zero.
        width: T.
        source: draws dropout masks; torch's generator where None.
    """

    places: Tensor
    positions: Tensor
    ends: Tensor
    width: int
    source: MaskSource | None = None
    _head_slots: dict[Any, HeadSlots] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def slots(self) -> Slots:
        """The groups, for attention that takes the rows apart. On a GPU their sizes have to be waited for."""
        lengths, device = self.ends.diff().long(), self.ends.device
        starts = self.ends[:-1].long()
        order = lengths.argsort(descending=True, stable=True)
        groups, slots = [], []
        for begin, end, width in _cuts(lengths[order].tolist()):
            rows = order[begin:end]
            column = torch.arange(width, device=device)
            inside = column < lengths[rows, None]  # [b, t]
            slots.append(torch.where(inside, starts[rows, None] + column, -1).view(-1))
            bias = torch.zeros(inside.shape, device=device).masked_fill_(~inside, float("-inf"))[:, None, None]
            groups.append(Group(end - begin, width, None if bool(inside.all()) else bias))
        homes = torch.arange(len(self.places), device=device)
        together = torch.cat(slots) if slots else homes.clone()
        filled = (together >= 0).nonzero().view(-1)
        homes[together[filled]] = filled
        return Slots(together.clamp_(min=0), homes, groups)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max((group.width for group in self.slots.groups), default=0)

    def head_slots(self, heads: int, dtype: torch.dtype, causal: bool, window: int | None) -> HeadSlots:
        """The groups head by head, on a CPU; the same for all layers that see as far."""
        key = (heads, dtype, causal, window)
        if key not in self._head_slots:
            slots = self.slots
            biases = [_bias(group, causal, window, self.ends.device) for group in slots.groups]
            groups = [
                (group.rows, group.width, None if bias is None else bias.to(dtype))
                for group, bias in zip(slots.groups, biases, strict=True)
            ]
            self._head_slots[key] = head_slots(slots.tokens, slots.homes, groups, heads)
        return self._head_slots[key]


def layout_of(mask: Tensor, source: MaskSource | None = None, tokens: int | None = None) -> Layout:
    """The layout of a batch.

    Args:
        mask: [B, T], 1 for real tokens, which stand together in each row.
        tokens: N, where it is known: on a GPU counting would wait for all that is still to be computed.
    """
    count = int(mask.sum()) if tokens is None else tokens
    lengths = mask.sum(1)
    ends = F.pad(lengths.cumsum(0), (1, 0))
    if mask.device.type == "cuda":
        places = torch.nonzero_static(mask.reshape(-1), size=count).view(-1)
    else:
        places = mask.reshape(-1).nonzero().view(-1)
    starts = torch.repeat_interleave(ends[:-1], lengths, output_size=count)
    positions = torch.arange(count, device=mask.device) - starts
    return Layout(places, positions[None], ends.to(torch.int32), mask.shape[1], source)


def _cuts(lengths: list[int]) -> Iterator[tuple[int, int, int]]:
    """(begin, end, width) of groups of rows that are sorted by length, the longest first; empty rows are in none."""
    begin = 0
    while begin < len(lengths) and lengths[begin]:
        width, end = lengths[begin], begin + 1
        while end < len(lengths) and lengths[end] >= FULLNESS * width and lengths[end]:
            end += 1
        yield begin, end, width
        begin = end


class _Apart(torch.autograd.Function):
    """Tokens [N, …] → slots [S, …]. Nothing flows back from a slot beyond a row's end, so that a slot's gradient is its token's."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, slots: Tensor, homes: Tensor) -> Tensor:
        ctx.save_for_backward(homes)
        return tokens.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Together(torch.autograd.Function):
    """Slots [S, …] → tokens [N, …]."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, homes: Tensor) -> Tensor:
        ctx.save_for_backward(homes)
        ctx.slots = slots.shape
        return slots.index_select(0, homes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].new_zeros(ctx.slots).index_copy_(0, ctx.saved_tensors[0], gradients[0]), None


_LAYOUT: ContextVar[Layout | None] = ContextVar("layout", default=None)


# While the last layer runs for some tokens alone.
_ANSWERS: ContextVar[Answers | None] = ContextVar("answers", default=None)


@contextmanager
def packed_attention(
    config: Any, layout: Layout, last: LastLayer | None = None, wanted: Tensor | None = None
) -> Iterator[None]:
    """Attention layers that read `config` attend inside the rows of `layout`.

    Args:
        last: the encoder's last layer, to be cut to the `wanted` tokens, [n] places in the sequence.
    """
    cut = nullcontext() if last is None or wanted is None else last.cut_to(wanted, _ANSWERS.set)
    before, token = config._attn_implementation, _LAYOUT.set(layout)
    config._attn_implementation = PACKED
    try:
        with cut:
            yield
    finally:
        config._attn_implementation = before
        _LAYOUT.reset(token)


def packed_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """[1, h, N, d] of queries, keys and values in; [1, N, h, d] out.

    Args:
        sliding_window: a token sees those that are less than so many places away.
        kwargs: what the encoder was given; where its layers are compiled, `packed_ends` and `packed_width` of the layout.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    causal = bool(kwargs.get("is_causal", getattr(module, "is_causal", False)))
    if torch.compiler.is_compiling() and "packed_ends" in kwargs and query.dtype in HALF:
        window = EVERYTHING if sliding_window is None else sliding_window
        rows = (kwargs["packed_ends"], kwargs["packed_width"])
        return rows_attention(*_flat((query, key, value)), *rows, dropout, scale, causal, window)[0][None], None
    return _attend((query, key, value), dropout, scale, causal, sliding_window), None


# How rows are attended to depends on the batch; layers that are compiled are so around it.
@torch.compiler.disable
def _attend(states: Sequence[Tensor], dropout: float, scale: float, causal: bool, window: int | None) -> Tensor:
    """[1, h, N, d] of queries, keys and values in; [1, N, h, d] out."""
    layout, answers = _LAYOUT.get(), _ANSWERS.get()
    assert layout is not None, "packed attention outside of `packed_attention`"

    def attend() -> Tensor:
        with torch.autocast(states[0].device.type, enabled=False):
            return _inside_rows(_flat(states), layout, dropout, scale, causal, window)[None]

    return attend() if answers is None else answers.of(attend)


def _flat(states: Sequence[Tensor]) -> list[Tensor]:
    """[1, h, N, d] of queries, keys and values in, fewer heads of the last two perhaps; [N, h, d] out."""
    query, key, value = states
    if key.shape[1] != query.shape[1]:  # grouped queries
        times = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    # Squeezed, not indexed: the gradient of an index is written into a tensor of zeros.
    return [some.squeeze(0).transpose(0, 1) for some in (query, key, value)]


def _inside_rows(
    states: Sequence[Tensor], layout: Layout, dropout: float, scale: float, causal: bool, window: int | None
) -> Tensor:
    """[N, h, d] of queries, keys and values in, the same out."""
    query = states[0]
    if varlen_works(query.device, query.dtype, query.shape[-1]):
        return varlen_attention(states, layout.ends, layout.width, dropout, scale, causal, window)
    if query.device.type == "cpu" and (dropout or layout.longest <= LONG):
        parted = layout.head_slots(query.shape[1], query.dtype, causal, window)
        return group_attention(states, parted, dropout, scale, layout.source)
    slots = layout.slots
    apart = [_Apart.apply(some, slots.tokens, slots.homes) for some in states]
    parts, begin = [], 0
    for group in slots.groups:
        end = begin + group.rows * group.width
        q, k, v = (s[begin:end].unflatten(0, (group.rows, group.width)).transpose(1, 2) for s in apart)  # [b, h, t, d]
        bias = _bias(group, causal, window, query.device)
        bias = None if bias is None else bias.to(q.dtype)
        answers = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale)
        parts.append(answers.transpose(1, 2).flatten(0, 1))
        begin = end
    return _Together.apply(parts[0] if len(parts) == 1 else torch.cat(parts), slots.homes)


def _bias(group: Group, causal: bool, window: int | None, device: torch.device) -> Tensor | None:
    """What is added to the scores of a group, [b or 1, 1, t or 1, t]; None where every token of a row sees every other."""
    width = group.width
    if not causal and (window is None or width <= window):
        return group.bias
    column = torch.arange(width, device=device)
    apart = column[:, None] - column  # [t, t]
    seen = apart >= 0 if causal else torch.ones_like(apart, dtype=torch.bool)
    if window is not None:
        seen = seen & (apart.abs() < window)
    bias = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, float("-inf"))[None, None]
    if group.bias is not None:
        bias = bias + group.bias
        # A slot far beyond a row's end would see nothing within its window, and its weights, 0 / 0, spoil the row's gradients.
        bias.diagonal(dim1=-2, dim2=-1).zero_()
    return bias


def _no_mask(*args: Any, **kwargs: Any) -> None:
    """Masks are made by the layout."""
    return None


AttentionInterface.register(PACKED, packed_attention_forward)
AttentionMaskInterface.register(PACKED, _no_mask)
