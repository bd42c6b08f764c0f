"""One table: joint × separate × ensemble × merge × distil, same encoder, data and seeds.

    python scripts/studies/fusion.py DATA_ROOT            run what is missing (interrupt at any time)
    python scripts/studies/fusion.py --write              write the table into docs/methods.md
    python scripts/studies/fusion.py DATA_ROOT --smoke    a few steps of everything; nothing is kept

Study size (scripts/recipes/study.yaml): at most 1 500 training texts a corpus, 2 epochs, 3 seeds. The single-task models of a
seed and its joint model are trained once and serve as parents, members and teachers; they are kept in --work until the seed
is done. Weights and coefficients are chosen on validation; the test scores are written down with each record and read by the
table alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from common import (
    RECIPE,
    RESULTS,
    ROOT,
    SEEDS,
    SMOKE,
    TASKS,
    Study,
    by_variant,
    markdown,
    prepare_data,
    primary,
    records,
    seeds_of,
    spread,
    write_between,
)

FILE = RESULTS / "fusion.jsonl"
PAGE = ROOT / "docs" / "methods.md"
# The file's settings are those of the joint run; a single-task run sees its own texts as often, with the same batch and schedule.
SEPARATE = "separate"
VARIANTS = [
    "joint",
    SEPARATE,
    "ensemble",
    "merge, average",
    "merge, task_arithmetic",
    "merge, ties",
    "merge, dare",
    "distil",
]
# Encoder passes a text: what inference costs against one model.
PASSES = {SEPARATE: len(TASKS), "ensemble": len(TASKS) + 1}


def key(variant: str, seed: int) -> dict[str, Any]:
    """What makes a run the same run."""
    digest = hashlib.sha256(json.dumps([RECIPE.read_text(encoding="utf-8"), variant]).encode()).hexdigest()[:12]
    return {"recipe": digest, "variant": variant, "seed": seed}


def known(variant: str, seed: int) -> dict[str, Any] | None:
    """The record of a run, if it stands in the file."""
    wanted = key(variant, seed)
    return next((r for r in records(FILE) if all(r.get(name) == value for name, value in wanted.items())), None)


class Seed:
    """What is trained for one seed.

    Args:
        work: where its models are kept.
        sets: assignments for every run.
        smoke: coefficients are not searched.
    """

    def __init__(self, seed: int, data: Path, work: Path, sets: Sequence[str], *, smoke: bool = False) -> None:
        self.seed, self.data, self.work, self.smoke = seed, data, work / str(seed), smoke
        self.sets = [*sets, f"seed={seed}"]

    def trained(self, name: str, tasks: Sequence[str]) -> Path:
        """A model of these tasks: trained, gone on with, or there already."""
        from mtl_nlp import finetune, load_recipe

        folder = self.work / name
        if not (folder / "metrics.json").is_file():
            sets = [*self.sets, f"tasks=[{', '.join(tasks)}]"]
            finetune(load_recipe(RECIPE, sets, output=str(folder)), data_root=self.data, resume=folder.exists())
        return folder

    def joint(self) -> Path:
        """One model of all tasks."""
        return self.trained("joint", TASKS)

    def singles(self) -> dict[str, Path]:
        """One model a task."""
        return {task: self.trained(f"single-{task}", [task]) for task in TASKS}

    def separate(self) -> Path:
        """The single-task models behind one Predictor: every task from its own."""
        return self.ensemble("separate", list(self.singles().values()), "uniform")

    def ensemble(self, name: str, members: Sequence[Path], weights: str = "tuned") -> Path:
        """Members that answer together."""
        from mtl_nlp import fuse_ensemble

        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        return fuse_ensemble(members, folder, weights=weights, data_root=self.data)

    def merged(self, method: str) -> Path:
        """The single-task models' weights merged, coefficients searched on validation."""
        from mtl_nlp import fuse_merge

        folder = self.work / f"merge-{method}"
        parents = list(self.singles().values())
        return fuse_merge(
            parents,
            folder,
            method=method,
            coefficients=[0.3] if self.smoke else "search",
            data_root=self.data,
            seed=self.seed,
            resume=folder.exists(),
        )

    def distilled(self) -> Path:
        """One model that learns from the labels and from the single-task models, with teacher annealing."""
        from mtl_nlp import fuse_distil

        folder = self.work / "distil"
        teachers = self.singles()
        return fuse_distil(RECIPE, teachers, folder, sets=self.sets, data_root=self.data, resume=folder.exists())

    def make(self, variant: str) -> Path:
        """A variant's model."""
        if variant.startswith("merge, "):
            return self.merged(variant.removeprefix("merge, "))
        ways: dict[str, Callable[[], Path]] = {
            "joint": self.joint,
            SEPARATE: self.separate,
            "ensemble": lambda: self.ensemble("ensemble", [self.joint(), *self.singles().values()]),
            "distil": self.distilled,
        }
        return ways[variant]()


def run(variant: str, models: Seed) -> dict[str, Any]:
    """Make and score one variant."""
    from mtl_nlp import score_checkpoint

    start = time.time()
    folder = models.make(variant)
    facts = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    record = {**key(variant, models.seed), "validation": facts["validation"], "mean": facts["mean"]}
    record["test"], record["test_mean"] = score_checkpoint(folder, split="test", data_root=models.data)
    return record | {"fusion": facts.get("fusion"), "seconds": round(time.time() - start, 1)}


def table(found: Sequence[dict[str, Any]]) -> str:
    """Primary metrics on the test split, and the encoder passes that a text costs."""
    if not found:
        return "Not run yet: `python scripts/studies/fusion.py DATA_ROOT`."
    groups = by_variant(found)
    rows = []
    for variant in VARIANTS:
        group = groups.get(variant, [])
        cells = [spread([primary(record, task) for record in group]) for task in TASKS]
        rows.append([variant, *cells, spread([record["test_mean"] for record in group]), str(PASSES.get(variant, 1))])
    told = (
        f"Study size (at most 1 500 training texts a corpus, 2 epochs), {seeds_of(found)}, test split, mean and standard "
        "deviation. `separate`: each task's own model; `ensemble`: these and the joint model, weights tuned; `merge`: their "
        "encoders, coefficients searched; `distil`: they teach one model. `passes`: encoder passes a text."
    )
    return f"{told}\n\n{markdown(['variant', *TASKS, 'mean', 'passes'], rows)}"


def valid() -> list[dict[str, Any]]:
    """The records of the study as it is now."""
    return [
        record
        for record in records(FILE)
        if record["variant"] in VARIANTS and key(record["variant"], 0)["recipe"] == record["recipe"]
    ]


def main() -> None:
    """Run what is missing, or show or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, nargs="?", help="the folder with sst2, btc and snips")
    parser.add_argument("--table", action="store_true", help="print the table from the records")
    parser.add_argument("--write", action="store_true", help="write it into the page")
    parser.add_argument("--smoke", action="store_true", help="a few steps of each variant; nothing is kept")
    parser.add_argument("--variants", nargs="*", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "mtl-nlp-fusion",
        help="where models are kept meanwhile",
    )
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], help="of every run, to try the script out with --smoke"
    )
    options = parser.parse_args()
    if options.sets and not options.smoke:
        parser.error("--set goes with --smoke: records are of scripts/recipes/study.yaml as it is")
    if options.table:
        print(table(valid()))
    if options.write:
        write_between(PAGE, "fusion", table(valid()))
    if options.table or options.write:
        return
    if options.data_root is None:
        parser.error("DATA_ROOT is missing")
    with tempfile.TemporaryDirectory(prefix="fusion-") as folder:
        work = Path(folder) / "work" if options.smoke else options.work
        # The data stays beside the models: a resumed run compares its sources.
        data = work / "data"
        if not data.exists():
            part = work / "data.part"
            shutil.rmtree(part, ignore_errors=True)
            prepare_data(Study("fusion", [], table, PAGE), options.data_root, part, smoke=options.smoke)
            part.rename(data)
        made = run_all(options, data, work)
    if options.smoke:
        print(table(made))


def run_all(options: argparse.Namespace, data: Path, work: Path) -> list[dict[str, Any]]:
    """Every variant of every seed that has no record."""
    made = []
    for seed in options.seeds[:1] if options.smoke else options.seeds:
        models = Seed(seed, data, work, [*(SMOKE if options.smoke else []), *options.sets], smoke=options.smoke)
        for variant in options.variants:
            if not options.smoke and known(variant, seed) is not None:
                continue
            record = run(variant, models)
            print(variant, seed, record["mean"], f"{record['seconds']} s", flush=True)
            made.append(record)
            if not options.smoke:
                FILE.parent.mkdir(parents=True, exist_ok=True)
                with FILE.open("a", encoding="utf-8") as handle:
                    handle.write(json.dumps(record) + "\n")
        if options.smoke or all(known(variant, seed) is not None for variant in VARIANTS):
            shutil.rmtree(models.work, ignore_errors=True)
    return made


if __name__ == "__main__":
    main()
