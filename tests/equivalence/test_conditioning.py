"""A conditioned encoder on many architectures: at the start it is the plain one; mixed, alone, without padding and folded it is the
same; its adapters are peft's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoModel

from mtl_nlp.conditioning import Conditioning as Settings
from mtl_nlp.errors import UserError
from mtl_nlp.model.conditioning import condition, fold
from mtl_nlp.model.config import MultiTaskConfig, task_record
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.task import Task
from tests.equivalence.architectures import VOCABULARY, configs, more_configs

TASKS = [
    Task(name="sent", head="sequence_classification", labels=["a", "b"]),
    Task(name="topic", head="sequence_classification", labels=["x", "y", "z"]),
    Task(name="ner", head="token_classification", labels=["PER"]),
]
KINDS = ["vector", "token", "film", "lora"]
NAMES = list(more_configs())
# MPNet computes its relative positions otherwise where positions are given.
TOKEN = [name for name in NAMES if name != "mpnet"]
PAIRS = [(name, kind) for name in NAMES for kind in KINDS if kind != "token" or name in TOKEN]


def plain_model(name: str) -> MultiTaskModel:
    torch.manual_seed(3)
    encoder = AutoModel.from_config(copy.deepcopy(more_configs()[name]), attn_implementation="eager")
    made = MultiTaskConfig(encoder.config, [task_record(task) for task in TASKS])
    made._attn_implementation = "eager"
    return MultiTaskModel(made, encoder).eval()


def conditioned(model: MultiTaskModel, kind: Any, **settings: Any) -> MultiTaskModel:
    condition(model, Settings(kind=kind, **settings))
    return model.eval()


def disturbed(model: MultiTaskModel, std: float = 0.1) -> MultiTaskModel:
    """Fresh conditions do nothing; give them something to say."""
    torch.manual_seed(5)
    for value in model.conditioning.parameters():
        torch.nn.init.normal_(value, std=std)
    return model


def batch() -> dict[str, Any]:
    """Five rows of different lengths; one of them is for two tasks."""
    torch.manual_seed(4)
    lengths = torch.tensor([9, 4, 7, 2, 6])
    mask = (torch.arange(9) < lengths[:, None]).long()
    ids = torch.randint(5, VOCABULARY, (5, 9)) * mask
    rows = {"sent": [0, 3], "topic": [1], "ner": [4, 0, 2]}
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "tasks": {name: {"rows": torch.tensor(found)} for name, found in rows.items()},
    }


def logits(model: Any, given: dict[str, Any] | None = None) -> dict[str, torch.Tensor]:
    """Each task's logits; of tags those of real tokens."""
    given = given or batch()
    with torch.no_grad():
        found = dict(model(**given).logits)
    if "ner" in found:
        found["ner"] = found["ner"][given["attention_mask"][given["tasks"]["ner"]["rows"]].bool()]
    return found


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["vector", "film", "lora"])
@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_condition_changes_nothing(name: str, kind: str) -> None:
    model = plain_model(name)
    before, keys = logits(model), set(model.state_dict())
    conditioned(model, kind)
    close(logits(model), before)
    assert keys < set(model.state_dict())
    assert all(key.startswith("conditioning.tasks.") for key in set(model.state_dict()) - keys)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_mixed_alone_and_without_padding_are_the_same(name: str, kind: str) -> None:
    model = plain_model(name)
    before = logits(model)
    disturbed(conditioned(model, kind))
    mixed = logits(model)
    assert all(not torch.allclose(mixed[task], before[task], atol=1e-6, rtol=0) for task in mixed)
    for task, rows in batch()["tasks"].items():
        close(logits(model, batch() | {"tasks": {task: rows}}), {task: mixed[task]})
    model.use_fast_paths()
    close(logits(model), mixed)


@pytest.mark.parametrize("name", list(configs()))
def test_the_padding_free_path_is_taken_where_the_plain_encoder_takes_it(name: str) -> None:
    plain = plain_model(name)
    plain.use_fast_paths()
    for kind in (kind for kind in KINDS if (name, kind) in PAIRS):
        model = conditioned(plain_model(name), kind)
        model.use_fast_paths()
        assert (model.padding_free is None) == (plain.padding_free is None), kind


@pytest.mark.parametrize("kind", ["vector", "film", "lora"])
@pytest.mark.parametrize("name", NAMES)
def test_folded_it_is_the_same(name: str, kind: str) -> None:
    model = disturbed(conditioned(plain_model(name), kind))
    keys = set(plain_model(name).state_dict())
    for task, rows in batch()["tasks"].items():
        plain = fold(model, task)
        assert plain.conditioning is None
        assert {key for key in plain.state_dict() if key.startswith("encoder.")} == {k for k in keys if k[:3] == "enc"}
        given = batch() | {"tasks": {task: rows}}
        # The same rows in the same order, so that nothing but the condition could differ.
        alone = {"input_ids": given["input_ids"][rows["rows"]], "attention_mask": given["attention_mask"][rows["rows"]]}
        found = logits(plain, alone | {"tasks": {task: {"rows": torch.arange(len(rows["rows"]))}}})
        if kind == "lora":
            close(found, logits(model, given))
        else:
            assert torch.equal(found[task], logits(model, given)[task])


@pytest.mark.parametrize("name", ["bert", "albert", "distilbert", "mpnet", "modernbert", "eurobert"])
def test_adapters_and_their_gradients_are_those_of_peft_task_by_task(name: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = disturbed(conditioned(plain_model(name), "lora", r=3, alpha=6.0))
    names = [task.name for task in TASKS]
    sites = model.conditioning.record.sites
    encoder = get_peft_model(plain_model(name).encoder, LoraConfig(r=3, lora_alpha=6, target_modules=sites), names[0])
    for other in names[1:]:
        encoder.add_adapter(other, LoraConfig(r=3, lora_alpha=6, target_modules=sites))
    theirs = dict(encoder.base_model.model.named_modules())
    for task in names:
        for site, part in model.conditioning.parts(task).items():
            theirs[site].lora_A[task].weight.data = part.a.detach().clone()
            theirs[site].lora_B[task].weight.data = part.b.detach().clone()
    given = batch()
    model.train()
    hidden = model(**given).hidden
    start = 0
    for task, rows in given["tasks"].items():
        encoder.set_adapter(task)
        own = {"input_ids": given["input_ids"][rows["rows"]], "attention_mask": given["attention_mask"][rows["rows"]]}
        found = encoder(**own).last_hidden_state
        mask = own["attention_mask"].bool()
        mine = hidden[start : start + len(mask)]
        torch.testing.assert_close(mine[mask], found[mask], rtol=0, atol=1e-5)
        weights = torch.linspace(-1, 1, int(mask.sum()) * found.shape[-1]).view(int(mask.sum()), -1)
        (found[mask] * weights).sum().backward()
        (mine[mask] * weights).sum().backward(retain_graph=True)
        start += len(mask)
        for site, part in model.conditioning.parts(task).items():
            for now, then in ((part.a, theirs[site].lora_A[task]), (part.b, theirs[site].lora_B[task])):
                if then.weight.grad is None:  # a module whose output is thrown away
                    assert now.grad is None or not now.grad.any()
                    continue
                torch.testing.assert_close(now.grad, then.weight.grad, rtol=1e-4, atol=1e-5)
    # And the mixed batch that peft can take, in evaluation.
    encoder.eval()
    every = torch.cat([rows["rows"] for rows in given["tasks"].values()])
    who = [task for task, rows in given["tasks"].items() for _ in rows["rows"]]
    with torch.no_grad():
        mixed = encoder(
            input_ids=given["input_ids"][every], attention_mask=given["attention_mask"][every], adapter_names=who
        ).last_hidden_state
    real = given["attention_mask"][every].bool()
    torch.testing.assert_close(hidden[real].detach(), mixed[real], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TOKEN)
def test_a_task_token_leaves_positions_and_the_number_of_states_as_they_are(name: str) -> None:
    model = disturbed(conditioned(plain_model(name), "token"))
    given, seen = batch(), {}
    kept = model._encode
    model._encode = lambda *args: (seen.setdefault("args", args), kept(*args))[1]  # type: ignore[method-assign]
    output = model(**given)
    ids, mask, _, positions = seen["args"]
    every = torch.cat([rows["rows"] for rows in given["tasks"].values()])
    assert torch.equal(ids[:, 1:], given["input_ids"][every])
    assert torch.equal(ids[:, 0], ids[:, 1])
    assert torch.equal(mask.sum(1), given["attention_mask"][every].sum(1) + 1)
    first = model.conditioning.record.first
    assert positions[0, :10].tolist() == [first, *range(first, first + 9)]
    assert output.hidden.shape[:2] == (6, 9)
    # A row as long as the encoder allows still fits.
    most = 64 - first
    long = torch.randint(5, VOCABULARY, (1, most))
    assert model(input_ids=long).hidden.shape[1] == most


def test_a_left_padded_row_gets_its_token_where_it_begins() -> None:
    model = disturbed(conditioned(plain_model("bert"), "token"))
    ids = torch.tensor([[0, 0, 7, 8, 9], [5, 6, 7, 8, 9]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    tasks = {"ner": {"rows": torch.arange(2)}}
    both = model(input_ids=ids, attention_mask=mask, tasks=tasks).logits["ner"]
    alone = model(input_ids=ids[:1, 2:], tasks={"ner": {"rows": torch.arange(1)}}).logits["ner"]
    torch.testing.assert_close(both[:1, 2:], alone, rtol=0, atol=1e-5)
    model.use_fast_paths()
    assert model.padding_free is not None
    packed = model(input_ids=ids, attention_mask=mask, tasks=tasks).logits["ner"]
    torch.testing.assert_close(packed[:1, 2:], alone, rtol=0, atol=1e-5)


def test_what_an_encoder_does_not_have_is_refused_by_name() -> None:
    for name in ("deberta-v3",):
        with pytest.raises(
            UserError, match=r"conditioning.targets: attention.self.key_proj also works on something else"
        ):
            conditioned(plain_model(name), "lora", targets=["key_proj"])
        sites = conditioned(plain_model(name), "lora").conditioning.record.sites
        assert sites
        assert not any(site.endswith(("query_proj", "key_proj")) for site in sites)
        norms = conditioned(plain_model(name), "film").conditioning.record.sites
        assert "encoder.LayerNorm" not in norms  # it normalises the table of relative positions
    with pytest.raises(UserError, match=r"mpnet cannot be conditioned so: with positions that are given its outputs"):
        conditioned(plain_model("mpnet"), "token")
    with pytest.raises(UserError, match=r'conditioning.targets: the encoder has no linear module "nothing"'):
        conditioned(plain_model("bert"), "lora", targets="nothing")

    class Placed(torch.nn.Module):
        """An encoder that takes no positions."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.config = inner, inner.config

        def get_input_embeddings(self) -> Any:
            return self.inner.get_input_embeddings()

        def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
            return self.inner(input_ids=input_ids, attention_mask=attention_mask)

    model = plain_model("bert")
    model.encoder = Placed(model.encoder)
    with pytest.raises(UserError, match=r"bert cannot be conditioned so: it takes no positions"):
        conditioned(model, "token")
