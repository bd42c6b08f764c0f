"""The headline table: SST-2, BTC, SNIPS intent and slots trained together, against one model a task at the same budget.

    python scripts/studies/headline.py DATA_ROOT            select the learning rate, then run what is missing
    python scripts/studies/headline.py DATA_ROOT --table    print the table from the records

Resumable: a run whose record stands in docs/results/headline.jsonl is not repeated. The learning rate of each side is chosen on
validation from the same three values, in full runs with seed 13; the other seeds run with the one that was chosen. Nothing is
chosen on a test split; scores on it are written down with each run and read by the table alone.
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
RATES = [5e-5, 1e-4, 2e-4]
SEEDS = [13, 14, 15]


def records() -> list[dict[str, Any]]:
    """The runs so far."""
    if not RECORDS.exists():
        return []
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines() if line.strip()]


def done(side: str, rate: float, seed: int) -> bool:
    """Whether a run has its record."""
    return any((r["side"], r["learning_rate"], r["seed"]) == (side, rate, seed) for r in records())


def run(side: str, rate: float, seed: int, data_root: Path) -> None:
    """Train, score and append one record."""
    if done(side, rate, seed):
        return
    from mtl_nlp import finetune, load_recipe, score_checkpoint

    folder = Path(tempfile.mkdtemp(prefix="headline-"))
    sets = [f"training.learning_rate={rate}", f"seed={seed}", f"tasks=[{', '.join(SIDES[side])}]"]
    recipe = load_recipe(RECIPE, sets, output=str(folder / "run"))
    start = time.time()
    result = finetune(recipe, data_root=data_root)
    record: dict[str, Any] = {
        "side": side,
        "learning_rate": rate,
        "seed": seed,
        "validation": result.metrics,
        "mean": result.mean,
        "steps": result.report["steps"],
        "seconds": round(time.time() - start, 1),
    }
    record["test"], record["test_mean"] = score_checkpoint(folder / "run", split="test")
    RECORDS.parent.mkdir(parents=True, exist_ok=True)
    with RECORDS.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(record) + "\n")
    shutil.rmtree(folder)


def best_rate(side: str) -> float | None:
    """By the mean of the primary metrics on validation, seed 13; None until all three rates have been tried."""
    tried = [r for r in records() if r["side"] == side and r["seed"] == SEEDS[0]]
    if {r["learning_rate"] for r in tried} != set(RATES):
        return None
    return max(tried, key=lambda r: r["mean"])["learning_rate"]


def chosen_runs(side: str) -> list[dict[str, Any]]:
    """The runs of a side at its chosen rate."""
    rate = best_rate(side)
    return [r for r in records() if r["side"] == side and r["learning_rate"] == rate]


def table() -> str:
    """Mean and standard deviation over seeds, test split."""
    lines = [
        "| task | metric | joint, one model | single, one model a task | joint − single |",
        "|---|---|---|---|---|",
    ]
    for task in TASKS:
        cells, means = [], []
        for side in ("joint", task):
            runs = chosen_runs(side)
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
    parser.add_argument("--rates", nargs="*", type=float, default=RATES)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    options = parser.parse_args()
    if options.table:
        print(table())
        return
    for side in options.sides:
        for rate in options.rates:
            run(side, rate, SEEDS[0], options.data_root)
    for seed in options.seeds:
        for side in options.sides:
            rate = best_rate(side)
            if rate is not None:
                run(side, rate, seed, options.data_root)


if __name__ == "__main__":
    main()
