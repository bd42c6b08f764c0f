"""int8 against float32: agreement on the test sets, scores, speed and size of a trained checkpoint.

    python scripts/studies/int8.py CHECKPOINT DATA_ROOT      measure, append a record to docs/results/int8.jsonl
    python scripts/studies/int8.py --table                   print the table of the newest record

CHECKPOINT was trained on the recipe `scripts/recipes/headline.yaml`. Nothing is chosen here: the way of quantising is fixed
(`mtl_nlp/inference/onnx_int8.py`), and each test text is answered by every form of the model. One thread, texts in batches of 32.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "results" / "int8.jsonl"
BATCH = 32


def test_rows(checkpoint: Path, data_root: Path | None, model: Any, tokenizer: Any) -> dict[str, Any]:
    """Corpus → (its tasks, its test texts as `Predictor` takes them, task → references)."""
    from mtl_nlp.recipe import RESOLVED, load_recipe
    from mtl_nlp.training.prepare import prepare
    from mtl_nlp.training.score import _take_labels

    recipe = load_recipe(checkpoint / RESOLVED)
    _take_labels(recipe, model.tasks, str(checkpoint))
    prepared = prepare(recipe, data_root=data_root, splits=("test",), tokenizer=tokenizer, need_train=False)
    found = {}
    for corpus in prepared.corpora:
        data = corpus.splits["test"].data
        rows = [{key: value for key, value in row.items() if not key.startswith("@")} for row in data]
        gold = prepared.encoded["test"][corpus.name].gold
        found[corpus.name] = [task for task in prepared.tasks if task.name in corpus.task_names], rows, gold
    return found


def answers(predictor: Any, tests: dict[str, Any]) -> tuple[dict[str, list[dict[str, Any]]], dict[str, float]]:
    """Corpus → decoded answers, and corpus → seconds."""
    found, seconds = {}, {}
    for corpus, (tasks, rows, _) in tests.items():
        names = [task.name for task in tasks]
        predictor.decoded(rows[:BATCH], names, BATCH)
        start = time.perf_counter()
        found[corpus] = predictor.decoded(rows, names, BATCH)
        seconds[corpus] = time.perf_counter() - start
    return found, seconds


def scores(tests: dict[str, Any], found: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Task → its primary metric."""
    from mtl_nlp.metrics import compute

    result = {}
    for corpus, (tasks, _, gold) in tests.items():
        for task in tasks:
            pairs = [
                (row[task.name], ref)
                for row, ref in zip(found[corpus], gold[task.name], strict=True)
                if ref is not None
            ]
            predictions, references = zip(*pairs, strict=True)
            scheme = "none" if task.scheme == "none" else "iob2"
            metric = task.metric_names[0]
            value = compute([metric], predictions, references, labels=task.labels, scheme=scheme)[metric]
            result[task.name] = value
    return result


def measure(checkpoint: Path, data_root: Path | None) -> dict[str, Any]:
    """One record."""
    import torch

    from mtl_nlp import Predictor
    from mtl_nlp.hub.checkpoint import WEIGHTS, load_model, load_tokenizer
    from mtl_nlp.inference.onnx import GRAPH
    from mtl_nlp.inference.onnx_export import agreement, export_onnx

    torch.set_num_threads(1)
    tests = test_rows(checkpoint, data_root, load_model(checkpoint), load_tokenizer(checkpoint))
    place = Path(tempfile.mkdtemp(prefix="int8-"))
    export_onnx(checkpoint, place / "float32")
    export_onnx(checkpoint, place / "int8", int8=True)
    forms = {"torch float32": checkpoint, "onnx float32": place / "float32", "onnx int8": place / "int8"}
    record: dict[str, Any] = {
        "checkpoint": hashlib.sha256((checkpoint / WEIGHTS).read_bytes()).hexdigest()[:12],
        "processor": platform.processor() or platform.machine(),
        "texts": {corpus: len(rows) for corpus, (_, rows, _) in tests.items()},
        "forms": {},
    }
    found: dict[str, Any] = {}
    for form, folder in forms.items():
        found[form], seconds = answers(Predictor.from_pretrained(folder, "cpu"), tests)
        file = folder / (WEIGHTS if form.startswith("torch") else GRAPH)
        record["forms"][form] = {"bytes": file.stat().st_size, "seconds": seconds, "scores": scores(tests, found[form])}
    record["agreement"] = {
        name: pair
        for corpus, (tasks, _, _) in tests.items()
        for name, pair in agreement(tasks, found["onnx float32"][corpus], found["onnx int8"][corpus]).items()
    }
    return record


def table(record: dict[str, Any]) -> str:
    """Two tables: size and speed, labels and scores."""
    texts = sum(record["texts"].values())
    lines = ["| form | MB | texts a second |", "|---|---|---|"]
    for form, one in record["forms"].items():
        lines.append(f"| {form} | {one['bytes'] / 1e6:.1f} | {texts / sum(one['seconds'].values()):.0f} |")
    lines += ["", "| task | labels as float32 | float32 | int8 |", "|---|---|---|---|"]
    for task, (same, number) in record["agreement"].items():
        one, other = (record["forms"][form]["scores"][task] for form in ("onnx float32", "onnx int8"))
        lines.append(f"| {task} | {same} of {number} ({same / number:.2%}) | {one:.4f} | {other:.4f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("data_root", nargs="?", type=Path)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--records", type=Path, default=RECORDS)
    given = parser.parse_args()
    if not given.table:
        if given.checkpoint is None:
            parser.error("give CHECKPOINT and DATA_ROOT, or --table")
        record = measure(given.checkpoint, given.data_root)
        given.records.parent.mkdir(parents=True, exist_ok=True)
        with given.records.open("a", encoding="utf-8") as out:
            out.write(json.dumps(record) + "\n")
    print(table(json.loads(given.records.read_text(encoding="utf-8").splitlines()[-1])))


if __name__ == "__main__":
    main()
