"""Driver: runs as they are, and the same runs killed with SIGKILL at a step of the second epoch and resumed; their checksums.

Several processes are forked with what torchrun sets in their environment, so that a run costs seconds. Usage:
    python -m tests.integration.killing_steps RECIPES FOLDER SEED WHOLE KILLED RESUMED
where RECIPES is JSON, name → (recipe file, steps an epoch), and the last three are numbers of processes. What each process
collated is written beside the run, one line a micro-batch.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import transformers  # noqa: F401
from transformers import Trainer, TrainerCallback  # noqa: F401

from mtl_nlp.recipe import load_recipe
from mtl_nlp.training.finetune import finetune

from .killing import checksum, wait


class KillAt(TrainerCallback):
    """SIGKILL to this very process when a step is done, before anything of it is saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Recording(TrainerCallback):
    """Writes down the texts of every micro-batch, as corpus:index/pass."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        collate = train_dataloader.collate_fn

        def recorded(records: list[dict[str, Any]]) -> Any:
            texts = [record["draw"] for record in records if record["first"]]
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(" ".join(f"{text.corpus}:{text.index}/{text.pass_}" for text in texts) + "\n")
            return collate(records)

        train_dataloader.collate_fn = recorded


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(recipe: str, output: Path, processes: int, *, resume: bool = False, kill: int | None = None) -> list[int]:
    """The exit codes of the processes of one run."""
    port, children = free_port(), []
    for rank in range(processes):
        child = os.fork()
        if not child:
            _child(recipe, output, rank, processes, port, resume, kill)
        children.append(child)
    return [wait(child) for child in children]


def _child(recipe: str, output: Path, rank: int, processes: int, port: int, resume: bool, kill: int | None) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    if processes > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    try:
        made = load_recipe(recipe, output=str(output))
        part = "resumed" if resume else "begun"
        callbacks: list[Any] = [Recording(output.parent / f"{output.name}.{part}.{rank}.draws")]
        finetune(made, resume=resume, callbacks=[*callbacks, *([KillAt(kill)] if kill is not None else [])])
    except BaseException:
        import traceback

        (output.parent / f"{output.name}.{rank}.error").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def run_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "metrics.json").read_text())["run"])


def main() -> None:
    recipes, folder, seed = json.loads(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    whole, killed, resumed = (int(number) for number in sys.argv[4:7])
    rng = random.Random(seed)
    for name, (recipe, epoch) in recipes.items():
        output = folder / f"{name}-whole"
        codes = start(recipe, output, whole)
        report = run_of(output)
        step = rng.randrange(epoch + 1, min(2 * epoch, report["steps"]))
        trial = folder / f"{name}-killed"
        kills = start(recipe, trial, killed, kill=step)
        codes += start(recipe, trial, resumed, resume=True)
        sums = [checksum(output), checksum(trial)]
        told = {"name": name, "step": step, "kills": kills, "codes": codes, "sums": sums}
        print(json.dumps(told | {"run": report, "again": run_of(trial)}), flush=True)


if __name__ == "__main__":
    main()
