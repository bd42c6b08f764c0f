"""Layers compiled around attention as an operator, which gets kernels for a CPU here (on a GPU: `test_on_a_gpu`)."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.backends.debugging import aot_eager
from transformers import AutoModel, BertConfig, ModernBertConfig

from mtl_nlp.model import padding_free
from mtl_nlp.model.padding_free import padding_free_path
from mtl_nlp.model.rows_operator import EVERYTHING, rows_attention, rows_attention_backward

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 99}
CONFIGS = {
    "bert": BertConfig(**SHAPE),
    "modernbert": ModernBertConfig(**SHAPE, **SPECIAL, local_attention=16, global_attn_every_n_layers=3),
}


def rows(states: Any, ends: torch.Tensor, scale: float, causal: bool, window: int) -> Iterator[tuple[Any, ...]]:
    """Row by row, [h, n, d] of queries, keys, values and more, behind the attention weights [h, n, n]."""
    for begin, end in itertools.pairwise(ends.tolist()):
        q, k, *more = (part[begin:end].transpose(0, 1).float() for part in states)
        apart = torch.arange(end - begin)[:, None] - torch.arange(end - begin)
        seen = apart >= 0 if causal else torch.ones_like(apart, dtype=torch.bool)
        seen = seen if window == EVERYTHING else seen & (apart.abs() < window)
        yield (q @ k.transpose(1, 2) * scale).masked_fill(~seen, float("-inf")).softmax(-1), q, k, *more


def together(parts: list[torch.Tensor], like: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.transpose(0, 1) for part in parts]).to(like.dtype)


@rows_attention.register_kernel("cpu")
def _(q: Any, k: Any, v: Any, ends: Any, width: int, dropout: float, *rest: Any) -> Any:
    assert width >= int(ends.diff().max())
    assert dropout == 0
    out = together([weights @ values for weights, _, _, values in rows((q, k, v), ends, *rest)], q)
    return out, torch.zeros(q.shape[1], len(q)), torch.zeros(2, dtype=torch.int64), torch.tensor(0)


@rows_attention_backward.register_kernel("cpu")
def _(gradient: Any, q: Any, k: Any, v: Any, ends: Any, *rest: Any) -> Any:
    *_, scale, causal, window = rest
    by_query, by_key, by_value = [], [], []
    for weights, query, key, value, given in rows((q, k, v, gradient), ends, scale, causal, window):
        by_weights = given @ value.transpose(1, 2)
        by_scores = weights * (by_weights - (weights * by_weights).sum(-1, keepdim=True)) * scale
        by_query.append(by_scores @ key)
        by_key.append(by_scores.transpose(1, 2) @ query)
        by_value.append(weights.transpose(1, 2) @ given)
    return together(by_query, q), together(by_key, k), together(by_value, v)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(padding_free, "varlen_works", lambda *kind: kind[-1] > 0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def encoders(name: str) -> list[Any]:
    torch.manual_seed(1)
    encoder = AutoModel.from_config(copy.deepcopy(CONFIGS[name]), attn_implementation="sdpa").eval()
    return [encoder, copy.deepcopy(encoder)]


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_compiled_layer_is_one_graph_and_gives_what_the_layer_gives(name: str) -> None:
    plain, compiled = encoders(name)
    paths = [padding_free_path(encoder) for encoder in (plain, compiled)]
    assert paths[0] is not None
    assert paths[1] is not None
    calls: list[list[str]] = []  # of operators, by graph

    def backend(graph: Any, inputs: Any, **options: Any) -> Any:
        calls.append([str(node.target) for node in graph.graph.nodes if node.op == "call_function"])
        return aot_eager(graph, inputs, **options)

    paths[1].compile_layers(torch.device("cpu"), torch.bfloat16, backend=backend)
    assert paths[1].tells_rows
    graphs = []
    for lengths in ([5, 40, 1, 17], [3, 30, 30], [9, 12, 8, 7, 6], [2, 20]):
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
        ids = torch.randint(5, 99, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
        found = []
        for encoder, path in zip((plain, compiled), paths, strict=True):
            with torch.autocast("cpu", torch.bfloat16):
                out = path(ids, mask, tokens=sum(lengths)).float()
            weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0))
            gradients = torch.autograd.grad((out * weight).sum(), list(encoder.parameters()), allow_unused=True)
            found.append([out.detach(), *(one for one in gradients if one is not None)])
        assert len(found[0]) == len(found[1])
        for one, other in zip(*found, strict=True):
            assert float((one - other).norm()) <= 0.03 * float(one.norm()) + 1e-3
        graphs.append(len(calls))
    assert [sum("rows_attention" in call for call in graph) for graph in calls] == [1] * graphs[0]
    assert graphs == graphs[:1] * 4, "graphs after each batch"


def test_states_without_a_kernel_are_attended_to_as_where_nothing_is_compiled() -> None:
    paths = [padding_free_path(encoder) for encoder in encoders("bert")]
    assert paths[0] is not None
    assert paths[1] is not None
    paths[1].compile_layers(torch.device("cpu"), torch.bfloat16, backend="aot_eager")
    assert paths[1].tells_rows
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    ids = torch.randint(5, 99, mask.shape, generator=torch.Generator().manual_seed(0)) * mask
    one, other = (path(ids, mask) for path in paths if path is not None)  # in float32
    assert torch.allclose(one, other, atol=1e-6)
