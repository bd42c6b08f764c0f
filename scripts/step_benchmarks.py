"""Steps on synthetic texts, for `bench_training.py`: the toolkit's own part of a step, many heads, and the scaling table.

Each text is random words of the encoder's own vocabulary; lengths are uniform around the given mean. Every task has a corpus of
its own and one label of four a text.
"""

from __future__ import annotations

import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty
from typing import Any

import torch
import transformers
from random_encoders import MINILM, encoder

from mtl_nlp import make_recipe
from mtl_nlp.model.encoder import load_tokenizer
from mtl_nlp.recipe import EncoderSpec
from mtl_nlp.training.finetune import build_trainer
from mtl_nlp.training.memory import peak_memory
from mtl_nlp.training.prepare import Prepared, prepare
from mtl_nlp.training.profiling import Profile, ProfileCallback, as_text
from mtl_nlp.training.trainer import MultiTaskTrainer

SILENT = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "logging_steps": 10**6,
    "disable_tqdm": True,
}
LABELS = ("a", "b", "c", "d")
WARM = 3


def synthetic(
    tasks: int, *, length: int, steps: int, batch: int = 32, bf16: bool = False, encoder: str = MINILM, texts: int = 0
) -> Prepared:
    """Prepared data of so many tasks; `texts` in all, or as many as `steps` need."""
    tokenizer = load_tokenizer(EncoderSpec(name=encoder), Path(), given_words=False)
    words = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and len(word) > 1)
    dice = random.Random(0)
    each = max(2, (texts or (steps + WARM) * batch) // tasks)

    def rows() -> list[dict[str, str]]:
        sizes = [dice.randint(max(1, length // 2), max(1, length + length // 2)) for _ in range(each)]
        return [{"text": " ".join(dice.choices(words, k=max(1, n - 2))), "label": dice.choice(LABELS)} for n in sizes]

    names = [f"task_{i}" for i in range(tasks)]
    columns = {"columns": {"text": "text", "label": "label"}}
    recipe: dict[str, Any] = {
        "encoder": {"name": encoder, "max_length": max(16, 2 * length)},
        "tasks": [
            {"name": name, "head": "sequence_classification", "labels": list(LABELS), "data": columns} for name in names
        ],
        "mixture": {"batch": batch},
        "training": {**SILENT, "max_steps": steps + WARM, "bf16": bf16, "learning_rate": 1e-4},
        "output_dir": tempfile.mkdtemp(),
    }
    data = {name: {"train": rows()} for name in names}
    return prepare(make_recipe(recipe, memory=data), memory=data, splits=("train",))


class Steps(transformers.TrainerCallback):
    """Seconds and real tokens of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.tokens: list[int] = []
        self.trainer: MultiTaskTrainer | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note both."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        assert self.trainer is not None
        self.ends.append(time.perf_counter())
        self.tokens.append(self.trainer.schedule.used[0])

    def per_token(self, warm: int = WARM) -> list[float]:
        """Seconds a real token, of the steps after the first few."""
        pairs = zip(self.ends[warm - 1 :], self.ends[warm:], self.tokens[warm:], strict=False)
        return [(end - begin) / tokens for begin, end, tokens in pairs]


def run(prepared: Prepared) -> Steps:
    """A training run of the prepared steps."""
    clock = Steps()
    clock.trainer = build_trainer(prepared, callbacks=[clock])
    clock.trainer.train()
    return clock


def overhead(prepared: Prepared, steps: int) -> ProfileCallback:
    """The parts of a step of the given run, timed."""
    trainer = build_trainer(prepared)
    taken = ProfileCallback(trainer, Profile(steps, operator_steps=0), Path())
    trainer.add_callback(taken)
    trainer.train()
    return taken


def print_overhead(prepared: Prepared, steps: int) -> None:
    """`--overhead`."""
    report = overhead(prepared, steps).report()
    sys.stdout.write(as_text(report))


class Turns(Steps):
    """Steps of several processes in turns: at a step's end the next process takes one, while this one waits.

    Args:
        warm: steps before the turns begin.
        ready: told when they are done.
        own: released when this process may take a step.
        following: to be released after it.
    """

    def __init__(self, warm: int, ready: Any, own: Any, following: Any) -> None:
        super().__init__()
        self.warm, self.ready, self.own, self.following = warm, ready, own, following
        self.begin = 0.0
        self.costs: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the seconds a real token, and wait for the next turn."""
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step > self.warm:
            self.costs.append((self.ends[-1] - self.begin) / self.tokens[-1])
            self.following.release()
        if state.global_step == self.warm:
            self.ready.release()
        if self.warm <= state.global_step < state.max_steps:
            self.own.acquire()
        self.begin = time.perf_counter()


def _take_turns(count: int, steps: int, warm: int, bf16: bool, threads: int, semaphores: Any, found: Any) -> None:
    torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    prepared = synthetic(count, length=20, steps=steps + warm - WARM, bf16=bf16)
    clock = Turns(warm, *semaphores)
    clock.trainer = build_trainer(prepared, callbacks=[clock])
    clock.trainer.train()
    found.put((count, clock.costs))


def in_turns(counts: Sequence[int], steps: int, *, bf16: bool, threads: int) -> dict[int, list[float]]:
    """Number of heads → seconds a real token of each step; a process a side, only one of which works at a time.

    A head's first step makes its state in the optimizer, so turns begin when nearly every head has had one.
    """
    context = multiprocessing.get_context("spawn")
    ready, found = context.Semaphore(0), context.Queue()
    turn = [context.Semaphore(0) for _ in counts]
    warm = WARM + 5 * max(counts) // 32
    children = []
    for i, count in enumerate(counts):
        semaphores = (ready, turn[i], turn[(i + 1) % len(counts)])
        arguments = (count, steps, warm, bf16, threads, semaphores, found)
        children.append(context.Process(target=_take_turns, args=arguments, daemon=True))
        children[-1].start()
    for _ in counts:
        while not ready.acquire(timeout=1):
            _check(children)
    turn[0].release()
    costs: dict[int, list[float]] = {}
    while len(costs) < len(counts):
        try:
            costs |= [found.get(timeout=1)]
        except Empty:
            _check(children)
    return costs


def _check(children: Sequence[Any]) -> None:
    if any(child.exitcode for child in children):  # the others would wait for its turn for ever
        raise SystemExit("a side failed")


def print_heads(counts: Sequence[int], rounds: int, steps: int, *, bf16: bool, detail: bool, threads: int) -> None:
    """`--heads`: one step with few heads, one with many, and so on: the same number of texts of the same lengths.

    The last column is the median over rounds, with the spread, of a round's median of a step's cost to that of the step before.
    """
    costs = in_turns(counts, rounds * steps, bf16=bf16, threads=threads)
    print(f"{'bf16' if bf16 else 'fp32'}, {rounds} rounds of {steps} steps of 32 texts, a label a text, own corpora")
    print(f"| heads | µs a real token, median | × {counts[0]} heads (lowest, highest round) |\n|---|---|---|")
    for count in counts:
        ratios = [own / few for own, few in zip(costs[count], costs[counts[0]], strict=True)]
        each = [statistics.median(ratios[i : i + steps]) for i in range(0, len(ratios), steps)]
        spread = f"{statistics.median(each):.3f} ({min(each):.3f}, {max(each):.3f})"
        print(f"| {count} | {1e6 * statistics.median(costs[count]):.1f} | {spread} |")
    for count in counts if detail else ():
        print(f"\n{count} heads:")
        warm = 5 * max(counts) // 32
        print_overhead(synthetic(count, length=20, steps=steps + warm, bf16=bf16), (steps + warm) // 2)


def _child(settings: Mapping[str, Any], threads: int, result: Any) -> None:
    torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    start = time.perf_counter()
    prepared = synthetic(**settings)
    ready = time.perf_counter() - start
    clock = run(prepared)
    peak = (peak_memory() or 0) / 2**20
    rate = 1 / statistics.median(clock.per_token())
    step = statistics.median(b - a for a, b in zip(clock.ends[WARM - 1 :], clock.ends[WARM:], strict=False))
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0
    result.put((ready, step, rate, peak, gpu))


SCALES: dict[str, list[dict[str, int]]] = {
    "tasks": [{"tasks": n} for n in (3, 10, 30, 100, 300)],
    "length": [{"length": n} for n in (8, 32, 128, 512, 2048, 8192)],
    "batch": [{"batch": n} for n in (8, 32, 128)],
    "rows": [{"texts": n} for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)],
    "threads": [{"threads": n} for n in (1, 2)],
}


def print_scaling(dimensions: Sequence[str], steps: int, most: int, *, bf16: bool, threads: int) -> None:
    """`--scaling`: one setting at a time moves away from 3 tasks, 32 tokens and batches of 32; each in a process of its own.

    Args:
        most: values above it are left out, and said.
    """
    print(
        "| setting | prepared in, s | step, s | real tokens/s | peak memory, MiB | GPU, MiB |\n|---|---|---|---|---|---|"
    )
    context = multiprocessing.get_context("spawn")
    for dimension in dimensions:
        for change in SCALES[dimension]:
            value = next(iter(change.values()))
            if dimension != "threads" and value > most:
                print(f"| {dimension} {value} | not run (--most {most}) | | | | |")
                continue
            long = change.get("length", 0) > 256
            settings: dict[str, Any] = {"tasks": 3, "length": 32, "batch": 32, "steps": steps, "bf16": bf16}
            settings |= {name: n for name, n in change.items() if name != "threads"}
            if long:  # ModernBERT's layout with random weights; the tokens of a batch stay about the same
                settings |= {"encoder": encoder("modernbert-small"), "batch": max(2, 4096 // change["length"])}
            queue = context.Queue()
            child = context.Process(target=_child, args=(settings, change.get("threads", threads), queue))
            child.start()
            child.join()
            if child.exitcode:
                print(f"| {dimension} {value} | failed ({child.exitcode}) | | | | |")
                continue
            ready, step, rate, peak, gpu = queue.get()
            note = f" (ModernBERT layout, batch {settings['batch']})" if long else ""
            print(f"| {dimension} {value}{note} | {ready:.1f} | {step:.3f} | {rate:.0f} | {peak:.0f} | {gpu:.0f} |")
