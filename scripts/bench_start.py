"""Time to the first step, and peak memory, on synthetic rows: read for the first time, from the cache, resumed, streamed.

    python scripts/bench_start.py [--rows 1000 10000 …] [--tasks 1] [--modes cold cached resumed streamed] [--encoder PATH]

Each figure is of a process of its own: from before the package is imported until the end of the first optimizer step (of a
resumed run: the first one after its checkpoint), as seconds on the clock, CPU seconds of the process, and its peak resident
memory. Rows are short sentences of random words with one of four labels; a second task, where asked for, has as many rows of its
own. `streamed` reads the same files with `data.streaming`, without the cache. 10⁷ rows take minutes the first time and are not
among the defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

WORDS = "the a film was very good bad slow great late order parcel never came thanks for your quick kind answer today".split()
LABELS = ("red", "green", "blue", "grey")
MODES = ("cold", "cached", "resumed", "streamed")
SAVED = 3


def write_rows(path: Path, rows: int, seed: int) -> None:
    """So many rows as JSON lines: 3 to 20 words and a label."""
    draw = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as handle:
        for number in range(rows):
            text = " ".join(draw.choices(WORDS, k=draw.randint(3, 20)))
            handle.write(f'{{"text": "{text} {number}", "label": "{LABELS[number % 4]}"}}\n')


def recipe_of(folder: Path, rows: int, tasks: int, encoder: str | None, *, streamed: bool) -> dict[str, Any]:
    """Validation has a hundredth of the rows, a thousand at most; it is not scored."""
    more = {"streaming": True, "rows": rows} if streamed else {}
    entries = [
        {
            "name": f"task{number}",
            "head": "sequence_classification",
            "data": {"source": str(folder / f"task{number}"), "columns": {"text": "text", "label": "label"}, **more},
        }
        for number in range(tasks)
    ]
    recipe: dict[str, Any] = {
        "tasks": entries,
        "cache": "off" if streamed else str(folder / "cache"),
        "mixture": {"batch": 32},
        "training": {
            "num_train_epochs": 1,
            "save_strategy": "steps",
            "save_steps": SAVED,
            "eval_strategy": "no",
            "disable_tqdm": True,
        },
    }
    return recipe | ({"encoder": encoder} if encoder else {})


def child(settings: dict[str, Any], output: str, resume: bool, steps: int) -> None:
    """Train so many steps, then say how long the first took to come, and leave without ceremony."""
    begun = time.perf_counter()
    from transformers import TrainerCallback

    from mtl_nlp.training.finetune import finetune
    from mtl_nlp.training.memory import peak_memory

    class Leave(TrainerCallback):
        """Tells of the first step, and ends the process after the last that is wanted."""

        def __init__(self) -> None:
            self.told: dict[str, float] = {}

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Note the first; the last is left only after its checkpoint."""
            if not self.told:
                usage = resource.getrusage(resource.RUSAGE_SELF)
                self.told = {
                    "seconds": time.perf_counter() - begun,
                    "cpu": usage.ru_utime + usage.ru_stime,
                    "peak": peak_memory() or 0,
                }
            if steps == 1:
                self._leave()

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Leave behind a checkpoint to resume from."""
            self._leave()

        def _leave(self) -> None:
            sys.stdout.write(json.dumps(self.told) + "\n")
            sys.stdout.flush()
            os._exit(0)

    finetune({**settings, "output_dir": output}, resume=resume, callbacks=[Leave()])


def measure(settings: dict[str, Any], output: Path, *, resume: bool = False, steps: int = 1) -> dict[str, float]:
    """One child process."""
    task = json.dumps([settings, str(output), resume, steps])
    done = subprocess.run([sys.executable, __file__, "--child", task], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def show(mode: str, rows: int, found: dict[str, float]) -> None:
    """One line of the table."""
    line = f"| {rows} | {mode} | {found['seconds']:.1f} | {found['cpu']:.1f} | {found['peak'] / 2**30:.2f} |\n"
    sys.stdout.write(line)
    sys.stdout.flush()


def main() -> None:
    """Print one line for every number of rows and mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--encoder")
    parser.add_argument("--folder", type=Path, help="keep rows and cache here")
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child:
        child(*json.loads(options.child))
        return
    sys.stdout.write("| rows a task | mode | seconds | CPU seconds | peak memory, GiB |\n|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory() as scratch:
        for rows in options.rows:
            folder = (options.folder or Path(scratch)) / str(rows)
            for number in range(options.tasks):
                for split, size in (("train", rows), ("validation", max(4, min(1000, rows // 100)))):
                    path = folder / f"task{number}" / f"{split}.jsonl"
                    if not path.is_file():
                        write_rows(path, size, number + (split == "train") * 100)
            settings = recipe_of(folder, rows, options.tasks, options.encoder, streamed=False)
            runs = Path(tempfile.mkdtemp(dir=scratch))
            if "cold" in options.modes:
                show("cold", rows, measure(settings, runs / "cold"))
            if "cached" in options.modes:
                show("cached", rows, measure(settings, runs / "cached"))
            if "resumed" in options.modes:
                measure(settings, runs / "resumed", steps=SAVED)
                show("resumed", rows, measure(settings, runs / "resumed", resume=True))
            if "streamed" in options.modes:
                streamed = recipe_of(folder, rows, options.tasks, options.encoder, streamed=True)
                show("streamed", rows, measure(streamed, runs / "streamed"))


if __name__ == "__main__":
    main()
