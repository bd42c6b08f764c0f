"""Every sampling strategy: its rates by hand, what it reads, and what it refuses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_nlp import SamplingStrategy, register_strategy
from mtl_nlp.data.mixture import Draw, Mixture, Regime
from mtl_nlp.data.sampling import UNIT, block_quotas, limited_quotas, on_grid
from mtl_nlp.data.strategies import STRATEGIES, SamplingSettings, SamplingState, SchedulePoint, find_strategy
from mtl_nlp.errors import UserError

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)
SIZES = {"a": 900, "b": 100, "c": 25}
TASKS = {"a": ["x"], "b": ["y", "z"], "c": ["w"]}
START = {"x": 2.0, "y": 1.0, "z": 3.0}

# One row a case: strategy, settings, state, the weights that are to be expected once they are made to sum to 1.
TABLE: list[tuple[str, dict[str, Any], SamplingState, dict[str, float]]] = [
    ("proportional", {}, SamplingState(), {"a": 900, "b": 100, "c": 25}),
    ("uniform", {}, SamplingState(), {"a": 1, "b": 1, "c": 1}),
    ("round_robin", {}, SamplingState(), {"a": 1, "b": 1, "c": 1}),
    ("temperature", {}, SamplingState(), {"a": 30, "b": 10, "c": 5}),
    # The cap cuts 900 to 400: √400 = 20.
    ("temperature", {"cap": 400}, SamplingState(), {"a": 20, "b": 10, "c": 5}),
    ("capped", {"cap": 75}, SamplingState(), {"a": 75, "b": 75, "c": 25}),
    ("capped", {"cap": 1000}, SamplingState(), {"a": 900, "b": 100, "c": 25}),
    ("capped", {"cap": 1}, SamplingState(), {"a": 1, "b": 1, "c": 1}),
    ("fixed", {"rates": {"a": 2, "b": 5, "c": 1}}, SamplingState(), {"a": 2, "b": 5, "c": 1}),
    # By default the exponent goes from 1 to 0.2 (Stickland and Murray 2019): 1 − 0.8 · 0.625 = 0.5 is temperature 2.
    ("annealed", {}, SamplingState(0.0), {"a": 900, "b": 100, "c": 25}),
    ("annealed", {}, SamplingState(0.625), {"a": 30, "b": 10, "c": 5}),
    ("annealed", {}, SamplingState(1.0), {"a": 900**0.2, "b": 100**0.2, "c": 25**0.2}),
    # Between two rates: 0.75 · (6, 2, 2)/10 + 0.25 · (1, 1, 2)/4; before the first and after the last point they stay.
    (
        "annealed",
        {"schedule": [SchedulePoint(0.2, rates={"a": 6, "b": 2, "c": 2}), SchedulePoint(0.6, rates={"a": 1, "b": 1, "c": 2})]},
        SamplingState(0.3),
        {"a": 0.5125, "b": 0.2125, "c": 0.275},
    ),
    (
        "annealed",
        {"schedule": [SchedulePoint(0.2, rates={"a": 6, "b": 2, "c": 2}), SchedulePoint(0.6, rates={"a": 1, "b": 1, "c": 2})]},
        SamplingState(0.1),
        {"a": 6, "b": 2, "c": 2},
    ),
    (
        "annealed",
        {"schedule": [SchedulePoint(0.0, temperature=1.0), SchedulePoint(0.5, temperature=2.0)]},
        SamplingState(0.9),
        {"a": 30, "b": 10, "c": 5},
    ),
    # Before anything is known an adaptive strategy has its base rates: temperature 2.
    ("adaptive_loss", {}, SamplingState(tasks=TASKS), {"a": 30, "b": 10, "c": 5}),
    ("adaptive_metric", {}, SamplingState(tasks=TASKS), {"a": 30, "b": 10, "c": 5}),
    # Base 30, 10, 5 of 45. Ratios: x 1/2, y 1/1 and z 3/3, so a ½ and b 1; c has no loss and keeps 5/45. Of the other 40/45:
    # signals 30 · ½ = 15 and 10 · 1 = 10, that is 24/45 and 16/45. Half of the way: a (30 + 24) / 90, b (10 + 16) / 90.
    (
        "adaptive_loss",
        {},
        SamplingState(tasks=TASKS, start_loss=START, loss={"x": 1.0, "y": 1.0, "z": 3.0}),
        {"a": 54, "b": 26, "c": 10},
    ),
    # b is the mean of its tasks: (0.5 + 1) / 2; with adapt 0 nothing moves.
    (
        "adaptive_loss",
        {"adapt": 0.0},
        SamplingState(tasks=TASKS, start_loss=START, loss={"x": 1.0, "y": 0.5, "z": 3.0}),
        {"a": 30, "b": 10, "c": 5},
    ),
    # y is retired, so b is z alone: ratio 1/3. 30 · ½ = 15 and 10 / 3: of 40/45 a has 15 / (55/3) = 9/11, b 2/11.
    (
        "adaptive_loss",
        {"adapt": 1.0},
        SamplingState(tasks={**TASKS, "b": ["z"]}, start_loss=START, loss={"x": 1.0, "y": 9.0, "z": 1.0}),
        {"a": 40 * 9 / 11, "b": 40 * 2 / 11, "c": 5},
    ),
    # Gaps to the own best: x 0.1, y 0, z 0.2 (b: 0.1), w 0.2. All of the way: 1 : 1 : 2.
    (
        "adaptive_metric",
        {"adapt": 1.0},
        SamplingState(
            tasks=TASKS,
            score={"x": 0.8, "y": 0.5, "z": 0.6, "w": 0.3},
            best={"x": 0.9, "y": 0.5, "z": 0.8, "w": 0.5},
        ),
        {"a": 1, "b": 1, "c": 2},
    ),
    # To the references: x 0.1, y 0.3 and z above its goal (b: 0.15), w 0. Half of the way from 30, 10, 5 of 45.
    (
        "adaptive_metric",
        {"reference": {"x": 0.9, "y": 0.8, "z": 0.5, "w": 0.3}},
        SamplingState(
            tasks=TASKS,
            score={"x": 0.8, "y": 0.5, "z": 0.6, "w": 0.3},
            best={"x": 0.9, "y": 0.5, "z": 0.8, "w": 0.5},
        ),
        {"a": 30 / 90 + 0.2, "b": 10 / 90 + 0.3, "c": 5 / 90},
    ),
    # Everybody at its best: the base rates.
    (
        "adaptive_metric",
        {"adapt": 1.0},
        SamplingState(tasks=TASKS, score={"x": 0.8, "w": 0.3}, best={"x": 0.8, "w": 0.3}),
        {"a": 30, "b": 10, "c": 5},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "options", "state", "expected"), TABLE)
def test_the_rates_of_every_strategy_by_hand(
    strategy: str, options: dict[str, Any], state: SamplingState, expected: dict[str, float]
) -> None:
    weights = find_strategy(strategy)(SamplingSettings(**options)).weights(SIZES, state)
    total = sum(weights.values())
    wanted = {corpus: value / sum(expected.values()) for corpus, value in expected.items()}
    # An adaptive strategy leaves a millionth of the base.
    assert {corpus: weight / total for corpus, weight in weights.items()} == pytest.approx(wanted, abs=2e-6)


def test_the_table_has_every_strategy() -> None:
    assert {row[0] for row in TABLE} == set(STRATEGIES.names())


@pytest.mark.parametrize("name", STRATEGIES.names())
def test_a_strategy_is_pure_and_gives_weights(name: str) -> None:
    options = {"rates": {"a": 1, "b": 2, "c": 3}} if name == "fixed" else {"cap": 50} if name == "capped" else {}
    state = SamplingState(0.4, TASKS, START, {"x": 0.3, "y": 2.0}, {"x": 0.2, "y": 0.1}, {"x": 0.4, "y": 0.3})
    first = find_strategy(name)(SamplingSettings(**options)).weights(SIZES, state)
    again = find_strategy(name)(SamplingSettings(**options)).weights(dict(SIZES), state)
    assert first == again
    assert list(first) == list(SIZES)
    assert min(first.values()) >= 0


def test_a_registered_strategy_is_found_by_its_name() -> None:
    @register_strategy("test_inverse")
    class Inverse(SamplingStrategy):
        def weights(self, sizes: Any, state: SamplingState) -> dict[str, float]:
            return {corpus: 1 / size for corpus, size in sizes.items()}

    try:
        assert Mixture({"a": 2, "b": 6}, strategy="test_inverse").rates == pytest.approx({"a": 0.75, "b": 0.25})
        with pytest.raises(UserError, match="cap: given with strategy"):
            Mixture({"a": 2, "b": 6}, strategy="test_inverse", cap=3)
    finally:
        del STRATEGIES._entries["test_inverse"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 2], "mixture.strategy: the weights of Given are a list → a mapping, corpus → weight"),
        ({"a": 1}, 'mixture.strategy: the weights of Given: no rate for corpus "b" → a weight for every corpus'),
        ({"a": 1, "b": "2"}, "mixture.strategy.b: the weights of Given: nan → a finite number ≥ 0"),
        ({"a": 1, "b": None}, "mixture.strategy.b: the weights of Given: None → a number"),
        ({"a": 0, "b": 0.0}, "mixture.strategy: the weights of Given: every weight is 0 → at least one weight > 0"),
    ],
)
def test_what_a_registered_strategy_gives_is_checked_under_its_name(given: Any, message: str) -> None:
    with registered(given), pytest.raises(UserError, match=f"^{re.escape(message)}"):
        Mixture({"a": 2, "b": 6}, strategy="test_given")


def test_a_registered_strategy_may_give_numpys_numbers() -> None:
    with registered({"a": np.float32(1), "b": np.int64(3)}):
        assert Mixture({"a": 2, "b": 6}, strategy="test_given").rates == {"a": 0.25, "b": 0.75}


def test_a_registered_strategy_reads_what_there_is() -> None:
    message = 'mixture.strategy: "test_given" reads loss → progress, losses, scores'
    with registered({"a": 1}, reads=frozenset({"loss"})), pytest.raises(UserError, match=re.escape(message)):
        Mixture({"a": 2}, strategy="test_given")


@contextmanager
def registered(given: Any, **attributes: Any) -> Iterator[None]:
    """A strategy called `test_given` whose weights are as given."""
    register_strategy("test_given")(
        type("Given", (SamplingStrategy,), {"weights": lambda self, sizes, state: given, **attributes})
    )
    try:
        yield
    finally:
        del STRATEGIES._entries["test_given"]


# Over the blocks of a run.


def test_annealed_rates_move_from_the_first_block_to_the_last() -> None:
    mixture = Mixture(
        {"a": 64, "b": 16}, strategy="annealed", batch=10, block_batches=1, steps=3,
        schedule=[SchedulePoint(0.0, rates={"a": 9, "b": 1}), SchedulePoint(1.0, rates={"a": 1, "b": 9})],
    )  # fmt: skip
    assert [mixture.plan(mixture.state_at(step)).quotas for step in range(4)] == [
        {"a": 9, "b": 1},
        {"a": 5, "b": 5},
        {"a": 1, "b": 9},
        {"a": 1, "b": 9},  # beyond the plan the last rates stay
    ]
    rows = mixture.describe(steps=3)
    assert [(row.corpus, row.rate, row.last_rate, row.draws) for row in rows] == [
        ("a", pytest.approx(0.9), pytest.approx(0.1), 15),
        ("b", pytest.approx(0.1), pytest.approx(0.9), 15),
    ]


def test_the_literal_stream_of_a_mixture_whose_rates_change() -> None:
    mixture = Mixture({"a": 4, "b": 3}, strategy="uniform", batch=2, block_batches=2, seed=13)
    mixture.set_regime(Regime(1, {"a": 3.0, "b": 1.0}))
    # Two of each in block 0; at 3 : 1 three of a and one of b in the blocks after it.
    assert [mixture.plan(mixture.state_at(step)).quotas for step in (0, 2, 4)] == [
        {"a": 2, "b": 2},
        {"a": 3, "b": 1},
        {"a": 3, "b": 1},
    ]
    assert [" ".join(f"{d.corpus}{d.index}/{d.pass_}" for d in batch) for batch in first(mixture, 6)] == [
        "b2/0 a3/0",
        "b1/0 a1/0",
        "a1/1 a0/0",
        "a2/0 b0/0",
        "a3/1 a0/1",
        "b0/1 a2/1",
    ]


def test_resume_follows_the_regimes_that_were_saved() -> None:
    mixture = Mixture(SIZES, batch=8, block_batches=4)
    mixture.set_regime(Regime(2, {"a": 1.0, "b": 1.0, "c": 2.0}))
    mixture.set_regime(Regime(5, None, frozenset({"c"})))
    whole = first(mixture, 32)
    fresh = Mixture(SIZES, batch=8, block_batches=4)
    for regime in mixture.regimes.all:
        fresh.set_regime(Regime.from_dict(regime.to_dict()))
    for step in range(0, 28, 3):
        assert first(fresh, 4, step) == whole[step : step + 4]


def first(mixture: Mixture, count: int, start: int = 0) -> list[list[Draw]]:
    return list(islice(mixture.batches(start), count))


# Passes that are limited.


def test_no_text_is_seen_more_often_than_max_passes_and_the_others_take_its_place() -> None:
    # 6 · 4 = 24 rows a block, uniform: 12 each. b has 2 · 5 = 10 rows in all, so block 0 is 14 and 10, and a is alone after it.
    mixture = Mixture({"a": 30, "b": 5}, strategy="uniform", max_passes=2, batch=4, block_batches=6)
    blocks = [mixture.plan(mixture.state_at(6 * block)) for block in range(4)]
    assert [block.quotas for block in blocks] == [
        {"a": 14, "b": 10},
        {"a": 24, "b": 0},
        {"a": 20, "b": 0},  # of 60 in all 22 are left, five whole batches
        {"a": 0, "b": 0},
    ]
    assert [len(block.batches) for block in blocks] == [6, 6, 5, 0]
    assert mixture.steps(10) == 17
    drawn = Counter((draw.corpus, draw.index) for draw in chain(*mixture.batches()))
    assert max(drawn.values()) == 2
    assert mixture.describe(epochs=10)[1].passes == 2.0


@quick
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from(["mixed", "homogeneous"]),
    st.sampled_from(["proportional", "uniform", "round_robin", "temperature"]),
)
def test_max_passes_holds_for_every_strategy_and_all_batches_are_whole(
    sizes: list[int], passes: int, batch: int, block: int, batching: Any, strategy: str
) -> None:
    named = dict(zip("abcd", sizes, strict=False))
    mixture = Mixture(
        named, strategy=strategy, max_passes=passes, batch=batch, block_batches=block, batching=batching, seed=3
    )
    batches = list(mixture.batches())
    assert {len(one) for one in batches} <= {batch}
    assert len(batches) == mixture.at_most(10**9)
    drawn = Counter((draw.corpus, draw.index) for draw in chain(*batches))
    assert max(drawn.values(), default=0) <= passes


def switched(least: float) -> Mixture:
    """Corpus a until the middle of the run, then b, at `least` where they are not wanted."""
    points = [(0.5, {"a": 1.0, "b": least}), (0.51, {"a": least, "b": 1.0})]
    schedule = [SchedulePoint(at, rates=rates) for at, rates in points]
    return Mixture(
        {"a": 40, "b": 100}, strategy="annealed", schedule=schedule, max_passes=1, steps=35, batch=4, block_batches=4
    )


def test_a_corpus_whose_turn_comes_later_cannot_step_in_where_max_passes_ends_another() -> None:
    # 40 texts of a are 10 steps, and b has none to give before the fifth of nine blocks.
    message = "mixture.max_passes: it leaves nothing to draw from step 8 on (the rate of b is 0 there"
    with pytest.raises(UserError, match=re.escape(message)):
        switched(0.0).describe(steps=35)
    mixture = switched(1e-6)
    drawn = Counter(draw.corpus for draw in chain(*mixture.batches()))
    assert drawn == {"a": 40, "b": 100} == {row.corpus: row.draws for row in mixture.describe(steps=35)}
    assert first(mixture, 35)[20:] == list(mixture.batches(20))


def test_quotas_with_limits_that_do_not_bind_are_the_quotas_without() -> None:
    rates = on_grid({"a": 5, "b": 3, "c": 1})
    owed = {"a": UNIT // 3, "b": -UNIT // 3, "c": 0}
    owed["c"] = -owed["a"] - owed["b"]
    limits = dict.fromkeys(rates, 100)
    assert limited_quotas(owed, rates, 11, limits) == block_quotas(owed, rates, 11)


# Retired tasks.


def test_a_corpus_is_drawn_only_for_the_tasks_that_are_still_trained() -> None:
    # Texts 0–5 have x, 4–9 have y. Without x there are six of ten to draw.
    annotated = {"p": {"x": np.arange(10) < 6, "y": np.arange(10) >= 4}}
    mixture = Mixture(
        {"p": 10, "q": 10}, tasks={"p": ["x", "y"], "q": ["z"]}, annotated=annotated, batch=4, block_batches=4, seed=5
    )
    mixture.set_regime(Regime(1, None, frozenset({"x"})))
    assert mixture.regimes.kept(0) == 1.0
    assert mixture.regimes.kept(1) == pytest.approx(0.8)  # half of the draws, of which 0.6, and the other half
    assert mixture.plan(mixture.state_at(4)).quotas == {"p": 6, "q": 10}
    later = [draw for batch in first(mixture, 20, 4) for draw in batch if draw.corpus == "p"]
    assert {draw.index for draw in later} == {4, 5, 6, 7, 8, 9}
    # In each whole pass every text that is left once.
    passes = Counter(draw.pass_ for draw in later)
    whole = [number for number, count in passes.items() if count == 6]
    assert len(whole) >= 3
    for number in whole:
        assert sorted(draw.index for draw in later if draw.pass_ == number) == [4, 5, 6, 7, 8, 9]
    for step in range(16):
        fresh = mixture.with_rates(mixture.rates)
        fresh.set_regime(Regime(1, None, frozenset({"x"})))
        assert first(fresh, 3, step) == first(mixture, 3, step)


def test_when_both_tasks_of_a_corpus_are_retired_it_is_not_drawn() -> None:
    mixture = Mixture({"p": 30, "q": 10}, tasks={"p": ["x", "y"], "q": ["z"]}, batch=4, block_batches=4)
    mixture.set_regime(Regime(1, None, frozenset({"x", "y"})))
    assert mixture.plan(mixture.state_at(4)).quotas == {"p": 0, "q": 16}
    assert mixture.regimes.kept(1) == pytest.approx(0.25)


def test_a_block_whose_rates_are_not_decided_is_not_drawn() -> None:
    mixture = Mixture(SIZES, batch=4, block_batches=2)
    mixture.settled = 2
    with pytest.raises(AssertionError, match="block 2 is not settled"):
        first(mixture, 5)
    assert len(first(mixture, 4)) == 4


# Faults.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "capped"}, "mixture.cap: missing, and the strategy is capped → a whole number ≥ 1"),
        ({"strategy": "capped", "cap": 0}, "mixture.cap: 0 → a whole number ≥ 1"),
        ({"cap": 5}, 'mixture.cap: given with strategy "proportional" → only with strategy: adaptive_loss,'),
        ({"schedule": [SchedulePoint(0.0, 1.0)]}, 'mixture.schedule: given with strategy "proportional" → only with'),
        ({"reference": {"a": 0.5}}, "mixture.reference: given with strategy"),
        ({"temperature": 5}, 'temperature: given with strategy "proportional" → only with strategy: adaptive_loss, '),
        ({"strategy": "temperature", "adapt": 1}, 'mixture.adapt: given with strategy "temperature" → only with'),
        ({"strategy": "adaptive_loss", "adapt": 2}, "mixture.adapt: 2 → a number from 0 to 1"),
        ({"max_passes": 0}, "mixture.max_passes: 0 → a whole number ≥ 1"),
        ({"strategy": "annealed", "schedule": [SchedulePoint(0.0)]}, "schedule.0: neither temperature nor rates → one of"),
        ({"strategy": "annealed", "schedule": [SchedulePoint(0.0, 1.0, {"a": 1})]}, "schedule.0: temperature and rates"),
        ({"strategy": "annealed", "schedule": [SchedulePoint(0.0, 0.5)]}, "schedule.0.temperature: 0.5 → a finite"),
        ({"strategy": "annealed", "schedule": [SchedulePoint(2.0, 1.0)]}, "schedule.0.at: 2.0 → a number from 0"),
        (
            {"strategy": "annealed", "schedule": [SchedulePoint(0.5, 1.0), SchedulePoint(0.5, 2.0)]},
            "mixture.schedule.1.at: 0.5 after 0.5 → points in the order of `at`",
        ),
        (
            {"strategy": "annealed", "schedule": [SchedulePoint(0.0, 1.0), SchedulePoint(1.0, rates=SIZES)]},
            "mixture.schedule: temperatures beside rates → all points of one kind",
        ),
        (
            {"strategy": "annealed", "schedule": [SchedulePoint(0.0, rates={"a": 0, "b": 0, "c": 0})]},
            "mixture.schedule.0.rates: every weight is 0",
        ),
        ({"strategy": "annealed", "schedule": [SchedulePoint(0.0, rates={"a": 1})]}, 'rates: no rate for corpus "b"'),
    ],
)  # fmt: skip
def test_a_fault_names_key_found_and_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Mixture(SIZES, **options)
