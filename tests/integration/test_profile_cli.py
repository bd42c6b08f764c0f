"""`mtl-nlp train --profile`: the parts of a step add up to the step, and the run is the one that it would have been."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mtl_nlp.recipe import make_recipe
from mtl_nlp.schema import dump_yaml
from mtl_nlp.training.finetune import finetune
from mtl_nlp.training.profiling import REPORT, TEXT, TRACE
from mtl_nlp.training.stopwatch import OTHER, Stopwatch, is_model


def test_the_command_writes_where_the_time_goes(recipe: dict[str, Any], data: Path) -> None:
    recipe["training"] |= {"max_steps": 24, "logging_steps": 5, "eval_strategy": "steps", "eval_steps": 4}
    # Checkpoints are written while the stopwatch is on; what hangs on the scheduler goes into them.
    recipe["training"] |= {"save_strategy": "steps", "save_steps": 3, "load_best_model_at_end": False}
    file = data / "recipe.yaml"
    file.write_text(dump_yaml(recipe))
    command = [sys.executable, "-m", "mtl_nlp", "train", str(file), "--profile", "--profile-steps", "2"]
    done = subprocess.run([*command, "--profile-trace"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = data / "run"
    report = json.loads((folder / REPORT).read_text())
    assert report["steps"] == 2
    shares = {section["name"]: section["share"] for section in report["sections"]}
    assert abs(sum(shares.values()) - 1) < 1e-6
    expected = {"data", "forward: encoder", "forward: head sent", "forward: head ner", "backward", "optimizer"}
    assert expected <= shares.keys()
    assert "evaluation" not in shares
    toolkit = sum(share for name, share in shares.items() if not is_model(name))
    assert abs(report["toolkit_share"] - toolkit) < 1e-9
    assert report["cost_of_timing"] is not None
    assert any(operator["name"].startswith("aten::") for operator in report["operators"])
    assert json.loads((folder / TRACE).read_text())["traceEvents"]
    text = (folder / TEXT).read_text()
    assert text.rstrip() in done.stderr
    assert text not in done.stdout

    recipe["output_dir"] = str(data / "plain")
    plain = finetune(make_recipe(recipe, base=data))
    weights, others = (load_file(f / "model.safetensors") for f in (folder, plain.folder))
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_sections_hold_their_own_time_alone() -> None:
    class Clock:
        now = 0.0

        def work(self, seconds: float) -> None:
            self.now += seconds

        def outer(self) -> None:
            self.work(1.0)
            self.inner()
            self.work(2.0)

        def inner(self) -> None:
            self.work(10.0)

    clock = Clock()
    watch = Stopwatch()
    watch._now = lambda: clock.now  # type: ignore[method-assign]
    watch.around(clock, "outer", "a")
    watch.around(clock, "inner", "b")
    clock.outer()
    assert watch.seconds == {}
    watch.start()
    clock.outer()
    clock.work(100.0)
    watch.stop()
    assert watch.seconds == {"a": 3.0, "b": 10.0, OTHER: 100.0}
    watch.take_off()
    assert "outer" not in vars(clock)
