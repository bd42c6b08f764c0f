"""`fuse ensemble`, `fuse merge` and `fuse distil`: several finished models into one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import fault
from .app import fuse_app, quieten_loading
from .train import AsJson, DataRoot, Recipe, Sets, report

Output = Annotated[Path, typer.Argument(help="The folder to write: new or empty.")]
Checkpoints = Annotated[
    list[str],
    typer.Argument(
        metavar="CHECKPOINT...",
        help="[TASK=]PLACE[@REVISION][#TASK]: folders or Hub names, of mtl-nlp or plain models of transformers.",
    ),
]
WhereData = Annotated[
    str | None, typer.Option(help="A recipe that says where the data is; the checkpoints' own if absent.")
]
Batch = Annotated[int, typer.Option(min=1, help="Texts a batch.")]


@fuse_app.command("ensemble")
def ensemble(
    output: Output,
    checkpoints: Checkpoints,
    weights: Annotated[str, typer.Option(help="tuned (on validation) or uniform.")] = "tuned",
    tags: Annotated[str, typer.Option(help="vote (entities by majority) or average (of probabilities).")] = "vote",
    recipe: WhereData = None,
    sets: Sets = None,
    data_root: DataRoot = None,
    batch: Batch = 64,
    json: AsJson = False,
) -> None:
    """A folder of checkpoints that answer together.

    Example: mtl-nlp fuse ensemble runs/both runs/first runs/second
    """
    from ..fusion.ensemble import fuse_ensemble
    from ..hub.ensemble import read_ensemble
    from . import show

    quieten_loading()
    folder = fuse_ensemble(
        checkpoints,
        output,
        weights=weights,
        tags=tags,
        recipe=recipe,
        sets=sets or (),
        data_root=data_root,
        batch=batch,
    )
    made = read_ensemble(folder)
    if json:
        show.as_json({"folder": str(folder), "weights": made.weights, **_scores(folder)})
        return
    columns = ["task", *(path.name for path in made.members)]
    show.table("Weights", columns, [[name, *(round(w, 4) for w in own)] for name, own in made.weights.items()])
    _show_scores(folder)
    typer.echo(f"ensemble: {folder}")


@fuse_app.command("merge")
def merge(
    output: Output,
    checkpoints: Checkpoints,
    method: Annotated[str, typer.Option(help="average, task_arithmetic, ties or dare.")] = "average",
    ancestor: Annotated[
        str | None, typer.Option(help="What all were fine-tuned from; what their recipes say if absent.")
    ] = None,
    coefficients: Annotated[str, typer.Option(help="search (on validation), or numbers: one, or one each.")] = "search",
    density: Annotated[float, typer.Option(help="The share of changes that ties and dare keep.")] = 0.2,
    adapters: Annotated[
        bool,
        typer.Option("--adapters", help="Merge LoRA adapters by peft: the checkpoints are checkpoint-N with them."),
    ] = False,
    recipe: WhereData = None,
    sets: Sets = None,
    data_root: DataRoot = None,
    seed: Annotated[int, typer.Option(help="Of dare.")] = 13,
    batch: Batch = 64,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a search that was interrupted.")] = False,
    json: AsJson = False,
) -> None:
    """One checkpoint from the weights of several that share an ancestor, without training.

    Example: mtl-nlp fuse merge runs/merged runs/sst2 runs/ner --method ties
    """
    numbers = _numbers(coefficients)
    from ..fusion.common import read_facts
    from ..fusion.merge import fuse_merge
    from . import show

    quieten_loading()
    folder = fuse_merge(
        checkpoints,
        output,
        method=method,
        ancestor=ancestor,
        coefficients=numbers,
        density=density,
        adapters=adapters,
        recipe=recipe,
        sets=sets or (),
        data_root=data_root,
        seed=seed,
        batch=batch,
        resume=resume,
    )
    facts = read_facts(folder)
    if json:
        show.as_json({"folder": str(folder), **facts, **_scores(folder)})
        return
    rows = [[p["name"], c] for p, c in zip(facts["parents"], facts["coefficients"], strict=True)]
    show.table(f"Merged by {facts['method']}", ["checkpoint", "coefficient"], rows)
    _show_scores(folder)
    typer.echo(f"checkpoint: {folder}")


@fuse_app.command("distil")
def distil(
    recipe: Recipe,
    teachers: Annotated[
        list[str] | None,
        typer.Option("--teacher", help="TASK=CHECKPOINT[#TASK], of mtl-nlp or transformers; may be repeated."),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the teachers' targets; the recipe's, or 1.")] = None,
    gold: Annotated[
        float | None, typer.Option(help="A constant share of the labels, in place of one that grows from 0 to 1.")
    ] = None,
    sets: Sets = None,
    output: Annotated[str | None, typer.Option(help="The run's folder, in place of `output_dir`.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest complete checkpoint.")] = False,
    data_root: DataRoot = None,
    json: AsJson = False,
) -> None:
    """Train a recipe's model on its labels and on what teachers say of the same texts.

    Example: mtl-nlp fuse distil recipe.yaml --teacher sst2=runs/sst2 --teacher ner=runs/ner
    """
    from ..fusion.distil import distil_recipe

    loaded = distil_recipe(
        recipe, _pairs(teachers or ()), temperature=temperature, gold=gold, sets=sets or (), output=output
    )
    from ..training.finetune import finetune

    quieten_loading()
    report(finetune(loaded, data_root=data_root, resume=resume), json=json)


def _pairs(given: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, mark, place = text.partition("=")
        if not mark or not name or not place:
            raise fault(f'found "{text}"', key="--teacher", allowed="TASK=CHECKPOINT")
        if name in found:
            raise fault(f"{name} has two", key="--teacher", cure="one teacher a task; several: fuse ensemble first")
        found[name] = place
    return found


def _numbers(text: str) -> str | list[float]:
    if text == "search":
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise fault(f'found "{text}"', key="--coefficients", allowed="search, or numbers: 0.3,0.4") from None


def _scores(folder: Path) -> dict[str, Any]:
    from ..model.files import METRICS, read_json

    data = read_json(folder / METRICS)
    return {"validation": data["validation"], "mean": data["mean"]}


def _show_scores(folder: Path) -> None:
    from . import show

    found = _scores(folder)
    if found["validation"]:
        show.scores("Validation", found["validation"], found["mean"])
