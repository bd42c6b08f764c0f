"""Runs with `mixture.max_tokens`: the same gradients, resumed bit-equal, and what is said of them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from mtl_nlp.data.budget import BudgetMixture
from mtl_nlp.data.mixture import Draw
from mtl_nlp.errors import FaultyInput
from mtl_nlp.recipe import load_recipe, make_recipe
from mtl_nlp.training.callbacks import progress
from mtl_nlp.training.finetune import build_trainer, finetune
from mtl_nlp.training.mixing import plan_lines
from mtl_nlp.training.prepare import prepare
from mtl_nlp.training.probe import plan_run

from .test_kill_and_resume import assert_bit_equal, longer, trials
from .test_schedule_runs import PER_TASK, still_encoder

BUDGET = {"max_tokens": 70, "strategy": "uniform"}


def with_budget(recipe: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**recipe, "mixture": {**BUDGET, **more}}


def gradients(trainer: Any, batches: list[list[Draw]]) -> dict[str, torch.Tensor]:
    """Σ over steps of the step's labelled rows times the gradient of its loss, with the weights as they are."""
    sums: dict[str, torch.Tensor] = {}
    trainer.model.train()
    for batch in batches:
        inputs = trainer.data_collator(trainer.train_dataset.__getitems__(batch))
        counts = trainer._count([inputs])
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model, inputs, num_items_in_batch=counts).backward()
        rows = sum(counts.rows.values())
        for name, parameter in trainer.model.named_parameters():
            if parameter.grad is not None:
                sums[name] = sums.get(name, 0) + rows * parameter.grad
    return sums


@pytest.mark.parametrize("performance", ["plain", "auto"])
def test_a_block_gives_the_gradient_of_plain_batches(
    recipe: dict[str, Any], data: Path, tiny_encoder: Path, performance: str
) -> None:
    """With one label a text, rows · L is a sum over texts, whatever batches they are cut into."""
    one_label = [recipe["tasks"][0], {**recipe["tasks"][0], "name": "mood"}]
    for task in one_label:
        task["data"] = {**task["data"], "source": str(data / "sent" / "train.jsonl"), "validation": 0.25}
    one_label[1]["data"]["filter"] = {"label": ["positive", "negative"]}  # another corpus
    settings = {**with_budget(recipe), "tasks": one_label, "performance": performance}
    settings["encoder"] = str(still_encoder(tiny_encoder, data / "still"))
    trainer = build_trainer(prepare(make_recipe(settings)))
    mixture = trainer.mixture
    assert isinstance(mixture, BudgetMixture)
    budgeted = mixture.plan(mixture.initial_state()).batches
    texts = [draw for batch in budgeted for draw in batch]
    plain = [texts[start : start + 7] for start in range(0, len(texts), 7)]
    ours, theirs = gradients(trainer, budgeted), gradients(trainer, plain)
    assert ours.keys() == theirs.keys()
    scale = len(texts)
    assert max(float((ours[name] - theirs[name]).abs().max()) / scale for name in ours) <= 1e-6


def test_accumulation_leaves_the_weights_the_same(recipe: dict[str, Any], data: Path, tiny_encoder: Path) -> None:
    weights = []
    for accumulation in (1, 3):
        settings = with_budget(recipe, max_tokens=110)
        settings["encoder"] = str(still_encoder(tiny_encoder, data / "still"))
        settings["training"] = {
            **recipe["training"],
            "gradient_accumulation_steps": accumulation,
            "learning_rate": 1e-4,
            "adam_epsilon": 1e-6,
        }
        trainer = build_trainer(prepare(make_recipe(settings)))
        trainer.train()
        assert trainer.state.global_step == 6
        weights.append(trainer.model.state_dict())
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) <= 1e-5


def test_killed_and_resumed_is_bit_equal(recipe: dict[str, Any], data: Path) -> None:
    settings = with_budget(longer(recipe, gradient_accumulation_steps=2), max_tokens=110)
    settings["stopping"] = {**PER_TASK, "freed": "redistribute"}
    assert_bit_equal(trials(settings, data, 2, seed=11), 2)


def test_a_resolved_recipe_with_a_budget_has_no_limit_in_texts(recipe: dict[str, Any]) -> None:
    result = finetune(with_budget(recipe))
    again = load_recipe(result.folder / "recipe.resolved.yaml")
    assert (again.mixture.max_tokens, again.mixture.most_texts) == (70, None)
    assert make_recipe(with_budget(recipe, batch=5)).mixture.most_texts == 5


def test_the_steps_and_texts_are_said_beforehand(recipe: dict[str, Any]) -> None:
    settings = with_budget(recipe)
    settings["training"] = {**recipe["training"], "max_steps": -1, "num_train_epochs": 2}
    prepared = prepare(make_recipe(settings))
    mixture = prepared.mixture()
    lines = plan_lines(prepared.recipe, mixture)
    assert lines[0] == f"mixture uniform: {mixture.planned} steps of up to 70 tokens"
    drawn = [len(batch) for batch in islice(mixture.batches(), mixture.planned)]
    assert sum(drawn[:-1]) < 2 * mixture.total <= sum(drawn)
    assert (
        f"max_tokens 70: {sum(drawn) / len(drawn):.1f} texts a step; the steps are fixed, draws and passes exact"
        in (lines[-1])
    )
    plan = plan_run(prepared)
    assert (plan.steps, plan.draws, plan.max_tokens) == (mixture.planned, sum(drawn), 70)
    retiring = {**settings, "stopping": PER_TASK}
    retiring["training"] = {**settings["training"], "eval_strategy": "steps", "eval_steps": 2}
    changing = prepare(make_recipe(retiring))
    assert any("draws and passes an estimate" in line for line in plan_lines(changing.recipe, changing.mixture()))


@pytest.mark.parametrize(
    ("mixture", "training", "told"),
    [
        ({"batching": "homogeneous"}, {}, "mixture.batching: homogeneous beside mixture.max_tokens"),
        ({"max_tokens": 5}, {}, "mixture.max_tokens: 5, but training text"),
        ({"max_tokens": 20}, {"gradient_accumulation_steps": 4}, "mixture.max_tokens: 20: too few for 1 processes × "),
        ({"batch": 3}, {"gradient_accumulation_steps": 2}, "mixture.batch: 3: too few texts for 1 processes × "),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    recipe: dict[str, Any], mixture: dict[str, Any], training: dict[str, Any], told: str
) -> None:
    settings = with_budget(recipe, **mixture)
    settings["training"] = {**recipe["training"], **training}
    with pytest.raises(FaultyInput) as caught:
        plan_run(prepare(make_recipe(settings)))
    assert told in str(caught.value)


@pytest.mark.parametrize("mixture", [BUDGET, {"batch": 8}, {"batch": 8, "batching": "homogeneous"}])
def test_padding_and_speed_are_logged_for_every_kind_of_batches(
    recipe: dict[str, Any], mixture: dict[str, Any]
) -> None:
    settings = {**recipe, "mixture": mixture}
    settings["training"] = {**recipe["training"], "logging_steps": 1}
    trainer = build_trainer(prepare(make_recipe(settings)))
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 6
    for line, batch in zip(lines, trainer.mixture.batches(), strict=False):
        inputs = trainer.data_collator(trainer.train_dataset.__getitems__(batch))
        assert line["padding"] == round(1 - float(inputs["attention_mask"].float().mean()), 4)
        assert line["tokens_per_second"] > 0
    assert " tokens/s, " in progress(lines[0], ["sent", "ner"])


def test_the_progress_line() -> None:
    logs = {"loss": 0.5, "loss_a": 0.25, "share_a": 0.62, "tokens_per_second": 2913.4, "padding": 0.043}
    assert progress(logs, ["a", "b"]) == "loss 0.500 | a 0.250 (62 %) | 2913 tokens/s, 4 % padding"
