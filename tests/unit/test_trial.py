"""An encoder is tried out before it is used: one that cannot run is refused, one that minds its neighbours is told of."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, BertConfig, ConvBertConfig, NystromformerConfig, YosoConfig

from mtl_nlp import finetune
from mtl_nlp.errors import UserError
from mtl_nlp.model import trial
from mtl_nlp.model.padding_free import padding_free_path
from mtl_nlp.model.trial import check_encoder, probe
from tests.conftest import build_tokenizer
from tests.equivalence.architectures import OFF, SMALL, more_configs

COMMON = {**SMALL, **OFF, "vocab_size": 99, "pad_token_id": 0, "max_position_embeddings": 64}
DEPENDENT = {
    "NystromformerModel": NystromformerConfig(**COMMON, num_landmarks=64, segment_means_seq_len=64),
    "ConvBertModel": ConvBertConfig(**COMMON, embedding_size=32),
    "YosoModel": YosoConfig(**COMMON),
}
BROKEN = (
    r"^(recipe: )?encoder: NystromformerModel cannot encode a small batch: RuntimeError: shape .* is invalid for input of size \d+ "
    r"\(mend its config\.json, or choose another encoder\)$"
)


def encoder_of(config: Any) -> Any:
    """With weights three times as large as fresh ones, nearer to those of a trained encoder."""
    torch.manual_seed(1)
    encoder = AutoModel.from_config(copy.deepcopy(config), attn_implementation="eager")
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter *= 3 if parameter.dim() == 2 else 1
    return encoder


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_warned", set())


@pytest.mark.parametrize("name", list(DEPENDENT))
def test_an_encoder_whose_rows_depend_on_their_neighbours_is_told_of_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "mtl_nlp"):
        assert padding_free_path(encoder_of(DEPENDENT[name])) is None
        check_encoder(encoder_of(DEPENDENT[name]))
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"encoder: the answers of {name} depend on what a text is batched with (alone or padded")
    assert float(message.split("differ by ")[1].split(" ")[0]) > 1e-3


@pytest.mark.parametrize("name", list(more_configs()))
def test_of_the_others_nothing_is_said(name: str, caplog: pytest.LogCaptureFixture) -> None:
    encoder = encoder_of(more_configs()[name]).train()
    with caplog.at_level(logging.WARNING, "mtl_nlp"):
        check_encoder(encoder)
        padding_free_path(encoder)
    assert not caplog.records
    assert encoder.training


def test_one_that_cannot_run_is_one_fault() -> None:
    encoder = encoder_of(NystromformerConfig(**COMMON, num_landmarks=8, segment_means_seq_len=64))
    for look in (padding_free_path, check_encoder):
        with pytest.raises(UserError, match=BROKEN):
            look(encoder)


@pytest.mark.parametrize("more", [{"performance": "auto"}, {"performance": "plain"}, {"conditioning": "film"}], ids=str)
def test_training_on_it_is_refused(more: dict[str, Any], recipe: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    size = {"vocab_size": len(build_tokenizer(folder)), "num_landmarks": 8, "segment_means_seq_len": 64}
    encoder_of(NystromformerConfig(**{**COMMON, **size})).save_pretrained(folder)
    with pytest.raises(UserError, match=BROKEN):
        finetune({**recipe, "encoder": str(folder), **more})


def test_the_batch_fits_an_encoder_of_few_positions() -> None:
    encoder = encoder_of(BertConfig(**{**COMMON, "max_position_embeddings": 8}))
    ids, mask = probe(encoder)
    assert ids.shape == mask.shape == (4, 6)
    assert mask.sum(1).tolist() == [6, 3, 6, 1]
    assert padding_free_path(encoder) is not None


def test_the_batch_holds_padding_and_a_mask_among_real_tokens() -> None:
    encoder = encoder_of(BertConfig(**COMMON))
    encoder.config.mask_token_id = 4
    ids, mask = probe(encoder)
    assert mask.sum(1).tolist() == [7, 3, 12, 1]
    assert ids[2, 8:10].tolist() == [0, 4]
    assert int(((ids == 0) & mask.bool()).sum()) == 1
