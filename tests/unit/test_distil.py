"""The distance from old outputs: values worked by hand, and what a step of it does."""

from __future__ import annotations

import math

import pytest
import torch

from mtl_nlp.task import Task
from mtl_nlp.training.distil import binary_divergence, divergence, emissions, soft_divergence


def test_the_divergence_by_hand() -> None:
    old, new = torch.tensor([math.log(3.0), 0.0]), torch.tensor([0.0, 0.0])
    # p = (3/4, 1/4) against (1/2, 1/2).
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(soft_divergence(new, old, 1.0)) == pytest.approx(expected)
    # At T = 2 the odds are 3^(1/2), and the sum counts T² times.
    p = 3**0.5 / (3**0.5 + 1)
    expected = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert float(soft_divergence(new, old, 2.0)) == pytest.approx(expected, rel=1e-5)
    assert float(soft_divergence(old, old, 2.0)) == pytest.approx(0.0, abs=1e-7)
    # A label by itself is a choice of two: the same number; with a second label that agrees, half of it.
    assert float(binary_divergence(torch.tensor([0.0, 1.0]), torch.tensor([math.log(3.0), 1.0]), 2.0)) == pytest.approx(
        expected / 2, rel=1e-5
    )


def test_the_gradient_is_that_of_soft_targets() -> None:
    old, new = torch.tensor([2.0, 0.0, -1.0]), torch.tensor([0.5, 0.3, 0.0], requires_grad=True)
    soft_divergence(new, old, 2.0).backward()
    assert new.grad is not None
    expected = 2.0 * ((new / 2).softmax(-1) - (old / 2).softmax(-1))  # T² · (q − p) / T
    assert torch.allclose(new.grad, expected.detach(), atol=1e-6)


@pytest.mark.parametrize("annotation", ["label", "labels", "value", "tags", "answer"])
def test_padding_says_nothing_and_equal_outputs_have_no_distance(annotation: str) -> None:
    torch.manual_seed(0)
    shape = {"label": (2, 3), "labels": (2, 3), "value": (2, 1), "tags": (2, 5, 3), "answer": (2, 5, 2)}[annotation]
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    old = torch.randn(shape)
    assert float(divergence(annotation, old.clone(), old, mask, 2.0)) == pytest.approx(0.0, abs=1e-6)
    new = old + torch.randn(shape)
    found = divergence(annotation, new, old, mask, 2.0)
    assert float(found) > 0
    if annotation in ("tags", "answer"):
        other = new.clone()
        other[1, 2:] = 7.0
        assert float(divergence(annotation, other, old, mask, 2.0)) == pytest.approx(float(found), rel=1e-6)
    if annotation == "value":
        assert float(found) == pytest.approx(float((new - old).square().sum()))


def test_of_a_chain_only_the_emissions_count() -> None:
    packed = torch.arange(2 * 9 * 3).view(2, 9, 3)
    chain = Task(name="c", head="token_classification_crf", labels=["x"])
    assert torch.equal(emissions(chain, packed), packed[:, 5:])
    plain = Task(name="p", head="token_classification", labels=["x"])
    assert torch.equal(emissions(plain, packed), packed)
