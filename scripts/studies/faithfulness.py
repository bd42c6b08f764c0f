"""Do the attributions of `mtl-nlp explain` name the words that decide? Deletion and insertion curves against random orders.

    python scripts/studies/faithfulness.py CHECKPOINT [DATA_ROOT] [--texts 40] [--write]

Takes texts of the validation split of every task (a seeded choice), explains the first decision on each, and compares the areas
under the curves with those of random orders of the same words. Writes docs/results/faithfulness.json and prints the table;
`--write` puts it into docs/how-to/explain-a-decision.md, between <!-- faithfulness --> and <!-- /faithfulness -->.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mtl_nlp import Explainer, Task
from mtl_nlp.analysis.attribution import METHODS
from mtl_nlp.analysis.explain import Decision
from mtl_nlp.analysis.faithfulness import Measured, measure
from mtl_nlp.data.sources import read_corpora
from mtl_nlp.inference.inputs import Item
from mtl_nlp.recipe import RESOLVED, load_recipe

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "faithfulness.json"
PAGE = ROOT / "docs" / "how-to" / "explain-a-decision.md"
EACH = 1


def texts_of(checkpoint: str, data_root: Path | None) -> dict[str, list[dict[str, Any]]]:
    """Task → the annotated inputs of its validation split."""
    recipe = load_recipe(Path(checkpoint) / RESOLVED)
    corpora = read_corpora(recipe, data_root=data_root, splits=("validation",), need_train=False)
    found: dict[str, list[dict[str, Any]]] = {}
    for corpus in corpora:
        data = corpus.splits["validation"].data
        inputs = [name for name in data.column_names if not name.startswith("@")]
        for task in corpus.task_names:
            rows = data.to_list()
            found[task] = [{name: row[name] for name in inputs} for row in rows if row[f"@{task}"] is not None]
    return found


def decisions_of(
    explainer: Explainer, task: Task, rows: list[dict[str, Any]], wanted: int, seed: int
) -> list[Decision]:
    """The first decisions on some texts; texts without any (no entity) are passed over."""
    order = np.random.default_rng(seed).permutation(len(rows))
    found: list[Decision] = []
    used = 0
    for number in order:
        here = list(islice(explainer.decisions(Item(rows[number], f"row {number}"), [task]), EACH))
        found += here
        used += bool(here)
        if used == wanted:
            break
    return found


def table(report: dict[str, Any]) -> str:
    """The Markdown table."""
    lines = [
        "| task | method | decisions | deletion | random | better by | insertion | random | better by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for task, methods in report["tasks"].items():
        for method, m in methods.items():
            cells = [
                f"{m[what]:.3f} | {m[f'random_{what}']:.3f} | {m[f'{what}_gain'][0]:+.3f} ± {m[f'{what}_gain'][1]:.3f}"
                for what in ("deletion", "insertion")
            ]
            lines.append(f"| {task} | {method} | {m['decisions']} | {cells[0]} | {cells[1]} |")
    complete = [methods["integrated_gradients"] for methods in report["tasks"].values()]
    total, short = sum(m["decisions"] for m in complete), sum(m["incomplete"] for m in complete)
    worst = max(m["worst"] for m in complete)
    lines += [
        "",
        f"Integrated gradients add up within 1 % on {total - short} of {total} decisions; the largest gap is {100 * worst:.2f} %.",
    ]
    return "\n".join(lines)


def summary(found: Measured) -> dict[str, Any]:
    """Means, gains and completeness of one method on one task."""
    means = {
        name: round(float(np.mean(getattr(found, name))), 4)
        for name in ("deletion", "random_deletion", "insertion", "random_insertion")
    }
    gains = {f"{what}_gain": [round(value, 4) for value in found.gain(what)] for what in ("deletion", "insertion")}
    return {
        "decisions": len(found.deletion),
        **means,
        **gains,
        "incomplete": found.incomplete,
        "worst": round(found.worst, 5),
    }


def saved(report: dict[str, Any]) -> dict[str, Any]:
    """The tasks of an earlier run with the same settings."""
    if not RESULTS.is_file():
        return {}
    old = json.loads(RESULTS.read_text(encoding="utf-8"))
    same = all(old.get(key) == report[key] for key in ("texts", "seed", "baseline"))
    return dict(old["tasks"]) if same else {}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("data_root", nargs="?", type=Path, help="where the data is, if not as in training")
    parser.add_argument("--texts", type=int, default=40, help="a task")
    parser.add_argument("--tasks", help="names, separated by commas; all if absent")
    parser.add_argument("--seed", type=int, default=13)
    parser.add_argument("--write", action="store_true", help="into the page, too")
    options = parser.parse_args()
    explainer = Explainer.from_pretrained(options.checkpoint)
    rows = texts_of(options.checkpoint, options.data_root)
    begin = time.monotonic()
    report: dict[str, Any] = {"texts": options.texts, "seed": options.seed, "baseline": explainer.baseline, "tasks": {}}
    names = [task.name for task in explainer.predictor.tasks]
    kept = saved(report)
    wanted = options.tasks.split(",") if options.tasks else None
    for task in explainer.predictor.chosen(wanted):
        decisions = decisions_of(explainer, task, rows[task.name], options.texts, options.seed)
        measured = measure(explainer, decisions, METHODS, seed=options.seed)
        report["tasks"][task.name] = {method: summary(found) for method, found in measured.items()}
        print(f"{task.name}: {len(decisions)} decisions, {time.monotonic() - begin:.0f} s", flush=True)
        # Task by task, so that an interrupted run leaves what it has, and `--tasks` adds to it.
        merged = kept | report["tasks"]
        report["tasks"] = {name: merged[name] for name in names if name in merged}
        RESULTS.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(table(report))
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        filled = f"<!-- faithfulness -->\n{table(report)}\n<!-- /faithfulness -->"
        new = re.sub(r"<!-- faithfulness -->.*?<!-- /faithfulness -->", lambda _: filled, text, flags=re.S)
        PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
