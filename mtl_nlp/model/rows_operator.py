"""Attention inside rows as an operator of torch with a gradient, so that a compiled layer is one graph around it.

Which kernel attends depends on the batch (`varlen`), and Dynamo cannot look into that: broken off there, a layer is four graphs,
and to call them takes Python longer than what is in them takes a GPU.

Letters: B rows, N tokens of all rows, h heads, d width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .varlen import flash_sides, is_short

EVERYTHING = -1  # the window that is none: an operator's is a whole number


@torch.library.custom_op("mtl_nlp::rows_attention", mutates_args=(), device_types="cuda")
def rows_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    width: int,
    dropout: float,
    scale: float,
    causal: bool,
    window: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[N, h, d] of queries, keys and values in half precision in, the same out; arguments as of `varlen.varlen_attention`.

    Args:
        query: [N, h, d].
        key: [N, h, d].
        value: [N, h, d].
        ends: [B + 1] int32, where each row ends, behind a zero.
        width: at least the length of the longest row.
        dropout: of the attention weights, drawn from torch's generator.
        scale: of the scores.
        causal: a token sees itself and those before it.
        window: a token sees those that are less than so many places away; `EVERYTHING`: all of its row.

    Returns:
        The answers [N, h, d]; the scores' log-sum-exp [h, N] and the dropout mask's state [2] where flash attention gave them, and
        as many numbers without a meaning where not; the mask's seed [], on the host, where the kernels for short rows did.
    """
    tokens, heads, _ = query.shape
    if is_short(query, width):
        from .short_rows import draw_seed, forward, settings_of  # needs Triton

        seed = draw_seed(dropout)
        out = forward(
            (query, key, value), ends, settings_of(query, width, dropout, scale, causal, _limit(window), seed)
        )
        sums, state = query.new_empty((heads, tokens), dtype=torch.float32), ends.new_empty((2,), dtype=torch.int64)
        return out, sums, state, torch.tensor(seed)
    out, sums, state, *_ = torch.ops.aten._flash_attention_forward(
        query,
        key,
        value,
        ends,
        ends,
        width,
        width,
        dropout,
        causal,
        False,
        scale=scale,
        **flash_sides(causal, _limit(window)),
    )
    return out.contiguous(), sums, state.view(torch.int64), torch.tensor(0)


@torch.library.custom_op("mtl_nlp::rows_attention_backward", mutates_args=(), device_types="cuda")
def rows_attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ends: Tensor,
    out: Tensor,
    sums: Tensor,
    state: Tensor,
    seed: Tensor,
    width: int,
    dropout: float,
    scale: float,
    causal: bool,
    window: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by queries, keys and values, [N, h, d] each; arguments as `rows_attention` takes and gives them."""
    states = (query, key, value)
    if is_short(query, width):
        from .short_rows import backward, settings_of  # needs Triton

        settings = settings_of(query, width, dropout, scale, causal, _limit(window), int(seed))
        found = backward(gradient, states, ends, settings)
    else:
        unused = state.new_empty((), dtype=torch.uint64)
        numbers = (width, width, dropout, causal, state.view(torch.uint64), unused)
        found = torch.ops.aten._flash_attention_backward(
            gradient.contiguous(),
            *states,
            out,
            sums,
            ends,
            ends,
            *numbers,
            scale=scale,
            **flash_sides(causal, _limit(window)),
        )
    by_query, by_key, by_value = (one.contiguous() for one in found)
    return by_query, by_key, by_value


def _limit(window: int) -> int | None:
    return None if window == EVERYTHING else window


@rows_attention.register_fake
def _(query: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tokens, heads, _depth = query.shape
    sums, state = query.new_empty((heads, tokens), dtype=torch.float32), query.new_empty((2,), dtype=torch.int64)
    return query.new_empty(query.shape), sums, state, torch.empty((), dtype=torch.int64)


@rows_attention_backward.register_fake
def _(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.width, ctx.dropout, ctx.scale, ctx.causal, ctx.window = inputs
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    found = rows_attention_backward(
        gradient, *ctx.saved_tensors, ctx.width, ctx.dropout, ctx.scale, ctx.causal, ctx.window
    )
    return *found, *[None] * 6


rows_attention.register_autograd(_gradients, setup_context=_keep)
