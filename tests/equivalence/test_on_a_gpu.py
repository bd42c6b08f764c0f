"""On an NVIDIA GPU: attention without taking rows apart, no waiting inside a step, and the results of a CPU."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel, BertConfig, ModernBertConfig

from mtl_nlp.model import varlen
from mtl_nlp.model.attention import layout_of, packed_attention, packed_attention_forward
from mtl_nlp.model.padding_free import padding_free_path
from mtl_nlp.model.varlen import SHORT, mask_gap, varlen_attention, varlen_works

LENGTHS = [5, 40, 1, 17, 30, 9]
LONGER = [5, SHORT + 9, 1, 17, 30, 9]  # flash attention
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 99}
CONFIGS = {
    "bert": BertConfig(**SHAPE),
    "modernbert": ModernBertConfig(**SHAPE, **SPECIAL, local_attention=16, global_attn_every_n_layers=3),
}


@pytest.fixture(params=["short rows", "flash"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernel that attends to rows of up to `SHORT` tokens."""
    monkeypatch.setattr(varlen, "FEW", 0 if request.param == "short rows" else 10**9)
    return str(request.param)


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")


def batch(lengths: list[int] = LENGTHS) -> tuple[torch.Tensor, torch.Tensor]:
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(5, 99, mask.shape, generator=torch.Generator().manual_seed(0))
    return ids * mask, mask


def encoder_of(name: str) -> Any:
    torch.manual_seed(1)
    return AutoModel.from_config(copy.deepcopy(CONFIGS[name]), attn_implementation="sdpa").eval()


def test_a_layout_is_the_same_where_the_number_of_tokens_is_known() -> None:
    _, mask = batch()
    counted, told = layout_of(mask), layout_of(mask, tokens=sum(LENGTHS))
    for name in ("places", "positions", "ends"):
        assert torch.equal(getattr(counted, name), getattr(told, name))
    assert counted.ends.tolist() == [0, 5, 45, 46, 63, 93, 102]


def test_a_cpu_takes_rows_apart() -> None:
    assert not varlen_works(torch.device("cpu"), torch.bfloat16, 32)


def attended(states: Any, ends: torch.Tensor, width: int, dropout: float, scale: Any, causal: bool) -> torch.Tensor:
    """Row by row, with torch's dropout."""
    parts = []
    for begin, end in itertools.pairwise(ends.tolist()):
        q, k, v = (part[begin:end].float().transpose(0, 1) for part in states)
        weights = nn.functional.dropout((q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1), dropout)
        parts.append((weights @ v).transpose(0, 1))
    return torch.cat(parts).to(states[0].dtype)


class DrawnAgain(torch.autograd.Function):
    """Another mask in the backward pass than in the forward pass."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, *rest: Any) -> torch.Tensor:
        ctx.states, ctx.rest = (query, key, value), rest
        return attended(ctx.states, *rest)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        query, key, value = ctx.states
        with torch.enable_grad():
            again = value.detach().requires_grad_()
            found = torch.autograd.grad(attended((query, key, again), *ctx.rest), again, gradients[0])[0]
        return None, None, found, *[None] * len(ctx.rest)


def test_a_kernel_that_draws_another_mask_in_the_backward_pass_is_found_out() -> None:
    lengths = [7, 3, 12, 1, 40]
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    states = torch.randn(4, sum(lengths), 2, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    before = torch.get_rng_state()
    assert mask_gap(attended, states, ends) <= 0.01
    assert mask_gap(lambda states, *rest: DrawnAgain.apply(*states, *rest), states, ends) >= 0.3
    assert torch.equal(torch.get_rng_state(), before), "a run draws the same whether kernels are tried in it or not"


@on_a_gpu
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("lengths", [[5, 16, 1, 7], LENGTHS, LONGER])
@pytest.mark.parametrize(("causal", "window"), [(False, None), (False, 6), (True, None), (True, 6)])
def test_kernels_give_what_rows_taken_apart_give(causal: bool, window: int | None, lengths: list[int]) -> None:
    config = copy.deepcopy(CONFIGS["bert"])
    layout = layout_of(batch(lengths)[1].cuda())
    generator = torch.Generator().manual_seed(0)
    states = [torch.randn(1, 4, sum(lengths), 32, generator=generator) for _ in range(3)]
    weight = torch.randn(1, sum(lengths), 4, 32, generator=generator).cuda()
    assert varlen_works(torch.device("cuda", 0), torch.bfloat16, 32)

    def both(dtype: torch.dtype) -> list[torch.Tensor]:
        own = [part.to("cuda", dtype).requires_grad_() for part in states]
        with packed_attention(config, layout):
            out, _ = packed_attention_forward(torch.nn.Module(), *own, None, sliding_window=window, is_causal=causal)
        return [out.detach(), *torch.autograd.grad((out * weight).sum(), own)]

    found = both(torch.bfloat16)
    apart = both(torch.float32)  # for which there is no kernel
    for one, other in zip(found, apart, strict=True):
        assert float((one.float() - other).norm() / other.norm()) <= 0.01


@on_a_gpu
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("lengths", [[5, 16, 1, 7], LENGTHS, LONGER])
def test_kernels_take_heads_of_odd_widths_and_strided_states(lengths: list[int]) -> None:
    ends = torch.tensor([0, *lengths]).cumsum(0).to("cuda", torch.int32)
    whole = torch.randn(sum(lengths), 3, 4, 40, device="cuda", dtype=torch.bfloat16)
    found = varlen_attention(list(whole.unbind(1)), ends, max(lengths))
    expected = attended([part.contiguous() for part in whole.unbind(1)], ends, 0, 0.0, None, False)
    assert float((found.float() - expected.float()).norm() / expected.float().norm()) <= 0.01


@on_a_gpu
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", list(CONFIGS))
def test_compiled_layers_give_what_layers_give(name: str) -> None:
    plain, compiled = encoder_of(name).cuda(), encoder_of(name).cuda()
    paths = [padding_free_path(encoder) for encoder in (plain, compiled)]
    assert paths[1] is not None
    paths[1].compile_layers(torch.device("cuda", 0), torch.bfloat16)
    assert paths[1].tells_rows
    for lengths in (LENGTHS, LONGER, LENGTHS[:4]):
        ids, mask = (part.cuda() for part in batch(lengths))
        found = []
        for encoder, path in zip((plain, compiled), paths, strict=True):
            assert path is not None
            with torch.autocast("cuda", torch.bfloat16):
                out = path(ids, mask, tokens=sum(lengths)).float()
            weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).cuda()
            used = [p for p in encoder.parameters() if p.requires_grad]
            gradients = torch.autograd.grad((out * weight).sum(), used, allow_unused=True)
            found.append([out.detach(), *(one for one in gradients if one is not None)])
        for one, other in zip(*found, strict=True):
            if float(one.norm()) > 1e-3:
                assert float((one - other).norm() / one.norm()) <= 0.03


@on_a_gpu
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", list(CONFIGS))
def test_an_encoder_gives_on_a_gpu_what_it_gives_on_a_cpu(name: str) -> None:
    encoder, (ids, mask) = encoder_of(name), batch()
    path = padding_free_path(encoder)
    assert path is not None
    with torch.no_grad():
        expected = path(ids, mask)
        encoder.cuda()
        full = path(ids.cuda(), mask.cuda(), tokens=sum(LENGTHS)).cpu()
        with torch.autocast("cuda", torch.bfloat16):
            half = path(ids.cuda(), mask.cuda(), tokens=sum(LENGTHS)).float().cpu()
    assert float((full - expected).abs().max()) <= 1e-4
    assert float((half - expected).norm() / expected.norm()) <= 0.02


@on_a_gpu
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", list(CONFIGS))
def test_gradients_on_a_gpu_are_those_of_a_cpu(name: str) -> None:
    ids, mask = batch()
    weight = torch.randn(*mask.shape, 64, generator=torch.Generator().manual_seed(0))
    found = []
    for device in ("cpu", "cuda"):
        encoder = encoder_of(name)
        path = padding_free_path(encoder)
        assert path is not None
        encoder.to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            out = path(ids.to(device), mask.to(device), tokens=sum(LENGTHS))
        gradients = torch.autograd.grad(
            (out.float() * weight.to(device)).sum(), list(encoder.parameters()), allow_unused=True
        )
        found.append([None if one is None else one.cpu() for one in gradients])
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None and float(one.norm()) > 1e-3:
            assert float((one - other).norm() / one.norm()) <= 0.05


@on_a_gpu
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("name", list(CONFIGS))
def test_nothing_is_waited_for_where_the_number_of_tokens_is_known(name: str) -> None:
    encoder = encoder_of(name).cuda().train()
    path = padding_free_path(encoder)
    assert path is not None
    ids, mask = (part.cuda() for part in batch())

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            path(ids, mask, tokens=sum(LENGTHS)).sum().backward()

    step()  # kernels are loaded, flash attention is tried
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_a_gpu
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("lengths", [LENGTHS, LONGER])
def test_dropout_of_kernels_follows_torchs_generator(lengths: list[int]) -> None:
    config, layout = copy.deepcopy(CONFIGS["bert"]), layout_of(batch(lengths)[1].cuda())
    states = torch.randn(1, 4, sum(lengths), 32, device="cuda", dtype=torch.bfloat16)

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        with packed_attention(config, dataclasses.replace(layout)):
            return packed_attention_forward(torch.nn.Module(), states, states, states, None, dropout=0.3)[0]

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


@on_a_gpu
@pytest.mark.usefixtures("kernel")
def test_what_the_forward_pass_drops_the_backward_pass_drops() -> None:
    """Under one seed the output is linear in the values: moving them moves it as the gradient says, if the masks are the same."""
    ends = torch.tensor([0, *LENGTHS]).cumsum(0).to("cuda", torch.int32)
    query, key, values, weight, move = torch.randn(5, sum(LENGTHS), 4, 32, device="cuda").to(torch.bfloat16)

    def drawn(given: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return varlen_attention([query, key, given], ends, max(LENGTHS), 0.3)

    values.requires_grad_()
    gradient = torch.autograd.grad((drawn(values) * weight).sum(), values)[0]
    for row in range(0, sum(LENGTHS), 7):
        one = torch.zeros_like(move)
        one[row] = move[row]
        told = (gradient.float() * one.float()).sum()
        assert float((drawn(one).float() * weight.float()).sum() - told) == pytest.approx(
            0.0, abs=0.05 * float(told.abs()) + 0.2
        )
