"""`compare`: does sharing help? The joint model against one model a task, and variants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import app, quieten_loading
from .train import AsJson, DataRoot, Recipe, Sets

if TYPE_CHECKING:
    from ..analysis.compare import Comparison, Setup

EXAMPLE = """\b
Example:
  mtl-nlp compare scripts/recipes/compare.yaml --seeds 5 --data-root data --output runs/comparison
The same command goes on where it was stopped, and uses what is already trained. Given several times at once (on several GPUs, with
CUDA_VISIBLE_DEVICES), the runs are shared out.
"""


@app.command(epilog=EXAMPLE)
def compare(
    recipe: Recipe,
    seeds: Annotated[
        int | None, typer.Option(help="How many, from the recipe's seed upwards; `compare.seeds` if absent (5).")
    ] = None,
    sets: Sets = None,
    data_root: DataRoot = None,
    output: Annotated[Path | None, typer.Option(help="The folder; OUTPUT_DIR-comparison if absent.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Compare these alone, separated by commas; the joint model learns all.")
    ] = None,
    keep: Annotated[str, typer.Option(help="Whose weights stay: first (seed), all or none.")] = "first",
    plan: Annotated[bool, typer.Option("--plan", help="Check everything, list the runs, and train nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Train the joint model, one model a task and variants at the same budget, and say whether sharing helps."""
    from ..recipe import load_recipe

    loaded = load_recipe(recipe, sets or ())
    from ..analysis import compare as comparing

    quieten_loading()
    only = [name.strip() for name in tasks.split(",")] if tasks is not None else None
    given: Any = {"seeds": seeds, "data_root": data_root, "output": output, "tasks": only, "keep": keep}
    if plan:
        show_plan(comparing.prepare_comparison(loaded, **given), json=json)
        return
    found = comparing.compare(loaded, **given)
    render(found, json=json)


def show_plan(setup: Setup, *, json: bool) -> None:
    """The runs, and which of them are there."""
    from . import show

    missing = {(run.name, run.rate) for run in setup.missing()}
    tried = {run.side for run in setup.plan.trials()}
    rows = []
    for run in [*setup.plan.trials(), *setup.plan.runs()]:
        steps = setup.place.steps.get((run.variant, run.task), 0)
        tuned = run.rate is None and run.seed == setup.plan.seeds[0] and run.side in tried
        state = "to do" if (run.name, run.rate) in missing else "one of its trials" if tuned else "done"
        rate = "" if run.rate is None else f"{run.rate:g}"
        rows.append([run.side, str(run.seed), rate, str(steps), state])
    if json:
        keys = ("side", "seed", "learning_rate", "steps", "state")
        show.as_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    show.table("Runs", ["side", "seed", "learning rate", "steps", "state"], rows)
    typer.echo(f"{len(missing)} runs to do in {setup.place.folder}")


def render(found: Comparison, *, json: bool) -> None:
    """Tables and verdicts, on stdout."""
    from ..analysis import comparison_tables as tables
    from . import show

    data = found.data
    if json:
        show.as_json(data)
        return
    show.table(
        f"{found.chosen} (chosen on validation) against one model a task", *tables.result_table(data, found.chosen)
    )
    if len(data["overall"]) > 1:
        show.table("Variants", *tables.variants_table(data))
    show.table("Cost of one seed", *tables.cost_table(data))
    head, rows = tables.group_table(data, found.chosen)
    if rows:
        show.table("Groups of test examples that changed", head, rows)
    summary = next(one["summary"] for one in data["overall"] if one["variant"] == found.chosen)
    typer.echo(f"verdict: {found.chosen}: {summary}")
    typer.echo(f"written: {found.folder / 'comparison.json'}, {found.folder / 'comparison.md'}")
