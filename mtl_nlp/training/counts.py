"""What an optimizer step holds of each task, and what is summed from one line of the log to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor


@dataclass
class StepCounts:
    """Labelled units and rows of each task in one optimizer step, over all micro-batches and processes.

    With class weights a unit counts as much as its weight, so that the mean is a weighted one. `tokens` are the real ones of all
    rows, `encoded` those that the encoder sees (a conditioned one sees a row once a task), `positions` those with padding; `clock`
    the milliseconds that the run has taken by the first process' clock.
    """

    units: dict[str, float]
    rows: dict[str, int]
    tokens: int = 0
    clock: int = 0
    encoded: int = 0
    positions: int = 0

    def share(self, task: str) -> float:
        """s_t: the task's labelled rows over those of all tasks."""
        return self.rows[task] / max(self.all_rows, 1)

    @cached_property
    def all_rows(self) -> int:
        """Labelled rows of all tasks."""
        return sum(self.rows.values())

    def mean(self, task: str, loss_sum: Tensor) -> Tensor:
        """A micro-batch's part of L_t: its sum over the step's units (0 where all of them weigh nothing)."""
        return loss_sum / (self.units[task] or 1.0)


@dataclass
class TaskLog:
    """Sums since the last log line."""

    loss: dict[str, Tensor] = field(default_factory=dict)
    share: dict[str, float] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    steps: int = 0
