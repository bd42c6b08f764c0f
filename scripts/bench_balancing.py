"""Step time and peak memory of every weighting and aggregator against plain summing, side by side in one run.

    python scripts/bench_balancing.py DATA_ROOT [--rounds 12] [--precision fp32 bf16] [--methods …] [--output FILE]

Three tasks (SST-2, BTC, SNIPS intent) on MiniLM, batches of 32, the recipe's own road with its fast paths. Each method has a
trainer of its own that has warmed up; then the methods take turns, a step each, and the order of the turn changes from round to
round, so that what else the machine does falls on all alike. Printed are medians, and their ratios to plain summing. Peak memory
is measured in a process of its own for each method, in which nothing else was trained.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

TASKS = ["sst2", "broad_twitter_corpus", "snips_intent"]
WEIGHTINGS = ("chance", "random", "uncertainty", "dwa", "gradnorm", "famo")
AGGREGATORS = ("pcgrad", "cagrad", "mgda", "imtl_g", "aligned_mtl", "nash_mtl", "upgrad")
ON_REPRESENTATION = ("cagrad", "mgda", "imtl_g", "aligned_mtl", "nash_mtl")
METHODS: dict[str, dict[str, Any]] = {"plain": {}} | {name: {"weighting": name} for name in WEIGHTINGS}
METHODS |= {name: {"gradients": name} for name in AGGREGATORS}
METHODS |= {f"{name}@representation": {"gradients": name, "on": "representation"} for name in ON_REPRESENTATION}
AIMS = {"losses": 1.03, "famo": 1.5, "parameters": {"fp32": 1.8, "bf16": 2.1}, "representation": 1.15}


def prepared(data_root: Path) -> Any:
    """The data, read once for all methods."""
    from mtl_nlp.training.prepare import prepare

    return prepare(recipe_of({}, "fp32"), data_root=data_root, splits=["train"])


def recipe_of(balancing: dict[str, Any], precision: str) -> Any:
    """One method's recipe: steps and nothing else."""
    from mtl_nlp.recipe import make_recipe

    training = {"max_steps": 10_000, "learning_rate": 1e-4, "bf16": precision == "bf16", "disable_tqdm": True}
    silent = {"save_strategy": "no", "eval_strategy": "no", "logging_strategy": "no"}
    return make_recipe(
        {
            "tasks": TASKS,
            "mixture": {"strategy": "uniform", "batch": 32},
            "balancing": balancing,
            "training": training | silent,
            "output_dir": mkdtemp(prefix="bench-balancing-"),
        }
    )


class Stepper:
    """A trainer that is driven a step at a time, by the calls that the Trainer's own loop makes."""

    clock = staticmethod(time.perf_counter)

    def __init__(self, data: Any, name: str, precision: str) -> None:
        from dataclasses import replace

        from mtl_nlp.training.finetune import build_trainer

        self.trainer = build_trainer(replace(data, recipe=recipe_of(METHODS[name], precision)))
        trainer = self.trainer
        trainer.create_optimizer_and_scheduler(10_000)
        # Together, as the Trainer's own loop does: it is this that puts the model under autocast.
        trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
        self.batches: Iterator[Any] = iter(trainer.get_train_dataloader())
        trainer.accelerator.gradient_state._set_sync_gradients(True)

    def step(self) -> float:
        """Seconds of forward, backward, clipping and update; loading the batch is not in them."""
        trainer = self.trainer
        samples, counts = trainer.get_batch_samples(self.batches, 1, trainer.args.device)
        start = self.clock()
        for inputs in samples:
            trainer.training_step(trainer.model, inputs, counts)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.balancer.after_update(trainer)
        trainer.model.zero_grad()
        trainer.state.global_step += 1
        return self.clock() - start


def times(data: Any, methods: list[str], precision: str, rounds: int, warmup: int) -> dict[str, float]:
    """Method → median seconds a step."""
    steppers = {name: Stepper(data, name, precision) for name in methods}
    found: dict[str, list[float]] = {name: [] for name in methods}
    order = list(methods)
    for number in range(warmup + rounds):
        random.Random(number).shuffle(order)
        for name in order:
            seconds = steppers[name].step()
            if number >= warmup:
                found[name].append(seconds)
    return {name: statistics.median(values) for name, values in found.items()}


def peak(data_root: Path, name: str, precision: str) -> None:
    """In a process of its own: print its peak memory over a few steps, in MiB."""
    from mtl_nlp.training.memory import peak_memory

    stepper = Stepper(prepared(data_root), name, precision)
    for _ in range(4):
        stepper.step()
    print(json.dumps((peak_memory() or 0) / 2**20))


def peak_of(data_root: Path, name: str, precision: str) -> float:
    """Peak memory of the process in MiB."""
    command = [sys.executable, __file__, str(data_root), "--peak", name, "--precision", precision]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def aim(name: str, precision: str) -> float | None:
    """The ratio to stay under."""
    if name in ("plain", "gradnorm"):
        return None
    if name in AGGREGATORS:
        return AIMS["parameters"][precision]  # type: ignore[index,no-any-return]
    kind = "representation" if "@" in name else "famo" if name == "famo" else "losses"
    return AIMS[kind]  # type: ignore[return-value]


def report(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = ["| precision | method | ms a step | × plain | aim | peak MiB | × plain |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        memory = f"{row['peak']:.0f} | {row['peak_ratio']:.2f}" if row["peak"] else " | "
        goal = f"≤ {row['aim']}" if row["aim"] else ""
        lines.append(
            f"| {row['precision']} | {row['method']} | {1000 * row['seconds']:.0f} | {row['ratio']:.2f} | {goal} | {memory} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--precision", nargs="*", default=["fp32", "bf16"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of this process, on a machine that is busy")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        peak(options.data_root, options.peak, options.precision[0])
        return
    if options.cpu_time:
        Stepper.clock = staticmethod(time.process_time)
    methods = list(dict.fromkeys(["plain", *options.methods]))
    data, rows = prepared(options.data_root), []
    for precision in options.precision:
        # A few at a time, plain always among them: all at once would not fit into memory.
        for start in range(1, len(methods), 6):
            chosen = ["plain", *methods[start : start + 6]]
            seconds = times(data, chosen, precision, options.rounds, options.warmup)
            for name in chosen if start == 1 else chosen[1:]:
                ratio = seconds[name] / seconds["plain"]
                row = {"precision": precision, "method": name, "seconds": seconds[name], "ratio": ratio}
                rows.append(row | {"aim": aim(name, precision), "peak": None, "peak_ratio": None})
        if not options.no_memory:
            own = [row for row in rows if row["precision"] == precision]
            for row in own:
                row["peak"] = peak_of(options.data_root, row["method"], precision)
            for row in own:
                row["peak_ratio"] = row["peak"] / own[0]["peak"]
    print(report(rows))
    if options.output:
        options.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
