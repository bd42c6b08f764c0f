"""int8 against float32: agreement on the test sets, scores, speed and size of a trained checkpoint.

    python scripts/studies/int8.py CHECKPOINT DATA_ROOT      measure, append a record to docs/results/int8.jsonl
    python scripts/studies/int8.py --table                   print the table of the newest record

CHECKPOINT was trained on the recipe `scripts/recipes/headline.yaml`. Which products stay float32 is chosen on validation texts
(`mtl_nlp/inference/onnx_choice.py`); each test text is answered by every form of the model. One thread, texts in batches of 32,
forms timed in turns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "docs" / "results" / "int8.jsonl"
BATCH = 32
TIMED, SINGLE = 160, 20  # test texts of a corpus that are timed in batches, and alone


def test_rows(checkpoint: Path, data_root: Path | None) -> dict[str, Any]:
    """Corpus → (its tasks, its test texts as `Predictor` takes them, task → references)."""
    from mtl_nlp.training.split_rows import split_rows

    found = split_rows(checkpoint, "test", data_root=data_root)
    return {corpus.name: (corpus.tasks, corpus.rows, corpus.gold) for corpus in found}


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


def measure(checkpoint: Path, data_root: Path | None, least: float, rounds: int) -> dict[str, Any]:
    """One record."""
    import torch

    from mtl_nlp import Predictor
    from mtl_nlp.hub.checkpoint import WEIGHTS
    from mtl_nlp.inference.onnx import GRAPH
    from mtl_nlp.inference.onnx_choice import TextSet, agreement
    from mtl_nlp.inference.onnx_export import export_onnx
    from mtl_nlp.training.split_rows import split_rows

    torch.set_num_threads(1)
    place = Path(tempfile.mkdtemp(prefix="int8-"))
    validation = split_rows(checkpoint, "validation", data_root=data_root, most=1000)
    sets = [TextSet(one.rows, tuple(task.name for task in one.tasks)) for one in validation]
    export_onnx(checkpoint, place / "float32")
    made = export_onnx(checkpoint, place / "int8", int8=True, texts=sets, least=least)
    forms = {"torch float32": checkpoint, "onnx float32": place / "float32", "onnx int8": place / "int8"}
    tests = test_rows(checkpoint, data_root)
    record: dict[str, Any] = {
        "checkpoint": hashlib.sha256((checkpoint / WEIGHTS).read_bytes()).hexdigest()[:12],
        "processor": platform.processor() or platform.machine(),
        "texts": {corpus: len(rows) for corpus, (_, rows, _) in tests.items()},
        "asked": least,
        "validation": made.agreement,
        "kept": made.kept,
        "products": made.products,
        "forms": {},
    }
    predictors = {form: Predictor.from_pretrained(folder, "cpu") for form, folder in forms.items()}
    found: dict[str, Any] = {}
    for form, folder in forms.items():
        found[form], _ = answers(predictors[form], tests)
        file = folder / (WEIGHTS if form.startswith("torch") else GRAPH)
        record["forms"][form] = {"bytes": file.stat().st_size, "scores": scores(tests, found[form])}
    record["seconds"] = timed(predictors, tests, rounds)
    record["agreement"] = {
        name: pair
        for corpus, (tasks, _, _) in tests.items()
        for name, pair in agreement(tasks, found["onnx float32"][corpus], found["onnx int8"][corpus]).items()
    }
    return record


def timed(predictors: dict[str, Any], tests: dict[str, Any], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Form → seconds of each interleaved round: `batches` of some test texts of every corpus, and `single` texts alone."""
    some = {corpus: (tasks, rows[:: max(1, len(rows) // TIMED)], gold) for corpus, (tasks, rows, gold) in tests.items()}
    seconds: dict[str, dict[str, list[float]]] = {form: {"batches": [], "single": []} for form in predictors}
    for _ in range(rounds):
        for form, predictor in predictors.items():
            seconds[form]["batches"].append(sum(answers(predictor, some)[1].values()))
            start = time.perf_counter()
            for tasks, rows, _ in some.values():
                for row in rows[:SINGLE]:
                    predictor.decoded([row], [task.name for task in tasks], 1)
            seconds[form]["single"].append(time.perf_counter() - start)
    count = sum(len(rows) for _, rows, _ in some.values())
    singles = sum(len(rows[:SINGLE]) for _, rows, _ in some.values())
    return {
        form: {"batches": [s / count for s in one["batches"]], "single": [s / singles for s in one["single"]]}
        for form, one in seconds.items()
    }


def table(record: dict[str, Any]) -> str:
    """Two tables: size and speed (medians; lowest and highest), labels and scores."""
    lines = ["| form | MB | texts a second, batches | × | one text, ms | × |", "|---|---|---|---|---|---|"]
    base = {key: statistics.median(values) for key, values in record["seconds"]["torch float32"].items()}
    for form, one in record["forms"].items():
        batch, single = (record["seconds"][form][key] for key in ("batches", "single"))
        low, mid, high = (1 / value for value in (max(batch), statistics.median(batch), min(batch)))
        alone = statistics.median(single)
        lines.append(
            f"| {form} | {one['bytes'] / 1e6:.1f} | {mid:.0f} ({low:.0f}–{high:.0f}) | {base['batches'] * mid:.2f} "
            f"| {1e3 * alone:.2f} ({1e3 * min(single):.2f}–{1e3 * max(single):.2f}) | {base['single'] / alone:.2f} |"
        )
    lines += ["", "| task | labels as float32 | float32 | int8 |", "|---|---|---|---|"]
    for task, (same, number) in record["agreement"].items():
        one, other = (record["forms"][form]["scores"][task] for form in ("onnx float32", "onnx int8"))
        lines.append(f"| {task} | {same} of {number} ({same / number:.2%}) | {one:.4f} | {other:.4f} |")
    kept = ", ".join(f"`{name}`" for name in record["kept"]) or "nothing"
    lines += ["", f"Kept in float32 for {record['asked']:.1%} on validation, of {record['products']}: {kept}."]
    return "\n".join(lines)


def main() -> None:
    """Measure or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("data_root", nargs="?", type=Path)
    parser.add_argument("--agree", type=float, default=0.99)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--records", type=Path, default=RECORDS)
    given = parser.parse_args()
    if not given.table:
        if given.checkpoint is None:
            parser.error("give CHECKPOINT and DATA_ROOT, or --table")
        record = measure(given.checkpoint, given.data_root, given.agree, given.rounds)
        given.records.parent.mkdir(parents=True, exist_ok=True)
        with given.records.open("a", encoding="utf-8") as out:
            out.write(json.dumps(record) + "\n")
    print(table(json.loads(given.records.read_text(encoding="utf-8").splitlines()[-1])))


if __name__ == "__main__":
    main()
