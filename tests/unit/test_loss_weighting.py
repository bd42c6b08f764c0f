"""Loss weightings: exact values, worked by hand from the papers' formulas, and what a resumed run takes up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mtl_nlp.balancing import WEIGHTINGS, LossWeighting, Observation, WeightingContext, make_weighting
from mtl_nlp.errors import FaultyInput

TASKS = ["a", "b"]
E25, E50 = math.exp(0.25), math.exp(0.5)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def made(written: Any, tasks: list[str] = TASKS, **context: Any) -> LossWeighting:
    return make_weighting(written, WeightingContext(tasks, seed=13, **context))


def seen(losses: Tensor, shares: Tensor | None = None, norms: Tensor | None = None, scale: float = 1.0) -> Observation:
    return Observation(0, losses, vector(0.5, 0.5) if shares is None else shares, norms, scale)


def fixed() -> Tensor:
    return made("fixed").weights(0)


def chance() -> Tensor:
    return made("chance", chance={"a": math.log(2), "b": 0.5}).weights(7)


def random() -> Tensor:
    return made("random").weights(0)


def uncertainty() -> Tensor:
    rule = made("uncertainty", squared_error=frozenset({"b"}))
    rule.load_state({"values": {"a": 0.0, "b": math.log(4)}})
    return rule.weights(0)


def uncertainty_gradient() -> Tensor:
    rule = made("uncertainty", squared_error=frozenset({"b"}))
    rule.load_state({"values": {"a": 0.0, "b": math.log(4)}})
    rule.before_update(seen(vector(2, 8)))
    return torch.cat([value.grad for value in rule.parameters()])


def gradnorm_gradient() -> Tensor:
    rule = made({"name": "gradnorm", "alpha": 1.0})
    rule.load_state({"values": {"a": 1.0, "b": 1.0}, "first": {"a": 2.0, "b": 2.0}})
    # Ratios ½ and 1, so r = ⅔ and 4/3; mean(G) = 4; targets 8/3 > 2 and 16/3 < 6.
    rule.before_update(seen(vector(1, 2), norms=vector(2, 6)))
    return torch.cat([value.grad for value in rule.parameters()])


def gradnorm_renormalised() -> Tensor:
    rule = made("gradnorm")
    rule.load_state({"values": {"a": 1.2, "b": 0.4}, "first": {"a": 2.0, "b": 2.0}})
    rule.after_update(seen(vector(1, 2)))
    return rule.weights(1)


def dwa() -> Tensor:
    rule = made({"name": "dwa", "temperature": 2.0, "every": 2})
    for losses in (vector(3, 1), vector(1, 1), vector(1, 2), vector(1, 0)):  # means 2, 1 and then 1, 1
        rule.before_update(seen(losses))
    return rule.weights(4)


def famo() -> Tensor:
    return made("famo").weights(0, vector(1, 3), torch.tensor([True, True]))


def famo_logits() -> Tensor:
    rule = made({"name": "famo", "learning_rate": 0.1})
    rule.after_update(seen(vector(1, 3)), vector(0.5, 3))
    return vector(*rule.state()["logits"].values())


def famo_decay() -> Tensor:
    rule = made({"name": "famo", "learning_rate": 0.1, "decay": 0.5})
    rule.load_state({"logits": {"a": 1.0, "b": 1.0}})
    rule.after_update(seen(vector(1, 3)), vector(1, 3))
    return vector(*rule.state()["logits"].values())


VALUES: dict[Callable[[], Tensor], tuple[float, float]] = {
    fixed: (1, 1),
    chance: (1 / math.log(2), 2),
    random: (0.6268872632950087, 1.3731127367049913),  # numpy's stream for the key (13, 0, "RLW")
    uncertainty: (1, 1 / 8),
    uncertainty_gradient: (0.5 * (0.5 - 2), 0.5 * (0.5 - 1)),
    gradnorm_gradient: (-2, 6),
    gradnorm_renormalised: (1.5, 0.5),
    dwa: (2 * E25 / (E25 + E50), 2 * E50 / (E25 + E50)),
    famo: (1.5, 0.5),
    famo_logits: (-0.1 * math.log(2) / 4, 0.1 * math.log(2) / 4),
    famo_decay: (0.95, 0.95),
}


@pytest.mark.parametrize("worked", VALUES, ids=lambda worked: worked.__name__)
def test_values(worked: Callable[[], Tensor]) -> None:
    assert worked().tolist() == pytest.approx(VALUES[worked], rel=1e-6)


def test_random_weights_have_mean_one_and_depend_on_seed_and_step_alone() -> None:
    weights = random()
    assert float(weights.sum()) == pytest.approx(2)
    assert torch.equal(weights, random())
    assert not torch.equal(weights, made("random").weights(4))
    many = torch.stack([made("random").weights(step) for step in range(2000)])
    assert many.mean(0).tolist() == pytest.approx([1, 1], abs=0.05)


def test_uncertainty_rests_where_weight_times_loss_is_a_half() -> None:
    rule = made("uncertainty")
    rule.load_state({"values": {"a": math.log(2 * 0.7), "b": math.log(2 * 3.0)}})
    rule.before_update(seen(vector(0.7, 3.0)))
    assert [float(value.grad) for value in rule.parameters()] == pytest.approx([0, 0], abs=1e-7)


@pytest.mark.parametrize("name", ["uncertainty", "gradnorm"])
def test_an_absent_task_takes_no_optimizer_step(name: str) -> None:
    rule = made(name, ["a", "b", "c"])
    optimizer = torch.optim.AdamW([{"params": rule.parameters(), "lr": 0.1, "weight_decay": 0.0}])
    there = Observation(0, vector(2, 0, 1), vector(0.5, 0, 0.5), vector(1, 0, 3))
    rule.before_update(there)
    before = [float(value.detach()) for value in rule.parameters()]
    optimizer.step()
    after = [float(value.detach()) for value in rule.parameters()]
    assert after[1] == before[1]
    assert after[0] != before[0]


def test_learned_gradients_carry_the_loss_scale_that_the_optimizer_takes_away() -> None:
    rule = made("uncertainty")
    rule.before_update(seen(vector(2, 8)))
    plain = [float(value.grad) for value in rule.parameters()]
    rule.before_update(seen(vector(2, 8), scale=1024.0))
    assert [float(value.grad) / 1024 for value in rule.parameters()] == pytest.approx(plain)


def test_famo_gives_more_weight_to_the_task_that_improved_less_and_leaves_the_absent_alone() -> None:
    rule = made("famo", ["a", "b", "c"])
    there = Observation(0, vector(1, 9, 1), vector(0.5, 0, 0.5))
    for _ in range(20):
        rule.after_update(there, vector(0.5, 9, 0.99))
    weights = rule.weights(0, vector(1, 9, 1), torch.tensor([True, False, True]))
    assert weights[2] > weights[0]
    assert weights[1] == 0
    assert rule.state()["logits"]["b"] == 0
    assert float(weights.sum()) == pytest.approx(2)


def test_dwa_is_even_until_every_task_has_two_means_and_keeps_the_slot_of_the_absent() -> None:
    rule = made({"name": "dwa", "every": 1})
    assert rule.weights(0).tolist() == [1, 1]
    rule.before_update(seen(vector(4, 1)))
    assert rule.weights(1).tolist() == [1, 1]
    rule.before_update(seen(vector(2, 0), vector(1, 0)))  # b is absent
    assert rule.weights(2)[0] < rule.weights(2)[1]
    assert rule.state()["means"] == [[4.0, 2.0], [1.0]]


@pytest.mark.parametrize("name", WEIGHTINGS.names())
def test_a_state_goes_through_json_bit_by_bit(name: str) -> None:
    def play(rule: LossWeighting, steps: range) -> list[float]:
        optimizer = torch.optim.SGD(rule.parameters(), lr=0.01) if rule.parameters() else None
        for step in steps:
            losses = vector(1 / (step + 1.3), 0.7)
            shares = vector(0.3, 0.7) if step % 3 else vector(1, 0)
            rule.weights(step, losses, shares > 0)
            there = Observation(step, losses, shares, vector(0.37, 1.1 + step))
            rule.before_update(there)
            if optimizer:
                optimizer.step()
            rule.after_update(there, losses * 0.9)
        return rule.weights(9, vector(1, 2), torch.tensor([True, True])).tolist()

    context = {"chance": {"a": 0.6, "b": 0.3}}
    whole = made(name, **context)
    expected = play(whole, range(9))
    first, second = made(name, **context), made(name, **context)
    play(first, range(4))
    second.load_state(json.loads(json.dumps(first.state())))
    assert play(second, range(4, 9)) == expected


def test_a_task_that_a_constant_predicts_without_loss_is_named() -> None:
    with pytest.raises(FaultyInput, match=r"b: a constant prediction has no loss"):
        made("chance", chance={"a": 0.5, "b": 0.0})


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("uncertain", r'balancing\.weighting: found "uncertain" → chance, dwa, .*Did you mean "uncertainty"'),
        ({"temperature": 2}, r"balancing\.weighting: no `name`"),
        ({"name": "dwa", "temperature": 0}, r"balancing\.weighting\.temperature: found 0 → .*greater than 0"),
        ({"name": "dwa", "heat": 1}, r"balancing\.weighting\.heat"),
        ({"name": "fixed", "heat": 1}, r"balancing\.weighting\.heat"),
        ({"name": "famo", "learning_rate": "fast"}, r"balancing\.weighting\.learning_rate"),
    ],
)
def test_faults(written: Any, message: str) -> None:
    with pytest.raises(FaultyInput, match=message):
        made(written)


def test_a_weighting_of_ones_own() -> None:
    class Halves(LossWeighting):
        def weights(self, step: int, losses: Tensor | None = None, present: Tensor | None = None) -> Tensor:
            return torch.full((self.size,), 0.5, dtype=torch.float64)

    WEIGHTINGS.register("halves_of_a_test")(Halves)
    assert made("halves_of_a_test").weights(0).tolist() == [0.5, 0.5]
