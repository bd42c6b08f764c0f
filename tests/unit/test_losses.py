"""Losses against numbers worked by hand, and what a missing annotation does to them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mtl_nlp.model.losses import (
    IGNORE,
    binary_cross_entropy,
    cross_entropy,
    padded_choices,
    span_cross_entropy,
    squared_error,
)

NAN, INF = float("nan"), math.inf
LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)


def values(result: tuple[Tensor, Tensor]) -> tuple[float, int]:
    return float(result[0]), int(result[1])


def test_cross_entropy_is_a_sum_over_labelled_units() -> None:
    # softmax(0, 0) = 1/2; softmax(ln 3, 0) = 3/4 and 1/4.
    logits = torch.tensor([[0.0, 0.0], [LN3, 0.0], [LN3, 0.0], [50.0, -50.0]])
    total, units = values(cross_entropy(logits, torch.tensor([0, 0, 1, IGNORE])))
    assert total == pytest.approx(LN2 + math.log(4 / 3) + LN4)
    assert units == 3


def test_cross_entropy_over_tokens_takes_any_leading_shape() -> None:
    logits, labels = torch.randn(2, 3, 5), torch.tensor([[IGNORE, 1, 2], [4, IGNORE, IGNORE]])
    total, units = values(cross_entropy(logits, labels))
    by_hand = sum(-float(logits[i, t].log_softmax(-1)[k]) for i, t, k in ((0, 1, 1), (0, 2, 2), (1, 0, 4)))
    assert (total, units) == (pytest.approx(by_hand, rel=1e-5), 3)


def test_binary_cross_entropy_is_a_mean_over_a_rows_labels() -> None:
    # sigmoid(0) = 1/2; sigmoid(ln 3) = 3/4.
    logits = torch.tensor([[0.0, LN3], [LN3, LN3], [1.0, 1.0]])
    labels = torch.tensor([[1.0, 1.0], [0.0, 1.0], [NAN, NAN]])
    total, units = values(binary_cross_entropy(logits, labels))
    assert total == pytest.approx((LN2 + math.log(4 / 3)) / 2 + (LN4 + math.log(4 / 3)) / 2)
    assert units == 2


def test_a_row_with_one_nan_is_not_labelled() -> None:
    assert values(binary_cross_entropy(torch.ones(1, 2), torch.tensor([[1.0, NAN]]))) == (0.0, 0)


def test_no_label_is_not_the_same_as_no_annotation() -> None:
    total, units = values(binary_cross_entropy(torch.zeros(1, 2), torch.zeros(1, 2)))
    assert (total, units) == (pytest.approx(LN2), 1)


def test_squared_error_skips_gaps_and_takes_minus_one_for_a_number() -> None:
    logits = torch.tensor([[0.5], [1.0], [9.0]])
    assert values(squared_error(logits, torch.tensor([-1.0, 3.0, NAN]))) == (pytest.approx(2.25 + 4.0), 2)


def test_span_loss_is_the_mean_of_first_and_last() -> None:
    # First: softmax(ln 2, 0, 0) = 2/4, 1/4, 1/4. Last: three equal ones.
    logits = torch.tensor([[[LN2, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    assert values(span_cross_entropy(logits, torch.tensor([[0, 2]]))) == (pytest.approx((LN2 + LN3) / 2), 1)
    assert values(span_cross_entropy(logits, torch.tensor([[1, 2]]))) == (pytest.approx((LN4 + LN3) / 2), 1)


def test_choices_of_unlike_number_are_filled_with_minus_infinity() -> None:
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    table = padded_choices(scores, torch.tensor([2, 3]))
    assert torch.equal(table, torch.tensor([[1.0, 2.0, -INF], [3.0, 4.0, 5.0]]))
    assert torch.equal(padded_choices(scores[:4], torch.tensor([2, 2])), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


def test_a_choice_that_is_not_there_takes_no_probability_and_no_gradient() -> None:
    scores = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0], requires_grad=True)
    total, units = cross_entropy(padded_choices(scores, torch.tensor([2, 3])), torch.tensor([0, 2]))
    assert (float(total), int(units)) == (pytest.approx(LN2 + LN3), 2)
    total.backward()
    expected = torch.tensor([-1 / 2, 1 / 2, 1 / 3, 1 / 3, -2 / 3])
    assert scores.grad is not None
    assert torch.allclose(scores.grad, expected)


@pytest.mark.parametrize(
    ("loss", "logits", "gaps"),
    [
        (cross_entropy, (3, 4), torch.full((3,), IGNORE)),
        (cross_entropy, (2, 3, 4), torch.full((2, 3), IGNORE)),
        (binary_cross_entropy, (3, 4), torch.full((3, 4), NAN)),
        (squared_error, (3, 1), torch.full((3,), NAN)),
        (span_cross_entropy, (3, 5, 2), torch.full((3, 2), IGNORE)),
    ],
)
def test_nothing_labelled_is_zero_with_a_zero_gradient(loss: object, logits: tuple[int, ...], gaps: Tensor) -> None:
    scores = torch.randn(logits, requires_grad=True)
    total, units = loss(scores, gaps)  # type: ignore[operator]
    assert (float(total), int(units)) == (0.0, 0)
    total.backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad, torch.zeros(logits))


@pytest.mark.parametrize(
    ("loss", "logits", "labels"),
    [
        (cross_entropy, torch.full((1, 2), 300.0), torch.tensor([1])),
        (binary_cross_entropy, torch.full((1, 2), 300.0), torch.ones(1, 2)),
        (squared_error, torch.full((1, 1), 300.0), torch.tensor([299.0])),
    ],
)
def test_half_precision_logits_are_compared_in_float32(loss: object, logits: Tensor, labels: Tensor) -> None:
    total, _ = loss(logits.bfloat16(), labels)  # type: ignore[operator]
    assert total.dtype == torch.float32
    assert math.isfinite(float(total))


def test_the_sum_does_not_depend_on_how_rows_are_cut_into_micro_batches() -> None:
    logits, labels = torch.randn(8, 3), torch.randint(0, 3, (8,))
    labels[2] = IGNORE
    whole, units = cross_entropy(logits, labels)
    parts = [cross_entropy(logits[i : i + 2], labels[i : i + 2]) for i in range(0, 8, 2)]
    assert float(sum(part[0] for part in parts)) == pytest.approx(float(whole), rel=1e-6)
    assert sum(int(part[1]) for part in parts) == int(units) == 7
