"""The loader from epoch to epoch: the same batches as ever, planned once, and fetched before they are asked for."""

from __future__ import annotations

import pickle
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from mtl_nlp.data.batching import MicroBatches, MixtureLoader
from mtl_nlp.data.mixture import Block, Draw, Draws, Mixture, MixtureState

SIZES = {"a": 11, "b": 6}


class Counting(Mixture):
    """Notes the blocks that it plans."""

    planned_blocks: list[int]

    def plan(self, state: MixtureState) -> Block:
        self.__dict__.setdefault("planned_blocks", []).append(state.block)
        return super().plan(state)


def micro_batches(mixture: Mixture | None = None, accumulation: int = 1) -> MicroBatches:
    mixture = mixture or Mixture(SIZES, batch=2, block_batches=4)
    return MicroBatches(mixture, mixture.steps(1), process=0, processes=1, accumulation=accumulation)


def epoch_of(source: Any, epoch: int) -> list[Any]:
    """As the Trainer takes them: not more than there are, so that the iterator never ends by itself."""
    source.set_epoch(epoch)
    return [batch for _, batch in zip(range(len(source)), iter(source), strict=False)]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_an_epoch_goes_on_where_the_last_one_ended_and_gives_what_it_gives_alone(accumulation: int) -> None:
    mixture = Counting(SIZES, batch=2, block_batches=4)
    batches = micro_batches(mixture, accumulation)
    assert batches.steps == 9  # ⌈17 / 2⌉ : blocks of 4 batches lie across the ends of epochs
    found = [epoch_of(batches, epoch) for epoch in range(4)]
    assert mixture.planned_blocks == list(range(9)), "36 batches, each block once"
    assert found == [epoch_of(micro_batches(accumulation=accumulation), epoch) for epoch in range(4)]


def test_epochs_out_of_turn_or_left_early_are_those_of_their_number() -> None:
    batches, expected = micro_batches(), [epoch_of(micro_batches(), epoch) for epoch in range(4)]
    assert epoch_of(batches, 2) == expected[2]
    batches.set_epoch(3)
    left = iter(batches)
    assert next(left) == expected[3][0]
    assert epoch_of(batches, 3) == expected[3]
    assert epoch_of(batches, 0) == expected[0]
    assert list(left) == expected[3][1:], "one that is gone through beside it keeps its own place"


def test_draws_are_a_sequence_of_draws_whole_cut_and_pickled() -> None:
    draws = Draws(["a", "b"], np.array([1, 0, 1]), np.array([4, 7, 0]), np.array([0, 0, 2]))
    expected = [Draw("b", 4, 0), Draw("a", 7, 0), Draw("b", 0, 2)]
    assert draws == expected
    assert list(draws) == [draws[place] for place in range(3)] == expected
    assert draws[1:] == expected[1:]
    assert draws[-1] == expected[-1]
    assert pickle.loads(pickle.dumps(draws[:2])) == expected[:2]  # noqa: S301 - what goes to a loader process
    assert draws != expected[:2]
    assert draws.texts() == {"a": 1, "b": 2}
    assert draws[:0].texts() == {"a": 0, "b": 0}


class Echo(Dataset[Any]):
    """Gives the draws themselves and counts the batches that were asked for, in any process."""

    def __init__(self) -> None:
        self.asked = torch.zeros((), dtype=torch.long).share_memory_()

    def __getitems__(self, draws: Sequence[Draw]) -> list[Draw]:
        self.asked += 1
        return list(draws)


def loader(workers: int, *, onward: bool) -> MixtureLoader:
    settings: dict[str, Any] = {"prefetch_factor": 2, "persistent_workers": True} if workers else {}
    return MixtureLoader(
        Echo(), batch_sampler=micro_batches(), onward=onward, num_workers=workers, collate_fn=list, **settings
    )


def test_worker_processes_fetch_the_next_epochs_batches_before_this_one_is_over() -> None:
    expected = [epoch_of(loader(0, onward=True), epoch) for epoch in range(4)]
    ahead = loader(1, onward=True)
    try:
        assert epoch_of(ahead, 0) == expected[0]
        deadline = time.monotonic() + 60
        while int(ahead.dataset.asked) < len(ahead) + 2:  # type: ignore[attr-defined]
            assert time.monotonic() < deadline, "the first two batches of the next epoch are not fetched"
            time.sleep(0.01)
        assert [epoch_of(ahead, epoch) for epoch in (1, 3, 2)] == [expected[1], expected[3], expected[2]]
    finally:
        ahead.close()


def test_a_stream_that_may_change_is_not_fetched_beyond_the_epoch() -> None:
    one = loader(1, onward=False)
    try:
        assert epoch_of(one, 0) == epoch_of(loader(0, onward=False), 0)
        time.sleep(0.5)
        assert int(one.dataset.asked) == len(one)  # type: ignore[attr-defined]
    finally:
        one.close()
