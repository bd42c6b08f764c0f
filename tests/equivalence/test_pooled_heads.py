"""Two routes to a head's logits must agree: the vanilla module, and its layers in a row beside those of other tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtl_nlp.model.config import MultiTaskConfig, task_record
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.model.pooled_heads import find_pooled_heads
from mtl_nlp.task import Task

from .architectures import VOCABULARY, configs, more_configs

POOLED = [
    Task(name="three", head="sequence_classification", labels=["a", "b", "c"]),
    Task(name="two", head="sequence_classification", labels=["a", "b"]),
    Task(name="many", head="multi_label_classification", labels=["x", "y", "z", "w"]),
    Task(name="number", head="regression"),
    Task(name="too", head="sequence_classification", labels=["a", "b", "c"], share_head_with="three"),
]
TAGS = Task(name="tags", head="token_classification", labels=["PER", "LOC"])
ROWS = {"three": [0, 2], "tags": [1, 4], "many": [3], "number": [4, 0, 5], "two": [5], "too": [1, 0]}


def model_of(name: str, config: Any = None) -> MultiTaskModel:
    torch.manual_seed(3)
    model = MultiTaskModel(MultiTaskConfig(config or more_configs()[name], [task_record(t) for t in [*POOLED, TAGS]]))
    for parameter in model.heads.parameters():  # fresh ones are too small to tell one activation from another
        nn.init.normal_(parameter, std=0.4)
    return model


def batch() -> dict[str, Any]:
    torch.manual_seed(1)
    mask = (torch.arange(9) < torch.tensor([9, 4, 6, 3, 8, 5])[:, None]).long()
    ids = torch.randint(5, VOCABULARY, mask.shape) * mask
    tasks = {name: {"rows": torch.tensor(rows), "width": torch.tensor(9)} for name, rows in ROWS.items()}
    return {"input_ids": ids, "attention_mask": mask, "tasks": tasks}


def run(model: MultiTaskModel) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Logits, and the gradient of the sum of their squares."""
    model.zero_grad()
    logits = model(**batch()).logits
    sum(values.float().square().sum() for values in logits.values()).backward()
    return logits, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", list(configs()))
def test_logits_and_gradients_are_those_of_the_vanilla_heads(name: str) -> None:
    model = model_of(name).train()  # these have no dropout
    if name == "modernbert":
        model.eval()
    plain, gradients = run(model)
    model.pooled_heads = find_pooled_heads(model.kinds, model.heads, model.config.encoder_config)
    assert list(model.pooled_heads.chains) == [task.name for task in POOLED]
    watched: list[str] = []
    original = model._head_logits
    model._head_logits = lambda name, *rest: (watched.append(name), original(name, *rest))[1]  # type: ignore[method-assign]
    beside, others = run(model)
    assert watched == ["tags"]
    assert list(beside) == list(ROWS) == list(plain)
    for task, logits in plain.items():
        torch.testing.assert_close(beside[task], logits, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == others.keys()
    for key, gradient in gradients.items():
        gap = (others[key] - gradient).abs().max()
        assert gap <= 1e-5 * max(1.0, float(gradient.abs().max())), key


def test_an_architecture_that_reads_the_last_token_keeps_its_own_way() -> None:
    model = model_of("eurobert")
    assert find_pooled_heads(model.kinds, model.heads, model.config.encoder_config).chains == {}


def bert(**settings: Any) -> MultiTaskModel:
    config = configs()["bert"]
    for key, value in settings.items():
        setattr(config, key, value)
    model = model_of("bert", config)
    model.pooled_heads = find_pooled_heads(model.kinds, model.heads, model.config.encoder_config)
    return model


def test_dropout_drops_in_training_at_its_own_rate() -> None:
    model = bert(classifier_dropout=0.25)
    assert model.pooled_heads is not None
    for task in POOLED:
        head: Any = model.heads[task.name]
        nn.init.ones_(head.classifier.weight)
        nn.init.zeros_(head.classifier.bias)
        nn.init.zeros_(head.bert.pooler.dense.weight)
        nn.init.constant_(head.bert.pooler.dense.bias, 20.0)  # a pooled vector of ones: a logit counts what is kept
    hidden, tasks = torch.zeros(2000, 1, 32), {task.name: {"rows": torch.arange(2000)} for task in POOLED}
    logits = model.pooled_heads(hidden, tasks, model.heads)
    kept = torch.cat([values[:, :1] for values in logits.values()]).detach() * 0.75 / 32
    # 2 000 × 5 × 32 draws: a standard deviation of 0.0008
    assert abs(float(kept.mean()) - 0.75) < 0.004
    assert float(kept.std()) == pytest.approx((0.75 * 0.25 / 32) ** 0.5, rel=0.05)
    model.eval()
    assert all((v == 32).all() for v in model.pooled_heads(hidden, tasks, model.heads).values())


def test_under_autocast_a_cpu_keeps_float32() -> None:
    model = bert()
    plain = model(**batch()).logits
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(**batch()).logits
    assert {name: values.dtype for name, values in logits.items()} == {
        name: torch.bfloat16 if name == "tags" else torch.float32 for name in ROWS
    }
    torch.testing.assert_close(logits["three"], plain["three"], rtol=0.1, atol=0.1)


def test_prediction_watchers_and_a_new_head_go_the_vanilla_way() -> None:
    model = bert()
    seen: list[str] = []
    original = model._head_logits
    model._head_logits = lambda name, *rest: (seen.append(name), original(name, *rest))[1]  # type: ignore[method-assign]
    with torch.no_grad():
        model(**batch())
    assert seen == list(ROWS)
    seen.clear()
    model.watch = lambda name, states: None
    model(**batch())
    assert seen == list(ROWS)
    seen.clear()
    model.watch = None
    model.heads["two"] = model.kinds["two"].build(model.config.encoder_config)
    model(**batch())
    assert seen == ["tags", "two"]


class Odd(nn.Module):
    """Wraps a head and spoils its logits in one way."""

    def __init__(self, head: nn.Module, how: str) -> None:
        super().__init__()
        self.head, self.how = head, how

    def forward(self, **given: Any) -> Any:
        if self.how == "refuses":
            raise ValueError("five tokens are too few")
        if self.how == "mean":
            given["inputs_embeds"] = given["inputs_embeds"].mean(1, keepdim=True)
        found = self.head(**given)
        if self.how == "dropout":
            found.logits = F.dropout(found.logits, 0.5, self.training)
        return found


@pytest.mark.parametrize("how", ["nothing", "refuses", "mean", "dropout"])
def test_a_head_that_does_more_than_its_layers_is_left_alone(how: str) -> None:
    model = model_of("bert")
    heads = {name: Odd(head, how) if name == "two" else head for name, head in model.heads.items()}
    chains = find_pooled_heads({"two": model.kinds["two"]}, heads, model.config.encoder_config).chains
    assert list(chains) == (["two"] if how == "nothing" else [])
    assert all(module.training for module in heads["two"].modules())
