"""What goes with what: combinations are refused with their reason, before training, and the docs show the same table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.balancing.rules import RULES, Setup, broken_rules, matrix
from mtl_nlp.errors import FaultyInput
from mtl_nlp.recipe import make_recipe
from mtl_nlp.training.check_balancing import check_balancing
from mtl_nlp.training.prepare import check_recipe

METHODS = Path(__file__).resolve().parents[2] / "docs" / "methods.md"


def changed(recipe: dict[str, Any], balancing: dict[str, Any], **more: Any) -> dict[str, Any]:
    training = recipe["training"] | more.pop("training", {})
    return {**recipe, "balancing": balancing, "training": training, **more}


@pytest.mark.parametrize(
    ("balancing", "more", "message"),
    [
        (
            {"weighting": "uncertainty", "gradients": "imtl_g"},
            {},
            r"uncertainty and gradients imtl_g: .*without effect",
        ),
        ({"weighting": "famo", "gradients": "pcgrad"}, {}, r"famo and gradients pcgrad: it learns from"),
        ({"on": "representation"}, {}, r"on representation: no gradients are aggregated"),
        (
            {"gradients": "mgda", "on": "representation"},
            {"training": {"gradient_accumulation_steps": 4}},
            r"gradients mgda with on representation and 4 micro-batches a step: .*last micro-batch",
        ),
        (
            {"gradients": "mgda"},
            {"encoder": {"name": "x", "freeze": "all"}},
            r"encoder\.freeze: gradients mgda with freeze all: the encoder learns nothing",
        ),
        ({"weighting": "gradnorm"}, {"encoder": {"name": "x", "freeze": "all"}}, r"gradnorm with freeze all"),
        ({"weighting": "uncertainty"}, {"training": {"fsdp": "full_shard"}}, r"balancing: .*parameters are sharded"),
        ({"gradients": "upgrad"}, {"training": {"optim": "lomo"}}, r"training\.optim: .*upgrad with optim lomo"),
        ({"cosine_steps": 5}, {"encoder": {"name": "x", "freeze": "all"}}, r"balancing\.cosine_steps"),
        ({"weighting": "unsure"}, {}, r'balancing\.weighting: found "unsure"'),
        ({"gradients": {"name": "cagrad", "c": -1}}, {}, r"balancing\.gradients\.c: found -1"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(
    recipe: dict[str, Any], balancing: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(FaultyInput, match=message):
        check_balancing(make_recipe(changed(recipe, balancing, **more)))


def test_all_faults_in_one_go(recipe: dict[str, Any]) -> None:
    with pytest.raises(FaultyInput) as caught:
        check_recipe(
            make_recipe(changed(recipe, {"weighting": "unsure", "gradients": "pcgrads"}, training={"seed": 1}))
        )
    assert len(caught.value.faults) == 3


@pytest.mark.parametrize(
    ("balancing", "more", "message"),
    [
        ({"gradients": "mgda"}, {"batching": "homogeneous"}, r"mixture\.batching: .*a step holds one task"),
        ({"weighting": "famo"}, {"batching": "homogeneous"}, r"a step holds one task"),
        ({"gradients": "pcgrad", "on": "representation"}, {}, r"balancing\.on: .*never meet"),
    ],
)
def test_what_the_data_decides_is_refused_once_it_was_read(
    recipe: dict[str, Any], balancing: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    made = make_recipe(changed(recipe, balancing, mixture={"batch": 8, **more}))
    check_balancing(made)
    check_balancing(made, shared_texts=True)
    with pytest.raises(FaultyInput, match=message):
        check_balancing(made, shared_texts=False)


def test_one_task_has_nothing_to_balance(recipe: dict[str, Any]) -> None:
    one = changed({**recipe, "tasks": recipe["tasks"][:1]}, {"gradients": "upgrad"})
    with pytest.raises(FaultyInput, match="there is one task: nothing to balance"):
        check_balancing(make_recipe(one))
    check_balancing(make_recipe({**one, "balancing": {"weighting": "uncertainty"}}))


def test_every_rule_is_broken_by_something() -> None:
    setups = [
        Setup(gradients="mgda", tasks=1),
        Setup(weighting="dwa", gradients="nash_mtl"),
        Setup(weighting="famo", gradients="mgda"),
        Setup(weighting="gradnorm", batching="homogeneous", shared_texts=False),
        Setup(gradients="cagrad", on="representation", accumulation=2),
        Setup(gradients="torchjd:PCGrad", on="representation", shared_texts=False),
        Setup(on="representation"),
        Setup(weighting="gradnorm", frozen=True),
        Setup(weighting="uncertainty", sharded=True),
        Setup(cosines=True, tasks=1),
        Setup(weighting="famo", optimizer="galore_adamw_layerwise"),
        Setup(gradients="mgda", on="representation", conditioning="film"),
        Setup(conditioning="film", sharded=True),
        Setup(conditioning="film", recomputed=True),
    ]
    found = {rule.name for setup in setups for rule in broken_rules(setup)}
    assert found == {rule.name for rule in RULES}
    assert broken_rules(Setup(weighting="uncertainty", gradients="upgrad", accumulation=8)) == []


def test_the_matrix_of_the_docs_is_the_codes() -> None:
    text = METHODS.read_text(encoding="utf-8")
    start, end = "<!-- matrix -->\n", "<!-- /matrix -->"
    shown = text[text.index(start) + len(start) : text.index(end)].strip()
    assert shown == matrix(), "run `python scripts/write_matrix.py`"
