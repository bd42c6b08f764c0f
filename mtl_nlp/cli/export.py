"""`export`: tasks of a checkpoint as plain transformers models, or all of it as one ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import fault, listed
from .app import app, fail, quieten_loading
from .train import AsJson, DataRoot

FORMATS = ("transformers", "onnx")
VALIDATED = 1000  # texts of a corpus on which int8 is compared with float32


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="A folder that `train` wrote.")],
    output: Annotated[Path, typer.Option(help="The folder to write; one below it a task where there are several.")],
    task: Annotated[
        str | None, typer.Option(help="A task, several separated by commas, or all; ONNX: all if absent.")
    ] = None,
    format: Annotated[str, typer.Option(help="transformers or onnx.")] = "transformers",
    scores: Annotated[
        bool, typer.Option(help="Score the stock pipeline on validation where it decodes otherwise than we do.")
    ] = True,
    data_root: DataRoot = None,
    int8: Annotated[bool, typer.Option("--int8", help="ONNX: the encoder's matrix products in int8.")] = False,
    texts: Annotated[
        Path | None,
        typer.Option(
            help="ONNX, int8: texts, as `predict` reads them, on which it must answer like float32; the validation split if absent."
        ),
    ] = None,
    agree: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="ONNX, int8: products stay float32 until every task agrees on this share of labels."
        ),
    ] = 0.99,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in the folder.")] = False,
    json: AsJson = False,
) -> None:
    """Write tasks of a checkpoint as plain transformers models, verified bit for bit, or everything as ONNX."""
    if format not in FORMATS:
        raise fault(f'found "{format}"', key="--format", allowed=listed(FORMATS))
    wanted = [name.strip() for name in (task or "").split(",") if name.strip()]
    if texts is not None and not int8:
        raise fault("found it without --int8", key="--texts", cure="float32 is compared with the checkpoint anyway")
    if int8 and format != "onnx":
        raise fault(f"found it with --format {format}", key="--int8", allowed="--format onnx")
    if format == "onnx":
        _onnx(checkpoint, output, wanted, int8, texts, agree, data_root, overwrite, json)
        return
    _transformers(checkpoint, output, wanted, scores, data_root, overwrite, json)


def _transformers(
    checkpoint: str,
    output: Path,
    wanted: list[str],
    scores: bool,
    data_root: Path | None,
    overwrite: bool,
    json: bool,
) -> None:
    from ..hub.checkpoint import load_model, load_tokenizer
    from ..hub.single_task import NotEqual, chosen_tasks, export_task
    from ..training.stock import BothDecodings
    from . import show

    quieten_loading()
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    if not wanted and len(model.tasks) > 1:
        names = [one.name for one in model.tasks]
        raise fault("missing", key="--task", allowed=listed([*names, "all"], 40))
    names, left = chosen_tasks(model, wanted or ["all"])
    several = wanted == ["all"] or len(names) > 1
    measure = BothDecodings(checkpoint, model, tokenizer, data_root=data_root) if scores else None
    made = []
    for name in names:
        target = output / name if several else output
        try:
            made.append(
                export_task(checkpoint, name, target, measure=measure, overwrite=overwrite, loaded=(model, tokenizer))
            )
        except NotEqual as error:
            fail(str(error), 1)
    if json:
        show.as_json({"exports": [_record(one) for one in made], "not exported": left})
    else:
        for one in made:
            _say(one)
    for reason in left.values():
        typer.echo(f"not exported: {reason}", err=True)
    if left:
        raise typer.Exit(1)


def _onnx(
    checkpoint: str,
    output: Path,
    wanted: list[str],
    int8: bool,
    texts: Path | None,
    agree: float,
    data_root: Path | None,
    overwrite: bool,
    json: bool,
) -> None:
    from . import show

    rows = _rows(texts) if texts is not None else None
    from ..inference.onnx_export import export_onnx

    quieten_loading()
    if int8 and rows is None:
        rows = _validation(checkpoint, data_root)
    made = export_onnx(checkpoint, output, wanted or None, int8=int8, texts=rows, least=agree, overwrite=overwrite)
    shares = {name: same / number for name, (same, number) in made.agreement.items()}
    if json:
        show.as_json(
            {
                "folder": str(made.folder),
                "tasks": made.tasks,
                "precision": made.precision,
                "difference": made.difference,
                "bytes": made.size,
                "agreement": shares,
                "float32": made.kept,
            }
        )
    else:
        typer.echo(f"{listed(made.tasks)}: ONNX, {made.precision}, {made.size / 1e6:.1f} MB: {made.folder}")
        typer.echo(f"  float32 logits differ from the checkpoint's by at most {made.difference:.1g}")
        for name, (same, number) in made.agreement.items():
            typer.echo(f"  {name}: {same} of {number} labels as float32 ({same / number:.2%})")
        if made.kept:
            typer.echo(f"  float32 still, {len(made.kept)} of {made.products}: {listed(made.kept, 100)}")
    low = {name: share for name, share in shares.items() if share < agree}
    if low:
        told = listed(f"{name} {share:.2%}" for name, share in low.items())
        typer.echo(f"int8 agrees with float32 on less than {agree:.0%}: {told}", err=True)
        raise typer.Exit(1)


def _validation(checkpoint: str, data_root: Path | None) -> list[Any] | None:
    """The checkpoint's own validation texts, each corpus with its tasks; None (told) where they cannot be read."""
    from ..errors import UserError
    from ..inference.onnx_choice import TextSet
    from ..training.split_rows import split_rows

    try:
        found = split_rows(checkpoint, "validation", data_root=data_root, most=VALIDATED)
    except (UserError, OSError) as error:
        line = str(error).strip().splitlines()[0]
        typer.echo(f"int8 is not compared with float32: no validation texts ({line}); give --texts", err=True)
        return None
    return [TextSet(corpus.rows, tuple(task.name for task in corpus.tasks)) for corpus in found]


def _rows(path: Path) -> list[Any]:
    from ..inference.formats import read_items

    if not path.is_file():
        raise fault("file not found", where=str(path), key="--texts")
    with path.open("rb") as stream:
        rows = list(read_items(stream, str(path), "auto"))
    if not rows:
        raise fault("no text in it", where=str(path), key="--texts")
    return rows


def _record(export: Any) -> dict[str, Any]:
    measured = export.measured
    return {
        "task": export.task,
        "folder": str(export.folder),
        "class": export.model_class,
        "pipeline": export.pipeline,
        "bit_equal": True,
        "folded": export.folded,
        "not_in_folder": export.left,
        "validation": {"mtl_nlp": measured.ours, "stock": measured.stock, "texts": measured.texts}
        if measured
        else None,
        "not_measured": measured.why_not or None if measured else None,
    }


def _say(export: Any) -> None:
    folded = f", folded in: {listed(export.folded)}" if export.folded else ""
    typer.echo(f"{export.task}: {export.model_class}, logits bit-equal{folded}: {export.folder}")
    measured = export.measured
    if measured is None:
        return
    if measured.why_not:
        typer.echo(f"  scores by both decodings: not measured: {measured.why_not}")
        return
    for name, value in measured.ours.items():
        typer.echo(
            f"  {name} on {measured.texts} validation texts: {value:.4f}, stock pipeline {measured.stock[name]:.4f}"
        )
