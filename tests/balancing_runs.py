"""Runs of every balancing method on a tiny encoder without dropout: three tasks, two of them on the same texts.

As a program (`python -m tests.balancing_runs FOLDER`, also under torchrun) it trains each method for a few steps and writes the
weights to `FOLDER/METHOD.safetensors`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.conftest import build_tokenizer, write_jsonl

NAMES, GOOD, BAD = ["anna", "bob"], ["great", "good", "fine"], ["awful", "bad", "slow"]
WEIGHTINGS: dict[str, dict[str, Any]] = {
    name: {"weighting": name} for name in ("fixed", "chance", "random", "uncertainty", "gradnorm", "famo")
} | {"dwa": {"weighting": {"name": "dwa", "every": 2}}}
AGGREGATORS: dict[str, dict[str, Any]] = {
    name: {"gradients": name} for name in ("pcgrad", "cagrad", "mgda", "imtl_g", "aligned_mtl", "nash_mtl", "upgrad")
}
BOTH = {"uncertainty+upgrad": {"weighting": "uncertainty", "gradients": "upgrad"}}
ON_REPRESENTATION = {
    f"{name}@representation": {"gradients": name, "on": "representation"} for name in ("pcgrad", "mgda", "aligned_mtl")
}
METHODS = WEIGHTINGS | AGGREGATORS | BOTH


def still_encoder(folder: Path) -> Path:
    """A two-layer BERT without dropout and its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = build_tokenizer(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **off)
    BertModel(config).save_pretrained(folder)
    return folder


def write_data(folder: Path) -> Path:
    """`mood` alone, and `both` with a label and spans on its texts (some lack one of them)."""
    mood = [
        {"text": f"the {thing} was {word}", "label": "up" if word in GOOD else "down"}
        for thing in ("film", "food", "box", "phone")
        for word in (*GOOD, *BAD)
    ]
    both = []
    for i, name in enumerate(NAMES * 12):
        word = (*GOOD, *BAD)[i % 6]
        spans = [{"start": 0, "end": len(name), "label": "PER"}] if i % 5 else None
        both.append({"text": f"{name} was {word} at the {i}", "label": word if i % 3 else None, "spans": spans})
    for split in ("train", "validation"):
        write_jsonl(folder / "mood" / f"{split}.jsonl", mood)
        write_jsonl(folder / "both" / f"{split}.jsonl", both)
    return folder


def recipe_of(encoder: Path, data: Path, output: Path, balancing: dict[str, Any], **training: Any) -> dict[str, Any]:
    """Four steps of eight texts."""
    both, columns = str(data / "both"), {"text": "text"}
    tasks = [
        {
            "name": "mood",
            "head": "sequence_classification",
            "data": {"source": str(data / "mood"), "columns": {**columns, "label": "label"}},
        },
        {
            "name": "word",
            "head": "sequence_classification",
            "data": {"source": both, "columns": {**columns, "label": "label"}},
        },
        {
            "name": "people",
            "head": "token_classification",
            "data": {"source": both, "columns": {**columns, "spans": "spans"}},
        },
    ]
    plain = {"max_steps": 4, "learning_rate": 1e-3, "adam_epsilon": 1e-6, "optim": "adamw_torch"}
    plain |= {"save_strategy": "no", "eval_strategy": "no", "logging_steps": 1, "disable_tqdm": True}
    return {
        "encoder": str(encoder),
        "tasks": tasks,
        "mixture": {"batch": 8},
        "balancing": balancing,
        "training": {**plain, **training},
        "output_dir": str(output),
    }


@cache
def prepared(encoder: Path, data: Path) -> Any:
    """The data, read once for all runs."""
    from mtl_nlp.recipe import make_recipe
    from mtl_nlp.training.prepare import prepare

    return prepare(make_recipe(recipe_of(encoder, data, data / "run", {})))


def trained(
    encoder: Path, data: Path, output: Path, balancing: dict[str, Any], *, resume: Path | None = None, **training: Any
) -> Any:
    """The trainer after its run."""
    from mtl_nlp.recipe import make_recipe
    from mtl_nlp.training.finetune import build_trainer

    wanted = make_recipe(recipe_of(encoder, data, output, balancing, **training))
    trainer = build_trainer(replace(prepared(encoder, data), recipe=wanted))
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return trainer


def main(folder: Path) -> None:
    """Train every method and save its weights."""
    from safetensors.torch import save_file

    for name, balancing in (METHODS | ON_REPRESENTATION).items():
        trainer = trained(folder / "encoder", folder / "data", folder / "run", {**balancing, "cosine_steps": 3})
        if trainer.args.should_save:
            world = trainer.args.world_size
            state = {key: value.contiguous().clone() for key, value in trainer.multi.state_dict().items()}
            save_file(state, folder / f"{name}-{world}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
