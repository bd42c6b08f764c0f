"""What an optimizer step holds of each task, and what is summed from one line of the log to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
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

    def means(self, loss_sums: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All of them in one operation, for one backward pass: a task's own would pass through the others' heads."""
        if not loss_sums:
            return {}
        stacked = torch.stack(list(loss_sums.values()))
        units = stacked.new_tensor([self.units[task] or 1.0 for task in loss_sums])
        return dict(zip(loss_sums, (stacked / units).unbind(), strict=True))


def weighted_sum(values: Mapping[str, Tensor], factors: Mapping[str, float], device: torch.device) -> Tensor:
    """Σ factor · value, []; on a CPU in one operation, where a product a task would be a step of the backward pass each."""
    if not values or device.type != "cpu":
        return sum((factors[name] * value for name, value in values.items()), torch.zeros((), device=device))
    stacked = torch.stack(list(values.values()))
    return (stacked * stacked.new_tensor([factors[name] for name in values])).sum()


@dataclass
class TaskLog:
    """Sums since the last log line; of `step`, losses since the last optimizer step."""

    loss: dict[str, Tensor] = field(default_factory=dict)
    share: dict[str, float] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    steps: int = 0
    step: dict[str, Tensor] = field(default_factory=dict)

    def note(self, means: Mapping[str, Tensor]) -> None:
        """A micro-batch's part of the tasks' losses."""
        for name, mean in means.items():
            own = mean.detach()
            for sums in (self.loss, self.step):
                sums[name] = sums[name] + own if name in sums else own

    def note_step(self, shares: Mapping[str, float]) -> dict[str, Tensor]:
        """An optimizer step with these tasks' shares ends; its losses, of the tasks that had rows in this process."""
        self.steps += 1
        for name, share in shares.items():
            self.share[name] = self.share.get(name, 0.0) + share
            self.seen[name] = self.seen.get(name, 0) + 1
        losses, self.step = self.step, {}
        return losses
