"""`init`: a commented recipe from a folder of data files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .app import app


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of data files.")],
    output: Annotated[Path | None, typer.Option(help="The recipe to write; DIR/recipe.yaml if absent.")] = None,
    encoder: Annotated[str | None, typer.Option(help="Any AutoModel on the Hub, or a folder.")] = None,
) -> None:
    """Write a commented recipe for the data files of a folder."""
    from .survey import write_recipe

    target = write_recipe(folder, output, encoder)
    typer.echo(str(target))
    name = shlex.quote(str(target))
    typer.echo(f"Read it, then: mtl-nlp check {name}; mtl-nlp train {name}", err=True)
