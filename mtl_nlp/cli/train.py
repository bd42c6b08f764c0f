"""`train` and `evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from .app import app, quieten_loading

if TYPE_CHECKING:
    from ..training.finetune import Result

Recipe = Annotated[str, typer.Argument(help="A recipe: a YAML file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, any key of the recipe; may be repeated.")]
DataRoot = Annotated[
    Path | None, typer.Option(help="Read DIR/TASK/{train,validation,test}.* in place of Hub datasets.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


class TrainCommand(TyperCommand):
    """`--resume` with or without a value: a checkpoint is never a file, so a recipe that follows is not taken for one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--resume WHERE` and `--resume=WHERE` are `--resume-from WHERE`."""
        made: list[str] = []
        for i, arg in enumerate(args):
            following = args[i + 1] if i + 1 < len(args) else "-"
            file = following.endswith((".yaml", ".yml")) or Path(following).is_file()
            if arg == "--resume" and not following.startswith("-") and not file:
                made.append("--resume-from")
            else:
                made.append(arg.replace("--resume=", "--resume-from=", 1) if arg.startswith("--resume=") else arg)
        return super().parse_args(ctx, made)


@app.command(cls=TrainCommand)
def train(
    recipe: Recipe,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest complete checkpoint, or from the one that follows.")
    ] = False,
    resume_from: Annotated[str | None, typer.Option(help="Go on from this folder, or OWNER/NAME on the Hub.")] = None,
    data_root: DataRoot = None,
    output: Annotated[str | None, typer.Option(help="The run's folder, in place of `output_dir`.")] = None,
    push: Annotated[str | None, typer.Option(help="Publish the model as OWNER/NAME on the Hub.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Write where the time of a step goes.")] = False,
    profile_steps: Annotated[int, typer.Option(min=1, help="Steps that --profile times.")] = 20,
    profile_trace: Annotated[bool, typer.Option("--profile-trace", help="With --profile: a Chrome trace too.")] = False,
    json: AsJson = False,
) -> None:
    """Train one encoder on all tasks of a recipe."""
    from ..recipe import load_recipe

    loaded = load_recipe(recipe, sets or (), output=output)
    from ..training.finetune import finetune
    from ..training.profiling import Profile

    quieten_loading()
    wanted = Profile(profile_steps, trace=profile_trace) if profile or profile_trace else None
    where = resume_from or resume
    result = finetune(loaded, data_root=data_root, resume=where, push=push, private=private, profile=wanted)
    report(result, json=json)


def report(result: Result, *, json: bool) -> None:
    """What a run gave, on stdout."""
    from . import show

    if json:
        facts = {
            "folder": str(result.folder),
            "validation": result.metrics,
            "mean": result.mean,
            "run": result.report,
            "pushed": result.pushed,
            "forgetting": result.forgetting,
        }
        show.as_json({name: fact for name, fact in facts.items() if name not in ("forgetting", "pushed") or fact})
        return
    show.scores("Validation", result.metrics, result.mean)
    if result.forgetting is not None:
        from ..training.forgetting import forgetting_rows

        columns = ["inherited task", "metric", "before", "after", "change"]
        show.table("Forgetting (validation)", columns, forgetting_rows(result.forgetting))
    typer.echo(f"checkpoint: {result.folder}")
    if result.pushed is not None:
        typer.echo(f"published: {result.pushed}")


@app.command()
def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="A folder that `train` wrote, or OWNER/NAME[@REVISION].")],
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
