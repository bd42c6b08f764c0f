"""Attention by groups must be attention row by row, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtl_nlp.model.attention import Layout, layout_of, packed_attention, packed_attention_forward
from mtl_nlp.model.dropout import MaskSource

LENGTHS = [9, 3, 8, 1, 5]  # two groups with a slot beyond a row's end, and a row alone
HEADS, WIDTH = 3, 4


class Layer(torch.nn.Module):
    """What the function asks of an attention layer."""

    is_causal = False


class Config:
    """What it asks of a configuration."""

    _attn_implementation = "sdpa"


def layout(lengths: list[int], source: MaskSource | None = None) -> Layout:
    return layout_of((torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long(), source)


def states(lengths: list[int], dtype: torch.dtype = torch.float64, value: int = WIDTH) -> list[Any]:
    """Queries, keys and values [1, h, N, d] as a layer makes them: seen from [1, N, h, d]."""
    torch.manual_seed(0)
    made = [torch.randn(1, sum(lengths), HEADS, width, dtype=dtype) for width in (WIDTH, WIDTH, value)]
    return [s.requires_grad_() for s in made]


def attend(lengths: list[int], made: list[Tensor], source: MaskSource | None = None, **settings: Any) -> Tensor:
    q, k, v = (s.transpose(1, 2) for s in made)
    with packed_attention(Config(), layout(lengths, source)):
        return packed_attention_forward(Layer(), q, k, v, None, **settings)[0]


def row_by_row(lengths: list[int], made: list[Tensor], *, causal: bool = False, window: int | None = None) -> Tensor:
    """[1, N, h, d]."""
    found = []
    for q, k, v in zip(*(s[0].split(lengths) for s in made), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) * WIDTH**-0.5
        place = torch.arange(len(q))
        apart = place[:, None] - place
        hidden = (apart < 0) & causal | (apart.abs() >= window if window else torch.zeros_like(apart, dtype=torch.bool))
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        found.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(found)[None]


@pytest.mark.parametrize("value", [WIDTH, 2])
@pytest.mark.parametrize("settings", [{}, {"causal": True}, {"window": 3}, {"causal": True, "window": 3}])
@pytest.mark.parametrize("lengths", [LENGTHS, [4, 4, 4], [7]])
def test_output_and_gradients_are_those_of_each_row_alone(
    lengths: list[int], settings: dict[str, Any], value: int
) -> None:
    ours, theirs = states(lengths, value=value), states(lengths, value=value)
    found = attend(lengths, ours, is_causal=settings.get("causal", False), sliding_window=settings.get("window"))
    expected = row_by_row(lengths, theirs, **settings)
    coming = torch.randn_like(expected)
    found.backward(coming)
    expected.backward(coming)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-12)


class Fixed(MaskSource):
    """The same mask again and again, in any precision."""

    def scale(self, shape: Any, p: float, dtype: torch.dtype) -> Tensor:
        kept = torch.rand(shape, generator=torch.Generator().manual_seed(shape[-1])) >= p
        return kept.to(dtype) / (1 - p)


def test_the_gradient_through_dropout_is_the_slope() -> None:
    made = states(LENGTHS)
    assert torch.autograd.gradcheck(lambda *some: attend(LENGTHS, list(some), Fixed(), dropout=0.4), made)


def test_with_a_source_masks_are_its_draws_and_without_torchs() -> None:
    lengths = [6] * 50
    made = states(lengths, torch.float32)
    q, k, _ = made
    v = torch.eye(6)[None, :, None].repeat(1, 50, HEADS, 1)  # the answers are the weights after dropout
    for source in (MaskSource(3), None):
        torch.manual_seed(0)
        dropped = attend(lengths, [q, k, v], source, dropout=0.25).detach()
        whole = attend(lengths, [q, k, v]).detach()
        kept = dropped != 0
        torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)
        assert abs(float(kept.float().mean()) - 0.75) < 0.03  # 5 400 draws: a standard deviation of 0.006
    again = attend(lengths, [q, k, v], MaskSource(3), dropout=0.25)
    assert torch.equal(again, attend(lengths, [q, k, v], MaskSource(3), dropout=0.25))


def test_in_half_precision_it_is_as_near_as_its_digits() -> None:
    half = states(LENGTHS, torch.bfloat16)
    exact = [s.detach().float().requires_grad_() for s in half]
    expected, found = row_by_row(LENGTHS, exact), attend(LENGTHS, half)
    assert found.dtype == torch.bfloat16
    coming = torch.randn_like(expected)
    expected.backward(coming)
    found.backward(coming.bfloat16())
    gradients = [(h.grad, e.grad) for h, e in zip(half, exact, strict=True)]
    for one, other in ((found, expected), *gradients):
        gap = (one.float() - other).detach().abs().max() / other.detach().abs().max()
        assert gap < 4 * 2**-8


def test_a_slot_that_sees_nothing_in_its_window_spoils_no_gradient() -> None:
    lengths = [40, 33]  # one group: the shorter row's last slots are seven from its end, and see two to either side
    ours, theirs = states(lengths), states(lengths)
    attend(lengths, ours, sliding_window=3).sum().backward()
    row_by_row(lengths, theirs, window=3).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-12)
