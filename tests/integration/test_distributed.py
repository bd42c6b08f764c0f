"""Two processes see the stream of one and take its steps."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mtl_nlp.schema import dump_yaml

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def train(recipe: Path, output: Path, processes: int) -> subprocess.CompletedProcess[str]:
    launcher = ["torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port()), "-m"]
    command = [sys.executable, "-m", *launcher, "mtl_nlp", "train", str(recipe), "--output", str(output)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)


@pytest.mark.slow
def test_two_processes_are_one(recipe: dict[str, Any], data: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    still = tmp_path / "still"
    torch.manual_seed(0)
    settings = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **settings, **off)).save_pretrained(
        still
    )
    tokenizer.save_pretrained(still)
    training = {"max_steps": 20, "learning_rate": 1e-4, "adam_epsilon": 1e-6, "optim": "adamw_torch"}
    changed = {
        **recipe,
        "encoder": str(still),
        "training": {**training, "save_strategy": "no", "eval_strategy": "epoch"},
    }
    (data / "recipe.yaml").write_text(dump_yaml(changed), encoding="utf-8")
    states = []
    for processes in (1, 2):
        done = train(data / "recipe.yaml", tmp_path / f"run-{processes}", processes)
        assert done.returncode == 0, done.stderr[-3000:]
        states.append(load_file(tmp_path / f"run-{processes}" / "model.safetensors"))
    gaps = {name: float((states[0][name] - states[1][name]).abs().max()) for name in states[0]}
    assert max(gaps.values()) <= 1e-5
    scores = [(tmp_path / f"run-{n}" / "metrics.json").read_text().split('"run"')[0] for n in (1, 2)]
    assert scores[0] == scores[1]
