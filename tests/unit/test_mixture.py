"""The mixture: rates by hand, streams written out, and what holds for every stream."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import chain, cycle, islice, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_nlp.data import strategies
from mtl_nlp.data.mixture import (
    CorpusDraws,
    Draw,
    Mixture,
    MixtureState,
    check_division,
    slice_for,
)
from mtl_nlp.data.sampling import UNIT, block_quotas, on_grid, turns
from mtl_nlp.errors import UserError
from mtl_nlp.registry import Registry

quick = settings(max_examples=40, deadline=None, derandomize=True, database=None)

SIZES = {"a": 5, "b": 3}
UNEVEN = {"sst": 40, "ner": 9, "tiny": 2}
LENGTHS = {corpus: np.random.default_rng(7).integers(1, 50, size) for corpus, size in {**UNEVEN, **SIZES}.items()}


def readable(batches: list[list[Draw]]) -> list[str]:
    """One line a batch, each text as corpus, index / pass."""
    return [" ".join(f"{draw.corpus}{draw.index}/{draw.pass_}" for draw in batch) for batch in batches]


def first(mixture: Mixture, count: int, start: int = 0) -> list[list[Draw]]:
    return list(islice(mixture.batches(start), count))


def blocks(mixture: Mixture, count: int) -> list[list[list[Draw]]]:
    state, planned = mixture.initial_state(), []
    for _ in range(count):
        block = mixture.plan(state)
        planned.append(block.batches)
        state = block.next
    return planned


@st.composite
def mixtures(draw: st.DrawFn, /, **fixed: Any) -> Mixture:
    """A small mixture of any kind."""
    names = ["a", "b", "c", "d", "e"][: draw(st.integers(1, 5))]
    sizes = {name: draw(st.integers(1, 30)) for name in names}
    strategy = draw(st.sampled_from(["proportional", "uniform", "temperature", "round_robin", "fixed"]))
    options: dict[str, Any] = {
        "strategy": strategy,
        "temperature": draw(st.floats(1, 20)) if strategy == "temperature" else 2.0,
        "rates": {name: draw(st.integers(1, 300)) for name in names} if strategy == "fixed" else None,
        "batching": draw(st.sampled_from(["mixed", "homogeneous"])),
        "batch": draw(st.integers(1, 9)),
        "block_batches": draw(st.integers(1, 7)),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "bucket": draw(st.booleans()),
        "lengths": {name: np.arange(size) % 7 for name, size in sizes.items()},
    }
    return Mixture(sizes, **{**options, **fixed})


# Rates, by hand.


@pytest.mark.parametrize(
    ("strategy", "options", "expected"),
    [
        ("proportional", {}, {"a": 900 / 1025, "b": 100 / 1025, "c": 25 / 1025}),
        ("uniform", {}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}),
        ("round_robin", {}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}),
        # √900 : √100 : √25 = 30 : 10 : 5
        ("temperature", {}, {"a": 30 / 45, "b": 10 / 45, "c": 5 / 45}),
        ("temperature", {"temperature": 1.0}, {"a": 900 / 1025, "b": 100 / 1025, "c": 25 / 1025}),
        ("temperature", {"temperature": 1e9}, {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}),
        ("fixed", {"rates": {"c": 1, "a": 2, "b": 5}}, {"a": 0.25, "b": 0.625, "c": 0.125}),
    ],
)
def test_rates_follow_the_strategys_formula(strategy: str, options: dict[str, Any], expected: dict[str, float]) -> None:
    rates = Mixture({"a": 900, "b": 100, "c": 25}, strategy=strategy, **options).rates
    assert rates == pytest.approx(expected, abs=2e-9)
    assert list(rates) == ["a", "b", "c"]
    assert sum(rates.values()) == 1.0


def test_temperature_five_on_the_32nd_power_halves_the_rate() -> None:
    rates = Mixture({"a": 32, "b": 1}, strategy="temperature", temperature=5).rates
    assert rates == pytest.approx({"a": 2 / 3, "b": 1 / 3}, abs=1e-11)


def test_rates_on_the_grid_sum_to_the_unit_and_the_rest_goes_to_the_largest_remainder() -> None:
    # UNIT = 3 · 366503875925 + 1 and equal remainders: the first corpus has the odd unit.
    assert on_grid({"a": 1, "b": 1, "c": 1}) == {"a": 366503875926, "b": 366503875925, "c": 366503875925}
    assert on_grid({"a": 5, "b": 3}) == {"a": UNIT * 5 // 8, "b": UNIT * 3 // 8}


def test_a_strategy_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry("sampling strategy")
    monkeypatch.setattr(strategies, "STRATEGIES", registry)

    @registry.register("inverse")
    class Inverse(strategies.SamplingStrategy):
        def weights(self, sizes: Any, state: Any) -> dict[str, float]:
            return {corpus: 1 / size for corpus, size in sizes.items()}

    assert Mixture({"a": 2, "b": 6}, strategy="inverse").rates == pytest.approx({"a": 0.75, "b": 0.25})


# Streams, written out.


def test_the_stream_is_a_list_that_can_be_read() -> None:
    # Blocks of 6 at 5/8 and 3/8: due are 3.75 and 2.25, that is 3 and 2, and the sixth to a, whose next row falls due
    # 0.25 / 0.625 = 0.4 rows ahead (b: 0.75 / 0.375 = 2). Block 1, due 3.5 and 2.5: to a, 0.8 ahead (b: 1.33).
    # Block 2, due 3.25 and 2.75: to b, 0.67 ahead (a: 1.2). Block 3, due 4 and 2: 24 draws are three epochs.
    mixture = Mixture(SIZES, batch=3, block_batches=2, seed=13)
    assert [mixture.plan(mixture.state_at(2 * block)).quotas for block in range(4)] == [
        {"a": 4, "b": 2},
        {"a": 4, "b": 2},
        {"a": 3, "b": 3},
        {"a": 4, "b": 2},
    ]
    assert readable(first(mixture, 8)) == [
        "a3/0 a4/0 b1/0",
        "a2/0 b2/0 a1/0",
        "a0/1 a1/1 a0/0",
        "b0/0 b0/1 a3/1",
        "a2/1 a4/1 b2/2",
        "b1/1 b2/1 a1/2",
        "a4/2 b0/2 a2/2",
        "a3/2 b1/2 a0/2",
    ]


def test_the_state_is_a_block_a_cursor_a_remainder_and_a_batch() -> None:
    mixture = Mixture(SIZES, batch=3, block_batches=2)
    assert mixture.state_at(0) == mixture.initial_state()
    assert mixture.state_at(3) == MixtureState(1, {"a": 4, "b": 2}, {"a": -0.25, "b": 0.25}, 1)
    assert mixture.state_at(8) == MixtureState(4, {"a": 15, "b": 9}, {"a": 0.0, "b": 0.0}, 0)


def test_round_robin_alternates_across_the_borders_of_batches_and_blocks() -> None:
    mixture = Mixture({"a": 5, "b": 3, "c": 4}, strategy="round_robin", batch=4, block_batches=2)
    assert ["".join(draw.corpus for draw in batch) for batch in first(mixture, 6)] == [
        "abca",
        "bcab",
        "cabc",
        "abca",
        "bcab",
        "cabc",
    ]


def test_round_robin_alternates_whole_batches_when_they_are_homogeneous() -> None:
    mixture = Mixture(
        {"a": 5, "b": 3, "c": 4}, strategy="round_robin", batching="homogeneous", batch=2, block_batches=4
    )
    assert ["".join(draw.corpus for draw in batch) for batch in first(mixture, 7)] == [
        "aa",
        "bb",
        "cc",
        "aa",
        "bb",
        "cc",
        "aa",
    ]


@quick
@given(st.integers(1, 7), st.integers(1, 9), st.integers(1, 5), st.sampled_from(["mixed", "homogeneous"]))
def test_round_robin_alternates_at_any_size(corpora: int, batch: int, block_batches: int, batching: Any) -> None:
    names = "abcdefg"[:corpora]
    mixture = Mixture(
        dict.fromkeys(names, 11),
        strategy="round_robin",
        batching=batching,
        batch=batch,
        block_batches=block_batches,
    )
    batches = first(mixture, 60)
    units = [batch[0].corpus for batch in batches] if batching == "homogeneous" else None
    drawn = units or [draw.corpus for draw in chain(*batches)]
    assert drawn == list(islice(cycle(names), len(drawn)))


def test_unequal_rates_take_evenly_spread_turns() -> None:
    # a falls due at 4/3, 8/3, 4 and b at 4: the tie goes to the corpus named first.
    rates = on_grid({"a": 3, "b": 1})
    assert turns({"a": 3, "b": 1}, {"a": 0, "b": 0}, rates) == ["a", "a", "a", "b"]
    # With half a row owed b is due at 2, between 4/3 and 8/3.
    assert turns({"a": 3, "b": 1}, {"a": 0, "b": UNIT // 2}, rates) == ["a", "b", "a", "a"]


# Quotas.


@quick
@given(mixtures(), st.integers(1, 25))
def test_after_every_block_each_corpus_is_within_one_row_of_its_share(mixture: Mixture, count: int) -> None:
    rows = mixture.block_batches * (1 if mixture.homogeneous else mixture.batch)
    drawn: Counter[str] = Counter()
    for number, block in enumerate(blocks(mixture, count), start=1):
        drawn.update(draw.corpus for draw in chain(*block))
        texts = mixture.batch if mixture.homogeneous else 1
        for corpus, rate in mixture.rates.items():
            assert abs(Fraction(drawn[corpus], texts) - number * rows * Fraction(rate)) < 1


@quick
@given(st.lists(st.sampled_from([1, 1, 2, 3, 50, 300]), min_size=2, max_size=14), st.integers(1, 8))
def test_quotas_of_many_corpora_in_small_blocks_stay_within_one(weights: list[int], size: int) -> None:
    rates = on_grid({str(place): weight for place, weight in enumerate(weights)})
    owed = dict.fromkeys(rates, 0)
    for _ in range(80):
        rows, owed = block_quotas(owed, rates, size)
        assert sum(rows.values()) == size
        assert min(rows.values()) >= 0
        assert sum(owed.values()) == 0
        assert max(abs(amount) for amount in owed.values()) < UNIT


def largest_remainder(owed: dict[str, int], rates: dict[str, int], size: int) -> tuple[int, dict[str, int]]:
    """The obvious quotas: rows left (negative: too many are due at once), and owed after the block."""
    due = {corpus: owed[corpus] + rate * size for corpus, rate in rates.items()}
    rows = {corpus: max(0, amount // UNIT) for corpus, amount in due.items()}
    rest = size - sum(rows.values())
    for corpus in sorted(rows, key=lambda corpus: rows[corpus] * UNIT - due[corpus])[: max(0, rest)]:
        rows[corpus] += 1
    return rest, {corpus: due[corpus] - rows[corpus] * UNIT for corpus in rates}


def test_quotas_hold_where_the_largest_remainder_fails() -> None:
    rates = on_grid({"a": 50, "b": 300, "c": 1, "d": 300, "e": 1})
    owed, rests = dict.fromkeys(rates, 0), []
    for _ in range(60):
        rest, owed = largest_remainder(owed, rates, 7)
        rests.append(rest)
    assert min(rests) < 0
    owed = dict.fromkeys(rates, 0)
    for _ in range(652):
        _, owed = block_quotas(owed, rates, 7)
        assert max(abs(amount) for amount in owed.values()) < UNIT
    # 652 blocks of 7 are whole numbers of rows for every corpus: only the grid's rounding is owed.
    assert max(abs(amount) for amount in owed.values()) < 652 * 7


@quick
@given(
    st.lists(st.integers(-5 * UNIT, 5 * UNIT), min_size=3, max_size=3),
    st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any),
    st.integers(1, 20),
)
def test_quotas_fill_the_block_whatever_earlier_rates_left_owing(
    debts: list[int], weights: list[int], size: int
) -> None:
    owed = dict(zip("abcd", [*debts, -sum(debts)], strict=True))
    rates = on_grid(dict(zip("abcd", weights, strict=True)))
    rows, left = block_quotas(owed, rates, size)
    assert sum(rows.values()) == size
    assert min(rows.values()) >= 0
    assert sum(left.values()) == 0
    assert all(rows[corpus] == 0 and left[corpus] == 0 for corpus, rate in rates.items() if rate == 0)


def test_new_rates_rule_the_blocks_planned_with_them() -> None:
    mixture = Mixture(SIZES, batch=4, block_batches=4)
    before = mixture.plan(mixture.initial_state())
    retired = mixture.with_rates({"a": 0, "b": 7})
    after = retired.plan(before.next)
    assert before.quotas == {"a": 10, "b": 6}
    assert after.quotas == {"a": 0, "b": 16}
    assert after.next.cursors == {"a": 10, "b": 22}
    assert retired.rates == {"a": 0.0, "b": 1.0}
    assert mixture.rates == {"a": 0.625, "b": 0.375}


# Which texts.


@quick
@given(mixtures(), st.integers(1, 12))
def test_every_text_is_drawn_once_per_pass(mixture: Mixture, count: int) -> None:
    drawn = Counter(chain(*chain(*blocks(mixture, count))))
    state = mixture.state_at(count * mixture.block_batches)
    assert set(drawn.values()) == {1}
    for corpus, size in mixture.sizes.items():
        of_corpus = [draw for draw in drawn if draw.corpus == corpus]
        passes, partial = divmod(state.cursors[corpus], size)
        for pass_ in range(passes):
            assert sorted(draw.index for draw in of_corpus if draw.pass_ == pass_) == list(range(size))
        assert sum(draw.pass_ == passes for draw in of_corpus) == partial


def order_of(corpus: str, mixture: Mixture, count: int) -> list[tuple[int, int]]:
    """The first texts of one corpus; round robin leaves each corpus in the order of its permutation."""
    stream = (draw for batch in mixture.batches() for draw in batch if draw.corpus == corpus)
    return [(draw.index, draw.pass_) for draw in islice(stream, count)]


def test_another_corpus_and_another_order_leave_the_permutations_unchanged() -> None:
    alone = order_of("a", Mixture({"a": 12, "b": 30}, strategy="round_robin"), 40)
    assert alone == order_of("a", Mixture({"c": 7, "b": 31, "a": 12}, strategy="round_robin"), 40)
    assert alone[:12] != [(index, 0) for index, _ in alone[12:24]]


def test_seed_name_and_pass_each_change_the_permutation() -> None:
    sizes = {"a": 50, "b": 50}
    mixture = Mixture(sizes, strategy="round_robin")
    orders = [
        [index for index, _ in order_of("a", mixture, 50)],
        [index for index, _ in order_of("a", mixture, 100)[50:]],
        [index for index, _ in order_of("b", mixture, 50)],
        [index for index, _ in order_of("a", Mixture(sizes, strategy="round_robin", seed=14), 50)],
    ]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


# Batches.


@quick
@given(mixtures(batching="homogeneous"))
def test_homogeneous_batches_hold_one_corpus(mixture: Mixture) -> None:
    batches = first(mixture, 20)
    assert {len(batch) for batch in batches} == {mixture.batch}
    assert all(len({draw.corpus for draw in batch}) == 1 for batch in batches)


@pytest.mark.parametrize("batching", ["mixed", "homogeneous"])
@pytest.mark.parametrize("strategy", ["proportional", "round_robin"])
def test_bucketing_permutes_the_draws_of_a_block(batching: Any, strategy: str) -> None:
    options: dict[str, Any] = {"batching": batching, "strategy": strategy, "batch": 4, "block_batches": 6}
    plain = blocks(Mixture(UNEVEN, **options), 5)
    bucketed = blocks(Mixture(UNEVEN, lengths=LENGTHS, bucket=True, **options), 5)
    for one, other in zip(plain, bucketed, strict=True):
        assert Counter(chain(*one)) == Counter(chain(*other))
        assert one != other


def length(draw: Draw) -> int:
    return int(LENGTHS[draw.corpus][draw.index])


def test_bucketed_batches_are_runs_of_the_sorted_block_in_shuffled_order() -> None:
    batches = blocks(Mixture(UNEVEN, lengths=LENGTHS, bucket=True, batch=4, block_batches=12), 1)[0]
    spans = sorted((min(map(length, batch)), max(map(length, batch))) for batch in batches)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    assert [length(batch[0]) for batch in batches] != sorted(length(batch[0]) for batch in batches)


def test_homogeneous_bucketing_sorts_within_each_corpus() -> None:
    mixture = Mixture(UNEVEN, lengths=LENGTHS, bucket=True, batching="homogeneous", batch=4, block_batches=12)
    batches = [batch for batch in blocks(mixture, 1)[0] if batch[0].corpus == "sst"]
    spans = sorted((min(map(length, batch)), max(map(length, batch))) for batch in batches)
    assert len(spans) > 5
    assert all(left[1] <= right[0] for left, right in pairwise(spans))


def test_round_robin_keeps_its_turns_in_bucketed_batches() -> None:
    mixture = Mixture(UNEVEN, strategy="round_robin", lengths=LENGTHS, bucket=True, batch=6, block_batches=5)
    assert {tuple(draw.corpus for draw in batch) for batch in first(mixture, 10)} == {
        ("sst", "ner", "tiny", "sst", "ner", "tiny")
    }


# Processes and accumulation.


def test_a_global_batch_is_cut_by_micro_batch_then_process() -> None:
    rows = list("abcdefgh")
    assert slice_for(rows, 0, 2, 2) == [["a", "b"], ["e", "f"]]
    assert slice_for(rows, 1, 2, 2) == [["c", "d"], ["g", "h"]]
    assert slice_for(rows, 0, 1, 1) == [rows]


@quick
@given(mixtures(batch=12), st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 3), (4, 3), (12, 1)]))
def test_the_stream_is_the_same_for_any_number_of_processes(mixture: Mixture, layout: tuple[int, int]) -> None:
    processes, accumulation = layout
    streams = [
        islice(mixture.micro_batches(3, process=p, processes=processes, accumulation=accumulation), 9)
        for p in range(processes)
    ]
    united = [
        [draw for micro in zip(*parts, strict=True) for part in micro for draw in part]
        for parts in zip(*streams, strict=True)
    ]
    assert united == first(mixture, 9, start=3)


@pytest.mark.parametrize(
    ("batch", "processes", "accumulation", "allowed"),
    [(32, 3, 2, "30 or 36"), (33, 4, 8, "32 or 64"), (4, 8, 1, "8")],
)
def test_a_batch_that_does_not_divide_names_the_nearest_that_do(
    batch: int, processes: int, accumulation: int, allowed: str
) -> None:
    message = (
        f"mixture.batch: {batch} texts do not divide by {processes} processes × "
        f"training.gradient_accumulation_steps {accumulation} → {allowed}"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        check_division(batch, processes, accumulation)
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        Mixture(SIZES, batch=batch).micro_batches(processes=processes, accumulation=accumulation)


def test_a_process_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="process 2 is none of 2"):
        slice_for([1, 2], 2, 2, 1)
    with pytest.raises(ValueError, match="must be at least 1"):
        slice_for([1, 2], 0, 0, 1)


# Resume.


@quick
@given(mixtures())
def test_resume_continues_the_stream_from_every_step(mixture: Mixture) -> None:
    whole = first(mixture, 24)
    fresh = replace_cache(mixture)
    for step in range(20):
        assert first(fresh, 4, start=step) == whole[step : step + 4]


def replace_cache(mixture: Mixture) -> Mixture:
    """The same mixture as another run would build it, without remembered permutations."""
    fresh = mixture.with_rates(mixture.rates)
    fresh._permutations = {}
    return fresh


@quick
@given(mixtures(), st.integers(0, 60))
def test_the_state_survives_json_exactly(mixture: Mixture, step: int) -> None:
    state = mixture.state_at(step)
    loaded = MixtureState.from_dict(json.loads(json.dumps(state.to_dict(), sort_keys=True)))
    assert loaded == state
    assert list(islice(mixture.batches_from(loaded), 5)) == first(mixture, 5, start=step)


def test_planning_is_pure() -> None:
    mixture = Mixture(UNEVEN, batch=4, block_batches=3)
    state = mixture.state_at(9)
    once = mixture.plan(state)
    mixture.plan(once.next)
    assert mixture.plan(state) == once
    assert mixture.plan(replace(state, batch=2)) == once


def test_a_state_of_other_corpora_is_refused() -> None:
    state = Mixture(SIZES).state_at(40)
    with pytest.raises(UserError, match="state is of the corpora a, b; this mixture has a, c"):
        Mixture({"a": 5, "c": 3}).plan(state)
    with pytest.raises(UserError, match="stands at batch 33 of a block of 32"):
        Mixture(SIZES).plan(replace(state, batch=33))
    with pytest.raises(UserError, match="it must have block, cursors, owed, batch"):
        MixtureState.from_dict({"block": 1})


# Epochs and the run report.


@pytest.mark.parametrize(
    ("epochs", "steps"),
    # 1.1 · 3200 / 32 is 110; in floats it is 110.00000000000001, and its ceiling one too many.
    [(1, 100), (3, 300), (1.1, 110), (0.00001, 1), (1.0001, 101)],
)
def test_an_epoch_is_as_many_draws_as_there_are_texts(epochs: float, steps: int) -> None:
    mixture = Mixture({"a": 3_100, "b": 100}, strategy="uniform", batch=32)
    assert mixture.total == 3_200
    assert mixture.steps(epochs) == steps


def test_the_report_of_a_run_by_hand() -> None:
    # Three epochs are 24 draws: 8 steps, four blocks of 6, three passes over each corpus.
    mixture = Mixture(SIZES, batch=3, block_batches=2)
    assert mixture.describe(3) == [CorpusDraws("a", 5, 0.625, 15, 3.0), CorpusDraws("b", 3, 0.375, 9, 3.0)]
    # Three steps are the first three lines of the stream above: 2 + 2 + 3 texts of a.
    assert mixture.describe(steps=3) == [
        CorpusDraws("a", 5, 0.625, 7, 1.4),
        CorpusDraws("b", 3, 0.375, 2, 2 / 3),
    ]


@quick
@given(mixtures(), st.integers(0, 50))
def test_the_report_counts_the_stream(mixture: Mixture, steps: int) -> None:
    drawn = Counter(draw.corpus for draw in chain(*first(mixture, steps)))
    assert {row.corpus: row.draws for row in mixture.describe(steps=steps)} == {
        corpus: drawn[corpus] for corpus in mixture.sizes
    }


def test_the_report_needs_epochs_or_steps() -> None:
    mixture = Mixture(SIZES)
    with pytest.raises(ValueError, match="epochs or steps"):
        mixture.describe()
    with pytest.raises(ValueError, match="at least 0"):
        mixture.state_at(-1)
    with pytest.raises(UserError, match=r"training\.num_train_epochs: 0 → a finite number > 0"):
        mixture.steps(0)
    with pytest.raises(UserError, match=r"training\.num_train_epochs: nan"):
        mixture.steps(float("nan"))


# Faults.


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ({}, {}, "tasks: no corpus to draw from → at least one task with training texts"),
        ({"a": 5, "b": 0}, {}, 'tasks: corpus "b" has 0 training texts → at least 1'),
        (SIZES, {"batch": 0}, "mixture.batch: 0 → a whole number ≥ 1"),
        (SIZES, {"block_batches": 0}, "mixture.block_batches: 0 → a whole number ≥ 1"),
        (SIZES, {"seed": -1}, "seed: -1 → a whole number from 0 to 4294967295"),
        (SIZES, {"temperature": 0.5}, "mixture.temperature: 0.5 → a finite number ≥ 1"),
        (SIZES, {"temperature": float("inf")}, "mixture.temperature: inf → a finite number ≥ 1"),
        (SIZES, {"temperature": float("nan")}, "mixture.temperature: nan → a finite number ≥ 1"),
        (SIZES, {"batching": "both"}, 'mixture.batching: "both" → mixed, homogeneous'),
        (SIZES, {"bucket": True}, 'mixture.bucket: 0 lengths for corpus "a" → 5, one a text'),
        (SIZES, {"rates": {"a": 1, "b": 1}}, 'mixture.rates: given with strategy "proportional" → only with'),
        (SIZES, {"strategy": "fixed"}, "mixture.rates: missing, and the strategy is fixed → a weight for each corpus"),
        (SIZES, {"strategy": "fixed", "rates": {"a": 1}}, 'mixture.rates: no rate for corpus "b"'),
        (SIZES, {"strategy": "fixed", "rates": {"a": 1, "b": 2, "c": 3}}, "mixture.rates.c: unknown corpus → a, b"),
        (SIZES, {"strategy": "fixed", "rates": {"a": 1, "b": -2}}, "mixture.rates.b: -2 → a finite number ≥ 0"),
        (SIZES, {"strategy": "fixed", "rates": {"a": 0, "b": 0}}, "mixture.rates: every weight is 0"),
    ],
)  # fmt: skip
def test_a_fault_names_key_found_and_allowed(sizes: dict[str, int], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Mixture(sizes, **options)


def test_all_faults_are_named_at_once_and_a_misspelt_strategy_is_guessed() -> None:
    with pytest.raises(UserError) as caught:
        Mixture({"a": 0}, strategy="temprature", batch=0, temperature=0.0)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "tasks",
        "mixture.batch",
        "mixture.temperature",
        "mixture.strategy",
    ]
    assert 'Did you mean "temperature"?' in str(caught.value)
