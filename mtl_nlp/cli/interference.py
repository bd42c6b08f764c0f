"""`interference`: which tasks help each other, measured on a short run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import app, quieten_loading
from .train import AsJson, DataRoot, Recipe, Sets

if TYPE_CHECKING:
    from ..analysis.interference import Interference

FILE = "interference.json"


@app.command(epilog="Example: mtl-nlp interference recipe.yaml --steps 200")
def interference(
    recipe: Recipe,
    sets: Sets = None,
    data_root: DataRoot = None,
    output: Annotated[Path, typer.Option(help="The folder for the JSON and the pictures.")] = Path("interference"),
    steps: Annotated[int, typer.Option(min=2, help="Steps of the short run.")] = 200,
    points: Annotated[int, typer.Option(min=2, help="How often it measures.")] = 12,
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Leave the pictures out.")] = False,
    json: AsJson = False,
) -> None:
    """Measure which tasks help and which disturb each other, and propose which to train together."""
    from ..recipe import load_recipe

    loaded = load_recipe(recipe, sets or ())
    from ..analysis.interference import measure_interference
    from ..analysis.pictures import draw, matplotlib_figure
    from ..hub.checkpoint import write_json
    from . import show

    if not no_pictures:
        matplotlib_figure()
    quieten_loading()
    found = measure_interference(loaded, data_root=data_root, steps=steps, points=points)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / FILE, found.to_dict())
    pictures = [] if no_pictures else draw(found, output)
    if json:
        show.as_json(found.to_dict())
        return
    render(found)
    typer.echo(f"written: {', '.join(str(path) for path in [output / FILE, *pictures])}")


def render(found: Interference) -> None:
    """The tables and the advice, on stdout."""
    from . import show

    title = "Affinity: how much the column's loss falls when the row's task is learned, % (± standard error)"
    rows = [
        [task, *(f"{100 * mean:+.3f} ± {100 * error:.3f}" for mean, error in zip(means, errors, strict=True))]
        for task, means, errors in zip(found.tasks, found.affinity, found.error, strict=True)
    ]
    show.table(title, ["learned", *found.tasks], rows)
    numbers = {task: i for i, task in enumerate(found.tasks)}
    lines = []
    for pair in found.advice.pairs:
        i, j = (numbers[task] for task in pair.tasks)
        affinity = f"{100 * pair.affinity:+.3f} ± {100 * pair.error:.3f}"
        shared = "nothing" if pair.share_until is None else f"up to {pair.share_until}"
        shared = "all" if pair.share_until == found.groups[-1] else shared
        lines.append([" · ".join(pair.tasks), affinity, f"{found.cosines['all'][i][j]:+.3f}", pair.verdict, shared])
    show.table("Pairs", ["tasks", "affinity, %", "cosine", "train them", "if together, share"], lines)
    typer.echo("train together: " + " | ".join(", ".join(group) for group in found.advice.groups))
    last = found.advice.share_until
    if last is None:
        typer.echo("under one encoder for all: no layer is better shared")
    elif last == found.groups[-1]:
        typer.echo("under one encoder for all: share every layer")
    else:
        typer.echo(f"under one encoder for all: share up to {last}, split above")
    typer.echo(f"{found.steps} steps, {len(found.points)} measurements, {found.seconds:.0f} s")
