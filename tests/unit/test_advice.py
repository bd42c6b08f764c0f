"""From affinities to advice, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_nlp.analysis.advice import APART, TOGETHER, UNCLEAR, advise, best_partition, partitions, until

TASKS = ["a", "b", "c"]
# a and b help each other (+3 in all), c harms a (−2) and does nothing clear with b.
AFFINITY = np.array([[9.0, 2.0, -1.0], [1.0, 9.0, 0.1], [-1.0, -0.1, 9.0]])
ERROR = np.full((3, 3), 0.2)
LAYERS = {
    "embeddings": np.array([[0, 1.0, 0.5], [1.0, 0, 0], [0.5, 0, 0]]),
    "layer 0": np.array([[0, 1.0, 0.5], [0.5, 0, 0], [0.5, 0, 0]]),
    "layer 1": np.array([[0, 0.0, -2.0], [-0.5, 0, 0], [-2.0, 0, 0]]),
}


def test_who_is_trained_with_whom() -> None:
    advice = advise(TASKS, AFFINITY, ERROR, LAYERS)
    assert advice.groups == [["a", "b"], ["c"]]
    verdicts = {pair.tasks: pair.verdict for pair in advice.pairs}
    assert verdicts == {("a", "b"): TOGETHER, ("a", "c"): APART, ("b", "c"): UNCLEAR}
    assert advice.pairs[0].affinity == pytest.approx(1.5)
    assert advice.pairs[0].error == pytest.approx(np.hypot(0.2, 0.2) / 2)


def test_where_to_split() -> None:
    advice = advise(TASKS, AFFINITY, ERROR, LAYERS)
    assert {pair.tasks: pair.share_until for pair in advice.pairs} == {
        ("a", "b"): "layer 0",  # 2, 3.5, 3
        ("a", "c"): "layer 0",  # 1, 2, −2
        ("b", "c"): None,  # 0, 0, 0
    }
    assert advice.share_until == "layer 0"  # 3, 5.5, 1
    assert until({"embeddings": -1.0, "layer 0": 3.0}) == "layer 0"
    assert until({"embeddings": -1.0, "layer 0": 0.5}) is None


def test_the_partition_with_the_most_help() -> None:
    assert [len(list(partitions(size))) for size in range(6)] == [1, 1, 2, 5, 15, 52]
    nothing = np.zeros((3, 3))
    assert sorted(best_partition(nothing)) == [[0], [1], [2]]
    assert sorted(best_partition(np.ones((4, 4)))) == [[0, 1, 2, 3]]


def test_beyond_nine_tasks_the_greedy_way_finds_clear_groups() -> None:
    affinity = np.full((12, 12), -1.0)
    for start in (0, 4, 8):
        affinity[start : start + 4, start : start + 4] = 1.0
    assert best_partition(affinity) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
