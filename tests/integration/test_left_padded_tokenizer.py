"""A causal encoder whose tokenizer pads on the left and has no special tokens: trained and asked as any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2Model, PreTrainedTokenizerFast

from mtl_nlp import Predictor, finetune
from mtl_nlp.recipe import make_recipe
from mtl_nlp.training.prepare import prepare
from tests.conftest import SENTIMENT, WORDS, write_jsonl


@pytest.fixture
def causal(tmp_path: Path) -> dict[str, Any]:
    words = ["<end>", "<unk>", *WORDS]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(words))}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        eos_token="<end>",
        pad_token="<end>",
        padding_side="left",
        model_max_length=32,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.save_pretrained(tmp_path / "gpt")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=32)
    GPT2Model(config).save_pretrained(tmp_path / "gpt")
    rows = [{"text": "", "label": "negative"}, *SENTIMENT[:8]]
    for split in ("train", "validation"):
        write_jsonl(tmp_path / "sent" / f"{split}.jsonl", rows)
    data = {"source": str(tmp_path / "sent"), "columns": {"text": "text", "label": "label"}}
    return {
        "encoder": str(tmp_path / "gpt"),
        "tasks": [{"name": "sent", "head": "sequence_classification", "data": data}],
        "mixture": {"batch": 4},
        "training": {"max_steps": 3, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path / "run"),
    }


def test_an_empty_text_is_a_row_of_one_token_in_training(causal: dict[str, Any]) -> None:
    prepared = prepare(make_recipe(causal))
    assert prepared.encoded["train"]["sent"].rows[0]["input_ids"] == [prepared.tokenizer.eos_token_id]
    assert prepared.tokenizer.padding_side == "right"


def test_answers_do_not_depend_on_padding(causal: dict[str, Any]) -> None:
    result = finetune(causal)
    predictor = Predictor.from_pretrained(result.folder)
    texts = ["", "good", "i hate this slow delivery and the food was awful today"]
    together = [one["predictions"]["sent"]["score"] for one in predictor(texts)]
    alone = [predictor([text])[0]["predictions"]["sent"]["score"] for text in texts]
    assert together == pytest.approx(alone, abs=1e-6)
