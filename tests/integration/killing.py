"""Driver: train in a forked child, kill it with SIGKILL at a random moment, resume until done, report the weights' checksum.

Imports happen once, in the parent, which never runs torch code itself, so that a trial costs seconds. Usage:
    python -m tests.integration.killing RECIPE FOLDER TRIALS SEED [WHILE_WRITING]
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import transformers  # noqa: F401
from transformers import Trainer  # noqa: F401

from mtl_nlp.recipe import load_recipe
from mtl_nlp.training.finetune import finetune


def start(recipe: str, output: Path, resume: bool) -> int:
    """Fork a child that trains; returns its process id."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        finetune(load_recipe(recipe, output=str(output)), resume=resume)
    except BaseException:
        import traceback

        (output.parent / f"{output.name}.error").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def checksum(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def kill_at(child: int, output: Path, moment: float, while_writing: bool) -> bool:
    """Kill the child after `moment` seconds, or when it next writes a checkpoint after that; False if it was done before."""
    end = time.monotonic() + moment
    while True:
        done, _ = os.waitpid(child, os.WNOHANG)
        if done:
            return False
        writing = bool(list(output.glob("tmp-*")))
        if time.monotonic() >= end and (writing or not while_writing):
            os.killpg(child, signal.SIGKILL)
            wait(child)
            return True
        time.sleep(0.001)


def main() -> None:
    recipe, folder, trials, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    rng = random.Random(seed)
    whole = folder / "whole"
    began = time.monotonic()
    code = wait(start(recipe, whole, False))
    length = time.monotonic() - began
    print(json.dumps({"code": code, "seconds": length, "checksum": checksum(whole)}), flush=True)
    for trial in range(trials):
        output = folder / f"trial-{trial}"
        kills, resume = 0, False
        for _ in range(2):
            child = start(recipe, output, resume)
            while not output.exists():
                time.sleep(0.001)
            kills += kill_at(child, output, rng.uniform(0.0, length), "writing" in sys.argv[5:] and trial % 2 == 0)
            resume = True
        code = wait(start(recipe, output, True))
        left = sorted(path.name for path in output.glob("tmp-*"))
        print(json.dumps({"code": code, "kills": kills, "checksum": checksum(output), "left": left}), flush=True)
        shutil.rmtree(output)


if __name__ == "__main__":
    main()
