"""Two routes must agree for loss weightings and gradient aggregators: plain summing, accumulation, resume, two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mtl_nlp.data.parts import split_by_rows
from tests.balancing_runs import (
    METHODS,
    ON_REPRESENTATION,
    WEIGHTINGS,
    still_encoder,
    trained,
    write_data,
)
from tests.integration.test_distributed import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `encoder` and `data`."""
    folder = tmp_path_factory.mktemp("balancing")
    still_encoder(folder / "encoder")
    write_data(folder / "data")
    return folder


def run(place: Path, balancing: dict[str, Any], **training: Any) -> dict[str, Tensor]:
    trainer = trained(place / "encoder", place / "data", place / "run", balancing, **training)
    return {name: value.clone() for name, value in trainer.multi.state_dict().items()}


def gap(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.fixture(scope="module")
def plain(place: Path) -> dict[str, Tensor]:
    return run(place, {})


@pytest.mark.parametrize("on", ["parameters", "representation"])
def test_summed_task_gradients_are_plain_training(place: Path, plain: dict[str, Tensor], on: str) -> None:
    assert gap(run(place, {"gradients": "torchjd:Sum", "on": on}), plain) <= 1e-5


@pytest.mark.parametrize("name", ["famo", "chance", "mgda", "uncertainty", "gradnorm"])
def test_methods_change_the_run(place: Path, plain: dict[str, Tensor], name: str) -> None:
    # Four steps: the learned weights have to move fast to be seen.
    fast = {"uncertainty": {"weighting": {"name": name, "learning_rate": 1.0}}}
    fast |= {"gradnorm": {"weighting": {"name": name, "learning_rate": 1.0}}}
    assert gap(run(place, fast.get(name, METHODS[name])), plain) > 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_eight_micro_batches_of_one_are_one_of_eight(place: Path, name: str) -> None:
    one = run(place, METHODS[name])
    eight = run(place, METHODS[name], gradient_accumulation_steps=8)
    # The solvers of cagrad and upgrad stop at a tolerance of their own.
    assert gap(one, eight) <= (1e-4 if name in ("cagrad", "upgrad", "uncertainty+upgrad") else 1e-5)


@pytest.mark.parametrize("name", [*WEIGHTINGS, "pcgrad"])
def test_resumed_is_uninterrupted(place: Path, tmp_path: Path, name: str) -> None:
    encoder, data, where = place / "encoder", place / "data", tmp_path / "run"
    saving = {"save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": 2}
    whole = trained(encoder, data, where, METHODS[name], **saving)
    state = json.loads((where / "checkpoint-2" / "mtl_state.json").read_text())["balancing"]
    assert bool(state["weighting"]) == (name in ("uncertainty", "gradnorm", "famo", "dwa"))
    again = trained(encoder, data, where, METHODS[name], resume=where / "checkpoint-2", **saving)
    assert again.state.global_step == whole.state.global_step == 4
    ours, theirs = again.multi.state_dict(), whole.multi.state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in ours.items())
    assert again.balancer.state() == whole.balancer.state()


def test_learned_weights_stand_in_the_last_group_and_outside_of_the_model(place: Path, tmp_path: Path) -> None:
    trainer = trained(place / "encoder", place / "data", tmp_path, {"weighting": "uncertainty"}, max_steps=2)
    last = trainer.optimizer.param_groups[-1]
    assert [float(p.detach()) for p in last["params"]] == list(trainer.balancer.state()["weighting"]["values"].values())
    assert last["weight_decay"] == 0.0
    assert not any(id(p) == id(q) for p in trainer.multi.parameters() for q in last["params"])


def test_cosines_leave_the_run_as_it_is_and_are_written(place: Path, plain: dict[str, Tensor], tmp_path: Path) -> None:
    trainer = trained(place / "encoder", place / "data", tmp_path, {"cosine_steps": 2})
    assert all(torch.equal(plain[name], value) for name, value in trainer.multi.state_dict().items())
    found = json.loads((tmp_path / "gradient_cosines.json").read_text())
    assert found["groups"] == ["embeddings", "layer 0", "layer 1"]
    assert [note["step"] for note in found["notes"]] == [0, 2]
    for note in found["notes"]:
        for table in [note["all"], *note["groups"].values()]:
            assert [row[i] for i, row in enumerate(table)] == pytest.approx([1.0] * len(table))
            assert all(table[i][j] == table[j][i] for i in range(len(table)) for j in range(len(table)))
    logged = [line for line in trainer.state.log_history if "cosine_word_people" in line]
    assert logged[0]["cosine_word_people"] == pytest.approx(found["notes"][0]["all"][1][2])


def test_a_batch_is_split_where_tasks_share_no_row() -> None:
    rows = {"a": [0, 3], "b": [1], "c": [3, 2], "d": [5]}
    batch = {
        "input_ids": torch.arange(24).view(6, 4),
        "attention_mask": torch.ones(6, 4),
        "tasks": {
            name: {"rows": torch.tensor(r), "width": torch.tensor(2 + (name == "c")), "labels": torch.tensor(r)}
            for name, r in rows.items()
        },
    }
    parts = split_by_rows(batch)
    assert [list(part["tasks"]) for part in parts] == [["a", "c"], ["b"], ["d"]]
    assert parts[0]["input_ids"].tolist() == [[0, 1, 2], [8, 9, 10], [12, 13, 14]]
    assert parts[0]["tasks"]["a"]["rows"].tolist() == [0, 2]
    assert parts[0]["tasks"]["c"]["rows"].tolist() == [2, 1]
    assert parts[0]["tasks"]["c"]["labels"].tolist() == [3, 2]
    assert parts[1]["input_ids"].tolist() == [[4, 5]]


@pytest.mark.slow
def test_two_processes_are_one_for_every_method(place: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    for processes in (1, 2):
        launcher = ["torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port())]
        command = [sys.executable, "-m", *launcher, "-m", "tests.balancing_runs", str(place)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-3000:]
    gaps = {}
    for name in METHODS | ON_REPRESENTATION:
        one, two = (load_file(place / f"{name}-{processes}.safetensors") for processes in (1, 2))
        gaps[name] = gap(one, two)
    loose = ("cagrad", "upgrad", "uncertainty+upgrad")
    assert all(value <= (1e-4 if name in loose else 1e-5) for name, value in gaps.items()), gaps
