"""`train --profile`: where the time of a step goes.

After a few steps to warm up, every second step is timed by sections (`stopwatch`) and the others are left alone, so that the report
can say what the timing costs. Then a few steps run under `torch.profiler` for the operators. Steps with an evaluation or a
checkpoint are left out. The training goes on as if nothing had been.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from ..hub.checkpoint import write_json
from .stopwatch import HEAD, OTHER, Stopwatch, is_model, stopwatch_on

if TYPE_CHECKING:
    from .trainer import MultiTaskTrainer

logger = logging.getLogger("mtl_nlp")

REPORT, TEXT, TRACE = "profile.json", "profile.txt", "profile.trace.json"
WARMUP, OPERATOR_STEPS, OPERATORS, SHOWN_HEADS = 3, 3, 15, 10


@dataclass(frozen=True)
class Profile:
    """What to profile.

    Attributes:
        steps: how many are timed by sections; as many again are left alone between them.
        operator_steps: how many run under torch.profiler then.
        trace: write these as a Chrome trace.
    """

    steps: int = 20
    operator_steps: int = OPERATOR_STEPS
    trace: bool = False


@dataclass
class Step:
    """One step: its wall time, its real tokens, and the sections' seconds (none where it was left alone)."""

    seconds: float
    tokens: int
    sections: dict[str, float]


class ProfileCallback(TrainerCallback):
    """Takes the profile of a run and writes it to the run's folder.

    Attributes:
        timed, plain, traced: the steps of the three kinds.
    """

    def __init__(self, trainer: MultiTaskTrainer, profile: Profile, folder: Path) -> None:
        self.trainer, self.profile, self.folder = trainer, profile, folder
        self.timed: list[Step] = []
        self.plain: list[Step] = []
        self.traced: list[Step] = []
        self._watch: Stopwatch | None = None
        self._operators: Any = None
        self._table: list[dict[str, Any]] = []
        self._seen, self._began, self._interrupted = 0, 0.0, False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Put the stopwatch on."""
        self._watch = stopwatch_on(self.trainer)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """This step does not count."""
        self._interrupted = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """This step does not count."""
        self._interrupted = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the step, and choose what the next one is for."""
        if self._watch is None:
            return
        self._note()
        self._seen += 1
        if self._seen >= WARMUP:
            self._next()
        self._began, self._interrupted = self._now(), False

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A run that was too short is reported as far as it went."""
        if self._watch is not None:
            self._finish()

    def _now(self) -> float:
        if self.trainer.args.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _note(self) -> None:
        watch = self._watch
        assert watch is not None
        running = watch.running
        watch.stop()
        step = Step(self._now() - self._began, self.trainer.schedule.used[0], dict(watch.seconds))
        watch.seconds.clear()
        if self._seen < WARMUP or self._interrupted:
            return
        kind = self.traced if self._operators is not None else self.timed if running else self.plain
        kind.append(step)

    def _next(self) -> None:
        assert self._watch is not None
        wanted = self.profile.steps
        if len(self.timed) < wanted or len(self.plain) < wanted:
            if len(self.timed) <= len(self.plain):
                self._watch.start()
        elif len(self.traced) < self.profile.operator_steps:
            if self._operators is None:
                activities = [torch.profiler.ProfilerActivity.CPU]
                if self.trainer.args.device.type == "cuda":
                    activities.append(torch.profiler.ProfilerActivity.CUDA)
                self._operators = torch.profiler.profile(activities=activities)
                self._operators.start()
        else:
            self._finish()

    def _finish(self) -> None:
        assert self._watch is not None
        self._watch.take_off()
        self._watch = None
        if self._operators is not None:
            self._operators.stop()
            self._table = operator_table(self._operators, max(1, len(self.traced)))
            if self.profile.trace:
                self._operators.export_chrome_trace(str(self.folder / TRACE))
            self._operators = None
        if not self.timed:
            logger.warning("no profile: the run has too few steps (%d are needed at least)", WARMUP + 2)
            return
        report = self.report()
        if self.profile.operator_steps:
            text = as_text(report)
            write_json(self.folder / REPORT, report)
            (self.folder / TEXT).write_text(text, encoding="utf-8")
            logger.info("%s\nprofile: %s", text.rstrip(), self.folder / REPORT)

    def report(self) -> dict[str, Any]:
        """The profile as plain data: shares are of the timed steps' whole time."""
        seconds = sum(step.seconds for step in self.timed)
        tokens, count = sum(step.tokens for step in self.timed), len(self.timed)
        totals: dict[str, float] = {}
        for step in self.timed:
            for name, value in step.sections.items():
                totals[name] = totals.get(name, 0.0) + value
        totals[OTHER] = totals.get(OTHER, 0.0) + seconds - sum(totals.values())
        ordered = sorted(totals.items(), key=lambda item: -item[1])
        args = self.trainer.args
        return {
            "steps": count,
            "seconds_per_step": seconds / count,
            "real_tokens_per_step": tokens / count,
            "real_tokens_per_second": tokens / seconds,
            "device": args.device.type,
            "threads": torch.get_num_threads(),
            "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
            "sections": [{"name": n, "seconds_per_step": s / count, "share": s / seconds} for n, s in ordered],
            "toolkit_share": sum(s for n, s in ordered if not is_model(n)) / seconds,
            "cost_of_timing": cost(self.timed, self.plain),
            "cost_of_operators": cost(self.traced, self.plain),
            "operators": self._table,
        }


def cost(steps: Sequence[Step], plain: Sequence[Step]) -> float | None:
    """How much longer steps took a real token than those that were left alone: 0.02 is 2 %; None where one kind is absent."""
    if not steps or not plain:
        return None
    first, second = (sum(s.seconds for s in kind) / max(1, sum(s.tokens for s in kind)) for kind in (steps, plain))
    return first / second - 1.0


def operator_table(profiler: Any, steps: int) -> list[dict[str, Any]]:
    """The operators that took most time of their own, on the device where the work is."""
    found = []
    for event in profiler.key_averages():
        host, device = event.self_cpu_time_total, getattr(event, "self_device_time_total", 0)
        found.append((event.key, host, device, event.count))
    by = 2 if any(device for _, _, device, _ in found) else 1
    whole = sum(entry[by] for entry in found) or 1
    return [
        {
            "name": entry[0],
            "seconds_per_step": entry[by] / 1e6 / steps,
            "share": entry[by] / whole,
            "calls_per_step": entry[3] / steps,
        }
        for entry in sorted(found, key=lambda entry: -entry[by])[:OPERATORS]
    ]


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [
        f"{report['steps']} steps on {report['device']} ({report['threads']} threads), {report['precision']}: "
        f"{1e3 * report['seconds_per_step']:.1f} ms a step, {report['real_tokens_per_step']:.0f} real tokens a step, "
        f"{report['real_tokens_per_second']:.0f} a second",
        "",
        f"{'part of a step':<44}{'ms':>10}{'share':>9}",
    ]
    lines += [f"{name:<44}{1e3 * seconds:>10.2f}{share:>9.1%}" for name, seconds, share in _shown(report["sections"])]
    lines += ["", f"everything but the model's forward and backward and the optimizer: {report['toolkit_share']:.1%}"]
    costs = [("timing by parts", report["cost_of_timing"]), ("torch.profiler", report["cost_of_operators"])]
    said = [f"{what} made a step {value:+.1%} longer" for what, value in costs if value is not None]
    lines += [f"{' and '.join(said)} than the steps between, a token (short profiles: mostly noise)"] if said else []
    if report["operators"]:
        lines += ["", f"{'operator (its own time)':<44}{'ms':>10}{'share':>9}{'calls':>9}"]
        lines += [
            f"{o['name'][:43]:<44}{1e3 * o['seconds_per_step']:>10.2f}{o['share']:>9.1%}{o['calls_per_step']:>9.0f}"
            for o in report["operators"]
        ]
    return "\n".join(lines) + "\n"


def _shown(sections: Sequence[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """Rows of the table: of many heads the slowest, the others in one row."""
    heads = [s for s in sections if s["name"].startswith(HEAD)]
    folded = {s["name"] for s in heads[SHOWN_HEADS:]}
    rows = [(s["name"], s["seconds_per_step"], s["share"]) for s in sections if s["name"] not in folded]
    if folded:
        rest = heads[SHOWN_HEADS:]
        rows.append(
            (f"{HEAD}{len(rest)} others", sum(s["seconds_per_step"] for s in rest), sum(s["share"] for s in rest))
        )
    return rows
