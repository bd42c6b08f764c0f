"""Progress on stderr with each task's state (the Trainer's own bar writes its log lines to stdout), and the schedule's events."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from .schedule import Schedule
from .throughput import Throughput


class ScheduleCallback(TrainerCallback):
    """Tells the `Schedule` of steps and evaluations, ends the run where it says so, and lets the learning rate go down before."""

    def __init__(self, schedule: Schedule, throughput: Throughput) -> None:
        self.schedule, self.throughput = schedule, throughput
        self._rates: list[Any] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """The decay, for this step alone: the learning-rate schedule knows nothing of it."""
        factor = self.schedule.decay()
        self._rates = [group["lr"] for group in optimizer.param_groups] if factor != 1.0 else []
        for group, rate in zip(optimizer.param_groups, self._rates, strict=False):
            group["lr"] = rate * factor

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        """The rates as they were."""
        for group, rate in zip(optimizer.param_groups, self._rates, strict=False):
            group["lr"] = rate

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step; at the end of a run that is cut short, score and save as at the end of any other."""
        self.throughput.end()
        self.schedule.note_step()
        if self.schedule.over:
            control.should_training_stop = True
            control.should_evaluate = control.should_evaluate or args.eval_strategy == "steps"
            control.should_save = control.should_save or args.save_strategy == "steps"

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """What the schedule learns from."""
        self.schedule.note_scores(metrics or {})


class TaskProgress(TrainerCallback):
    """A bar over the optimizer steps, the losses of the tasks beside it, a line for every evaluation."""

    def __init__(self, tasks: Sequence[str], schedule: Schedule) -> None:
        self.tasks, self.schedule = list(tasks), schedule
        self.bar: Any = None
        self.scoring: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar."""
        if state.is_world_process_zero and not args.disable_tqdm:
            quiet = not sys.stderr.isatty()
            self.bar = tqdm(
                total=state.max_steps,
                initial=state.global_step,
                desc="train",
                unit="step",
                file=sys.stderr,
                mininterval=15 if quiet else 0.2,
                dynamic_ncols=not quiet,
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move on."""
        if self.bar is not None:
            self.bar.total = self.schedule.end
            self.bar.update(state.global_step - self.bar.n)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count scored batches."""
        if state.is_world_process_zero and not args.disable_tqdm and sys.stderr.isatty():
            if self.scoring is None:
                self.scoring = tqdm(desc="evaluate", unit="batch", file=sys.stderr, leave=False)
            self.scoring.update(1)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Losses beside the bar."""
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix_str(progress(logs, self.tasks), refresh=False)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """One line a task's metrics."""
        if self.scoring is not None:
            self.scoring.close()
            self.scoring = None
        if self.bar is not None and metrics:
            epoch = f"epoch {state.epoch:.2f}" if state.epoch is not None else "evaluation"
            self.bar.write(f"{epoch}: {summary(metrics, self.tasks)}", file=sys.stderr)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def progress(logs: Mapping[str, float], tasks: Sequence[str]) -> str:
    """`loss 0.412 | sst2 0.301 (62 %) · btc 0.598 (38 %) | 2913 tokens/s, 4 % padding`: each task's loss and share, the speed."""
    each = [
        f"{name} {logs[f'loss_{name}']:.3f} ({logs.get(f'share_{name}', 0.0):.0%})".replace("%", " %")
        for name in tasks
        if f"loss_{name}" in logs
    ]
    parts = [f"loss {logs['loss']:.3f}", " · ".join(each)]
    if "tokens_per_second" in logs:
        parts.append(f"{logs['tokens_per_second']:.0f} tokens/s, {100 * logs.get('padding', 0.0):.0f} % padding")
    return " | ".join(part for part in parts if part)


def summary(metrics: dict[str, float], tasks: Sequence[str], prefix: str = "eval") -> str:
    """`mean 0.81 | sst2 accuracy 0.89 · btc span_f1 0.75`: the first metric of each task."""
    parts = []
    for name in tasks:
        start = f"{prefix}_{name}_"
        key = next((key for key in metrics if key.startswith(start)), None)
        if key is not None:
            parts.append(f"{name} {key.removeprefix(start)} {metrics[key]:.4f}")
    mean = f"mean {metrics[f'{prefix}_mean']:.4f} | " if f"{prefix}_mean" in metrics else ""
    return mean + " · ".join(parts)


def default_progress(arguments: TrainingArguments) -> type:
    """The progress callback that transformers chooses; it writes its log lines to stdout."""
    return PrinterCallback if arguments.disable_tqdm else ProgressCallback
