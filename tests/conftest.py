"""Fixtures: a tiny encoder and tokenizer on disk, small local data, no network."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MTL_NLP_CACHE"] = "off"

import pytest

WORDS = """
the a i we you not very good bad great awful fine film food staff delivery order refund please want
cancel where is my parcel in on at from to and but was were anna bob london paris acme corp flight
book play song weather tomorrow today what who when how much does cost it this that never always
love hate like slow fast late early box phone screen
""".split()


def build_tokenizer(folder: Path, words: list[str] = WORDS) -> Any:
    """A small WordPiece tokenizer, BERT style, lower-casing."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)] + list("0123456789.,!?'-@#/:")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *words]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer BERT of random weights and its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = build_tokenizer(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_conll(path: Path, sentences: list[list[tuple[str, str]]]) -> Path:
    """Sentences of (word, tag) as CoNLL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["".join(f"{word}\t{tag}\n" for word, tag in sentence) for sentence in sentences]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


SENTIMENT = [
    {"text": "the film was great", "label": "positive"},
    {"text": "i love this song", "label": "positive"},
    {"text": "the staff was very good", "label": "positive"},
    {"text": "what a great box", "label": "positive"},
    {"text": "the food was awful", "label": "negative"},
    {"text": "i hate this slow delivery", "label": "negative"},
    {"text": "my order was late and bad", "label": "negative"},
    {"text": "not good at all", "label": "negative"},
] * 4

ENTITIES = [
    [("anna", "B-PER"), ("is", "O"), ("in", "O"), ("london", "B-LOC")],
    [("bob", "B-PER"), ("was", "O"), ("at", "O"), ("acme", "B-ORG"), ("corp", "I-ORG")],
    [("a", "O"), ("flight", "O"), ("from", "O"), ("paris", "B-LOC"), ("to", "O"), ("london", "B-LOC")],
    [("where", "O"), ("is", "O"), ("my", "O"), ("parcel", "O"), ("?", "O")],
] * 6


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with `sent` (JSONL) and `ner` (CoNLL): train, validation and test."""
    for split, size in (("train", 32), ("validation", 8), ("test", 8)):
        write_jsonl(tmp_path / "sent" / f"{split}.jsonl", SENTIMENT[:size])
        write_conll(tmp_path / "ner" / f"{split}.conll", ENTITIES[:size])
    return tmp_path


@pytest.fixture
def recipe(data: Path, tiny_encoder: Path) -> dict[str, Any]:
    """Two tasks on local data, ready for `make_recipe(recipe, base=data)`."""
    return {
        "encoder": str(tiny_encoder),
        "tasks": [
            {
                "name": "sent",
                "head": "sequence_classification",
                "data": {"source": str(data / "sent"), "columns": {"text": "text", "label": "label"}},
            },
            {
                "name": "ner",
                "head": "token_classification",
                "data": {"source": str(data / "ner"), "columns": {"tokens": "tokens", "labels": "labels"}},
            },
        ],
        "mixture": {"batch": 8},
        "training": {
            "max_steps": 6,
            "learning_rate": 1e-3,
            "logging_steps": 2,
            "save_strategy": "no",
            "eval_strategy": "no",
        },
        "output_dir": str(data / "run"),
    }
