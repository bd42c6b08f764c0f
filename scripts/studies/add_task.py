"""Adding a fourth task to a three-task checkpoint, by each way: the new task's score, what the old ones lose, time and size.

    python scripts/studies/add_task.py DATA_ROOT             run what is missing
    python scripts/studies/add_task.py DATA_ROOT --table     write the table into docs/how-to/add-a-task-later.md

Study size (scripts/recipes/study.yaml): at most 1 500 training texts a corpus, 2 epochs, 3 seeds. The reference is the new task
trained alone, in full, on the pretrained encoder, with the same texts, epochs and settings. Resumable: a run whose record stands in
docs/results/add_task.jsonl is not repeated; each record has validation and test, settings were chosen on validation with seed 13.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from study_data import study_data

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "results" / "add_task.jsonl"
PAGE = ROOT / "docs" / "how-to" / "add-a-task-later.md"
MARKS = ("<!-- add_task -->", "<!-- /add_task -->")
RECIPE = ROOT / "scripts" / "recipes" / "study.yaml"
NEW = "broad_twitter_corpus"
OLD = ["sst2", "snips_intent", "snips_slots"]
SEEDS = [13, 14, 15]
PLAIN = ['training.eval_strategy="no"', 'training.save_strategy="no"']
# Name in the table → way, what keeps the old tasks, settings.
WAYS: dict[str, tuple[str, str | None, list[str]]] = {
    "frozen": ("frozen", None, []),
    "lora, keep": ("lora", "keep", []),
    "lora, distil": ("lora", "distil", []),
    "lora, rehearsal": ("lora", "rehearsal", []),
    "distil": ("distil", None, []),
    "rehearsal": ("rehearsal", None, []),
}


def records() -> list[dict[str, Any]]:
    """The runs so far."""
    if not RECORDS.exists():
        return []
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines() if line.strip()]


def find(way: str, seed: int) -> dict[str, Any] | None:
    """The record of a run."""
    return next((r for r in records() if (r["way"], r["seed"], r["new"]) == (way, seed, NEW)), None)


def record(folder: Path, way: str, seed: int, start: tuple[float, float], data_root: Path) -> dict[str, Any]:
    """What is written down of a finished run."""
    from mtl_nlp import score_checkpoint

    seconds = [round(b - a, 1) for a, b in zip(start, now(), strict=True)]
    facts = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    test, _ = score_checkpoint(folder, split="test")
    recipe = (folder / "recipe.resolved.yaml").read_text(encoding="utf-8").replace(str(data_root), "DATA")
    lines = [line for line in recipe.splitlines() if "from:" not in line]
    return {
        "new": NEW,
        "way": way,
        "seed": seed,
        "recipe": hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12],
        "validation": {task: next(iter(found.values())) for task, found in facts["validation"].items()},
        "test": {task: next(iter(found.values())) for task, found in test.items()},
        "steps": facts["run"]["steps"],
        "texts": sum(corpus["draws"] for corpus in facts["run"]["corpora"].values()),
        "seconds": seconds[0],
        "cpu_seconds": seconds[1],
        "trained": facts["run"]["parameters"]["trained"],
        "bytes": (folder / "model.safetensors").stat().st_size,
    }


def now() -> tuple[float, float]:
    """Wall and CPU seconds."""
    return time.perf_counter(), time.process_time()


def append(found: dict[str, Any]) -> None:
    """One record more."""
    RECORDS.parent.mkdir(parents=True, exist_ok=True)
    with RECORDS.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(found) + "\n")
    print(json.dumps(found), flush=True)


def run_seed(seed: int, ways: Sequence[str], small: Path, work: Path, sets: list[str]) -> None:
    """The three-task checkpoint, the new task alone, then every way that is missing."""
    from mtl_nlp import add_task, finetune, load_recipe

    base = work / f"base-{seed}"
    if not (base / "metrics.json").is_file():
        shutil.rmtree(base, ignore_errors=True)
        recipe = load_recipe(RECIPE, [*sets, f"seed={seed}", f"tasks=[{', '.join(OLD)}]"], output=str(base))
        start = now()
        finetune(recipe, data_root=small)
        if find("three tasks", seed) is None:
            found = record(base, "three tasks", seed, start, small)
            append(found)
    if find("alone", seed) is None:
        alone = work / f"alone-{seed}"
        shutil.rmtree(alone, ignore_errors=True)
        recipe = load_recipe(RECIPE, [*sets, f"seed={seed}", f"tasks=[{NEW}]"], output=str(alone))
        start = now()
        finetune(recipe, data_root=small)
        found = record(alone, "alone", seed, start, small)
        append(found)
    for name in ways:
        if find(name, seed) is not None:
            continue
        way, retain, own = WAYS[name]
        folder = work / f"{name.replace(', ', '-')}-{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        start = now()
        add_task(base, NEW, way, retain=retain, output=folder, sets=[*own, *sets], data_root=small)  # type: ignore[arg-type]
        found = record(folder, name, seed, start, small)
        append(found)


def table() -> str:
    """Means over seeds on the test split; changes are of points, against the checkpoint that was added to."""
    seeds = [seed for seed in SEEDS if find("three tasks", seed) and find("alone", seed)]
    if not seeds:
        return "Not run yet."
    old = ", ".join(f"`{task}`" for task in OLD)
    count = f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})"
    columns = ["way", "new task", "− alone", *OLD, "worst old task", "CPU seconds", "trained parameters", "checkpoint"]
    head = [
        f"`{NEW}` added to a checkpoint of {old} (`scripts/studies/add_task.py`). Size: at most 1 500 training texts a corpus,",
        f"2 epochs; test split, mean of {count}. Scores and changes in points (hundredths);",
        "seconds include scoring all tasks before and after.",
        "",
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
    ]
    rows = []
    for name in ["alone", *WAYS]:
        runs = [
            (found, find("three tasks", seed), find("alone", seed)) for seed in seeds if (found := find(name, seed))
        ]
        if not runs:
            rows.append(f"| {name} | not run |" + " |" * (len(OLD) + 6))
            continue
        label = (
            name
            if len(runs) == len(seeds)
            else f"{name} ({', '.join(str(found['seed']) for found, _, _ in runs)} only)"
        )
        new = statistics.mean(100 * found["test"][NEW] for found, _, _ in runs)
        gap = statistics.mean(100 * (found["test"][NEW] - alone["test"][NEW]) for found, _, alone in runs)
        seconds = statistics.mean(found["cpu_seconds"] for found, _, _ in runs)
        size = f"{runs[0][0]['trained']:,} | {runs[0][0]['bytes'] / 1e6:.1f} MB".replace(",", " ")
        if name == "alone":
            cells = ["", *[""] * len(OLD), ""]
        else:
            losses = [
                statistics.mean(100 * (found["test"][t] - base["test"][t]) for found, base, _ in runs) for t in OLD
            ]
            cells = [f"{gap:+.2f}", *(f"{loss:+.2f}" for loss in losses), f"{min(losses):+.2f}"]
        rows.append(f"| {label} | {new:.2f} | " + " | ".join(cells) + f" | {seconds:.0f} | {size} |")
    return "\n".join([*head, *rows])


def write_table() -> None:
    """Put the table between its marks."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    PAGE.write_text(f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")


def main() -> None:
    """Run what is missing, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--work", type=Path, help="keep the checkpoints here, to go on later")
    parser.add_argument("--set", dest="sets", action="append", default=[], help="of every run, to try the script out")
    options = parser.parse_args()
    if options.table:
        write_table()
        print(table())
        return
    work = options.work or Path(tempfile.mkdtemp(prefix="add-task-"))
    small = study_data(options.data_root, work / "data")
    for seed in options.seeds:
        run_seed(seed, options.ways, small, work, [*PLAIN, *options.sets])
    if options.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
