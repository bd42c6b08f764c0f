"""The norm of a step's gradient: as torch's, of touched rows alone, worked by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mtl_nlp.training.clipping import clip_gradient
from mtl_nlp.training.embedding_gradient import RowGradient


def parameter(*gradient: float) -> nn.Parameter:
    made = nn.Parameter(torch.zeros(len(gradient)))
    made.grad = torch.tensor(gradient)
    return made


def test_three_four_five() -> None:
    pair = [parameter(3.0, 0.0), parameter(4.0)]
    assert clip_gradient([*pair, nn.Parameter(torch.zeros(2))], 2.5, None) == pytest.approx(5.0)
    assert [p.grad.tolist() for p in pair] == [pytest.approx([1.5, 0.0]), pytest.approx([2.0])]


@pytest.mark.parametrize("most", [5.5, float("inf")])
def test_a_small_gradient_is_left_as_it_is(most: float) -> None:
    pair = [parameter(3.0, 0.0), parameter(4.0)]
    assert clip_gradient(pair, most, None) == pytest.approx(5.0)
    assert [p.grad.tolist() for p in pair] == [[3.0, 0.0], [4.0]]


def test_without_gradients_the_norm_is_zero() -> None:
    assert clip_gradient([nn.Parameter(torch.zeros(2))], 1.0, None) == 0


def test_a_gradient_that_is_no_number_shows_everywhere() -> None:
    pair = [parameter(float("nan")), parameter(4.0)]
    assert clip_gradient(pair, 1.0, None).isnan()
    assert all(p.grad.isnan().all() for p in pair)


def wide() -> nn.Parameter:
    """A gradient with strides of its own."""
    made = nn.Parameter(torch.zeros(30, 20))
    made.grad = torch.randn(20, 30).t()
    return made


def half() -> nn.Parameter:
    made = nn.Parameter(torch.zeros(50, dtype=torch.bfloat16))
    made.grad = torch.randn(50, dtype=torch.bfloat16)
    return made


@pytest.mark.parametrize("other", [wide, half])
def test_the_norm_and_what_is_scaled_by_it(other: Callable[[], nn.Parameter]) -> None:
    torch.manual_seed(0)
    pair = [parameter(*torch.randn(7).tolist()), other()]
    before = [p.grad.double() for p in pair]
    exact = torch.cat([gradient.flatten() for gradient in before]).norm()
    torch.testing.assert_close(clip_gradient(pair, 0.5, None), exact.float())
    for now, gradient in zip(pair, before, strict=True):
        torch.testing.assert_close(now.grad, (gradient * 0.5 / exact).to(now.dtype))


def test_rows_that_were_touched_in_two_steps_of_two_micro_batches() -> None:
    torch.manual_seed(0)
    ours = nn.ModuleDict({"table": nn.Embedding(50, 8), "line": nn.Linear(8, 3)})
    theirs = copy.deepcopy(ours)
    rows = RowGradient(ours["table"])
    for step in ([[4, 9, 9], [4, 30]], [[30, 2], [2, 2, 49]]):
        for model in (ours, theirs):
            model.zero_grad()
            for ids in step:
                model["line"](model["table"](torch.tensor(ids))).square().sum().backward()
        norm = clip_gradient(ours.parameters(), 0.25, rows)
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs.parameters(), 0.25))
        assert norm > 0.25
        for mine, yours in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, yours.grad)
    assert rows.touched().tolist() == [2, 30, 49]
