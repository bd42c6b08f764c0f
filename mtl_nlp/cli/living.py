"""`add-task`, `drop-task` and `calibrate`: living with a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import fault, listed
from .app import app, quieten_loading
from .train import AsJson, DataRoot, Sets, report

Checkpoint = Annotated[str, typer.Argument(help="A folder that `train` wrote.")]


@app.command("add-task")
def add_task(
    checkpoint: Checkpoint,
    task: Annotated[str, typer.Argument(help="The new task: a name or a task file.")],
    output: Annotated[Path, typer.Option(help="The new checkpoint's folder.")],
    way: Annotated[str, typer.Option(help="frozen, lora, rehearsal or distil.")] = "rehearsal",
    retain: Annotated[
        str | None, typer.Option(help="What keeps the old tasks, in place of the way's own: rehearsal, distil or keep.")
    ] = None,
    without_old_data: Annotated[
        bool, typer.Option("--without-old-data", help="The old tasks' data is gone: they are not scored.")
    ] = False,
    sets: Sets = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest complete checkpoint.")] = False,
    data_root: DataRoot = None,
    json: AsJson = False,
) -> None:
    """Train a further task into a checkpoint, and say what the old ones lost or gained."""
    from ..training.add_task import add_task_recipe
    from ..training.finetune import finetune

    recipe = add_task_recipe(
        checkpoint, task, way, retain=retain, old_data=not without_old_data, sets=sets or (), output=output
    )
    quieten_loading()
    report(finetune(recipe, data_root=data_root, resume=resume), json=json)


@app.command("drop-task")
def drop_task(
    checkpoint: Checkpoint,
    tasks: Annotated[list[str], typer.Argument(help="The tasks that go.")],
    output: Annotated[Path, typer.Option(help="The new checkpoint's folder.")],
) -> None:
    """Write a checkpoint without some of its tasks; the others stay bit by bit as they are."""
    from ..hub.drop import drop_task as drop

    quieten_loading()
    typer.echo(f"checkpoint: {drop(checkpoint, tasks, output=output)}")


@app.command()
def calibrate(
    checkpoint: Checkpoint,
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe that says where the data is; the checkpoint's own if absent.")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Names, separated by commas; all if absent.")] = None,
    out_of_scope: Annotated[
        list[str] | None,
        typer.Option(help="TASK=LABEL: texts below a tuned threshold get this label; may be repeated."),
    ] = None,
    accuracy: Annotated[
        list[str] | None,
        typer.Option(
            help="TASK=SHARE: so many of the answers have to be right, the other texts get none; may be repeated."
        ),
    ] = None,
    no_thresholds: Annotated[
        bool, typer.Option("--no-thresholds", help="Several labels: keep 0.5 for all of them.")
    ] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Remove an earlier calibration, and do no more.")] = False,
    sets: Sets = None,
    data_root: DataRoot = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts a batch.")] = 64,
    json: AsJson = False,
) -> None:
    """Tune temperature, thresholds and abstention on validation, and store them in the checkpoint."""
    outside, shares = _pairs(out_of_scope, "--out-of-scope"), _shares(accuracy)
    from ..training.calibration import calibrate as run
    from ..training.calibration import clear_calibration
    from . import show

    quieten_loading()
    if clear:
        others: dict[str, object] = {
            "--tasks": tasks,
            "--out-of-scope": out_of_scope,
            "--accuracy": accuracy,
            "--set": sets,
        }
        others |= {"--no-thresholds": no_thresholds or None, "RECIPE": recipe}
        given = [name for name, value in others.items() if value is not None]
        if given:
            raise fault(f"found it with {listed(given)}", key="--clear", cure="it does no more: leave the others out")
        clear_calibration(checkpoint)
        typer.echo(f"no calibration any more: {checkpoint}")
        return
    names = None if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
    reports = run(
        checkpoint,
        recipe,
        tasks=names,
        out_of_scope=outside,
        accuracy=shares,
        thresholds=not no_thresholds,
        sets=sets or (),
        data_root=data_root,
        batch=batch,
    )
    if json:
        show.as_json({name: found.to_dict() for name, found in reports.items()})
        return
    columns = ["task", "decisions", "temperature", "NLL", "after", "ECE", "after", "metric", "before", "after"]
    rows: list[list[Any]] = []
    gap = (None, None)
    for name, found in reports.items():
        metric, (before, after) = next(iter(found.metrics.items()))
        rows.append(
            [name, found.units, found.temperature, *(found.loss or gap), *(found.error or gap), metric, before, after]
        )
    show.table("Calibration (validation)", columns, rows)
    for name, found in reports.items():
        if found.thresholds is not None:
            show.table(f"{name}: thresholds", ["label", "threshold"], [list(pair) for pair in found.thresholds.items()])
        if found.abstain is not None:
            label = found.abstain["label"] or "no answer"
            told = f"below {found.abstain['threshold']:.4f} {label}; {found.answered:.4f} of the texts are answered"
            typer.echo(f"{name}: {told}")


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in given or ()]
    for text, (name, _, value) in zip(given or (), pairs, strict=True):
        if not name or not value:
            raise fault(f'found "{text}"', key=option, allowed="TASK=VALUE")
    return {name: value for name, _, value in pairs}


def _shares(given: list[str] | None) -> dict[str, float]:
    pairs = _pairs(given, "--accuracy")
    try:
        return {name: float(value) for name, value in pairs.items()}
    except ValueError:
        raise fault(
            f"found {listed(pairs.values())}", key="--accuracy", allowed="TASK=SHARE, such as intent=0.95"
        ) from None
