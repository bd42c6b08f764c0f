"""The fast paths give what the plain ones give: no padding, a kept embedding gradient, dropout from other bits."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, chisquare
from torch import nn
from transformers import AutoModel, BertConfig, EsmConfig, ModernBertConfig

from mtl_nlp.model import attention
from mtl_nlp.model.attention import layout_of
from mtl_nlp.model.dropout import FastDropout, MaskSource, install_fast_dropout
from mtl_nlp.model.padding_free import padding_free_path
from mtl_nlp.training.embedding_gradient import RowGradient, keep_row_gradient

from .architectures import configs

# They compute attention themselves: without padding they run, and give something else.
PADDED = {"mpnet", "deberta-v2"}


def encoder_of(config: Any) -> Any:
    torch.manual_seed(1)
    return AutoModel.from_config(copy.deepcopy(config), attn_implementation="eager").eval()


def batch_of(lengths: list[int], *, left: bool = False, width: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng, width = np.random.default_rng(2), max(width, *lengths)
    ids, mask = np.zeros((len(lengths), width), dtype=np.int64), np.zeros((len(lengths), width), dtype=np.int64)
    for row, length in enumerate(lengths):
        places = slice(width - length, width) if left else slice(0, length)
        ids[row, places], mask[row, places] = rng.integers(5, 99, length), 1
    return torch.tensor(ids), torch.tensor(mask)


@pytest.mark.parametrize("name", list(configs()))
def test_without_padding_outputs_and_gradients_are_those_of_the_padded_path(name: str) -> None:
    encoder = encoder_of(configs()[name])
    path = padding_free_path(encoder)
    assert (path is None) == (name in PADDED)
    if path is None:
        return
    ids, mask = batch_of([5, 17, 1, 17, 30, 9], width=34)
    padded = encoder(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    packed = path(ids, mask)
    assert float((padded - packed).detach().abs().max()) <= 1e-5
    weight = torch.randn(padded.shape, generator=torch.Generator().manual_seed(0))
    grads = [
        torch.autograd.grad((out * weight).sum() / 100, list(encoder.parameters()), allow_unused=True)
        for out in (padded, packed)
    ]
    for one, other in zip(*grads, strict=True):
        assert (one is None) == (other is None)
        assert one is None or float((one - other).abs().max()) <= 1e-5


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("name", [name for name in configs() if name not in PADDED])
def test_a_text_may_hold_the_padding_token(name: str, padding: int) -> None:
    """RoBERTa and its relatives do not count it, and give it the position of padding."""
    config = configs()[name]
    config.pad_token_id = padding
    encoder = encoder_of(config)
    path = padding_free_path(encoder)
    assert path is not None
    assert path.uncounted == (padding if "roberta" in name or name == "camembert" else None)
    ids, mask = batch_of([5, 17, 2, 1, 30, 9], width=34)
    ids = torch.where(mask.bool(), ids, padding)
    for row, place in ((0, 2), (1, 5), (1, 6), (1, 16), (2, 1), (3, 0), (4, 0), (4, 11)):
        ids[row, place] = padding
    padded = encoder(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    assert float((padded - path(ids, mask)).detach().abs().max()) <= 1e-5


def test_an_encoder_that_counts_the_masks_of_a_row_keeps_the_padding() -> None:
    """ESM scales a row by its share of masks, which in one sequence would be that of all rows."""
    size = {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    for counts in (True, False):
        config = EsmConfig(**size, **off, pad_token_id=1, mask_token_id=4, token_dropout=counts)
        assert (padding_free_path(encoder_of(config)) is None) is counts


def test_a_sliding_window_is_kept_inside_a_row() -> None:
    config = ModernBertConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        vocab_size=99,
        local_attention=8,
        global_attn_every_n_layers=3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    )
    encoder = encoder_of(config)
    path = padding_free_path(encoder)
    assert path is not None
    ids, mask = batch_of([40, 3, 11, 25])
    padded = encoder(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    assert float((padded - path(ids, mask)).abs().max()) <= 1e-5


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_long_rows_go_through_torchs_fused_attention_and_give_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(configs()[name])
    path = padding_free_path(encoder)
    assert path is not None
    ids, mask = batch_of([40, 3, 11, 25])
    expected = path(ids, mask)
    monkeypatch.setattr(attention, "LONG", 10)
    assert float((expected - path(ids, mask)).detach().abs().max()) <= 1e-5


def test_an_encoder_that_reads_the_padding_keeps_it() -> None:
    """What decides is the comparison of outputs: here an encoder whose positions begin elsewhere than either that is tried."""
    encoder = encoder_of(configs()["bert"])
    embeddings, inner = encoder.embeddings, encoder.embeddings.forward

    def reversed_positions(**given: Any) -> Any:
        ids = given["input_ids"]
        width = ids.shape[1]
        return inner(**{**given, "position_ids": torch.arange(width).flip(0)[None]})

    embeddings.forward = reversed_positions
    assert padding_free_path(encoder) is None


def test_the_layout_of_a_small_batch() -> None:
    layout = layout_of(torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]]))
    assert layout.places.tolist() == [0, 1, 4, 5, 6, 7, 8, 12, 13, 14, 15]
    assert layout.positions.tolist() == [[0, 1, 0, 1, 2, 3, 0, 0, 1, 2, 3]]
    assert [(group.rows, group.width, group.bias) for group in layout.slots.groups] == [
        (2, 4, None),
        (1, 2, None),
        (1, 1, None),
    ]
    assert layout.slots.tokens.tolist() == [2, 3, 4, 5, 7, 8, 9, 10, 0, 1, 6]
    assert layout.slots.homes.tolist() == [8, 9, 0, 1, 2, 3, 10, 4, 5, 6, 7]


def test_rows_of_similar_length_share_a_group_and_hide_what_is_beyond_their_end() -> None:
    layout = layout_of((torch.arange(5) < torch.tensor([[4], [5]])).long())
    assert [(group.rows, group.width) for group in layout.slots.groups] == [(2, 5)]
    bias = layout.slots.groups[0].bias
    assert bias is not None
    # The longer row stands first.
    assert bias[:, 0, 0].tolist() == [[0.0] * 5, [0.0] * 4 + [float("-inf")]]
    assert layout.slots.homes.tolist() == [5, 6, 7, 8, 0, 1, 2, 3, 4]


def test_padding_on_the_left_is_left_out_too() -> None:
    encoder = encoder_of(configs()["bert"])
    path = padding_free_path(encoder)
    assert path is not None
    right, left = batch_of([5, 17, 9]), batch_of([5, 17, 9], left=True)
    on_right = path(*right)[right[1].bool()]
    on_left = path(*left)[left[1].bool()]
    assert torch.equal(on_right, on_left)


def test_a_kept_row_gradient_trains_the_same_table() -> None:
    def train(kept: bool) -> torch.Tensor:
        torch.manual_seed(0)
        table, head = nn.Embedding(50, 8, padding_idx=0), nn.Linear(8, 3)
        if kept:
            RowGradient(table)
        optimizer = torch.optim.AdamW([*table.parameters(), *head.parameters()], lr=0.05, weight_decay=0.1)
        generator = torch.Generator().manual_seed(1)
        for step in range(12):
            for _ in range(1 + step % 3):  # accumulation
                ids = torch.randint(0, 20 + step, (4, 6), generator=generator)
                nn.functional.cross_entropy(head(table(ids)).mean(1), ids[:, 0] % 3).backward()
            torch.nn.utils.clip_grad_norm_([*table.parameters(), *head.parameters()], 0.05)
            optimizer.step()
            optimizer.zero_grad(set_to_none=step % 4 != 3)
        return table.weight.detach()

    assert torch.allclose(train(kept=False), train(kept=True), atol=1e-6, rtol=0)


def test_tied_or_frozen_embeddings_keep_their_own_gradient() -> None:
    class Holder:
        def __init__(self, tied: dict[str, str], trained: bool) -> None:
            self.table = nn.Embedding(5, 2)
            self.table.weight.requires_grad_(trained)
            self.all_tied_weights_keys = tied

        def get_input_embeddings(self) -> nn.Embedding:
            return self.table

    assert keep_row_gradient(Holder({}, True))
    assert not keep_row_gradient(Holder({"head.decoder": "table"}, True))
    assert not keep_row_gradient(Holder({}, False))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_mask_drops_with_its_probability_and_scales_the_rest(p: float, dtype: torch.dtype) -> None:
    mask = MaskSource(7).scale((400, 257), p, dtype)
    kept = mask != 0
    assert set(mask.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p), dtype=dtype).item()}
    assert binomtest(int((~kept).sum()), kept.numel(), p).pvalue > 1e-3
    # Neighbours, and the four sixteen-bit parts of one draw, are independent: all sixteen patterns as often as they should be.
    four = kept.reshape(-1)[: kept.numel() // 4 * 4].view(-1, 4).int()
    pattern = (four * torch.tensor([8, 4, 2, 1])).sum(1)
    expected = [p ** (4 - bin(i).count("1")) * (1 - p) ** bin(i).count("1") * len(four) for i in range(16)]
    assert chisquare(np.bincount(pattern.numpy(), minlength=16), expected).pvalue > 1e-3


def test_masks_are_keyed_by_seed_step_and_process() -> None:
    def drawn(*key: int) -> torch.Tensor:
        source = MaskSource()
        source.restart(*key)
        return source.scale((64,), 0.5, torch.float32)

    assert torch.equal(drawn(13, 4, 0, 0), drawn(13, 4, 0, 0))
    others = [drawn(13, 5, 0, 0), drawn(13, 4, 1, 0), drawn(13, 4, 0, 1), drawn(14, 4, 0, 0)]
    assert not any(torch.equal(drawn(13, 4, 0, 0), other) for other in others)


def test_every_plain_dropout_is_replaced_and_silent_in_evaluation() -> None:
    model = AutoModel.from_config(BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, vocab_size=99))
    names = list(model.state_dict())
    plain = [name for name, module in model.named_modules() if type(module) is nn.Dropout]
    assert plain
    assert install_fast_dropout(model, MaskSource(1)) == len(plain)
    assert list(model.state_dict()) == names
    assert {name for name, module in model.named_modules() if isinstance(module, FastDropout)} == set(plain)
    layer, x = FastDropout(0.5, MaskSource(1)), torch.ones(8, 8, requires_grad=True)
    assert torch.equal(layer.eval()(x), x)
    out = layer.train()(x)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())  # the same mask forward and backward
