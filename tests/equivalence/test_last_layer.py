"""The last layer cut to the tokens that heads read must give what the whole layer gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mtl_nlp.inference.precision import NarrowEncoder
from mtl_nlp.model import multitask
from mtl_nlp.model.multitask import MultiTaskModel

from .architectures import VOCABULARY, more_configs
from .test_pooled_heads import ROWS, model_of

CUT = ["bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "modernbert", "ernie"]
LENGTHS = [9, 4, 6, 3, 8, 5]
POOLED = {name: rows for name, rows in ROWS.items() if name != "tags"}


def fast(name: str) -> MultiTaskModel:
    model = model_of(name).eval()
    model.use_fast_paths()
    return model


def batch(tasks: dict[str, list[int]]) -> dict[str, Any]:
    torch.manual_seed(1)
    mask = (torch.arange(9) < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.randint(5, VOCABULARY, mask.shape) * mask
    rows = {name: {"rows": torch.tensor(some), "width": torch.tensor(9)} for name, some in tasks.items()}
    return {"input_ids": ids, "attention_mask": mask, "tasks": rows}


def run(model: MultiTaskModel, tasks: dict[str, list[int]]) -> tuple[Any, dict[str, Tensor]]:
    """Output, and the gradient of the sum of the squares of real tokens' logits."""
    model.zero_grad()
    given = batch(tasks)
    output = model(**given)
    if "tags" in tasks:
        output.logits["tags"] = output.logits["tags"] * given["attention_mask"][tasks["tags"], :, None]
    sum(logits.square().sum() for logits in output.logits.values()).backward()
    return output, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tasks", [POOLED, {**POOLED, "tags": [1, 3]}, {"two": [2]}], ids=["pooled", "mixed", "one"])
@pytest.mark.parametrize("name", CUT)
def test_logits_and_gradients_stay(name: str, tasks: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, gradients = run(model_of(name).eval(), tasks)
    model = fast(name)
    monkeypatch.setattr(multitask, "MOST", 1.0)
    cut, others = run(model, tasks)
    read = cut.hidden.abs().amax(-1) > 0
    mask = batch(tasks)["attention_mask"].bool()
    tagged = torch.zeros_like(mask)
    tagged[tasks.get("tags", [])] = True
    assert torch.equal(read, mask & (tagged | (torch.arange(9) == 0)))
    for task, logits in whole.logits.items():
        torch.testing.assert_close(cut.logits[task], logits, rtol=1e-5, atol=1e-5)
    assert others.keys() == gradients.keys()
    for key, gradient in gradients.items():
        gap = (others[key] - gradient).abs().max()
        assert gap <= 1e-5 * max(1.0, float(gradient.abs().max())), key


def tokens_of(model: MultiTaskModel, tasks: dict[str, list[int]] | None) -> dict[str, int]:
    """How many tokens the last layer's parts were run on."""
    seen: dict[str, int] = {}
    layer = model.encoder.encoder.layer[-1]
    parts = {
        "query": layer.attention.self.query,
        "projection": layer.attention.output.dense,
        "feed-forward": layer.output,
    }
    hooks = [
        part.register_forward_hook(lambda module, given, output, name=name: seen.update({name: output.shape[1]}))
        for name, part in parts.items()
    ]
    given = batch(tasks or {})
    with torch.no_grad():
        model(**{**given, "tasks": given["tasks"] if tasks else None})
    for hook in hooks:
        hook.remove()
    return seen


def test_what_is_spared() -> None:
    model = fast("bert")
    assert tokens_of(model, POOLED) == {"query": 6, "projection": 6, "feed-forward": 6}
    assert [len(model.padding_free.last._projections)] == [3]  # type: ignore[union-attr, arg-type]
    # 6 + 9 + 8 − 2 of 35 tokens are more than half.
    assert set(tokens_of(model, {**POOLED, "tags": [0, 4]}).values()) == {35}
    # Whoever asks for no tasks may want the states.
    assert set(tokens_of(model, None).values()) == {35}
    model.watch = lambda name, states: None
    assert set(tokens_of(model, POOLED).values()) == {35}
    model.watch = None
    assert set(tokens_of(model, POOLED).values()) == {6}


def test_a_copy_in_another_precision_cuts_its_own_last_layer() -> None:
    model = fast("bert")
    narrow = NarrowEncoder(model, torch.float32)
    seen: list[int] = []
    narrow.encoder.encoder.layer[-1].output.register_forward_hook(lambda m, given, out: seen.append(out.shape[1]))
    for tasks in (POOLED, {**POOLED, "tags": [0, 4]}):
        given = batch(tasks)
        with torch.no_grad():
            expected, found = model(**given).logits, narrow(**given).logits
        assert all(torch.allclose(found[name], logits, atol=1e-6) for name, logits in expected.items())
    assert seen == [6, 35]


def test_layers_are_their_own_again_after_a_fault() -> None:
    model = fast("bert")
    layer = model.encoder.encoder.layer[-1]
    expected = run(model, POOLED)[0].logits["two"]

    def fails(*args: Any) -> None:
        raise ValueError("no memory")

    hook = layer.output.register_forward_hook(fails)
    with pytest.raises(ValueError, match="no memory"):
        run(model, POOLED)
    hook.remove()
    assert all("forward" not in vars(module) for module in layer.modules())
    assert torch.equal(run(model, POOLED)[0].logits["two"], expected)


@pytest.mark.parametrize("name", ["albert", "mpnet", "deberta-v3"])
def test_a_layer_that_is_called_again_and_an_encoder_with_padding_keep_all_tokens(name: str) -> None:
    model = fast(name)
    assert model.padding_free is None or model.padding_free.last is None
    whole = run(model_of(name).eval(), POOLED)[0].logits
    for task, logits in run(model, POOLED)[0].logits.items():
        torch.testing.assert_close(logits, whole[task], rtol=1e-5, atol=1e-5)


def test_every_architecture_of_the_list_is_one_of_those_tried() -> None:
    assert set(CUT) <= set(more_configs())
