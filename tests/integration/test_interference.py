"""`mtl-nlp interference` on a tiny encoder: what it measures is what it says, and what it writes can be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtl_nlp.analysis.interference import Probe, measure, measure_interference, short_run
from mtl_nlp.errors import FaultyInput
from mtl_nlp.recipe import make_recipe
from mtl_nlp.schema import dump_yaml
from mtl_nlp.training.finetune import build_trainer
from mtl_nlp.training.prepare import prepare
from tests.balancing_runs import recipe_of, still_encoder, write_data


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("interference")
    still_encoder(folder / "encoder")
    return recipe_of(folder / "encoder", write_data(folder / "data"), folder / "run", {})


def test_a_point_leaves_the_model_as_it_was_and_its_layers_add_up(plain: dict[str, Any], tmp_path: Path) -> None:
    made = short_run(make_recipe(plain), str(tmp_path), 4)
    prepared = prepare(made, splits=["train"])
    trainer = build_trainer(prepared)
    trainer.train()
    # So short a step that the first order is all there is.
    trainer.args.learning_rate = 1e-5
    probe = Probe(prepared, points=1, steps=4, texts=12)
    probe.trainer = trainer
    before = {name: value.clone() for name, value in trainer.multi.state_dict().items()}
    trainer.multi.double()
    before64 = {name: value.clone() for name, value in trainer.multi.state_dict().items()}
    point = measure(trainer, probe._batches(4), 4)
    assert all(torch.equal(before64[name], value) for name, value in trainer.multi.state_dict().items())
    assert before.keys() == before64.keys()
    affinity = np.array(point.affinity)
    layers = sum(np.array(table) for table in point.by_layer.values())
    assert affinity == pytest.approx(layers, rel=0.05, abs=2e-5)
    # A step on a task's own gradient helps the task itself.
    assert all(affinity[i, i] > 0 for i in range(3))
    assert np.array(point.cosines["all"]) == pytest.approx(np.array(point.cosines["all"]).T)


def test_the_command_writes_tables_json_and_pictures(plain: dict[str, Any], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml(plain), encoding="utf-8")
    command = [sys.executable, "-m", "mtl_nlp", "interference", str(recipe), "--steps", "4", "--points", "2"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "train together:" in done.stdout
    found = json.loads((tmp_path / "out" / "interference.json").read_text())
    assert found["tasks"] == ["mood", "word", "people"]
    assert found["groups"] == ["embeddings", "layer 0", "layer 1"]
    assert len(found["points"]) == 2
    assert len(found["advice"]["pairs"]) == 3
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == ["affinity.png", "affinity_by_layer.png", "cosines_by_layer.png", "cosines_over_time.png"]
    assert not (Path(plain["output_dir"])).exists()


def test_one_task_or_a_frozen_encoder_cannot_interfere(plain: dict[str, Any]) -> None:
    with pytest.raises(FaultyInput, match="two tasks or more"):
        measure_interference(make_recipe({**plain, "tasks": plain["tasks"][:1]}))
    frozen = {**plain, "encoder": {"name": plain["encoder"], "freeze": "all"}}
    with pytest.raises(FaultyInput, match="an encoder that learns"):
        measure_interference(make_recipe(frozen))


def test_without_matplotlib_the_pip_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from mtl_nlp.analysis.pictures import matplotlib_figure

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(FaultyInput, match=r'pip install "mtl-nlp\[plot\]", or --no-pictures'):
        matplotlib_figure()
