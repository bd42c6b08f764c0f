"""Runs that change on the way: every strategy and retired tasks resume bit-equal, on one process and on two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from mtl_nlp.hub.checkpoint import read_state
from mtl_nlp.recipe import make_recipe
from mtl_nlp.schema import dump_yaml
from mtl_nlp.training.finetune import build_trainer, finetune
from mtl_nlp.training.prepare import prepare
from tests.conftest import ENTITIES, SENTIMENT, write_conll, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
EPOCH = 14  # steps: 64 + 48 texts in batches of 8

STRATEGIES: dict[str, dict[str, Any]] = {
    "proportional": {},
    "uniform": {"max_passes": 2},
    "temperature": {"temperature": 3.0, "cap": 50},
    "capped": {"cap": 20},
    "round_robin": {},
    "fixed": {"rates": {"sent": 3, "ner": 1}},
    "annealed": {},
    "adaptive_loss": {},
    "adaptive_metric": {"adapt": 0.9},
}
PER_TASK = {"per_task": True, "patience": 2, "tolerance": 0.01}


@pytest.fixture
def longer(recipe: dict[str, Any], data: Path) -> dict[str, Any]:
    """Three epochs of 14 steps, scored and saved on the way, two loader workers, four micro-batches a step."""
    write_jsonl(data / "sent" / "train.jsonl", SENTIMENT * 2)
    write_conll(data / "ner" / "train.conll", ENTITIES * 2)
    training = {
        "num_train_epochs": 3,
        "learning_rate": 2e-3,
        "save_strategy": "steps",
        "save_steps": 5,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "load_best_model_at_end": False,
        "gradient_accumulation_steps": 4,
        "dataloader_num_workers": 2,
        "disable_tqdm": True,
    }
    return {**recipe, "training": training}


def drive(
    recipes: dict[str, dict[str, Any]], folder: Path, *, seed: int, processes: str = "1 1 1"
) -> list[dict[str, Any]]:
    runs = folder / "runs"
    runs.mkdir()
    table = {}
    for name, recipe in recipes.items():
        path = folder / f"{name}.yaml"
        path.write_text(dump_yaml(recipe), encoding="utf-8")
        table[name] = (str(path), EPOCH)
    command = [sys.executable, "-m", "tests.integration.killing_steps", json.dumps(table), str(runs), str(seed)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *processes.split()], cwd=ROOT, env=env, capture_output=True, text=True, timeout=900
    )
    errors = [path.read_text()[-2000:] for path in runs.glob("*.error")]
    assert done.returncode == 0, (done.stderr[-2000:], errors)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def assert_bit_equal(told: list[dict[str, Any]]) -> None:
    for one in told:
        assert set(one["kills"]) == {-9}, one
        assert set(one["codes"]) == {0}, one
        assert one["sums"][0] == one["sums"][1], one["name"]
        for volatile in ("seconds",):
            one["run"].pop(volatile), one["again"].pop(volatile)
        assert one["run"] == one["again"]


def twice_as_long(recipe: dict[str, Any]) -> dict[str, Any]:
    """Six epochs, long enough for a task to retire and to come back for the cool-down."""
    return {**recipe, "training": {**recipe["training"], "num_train_epochs": 6}}


def variants(longer: dict[str, Any], names: list[str], **changes: Any) -> dict[str, dict[str, Any]]:
    return {
        name: {**longer, "mixture": {"batch": 8, "strategy": name, **STRATEGIES[name]}, **changes} for name in names
    }


def test_adaptive_rates_and_retired_tasks_resume_bit_equal(longer: dict[str, Any], data: Path) -> None:
    told = drive(variants(longer, ["adaptive_loss"], stopping={**PER_TASK, "freed": "redistribute"}), data, seed=3)
    assert_bit_equal(told)
    assert any(regime["retired"] for regime in told[0]["run"]["regimes"]), "somebody retired"
    assert len({str(regime.get("rates")) for regime in told[0]["run"]["regimes"]}) > 2, "rates moved"


def steps_of(folder: Path, run: str, processes: int) -> list[list[str]]:
    """The texts of each optimizer step, as a global batch: micro-batch by micro-batch, process by process."""
    lines = [(folder / f"{run}.{rank}.draws").read_text().split("\n")[:-1] for rank in range(processes)]
    micro = [" ".join(parts).split() for parts in zip(*lines, strict=True)]
    return [list(chain(*micro[start : start + 4])) for start in range(0, len(micro), 4)]


@pytest.mark.slow
def test_resumed_on_two_processes_after_one_the_stream_goes_on_where_it_was(
    longer: dict[str, Any], data: Path, tiny_encoder: Path
) -> None:
    still = still_encoder(tiny_encoder, data / "still")
    # The loader collates in this process, in the order of training.
    training = {**longer["training"], "dataloader_num_workers": 0, "learning_rate": 1e-4, "adam_epsilon": 1e-6}
    recipe = {**longer, "encoder": str(still), "training": training}
    recipes = variants(recipe, ["adaptive_loss"])
    told = drive(recipes, data, seed=6, processes="1 1 2")[0]
    runs, name = data / "runs", "adaptive_loss"
    assert (set(told["kills"]), set(told["codes"])) == ({-9}, {0})
    whole = steps_of(runs, f"{name}-whole.begun", 1)
    begun, resumed = steps_of(runs, f"{name}-killed.begun", 1), steps_of(runs, f"{name}-killed.resumed", 2)
    saved = told["step"] - 1 - (told["step"] - 1) % 5  # killed before the step's own checkpoint
    assert len(whole) == told["run"]["steps"] == told["again"]["steps"]
    assert begun[: told["step"]] == whole[: told["step"]]
    assert resumed == whole[saved:]
    assert told["run"]["tokens"] == told["again"]["tokens"]
    assert len(told["run"]["regimes"]) > 2, "rates moved"
    states = [load_file(runs / f"{name}-{part}" / "model.safetensors") for part in ("whole", "killed")]
    gaps = [float((states[0][key] - states[1][key]).abs().max()) for key in states[0]]
    assert max(gaps) <= 1e-5


def still_encoder(tiny_encoder: Path, folder: Path) -> Path:
    """The tiny encoder without dropout, so that the number of processes makes no difference."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    AutoModel.from_pretrained(tiny_encoder, config=AutoConfig.from_pretrained(tiny_encoder, **off)).save_pretrained(
        folder
    )
    AutoTokenizer.from_pretrained(tiny_encoder).save_pretrained(folder)
    return folder


class Telling(TrainerCallback):
    """Retires a task by hand at a step, and keeps a copy of its head at the end of every step."""

    def __init__(self, task: str, step: int) -> None:
        self.task, self.step = task, step
        self.trainer: Any = None
        self.heads: list[dict[str, torch.Tensor]] = []
        self.encoders: list[torch.Tensor] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.trainer.schedule.retired.add(self.task)
        self.heads.append({name: value.clone() for name, value in model.heads[self.task].state_dict().items()})
        self.encoders.append(model.encoder.get_input_embeddings().weight.detach().clone())


def tell(recipe: dict[str, Any]) -> tuple[Telling, Any]:
    """A run whose tags are retired by hand after five steps."""
    telling = Telling("ner", 5)
    telling.trainer = trainer = build_trainer(prepare(make_recipe(recipe)), callbacks=[telling])
    trainer.train()
    return telling, trainer


@pytest.mark.parametrize("freed", ["save", "redistribute"])
def test_a_retired_tasks_head_is_frozen_and_still_scored(longer: dict[str, Any], freed: str) -> None:
    training = {**longer["training"], "dataloader_num_workers": 0, "gradient_accumulation_steps": 1, "logging_steps": 1}
    training |= {"eval_steps": 7, "save_strategy": "no", "weight_decay": 0.1}
    stopping = {"per_task": True, "patience": 90, "tolerance": 1.0, "freed": freed, "cooldown": 0.0}
    telling, trainer = tell({**longer, "training": training, "stopping": stopping})
    # Blocks of 7: step 5 is in block 0, so block 2 is the first without it: 14 steps as planned, and of the 28 others what
    # is sent's, 64 of 112 texts.
    assert trainer.mixture.block_batches == 7
    end = 14 + 16 if freed == "save" else 42
    assert len(telling.heads) == trainer.state.global_step == end
    last = telling.heads[13]
    assert any(not torch.equal(telling.heads[12][name], last[name]) for name in last)
    assert all(torch.equal(later[name], last[name]) for later in telling.heads[14:] for name in last)
    assert not torch.equal(telling.encoders[13], telling.encoders[-1])
    history = trainer.state.log_history
    shares = {line["step"]: line["share_ner"] for line in history if "share_ner" in line}
    assert all(share > 0 for step, share in shares.items() if step <= 14)
    assert all(share == 0 for step, share in shares.items() if step > 14)
    scored = [line["step"] for line in history if "eval_ner_span_f1" in line]
    assert scored[-1] == end
    assert any(step > 14 for step in scored)
    rates = [line["learning_rate"] for line in history if "learning_rate" in line]
    if freed == "save":
        # The schedule would stand at a third of its height; the decay takes the last of 14 steps to a fourteenth of that.
        assert rates[-1] == pytest.approx(2e-3 * (42 - 29) / (42 - 3) / 14, rel=1e-6)
    assert sum(row.draws for row in trainer.mixture.describe(steps=end) if row.corpus == "ner") == 48


def test_a_retired_tasks_head_learns_again_in_the_cool_down(longer: dict[str, Any]) -> None:
    training = {**longer["training"], "dataloader_num_workers": 0, "gradient_accumulation_steps": 1, "logging_steps": 1}
    training |= {"eval_steps": 7, "save_strategy": "no", "num_train_epochs": 4}
    stopping = {"per_task": True, "patience": 90, "tolerance": 1.0}
    telling, trainer = tell({**longer, "training": training, "stopping": stopping})
    # 56 steps in blocks of 8. Step 5 is in block 0, so block 2 is the first without the tags: what is sent's is 64 of 112 texts, so
    # a block does the work of 14 steps. At step 24 there are 26 to go, at step 32 there are 12, and the cool-down takes two blocks.
    heads = telling.heads
    assert trainer.schedule.report()["cooldown_from"] == 32
    assert len(heads) == trainer.state.global_step == 48
    assert all(torch.equal(head[name], heads[15][name]) for head in heads[16:32] for name in head)
    assert any(not torch.equal(heads[32][name], heads[31][name]) for name in heads[32])
    shares = {line["step"]: line["share_ner"] for line in trainer.state.log_history if "share_ner" in line}
    assert all((share == 0) == (16 < step <= 32) for step, share in shares.items())


def test_a_budget_of_tokens_ends_a_run_and_resuming_it_takes_no_further_step(longer: dict[str, Any]) -> None:
    training = {**longer["training"], "dataloader_num_workers": 0, "gradient_accumulation_steps": 1}
    recipe = {**longer, "training": training, "stopping": {"budget": {"tokens": 900}}}
    result = finetune(recipe)
    assert 800 <= result.report["tokens"] <= 900
    assert result.report["planned_steps"] < 42
    steps = result.report["steps"]
    state = read_state(result.folder / f"checkpoint-{steps}")
    assert state["schedule"]["tokens"] == result.report["tokens"]
    again = finetune(recipe, resume=True)
    assert (again.report["steps"], again.metrics) == (steps, result.metrics)


@pytest.mark.slow
def test_every_strategy_resumes_bit_equal(longer: dict[str, Any], data: Path) -> None:
    assert_bit_equal(drive(variants(longer, list(STRATEGIES)), data, seed=4))


@pytest.mark.slow
def test_two_processes_resume_bit_equal(longer: dict[str, Any], data: Path) -> None:
    names, stopping = ["adaptive_loss", "adaptive_metric", "round_robin"], {**PER_TASK, "freed": "save"}
    told = drive(variants(twice_as_long(longer), names, stopping=stopping), data, seed=5, processes="2 2 2")
    assert_bit_equal(told)
    assert any(regime["retired"] for one in told for regime in one["run"]["regimes"]), "somebody retired"
    assert any("cooldown_from" in one["run"] for one in told), "somebody came back"


WEIGHTINGS = ["chance", "random", "uncertainty", "gradnorm", "dwa", "famo"]


def weighted(longer: dict[str, Any], names: list[str], **changes: Any) -> dict[str, dict[str, Any]]:
    mixture = {"batch": 8, "strategy": "adaptive_loss"}
    return {name: {**longer, "mixture": mixture, "balancing": {"weighting": name}, **changes} for name in names}


@pytest.mark.slow
def test_every_weighting_resumes_bit_equal_where_tasks_retire(longer: dict[str, Any], data: Path) -> None:
    stopping = {**PER_TASK, "freed": "save"}
    told = drive(weighted(twice_as_long(longer), WEIGHTINGS, stopping=stopping), data, seed=7)
    assert_bit_equal(told)
    assert all(any(regime["retired"] for regime in one["run"]["regimes"]) for one in told), "somebody retired"


@pytest.mark.slow
def test_weightings_resume_bit_equal_on_two_processes(longer: dict[str, Any], data: Path) -> None:
    assert_bit_equal(drive(weighted(longer, ["uncertainty", "gradnorm", "famo"]), data, seed=8, processes="2 2 2"))
