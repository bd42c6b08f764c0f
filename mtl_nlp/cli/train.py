"""`train` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import app, quieten_loading

if TYPE_CHECKING:
    from ..training.finetune import Result

Recipe = Annotated[str, typer.Argument(help="A recipe: a YAML file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, any key of the recipe; may be repeated.")]
DataRoot = Annotated[
    Path | None, typer.Option(help="Read DIR/TASK/{train,validation,test}.* in place of Hub datasets.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@app.command()
def train(
    recipe: Recipe,
    sets: Sets = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest complete checkpoint.")] = False,
    resume_from: Annotated[Path | None, typer.Option(help="Go on from this checkpoint.")] = None,
    data_root: DataRoot = None,
    output: Annotated[str | None, typer.Option(help="The run's folder, in place of `output_dir`.")] = None,
    json: AsJson = False,
) -> None:
    """Train one encoder on all tasks of a recipe."""
    from ..recipe import load_recipe

    loaded = load_recipe(recipe, sets or (), output=output)
    from ..training.finetune import finetune

    quieten_loading()
    report(finetune(loaded, data_root=data_root, resume=resume_from or resume), json=json)


def report(result: Result, *, json: bool) -> None:
    """What a run gave, on stdout."""
    from . import show

    if json:
        facts = {
            "folder": str(result.folder),
            "validation": result.metrics,
            "mean": result.mean,
            "run": result.report,
            "forgetting": result.forgetting,
        }
        show.as_json({name: fact for name, fact in facts.items() if name != "forgetting" or fact})
        return
    show.scores("Validation", result.metrics, result.mean)
    if result.forgetting is not None:
        from ..training.forgetting import forgetting_rows

        columns = ["inherited task", "metric", "before", "after", "change"]
        show.table("Forgetting (validation)", columns, forgetting_rows(result.forgetting))
    typer.echo(f"checkpoint: {result.folder}")


@app.command()
def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A folder that `train` wrote.")],
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe that says where the data is; the checkpoint's own if absent.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    sets: Sets = None,
    data_root: DataRoot = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts a batch.")] = 64,
    fail_under: Annotated[float | None, typer.Option(help="Exit 1 if the mean is below this.")] = None,
    json: AsJson = False,
) -> None:
    """Score a checkpoint on a split of its tasks' data."""
    from ..training.score import score_checkpoint
    from . import show

    quieten_loading()
    scores, mean = score_checkpoint(checkpoint, recipe, sets=sets or (), split=split, data_root=data_root, batch=batch)
    found: dict[str, Any] = {"split": split, "metrics": scores, "mean": mean}
    show.as_json(found) if json else show.scores(f"Scores on {split}", scores, mean)
    if fail_under is not None and (mean is None or mean < fail_under):
        typer.echo(f"the mean {mean} is below {fail_under}", err=True)
        raise typer.Exit(1)
