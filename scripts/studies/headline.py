"""The headline table: SST-2, BTC, SNIPS intent and slots trained together, against one model a task at the same budget.

    python scripts/studies/headline.py DATA_ROOT            select the learning rate, then run what is missing
    python scripts/studies/headline.py DATA_ROOT --table    print the table from the records

Resumable: a run whose record stands in docs/results/headline.jsonl is not repeated. The learning rate of each side is chosen on
validation from the same three values, with 1 500 texts a corpus and 2 epochs, seed 13. Nothing is chosen on a test split.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "results" / "headline.jsonl"
RECIPE = ROOT / "scripts" / "recipes" / "headline.yaml"
TASKS = ["sst2", "broad_twitter_corpus", "snips_intent", "snips_slots"]
SIDES = {"joint": TASKS} | {task: [task] for task in TASKS}
RATES = [1e-4, 2e-4, 3e-4]
SEEDS = [13, 14, 15]
SELECT_TEXTS, SELECT_EPOCHS = 1500, 2


def records() -> list[dict[str, Any]]:
    """The runs so far."""
    if not RECORDS.exists():
        return []
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines() if line.strip()]


def done(stage: str, side: str, rate: float, seed: int) -> bool:
    """Whether a run has its record."""
    return any((r["stage"], r["side"], r["learning_rate"], r["seed"]) == (stage, side, rate, seed) for r in records())


def run(stage: str, side: str, rate: float, seed: int, data_root: Path) -> None:
    """Train, score and append one record."""
    if done(stage, side, rate, seed):
        return
    from mtl_nlp.recipe import load_recipe
    from mtl_nlp.training.finetune import finetune
    from mtl_nlp.training.score import score_checkpoint

    folder = Path(tempfile.mkdtemp(prefix="headline-"))
    sets = [f"training.learning_rate={rate}", f"seed={seed}", f"tasks=[{', '.join(SIDES[side])}]"]
    small: dict[str, Any] | None = None
    if stage == "select":
        sets += [f"training.num_train_epochs={SELECT_EPOCHS}", "training.eval_strategy=no", "training.save_strategy=no"]
        small = subset(SIDES[side], data_root)
    recipe = load_recipe(RECIPE, sets, output=str(folder / "run"), memory=small or ())
    start = time.time()
    result = finetune(recipe, data_root=data_root, datasets=small)
    record: dict[str, Any] = {
        "stage": stage,
        "side": side,
        "learning_rate": rate,
        "seed": seed,
        "validation": result.metrics,
        "mean": result.mean,
        "steps": result.report["steps"],
        "seconds": round(time.time() - start, 1),
    }
    if stage == "final":
        record["test"], record["test_mean"] = score_checkpoint(folder / "run", split="test")
    RECORDS.parent.mkdir(parents=True, exist_ok=True)
    with RECORDS.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(record) + "\n")
    shutil.rmtree(folder)


def subset(tasks: list[str], data_root: Path) -> dict[str, Any]:
    """The first texts of a seeded permutation of each corpus' training split, in memory."""
    import numpy as np

    from mtl_nlp.data.places import place_of
    from mtl_nlp.data.readers import read_files
    from mtl_nlp.task import find_task, load_task

    found: dict[str, Any] = {}
    shared: dict[Any, dict[str, Any]] = {}
    for name in tasks:
        place = place_of(load_task(find_task(name, ROOT)), data_root=data_root)
        if place not in shared:
            parts = {split: read_files(paths)[0] for split, paths in place.files if split != "test"}
            chosen = np.random.default_rng(13).permutation(len(parts["train"]))[:SELECT_TEXTS]
            shared[place] = parts | {"train": parts["train"].select(chosen)}
        found[name] = shared[place]
    return found


def best_rate(side: str) -> float:
    """By the mean of the primary metrics on validation."""
    tried = [r for r in records() if r["stage"] == "select" and r["side"] == side]
    return max(tried, key=lambda r: r["mean"])["learning_rate"]


def table() -> str:
    """Mean and standard deviation over seeds, test split."""
    final = [r for r in records() if r["stage"] == "final"]
    lines = [
        "| task | metric | joint, one model | single, one model a task | joint − single |",
        "|---|---|---|---|---|",
    ]
    for task in TASKS:
        cells, means = [], []
        for side in ("joint", task):
            runs = [r for r in final if r["side"] == side]
            metric = next(iter(runs[0]["test"][task])) if runs else "accuracy"
            values = [r["test"][task][metric] for r in runs]
            spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.4f}{spread} ({len(values)} seeds)" if values else "not run")
            means.append(statistics.mean(values) if values else None)
        gap = f"{means[0] - means[1]:+.4f}" if None not in means else ""
        lines.append(f"| {task} | {metric} | {cells[0]} | {cells[1]} | {gap} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--sides", nargs="*", default=list(SIDES))
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    options = parser.parse_args()
    if options.table:
        print(table())
        return
    for side in options.sides:
        for rate in RATES:
            run("select", side, rate, SEEDS[0], options.data_root)
        for seed in options.seeds if side == "joint" else []:
            run("final", side, best_rate(side), seed, options.data_root)
    for seed in options.seeds:
        for side in [side for side in options.sides if side != "joint"]:
            run("final", side, best_rate(side), seed, options.data_root)


if __name__ == "__main__":
    main()
