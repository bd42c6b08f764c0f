"""Attention for rows of various lengths in one sequence on NVIDIA GPUs: FlashAttention 2 (arXiv:2307.08691) as torch has it, and
kernels of our own for short rows (`short_rows`).

`torch.nn.attention.varlen` offers flash attention without dropout, which training needs, so the operator under it is called.
Whether a kernel is there, and gives what attention row by row gives, is tried once for each device, format and width; one for short
rows for each size of its tiles as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

logger = logging.getLogger("mtl_nlp")

HALF = (torch.bfloat16, torch.float16)
# Rows up to this length go to the kernels for short rows, if they have so many tokens together: launching from Python takes the
# host longer than flash attention takes for less (fourteen tokens a row, forward and backward, H200: 14.2 ms in place of 0.58 ms
# for 96 000 tokens).
SHORT = 64
FEW = 1024
# Of the difference's norm to the result's: bfloat16 has 8 bits.
CLOSE = 2e-2
PROBE_LENGTHS = (7, 3, 12, 1, 24, 40)
PROBED_MOVES = 8
# (causal, window)
TRIED = ((False, None), (True, None), (False, 5), (True, 5))


def varlen_attention(
    states: Sequence[Tensor],
    ends: Tensor,
    width: int,
    dropout: float = 0.0,
    scale: float | None = None,
    causal: bool = False,
    window: int | None = None,
) -> Tensor:
    """[N, h, d] of queries, keys and values in half precision in, the same out.

    Args:
        ends: [B + 1] int32, where each row ends, behind a zero.
        width: at least the length of the longest row.
        window: a token sees those that are less than so many places away.
    """
    kernel = _short if is_short(states[0], width) else _flash
    return kernel(states, ends, width, dropout, scale, causal, window)


def is_short(states: Tensor, width: int) -> bool:
    """Whether rows of up to this length go to the kernels for short rows.

    Args:
        states: [N, h, d], of all rows.
        width: as `varlen_attention` takes it.
    """
    return width <= SHORT and len(states) >= FEW and _agrees(_short, *_kind(states), _tile(width))


def _kind(states: Tensor) -> tuple[torch.device, torch.dtype, int]:
    """What kernels are tried for: device, format, width of a head."""
    return states.device, states.dtype, states.shape[-1]


def _tile(width: int) -> int:
    """The length up to which rows as long as this one are treated alike."""
    return max(16, 1 << (width - 1).bit_length())


def _short(*given: Any) -> Tensor:
    from .short_rows import short_rows_attention  # needs Triton

    return short_rows_attention(*given)


def _flash(
    states: Sequence[Tensor],
    ends: Tensor,
    width: int,
    dropout: float,
    scale: float | None,
    causal: bool,
    window: int | None = None,
) -> Tensor:
    numbers = (width, width, dropout, causal, False)
    found: Tensor = torch.ops.aten._flash_attention_forward(
        *states, ends, ends, *numbers, scale=scale, **flash_sides(causal, window)
    )[0]
    return found


def flash_sides(causal: bool, window: int | None) -> dict[str, int | None]:
    """How far flash attention sees."""
    side = None if window is None else window - 1
    return {"window_size_left": side, "window_size_right": 0 if causal and window is not None else side}


def varlen_works(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Whether `varlen_attention` can be used on this device, in this format, with heads of this width."""
    return device.type == "cuda" and dtype in HALF and _agrees(_flash, device, dtype, width, max(PROBE_LENGTHS))


@cache
def _agrees(kernel: Callable[..., Tensor], device: torch.device, dtype: torch.dtype, width: int, longest: int) -> bool:
    """Outputs and gradients of a kernel, against attention row by row in float32; and gradients under dropout.

    Args:
        width: of a head.
        longest: of the rows it is tried on.
    """
    lengths = [min(length, longest) for length in PROBE_LENGTHS[:-1]] + [longest]
    name, gaps = kernel.__name__.strip("_"), []
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            generator = torch.Generator().manual_seed(0)
            states = torch.randn(4, sum(lengths), 2, width, generator=generator).to(device, dtype)
            ends = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
            for causal, window in TRIED:
                own = [part.clone().requires_grad_() for part in states[:3]]
                known = [part.float().requires_grad_() for part in states[:3]]
                one = kernel(own, ends, longest, 0.0, None, causal, window)
                other = _row_by_row(known, lengths, causal=causal, window=window)
                gaps.append(_gap(one, other))
                weight = states[3]
                pairs = zip(
                    torch.autograd.grad((one * weight).sum(), own),
                    torch.autograd.grad((other * weight.float()).sum(), known),
                    strict=True,
                )
                gaps += [_gap(*pair) for pair in pairs]
            gaps.append(mask_gap(kernel, states, ends))
    # Whatever is raised (an old card, a build without the kernel), it only means that the kernel is not used.
    except Exception as error:  # noqa: BLE001
        logger.info("attention: no %s kernel (%s: %s)", name, type(error).__name__, str(error).splitlines()[0])
        return False
    if not max(gaps) <= CLOSE:
        logger.info("attention: no %s kernel (it differs by %.1e)", name, max(gaps))
        return False
    return True


def mask_gap(kernel: Callable[..., Tensor], states: Tensor, ends: Tensor) -> float:
    """Whether the backward pass drops what the forward pass dropped.

    Under one seed the output is linear in the values, so the gradient by them tells how it moves with them: exactly, if the masks
    are the same ones.
    """

    longest = int(ends.diff().max())

    def drawn(values: Tensor) -> Tensor:
        torch.manual_seed(0)
        return kernel([states[0], states[1], values], ends, longest, 0.5, None, False)

    with torch.random.fork_rng(devices=[states.device] if states.is_cuda else []):
        values = states[2].clone().requires_grad_()
        gradient = torch.autograd.grad((drawn(values) * states[3]).sum(), values)[0].float()
        moved, told = [], []
        for place in range(PROBED_MOVES):
            move = torch.zeros_like(values)
            move[place::PROBED_MOVES] = states[1][place::PROBED_MOVES]
            moved.append((drawn(move).float() * states[3].float()).sum())
            told.append((gradient * move.float()).sum())
    return _gap(torch.stack(told), torch.stack(moved))


def _row_by_row(states: Sequence[Tensor], lengths: Sequence[int], *, causal: bool, window: int | None) -> Tensor:
    parts, begin = [], 0
    for length in lengths:
        q, k, v = (part[begin : begin + length].transpose(0, 1)[None] for part in states)
        place = torch.arange(length, device=q.device)
        apart = place[:, None] - place
        seen = apart >= 0 if causal else torch.ones_like(apart, dtype=torch.bool)
        seen = seen if window is None else seen & (apart.abs() < window)
        parts.append(F.scaled_dot_product_attention(q, k, v, attn_mask=seen)[0].transpose(0, 1))
        begin += length
    return torch.cat(parts)


def _gap(one: Tensor, other: Tensor) -> float:
    return float(((one.float() - other.float()).norm() / other.float().norm()).detach())
