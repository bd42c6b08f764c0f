"""What a run decides on its way, by hand: who retires, what rules which block, where the run ends, how the rate goes down."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import Any

import pytest
import torch

from mtl_nlp.data.batching import lookahead
from mtl_nlp.data.mixture import Mixture
from mtl_nlp.recipe import Budget, Stopping
from mtl_nlp.training.schedule import Schedule

METRICS = {"x": "eval_x_f1", "y": "eval_y_f1"}


def make(stopping: Stopping | None = None, metrics: dict[str, str] = METRICS, **mixture: Any) -> Schedule:
    """Two corpora of one task each, 40 steps in eight blocks of 5."""
    settings: dict[str, Any] = {"strategy": "uniform", "batch": 10, "block_batches": 5, "steps": 40, **mixture}
    built = Mixture({"a": 50, "b": 50}, tasks={"a": ["x"], "b": ["y"]}, **settings)
    return Schedule(built, ["x", "y"], metrics=metrics, stopping=stopping)


def go(schedule: Schedule, steps: int, tokens: int = 100, losses: dict[str, float] | None = None) -> None:
    """Some steps, as the trainer takes them."""
    for _ in range(steps):
        schedule.settle()
        if schedule.over:
            return
        schedule.used = (tokens, schedule.step * 1000)
        schedule.note_losses({task: torch.tensor(value) for task, value in (losses or {}).items()})
        schedule.note_step()


def scores(x: float, y: float) -> dict[str, float]:
    return {"eval_x_f1": x, "eval_y_f1": y, "eval_mean": (x + y) / 2}


def per_task(**options: Any) -> Stopping:
    """Retired tasks stay so to the end, but for the tests of the cool-down."""
    return Stopping(per_task=True, **{"patience": 2, "tolerance": 0.01, "cooldown": 0.0, **options})


def test_a_task_retires_after_so_many_evaluations_without_a_gain_above_the_tolerance() -> None:
    schedule = make(per_task())
    told = [(0.50, 0.10), (0.505, 0.20), (0.60, 0.205), (0.60, 0.209), (0.61, 0.20)]
    seen = []
    for x, y in told:
        schedule.note_scores(scores(x, y))
        seen.append((schedule.waited["x"], schedule.waited["y"], sorted(schedule.retired)))
    # x: 0.505 gains too little, 0.60 is 0.095 over 0.505; 0.60 and 0.61 (0.01 is not more than 0.01) gain nothing.
    # y: 0.20 gains, 0.205 and 0.209 do not.
    assert seen == [(0, 0, []), (1, 0, []), (0, 1, []), (1, 2, ["y"]), (2, 2, ["x", "y"])]
    assert schedule.best == {"x": 0.61, "y": 0.209}


def test_a_retired_task_that_falls_below_its_best_by_more_than_the_tolerance_is_taken_up_again() -> None:
    schedule = make(per_task())
    for y in (0.5, 0.5, 0.5):
        schedule.note_scores(scores(0.1, y))
    assert schedule.retired == {"x", "y"}
    schedule.note_scores(scores(0.1, 0.49))
    assert schedule.retired == {"x", "y"}
    schedule.note_scores(scores(0.1, 0.48))
    assert schedule.retired == {"x"}
    assert schedule.waited["y"] == 0


def test_small_gains_add_up() -> None:
    schedule = make(per_task())
    waited = []
    for y in (0.500, 0.506, 0.512, 0.518, 0.524, 0.529):
        schedule.note_scores(scores(0.1, y))
        waited.append(schedule.waited["y"])
    # 0.512 and 0.524 are more than 0.01 above 0.500 and 0.512; 0.529 is not above 0.524 by so much.
    assert waited == [0, 1, 0, 1, 0, 1]
    assert schedule.retired == {"x"}


def test_a_task_that_has_fallen_is_given_as_long_again_to_come_back() -> None:
    schedule = make(per_task())
    for y in (0.50, 0.40, 0.45, 0.515, 0.515):  # down, and back with a gain
        schedule.note_scores(scores(0.1, y))
        assert "y" not in schedule.retired
    schedule.note_scores(scores(0.1, 0.51))
    assert schedule.retired == {"x", "y"}
    fallen = make(per_task())
    for y in (0.50, 0.40, 0.41, 0.42):
        fallen.note_scores(scores(0.1, y))
    assert fallen.retired == {"x"}
    fallen.note_scores(scores(0.1, 0.43))
    assert fallen.retired == {"x", "y"}


def test_tasks_without_a_metric_never_retire() -> None:
    schedule = make(per_task(), metrics={"x": "eval_x_f1"})
    for _ in range(5):
        schedule.note_scores(scores(0.5, 0.5))
    assert schedule.retired == {"x"}


def retire_y(schedule: Schedule) -> None:
    """Three evaluations: x gains, y does not."""
    for x in (0.1, 0.2, 0.3):
        schedule.note_scores(scores(x, 0.5))
    assert schedule.retired == {"y"}


def factors_to_the_end(schedule: Schedule) -> list[float]:
    """What the learning rate is multiplied with in each step that is left."""
    factors = []
    while not schedule.over:
        schedule.settle()
        factors.append(round(schedule.decay(), 3))
        go(schedule, 1)
    return factors


def test_what_is_learned_in_block_k_rules_block_k_plus_2() -> None:
    schedule = make(per_task(freed="redistribute"))
    go(schedule, 7)  # in block 1
    retire_y(schedule)
    go(schedule, 1)
    assert [regime.block for regime in schedule.mixture.regimes.all] == [0]
    go(schedule, 3)
    assert [(r.block, sorted(r.retired)) for r in schedule.mixture.regimes.all] == [(0, []), (3, ["y"])]
    assert schedule.mixture.settled == 4
    assert schedule.retired_in(14) == frozenset()
    assert schedule.retired_in(15) == {"y"}


def test_an_evaluation_at_the_border_belongs_to_the_block_before() -> None:
    schedule = make(per_task())
    go(schedule, 10)
    retire_y(schedule)
    go(schedule, 1)
    assert schedule.retired_in(15) == {"y"}


def test_what_is_freed_is_saved() -> None:
    schedule = make(per_task(freed="save"))
    go(schedule, 10)
    retire_y(schedule)
    go(schedule, 1)
    # 15 of 40 planned steps at the old rates; of the 25 others half would be drawn for y: 12.5, so 13 steps more.
    assert schedule.end == 28
    go(schedule, 100)
    assert schedule.step == 28
    assert schedule.over
    rows = {row.corpus: row.draws for row in schedule.mixture.describe(steps=28)}
    assert rows == {"a": 75 + 130, "b": 75}  # a whole run has 200 of a


def test_what_is_freed_is_redistributed() -> None:
    schedule = make(per_task(freed="redistribute"))
    go(schedule, 10)
    retire_y(schedule)
    go(schedule, 100)
    assert schedule.step == 40
    assert {row.corpus: row.draws for row in schedule.mixture.describe(steps=40)} == {"a": 75 + 250, "b": 75}


@pytest.mark.parametrize("freed", ["save", "redistribute"])
def test_the_run_ends_when_every_task_is_retired(freed: str) -> None:
    schedule = make(per_task(freed=freed))
    go(schedule, 8)
    for _ in range(3):
        schedule.note_scores(scores(0.5, 0.5))
    go(schedule, 100)
    assert schedule.step == 15


def test_a_task_that_is_taken_up_again_makes_the_run_longer_again() -> None:
    schedule = make(per_task())
    go(schedule, 10)
    retire_y(schedule)
    go(schedule, 7)  # step 17, in block 3
    schedule.note_scores(scores(0.4, 0.3))
    go(schedule, 4)  # block 5, steps 25 and on, has both again
    assert schedule.retired_in(24) == {"y"}
    assert schedule.retired_in(25) == frozenset()
    # 15 planned steps, then two blocks of 5 that did the work of 10 each: 35 of 40 are done at step 25.
    assert schedule.end == 30


def test_the_rate_goes_down_over_the_last_blocks_of_a_run_that_ends_early() -> None:
    schedule = make(per_task())
    go(schedule, 10)
    retire_y(schedule)
    factors = factors_to_the_end(schedule)
    # The end is step 28, and two blocks are 10 steps: from step 18 on.
    assert factors[:8] == [1.0] * 8
    assert factors[8:] == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]


def retired_by_block(schedule: Schedule) -> list[list[str]]:
    return [sorted(schedule.retired_in(step)) for step in range(0, schedule.end, schedule.mixture.block_batches)]


def test_in_the_last_blocks_all_tasks_learn_once_more() -> None:
    schedule = make(per_task(cooldown=0.2))
    go(schedule, 10)
    retire_y(schedule)
    factors = factors_to_the_end(schedule)
    # Block 3 has x alone and does the work of two: 25 of 40 steps are done at step 20. The cool-down takes 10 steps; to begin it at
    # block 5, with 5 to go, is no closer than at block 4, with 15.
    assert retired_by_block(schedule) == [[], [], [], ["y"], [], []]
    assert (schedule.step, schedule.report()["cooldown_from"]) == (30, 20)
    assert {row.corpus: row.draws for row in schedule.mixture.describe(steps=30)} == {"a": 175, "b": 125}
    assert factors[:10] == [1.0] * 10  # from step 10 on
    assert factors[10:] == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize("freed", ["save", "redistribute"])
def test_when_every_task_is_retired_all_of_them_cool_down(freed: str) -> None:
    schedule = make(per_task(freed=freed, cooldown=0.2))
    go(schedule, 8)
    for _ in range(3):
        schedule.note_scores(scores(0.5, 0.5))
    go(schedule, 100)
    assert schedule.step == 25
    assert retired_by_block(schedule) == [[]] * 5


def test_a_run_that_redistributes_cools_down_at_its_planned_end() -> None:
    schedule = make(per_task(freed="redistribute", cooldown=0.2))
    go(schedule, 10)
    retire_y(schedule)
    go(schedule, 100)
    assert (schedule.step, schedule.early) == (40, False)
    assert retired_by_block(schedule) == [[], [], [], ["y"], ["y"], ["y"], [], []]


def test_a_task_that_would_retire_in_the_last_blocks_goes_on() -> None:
    schedule = make(per_task(cooldown=0.2))
    go(schedule, 27)  # in block 5, which decides on block 7
    retire_y(schedule)
    go(schedule, 100)
    assert (schedule.step, retired_by_block(schedule)) == (40, [[]] * 8)


def test_a_run_cools_down_before_its_budget_is_used_up() -> None:
    schedule = make(per_task(freed="redistribute", cooldown=0.2, budget=Budget(tokens=2999)))
    go(schedule, 10)
    retire_y(schedule)
    go(schedule, 100, tokens=100)
    # 29 steps: 10 before them is step 19, and step 20 is the border that is closest.
    assert (schedule.step, schedule.tokens) == (29, 2900)
    assert retired_by_block(schedule) == [[], [], [], ["y"], [], []]


def test_a_cool_down_keeps_to_max_passes() -> None:
    mixture = Mixture(
        {"a": 75, "b": 25},
        tasks={"a": ["x"], "b": ["y"]},
        strategy="proportional",
        batch=10,
        block_batches=5,
        max_passes=4,
    )
    mixture.planned = mixture.at_most(40)
    assert mixture.planned == 40
    schedule = Schedule(mixture, ["x", "y"], metrics=METRICS, stopping=per_task(cooldown=0.2))
    go(schedule, 10)
    for y in (0.1, 0.2, 0.3):
        schedule.note_scores(scores(0.5, y))
    go(schedule, 100)
    # Block 3 draws 50 of b, what 20 planned steps would, so 5 are left at step 20, and of b 12 texts for 10 steps.
    assert schedule.cooldown == (20, 30)
    assert (schedule.step, schedule.over) == (30, True)
    drawn = Counter(draw.corpus for batch in islice(mixture.batches(), 30) for draw in batch)
    assert drawn == {"a": 200, "b": 100}


def test_nobody_is_judged_in_the_cool_down() -> None:
    schedule = make(per_task(cooldown=0.2))
    go(schedule, 10)
    retire_y(schedule)
    go(schedule, 12)
    for x, y in ((0.1, 0.1), (0.1, 0.1), (0.1, 0.1), (0.1, 0.1), (0.1, 0.1)):
        schedule.note_scores(scores(x, y))
    assert schedule.retired == {"y"}
    go(schedule, 100)
    assert (schedule.step, retired_by_block(schedule)[4:]) == (30, [[], []])


def test_where_nobody_retires_there_is_no_cool_down() -> None:
    schedule = make(per_task(cooldown=0.2))
    go(schedule, 100)
    assert schedule.step == 40
    assert "cooldown_from" not in schedule.report()


def test_a_run_that_is_not_cut_short_keeps_its_rates() -> None:
    schedule = make()
    for _ in range(40):
        assert schedule.decay() == 1.0
        go(schedule, 1)
    assert schedule.over
    assert not schedule.early


def test_a_budget_of_tokens_ends_the_run_before_it_is_exceeded() -> None:
    schedule = make(Stopping(budget=Budget(tokens=1099)))
    go(schedule, 100, tokens=100)
    assert (schedule.step, schedule.tokens) == (10, 1000)
    assert schedule.early


def test_a_budget_of_minutes_is_reckoned_from_the_pace() -> None:
    schedule = make(Stopping(budget=Budget(minutes=0.5)))
    go(schedule, 100)
    # `go` takes a second a step; the clock is read as a step begins, so the pace is a little under that.
    assert 28 <= schedule.step <= 31


def test_losses_are_means_over_the_steps_that_had_the_task() -> None:
    schedule = make(strategy="adaptive_loss")
    go(schedule, 3, losses={"x": 2.0, "y": 1.0})
    go(schedule, 2, losses={"x": 4.0})
    go(schedule, 1)
    assert schedule.start_loss == {"x": pytest.approx(2.8), "y": pytest.approx(1.0)}
    go(schedule, 3, losses={"x": 1.4})
    go(schedule, 2, losses={"x": 1.4})
    assert schedule.loss["x"] == pytest.approx(1.4)
    assert schedule.start_loss == {"x": pytest.approx(2.8), "y": pytest.approx(1.0)}


def test_adaptive_rates_follow_the_losses_two_blocks_later() -> None:
    schedule = make(strategy="adaptive_loss", adapt=1.0)
    go(schedule, 5, losses={"x": 1.0, "y": 1.0})
    go(schedule, 5, losses={"x": 0.5, "y": 1.0})
    go(schedule, 1, losses={"x": 0.25, "y": 1.0})
    rates = [schedule.mixture.regimes.rates(block)["a"] / 2**40 for block in range(4)]
    # Block 2 is ruled by block 0, where both stand at their start; block 3 by block 1: ½ against 1.
    assert rates == pytest.approx([0.5, 0.5, 0.5, 1 / 3], abs=1e-5)


@pytest.mark.parametrize("cooldown", [0.2, 0.0])
@pytest.mark.parametrize("strategy", ["adaptive_loss", "adaptive_metric", "uniform", "annealed"])
def test_a_schedule_that_is_saved_and_loaded_decides_the_same(strategy: str, cooldown: float) -> None:
    stopping = per_task(patience=3, cooldown=cooldown)

    def whole(stops: list[int]) -> list[Any]:
        schedule, told = make(stopping, strategy=strategy, steps=80), []
        for step in range(80):
            if step in stops:
                state = json.loads(json.dumps(schedule.state_dict(), sort_keys=True))
                schedule = make(stopping, strategy=strategy, steps=80)
                schedule.load_state_dict(state)
            losses = {"x": 1 / (step + 1), "y": 1 / (step + 3) ** 0.5} if step % 3 else {"y": 2.0}
            go(schedule, 1, tokens=step, losses=losses)
            if step % 4 == 3:
                schedule.note_scores(scores(step / 80, 0.3 + (step % 3) / 100))
            told.append((schedule.end, schedule.decay(), schedule.tokens, sorted(schedule.retired)))
        return [*told, [regime.to_dict() for regime in schedule.mixture.regimes.all], schedule.best, schedule.loss]

    uninterrupted = whole([])
    assert any(regime["retired"] for regime in uninterrupted[-3])
    assert whole([1, 7, 10, 22]) == uninterrupted
    assert whole([15, 16, 17, 30]) == uninterrupted
    assert whole([45, 46, 58, 62]) == uninterrupted


@pytest.mark.parametrize(
    ("workers", "prefetch", "most", "expected"),
    [(0, None, 5, (0, None)), (2, None, None, (2, 2)), (2, 8, 8, (2, 4)), (4, 2, 3, (3, 1)), (2, None, 20, (2, 2))],
)
def test_loaders_do_not_run_ahead_of_what_is_decided(workers: int, prefetch: Any, most: Any, expected: Any) -> None:
    assert lookahead(workers, prefetch, most) == expected
