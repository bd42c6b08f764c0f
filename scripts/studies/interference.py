"""How often the advice of `mtl-nlp interference` is right: every pair of the four tasks joint against single, at study size.

    python scripts/studies/interference.py DATA_ROOT              run what is missing
    python scripts/studies/interference.py --table | --write      the table from the records

At most 1 500 texts a corpus, 2 epochs, 3 seeds. Resumable: a run whose record stands in docs/results/interference.jsonl is not
repeated. The same budget: a pair's run has as many steps as give each corpus the draws of its single run, at the same batch and
learning rate. A pair's gain is the mean over its two tasks of (joint − single) on validation, over seeds; the advice is right where
`together` meets a gain, `apart` a loss, and `no clear effect` a difference within two standard errors of 0 over the seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

from common import write_between
from study_data import study_data

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "does-sharing-help.md"
RECORDS = ROOT / "docs" / "results" / "interference.jsonl"
TASKS = ["sst2", "broad_twitter_corpus", "snips_intent", "snips_slots"]
SIDES = {task: [task] for task in TASKS} | {"+".join(pair): list(pair) for pair in combinations(TASKS, 2)}
SEEDS = [13, 14, 15]
SETTINGS = {"learning_rate": 1e-4, "head_learning_rate": 1e-3, "num_train_epochs": 2, "warmup_steps": 0.1}


def records() -> list[dict[str, Any]]:
    """The runs so far."""
    if not RECORDS.exists():
        return []
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines() if line.strip()]


def write(record: dict[str, Any]) -> None:
    """Append one record."""
    RECORDS.parent.mkdir(parents=True, exist_ok=True)
    with RECORDS.open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(record) + "\n")


def recipe(tasks: list[str], seed: int, folder: Path, epochs: float) -> dict[str, Any]:
    """A run's recipe. Proportional mixing: an epoch passes once over every corpus, alone or in company."""
    training = {**SETTINGS, "num_train_epochs": epochs, "bf16": True, "disable_tqdm": True}
    training |= {"eval_strategy": "no", "save_strategy": "no"}
    return {"tasks": tasks, "mixture": {"batch": 32}, "training": training, "seed": seed, "output_dir": str(folder)}


def run(side: str, seed: int, data: Path, epochs: float) -> None:
    """Train, score on validation, append one record."""
    if any((r["kind"], r.get("side"), r["seed"]) == ("run", side, seed) for r in records()):
        return
    from mtl_nlp import finetune

    folder, start = Path(tempfile.mkdtemp(prefix="interference-")), time.time()
    result = finetune(recipe(SIDES[side], seed, folder / "run", epochs), data_root=data)
    scores = {task: next(iter(values.values())) for task, values in result.metrics.items()}
    write({"kind": "run", "side": side, "seed": seed, "scores": scores, "seconds": round(time.time() - start, 1)})
    shutil.rmtree(folder)


def measure(seed: int, data: Path, steps: int, points: int) -> None:
    """The advice of one seed."""
    if any((r["kind"], r["seed"]) == ("advice", seed) for r in records()):
        return
    from mtl_nlp.analysis.interference import measure_interference
    from mtl_nlp.recipe import make_recipe

    folder = Path(tempfile.mkdtemp(prefix="interference-"))
    made = make_recipe(recipe(TASKS, seed, folder, 2))
    found = measure_interference(made, data_root=data, steps=steps, points=points).to_dict()
    pairs = {"+".join(pair["tasks"]): pair for pair in found["advice"]["pairs"]}
    write(
        {
            "kind": "advice",
            "seed": seed,
            "groups": found["advice"]["groups"],
            "pairs": pairs,
            "seconds": found["seconds"],
        }
    )
    shutil.rmtree(folder)


def gains(side: str) -> list[float]:
    """A pair's gain, seed by seed."""
    runs = {(r["side"], r["seed"]): r["scores"] for r in records() if r["kind"] == "run"}
    found = []
    for seed in SEEDS:
        if all(key in runs for key in [(side, seed), *((task, seed) for task in SIDES[side])]):
            joint = runs[side, seed]
            found.append(statistics.mean(joint[task] - runs[task, seed][task] for task in SIDES[side]))
    return found


def right(verdict: str, values: list[float]) -> bool | None:
    """Whether the advice holds; None where there are too few runs."""
    if len(values) < 2:
        return None
    mean, error = statistics.mean(values), statistics.stdev(values) / math.sqrt(len(values))
    if verdict == "no clear effect":
        return abs(mean) <= 2 * error
    return mean > 0 if verdict == "together" else mean < 0


def table() -> str:
    """Pair, gain, advice of every seed and whether it was right; how often in all."""
    seconds = [round(r["seconds"]) for r in records() if r["kind"] == "advice"]
    took = f" An advice on the four tasks took {min(seconds)} to {max(seconds)} s on one thread." if seconds else ""
    lines = [
        "Study size: 1 500 texts a corpus, 2 epochs, 3 seeds, validation; `joint − single` is the mean over the pair's two tasks "
        f"(`scripts/studies/interference.py`).{took}",
        "",
    ]
    lines += ["| pair | joint − single | affinity, % (by seed) | advice (by seed) | right |", "|---|---|---|---|---|"]
    advice = {r["seed"]: r["pairs"] for r in records() if r["kind"] == "advice"}
    hits = asked = signs = 0
    for side in (name for name in SIDES if "+" in name):
        values = gains(side)
        pairs = [advice[seed][side] for seed in SEEDS if seed in advice]
        judged = [right(pair["verdict"], values) for pair in pairs]
        known = [one for one in judged if one is not None]
        hits, asked = hits + sum(known), asked + len(known)
        if values:
            signs += sum((pair["affinity"] > 0) == (statistics.mean(values) > 0) for pair in pairs)
        shown = f"{statistics.mean(values):+.4f} ({len(values)} seeds)" if values else "not run"
        affinities = ", ".join(f"{100 * pair['affinity']:+.2f}" for pair in pairs)
        verdicts = ", ".join(pair["verdict"] for pair in pairs)
        lines.append(
            f"| {side.replace('+', ' + ')} | {shown} | {affinities} | {verdicts} | {sum(known)} of {len(known)} |"
        )
    lines += ["", f"The advice was right {hits} times of {asked}; the sign of the affinity alone {signs} times."]
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, nargs="?")
    parser.add_argument("--table", action="store_true", help="print the table from the records")
    parser.add_argument("--write", action="store_true", help="write it into the page")
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--sides", nargs="*", default=list(SIDES))
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--epochs", type=float, default=SETTINGS["num_train_epochs"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--points", type=int, default=12)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "mtl-nlp-study-data")
    options = parser.parse_args()
    if options.table:
        print(table())
    if options.write:
        write_between(PAGE, "interference", table())
    if options.table or options.write:
        return
    if options.data_root is None:
        parser.error("DATA_ROOT is missing")
    data = study_data(options.data_root, options.data, options.texts)
    for seed in options.seeds:
        measure(seed, data, options.steps, options.points)
        for side in options.sides:
            run(side, seed, data, options.epochs)
    print(table())


if __name__ == "__main__":
    main()
