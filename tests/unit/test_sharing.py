"""Two tasks under one head: saved once, loaded shared, trained by both; what cannot be shared is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mtl_nlp import Predictor, finetune
from mtl_nlp.errors import FaultyInput, UserError
from mtl_nlp.hub.checkpoint import load_model
from mtl_nlp.model.heads import VanillaHead
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.recipe import make_recipe
from mtl_nlp.sharing import joined_labels
from mtl_nlp.task import Task
from mtl_nlp.training.prepare import prepare
from tests.conftest import SENTIMENT, write_jsonl


@pytest.fixture
def shared(recipe: dict[str, Any], data: Path) -> dict[str, Any]:
    """`more` is sentiment of another source, under the head of `sent`; a label of its own among them."""
    rows = [{"text": row["text"], "label": row["label"]} for row in SENTIMENT[:8]] + [{"text": "what", "label": "none"}]
    for split in ("train", "validation", "test"):
        write_jsonl(data / "more" / f"{split}.jsonl", rows)
    more = copy.deepcopy(recipe["tasks"][0]) | {"name": "more", "share_head_with": "sent"}
    more["data"]["source"] = str(data / "more")
    return {**recipe, "tasks": [more, *recipe["tasks"]]}


def test_a_shared_head_is_trained_by_both_saved_once_and_loaded_shared(shared: dict[str, Any]) -> None:
    result = finetune(shared)
    stored = load_file(result.folder / "model.safetensors")
    assert {key.split(".")[1] for key in stored if key.startswith("heads.")} == {"sent", "ner"}
    model = load_model(result.folder)
    assert model.heads["more"] is model.heads["sent"]
    assert list(model.heads) == ["sent", "ner"]
    assert "more" in model.heads
    assert [task.share_head_with for task in model.tasks] == ["sent", None, None]
    labels = [task.labels for task in model.tasks[:2]]
    assert labels == [["negative", "positive", "none"]] * 2
    answer = Predictor.from_pretrained(result.folder)("the film was great")[0]["predictions"]
    assert answer["more"] == answer["sent"]
    assert set(result.metrics) == {"more", "sent", "ner"}


def test_the_gradient_of_a_shared_head_is_the_sum_of_both_tasks(tiny_encoder: Path) -> None:
    tasks = [
        Task(name="a", head="sequence_classification", labels=["x", "y"]),
        Task(name="b", head="sequence_classification", labels=["x", "y"], share_head_with="a"),
    ]
    torch.manual_seed(0)
    model = MultiTaskModel.from_encoder(str(tiny_encoder), tasks).eval()
    ids = torch.randint(5, 60, (4, 6))
    rows = {"a": torch.tensor([0, 1]), "b": torch.tensor([2, 3])}

    def gradient(names: str) -> torch.Tensor:
        model.zero_grad()
        batch = {name: {"rows": rows[name], "labels": torch.tensor([0, 1])} for name in names}
        sums = model.task_losses(model(input_ids=ids, tasks=batch).logits, batch)
        sum(total for total, _ in sums.values()).backward()
        return model.heads["a"].classifier.weight.grad.clone()

    assert torch.allclose(gradient("ab"), gradient("a") + gradient("b"), atol=1e-6)


def test_every_task_of_a_shared_head_is_a_vanilla_model(tiny_encoder: Path) -> None:
    tasks = [
        Task(name="a", head="token_classification", labels=["PER"]),
        Task(name="b", head="token_classification", labels=["PER"], share_head_with="a"),
    ]
    model = MultiTaskModel.from_encoder(str(tiny_encoder), tasks).eval()
    ids = torch.randint(5, 60, (2, 7))
    for name in ("a", "b"):
        kind = model.kinds[name]
        assert isinstance(kind, VanillaHead)
        config = kind.config(model.config.encoder_config)
        config._attn_implementation = "eager"
        plain = kind.vanilla_class(config)(config).eval()
        state = {f"{plain.base_model_prefix}.{key}": value for key, value in model.encoder.state_dict().items()}
        plain.load_state_dict(state | model.heads[name].state_dict(), strict=True)
        every = {"rows": torch.arange(2)}
        assert torch.equal(model(input_ids=ids, tasks={name: every}).logits[name], plain(input_ids=ids).logits)


def test_an_owner_that_is_not_there_is_told(tiny_encoder: Path) -> None:
    lone = Task(name="b", head="sequence_classification", labels=["x", "y"], share_head_with="a")
    with pytest.raises(UserError, match="shares the head of a, which is not among the tasks"):
        MultiTaskModel.from_encoder(str(tiny_encoder), [lone])


def test_labels_of_the_data_are_joined_and_given_ones_are_passed_on(shared: dict[str, Any]) -> None:
    def task(name: str, labels: list[str], owner: str | None = None) -> Task:
        return Task(name=name, head="sequence_classification", labels=labels, share_head_with=owner)

    joined = joined_labels([task("b", ["z", "a", "m"], "a"), task("a", ["m", "q"]), task("c", ["k", "l"])])
    assert joined == {"b": ["m", "q", "a", "z"], "a": ["m", "q", "a", "z"]}
    shared["tasks"][1]["labels"] = ["negative", "positive"]
    with pytest.raises(FaultyInput, match=r'unknown label "none".*more\.labels|more\.labels.*unknown label "none"'):
        prepare(make_recipe(shared))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"share_head_with": "sant"}, r'no other task "sant"\. Did you mean "sent"'),
        ({"share_head_with": "more"}, 'no other task "more"'),
        ({"share_head_with": "ner"}, "head sequence_classification is not ner's token_classification"),
        ({"labels": ["positive", "negative"]}, "labels are not sent's, which are negative, positive"),
    ],
)
def test_what_cannot_be_shared_is_refused(shared: dict[str, Any], change: dict[str, Any], told: str) -> None:
    shared["tasks"][1]["labels"] = ["negative", "positive"]
    shared["tasks"][0] |= change
    with pytest.raises(FaultyInput, match=told):
        make_recipe(shared)


def test_a_chain_of_sharing_is_refused(shared: dict[str, Any]) -> None:
    third = copy.deepcopy(shared["tasks"][1]) | {"name": "third", "share_head_with": "more"}
    shared["tasks"].append(third)
    with pytest.raises(FaultyInput, match=r"more shares a head itself.*name sent"):
        make_recipe(shared)
