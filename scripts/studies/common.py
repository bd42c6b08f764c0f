"""What the studies have in common: variants × seeds of one recipe, one record a run, tables made from the records.

A study is a list of `Variant`s over `scripts/recipes/study.yaml`. `main` runs what has no record yet (so it may be interrupted at
any time), prints the table, or writes it into a page between `<!-- NAME -->` and `<!-- /NAME -->`. `--smoke` runs each variant for
a few steps on a few texts and keeps nothing. Scores on a test split are written down with each run and read by the table alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_data import TEXTS, small, study_data

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
RECIPE = ROOT / "scripts" / "recipes" / "study.yaml"
TASKS = ["sst2", "broad_twitter_corpus", "snips_intent", "snips_slots"]
SEEDS = [13, 14, 15]
SMOKE = ["training.max_steps=6", "training.eval_steps=3", "training.save_steps=3", "training.bf16=false"]


@dataclass(frozen=True)
class Variant:
    """One row of a study: its name and the `--set` assignments that make it."""

    name: str
    sets: tuple[str, ...] = ()


@dataclass
class Study:
    """A study.

    Attributes:
        name: of its records and of its place in a page.
        variants: what is compared.
        table: records → Markdown.
        page: where `--write` puts the table.
        cut: folder of a data set → its training texts, where other than the study size.
        sets: assignments for every variant.
    """

    name: str
    variants: Sequence[Variant]
    table: Callable[[Sequence[dict[str, Any]]], str]
    page: Path
    cut: dict[str, int] | None = None
    sets: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """Its records."""
        return RESULTS / f"{self.name}.jsonl"

    def key(self, variant: Variant, seed: int) -> dict[str, Any]:
        """What makes a run the same run."""
        told = [RECIPE.read_text(encoding="utf-8"), self.sets, variant.sets, sorted((self.cut or {}).items())]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
        return {"recipe": digest, "variant": variant.name, "seed": seed}

    def valid(self) -> list[dict[str, Any]]:
        """The records of the study as it is now, in the order of its variants."""
        known = {variant.name: self.key(variant, 0)["recipe"] for variant in self.variants}
        found = [r for r in records(self.file) if known.get(r["variant"]) == r["recipe"]]
        return sorted(found, key=lambda r: (list(known).index(r["variant"]), r["seed"]))


def records(file: Path) -> list[dict[str, Any]]:
    """All records of a file."""
    if not file.exists():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def run(study: Study, variant: Variant, seed: int, data: Path, *, smoke: bool = False) -> dict[str, Any] | None:
    """Train and score one run and append its record, unless it is there."""
    key = study.key(variant, seed)
    if not smoke and any(all(r.get(name) == value for name, value in key.items()) for r in records(study.file)):
        return None
    from mtl_nlp import finetune, load_recipe, score_checkpoint

    folder = Path(tempfile.mkdtemp(prefix=f"{study.name}-"))
    sets = [*study.sets, *variant.sets, f"seed={seed}", *(SMOKE if smoke else [])]
    start = time.time()
    result = finetune(load_recipe(RECIPE, sets, output=str(folder / "run")), data_root=data)
    record = {**key, "validation": result.metrics, "mean": result.mean, "run": result.report}
    record["test"], record["test_mean"] = score_checkpoint(folder / "run", split="test")
    record["seconds"] = round(time.time() - start, 1)
    shutil.rmtree(folder)
    if not smoke:
        study.file.parent.mkdir(parents=True, exist_ok=True)
        with study.file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")
    return record


def prepare_data(study: Study, data_root: Path, output: Path, *, smoke: bool) -> Path:
    """The study's data: small training splits, some of them smaller still; in a smoke test little of everything."""
    study_data(data_root, output, 40 if smoke else TEXTS)
    for name, texts in (study.cut or {}).items():
        for path in (data_root / name).glob("train.*"):
            small(path, output / name / path.name, 20 if smoke else texts)
    if smoke:
        for path in [*output.glob("*/validation.*"), *output.glob("*/test.*")]:
            source = path.resolve()
            path.unlink()
            small(source, path, 40)
    return output


def spread(values: Sequence[float], digits: int = 4) -> str:
    """`mean ± standard deviation` over the seeds."""
    if not values:
        return "not run"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def primary(record: dict[str, Any], task: str, split: str = "test") -> float:
    """A task's primary metric."""
    return float(next(iter(record[split][task].values())))


def by_variant(found: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Variant → its records, in order."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in found:
        groups.setdefault(record["variant"], []).append(record)
    return groups


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def seeds_of(found: Sequence[dict[str, Any]]) -> str:
    """`3 seeds`, or what there is of each variant where that differs."""
    counts = sorted({len(group) for group in by_variant(found).values()})
    if not counts:
        return "no run yet"
    several = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return f"{several} seed{'' if counts == [1] else 's'}"


def write_between(page: Path, name: str, text: str) -> None:
    """Put a text between a page's marks."""
    old = page.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    if start not in old or end not in old:
        raise SystemExit(f"{page} has no {start} … {end}")
    new = re.sub(f"{re.escape(start)}.*?{re.escape(end)}", lambda _: f"{start}\n{text}\n{end}", old, flags=re.S)
    page.write_text(new, encoding="utf-8")


def main(study: Study, description: str | None) -> None:
    """The command line of a study."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, nargs="?", help="the folder with sst2, btc and snips")
    parser.add_argument("--table", action="store_true", help="print the table from the records")
    parser.add_argument("--write", action="store_true", help="write it into the page")
    parser.add_argument("--smoke", action="store_true", help="a few steps of each variant; nothing is kept")
    parser.add_argument("--variants", nargs="*", default=[variant.name for variant in study.variants])
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    options = parser.parse_args()
    if options.table:
        print(study.table(study.valid()))
    if options.write:
        write_between(study.page, study.name, study.table(study.valid()))
    if options.table or options.write:
        return
    if options.data_root is None:
        parser.error("DATA_ROOT is missing")
    chosen = [variant for variant in study.variants if variant.name in options.variants]
    made = []
    with tempfile.TemporaryDirectory(prefix=f"{study.name}-data-") as folder:
        data = prepare_data(study, options.data_root, Path(folder), smoke=options.smoke)
        for seed in options.seeds[:1] if options.smoke else options.seeds:
            for variant in chosen:
                record = run(study, variant, seed, data, smoke=options.smoke)
                if record is not None:
                    print(variant.name, seed, record["mean"], f"{record['seconds']} s", flush=True)
                    made.append(record)
    if options.smoke:
        print(study.table(made))
