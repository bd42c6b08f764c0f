"""`demo`: train on the corpus that ships, score on its test split, annotate three messages; from any folder.

With `--assistant` a fourth task answers from the knowledge base that ships.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from ..errors import fault
from .app import app, quieten_loading

MESSAGES = (
    "I can't log in since Monday and nobody answers. Anna Kowalska, Berlin",
    "Where is my order #48-2291-K? The courier was friendly, but the parcel never came.",
    "Please cancel my subscription and refund the 49.90 EUR, thanks a lot!",
)


QUESTIONS = (
    "Hello, would it be possible to have a cracked kettle replaced? Anna Kowalska, Berlin",
    "The app is great, but how do I turn it to French?",
    "I have been charged twice for order #48-2291-K. This is a disgrace!",
)


@app.command()
def demo(
    output: Annotated[
        Path | None, typer.Option(help="The run's folder; `runs/demo`, or `runs/assistant`, if absent.")
    ] = None,
    assistant: Annotated[
        bool, typer.Option("--assistant", help="With a fourth task that answers from a knowledge base.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Remove an earlier demo there first.")] = False,
    sets: Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, any key of the recipe.")] = None,
) -> None:
    """Train, score and use tasks on the corpus that ships (about two minutes on two cores): `mtl-nlp demo`."""
    from ..recipe import load_recipe, shipped_recipe
    from ..task import shipped_folder

    name = "assistant" if assistant else "demo"
    output = output or Path("runs") / name
    recipe = load_recipe(shipped_recipe(name), sets or (), output=str(output))
    knowledge = shipped_folder() / "demo" / "faq" / "knowledge.jsonl" if assistant else None
    if overwrite:
        _remove_run(output)
    from ..inference.predictor import Predictor
    from ..training.finetune import finetune
    from ..training.score import score_checkpoint
    from . import show

    quieten_loading()
    result = finetune(recipe)
    metrics, mean = score_checkpoint(result.folder)
    show.scores("Scores on the test split (generated text: they show the road, not quality)", metrics, mean)
    predictor = Predictor.from_pretrained(result.folder, knowledge=knowledge)
    for answer in predictor(list(QUESTIONS if assistant else MESSAGES)):
        show.as_json(answer)
    more = f" --knowledge {knowledge}" if assistant else ""
    typer.echo(f'checkpoint: {result.folder}; try `mtl-nlp predict {output}{more} --text "…"`', err=True)


def _remove_run(folder: Path) -> None:
    """Remove an earlier run; nothing that is not one."""
    from ..recipe import RESOLVED

    if not folder.exists():
        return
    if not (folder / RESOLVED).is_file() and not any(folder.glob("checkpoint-*")) and any(folder.iterdir()):
        raise fault(
            "holds something that is not a run", where=str(folder), key="--overwrite", cure="choose another --output"
        )
    shutil.rmtree(folder)
