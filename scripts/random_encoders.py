"""Encoders of known shapes with random weights, for measuring speed where no weights can be fetched; MiniLM's tokenizer."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from mtl_nlp.model.encoder import load_tokenizer
from mtl_nlp.recipe import EncoderSpec

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# Layers and widths of google-bert/bert-base-uncased and answerdotai/ModernBERT-base; the last one is small, for long texts.
SHAPES: dict[str, dict[str, Any]] = {
    "bert-base": {},
    "modernbert-base": {"vocab_size": 50368},
    "modernbert-small": {
        "hidden_size": 384,
        "intermediate_size": 576,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "max_position_embeddings": 16384,
    },
}
NAMES = ("minilm", *SHAPES)


def encoder(name: str) -> str:
    """What a recipe's `encoder` is to be: MiniLM, or a folder with an encoder of that shape, made once."""
    if name == "minilm":
        return MINILM
    folder = Path(tempfile.gettempdir()) / f"mtl-nlp-bench-{name}"
    if (folder / "config.json").is_file():
        return str(folder)
    tokenizer = load_tokenizer(EncoderSpec(name=MINILM), Path(), given_words=False)
    shape = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **SHAPES[name]}
    torch.manual_seed(0)
    if name.startswith("modernbert"):
        first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
        special = {"cls_token_id": first, "bos_token_id": first, "sep_token_id": last, "eos_token_id": last}
        config: Any = transformers.ModernBertConfig(**shape, **special)
    else:
        config = transformers.BertConfig(**shape)
    tokenizer.model_max_length = config.max_position_embeddings
    made = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    transformers.AutoModel.from_config(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    os.replace(made, folder)
    return str(folder)


def encoder_weights(model: Any) -> int:
    """Weights of an encoder's matrices, of which each takes part in 2 operations a token forward and 4 backward."""
    return sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and "embedding" not in name)
