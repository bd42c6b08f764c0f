"""Does sharing help? One joint model against one model a task, and variants, at the same budget, over several seeds.

    compare("recipe.yaml", seeds=5, output="runs/comparison")

`comparison_plan` says what is trained, `comparison_runs` trains it (killed at any moment, the next call goes on),
`comparison_results` works out what it means, `statistics` what chance has to do with it.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..comparison import JOINT, SINGLE
from ..data.mixture import Mixture
from ..errors import fault
from ..model.files import read_json
from ..recipe import Recipe
from ..training.finetune import as_recipe
from ..training.mixing import build_mixture
from ..training.predictions import write_text
from ..training.prepare import Prepared, prepare
from .comparison_budget import TokenBudget, check_variants
from .comparison_folder import Place, claimed, open_folder, write_whole
from .comparison_groups import training_texts
from .comparison_plan import Plan, Run, make_plan, plain_recipe, single_draws, single_steps
from .comparison_results import (
    FORMAT,
    cost_entries,
    read_tests,
    records_of,
    result_entries,
    rounded,
    run_entries,
    variant_entries,
)
from .comparison_runs import KEEP, Runner
from .comparison_speed import measure_speed
from .comparison_tables import markdown

logger = logging.getLogger("mtl_nlp")

FILE, PAGE, SPEED = "comparison.json", "comparison.md", "inference.json"


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        folder: where everything is.
        data: the content of `comparison.json` (docs/reference/comparison.md).
    """

    folder: Path
    data: dict[str, Any]

    @property
    def chosen(self) -> str:
        """The variant with the best validation mean among the shared ones."""
        return next(str(one["name"]) for one in self.data["variants"] if one["chosen"])

    def result(self, task: str, variant: str | None = None) -> dict[str, Any]:
        """The entry of a task and a variant (the chosen one by default)."""
        wanted = variant or self.chosen
        return next(one for one in self.data["results"] if (one["task"], one["variant"]) == (task, wanted))


def compare(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    seeds: int | Sequence[int] | None = None,
    datasets: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
    output: str | Path | None = None,
    tasks: Sequence[str] | None = None,
    keep: str = "first",
    callbacks: Any = (),
) -> Comparison:
    """Train what is missing, and compare.

    Args:
        recipe: of the joint model; its `compare` names variants and learning rates.
        seeds: how many, from the recipe's seed upwards, or which; `compare.seeds` by default.
        datasets: task → data in memory, as for `finetune`.
        data_root: read `DIR/TASK/{train,validation,test}.*` in place of Hub data sets.
        output: the folder; `OUTPUT_DIR-comparison` by default. A comparison that is there is gone on with; several processes may
            work on one (each GPU's own, say): each takes the next run that no other is at.
        tasks: those that are compared; all that have a metric by default. The joint model learns the others too.
        keep: whose weights stay: `first` (seed), `all` or `none`.
        callbacks: further `transformers.TrainerCallback`s.

    Raises:
        UserError: anything at fault in recipe, variants, data or folder, all of it before the first step.
    """
    setup = prepare_comparison(
        recipe, seeds=seeds, datasets=datasets, data_root=data_root, output=output, tasks=tasks, keep=keep
    )
    plan, place, prepared = setup.plan, setup.place, setup.prepared
    open_folder(place.folder, plan)
    runner = Runner(plan, place, keep=keep, callbacks=callbacks)
    runner.all(lambda: _measure(plan, place))
    with claimed(place.lock("collect"), wait=True):
        _forget(plan, place, keep)
        data = collected(plan, place, prepared)
        write_whole(place.folder / FILE, data)
        write_text(place.folder / PAGE, markdown(data))
    return Comparison(place.folder, data)


@dataclass(frozen=True)
class Setup:
    """A comparison before its first run."""

    plan: Plan
    place: Place
    prepared: Prepared

    def missing(self) -> list[Run]:
        """What would be trained; refuses what is there of another recipe."""
        runner = Runner(self.plan, self.place)
        runner.check_finished()
        return runner.missing()


def prepare_comparison(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    seeds: int | Sequence[int] | None = None,
    datasets: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
    output: str | Path | None = None,
    tasks: Sequence[str] | None = None,
    keep: str = "first",
) -> Setup:
    """Check recipe, variants and data (arguments as for `compare`).

    Raises:
        UserError: every fault of the recipe and its variants; then every fault of the data.
    """
    made = as_recipe(recipe, datasets)
    if keep not in KEEP:
        raise fault(f'found "{keep}"', key="--keep", allowed=", ".join(KEEP))
    plan = make_plan(made, seeds, list(datasets or {}), tasks)
    if output is None and made.output_dir is None:
        raise fault("missing", where=made.place_of(), key="output_dir", allowed="a folder", cure="or give --output DIR")
    folder = Path(output).absolute() if output is not None else Path(f"{made.output_dir}-comparison")
    root = Path(data_root).absolute() if data_root is not None else None
    prepared = prepare(_copy(plan), data_root=root, memory=datasets)
    for split in ("validation", "test"):
        without = [
            task.name for task in plan.tasks if not any(task.name in s.gold for s in prepared.encoded[split].values())
        ]
        if without:
            raise fault(
                f"no {split} split", key=f"data of {', '.join(without)}", cure="both splits are needed to compare"
            )
    texts = annotated(prepared, plan)
    mixture = build_mixture(prepared)
    check_variants(plan, prepared, mixture, root, datasets)
    report = planned_report(mixture)
    stopping = plan.recipe.stopping
    settled = stopping.patience is None and not stopping.budget.model_dump(exclude_none=True)
    steps_of = TokenBudget(plan, root, datasets).steps if made.mixture.max_tokens is not None else None
    # How many batches a token budget makes of the texts is another number with another seed.
    known = settled and not mixture.strategy.learns and steps_of is None
    steps = planned_steps(report, plan, texts, steps_of)
    place = Place(folder, root, datasets, texts, steps, report if known else None, steps_of)
    return Setup(plan, place, prepared)


def _copy(plan: Plan) -> Recipe:
    """The joint recipe, for reading the data: labels that the data gives are not written into the plan's."""
    from ..recipe import make_recipe

    recipe = plan.recipe
    return make_recipe(
        plain_recipe(recipe), recipe._source, recipe.base, output=recipe.output_dir or "comparison", memory=plan.memory
    )


def annotated(prepared: Prepared, plan: Plan) -> dict[str, int]:
    """Task → its training texts with an annotation."""
    found = {}
    for corpus in prepared.corpora:
        for task in corpus.tasks:
            if task.name in plan.task_names:
                column = corpus.splits["train"].data[f"@{task.name}"]
                found[task.name] = sum(value is not None for value in column)
    return found


def planned_report(mixture: Mixture) -> dict[str, Any]:
    """Of a joint run that nothing ends early: its steps, and how often it goes through each corpus."""
    rows = {row.corpus: {"passes": row.passes} for row in mixture.describe(steps=mixture.planned)}
    return {"corpora": rows, "steps": mixture.planned, "batch": mixture.batch}


def planned_steps(
    report: Mapping[str, Any],
    plan: Plan,
    texts: Mapping[str, int],
    steps_of: Callable[[Run, float], int] | None = None,
) -> dict[tuple[str, str | None], int]:
    """(variant, task) → optimizer steps, about: those of the first seed."""
    found: dict[tuple[str, str | None], int] = {}
    for variant, task in plan.sides():
        whole = 0 if plan.variant(variant).kind == "fusion" else int(report["steps"])
        if task is None:
            found[variant, task] = whole
        elif steps_of is None:
            found[variant, task] = single_steps(task, report, texts[task], report["batch"])[0]
        else:
            found[variant, task] = steps_of(Run(variant, task, plan.seeds[0]), single_draws(task, report, texts[task]))
    return found


def _measure(plan: Plan, place: Place) -> None:
    """Inference, once: again only where a variant has come."""
    path = place.folder / SPEED
    known = read_json(path) if path.is_file() else {}
    if not {variant.name for variant in plan.variants} <= known.keys():
        logger.info("measuring inference")
        write_whole(path, known | measure_speed(plan, place))


def _forget(plan: Plan, place: Place, keep: str) -> None:
    """With `--keep none` the weights of the first seed go too, now that all is measured."""
    for run in plan.runs() if keep == "none" else []:
        for path in place.run(run).rglob("*.safetensors"):
            path.unlink()


def collected(plan: Plan, place: Place, prepared: Prepared) -> dict[str, Any]:
    """The content of `comparison.json`, from the run folders alone."""
    records = records_of(plan, place)
    logger.info("comparing %d runs", len(records))
    settled = {task.name: task for task in prepared.tasks}
    plan.tasks = [settled[name] for name in plan.task_names]  # with the labels that the data gave
    tests = read_tests(plan, place)
    results, overall = result_entries(plan, tests, training_texts(prepared.corpora))
    path = place.folder / SPEED
    data = {
        "format_version": FORMAT,
        "recipe": plan.recipe.resolved(),
        "seeds": plan.seeds,
        "tasks": task_entries(plan, prepared, place.texts),
        "variants": variant_entries(plan, records),
        "runs": run_entries(plan, records),
        "results": results,
        "overall": overall,
        "costs": cost_entries(plan, records, read_json(path) if path.is_file() else {}),
        "environment": environment(),
    }
    found: dict[str, Any] = rounded(data)
    return found


def task_entries(plan: Plan, prepared: Prepared, texts: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """`tasks`."""
    found = {}
    for task in plan.tasks:
        rows = {
            split: sum(
                reference is not None
                for part in prepared.encoded[split].values()
                for reference in part.gold.get(task.name, ())
            )
            for split in ("validation", "test")
        }
        found[task.name] = {
            "metric": task.metric_names[0],
            "metrics": task.metric_names,
            "head": task.head,
            "labels": task.labels,
            "train_rows": texts[task.name],
            "validation_rows": rows["validation"],
            "test_rows": rows["test"],
        }
    return found


def environment() -> dict[str, Any]:
    """Versions and machine."""
    from importlib.metadata import version

    import torch

    from ..version import VERSION

    names = ("torch", "transformers", "datasets", "accelerate", "numpy", "scipy")
    cuda = torch.cuda.is_available()
    return {
        "mtl_nlp": VERSION,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(0) if cuda else "cpu",
    }


def cpu_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


__all__ = ["JOINT", "SINGLE", "Comparison", "compare", "prepare_comparison"]
