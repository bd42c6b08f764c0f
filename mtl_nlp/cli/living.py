"""`add-task`, `drop-task` and `calibrate`: living with a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
