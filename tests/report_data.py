"""A run and a comparison as they stand on disk, without any training: for tests of the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.conftest import write_jsonl

HOSTILE = "</script><svg onload=alert(1)>\"'&<img src=http://evil.example/x.png>{{7*7}}"


def write_run(
    folder: Path, tasks: list[dict[str, Any]], *, steps: int = 30, rows: int = 40, text: str = "a b c d"
) -> Path:
    """A run's folder with history, cosines and predictions on validation.

    Args:
        tasks: name, head, labels, metrics of each.
    """
    generator = np.random.default_rng(7)
    (folder / "predictions").mkdir(parents=True)
    names = [task["name"] for task in tasks]
    config = {"model_type": "mtl_nlp", "format_version": 1, "encoder_config": {"model_type": "bert"}, "tasks": tasks}
    _json(folder / "config.json", config)
    save_file({"encoder.weight": np.ones((2, 2), dtype=np.float32)}, folder / "model.safetensors")
    scores = {task["name"]: {task["metrics"][0]: 0.9} for task in tasks}
    _json(folder / "metrics.json", {"validation": scores, "mean": 0.9, "run": {"steps": steps, "seconds": 72.0}})
    (folder / "recipe.resolved.yaml").write_text("encoder: {name: /home/anna/mini}\nseed: 13\n", encoding="utf-8")
    log = []
    for step in range(1, steps + 1):
        one: dict[str, Any] = {"step": step, "loss": 1 / step, "learning_rate": 1e-4}
        for task in tasks:
            one |= {
                f"loss_{task['name']}": 2 / step,
                f"share_{task['name']}": 1 / len(tasks),
                f"weight_{task['name']}": 1.0,
            }
        log.append(one)
        if step % 10 == 0:
            log.append({"step": step, **{f"eval_{t['name']}_{t['metrics'][0]}": step / (step + 5) for t in tasks}})
    _json(folder / "history.json", {"format_version": 1, "environment": {"python": "3.11"}, "log": log})
    table = np.clip(generator.normal(0, 0.3, (len(names), len(names))), -1, 1)
    table = ((table + table.T) / 2).tolist()
    note = {"tasks": names, "all": table, "groups": {"embeddings": table, "layer 0": table}}
    notes = [{"step": step, **note} for step in (0, steps)]
    _json(folder / "gradient_cosines.json", {"tasks": names, "groups": ["embeddings", "layer 0"], "notes": notes})
    for task in tasks:
        path = folder / "predictions" / f"validation-{task['name']}.jsonl"
        write_jsonl(path, [_line(task, i, text, generator) for i in range(rows)])
    return folder


def _line(task: dict[str, Any], row: int, text: str, generator: Any) -> dict[str, Any]:
    labels, head = task.get("labels") or [], task["head"]
    if head == "regression":
        return {"row": row, "text": text, "gold": float(row % 5), "predicted": float(generator.uniform(0, 5))}
    gold, said = (labels[i] for i in generator.integers(0, len(labels), 2))
    if head == "token_classification":
        words = text.split()
        tags = [[f"B-{label}", *["O"] * (len(words) - 1)] for label in (gold, said)]
        return {
            "row": row,
            "words": words,
            "gold": tags[0],
            "predicted": tags[1],
            "score": 0.8,
            "scores": [0.8] * len(words),
        }
    if head == "multi_label_classification":
        table = dict(zip(labels, generator.uniform(0, 1, len(labels)).tolist(), strict=True))
        return {"row": row, "text": text, "gold": [gold], "predicted": [said], "score": 0.5, "scores": table}
    sure = float(generator.uniform(0.5, 1))
    table = {label: (1 - sure) / max(len(labels) - 1, 1) for label in labels} | {said: sure}
    return {"row": row, "text": text, "gold": gold, "predicted": said, "score": sure, "scores": table}


def write_comparison(folder: Path, variant: str = "joint") -> Path:
    """Two tasks, two seeds: one that sharing helps, one that it harms."""
    folder.mkdir(parents=True)
    tasks = {name: {"metric": "accuracy", "head": "sequence_classification"} for name in ("mood", "topic")}
    single, shared = {"mood": [0.80, 0.82], "topic": [0.90, 0.92]}, {"mood": [0.84, 0.86], "topic": [0.88, 0.88]}
    runs = [
        {
            "variant": "single",
            "task": task,
            "seed": seed,
            "validation": {},
            "test": {task: {"accuracy": single[task][i]}},
        }
        for task in tasks
        for i, seed in enumerate((13, 14))
    ]
    runs += [
        {
            "variant": variant,
            "task": None,
            "seed": s,
            "test": {t: {"accuracy": shared[t][i]} for t in tasks},
            "cost": {},
        }
        for i, s in enumerate((13, 14))
    ]
    results = []
    for task, verdict in (("mood", "helps"), ("topic", "harms")):
        difference = float(np.mean(shared[task]) - np.mean(single[task]))
        results.append(
            {
                "task": task,
                "variant": variant,
                "metric": "accuracy",
                "mean": float(np.mean(shared[task])),
                "deviation": 0.0141,
                "single_mean": float(np.mean(single[task])),
                "single_deviation": 0.0141,
                "difference": difference,
                "low": difference - 0.01,
                "high": difference + 0.01,
                "p_seeds": 0.01,
                "p_examples": 0.02,
                "p_holm": 0.04,
                "verdict": verdict,
                "detectable": 0.02,
                "groups": [
                    {"by": "length", "value": "short", "rows": 9, "single": 0.5, "variant": 0.6, "difference": 0.1}
                ],
            }
        )
    cost = {"encoder_tokens": 1e6, "minutes": 2.0, "parameters": 1e6, "bytes": 4e6, "texts_per_second": 100.0}
    found = {
        "format_version": 1,
        "recipe": {"encoder": "a/b", "output_dir": "/home/anna/runs/x"},
        "seeds": [13, 14],
        "tasks": tasks,
        "variants": [
            {"name": variant, "kind": "joint", "sets": [], "chosen": True},
            {"name": "single", "kind": "single"},
        ],
        "runs": runs,
        "results": results,
        "costs": {variant: cost, "single": {**cost, "parameters": 2e6, "texts_per_second": 50.0}},
        "environment": {"python": "3.11"},
    }
    _json(folder / "comparison.json", found)
    return folder


def _json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data), encoding="utf-8")
