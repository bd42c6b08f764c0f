"""`report`: one page of what runs and comparisons gave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import app, quieten_loading
from .train import DataRoot

EXAMPLE = "Example: mtl-nlp report runs/support runs/comparison --output report"


@app.command(epilog=EXAMPLE)
def report(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders that `train`, `compare` or `interference` wrote.", show_default=False)
    ],
    output: Annotated[Path, typer.Option(help="The folder for report.html and report.md.")] = Path("report"),
    split: Annotated[str, typer.Option(help="Whose answers are shown: train, validation or test.")] = "validation",
    data_root: DataRoot = None,
    no_predict: Annotated[
        bool, typer.Option("--no-predict", help="Show only predictions that are there; run no model.")
    ] = False,
) -> None:
    """Write one self-contained HTML page, and Markdown, from runs, comparisons and interference measurements."""
    from ..report.write import write_report

    quieten_loading()
    found = write_report(
        folders,
        output,
        split=split,
        predict=not no_predict,
        data_root=data_root,
        say=lambda line: typer.echo(line, err=True),
    )
    for run in found.report.runs:
        for note in run.notes:
            typer.echo(f"note: {run.name}: {note}", err=True)
    typer.echo(f"written: {found.page} ({found.page.stat().st_size / 1e6:.2f} MB), {found.text}")
