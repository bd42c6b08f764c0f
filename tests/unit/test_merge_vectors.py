"""The merge methods, worked by hand."""

from __future__ import annotations

import pytest
import torch

from mtl_nlp.fusion.vectors import (
    average,
    dropped,
    elected_mean,
    merge_states,
    relative_distance,
    trim_threshold,
    trimmed,
)

START = {"w": torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])}
FIRST = {"w": torch.tensor([[1.5, 0.0, 1.1], [1.0, 3.0, 1.2]])}  # τ = 0.5, −1, 0.1, 0, 2, 0.2
SECOND = {"w": torch.tensor([[0.0, 0.5, 1.1], [2.0, 1.5, 0.0]])}  # τ = −1, −0.5, 0.1, 1, 0.5, −1


def close(found: torch.Tensor, expected: list[list[float]]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


def test_the_average_by_hand() -> None:
    close(merge_states("average", None, [FIRST, SECOND], [1.0, 1.0])["w"], [[0.75, 0.25, 1.1], [1.5, 2.25, 0.6]])
    close(merge_states("average", None, [FIRST, SECOND], [3.0, 1.0])["w"], [[1.125, 0.125, 1.1], [1.25, 2.625, 0.9]])


@pytest.mark.parametrize("copies", [2, 3, 7])
def test_the_average_of_equal_models_is_the_model(copies: int) -> None:
    torch.manual_seed(0)
    state = {"w": torch.randn(50, 40) * 10 ** torch.randn(50, 1)}
    assert torch.equal(merge_states("average", None, [state] * copies, [1.0 / copies] * copies)["w"], state["w"])


def test_task_arithmetic_by_hand() -> None:
    found = merge_states("task_arithmetic", START, [FIRST, SECOND], [0.5, 1.0])["w"]
    # 1 + 0.5 τ₁ + τ₂
    close(found, [[0.25, 0.0, 1.15], [2.0, 2.5, 0.1]])


def test_one_parent_with_coefficient_1_is_the_parent_and_with_0_the_ancestor() -> None:
    torch.manual_seed(1)
    start, parent = {"w": torch.randn(99)}, {"w": torch.randn(99) * 1e-3}
    parent["w"] += start["w"]
    assert torch.equal(merge_states("task_arithmetic", start, [parent], [1.0])["w"], parent["w"])
    assert torch.equal(merge_states("task_arithmetic", start, [parent], [0.0])["w"], start["w"])
    assert torch.equal(merge_states("ties", start, [parent], [1.0], density=1.0)["w"], parent["w"])
    assert torch.equal(merge_states("dare", start, [parent], [1.0], density=1.0)["w"], parent["w"])


def test_ties_by_hand() -> None:
    # Half of six entries is kept: of τ₁ 2, −1, 0.5; of τ₂ −1, 1, −1.
    least = trim_threshold(START, FIRST, 0.5), trim_threshold(START, SECOND, 0.5)
    assert least == pytest.approx((0.5, 1.0))
    one, two = ((state["w"] - START["w"]).double() for state in (FIRST, SECOND))
    close(trimmed(one, least[0]).float(), [[0.5, -1.0, 0.0], [0.0, 2.0, 0.0]])
    close(trimmed(two, least[1]).float(), [[-1.0, 0.0, 0.0], [1.0, 0.0, -1.0]])
    # Signs by the sums −0.5, −1, 0, 1, 2, −1; each entry is the mean of those that agree.
    change = [[-1.0, -1.0, 0.0], [1.0, 2.0, -1.0]]
    close(elected_mean([trimmed(one, least[0]), trimmed(two, least[1])]).float(), change)
    found = merge_states("ties", START, [FIRST, SECOND], [1.0, 1.0], density=0.5)["w"]
    close(found, [[0.0, 0.0, 1.0], [2.0, 3.0, 0.0]])
    half = merge_states("ties", START, [FIRST, SECOND], [0.5, 0.5], density=0.5)["w"]
    close(half, [[0.5, 0.5, 1.0], [1.5, 2.0, 0.5]])


def test_of_values_that_agree_the_mean_is_taken_and_a_tie_goes_to_plus() -> None:
    found = elected_mean(
        [torch.tensor([1.0, 2.0, 0.0]), torch.tensor([3.0, -2.0, 0.0]), torch.tensor([-1.0, 0.0, 0.0])]
    )
    assert found.tolist() == [2.0, 2.0, 0.0]


def test_trimming_counts_over_the_whole_model() -> None:
    start = {"a": torch.zeros(2), "b": torch.zeros(2)}
    parents = [{"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([30.0, -40.0])}]
    found = merge_states("ties", start, parents, [1.0], density=0.5)
    assert found["a"].tolist() == [0.0, 0.0]
    assert found["b"].tolist() == [30.0, -40.0]


def test_dare_keeps_the_expectation_and_follows_its_seed() -> None:
    vector = torch.full((200_000,), 0.5, dtype=torch.float64)
    found = dropped(vector, 0.25, torch.Generator().manual_seed(3))
    assert set(found.tolist()) == {0.0, 2.0}  # 0.5 / 0.25
    # The mean of N Bernoulli(p)/p · v has deviation v · √((1 − p) / (p N)).
    assert float(found.mean()) == pytest.approx(0.5, abs=5 * 0.5 * (3 / 200_000) ** 0.5)
    start, parent = {"w": torch.zeros(1000)}, {"w": torch.ones(1000)}
    one = merge_states("dare", start, [parent, parent], [1.0, 0.0], density=0.3, seed=5)["w"]
    again = merge_states("dare", start, [parent, parent], [1.0, 0.0], density=0.3, seed=5)["w"]
    other = merge_states("dare", start, [parent, parent], [1.0, 0.0], density=0.3, seed=6)["w"]
    second = merge_states("dare", start, [parent, parent], [0.0, 1.0], density=0.3, seed=5)["w"]
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not torch.equal(one, second)  # each parent drops entries of its own


def test_a_vocabulary_that_was_enlarged() -> None:
    start = {"e": torch.tensor([[1.0], [2.0]])}
    parents = [{"e": torch.tensor([[2.0], [2.0], [6.0]])}, {"e": torch.tensor([[1.0], [4.0], [8.0]])}]
    found = merge_states("task_arithmetic", start, parents, [1.0, 1.0])["e"]
    # Old rows: ancestor + both changes. The new row has no ancestor: the mean 7, and both differences from it.
    assert found.tolist() == [[2.0], [4.0], [7.0]]
    assert merge_states("task_arithmetic", start, [parents[0]], [1.0])["e"].tolist() == [[2.0], [2.0], [6.0]]
    smaller = merge_states("task_arithmetic", {"e": torch.ones(5, 1)}, parents, [1.0, 0.0])["e"]
    assert smaller.tolist() == [[2.0], [2.0], [6.0]]
    assert trim_threshold(start, parents[0], 0.5) == 1.0  # of two old rows one is kept; the new row is not counted


def test_dtypes_are_kept() -> None:
    half = {"w": torch.ones(3, dtype=torch.float16)}
    assert merge_states("average", None, [half, half], [1.0, 2.0])["w"].dtype == torch.float16
    assert average([torch.tensor([1.0]), torch.tensor([2.0])], [1, 3]).item() == 1.75


def test_kinship_shows_in_the_distance() -> None:
    torch.manual_seed(2)
    a, b = {"w": torch.randn(300, 300)}, {"w": torch.randn(300, 300)}
    near = {"w": a["w"] + 0.05 * torch.randn(300, 300)}
    assert relative_distance(near, a) == pytest.approx(0.05, abs=0.002)
    assert relative_distance(b, a) == pytest.approx(2**0.5, abs=0.02)
