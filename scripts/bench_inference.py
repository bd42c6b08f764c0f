"""Prediction speed, side by side in one run: every task of a text by one checkpoint, against one plain fp32 model a task.

    python scripts/bench_inference.py CHECKPOINT DATA_ROOT [--texts 96] [--rounds 3] [--threads N] [--parts batches,single]
    python scripts/bench_inference.py CHECKPOINT DATA_ROOT --stream 1000000      memory and speed over so many short texts

The plain models are this checkpoint's own tasks as vanilla transformers models (`mtl-nlp export --format transformers`), so both
sides have the same weights and their labels can be compared. Texts are an even sample of the test splits of SST-2, the Broad
Twitter Corpus and SNIPS, in random order; every task answers every text.

* Batches: the plain side tokenises batches of 32 as they come, pads them, and takes the arg max of each model's logits, model
  after model: no decoding, no offsets, no JSON. Our side is `Predictor`, all of it.
* Single: the plain side calls the models one after another for one text; our side is `Predictor` on one text. A side's turn lasts
  three seconds, of which the second half counts.
* Equal labels, of a task on `--labels` texts of its own corpus, are those of `Predictor` in fp32, whose own are compared with the
  plain models' arg max on the texts that are timed (constrained decoding may change a tag).

Rounds are interleaved; medians, lowest and highest. CHECKPOINT needs no graph beside it: they are exported to a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

BATCH = 32
TURN = 3.0  # seconds that a side answers single texts before the next one does
REQUIRED = {"batches": (10.0, 16.0, 0.995), "single": (6.0, 6.0, 1.0), "single int8": (10.0, 10.0, 0.99)}


def sample_texts(checkpoint: Path, root: Path, count: int) -> list[tuple[str, frozenset[str]]]:
    """An even sample of every corpus's test texts with the tasks that it is annotated for, shuffled with a fixed seed."""
    from mtl_nlp.training.split_rows import split_rows

    texts: list[tuple[str, frozenset[str]]] = []
    for corpus in split_rows(checkpoint, "test", data_root=root):
        rows = [row.get("text") or " ".join(row["tokens"]) for row in corpus.rows]
        own = frozenset(task.name for task in corpus.tasks)
        texts += [(row, own) for row in rows[:: max(1, len(rows) // count)][:count]]
    random.Random(0).shuffle(texts)
    return texts


class Plain:
    """The tasks as vanilla models, one after another."""

    def __init__(self, folder: Path, names: list[str], token_tasks: set[str]) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder / names[0])
        self.models = {}
        for name in names:
            auto = (
                transformers.AutoModelForTokenClassification
                if name in token_tasks
                else transformers.AutoModelForSequenceClassification
            )
            self.models[name] = auto.from_pretrained(folder / name, dtype=torch.float32).eval()

    def __call__(self, texts: list[str], size: int = BATCH) -> dict[str, list[Any]]:
        """Task → the arg max of each text."""
        found: dict[str, list[Any]] = {name: [] for name in self.models}
        with torch.inference_mode():
            for name, model in self.models.items():
                for start in range(0, len(texts), size):
                    batch = self.tokenizer(
                        texts[start : start + size], padding=True, truncation=True, return_tensors="pt"
                    )
                    found[name].extend(model(**batch).logits.argmax(-1).tolist())
        return found


def equal(tasks: list[Any], one: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, float]:
    """Task → share of equal labels."""
    from mtl_nlp.inference.onnx_choice import agreement

    return {name: same / number for name, (same, number) in agreement(tasks, one, other).items()}


def interleaved(
    sides: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float], least: float = 0.0
) -> dict[str, list[float]]:
    """Seconds of each side, a round after the other.

    Args:
        least: seconds that a side's turn lasts; it is repeated until then, and each time counts. Short turns would be measured on a
            machine in the state (clock rate, placement of its threads) that the side before has left behind, so the first half does
            not count.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():  # what is tried or prepared at first does not count
        begun = time.perf_counter()
        side()
        while time.perf_counter() - begun < least:
            side()
    for _ in range(rounds):
        for name, side in sides.items():
            begun, turn = time.perf_counter(), []
            while not turn or time.perf_counter() - begun < least:
                start = clock()
                side()
                turn.append(clock() - start)
            seconds[name] += turn[len(turn) // 2 :]
    return seconds


def say(
    title: str, seconds: dict[str, list[float]], texts: int, base: str, shares: dict[str, dict[str, float]]
) -> None:
    """One table."""
    print(
        f"\n{title}\n| side | texts/s (median; lowest, highest) | ms a text | × | least equal labels |\n|---|---|---|---|---|"
    )
    reference = statistics.median(seconds[base])
    for name, values in seconds.items():
        median = statistics.median(values)
        spread = f"{texts / median:.1f}; {texts / max(values):.1f}, {texts / min(values):.1f}"
        least = min(shares[name].items(), key=lambda one: one[1]) if shares.get(name) else None
        told = f"{least[1]:.2%} ({least[0]})" if least else ""
        print(f"| {name} | {spread} | {1e3 * median / texts:.2f} | {reference / median:.2f} | {told} |")


def verdict(key: str, side: str, seconds: dict[str, list[float]], base: str, shares: dict[str, float]) -> None:
    """One line of "done when"."""
    required, aim, labels = REQUIRED[key]
    ratio = statistics.median(seconds[base]) / statistics.median(seconds[side])
    least = min(shares.values())
    word = "met" if ratio >= required and least >= labels else "NOT met"
    print(f"done when: {key}: {side}: {ratio:.2f}× (required {required:g}, aim {aim:g})", end=" ")
    print(f"at {least:.2%} equal labels (required {labels:.1%}): {word}")


def peak(dtype: torch.dtype) -> float:
    """GFLOP/s of a large square matrix product."""
    a, b = (torch.randn(1024, 1024, dtype=torch.float32).to(dtype) for _ in range(2))
    times = []
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / statistics.median(times) / 1e9


def prepare(checkpoint: Path, root: Path, place: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint's plain models and graphs."""
    from mtl_nlp.hub.checkpoint import load_model, load_tokenizer
    from mtl_nlp.hub.single_task import export_task
    from mtl_nlp.inference.onnx_choice import TextSet
    from mtl_nlp.inference.onnx_export import export_onnx
    from mtl_nlp.training.split_rows import split_rows

    loaded = load_model(checkpoint), load_tokenizer(checkpoint)
    for task in loaded[0].tasks:
        export_task(checkpoint, task.name, place / "plain" / task.name, loaded=loaded)
    graphs = {}
    for precision in ("float32", "int8"):
        folder = checkpoint / ("onnx" if precision == "float32" else "onnx-int8")
        graphs[precision] = folder if folder.is_dir() else place / precision
    if not graphs["float32"].is_dir():
        export_onnx(checkpoint, graphs["float32"])
    if not graphs["int8"].is_dir():
        validation = split_rows(checkpoint, "validation", data_root=root, most=400)
        sets = [TextSet(one.rows, tuple(task.name for task in one.tasks)) for one in validation]
        export_onnx(checkpoint, graphs["int8"], int8=True, texts=sets, least=0.99)
    return place / "plain", graphs


def stream(checkpoint: Path, count: int, threads: int) -> None:
    """Speed and peak memory over a stream of short texts that is made on the way."""
    from mtl_nlp import Predictor
    from mtl_nlp.training.memory import peak_memory

    words = (
        "play book show find rate add the a good bad film song table place weather tomorrow in for to my list".split()
    )
    draw = random.Random(0)

    def texts() -> Iterator[str]:
        for _ in range(count):
            yield " ".join(draw.choices(words, k=3))

    predictor = Predictor.from_pretrained(checkpoint, precision="auto")
    start, marks = time.perf_counter(), {}
    for number, _ in enumerate(predictor.stream(texts(), batch_size=256), 1):
        if number in (count // 10, count // 2, count):
            marks[number] = (time.perf_counter() - start, (peak_memory() or 0) / 2**20)
    print(f"\nstream of {count} texts of 3 words, {threads} threads; {predictor.path}")
    for number, (seconds, memory) in marks.items():
        print(f"  after {number}: {seconds:.1f} s, {number / seconds:.0f} texts/s, peak memory {memory:.0f} MiB")
    first, last = next(iter(marks.values()))[1], marks[count][1]
    print(f"done when: constant memory: grown by {last - first:.0f} MiB over the last nine tenths")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--texts", type=int, default=96, help="of each corpus, that are timed")
    parser.add_argument("--labels", type=int, default=600, help="of each corpus, whose labels are compared")
    parser.add_argument("--singles", type=int, default=16, help="texts that are timed alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: CPU seconds, on a machine that is shared"
    )
    parser.add_argument("--parts", default="batches,single")
    parser.add_argument("--tasks", default="", help="names, separated by commas; all if absent")
    parser.add_argument("--stream", type=int, default=0)
    parser.add_argument("--place", type=Path, help="a folder for exports, used again if it has them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    if options.stream:
        stream(options.checkpoint, options.stream, options.threads)
        return
    compare(options)


def compare(options: argparse.Namespace) -> None:
    """Batches and single texts."""
    from mtl_nlp import Predictor

    place = options.place or Path(tempfile.mkdtemp(prefix="bench-inference-"))
    if (place / "ready.json").is_file():
        plain_folder, graphs = place / "plain", {"float32": place / "float32", "int8": place / "int8"}
    else:
        plain_folder, graphs = prepare(options.checkpoint, options.data_root, place)
        (place / "ready.json").write_text(json.dumps({"made": True}))
    ours = {
        precision: Predictor.from_pretrained(options.checkpoint, "cpu", precision=precision)
        for precision in ("fp32", "bf16")
    }
    ours |= {f"onnx {name}": Predictor.from_pretrained(folder) for name, folder in graphs.items()}
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    names = [name for name in options.tasks.split(",") if name] or [task.name for task in ours["fp32"].tasks]
    tasks = ours["fp32"].chosen(names)
    plain = Plain(plain_folder, names, {task.name for task in tasks if task.kind.annotation == "tags"})
    texts = [text for text, _ in sample_texts(options.checkpoint, options.data_root, options.texts)]
    sampled = sample_texts(options.checkpoint, options.data_root, max(options.texts, options.labels))
    judged = [text for text, _ in sampled]
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    machine = f"{options.threads} threads, {os.cpu_count()} cores, {options.clock} time"
    print(f"{versions}, {machine}; {len(texts)} texts, labels of {len(judged)}, tasks {', '.join(names)}", flush=True)
    expected = ours["fp32"].decoded(judged, names)
    found = {name: predictor.decoded(judged, names) for name, predictor in ours.items()}
    everywhere = {name: equal(tasks, expected, rows) for name, rows in found.items()}
    # A task's labels of the texts that it was made for; on the others it has nothing to be right about.
    shares: dict[str, dict[str, float]] = {name: {} for name in found}
    for task in tasks:
        own = [i for i, (_, known) in enumerate(sampled) if task.name in known]
        for name, rows in found.items():
            shares[name] |= equal([task], [expected[i] for i in own], [rows[i] for i in own])
    labels = {task.name: list(task.labels or ()) for task in tasks if task.kind.annotation == "label"}
    argmax, timed = plain(texts, 1), ours["fp32"].decoded(texts, names)
    same = {
        name: float(np.mean([known[i] == row[name] for i, row in zip(argmax[name], timed, strict=True)]))
        for name, known in labels.items()
    }
    print(
        "fp32 `Predictor` and the plain models, equal labels: "
        + ", ".join(f"{name} {value:.2%}" for name, value in same.items())
    )
    told = ", ".join(f"{name} {min(values.values()):.2%}" for name, values in everywhere.items())
    print(f"least equal labels where every task answers every text: {told}")
    if "batches" in options.parts:
        sides: dict[str, Callable[[], Any]] = {"plain fp32 models": lambda: plain(texts)}
        sides |= {name: (lambda p=predictor: p(texts, names)) for name, predictor in ours.items()}  # type: ignore[misc]
        seconds = interleaved(sides, options.rounds, clock)
        say("all tasks of a text, batches of 32", seconds, len(texts), "plain fp32 models", shares)
        for side in ("bf16", "onnx int8"):
            verdict("batches", side, seconds, "plain fp32 models", shares[side])
    if "single" in options.parts:
        some = texts[: options.singles]
        sides = {"plain fp32 models": lambda: [plain([text], 1) for text in some]}
        sides |= {name: (lambda p=predictor: [p(text, names) for text in some]) for name, predictor in ours.items()}  # type: ignore[misc]
        seconds = interleaved(sides, options.rounds, clock, least=TURN)
        say("all tasks of a single text", seconds, len(some), "plain fp32 models", shares)
        verdict("single", "onnx float32", seconds, "plain fp32 models", shares["onnx float32"])
        verdict("single int8", "onnx int8", seconds, "plain fp32 models", shares["onnx int8"])
    rates = ", ".join(
        f"{str(dtype).removeprefix('torch.')} {peak(dtype):.0f}" for dtype in (torch.float32, torch.bfloat16)
    )
    print(f"matrix product, GFLOP/s: {rates}")


if __name__ == "__main__":
    main()
