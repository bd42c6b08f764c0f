"""Token-budget batches: a stream written out, and what holds for every block."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_nlp.data.budget import BudgetMixture, cut_at, equal_runs
from mtl_nlp.data.mixture import Draw, Mixture, MixtureState, Regime
from mtl_nlp.data.sampling import UNIT
from mtl_nlp.errors import FaultyInput

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def made(tokens: dict[str, Any], **more: Any) -> BudgetMixture:
    found = {corpus: np.asarray(lengths) for corpus, lengths in tokens.items()}
    options = {"lengths": found, "bucket": True, **more}
    return BudgetMixture({corpus: len(lengths) for corpus, lengths in found.items()}, tokens=found, **options)


def tokens_of(mixture: BudgetMixture, batch: list[Draw]) -> list[int]:
    return [int(mixture.tokens[draw.corpus][draw.index]) for draw in batch]


@st.composite
def mixtures(draw: st.DrawFn, /, **fixed: Any) -> BudgetMixture:
    names = ["a", "b", "c", "d"][: draw(st.integers(1, 4))]
    tokens = {name: draw(st.lists(st.integers(1, 20), min_size=1, max_size=25)) for name in names}
    options = {
        "strategy": draw(st.sampled_from(["proportional", "uniform", "temperature", "round_robin"])),
        "max_tokens": draw(st.integers(20, 90)),
        "batch": draw(st.one_of(st.none(), st.integers(1, 9))),
        "block_batches": draw(st.integers(1, 7)),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "bucket": draw(st.booleans()),
    }
    return made(tokens, **{**options, **fixed})


# By hand.


def test_cuts_by_hand() -> None:
    assert cut_at(np.array([3, 3, 4, 5, 6]), 10, 99) == [3, 4, 5]
    assert cut_at(np.array([1, 1, 1, 1, 1]), 10, 2) == [2, 4, 5]
    assert cut_at(np.array([10, 10]), 10, 99) == [1, 2]
    assert equal_runs(np.array([1, 1, 2, 4, 4]), 3) == [0, 3, 4, 5]
    assert equal_runs(np.array([9, 1, 1]), 3) == [0, 1, 2, 3]
    assert equal_runs(np.array([2, 2, 2, 2]), 2) == [0, 2, 4]


def test_a_stream_written_out() -> None:
    """Two corpora at rates 1/2: 'a' has texts of 2 tokens, 'b' of 6. A block of two batches of 12 tokens holds three of each:
    2 + 2 + 2 + 6 = 12, then 6 + 6 = 12. With four of each it would need 32 of 24."""
    mixture = made({"a": [2] * 4, "b": [6] * 4}, strategy="uniform", max_tokens=12, block_batches=2, seed=3)
    blocks = [mixture.plan(mixture.state_at(step)) for step in (0, 2, 4)]
    for block in blocks:
        assert block.quotas == {"a": 3, "b": 3}
        assert sorted(sorted(Counter(draw.corpus for draw in batch).items()) for batch in block.batches) == [
            [("a", 3), ("b", 1)],
            [("b", 2)],
        ]
    drawn = list(chain(*(batch for block in blocks for batch in block.batches)))
    # Nine draws of four texts: two passes and one text.
    assert Counter(Counter((d.corpus, d.index) for d in drawn).values()) == Counter({2: 6, 3: 2})
    # 8 texts are an epoch: six in the first block, and two more in the next one's first batch.
    assert mixture.steps(1) == 3
    # 16 are two: twelve in two blocks, and the third begins with its batch of four.
    assert [len(batch) for batch in blocks[2].batches] == [4, 2]
    assert mixture.steps(2) == 5


def test_texts_as_a_second_limit() -> None:
    mixture = made({"a": [1] * 100}, max_tokens=64, batch=5, block_batches=4)
    assert {len(batch) for batch in islice(mixture.batches(), 20)} == {5}
    assert mixture.steps(1) == 20


def test_a_text_longer_than_a_batch_is_refused() -> None:
    with pytest.raises(
        FaultyInput, match=r"mixture.max_tokens: 10, but training text 2 of a has 11 tokens → 11 or more"
    ):
        made({"a": [3, 11]}, max_tokens=10)


def test_homogeneous_batches_are_refused() -> None:
    with pytest.raises(FaultyInput, match="would lose their share"):
        made({"a": [3]}, max_tokens=10, batching="homogeneous")


def test_too_many_parts_are_refused() -> None:
    mixture = made({"a": [4] * 30}, max_tokens=40)
    mixture.check_parts(1, 1)
    mixture.check_parts(1, 3)
    with pytest.raises(FaultyInput, match=r"too few for 2 processes × training.gradient_accumulation_steps 2.* → 44"):
        mixture.check_parts(2, 2)


# For every stream.


@quick
@given(mixtures())
def test_limits_and_shares_hold_in_every_block(mixture: BudgetMixture) -> None:
    state, drawn, texts = mixture.initial_state(), Counter[str](), 0
    for number in range(4):
        block = mixture.plan(state)
        assert len(block.batches) == mixture.block_batches == mixture.batches_in(number)
        for batch in block.batches:
            assert 1 <= len(batch) <= mixture.batch
            assert sum(tokens_of(mixture, batch)) <= mixture.max_tokens
        counts = Counter(draw.corpus for draw in chain(*block.batches))
        assert {corpus: counts[corpus] for corpus in mixture.sizes} == dict(block.quotas)
        drawn += counts
        texts += sum(counts.values())
        for corpus, rate in mixture.regimes.rates(number).items():
            # As for plain batches: less than one text from its share after every block.
            assert abs(drawn[corpus] - Fraction(rate, UNIT) * texts) < 1
        state = block.next


@quick
@given(mixtures(), st.integers(0, 30), st.sampled_from([(1, 2), (2, 1), (2, 3), (4, 1)]))
def test_resumed_and_cut_for_processes_it_is_the_same_stream(
    mixture: BudgetMixture, start: int, parts: tuple[int, int]
) -> None:
    whole = list(islice(mixture.batches(), start + 3))
    assert list(islice(mixture.batches(start), 3)) == whole[start:]
    saved = MixtureState.from_dict(mixture.state_at(start).to_dict())
    assert list(islice(mixture.batches_from(saved), 3)) == whole[start:]
    processes, accumulation = parts
    for batch in whole:
        if len(batch) >= processes * accumulation:
            cut = [mixture.parts(batch, process, processes, accumulation) for process in range(processes)]
            assert all(run for one in cut for run in one)
            assert [draw for k in range(accumulation) for one in cut for draw in one[k]] == batch


@quick
@given(mixtures(strategy="proportional", batch=None, max_tokens=7 * 20), st.integers(2, 2))
def test_batches_hold_enough_texts_for_two_parts(mixture: BudgetMixture, parts: int) -> None:
    mixture.check_parts(parts, 1)
    assert all(len(batch) >= parts for batch in islice(mixture.batches(), 20))


@quick
@given(mixtures(), st.sampled_from([0.5, 1, 1.7, 3]))
def test_steps_are_counted_not_guessed(mixture: BudgetMixture, epochs: float) -> None:
    steps = mixture.steps(epochs)
    wanted = Fraction(str(float(epochs))) * mixture.total
    drawn = [len(batch) for batch in islice(mixture.batches(), steps)]
    assert sum(drawn[:-1]) < wanted
    assert sum(drawn) >= wanted or (epochs > 1 and steps == -(-Fraction(str(float(epochs))) * mixture.steps(1) // 1))
    described = mixture.describe(steps=steps)
    assert sum(row.draws for row in described) == sum(drawn)


@quick
@given(mixtures(max_passes=2))
def test_max_passes_ends_it(mixture: BudgetMixture) -> None:
    drawn = Counter((draw.corpus, draw.index) for batch in mixture.batches() for draw in batch)
    assert max(drawn.values()) == 2
    batches = list(mixture.batches())
    assert mixture.at_most(10**6) == len(batches)
    # What is left over is less than half a batch.
    lost = sum(2 * int(found.sum()) for found in mixture.tokens.values()) - sum(
        sum(tokens_of(mixture, batch)) for batch in batches
    )
    assert 2 * lost < mixture.max_tokens or len(batches) == 1


def test_blocks_are_full_and_padding_nearly_vanishes() -> None:
    rng = np.random.default_rng(0)
    tokens = {"a": np.clip(rng.lognormal(3, 0.6, 5000), 3, 128).astype(int), "b": rng.integers(5, 40, 700)}
    mixture = made(tokens, strategy="temperature", max_tokens=1024)
    batches = [tokens_of(mixture, batch) for batch in islice(mixture.batches(), 96)]
    real = sum(map(sum, batches))
    assert real / (96 * 1024) > 0.96
    assert real / sum(len(batch) * max(batch) for batch in batches) > 0.94


def test_retired_tasks_and_new_rates_rule_from_their_block_on() -> None:
    tokens = {"a": [3] * 40, "b": [5] * 40}
    mixture = made(tokens, strategy="uniform", max_tokens=30, block_batches=4)
    planned = mixture.steps(2)
    before = mixture.plan(mixture.state_at(4))
    mixture.set_regime(Regime(1, retired=frozenset({"b"})))
    assert mixture.plan(mixture.state_at(0)).quotas["b"] > 0
    block = mixture.plan(mixture.state_at(4))
    assert block.quotas == {"a": 40, "b": 0} != before.quotas  # 4 batches of 30 tokens
    assert mixture.steps(2) == planned  # fixed before the first step


def test_bucketing_off_cuts_a_random_order() -> None:
    rng = np.random.default_rng(1)
    mixture = made({"a": rng.integers(1, 60, 500)}, max_tokens=200, bucket=False, lengths=None)
    spread = [max(found) - min(found) for found in (tokens_of(mixture, b) for b in islice(mixture.batches(), 32))]
    assert np.mean(spread) > 30


def test_the_texts_do_not_depend_on_the_number_of_the_other_corpora() -> None:
    alone = made({"a": [4] * 10}, max_tokens=16, block_batches=2)
    plain = Mixture({"a": 10}, batch=4, block_batches=2)
    assert [d.index for b in islice(alone.batches(), 2) for d in b] != []
    assert {d.index for b in islice(alone.batches(), 2) for d in b} == {
        d.index for b in islice(plain.batches(), 2) for d in b
    }
