"""Low data: what sharing brings a task that has 100, 300 or 1 000 training texts, beside the others at study size.

    python scripts/studies/low_data.py DATA_ROOT                  run what is missing
    python scripts/studies/low_data.py --table | --write          the table from the records

One corpus after the other is cut (SNIPS: intent and slots together); the others keep at most 1 500 texts. Each size is a
comparison (`mtl_nlp.compare`) of the joint model with the cut tasks' own ones: the same number of passes over the cut corpus, the
same batch, 3 seeds. Corpora are drawn equally often (`mixture.strategy: uniform`), so that the small one is passed over often
enough to be learned by either side. Killed at any moment, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import RECIPE, RESULTS, ROOT, markdown, records, write_between
from study_data import small, study_data

RECORDS = RESULTS / "low_data.jsonl"
PAGE = ROOT / "docs" / "how-to" / "does-sharing-help.md"
CORPORA = {"sst2": ["sst2"], "btc": ["broad_twitter_corpus"], "snips": ["snips_intent", "snips_slots"]}
SIZES = [100, 300, 1000]
SEEDS = [13, 14, 15]
SETS = ["mixture.strategy=uniform", "training.eval_strategy=epoch", "training.save_strategy=epoch"]
SMOKE = ["training.max_steps=6", "training.eval_steps=3", "training.save_steps=3", "training.bf16=false"]


def cut_data(data_root: Path, folder: Path, corpus: str, size: int, *, smoke: bool) -> Path:
    """The study's data with one corpus cut further; in a smoke test little of everything."""
    study_data(data_root, folder, *([40] if smoke else []))
    for path in (data_root / corpus).glob("train.*"):
        small(path, folder / corpus / path.name, 20 if smoke else size)
    for path in [*folder.glob("*/validation.*"), *folder.glob("*/test.*")] if smoke else []:
        if path.is_symlink():
            source = path.resolve()
            path.unlink()
            small(source, path, 40)
    return folder


def run(data_root: Path, output: Path, corpus: str, size: int, seeds: Sequence[int], *, smoke: bool) -> dict[str, Any]:
    """One comparison, and what is kept of it."""
    from mtl_nlp import compare, load_recipe

    name = f"{corpus}-{size}"
    data = cut_data(data_root, output / "data" / name, corpus, size, smoke=smoke)
    recipe = load_recipe(RECIPE, [*SETS, *(SMOKE if smoke else [])])
    found = compare(recipe, seeds=seeds, data_root=data, output=output / name, tasks=CORPORA[corpus], keep="none")
    results = [{key: value for key, value in one.items() if key != "groups"} for one in found.data["results"]]
    return {
        "corpus": corpus,
        "texts": size,
        "seeds": list(seeds),
        "sets": SETS,
        "results": results,
        "costs": found.data["costs"],
    }


def table(found: Sequence[dict[str, Any]]) -> str:
    """Tasks × sizes."""
    rows = []
    for record in sorted(found, key=lambda r: (list(CORPORA).index(r["corpus"]), r["texts"])):
        for one in record["results"]:
            scores = [
                f"{one[mean]:.4f} ± {one[spread]:.4f}"
                for mean, spread in (("mean", "deviation"), ("single_mean", "single_deviation"))
            ]
            gap = f"{one['difference']:+.4f} ({one['low']:+.4f} … {one['high']:+.4f})"
            rows.append([one["task"], str(record["texts"]), *scores, gap, one["verdict"]])
    if not rows:
        return "Not run yet."
    head = ["task", "texts", "joint", "alone", "difference (95 %)", "verdict"]
    seeds = len(found[0]["seeds"])
    return (
        f"Study size: the other corpora have at most 1 500 texts; 2 epochs, {seeds} seeds, test split, mean ± standard deviation "
        f"(`scripts/studies/low_data.py`).\n\n{markdown(head, rows)}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, nargs="?", help="the folder with sst2, btc and snips")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "low_data", help="the folder of the runs")
    parser.add_argument("--corpora", nargs="*", default=list(CORPORA))
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--table", action="store_true", help="print the table from the records")
    parser.add_argument("--write", action="store_true", help="write it into the page")
    parser.add_argument("--smoke", action="store_true", help="a few steps on a few texts; nothing is kept")
    options = parser.parse_args()
    if options.table:
        print(table(records(RECORDS)))
    if options.write:
        write_between(PAGE, "low_data", table(records(RECORDS)))
    if options.table or options.write:
        return
    if options.data_root is None:
        parser.error("DATA_ROOT is missing")
    if options.smoke:
        with tempfile.TemporaryDirectory() as folder:
            corpus, size = options.corpora[0], options.sizes[0]
            print(table([run(options.data_root, Path(folder), corpus, size, options.seeds[:2], smoke=True)]))
        return
    for corpus in options.corpora:
        for size in options.sizes:
            key = {"corpus": corpus, "texts": size, "seeds": options.seeds, "sets": SETS}
            if any(all(r[name] == value for name, value in key.items()) for r in records(RECORDS)):
                continue
            record = run(options.data_root, options.output, corpus, size, options.seeds, smoke=False)
            RECORDS.parent.mkdir(parents=True, exist_ok=True)
            with RECORDS.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(record) + "\n")
    print(table(records(RECORDS)))


if __name__ == "__main__":
    main()
