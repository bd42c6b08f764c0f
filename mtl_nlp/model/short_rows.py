"""Attention for short rows that stand one behind the other, as Triton kernels for NVIDIA GPUs.

Flash attention goes through its keys in tiles of 128, so that rows of a dozen tokens keep a tenth of the GPU busy. Here a row is
one tile: one program a row and head has its whole matrix of weights, so softmax needs no second pass, and the backward pass
computes the weights again, with the dropout mask of the forward pass, and writes every gradient once.

Letters: B rows, N tokens of all rows, n tokens of a row, t the side of a tile, h heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Sides of tiles (a matrix product has at least 16), and how many warps take one.
WARPS = {16: 1, 32: 2, 64: 4}
LONGEST = max(WARPS)
SMALLEST = min(WARPS)
# With so many tokens each row gets the smallest tile that holds it, a launch a size; with fewer, a launch costs more than it saves.
MANY = 8192
ANY = 2**30
SEEDS = 2**31 - 1


@triton.jit
def _places(ends, row, side: tl.constexpr, depth: tl.constexpr, wide: tl.constexpr):  # type: ignore[no-untyped-def]
    """A row's first token, its length, and the places [t, d] inside it that hold a token's feature."""
    start = tl.load(ends + row)
    length = tl.load(ends + row + 1) - start
    token = tl.arange(0, side)
    feature = tl.arange(0, wide)
    return start, length, token, feature, (token[:, None] < length) & (feature[None, :] < depth)


@triton.jit
def _weights(q, k, token, length, scale, causal, window):  # type: ignore[no-untyped-def]
    """Attention weights [t, t] before dropout; 0 where there is no token or none is to be seen."""
    apart = token[:, None] - token[None, :]
    seen = (token[:, None] < length) & (token[None, :] < length) & (apart < window) & (-apart < window)
    seen = seen & ((causal == 0) | (apart >= 0))
    scores = tl.where(seen, tl.dot(q, tl.trans(k)) * scale, -1.0e30)
    powers = tl.where(seen, tl.exp(scores - tl.max(scores, 1)[:, None]), 0.0)
    return powers / tl.maximum(tl.sum(powers, 1), 1.0e-30)[:, None]


@triton.jit
def _kept(seed, start, head, heads, token, side: tl.constexpr, longest: tl.constexpr, dropout):  # type: ignore[no-untyped-def]
    """The dropout mask [t, t], scaled: a function of the seed and of where a weight stands among all."""
    line = ((start + token) * heads + head) * longest
    chance = tl.rand(
        seed, line[:, None] + tl.arange(0, side)[None, :], 7
    )  # rounds that pass every test of Salmon et al. 2011
    return tl.where(chance >= dropout, 1.0 / (1.0 - dropout), 0.0)


@triton.jit(do_not_specialize=["seed", "window", "causal"])
def _forward(  # type: ignore[no-untyped-def]
    Q, K, V, Out, ends, seed, scale, dropout, causal, window,
    q_token, q_head, k_token, k_head, v_token, v_head,
    heads, depth: tl.constexpr, wide: tl.constexpr, least: tl.constexpr, side: tl.constexpr, longest: tl.constexpr,
    drops: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0), tl.program_id(1)
    start, length, token, feature, inside = _places(ends, row, side, depth, wide)
    if (length < least) | (length > side):
        return  # another launch's
    at = (start + token).to(tl.int64)[:, None]
    q = tl.load(Q + at * q_token + head * q_head + feature[None, :], inside, 0.0)
    k = tl.load(K + at * k_token + head * k_head + feature[None, :], inside, 0.0)
    v = tl.load(V + at * v_token + head * v_head + feature[None, :], inside, 0.0)
    weights = _weights(q, k, token, length, scale, causal, window)
    if drops:
        weights *= _kept(seed, start, head, heads, token, side, longest, dropout)
    out = tl.dot(weights.to(v.dtype), v)
    tl.store(Out + (at * heads + head) * depth + feature[None, :], out.to(v.dtype), inside)


@triton.jit(do_not_specialize=["seed", "window", "causal"])
def _backward(  # type: ignore[no-untyped-def]
    Q, K, V, Given, DQ, DK, DV, ends, seed, scale, dropout, causal, window,
    q_token, q_head, k_token, k_head, v_token, v_head, g_token, g_head,
    heads, depth: tl.constexpr, wide: tl.constexpr, least: tl.constexpr, side: tl.constexpr, longest: tl.constexpr,
    drops: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0), tl.program_id(1)
    start, length, token, feature, inside = _places(ends, row, side, depth, wide)
    if (length < least) | (length > side):
        return  # another launch's
    at = (start + token).to(tl.int64)[:, None]
    q = tl.load(Q + at * q_token + head * q_head + feature[None, :], inside, 0.0)
    k = tl.load(K + at * k_token + head * k_head + feature[None, :], inside, 0.0)
    v = tl.load(V + at * v_token + head * v_head + feature[None, :], inside, 0.0)
    given = tl.load(Given + at * g_token + head * g_head + feature[None, :], inside, 0.0)
    weights = _weights(q, k, token, length, scale, causal, window)
    moved = tl.dot(given, tl.trans(v))  # the gradient by the weights
    dropped = weights
    if drops:
        kept = _kept(seed, start, head, heads, token, side, longest, dropout)
        dropped = weights * kept
        moved *= kept
    to = (at * heads + head) * depth + feature[None, :]
    tl.store(DV + to, tl.dot(tl.trans(dropped).to(v.dtype), given).to(v.dtype), inside)
    by_scores = weights * (moved - tl.sum(weights * moved, 1)[:, None]) * scale
    tl.store(DQ + to, tl.dot(by_scores.to(k.dtype), k).to(q.dtype), inside)
    tl.store(DK + to, tl.dot(tl.trans(by_scores).to(q.dtype), q).to(k.dtype), inside)


def short_rows_attention(
    states: Sequence[Tensor],
    ends: Tensor,
    width: int,
    dropout: float = 0.0,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """As `varlen.varlen_attention`, for rows of at most `LONGEST` tokens; the mask's seed is drawn from torch's generator."""
    settings = settings_of(states[0], width, dropout, scale, causal, window, draw_seed(dropout))
    found: Tensor = _ShortRows.apply(*states, ends, settings)
    return found


def draw_seed(dropout: float) -> int:
    """A mask's seed, from torch's generator on the host; 0 where there is no mask."""
    return int(torch.randint(SEEDS, (), device="cpu")) if dropout else 0


def settings_of(
    states: Tensor, width: int, dropout: float, scale: float | None, causal: bool, window: int | None, seed: int
) -> Settings:
    """Settings for [N, h, d] of queries."""
    return Settings(
        seed=seed,
        dropout=dropout,
        scale=states.shape[-1] ** -0.5 if scale is None else scale,
        causal=int(causal),
        window=ANY if window is None else window,
        width=width,
    )


@dataclass(frozen=True)
class Settings:
    """What a launch is told beside its tensors."""

    seed: int
    dropout: float
    scale: float
    causal: int
    window: int
    width: int

    def launch(self, kernel: Any, read: Sequence[Tensor], written: Sequence[Tensor], ends: Tensor) -> None:
        """One program a row and head, for each size of tiles."""
        tokens, heads, depth = read[0].shape
        strides = [part.stride(axis) for part in read for axis in (0, 1)]
        numbers = (self.seed, self.scale, self.dropout, self.causal, self.window)
        sizes = {"depth": depth, "wide": max(SMALLEST, triton.next_power_of_2(depth)), "longest": LONGEST}
        enough = min(side for side in WARPS if side >= self.width)
        least = 0
        with torch.cuda.device_of(read[0]):
            for side, warps in WARPS.items():
                if side == enough or (side < enough and tokens >= MANY):
                    kernel[len(ends) - 1, heads](
                        *read, *written, ends, *numbers, *strides, heads,
                        **sizes, least=least + 1, side=side, drops=self.dropout > 0, num_warps=warps,
                    )  # fmt: skip
                    least = side


class _ShortRows(torch.autograd.Function):
    """Queries, keys and values [N, h, d] → [N, h, d]."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, ends: Tensor, settings: Settings) -> Tensor:
        ctx.save_for_backward(query, key, value, ends)
        ctx.settings = settings
        return forward((query, key, value), ends, settings)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *states, ends = ctx.saved_tensors
        return *backward(gradients[0], states, ends, ctx.settings), None, None


def forward(states: Sequence[Tensor], ends: Tensor, settings: Settings) -> Tensor:
    """The answers, [N, h, d], without a gradient."""
    out = torch.empty(states[0].shape, dtype=states[0].dtype, device=states[0].device)
    settings.launch(_forward, [_together(part) for part in states], (out,), ends)
    return out


def backward(gradient: Tensor, states: Sequence[Tensor], ends: Tensor, settings: Settings) -> list[Tensor]:
    """The gradients by queries, keys and values, [N, h, d] each."""
    found = [torch.empty(part.shape, dtype=part.dtype, device=part.device) for part in states]
    settings.launch(_backward, [_together(part) for part in (*states, gradient)], found, ends)
    return found


def _together(states: Tensor) -> Tensor:
    """With the features of a head side by side in memory."""
    return states if states.stride(-1) == 1 else states.contiguous()
