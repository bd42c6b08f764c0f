"""The headline table: SST-2, BTC, SNIPS intent and slots trained together, against one model a task at the same budget.

    python scripts/studies/headline.py DATA_ROOT [--sides joint sst2 …]     run what is missing
    python scripts/studies/headline.py DATA_ROOT --table                    print the tables from the records

Resumable: a run whose record stands in docs/results/ is not repeated. The learning rate of each side is chosen on validation from
the same three values, with seed 13 on the small data of the studies (1 500 texts a corpus, 2 epochs): records in
headline_rates.jsonl. With the rate that was chosen come the runs on all rows, 3 epochs, three seeds: headline.jsonl. Each single
model sees its task's texts exactly as often as the joint one, at the same batch size, over its own full schedule. Nothing is
chosen on a test split; scores on it are written down with each run and read by the table alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from study_data import study_data

from mtl_nlp.schema import read_yaml

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
RATES_FILE, RECORDS = RESULTS / "headline_rates.jsonl", RESULTS / "headline.jsonl"
RECIPE = ROOT / "scripts" / "recipes" / "headline.yaml"
TASKS = ["sst2", "broad_twitter_corpus", "snips_intent", "snips_slots"]
SIDES = {"joint": TASKS} | {task: [task] for task in TASKS}
RATES = [5e-5, 1e-4, 2e-4]
SEEDS = [13, 14, 15]
# The study size: a small run has as few steps as its data, so it is not scored on the test split at all.
SMALL = ["training.num_train_epochs=2"]


def records(file: Path) -> list[dict[str, Any]]:
    """The runs so far."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def entries(side: str) -> list[Any]:
    """The tasks of a side as the recipe has them; weights among each other are nothing to a single one."""
    found = []
    for entry in read_yaml(RECIPE, "recipe")[0]["tasks"]:
        name = entry["use"] if isinstance(entry, dict) else entry
        if name not in SIDES[side]:
            continue
        if side != "joint" and isinstance(entry, dict):
            loss = {key: value for key, value in entry.get("loss", {}).items() if key != "weight"}
            rest = {key: value for key, value in entry.items() if key not in ("use", "loss")}
            entry = {"use": name, **rest, **({"loss": loss} if loss else {})} if rest or loss else name
        found.append(entry)
    return found


def recipe_hash(side: str) -> str:
    """Which recipe the runs are of; the learning rate stands beside it."""
    data = dict(read_yaml(RECIPE, "recipe")[0])
    data["training"] = {key: value for key, value in data["training"].items() if key != "learning_rate"}
    if side != "joint":
        del data["tasks"]
        if entries(side) != [side]:
            data["tasks"] = entries(side)
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]


def run(file: Path, side: str, rate: float, seed: int, data_root: Path, *sets: str, test: bool) -> None:
    """Train, score and append one record, unless it is there."""
    key = {"recipe": recipe_hash(side), "side": side, "learning_rate": rate, "seed": seed}
    if any(all(r.get(name) == value for name, value in key.items()) for r in records(file)):
        return
    from mtl_nlp import finetune, load_recipe, score_checkpoint

    folder = Path(tempfile.mkdtemp(prefix="headline-"))
    assignments = [f"training.learning_rate={rate}", f"seed={seed}", *sets]
    if side != "joint":
        assignments.append(f"tasks={json.dumps(entries(side))}")
    recipe = load_recipe(RECIPE, assignments, output=str(folder / "run"))
    start = time.time()
    result = finetune(recipe, data_root=data_root)
    record: dict[str, Any] = {**key, "validation": result.metrics, "mean": result.mean, "steps": result.report["steps"]}
    record["seconds"] = round(time.time() - start, 1)
    if test:
        record["test"], record["test_mean"] = score_checkpoint(folder / "run", split="test")
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(record) + "\n")
    shutil.rmtree(folder)


def of_side(file: Path, side: str) -> list[dict[str, Any]]:
    """The records of a side under the recipe as it is."""
    return [r for r in records(file) if r["side"] == side and r.get("recipe") == recipe_hash(side)]


def best_rate(side: str) -> float | None:
    """By the mean of the primary metrics on validation; None until all three rates have been tried."""
    tried = of_side(RATES_FILE, side)
    if {r["learning_rate"] for r in tried} != set(RATES):
        return None
    return float(max(tried, key=lambda r: r["mean"])["learning_rate"])


def primary(side: str, task: str, seed: int, split: str) -> tuple[str, float] | None:
    """The task's first metric in the run of a side at its chosen rate."""
    for record in of_side(RECORDS, side):
        if (record["learning_rate"], record["seed"]) == (best_rate(side), seed):
            return next(iter(record[split][task].items()))
    return None


def cell(values: list[float]) -> str:
    """Mean ± standard deviation, with the number of seeds where it is not all of them."""
    if not values:
        return "not run"
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    seeds = "" if len(values) == len(SEEDS) else f" ({len(values)} of {len(SEEDS)} seeds)"
    return f"{statistics.mean(values):.4f}{spread}{seeds}"


def table() -> str:
    """Test scores, mean and standard deviation over seeds."""
    lines = ["| task | metric | joint, one model | one model a task | joint − single |", "|---|---|---|---|---|"]
    for task in TASKS:
        scores = {
            side: [found for seed in SEEDS if (found := primary(side, task, seed, "test"))] for side in ("joint", task)
        }
        metric = next((found[0] for side in scores.values() for found in side), "")
        joint, single = ([value for _, value in scores[side]] for side in ("joint", task))
        gap = f"{statistics.mean(joint) - statistics.mean(single):+.4f}" if joint and single else ""
        lines.append(f"| {task} | {metric} | {cell(joint)} | {cell(single)} | {gap} |")
    return "\n".join(lines)


def rates_table() -> str:
    """Validation means of the runs that chose the learning rates."""
    head = " | ".join(f"{rate:g}" for rate in RATES)
    lines = [f"| side | {head} |", "|---|" + "---|" * len(RATES)]
    for side in SIDES:
        means = {r["learning_rate"]: r["mean"] for r in of_side(RATES_FILE, side)}
        cells = [f"{means[rate]:.4f}" if rate in means else "not run" for rate in RATES]
        lines.append(f"| {side} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--sides", nargs="*", default=list(SIDES))
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    options = parser.parse_args()
    if options.table:
        print(table(), rates_table(), sep="\n\n")
        return
    small = study_data(options.data_root, Path(tempfile.mkdtemp(prefix="study-")))
    for side in options.sides:
        for rate in RATES:
            run(RATES_FILE, side, rate, SEEDS[0], small, *SMALL, test=False)
    shutil.rmtree(small)
    for seed in options.seeds:
        for side in options.sides:
            run(RECORDS, side, best_rate(side) or RATES[0], seed, options.data_root, test=True)


if __name__ == "__main__":
    main()
