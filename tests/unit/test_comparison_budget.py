"""The same budget for all sides where only the data can tell: token budgets of single models, and what variants really draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.analysis.compare import planned_report, prepare_comparison
from mtl_nlp.analysis.comparison_plan import Run, make_plan
from mtl_nlp.analysis.comparison_tables import noise_table
from mtl_nlp.cli.compare import show_plan
from mtl_nlp.errors import FaultyInput
from mtl_nlp.recipe import make_recipe
from mtl_nlp.training.prepare import prepare


def setup(recipe: dict[str, Any], data: Path, **variants: Any) -> Any:
    return prepare_comparison({**recipe, "compare": {"seeds": 2, "variants": variants}}, output=data / "out")


@pytest.fixture
def tokens(recipe: dict[str, Any]) -> dict[str, Any]:
    """Batches of up to 60 tokens, some seven texts."""
    recipe["mixture"] = {"max_tokens": 60}
    del recipe["training"]["max_steps"]
    recipe["training"]["num_train_epochs"] = 3
    return recipe


@pytest.mark.parametrize("seed", [13, 14])
def test_a_single_model_with_a_token_budget_sees_its_texts_as_often(
    tokens: dict[str, Any], data: Path, seed: int
) -> None:
    made = setup(tokens, data)
    plan, place = made.plan, made.place
    assert place.planned is None, "each seed's joint run is waited for: another seed cuts other batches"
    joint = planned_report(prepare(make_recipe({**tokens, "seed": seed}, base=data)).mixture())
    passes = {corpus: one["passes"] for corpus, one in joint["corpora"].items()}
    for task, texts in (("sent", 32), ("ner", 24)):
        wanted = passes[task] * texts
        recipe = plan.recipe_of(Run("single", task, seed), data / "x", joint, place.texts, place.steps_of)
        mixture = prepare(recipe).mixture()
        drawn = sum(row.draws for row in mixture.describe(steps=mixture.planned))
        assert recipe.training["max_steps"] == mixture.planned
        assert abs(drawn - wanted) <= mixture.texts_a_step / 2 + 1, "as near as whole steps can be"
        if seed == 13:
            assert place.steps["single", task] == mixture.planned, "what --plan shows is what is trained"
            assert mixture.planned > wanted / 32, "counted in texts of a default batch it would be far fewer"


def test_plain_batches_are_planned_as_ever(recipe: dict[str, Any], data: Path) -> None:
    place = setup(recipe, data, even={"mixture": {"strategy": "uniform"}}).place
    assert place.steps_of is None
    assert place.steps == {
        ("joint", None): 6,
        ("single", "sent"): 3,
        ("single", "ner"): 3,
        ("even", None): 6,
    }


def test_a_variant_that_draws_less_is_refused_before_training(recipe: dict[str, Any], data: Path) -> None:
    recipe["training"] = {**recipe["training"], "max_steps": -1, "num_train_epochs": 2}
    with pytest.raises(FaultyInput) as caught:
        setup(recipe, data, once={"mixture": {"max_passes": 1}}, enough={"mixture": {"max_passes": 2}})
    told = str(caught.value)
    # 32 + 24 texts in batches of 8.
    assert "compare.variants.once: another budget: 7 steps with 56 texts; the joint model has 14 with 112" in told
    assert "enough" not in told
    assert not (data / "out").exists()


def test_a_variant_of_a_token_budget_may_draw_at_other_rates(tokens: dict[str, Any], data: Path) -> None:
    place = setup(tokens, data, even={"mixture": {"strategy": "uniform"}}).place
    assert place.steps["joint", None] > 0


def test_a_fault_that_only_the_data_shows_has_the_variants_key(recipe: dict[str, Any], data: Path) -> None:
    recipe["training"] = {**recipe["training"], "max_steps": -1, "num_train_epochs": 2}
    with pytest.raises(FaultyInput, match=r"compare\.variants\.gone: encoder.*"):
        setup(recipe, data, gone={"encoder": str(data / "nowhere")})


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("tasks.sent.metrics=[f1_macro]", "metrics"),
        ("tasks.sent.auxiliary=true", "auxiliary"),
        ("tasks.sent.data.splits.test=ner/test.conll", "data"),
        ("tasks.sent.data.rows=4", "data"),
        ("tasks.sent.labels=[negative, positive]", "labels"),
        ("tasks.sent.head=regression", "head"),
    ],
)
def test_a_variant_shares_what_it_is_scored_by(recipe: dict[str, Any], data: Path, change: str, key: str) -> None:
    given = {**recipe, "compare": {"seeds": 2, "variants": {"va": [change]}}}
    with pytest.raises(FaultyInput) as caught:
        make_plan(make_recipe(given, base=data))
    found = [one for one in caught.value.faults if "is not the recipe's" in one.found]
    assert [one.key for one in found] == [f"compare.variants.va: tasks.sent.{key}"]


@pytest.mark.parametrize(
    "change",
    [
        {"mixture": {"max_tokens": 200}},
        {"mixture": {"batch": 16}},
        {"training": {"num_train_epochs": 7}},
        {"stopping": {"budget": {"minutes": 1}}},
    ],
)
def test_another_batch_or_length_is_another_budget(recipe: dict[str, Any], data: Path, change: dict[str, Any]) -> None:
    given = {**recipe, "compare": {"variants": {"va": change}}}
    with pytest.raises(FaultyInput, match=r"compare\.variants\.va: another budget"):
        make_plan(make_recipe(given, base=data))


def test_losses_of_a_variant_may_differ(recipe: dict[str, Any], data: Path) -> None:
    given = {
        **recipe,
        "compare": {"variants": {"va": ["tasks.sent.loss.weight=3.0", "tasks.ner.loss={smoothing: 0.1}"]}},
    }
    assert [one.name for one in make_plan(make_recipe(given, base=data)).variants] == ["joint", "single", "va"]


def test_a_plan_lists_trials_and_fusions_for_what_they_are(
    recipe: dict[str, Any], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared = {"seeds": 2, "learning_rates": [1e-3, 3e-3], "variants": {"taught": {"fuse": {"method": "distil"}}}}
    show_plan(prepare_comparison({**recipe, "compare": compared}, output=data / "out"), json=True)
    rows = json.loads(capsys.readouterr().out)
    states = {(row["side"], row["seed"]): row["state"] for row in rows if not row["learning_rate"]}
    assert states["joint", "13"] == states["single-ner", "13"] == "one of its trials"
    assert states["joint", "14"] == "to do"
    assert states["taught", "13"] == states["taught", "14"] == "to do"


def test_chance_says_nothing_where_nothing_varies() -> None:
    entry = {"task": "t", "variant": "joint", "p_seeds": 1.0, "p_examples": 1.0, "p": 1.0}
    cells = [noise_table({"results": [{**entry, "detectable": value}]}, "joint")[1][0][-1] for value in (None, 0.0123)]
    assert cells == ["— (the scores do not vary)", "0.0123"]
