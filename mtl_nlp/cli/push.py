"""`push`: a checkpoint to the Hub."""

from __future__ import annotations

from typing import Annotated

import typer

from .app import app, quieten_loading


@app.command()
def push(
    folder: Annotated[str, typer.Argument(help="A folder that `train` wrote.")],
    repository: Annotated[str, typer.Argument(help="OWNER/NAME on the Hub; made if there is none.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    branch: Annotated[str | None, typer.Option(help="Push to this branch; made if there is none.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    with_tasks: Annotated[
        bool, typer.Option("--with-tasks", help="Add each task as a plain transformers model in tasks/NAME.")
    ] = False,
) -> None:
    """Publish a whole checkpoint on the Hugging Face Hub, in one commit."""
    from ..hub.push import push as publish

    quieten_loading()
    typer.echo(publish(folder, repository, private=private, branch=branch, message=message, with_tasks=with_tasks))
