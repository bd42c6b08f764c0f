"""`show`: what a checkpoint is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import listed
from . import show as tables
from .app import app

if TYPE_CHECKING:
    from ..hub.facts import Facts


@app.command()
def show(
    checkpoint: Annotated[str, typer.Argument(help="A folder that `train` wrote, or OWNER/NAME[@REVISION].")],
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """What a checkpoint is: tasks, labels, sizes, scores, provenance, versions."""
    from ..hub.ensemble import is_ensemble
    from ..hub.facts import commit_of, facts_of
    from ..hub.location import check_folder

    if is_ensemble(checkpoint):
        _show_ensemble(checkpoint, json=json)
        return
    folder = check_folder(checkpoint)
    facts, commit = facts_of(folder), commit_of(folder)
    vectors = None
    if facts.conditioning is not None:
        from ..analysis.task_vectors import task_vectors

        vectors = task_vectors(folder)
    if json:
        told = {"checkpoint": checkpoint, "commit": commit, **facts.as_dict()}
        tables.as_json({**told, "task_vectors": vectors.as_dict() if vectors else None})
        return
    rows = [[t.name, t.head, listed(t.labels, 12) if t.labels else "", f"{t.parameters:,}"] for t in facts.tasks]
    tables.table("Tasks", ["task", "head", "labels", "parameters"], rows)
    scores = {task.name: task.scores for task in facts.tasks if task.scores}
    if scores:
        tables.scores("Validation", scores, facts.mean)
    if vectors is not None:
        lines = [
            [n, length, *row] for n, length, row in zip(vectors.names, vectors.norms, vectors.cosines, strict=True)
        ]
        tables.table(f"Conditions ({vectors.kind}): cosines", ["task", "length", *vectors.names], lines)
    tables.table("Checkpoint", ["", ""], [*_about(facts), *([["commit", commit]] if commit else [])])


def _show_ensemble(folder: str, *, json: bool) -> None:
    """Its tasks with each member's weight, its members, and its scores."""
    from ..hub.ensemble import read_ensemble
    from ..hub.facts import facts_of
    from ..hub.location import check_folder
    from ..model.files import METRICS, read_json

    made = read_ensemble(folder)
    members = [facts_of(check_folder(path)) for path in made.members]
    scores = read_json(made.folder / METRICS) if (made.folder / METRICS).is_file() else {}
    if json:
        told = [{**fact, **one.as_dict()} for fact, one in zip(made.facts, members, strict=True)]
        found = {"ensemble": folder, "weights": made.weights, "vote": made.vote, "members": told}
        tables.as_json(found | {"validation": scores.get("validation"), "mean": scores.get("mean")})
        return
    names = [path.name for path in made.members]
    rows = [[name, task.head, *(round(w, 4) for w in made.weights[name])] for name, task in made.tasks.items()]
    tables.table("Tasks and the members' weights", ["task", "head", *names], rows)
    if scores.get("validation"):
        tables.scores("Validation", scores["validation"], scores.get("mean"))
    about = [
        [
            name,
            fact.get("name"),
            f"{one.encoder} ({one.architecture})",
            f"{one.parameters:,}",
            f"{one.bytes / 1e6:.1f} MB",
        ]
        for name, fact, one in zip(names, made.facts, members, strict=True)
    ]
    tables.table("Members", ["member", "from", "encoder", "parameters", "weights"], about)


def _about(facts: Facts) -> list[list[Any]]:
    sources = list(dict.fromkeys(f"{t.source}{_pinned(t)}" for t in facts.tasks if t.source))
    rows: list[list[Any]] = [
        ["encoder", f"{facts.encoder} ({facts.architecture})"],
        ["parameters", f"{facts.parameters:,}, of them {facts.encoder_parameters:,} in the encoder"],
        ["conditioning", _conditioned(facts)],
        ["weights", f"{facts.bytes / 1e6:.1f} MB, {facts.dtype}"],
        ["data", listed(sources, 40)],
        ["steps", facts.run.get("steps")],
        ["seed", facts.recipe.get("seed")],
        ["recipe", facts.fingerprint],
    ]
    rows += [[name.replace("_", "-"), value] for name, value in facts.versions.items()]
    return [row for row in rows if row[1] not in (None, "")]


def _conditioned(facts: Facts) -> str | None:
    if facts.conditioning is None:
        return None
    return f"{facts.conditioning}: all answers to a text cost {facts.rows_per_text} rows of the encoder, one a task"


def _pinned(task: Any) -> str:
    return f"@{task.revision}" if task.revision else ""
