"""The headline: what the comparison of `scripts/recipes/compare.yaml` found, put into README and documentation.

    mtl-nlp compare scripts/recipes/compare.yaml --data-root DATA_ROOT --output FOLDER
    python scripts/studies/headline.py FOLDER

The first command does all the work; given several times at once, one a core or a device, it shares out the runs, and it goes on
where it was stopped. The second copies `comparison.json`, `comparison.md` and the report of `mtl-nlp report FOLDER` to
docs/results/headline/ (without the answers, whose worst a report shows with their texts), and writes the tables: all of their
numbers come from `comparison.json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, write_between

from mtl_nlp.analysis import comparison_tables as tables
from mtl_nlp.report.write import write_report

OUTPUT = RESULTS / "headline"
PAGE = ROOT / "docs" / "how-to" / "does-sharing-help.md"
NAMES = {"joint": "joint", "single": "one model a task"}


def chosen(data: Mapping[str, Any]) -> str:
    """The variant that is best on validation."""
    return str(next(one["name"] for one in data["variants"] if one["chosen"]))


def rates(data: Mapping[str, Any]) -> str:
    """The learning rates that were chosen."""
    parts = []
    for variant in data["variants"]:
        found = {side: f"{rate:g}" for side, rate in variant["learning_rates"].items()}
        told = ", ".join(found.values() if len(found) == 1 else (f"{side} {rate}" for side, rate in found.items()))
        parts.append(f"{NAMES.get(variant['name'], variant['name'])} {told}")
    return "; ".join(parts)


def summary(data: Mapping[str, Any]) -> str:
    """For the README: the chosen variant against one model a task, and what both cost in use."""
    name = chosen(data)
    where, cost = data["environment"], data["costs"]
    verdict = next(one["summary"] for one in data["overall"] if one["variant"] == name)
    text = (
        "SST-2, the Broad Twitter Corpus and SNIPS (intent and slots) under one MiniLM encoder, against one model a task at the "
        "same budget: all rows, 3 epochs, test split, mean ± standard deviation over {seeds} seeds. Each side's learning rate was "
        "chosen on validation from the same three.\n\n{table}\n\nVerdict: {verdict}. A text with all its tasks takes {ratio:.2f} "
        "of the separate models' time, and the weights {size:.2f} of their bytes ({cpu}, {cores} cores). The recipe is "
        "`scripts/recipes/compare.yaml`; [how it was run, and all tables](docs/how-to/does-sharing-help.md#on-real-data)."
    )
    return text.format(
        seeds=len(data["seeds"]),
        table=tables.table(*tables.result_table(data, name)),
        verdict=verdict,
        ratio=cost[name]["inference_ratio"],
        size=cost[name]["bytes"] / cost["single"]["bytes"],
        cpu=where["cpu"],
        cores=where["cores"],
    )


def whole(data: Mapping[str, Any]) -> str:
    """For the how-to page: every variant, learning rates, costs, and what changed."""
    parts = [f"Learning rates, chosen on validation with the first seed: {rates(data)}."]
    others = [one["name"] for one in data["variants"] if one["kind"] != "single" and not one["chosen"]]
    for name in [chosen(data), *others]:
        verdict = next(one["summary"] for one in data["overall"] if one["variant"] == name)
        parts += [tables.table(*tables.result_table(data, name)), f"Verdict: {verdict}."]
    if others:
        parts.append(tables.table(*tables.variants_table(data)))
    parts += ["What it costs, of one seed, all models of a side together:", tables.table(*tables.cost_table(data))]
    head, rows = tables.group_table(data, chosen(data))
    if rows:
        parts += ["Groups of examples that changed by more than chance:", tables.table(head, rows)]
    return "\n\n".join([*parts, "What could have been found:", tables.table(*tables.noise_table(data, chosen(data)))])


def main() -> None:
    """Copy the files and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what compare wrote")
    folder = parser.parse_args().folder
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in ("comparison.json", "comparison.md"):
        shutil.copy(folder / name, OUTPUT / name)
    with tempfile.TemporaryDirectory() as temporary:
        # Answers are left out: a report shows the texts of the worst, and the data sets' texts do not belong here.
        told = Path(temporary) / "headline"
        shutil.copytree(folder, told, ignore=shutil.ignore_patterns("predictions", "*.safetensors", ".*", "rates"))
        write_report([told], OUTPUT, predict=False, say=print)
    data = json.loads((OUTPUT / "comparison.json").read_text(encoding="utf-8"))
    write_between(ROOT / "README.md", "headline", summary(data))
    write_between(PAGE, "headline", whole(data))


if __name__ == "__main__":
    main()
