"""A checkpoint's answers on a split, example by example, as JSON lines: what comparisons and reports are made of.

    write_predictions("runs/assistant", "test", data_root)    # runs/assistant/predictions/test-TASK.jsonl, one file a task

One line an annotated example:

    {"row": 17, "text": "…", "gold": "positive", "predicted": "negative", "score": 0.61, "scores": {"negative": 0.61, …}}

`row` is the row of the source, so that examples of two models can be paired whatever else their recipes read. The input stands as
`text` or `words` (with `pair`, `question`, `context`, `choices` where there are any). `scores` is label → probability where labels
are scored, and a list (one probability a word) for tags; `score` is the probability of what was predicted, of tags the mean. What
there is no probability of (a number, an order of candidates) has neither. Of a retrieval `gold` are the passages that answer,
`predicted` is the nearest passage of the split, `score` its cosine, and `ranks` are the places of the right ones among all of
them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.sources import CorpusSplit
from ..decoding import Decoded
from ..errors import fault
from ..hub.checkpoint import check_folder
from ..hub.ensemble import is_ensemble, read_ensemble
from ..metrics.pool import retrieved
from ..model.multitask import MultiTaskModel
from ..recipe import RESOLVED, Recipe, load_recipe
from ..task import Task
from .ensemble_scores import member_answers
from .finetune import by_task, make_scorer
from .prepare import Prepared
from .score import open_checkpoint

FOLDER = "predictions"
INPUTS = {"tokens": "words"}  # input columns that are called otherwise in the file
DIGITS = 6


@dataclass(frozen=True)
class Predicted:
    """What was written.

    Attributes:
        files: task → its file.
        metrics: task → metric → value on the split.
        mean: the mean of the primary metrics.
        texts_per_second: through the encoder and all heads, decoding included.
    """

    files: dict[str, Path]
    metrics: dict[str, dict[str, float]]
    mean: float | None
    texts_per_second: float


def write_predictions(
    checkpoint: str | Path,
    split: str = "test",
    data_root: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    sets: Sequence[str] = (),
    datasets: Mapping[str, Any] | None = None,
    output: str | Path | None = None,
    batch: int = 64,
) -> Predicted:
    """Score a checkpoint on a split and write every answer.

    Args:
        checkpoint: a folder that `train` wrote, or `OWNER/NAME` on the Hub.
        recipe: says where the data is; the checkpoint's own resolved recipe when None.
        datasets: task → data in memory, as for `finetune`.
        output: the folder for the files; `CHECKPOINT/predictions` when None.

    Raises:
        UserError: no checkpoint, no such split, or the files cannot be written.
    """
    root = Path(data_root) if data_root is not None else None
    if is_ensemble(checkpoint):
        made = load_recipe(recipe or Path(checkpoint) / RESOLVED, sets, memory=datasets or ())
        place = None if output is None else Path(output)
        return ensemble_predictions(
            checkpoint, made, split=split, data_root=root, memory=datasets, output=place, batch=batch
        )
    folder = check_folder(checkpoint)
    model, prepared = open_checkpoint(folder, recipe, sets=sets, split=split, data_root=root, memory=datasets)
    target = Path(output) if output is not None else folder / FOLDER
    return predict_split(model, prepared, split, target, batch=batch)


def ensemble_predictions(
    folder: str | Path,
    recipe: Recipe,
    *,
    split: str,
    data_root: Path | None = None,
    memory: Mapping[str, Any] | None = None,
    output: Path | None = None,
    batch: int = 64,
) -> Predicted:
    """As `write_predictions`, of an ensemble. Texts a second are those of all members, one after another.

    Raises:
        UserError: a damaged ensemble, a recipe with tasks that it does not have, or no such split.
    """
    ensemble = read_ensemble(folder)
    wanted = {task.name: ensemble.tasks[task.name] for task in recipe.definitions}
    start = time.perf_counter()
    given: dict[str, Any] = {"data_root": data_root, "memory": memory}
    found = member_answers(ensemble.members, recipe, wanted, split=split, batch=batch, **given)
    weights = {name: ensemble.weights[name] for name in wanted}
    metrics = found.scores(weights, ensemble.vote)
    seconds = time.perf_counter() - start
    files: dict[str, Path] = {}
    for corpus, rows in found.scorer.splits.items():
        data = next(one for one in found.prepared.corpora if one.name == corpus).splits[split]
        for name, answers in found.decide(corpus, weights, ensemble.vote).items():
            lines = examples(found.tasks[name], data, rows.gold[name], answers)
            files[name] = write_lines((output or Path(folder) / FOLDER) / f"{split}-{name}.jsonl", lines)
    texts = sum(len(rows) for rows in found.scorer.splits.values())
    return Predicted(files, by_task(metrics, list(wanted)), metrics.get("eval_mean"), round(texts / seconds, 1))


def predict_split(model: MultiTaskModel, prepared: Prepared, split: str, folder: Path, *, batch: int = 64) -> Predicted:
    """The same for a model and data in hand."""
    found: dict[str, list[dict[str, Any]]] = {}

    def keep(corpus: str, answers: Mapping[str, Mapping[int, Decoded]]) -> None:
        data = next(one for one in prepared.corpora if one.name == corpus).splits[split]
        for task in prepared.tasks:
            if task.name in answers:
                gold = prepared.encoded[split][corpus].gold[task.name]
                found[task.name] = examples(task, data, gold, answers[task.name])

    metrics = make_scorer(prepared, split).score(model, device=model.device, batch=batch, on_answers=keep)
    files = {task: write_lines(folder / f"{split}-{task}.jsonl", rows) for task, rows in found.items()}
    scores = by_task(metrics, [task.name for task in prepared.tasks])
    return Predicted(files, scores, metrics.get("eval_mean"), metrics["eval_texts_per_second"])


def examples(
    task: Task, data: CorpusSplit, gold: Sequence[Any], answers: Mapping[int, Decoded]
) -> list[dict[str, Any]]:
    """The lines of one task, in the order of the split; examples without its annotation are left out."""
    inputs = [name for name in data.data.column_names if not name.startswith("@")]
    columns = {name: data.data[name] for name in inputs}
    found = _retrieved(gold, answers) if task.kind.annotation == "match" else {}
    lines = []
    for i, reference in enumerate(gold):
        if reference is None:
            continue
        line: dict[str, Any] = {"row": int(data.source_rows[i])}
        line |= {INPUTS.get(name, name): columns[name][i] for name in inputs if columns[name][i] is not None}
        lines.append(line | (found[i] if i in found else {"gold": reference} | answer_of(task, answers[i])))
    return lines


def _retrieved(gold: Sequence[Any], answers: Mapping[int, Decoded]) -> dict[int, dict[str, Any]]:
    """Example → what its query found among the passages of the split."""
    asked = [i for i, reference in enumerate(gold) if reference is not None]
    found = retrieved([answers[i].value for i in asked], [gold[i] for i in asked])
    return {
        i: {"gold": one.right, "predicted": one.passage, "score": round(one.score, DIGITS), "ranks": one.ranks}
        for i, one in zip(asked, found, strict=True)
    }


def answer_of(task: Task, decoded: Decoded) -> dict[str, Any]:
    """`predicted`, and `score` and `scores` where there are probabilities."""
    kind = task.kind.annotation
    found: dict[str, Any] = {"predicted": decoded.value}
    if kind == "answer":
        return found | {"score": round(float(decoded.score), DIGITS)}
    if decoded.scores is None or kind == "relevance":
        return found
    scores = [round(float(score), DIGITS) for score in decoded.scores]
    if kind == "tags":
        return found | {"score": round(float(np.mean(scores)), DIGITS) if scores else 1.0, "scores": scores}
    names = list(task.labels or ()) if kind != "choice" else [str(i) for i in range(len(scores))]
    table = dict(zip(names, scores, strict=True))
    if kind == "labels":
        chosen = [table[name] if name in decoded.value else 1 - table[name] for name in names]
        return found | {"score": round(float(np.prod(chosen)), DIGITS), "scores": table}
    return found | {"score": table.get(decoded.value, max(scores)), "scores": table}


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A JSONL file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> Path:
    """A file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise fault(f"cannot be written: {error.strerror or error}", where=str(path)) from error
    return path


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a file that `write_predictions` wrote.

    Raises:
        UserError: it is not there, or not such a file (with the line).
    """
    path, rows = Path(path), []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise fault(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not {"row", "gold", "predicted"} <= row.keys():
            allowed = "an object with row, gold and predicted"
            raise fault("found another thing", where=f"{path}:{number}", allowed=allowed, cure="write it again")
        rows.append(row)
    return rows
