"""`explain`: which words made each task's decisions."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import fault, listed
from .app import app, quieten_loading
from .predict import _checked_output, _opened, _progress, _texts, _written

if TYPE_CHECKING:
    from rich.text import Text

FORMATS = ("text", "json", "html")
ENDINGS = {".json": "json", ".jsonl": "json", ".html": "html", ".htm": "html"}
SHOWN = 8
WIDEST = 24


@app.command()
def explain(
    checkpoint: Annotated[str, typer.Argument(help="A folder that `train` wrote.")],
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; may be repeated.")] = None,
    file: Annotated[str | None, typer.Option("--file", help="Texts, as `predict` reads them; `-` for a pipe.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Names, separated by commas; all that the input can feed if absent.")
    ] = None,
    method: Annotated[
        str, typer.Option(help="integrated_gradients, gradient_x_input or occlusion.")
    ] = "integrated_gradients",
    baseline: Annotated[
        str | None, typer.Option(help="What stands for no word: mask, pad or zero; the mask token if there is one.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", help="TASK=LABEL: explain this label, not the predicted one.")
    ] = None,
    knowledge: Annotated[Path | None, typer.Option(help="What retrieval tasks answer from.")] = None,
    format: Annotated[str | None, typer.Option(help="text, json (a line a text) or html; by OUTPUT's ending.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write here, once everything is done.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Most rows a pass.")] = 32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")] = None,
) -> None:
    """Which words made each task's decisions: `mtl-nlp explain runs/demo --text "the staff was great"`."""
    from ..inference.formats import read_items

    kind = _format(format, output)
    wanted = _labels(label)
    target = _checked_output(output)
    with _opened(file, text) as (stream, name, _):
        rows = _texts(text) if text is not None else read_items(stream, name, "auto")
        from ..analysis.explain import Explainer
        from ..inference.predictor import Tally

        quieten_loading()
        explainer = Explainer.from_pretrained(
            checkpoint, device, knowledge=knowledge, method=method, baseline=baseline, batch_size=batch
        )
        chosen = None if tasks is None else [one.strip() for one in tasks.split(",") if one.strip()]
        tally, short = Tally(), 0
        about = f"{checkpoint}: {explainer.method}, {explainer.baseline} baseline"
        with _written(target) as out, _progress(tally, shown=target is not None) as step:

            def counted() -> Iterator[dict[str, Any]]:
                nonlocal short
                for record in explainer.stream(rows, chosen, wanted):
                    short += sum(one["complete"] is False for found in record["explanations"].values() for one in found)
                    tally.rows += 1
                    step()
                    yield record

            for piece in _pieces(kind, counted(), about, colours=target is None):
                out.write(piece)
            out.flush()
    if short:
        told = "explanations whose sum is not within 1 % of the difference in logits; each says how far it is off"
        typer.echo(f"{short} {told}", err=True)
    if output is not None:
        typer.echo(f"{tally.rows} texts explained: {output}", err=True)


def _format(wanted: str | None, output: Path | None) -> str:
    kind = wanted or (ENDINGS.get(output.suffix.lower(), "text") if output is not None else "text")
    if kind not in FORMATS:
        raise fault(f'found "{kind}"', key="--format", allowed=listed(FORMATS))
    return kind


def _labels(given: list[str] | None) -> dict[str, str]:
    found = {}
    for one in given or []:
        task, mark, label = one.partition("=")
        if not (task and mark and label):
            raise fault(f'found "{one}"', key="--label", allowed="TASK=LABEL")
        found[task] = label
    return found


def _pieces(kind: str, records: Iterable[Mapping[str, Any]], about: str, *, colours: bool) -> Iterator[str]:
    """The records in a format, piece by piece."""
    if kind == "html":
        from ..analysis.explanation_page import page

        yield from page(records, about)
    elif kind == "json":
        for record in records:
            yield json.dumps(record, ensure_ascii=False) + "\n"
    else:
        for record in records:
            yield _as_text(record, colours=colours)


def _as_text(record: Mapping[str, Any], *, colours: bool) -> str:
    """A record for people; in colours on a terminal, unless NO_COLOR is set."""
    import os

    from rich.console import Console
    from rich.text import Text

    from ..analysis.explanation_page import footing, heading

    terminal = colours and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    # Widths are the reader's: a text is not broken where a program may read it.
    console = Console(
        file=sys.stdout,
        force_terminal=terminal,
        no_color=not terminal,
        highlight=False,
        width=None if terminal else 10**6,
    )
    with console.capture() as capture:
        for task, found in record["explanations"].items():
            if not found:
                console.print(Text(f"{task}: nothing found", style="bold"))
            for one in found:
                console.print(Text(f"{task}: {heading(one)}", style="bold"))
                console.print(_coloured(one["words"]))
                for line in _strongest(one["words"]):
                    console.print(line)
                console.print(Text(f"  {footing(one)}", style="dim"))
        console.print()
    return capture.get()


def _coloured(words: list[Mapping[str, Any]]) -> Text:
    """The words on a blue (for) or orange (against) ground; without colours just the words."""
    from rich.text import Text

    from ..analysis.explanation_page import spacing

    most = max((abs(word["attribution"]) for word in words), default=0.0)
    line = Text(" ")
    before: Mapping[str, Any] | None = None
    for word in words:
        line.append(spacing(before, word))
        before = word
        share = abs(word["attribution"]) / most if most else 0.0
        style = ""
        if share > 0.1:
            # Towards white, so that black letters stand on it in any theme.
            red, green, blue = (59, 130, 246) if word["attribution"] > 0 else (249, 150, 50)
            mixed = [round(255 - (255 - part) * share) for part in (red, green, blue)]
            style = f"black on rgb({mixed[0]},{mixed[1]},{mixed[2]})"
        line.append(_printable(word["word"]), style=style)
    return line


def _strongest(words: list[Mapping[str, Any]]) -> Iterator[Text]:
    """A line for each of the words that count most, with a bar."""
    from rich.text import Text

    best = sorted(words, key=lambda word: -abs(word["attribution"]))[:SHOWN]
    most = abs(best[0]["attribution"]) if best else 0.0
    for word in best:
        value = word["attribution"]
        bar = "█" * round(WIDEST * abs(value) / most) if most else ""
        line = Text(f"  {_printable(word['word'])[:WIDEST]:<{WIDEST}} {value:+9.4f} ")
        line.append(bar, style="blue" if value > 0 else "dark_orange")
        yield line


def _printable(word: str) -> str:
    """A word without characters that steer a terminal."""
    return "".join(char if char.isprintable() else "·" for char in word)
