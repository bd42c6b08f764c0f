"""Two processes see the stream of one and take its steps, with whole parameters (DDP) and with sharded ones (FSDP)."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mtl_nlp import Predictor
from mtl_nlp.errors import FaultyInput
from mtl_nlp.recipe import make_recipe
from mtl_nlp.schema import dump_yaml
from mtl_nlp.training.arguments import check_training
from mtl_nlp.training.finetune import finetune
from mtl_nlp.training.sharding import check_processes
from tests.conftest import ENTITIES, SENTIMENT, write_conll, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
ON_CPU = str(ROOT / "tests" / "integration" / "fsdp_on_cpu.py")
TELLING = str(ROOT / "tests" / "integration" / "threads_at_exit.py")
STEPS = 12


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def train(recipe: Path, output: Path, processes: int, *more: str, script: Sequence[str] = ("-m", "mtl_nlp")) -> str:
    launcher = ["torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port())]
    command = [sys.executable, "-m", *launcher, *script, "train", str(recipe), "--output", str(output), *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stderr


def train_sharded(recipe: Path, output: Path, *more: str) -> None:
    train(recipe, output, 2, "--set", "training.fsdp=true", *more, script=(ON_CPU,))


@pytest.fixture(scope="module")
def folder(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe without dropout: weighted classes, a CRF, a task so rare that most batches of a process lack it."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    made = tmp_path_factory.mktemp("distributed")
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    torch.manual_seed(0)
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **settings, **off)
    BertModel(config).save_pretrained(made / "still")
    tokenizer.save_pretrained(made / "still")
    for split, size in (("train", 32), ("validation", 8)):
        write_jsonl(made / "sent" / f"{split}.jsonl", SENTIMENT[:size])
        write_conll(made / "ner" / f"{split}.conll", ENTITIES[:size])
        write_jsonl(made / "rare" / f"{split}.jsonl", SENTIMENT[2:6] if split == "train" else SENTIMENT[:7])
    (made / "recipe.yaml").write_text(dump_yaml(recipe_of(made)), encoding="utf-8")
    return made


def recipe_of(folder: Path) -> dict[str, Any]:
    def task(name: str, head: str, columns: dict[str, str], **more: Any) -> dict[str, Any]:
        return {"name": name, "head": head, "data": {"source": str(folder / name), "columns": columns}, **more}

    one, words = {"text": "text", "label": "label"}, {"tokens": "tokens", "labels": "labels"}
    return {
        "encoder": str(folder / "still"),
        "tasks": [
            task("sent", "sequence_classification", one, loss={"class_weights": {"positive": 3.0}}),
            task("ner", "token_classification_crf", words),
            task("rare", "sequence_classification", one),
        ],
        "mixture": {"batch": 8},
        "training": {
            "max_steps": STEPS,
            "learning_rate": 1e-3,
            "adam_epsilon": 1e-6,
            "optim": "adamw_torch",
            "eval_strategy": "steps",
            "eval_steps": 4,
            "save_strategy": "steps",
            "save_steps": 4,
            "save_total_limit": 5,
            "logging_steps": 4,
            "per_device_eval_batch_size": 3,
            "load_best_model_at_end": False,
        },
    }


@pytest.fixture(scope="module")
def one(folder: Path) -> Path:
    train(folder / "recipe.yaml", folder / "one", 1)
    return folder / "one"


@pytest.fixture(scope="module")
def sharded(folder: Path) -> Path:
    train_sharded(folder / "recipe.yaml", folder / "sharded", "--set", "training.gradient_accumulation_steps=2")
    return folder / "sharded"


def assert_same_weights(first: Path, second: Path, tolerance: float) -> None:
    states = [load_file(run / "model.safetensors") for run in (first, second)]
    assert states[0].keys() == states[1].keys()
    gaps = {name: float((states[0][name] - states[1][name]).abs().max()) for name in states[0]}
    assert max(gaps.values()) <= tolerance, max(gaps, key=lambda name: gaps[name])


def logged(run: Path) -> list[dict[str, float]]:
    state = json.loads((run / f"checkpoint-{STEPS}" / "trainer_state.json").read_text(encoding="utf-8"))
    wanted = ("loss", "share", "eval_", "grad_norm")
    found = [{k: v for k, v in line.items() if k.startswith(wanted)} for line in state["log_history"]]
    return [{k: v for k, v in line.items() if not k.endswith(("runtime", "per_second"))} for line in found]


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, metrics and every logged number."""
    for part in ("", "checkpoint-4", f"checkpoint-{STEPS}"):
        assert_same_weights(first / part, second / part, 1e-5)
    scores = [(run / "metrics.json").read_text(encoding="utf-8").split('"run"')[0] for run in (first, second)]
    assert scores[0] == scores[1]
    lines = [logged(run) for run in (first, second)]
    assert len(lines[0]) == len(lines[1])
    for ours, theirs in zip(*lines, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


@pytest.mark.slow
def test_two_processes_with_accumulation_are_one(folder: Path, one: Path) -> None:
    accumulate = ("--set", "training.gradient_accumulation_steps=2")
    told = train(folder / "recipe.yaml", folder / "two", 2, *accumulate, script=(TELLING,))
    assert_same_run(one, folder / "two")
    if sys.platform == "linux":  # a thread of gloo that outlives the interpreter aborts it
        assert told.count("at exit: []") == 2
    start = load_file(folder / "still" / "model.safetensors")["encoder.layer.0.output.dense.weight"]
    trained = load_file(one / "model.safetensors")["encoder.encoder.layer.0.output.dense.weight"]
    assert float((start - trained).abs().max()) > 1e-3


@pytest.mark.slow
def test_sharded_processes_are_one(one: Path, sharded: Path) -> None:
    assert_same_run(one, sharded)
    answers = [Predictor.from_pretrained(run)("anna is in london")[0]["predictions"] for run in (one, sharded)]
    assert {name: answer.get("label") for name, answer in answers[0].items()} == {
        name: answer.get("label") for name, answer in answers[1].items()
    }


@pytest.mark.slow
def test_a_sharded_checkpoint_is_whole_and_resumes(folder: Path, sharded: Path) -> None:
    files = {path.name for path in (sharded / "checkpoint-4").iterdir()}
    assert {"model.safetensors", "optimizer.bin", "scheduler.pt", "mtl_state.json"} <= files
    assert not [name for name in files if "fsdp" in name], "the weights are there once"
    again = folder / "again"
    again.mkdir()
    shutil.copytree(sharded / "checkpoint-4", again / "checkpoint-4")
    train_sharded(folder / "recipe.yaml", again, "--set", "training.gradient_accumulation_steps=2", "--resume")
    assert_same_weights(sharded, again, 0.0)


WRONG = [
    ({"version": 1}, "FSDP 1 keeps all heads in one flat parameter"),
    ({"auto_wrap_policy": "SIZE_BASED_WRAP"}, "a head that is sharded apart waits"),
    ({"state_dict_type": "SHARDED_STATE_DICT"}, "checkpoints are written whole"),
]


@pytest.mark.parametrize(("config", "told"), WRONG)
def test_what_sharding_cannot_do_is_refused(folder: Path, config: dict[str, Any], told: str) -> None:
    recipe = recipe_of(folder)
    recipe["training"] |= {"fsdp": True, "fsdp_config": config}
    with pytest.raises(FaultyInput, match=told):
        check_training(make_recipe(recipe))


def test_masked_language_modelling_is_refused_under_sharding(folder: Path) -> None:
    recipe = recipe_of(folder)
    recipe["training"]["fsdp"] = True
    source = {"source": str(folder / "sent"), "columns": {"text": "text"}}
    recipe["tasks"].append({"name": "lm", "head": "masked_language_modeling", "data": source})
    with pytest.raises(FaultyInput, match="lm shares its output layer with the embeddings"):
        check_training(make_recipe(recipe))


def test_one_process_and_processes_without_gpus_cannot_shard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {**recipe_of(folder), "output_dir": str(folder / "never")}
    recipe["training"]["fsdp"] = True
    with pytest.raises(FaultyInput, match="there is one process, and nothing to shard over"):
        finetune(recipe)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(FaultyInput, match="the launcher asks for FSDP, the recipe does not"):
        check_processes(make_recipe(recipe_of(folder)))
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe["training"]["use_cpu"] = True
    with pytest.raises(FaultyInput, match="accelerate shards on GPUs only"):
        check_processes(make_recipe(recipe))
