"""`predict`: annotate texts from a file, a pipe or the command line."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, TextIO

import typer

from ..errors import fault, listed
from .app import app, quieten_loading

if TYPE_CHECKING:
    from ..inference.predictor import Predictor, Tally
    from ..task import Task

PERIOD = 15.0


@app.command()
def predict(
    checkpoint: Annotated[str, typer.Argument(help="A folder that `train` wrote, or OWNER/NAME[@REVISION].")],
    file: Annotated[
        str | None, typer.Argument(help="Input, `-` for a pipe: one text a line, JSONL, CSV, TSV, CoNLL.")
    ] = None,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text; may be repeated.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Names, separated by commas; all that the input can feed if absent.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write here, once everything is done, in place of stdout.")
    ] = None,
    format: Annotated[str, typer.Option(help="auto, text, jsonl, json, csv, tsv, conll or conllu.")] = "auto",
    output_format: Annotated[
        str | None, typer.Option(help="jsonl, csv, tsv or conll; by OUTPUT's ending, else jsonl.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, help="Most sequences a pass; a pipe is answered after as many texts.")
    ] = 32,
    scores: Annotated[bool, typer.Option("--scores", help="Every label's score.")] = False,
    words: Annotated[
        str | None, typer.Option(help="Cut raw text: given (as annotators do), whitespace, pretokenizer.")
    ] = None,
    knowledge: Annotated[
        Path | None, typer.Option(help="What retrieval tasks answer from: JSONL, CSV or TSV with `answer`, and `id`.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    precision: Annotated[
        str, typer.Option(help="fp32 (exact), bf16, auto (the fastest that is verified on the texts) or int8.")
    ] = "fp32",
    processes: Annotated[int, typer.Option(min=1, help="Processes that share the input; each takes a GPU.")] = 1,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say which path answered.")] = False,
) -> None:
    """Annotate texts with every task of a checkpoint: one encoder pass, one line of JSON a text, in the input's order."""
    from ..inference.formats import read_items
    from ..inference.writers import writer

    kind_out = output_format or _format_of(output)
    write = writer(kind_out)
    target = _checked_output(output)
    with _opened(file, text) as (stream, name, is_pipe):
        rows = _texts(text) if text is not None else read_items(stream, name, format, _teller())
        from ..inference.predictor import LOOKAHEAD, Predictor, Tally

        quieten_loading()
        options: dict[str, Any] = {"dtype": dtype, "words": words, "precision": precision, "knowledge": knowledge}
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        _check_shared(processes, ranks, name)
        predictor = Predictor.from_pretrained(checkpoint, _own_device(device, ranks, processes), **options)
        if tasks is None and predictor.without_knowledge:
            told = (
                f"{listed(predictor.without_knowledge)}: not answered, for want of a knowledge base (--knowledge FILE)"
            )
            typer.echo(told, err=True)
        chosen = _chosen(predictor, tasks, conll=kind_out == "conll")
        tally = Tally()
        named = None if tasks is None and kind_out != "conll" else [task.name for task in chosen]
        call: dict[str, Any] = {"tasks": named, "batch_size": batch, "scores": scores}
        job = (checkpoint, device, options, call, batch if is_pipe else LOOKAHEAD)
        predictions = _answered(predictor, rows, job, processes, ranks, tally)
        if int(os.environ.get("RANK", "0")):
            deque(predictions, 0)  # another process writes
            return
        with _written(target) as out, _progress(tally, shown=target is not None or not sys.stdout.isatty()) as step:
            for line in write(predictions, chosen):
                out.write(line)
                step()
                if is_pipe and tally.rows % batch == 0:
                    out.flush()
            out.flush()
    _say_done(tally, predictor, name, output)
    if verbose:
        typer.echo(f"path: {predictor.path}" + (f"; {processes} processes" if processes > 1 else ""), err=True)


def _answered(
    predictor: Predictor, rows: Iterator[Any], given: tuple[Any, ...], processes: int, ranks: int, tally: Tally
) -> Iterator[dict[str, Any]]:
    """Predictions by this process, by workers, or by all the processes of a launcher."""
    from ..inference.parallel import Job, in_processes, in_ranks

    job = Job(*given)
    if ranks > 1:
        return in_ranks(predictor, job, rows, tally)
    if processes > 1:
        return in_processes(job, rows, processes, tally)
    return predictor.stream(rows, lookahead=job.window, tally=tally, **job.call)


def _check_shared(processes: int, ranks: int, name: str) -> None:
    """Refuse what several processes cannot share."""
    if ranks > 1 and processes > 1:
        raise fault(f"found {processes} in a process of a launcher", key="--processes", cure="leave it out")
    if ranks > 1 and name in ("stdin", "--text"):
        raise fault(
            "every process has to read the input", where=name, allowed="a file, under torchrun or accelerate launch"
        )


def _own_device(device: str | None, ranks: int, processes: int) -> str | None:
    """Each process of a launcher takes the GPU of its local rank; beside workers of its own this one stays off the GPUs."""
    if processes > 1:
        return "cpu"
    if device is not None or ranks == 1:
        return device
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % count}" if count else None


def _teller() -> Callable[[str], None] | None:
    """What tells on stderr how the input is read; of several processes the first speaks."""
    return None if int(os.environ.get("RANK", "0")) else lambda told: typer.echo(told, err=True)


def _texts(texts: list[str]) -> Iterator[Any]:
    from ..inference.inputs import Item

    yield from (Item({"text": text}, f"--text {number}") for number, text in enumerate(texts, 1))


def _chosen(predictor: Predictor, names: str | None, *, conll: bool) -> list[Task]:
    """The tasks whose answers are written; CoNLL has a column for token tasks alone."""
    if names is None:
        tagging = [task for task in predictor.tasks if task.kind.annotation == "tags"]
        return tagging if conll else predictor.tasks
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    return predictor.chosen(wanted)


def _format_of(output: Path | None) -> str:
    endings = {".csv": "csv", ".tsv": "tsv", ".conll": "conll", ".bio": "conll", ".iob": "conll"}
    return endings.get(output.suffix.lower(), "jsonl") if output is not None else "jsonl"


@contextmanager
def _opened(file: str | None, texts: list[str] | None) -> Iterator[tuple[BinaryIO, str, bool]]:
    """(bytes, name, whether it is a pipe)."""
    if texts is not None and file is not None:
        raise fault(f'found "{file}" and --text', key="predict", allowed="one of them")
    if texts is not None or file is None or file == "-":
        if texts is None and file is None and sys.stdin.isatty():
            raise fault("nothing to read", key="predict", allowed="a file, `-` for a pipe, or --text TEXT")
        name = "--text" if texts is not None else "stdin"
        yield sys.stdin.buffer, name, not stat.S_ISREG(_mode()) and texts is None
        return
    path = Path(file)
    if path.is_dir():
        raise fault("is a folder", where=file, allowed="a file")
    if not path.exists():
        near = sorted(p.name for p in path.parent.glob(f"*{path.suffix}")) if path.parent.is_dir() else []
        raise fault("file not found", where=file, cure=f"in that folder: {listed(near)}" if near else "check the path")
    with path.open("rb") as stream:
        yield stream, file, not path.is_file()


def _mode() -> int:
    try:
        return os.fstat(sys.stdin.fileno()).st_mode
    except OSError:
        return 0


def _checked_output(output: Path | None) -> Path | None:
    """The file to write, links followed."""
    if output is None:
        return None
    if output.is_dir():
        raise fault("is a folder", where=str(output), key="--output", allowed="a file")
    if not output.parent.is_dir():
        raise fault("no such folder", where=str(output.parent), key="--output", cure="make it first")
    return output.resolve()


@contextmanager
def _written(output: Path | None) -> Iterator[TextIO]:
    """Where lines go: stdout, or a temporary file that becomes `output` when all went well."""
    if output is None:
        sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        try:
            yield sys.stdout
        except BrokenPipeError:
            # The reader has gone (`| head`), and Python must not try to flush stdout when it leaves.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        return
    if output.exists() and not output.is_file():
        with output.open("w", encoding="utf-8", newline="") as out:  # a device or a named pipe
            yield out
        return
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as out:
            yield out
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _progress(tally: Tally, *, shown: bool) -> Iterator[Any]:
    """Progress on stderr: a bar on a terminal, elsewhere a line every quarter of a minute."""
    if sys.stderr.isatty() and shown:
        from tqdm import tqdm

        with tqdm(unit=" texts", file=sys.stderr) as bar:
            yield lambda: bar.update(1)
        return
    begin = last = time.monotonic()

    def step() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PERIOD:
            last = now
            typer.echo(f"{tally.rows} texts, {tally.rows / (now - begin):.0f} a second", err=True)

    yield step


def _say_done(tally: Tally, predictor: Predictor, name: str, output: Path | None) -> None:
    if not tally.rows:
        typer.echo(f"{name}: no text in it, so nothing is predicted", err=True)
    if tally.truncated:
        told = f"longer than {predictor.max_length} tokens: tasks that read a whole text saw their beginning"
        typer.echo(f"{tally.truncated} of {tally.rows} texts are {told}", err=True)
    if output is not None and tally.rows:
        typer.echo(f"{tally.rows} predictions: {output}", err=True)
