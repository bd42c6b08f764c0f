"""What a comparison trains (the same budget for both sides), what it refuses, and what its groups are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_nlp.analysis.comparison_folder import differences, duration
from mtl_nlp.analysis.comparison_fusion import FUSIONS
from mtl_nlp.analysis.comparison_groups import TrainingTexts, compare_groups, masks
from mtl_nlp.analysis.comparison_plan import Run, make_plan, shrunk, single_steps
from mtl_nlp.analysis.outcomes import outcomes
from mtl_nlp.comparison import CompareSpec, assignments
from mtl_nlp.errors import FaultyInput
from mtl_nlp.recipe import Recipe, make_recipe
from mtl_nlp.schema import Source, parse_yaml
from mtl_nlp.task import make_task

JOINT = {"corpora": {"sent+topics": {"passes": 3.0}, "ner": {"passes": 2.0}}, "steps": 100, "planned_steps": 100}


def test_a_single_model_sees_its_texts_as_often() -> None:
    # 3 passes over 64 annotated texts in batches of 8.
    assert single_steps("topics", JOINT, 64, 8) == (24, 100)
    assert single_steps("ner", JOINT, 33, 8) == (8, 100)
    stopped = {**JOINT, "corpora": {"ner": {"passes": 1.0}}, "steps": 50}
    assert single_steps("ner", stopped, 33, 8) == (8, 100), "early stopping does not shorten the other side's plan"


def test_intervals_shrink_with_the_schedule() -> None:
    training = {"eval_steps": 40, "save_steps": 80, "warmup_steps": 100, "logging_steps": 50}
    assert shrunk(training, 0.25) == {"eval_steps": 10, "warmup_steps": 25, "save_steps": 20}
    assert shrunk({"warmup_steps": 0.1, "eval_steps": 0.2}, 0.25) == {}, "shares stay"


@pytest.fixture
def rich(recipe: dict[str, Any]) -> dict[str, Any]:
    recipe["mixture"] |= {"strategy": "temperature", "temperature": 3.0}
    recipe["balancing"] = {"weighting": "uncertainty"}
    recipe["tasks"][0]["loss"] = {"weight": 4.0, "smoothing": 0.1}
    recipe["training"] |= {"head_learning_rate": 1e-2}
    # The temperature would be a key without effect.
    even = {"mixture": {"strategy": "uniform", "temperature": 2.0}}
    recipe["compare"] = {"seeds": 2, "variants": {"even": even}}
    return recipe


def made(recipe: dict[str, Any], base: Path) -> Recipe:
    return make_recipe(recipe, base=base)


def test_what_a_single_recipe_keeps(rich: dict[str, Any], data: Path) -> None:
    plan = make_plan(made(rich, data))
    assert [run.name for run in plan.runs()] == [
        f"{side}-{seed}" for seed in (13, 14) for side in ("joint", "single-sent", "single-ner", "even")
    ]
    report = {"corpora": {"sent": {"passes": 1.5}, "ner": {"passes": 0.5}}, "steps": 6, "planned_steps": 6}
    single = plan.recipe_of(Run("single", "sent", 14), data / "x", report, {"sent": 32, "ner": 24})
    told = single.resolved()
    assert [task["name"] for task in told["tasks"]] == ["sent"]
    assert told["tasks"][0]["loss"] == {"smoothing": 0.1}, "the weight among tasks is nothing to one"
    assert told["mixture"] == make_recipe({**rich, "mixture": {"batch": 8}}, base=data).resolved()["mixture"]
    assert told["balancing"]["weighting"] == "fixed"
    assert (told["seed"], told["training"]["max_steps"], told["training"]["head_learning_rate"]) == (14, 6, 1e-2)
    even = plan.recipe_of(Run("even", None, 13, 3e-4), data / "y", {}, {})
    assert (even.mixture.strategy, even.training["learning_rate"]) == ("uniform", 3e-4)
    assert even.balancing.weighting == "uncertainty"
    assert "compare" not in plan.recipe.resolved()


def test_overrides_become_assignments() -> None:
    given = {"mixture": {"strategy": "fixed", "rates": {"a": 1.0}}, "balancing.weighting": "uncertainty", "lora": {}}
    assert assignments(given) == [
        'mixture.strategy="fixed"',
        "mixture.rates.a=1.0",
        'balancing.weighting="uncertainty"',
        "lora={}",
    ]
    assert assignments(["seed=1"]) == ["seed=1"]


def test_every_fault_is_told_at_once(recipe: dict[str, Any], data: Path) -> None:
    recipe["training"]["learning_rat"] = 1
    recipe["stopping"] = {"budget": {"minutes": 3}}
    recipe["compare"] = {
        "variants": {
            "odd": {"mixture": {"strategy": "equal"}},
            "longer": {"training": {"max_steps": 12}},
            "fewer": ["tasks=[]"],
            "both": {"fuse": {"method": "ensembel"}},
        }
    }
    with pytest.raises(FaultyInput) as caught:
        make_plan(made(recipe, data), seeds=1)
    message = str(caught.value)
    for part in (
        "--seeds: found 1 → two seeds or more",
        "stopping.budget.minutes: minutes are no budget that is the same for all",
        "training.learning_rat",
        'compare.variants.odd: mixture.strategy: "equal" → ',
        "compare.variants.longer: another budget",
        "compare.variants.fewer: tasks",
        'compare.variants.both.fuse.method: no fusion "ensembel"',
    ):
        assert part in message, part


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"seeds": 1}, "two seeds or more"),
        ({"seeds": [13, 13]}, "whole numbers from 0, each once"),
        ({"learning_rates": [1e-4]}, "two or more numbers above 0"),
        ({"variants": {"joint": {"lora": {}}}}, "other than joint and single"),
        ({"variants": {"x": {"seed": 4}}}, "seed cannot be a variant's"),
        ({"variants": {"x": {"training": {"learning_rate": 1.0}}}}, "training.learning_rate cannot be a variant's"),
        ({"variants": {"x": {"fuse": {"method": "merge"}, "lora": {}}}}, "goes with no other key"),
        ({"variants": {"x": "lora"}}, "a mapping of recipe keys, or a list of KEY=VALUE"),
    ],
)
def test_faults_of_the_recipe_key(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        CompareSpec.model_validate(given)


def test_faults_have_their_line(recipe: dict[str, Any], data: Path) -> None:
    text = "tasks: [demo_intent, demo_sentiment]\ncompare:\n  seeds: 1\n"
    content, source = parse_yaml(text, "recipe.yaml")
    with pytest.raises(FaultyInput, match=r"recipe\.yaml:3: compare\.seeds: found 1 → .*two seeds or more"):
        make_recipe(content, source, data)


def test_a_fusion_that_is_there_is_planned_last(recipe: dict[str, Any], data: Path, monkeypatch: Any) -> None:
    class Fusion:
        def check(self, spec: Any, recipe: Any) -> None:
            assert spec["method"] == "test_ensemble"

    monkeypatch.setitem(FUSIONS._entries, "test_ensemble", Fusion())
    recipe["compare"] = {
        "variants": {"fused": {"fuse": {"method": "test_ensemble"}}, "even": ["mixture.strategy=uniform"]}
    }
    plan = make_plan(made(recipe, data), seeds=2)
    assert plan.sides()[-1] == ("fused", None)


def test_differences_name_keys() -> None:
    assert differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2, "d": 4}) == {"a.b": (1, 3), "d": ("absent", 4)}


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.2, 60, 600, 9000)] == ["1 s", "60 s", "10 min", "2.5 h"]


def lines(right: list[bool]) -> list[dict[str, Any]]:
    texts = ["a b", "a b c d e f g h i", "x"]
    return [
        {
            "row": i,
            "text": texts[i % 3],
            "gold": "yes" if i % 2 else "no",
            "predicted": ("yes" if i % 2 else "no") if ok else "?",
        }
        for i, ok in enumerate(right)
    ]


def test_groups_by_label_length_and_what_others_know() -> None:
    task = make_task({"name": "t", "head": "sequence_classification", "labels": ["no", "yes"]}, Source(), Path())
    single = [lines([i >= 24 for i in range(48)]) for _ in range(3)]  # 24 wrong, alike in every seed
    variant = [lines([True] * 48) for _ in range(3)]
    training = TrainingTexts(frozenset("ab"), frozenset("abx"), frozenset({("a", "b")}))
    groups = masks(task, single[0], training)
    sizes = {(by, value): int(mask.sum()) for by, value, mask in groups}
    assert sizes == {
        ("label", "no"): 24,
        ("label", "yes"): 24,
        ("length in words", "1–8"): 32,
        ("length in words", "9–16"): 16,
        ("words known from other tasks only", "yes"): 16,
        ("words known from other tasks only", "no"): 32,
        ("text in another task's training data", "yes"): 16,
        ("text in another task's training data", "no"): 32,
    }
    found = compare_groups(
        groups, outcomes("accuracy", single, task), outcomes("accuracy", variant, task), np.random.default_rng(0)
    )
    first = found[0]
    assert (first["by"], first["value"], first["rows"]) == ("label", "no", 24)
    assert (first["single"], first["variant"], first["difference"]) == (0.5, 1.0, 0.5)
    assert first["changed"]
    # 12 answers changed sides: 2 of 2^12 exchanges give as much, times 8 groups at most.
    assert first["p_holm"] <= 8 * 5 / 2001
    same = compare_groups(groups, *[outcomes("accuracy", single, task)] * 2, np.random.default_rng(0))
    assert not any(group["changed"] for group in same)
    assert json.dumps(found)
