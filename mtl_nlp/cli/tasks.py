"""`tasks list` and `tasks show`: the task files that ship, and those of a recipe."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FaultyInput
from .app import tasks_app

if TYPE_CHECKING:
    from ..kinds import HeadKind
    from ..task import Task

AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout.")]


@tasks_app.command("list")
def list_tasks(
    recipe: Annotated[Path | None, typer.Option(help="The tasks of this recipe, and those that it can name.")] = None,
    json: AsJson = False,
) -> None:
    """Every task that a recipe can name, and the kinds of head."""
    from ..kinds import HEADS, head_kind
    from ..task import load_folder, shipped_folder
    from . import show

    found: dict[str, tuple[Task, Path | None]] = {}
    if recipe is not None:
        for task, file in _of_recipe(recipe):
            found.setdefault(task.name, (task, file))
    # The order in which a recipe's names are looked for: an earlier file hides a later one of its name.
    for folder in (shipped_folder(), shipped_folder() / "demo"):
        for task in load_folder(folder) if folder.is_dir() else ():
            found.setdefault(task.name, (task, folder / Path(task.where).name))
    kinds = [head_kind(name) for name in HEADS.names()]
    if json:
        tasks = [{**_summary(task), "file": str(file) if file else None} for task, file in found.values()]
        show.as_json({"tasks": tasks, "heads": [_kind_summary(kind) for kind in kinds]})
        return
    columns = ("name", "head", "source", "primary_metric", "description")
    rows = [[_summary(task)[column] for column in columns] for task, _ in found.values()]
    _table("Tasks", [column.replace("_", " ") for column in columns], rows)
    heads = [[kind.name, kind.description, _columns_of(kind), ", ".join(kind.default_metrics)] for kind in kinds]
    _table("Heads", ["head", "predicts", "columns", "metrics"], heads)


@tasks_app.command("show")
def show_task(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A task's name, or its file.")],
    json: AsJson = False,
) -> None:
    """One task file as it is; with --json, its definition with every default written out."""
    from ..schema import read_text
    from ..task import find_task, load_task
    from . import show

    path = find_task(name, Path(), key="")
    text = read_text(path, "task file")
    if json:
        show.as_json(_definition(load_task(path)))
    else:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    typer.echo(f"from {path}", err=True)


def _of_recipe(recipe: Path) -> list[tuple[Task, Path | None]]:
    """A recipe's own tasks, then the task files beside it; None stands for the recipe itself.

    Raises:
        FaultyInput: the recipe is at fault; other files beside it that are no task files are passed over.
    """
    from ..recipe import load_recipe
    from ..schema import read_yaml
    from ..task import load_task

    found: list[tuple[Task, Path | None]] = []
    for task in load_recipe(recipe).definitions:
        file = Path(task.where)
        found.append((task, None if file == recipe else file))
    for folder in (recipe.parent, recipe.parent / "tasks"):
        for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
            try:
                data, _ = read_yaml(path)
                if "head" in data:
                    found.append((load_task(path), path))
            except FaultyInput as error:
                typer.echo(f"left out: {error}", err=True)
    return found


def _summary(task: Task) -> dict[str, Any]:
    return {
        "name": task.name,
        "head": task.head,
        "source": _source(task),
        "primary_metric": next(iter(task.metric_names), None),
        "description": task.description,
    }


def _source(task: Task) -> str | None:
    """Source and config, or the training files where these are given; local paths as seen from here."""
    from ..recipe import is_local

    names = [task.data.source] if task.data.source else task.data.splits.given().get("train", [])
    shown = [os.path.normpath(task.base / name) if is_local(name, task.base) else name for name in names]
    return " ".join([*shown, *([task.data.config] if task.data.config else [])]) or None


def _kind_summary(kind: HeadKind) -> dict[str, Any]:
    return {
        "name": kind.name,
        "description": kind.description,
        "reads": kind.input,
        "annotation": kind.annotation,
        "columns": [sorted(option) for option in kind.form.columns if option],
        "metrics": list(kind.default_metrics),
    }


def _columns_of(kind: HeadKind) -> str:
    """What a kind needs: `text or tokens; label`."""
    from ..kinds import INPUT_COLUMNS

    alternatives = (INPUT_COLUMNS[kind.input], [option for option in kind.form.columns if option])
    return "; ".join(
        " or ".join(" + ".join(sorted(option)) for option in options) for options in alternatives if options
    )


def _definition(task: Task) -> dict[str, Any]:
    data = task.model_dump(mode="json", by_alias=True)
    data["metrics"] = task.metric_names
    if task.kind.annotation == "tags":
        data["scheme"], data["words"] = task.tag_scheme, task.word_splitter
    return data


def _table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """A table of texts on stdout; without a terminal its lines are not cut, so that a program can search them."""
    from rich.console import Console
    from rich.table import Table

    made = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=not sys.stdout.isatty())
    for row in rows:
        made.add_row(*("" if value is None else str(value) for value in row))
    width = None if sys.stdout.isatty() else 400
    Console(file=sys.stdout, width=width, highlight=False, markup=False).print(made)
