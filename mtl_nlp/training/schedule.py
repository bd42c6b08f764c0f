"""What a run decides on its way: rates that follow the tasks, tasks that retire, and when it ends.

The trainer tells the `Schedule` each step's losses and counts and each evaluation's metrics, and asks it before it fetches the next
batches. What is known after block k rules block k + 2, because loaders run ahead. All of it is in `state_dict`, so that a resumed
run decides what an uninterrupted one would have.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.mixture import Mixture, Regime
from ..data.strategies import SamplingState, strategy_weights
from ..errors import listed
from ..recipe import Stopping

logger = logging.getLogger("mtl_nlp")

AHEAD = 2
"""What is learned in a block rules the block so many later."""

BRIEF = 0.1
"""The share of its planned steps over which the learning rate of a run goes down that ends early without a cool-down."""

Reduce = Callable[[Tensor], None]


class Schedule:
    """Rates, retired tasks and the end of a run, decided between blocks.

    Args:
        mixture: the stream; it is given each block's regime.
        tasks: all tasks, in order.
        metrics: task → its primary metric as evaluation names it, for the tasks that count in the mean; others are never retired.
        stopping: a recipe's `stopping:`.
        reduce: sums a tensor over all processes, in place.
    """

    def __init__(
        self,
        mixture: Mixture,
        tasks: Sequence[str],
        *,
        metrics: Mapping[str, str] | None = None,
        stopping: Stopping | None = None,
        reduce: Reduce = lambda tensor: None,
    ) -> None:
        self.mixture, self.tasks, self.metrics = mixture, list(tasks), dict(metrics or {})
        self.stopping, self.reduce = stopping or Stopping(), reduce
        self.reads = mixture.strategy.reads
        self.changes = mixture.strategy.learns or self.stopping.per_task
        mixture.settled = AHEAD if self.changes else None
        self.step = 0
        self.end = mixture.planned
        self.decay_from: int | None = None
        self.cooldown: tuple[int, int] | None = None  # its first step and its end, once decided
        self.tokens = 0
        self.seconds = 0.0
        # Of the step that is under way: real tokens over all processes, and what the first one's `clock` said as it began.
        self.used = (0, 0)
        self.losses: list[list[float | None]] = []  # [steps of the block that have been reduced, tasks]
        self.start_loss: dict[str, float] = {}
        self.loss: dict[str, float] = {}
        self.score: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.gained: dict[str, float] = {}  # each task's value at its last gain of more than the tolerance
        self.waited = dict.fromkeys(self.metrics, 0)
        self.retired: set[str] = set()
        self._planned_end = mixture.planned
        self._local: list[dict[str, Tensor]] = []  # this process' losses of the steps that are not reduced yet
        self._before, self._begun = 0.0, time.monotonic()

    # Told by the trainer.

    def note_losses(self, losses: Mapping[str, Tensor]) -> None:
        """This process' part of each task's mean loss in one step, for the tasks that the step had on any process."""
        if "losses" in self.reads:
            self._local.append(dict(losses))

    def note_scores(self, metrics: Mapping[str, float]) -> None:
        """An evaluation's metrics: who has stopped improving, who has fallen."""
        for task, key in self.metrics.items():
            if key not in metrics:
                continue
            value = float(metrics[key])
            self.score[task] = value
            self.best[task] = max(value, self.best.get(task, value))
            # Small gains add up: the next one is measured from where the last that counted had come to.
            if task not in self.gained or value > self.gained[task] + self.stopping.tolerance:
                self.gained[task], self.waited[task] = value, 0
            elif task not in self.retired:
                self.waited[task] += 1
            if self.stopping.per_task and self.cooldown is None:
                self._judge(task, value)

    def _judge(self, task: str, value: float) -> None:
        best, tolerance, patience = self.best[task], self.stopping.tolerance, self.stopping.patience or math.inf
        # What has fallen is not done: it is given as long again to come back.
        wanted = patience if value >= best - tolerance else 2 * patience
        if task not in self.retired and self.waited[task] >= wanted:
            self.retired.add(task)
            logger.info("%s is retired: no gain in %d evaluations (best %.4f)", task, self.waited[task], best)
        elif task in self.retired and value < best - tolerance:
            self.retired.discard(task)
            self.waited[task] = 0
            logger.info("%s is taken up again: %.4f is below its best %.4f", task, value, best)

    def note_step(self) -> None:
        """A step is done that took what `used` says."""
        tokens, milliseconds = self.used
        self.step += 1
        self.tokens += tokens
        self.seconds = milliseconds / 1000
        self._place_end()

    def clock(self) -> int:
        """Milliseconds that the run has taken, earlier parts of a resumed one included."""
        return int((self._before + time.monotonic() - self._begun) * 1000)

    # Asked by the trainer.

    @property
    def over(self) -> bool:
        """Whether the run has come to its end."""
        return self.step >= self.end

    @property
    def early(self) -> bool:
        """Whether it ends before its last planned step."""
        return self.end < self.mixture.planned

    def settle(self) -> None:
        """Decide the regimes of the blocks that are due, before the next batches are fetched."""
        size = self.mixture.block_batches
        while self.mixture.settled is not None and self.mixture.settled < self.step // size + AHEAD:
            block = self.mixture.settled
            self._close_block()
            self._set_regime(block)
            end, cools_from = self._look_ahead()
            if cools_from == block:
                self.cooldown = (block * size, end)
                self._set_regime(block)
                logger.info("all tasks learn once more from step %d to the end of the run", block * size)
            self.mixture.settled = block + 1
            self._planned_end = end
        self._place_end()

    def retired_in(self, step: int) -> frozenset[str]:
        """The tasks whose labels do not count in the step after `step` steps."""
        return self._regime(step // self.mixture.block_batches).retired

    def decay(self) -> float:
        """The factor on the learning rate in the step that comes next: below 1 in the last blocks of a run that ends early."""
        if self.decay_from is None:
            return 1.0
        return max(0.0, (self.end - self.step) / max(1, self.end - self.decay_from))

    def report(self) -> dict[str, Any]:
        """For `metrics.json`: tokens, seconds, and the regimes with whole rates."""
        history = [
            {"block": r.block, "step": r.block * self.mixture.block_batches, "retired": sorted(r.retired)}
            | ({"rates": dict(r.rates)} if r.rates is not None else {})
            for r in self.mixture.regimes.all
            if r.block * self.mixture.block_batches < max(1, self.step)
        ]
        seconds = round(self.clock() / 1000, 1)  # of a resumed run all parts
        found = {"planned_steps": self.mixture.planned, "tokens": self.tokens, "seconds": seconds, "regimes": history}
        return found | ({"cooldown_from": self.cooldown[0]} if self.cooldown else {})

    # Decided at the border of two blocks.

    def _regime(self, block: int) -> Regime:
        return self.mixture.regimes.at(block)

    def _close_block(self) -> None:
        """Each task's mean loss over the steps of the block that had it."""
        self._gather()
        for place, task in enumerate(self.tasks):
            seen = [row[place] for row in self.losses if row[place] is not None]
            if seen:
                self.loss[task] = math.fsum(seen) / len(seen)  # type: ignore[arg-type]
                self.start_loss.setdefault(task, self.loss[task])
        self.losses = []

    def _gather(self) -> None:
        """Sum the processes' losses; every process comes here after the same steps."""
        if not self._local:
            return
        table = torch.zeros(len(self._local), len(self.tasks), dtype=torch.float64)
        for row, losses in enumerate(self._local):
            for task, value in losses.items():
                table[row, self.tasks.index(task)] = value.double().cpu()
        self.reduce(table)
        for losses, values in zip(self._local, table.tolist(), strict=True):
            self.losses.append(
                [value if task in losses else None for task, value in zip(self.tasks, values, strict=True)]
            )
        self._local = []

    def _set_regime(self, block: int) -> None:
        found, before = self._next_regime(block), self._regime(block)
        if (found.rates, found.retired) != (before.rates, before.retired):
            self.mixture.set_regime(found)

    def _next_regime(self, block: int) -> Regime:
        rates, retired = None, frozenset(() if self.cooldown else self.retired)
        if self.mixture.strategy.learns:
            names = self.mixture.regimes.tasks
            active = {corpus: [t for t in tasks if t not in retired] for corpus, tasks in names.items()}
            progress = min(1.0, block / max(1, self.mixture.blocks - 1))
            state = SamplingState(progress, active, self.start_loss, self.loss, self.score, self.best)
            rates = strategy_weights(self.mixture.strategy, self.mixture.sizes, state)
        return Regime(block, rates, retired)

    @property
    def last_steps(self) -> int:
        """Steps over which the learning rate goes down in a run that ends early, two blocks at least.

        They are the cool-down where there is one: it takes the place of a decay (Hägele et al. 2024, arXiv:2405.18392).
        """
        share = self.stopping.cooldown or BRIEF
        return max(2 * self.mixture.block_batches, int(share * self.mixture.planned))

    def _look_ahead(self) -> tuple[int, int | None]:
        """By what is known now: the step at which the planned draws of the tasks that are left are done, and the block from which
        on the run is to cool down with all tasks.

        A block of which the share κ is still drawn does the work of 1/κ planned ones.
        """
        planned, size, settled = self.mixture.planned, self.mixture.block_batches, self.mixture.settled or 0
        if self.cooldown is not None:
            return self.cooldown[1], None
        done, block = 0.0, 0
        while block * size < planned:
            kept = self._kept(block)
            if block >= settled and self._cools(block, kept, planned - done):
                # Where nothing is saved the run is as long as it was planned.
                steps = self.last_steps if kept < 1.0 else math.ceil(planned - done - 1e-9)
                return min(planned, block * size + steps), block
            if kept <= 0.0:
                return block * size, None
            if done + size / kept >= planned - 1e-9:
                return min(planned, block * size + math.ceil((planned - done) * kept - 1e-9)), None
            if block < settled and self.mixture.batches_in(block) < size:
                return block * size + self.mixture.batches_in(block), None
            done, block = done + size / kept, block + 1
        return planned, None

    def _cools(self, block: int, kept: float, left: float) -> bool:
        """Whether a block that retired tasks would miss is the first of the cool-down, with `left` planned steps to go."""
        if self.stopping.cooldown == 0 or not self._regime(block).retired:
            return False
        size = self.mixture.block_batches
        # It begins at the border of two blocks that comes closest to its length before the end.
        by_draws = kept <= 0.0 or left - size / kept / 2 <= self.last_steps
        return by_draws or self._budget_end() - size / 2 <= block * size + self.last_steps

    def _kept(self, block: int) -> float:
        retired = self._regime(block).retired
        if not retired:
            return 1.0
        if retired >= self.metrics.keys():
            return 0.0  # what is never scored does not keep a run going
        return self.mixture.regimes.kept(block) if self.stopping.freed == "save" else 1.0

    def _place_end(self) -> None:
        """Where the run ends by what is known now, and since when the learning rate goes down."""
        self.end = max(self.step, int(min(self._planned_end, self._budget_end())))
        if self.end - self.step > self.last_steps:
            self.decay_from = None
        elif self.early and self.decay_from is None:
            self.decay_from = self.step

    def _budget_end(self) -> float:
        """The step at which a budget of tokens or minutes is used up at the pace so far."""
        ends, budget = [math.inf], self.stopping.budget
        used = [(budget.tokens, self.tokens), (budget.minutes, self.seconds / 60)]
        for limit, so_far in used:
            if limit is not None and self.step and so_far > 0:
                ends.append(self.step + max(0, math.floor((limit - so_far) / (so_far / self.step))))
        return min(ends)

    # Saved with a run.

    def state_dict(self) -> dict[str, Any]:
        """Plain data; every process has to call it."""
        self._gather()
        return {
            "step": self.step,
            "settled": self.mixture.settled,
            "regimes": [regime.to_dict() for regime in self.mixture.regimes.all],
            "planned_end": self._planned_end,
            "decay_from": self.decay_from,
            "cooldown": self.cooldown,
            "tokens": self.tokens,
            "seconds": self.clock() / 1000,
            "losses": self.losses,
            "start_loss": self.start_loss,
            "loss": self.loss,
            "score": self.score,
            "best": self.best,
            "gained": self.gained,
            "waited": self.waited,
            "retired": sorted(self.retired),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        for regime in state["regimes"]:
            self.mixture.set_regime(Regime.from_dict(regime))
        self.mixture.settled = state["settled"]
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self._before, self._begun = state["seconds"], time.monotonic()
        self._planned_end, self.decay_from = state["planned_end"], state["decay_from"]
        self.cooldown = None if state["cooldown"] is None else (int(state["cooldown"][0]), int(state["cooldown"][1]))
        self.losses = [list(row) for row in state["losses"]]
        self.start_loss, self.loss = dict(state["start_loss"]), dict(state["loss"])
        self.score, self.best = dict(state["score"]), dict(state["best"])
        self.gained, self.waited = dict(state["gained"]), dict(state["waited"])
        self.retired = set(state["retired"])
        self._place_end()
        if self.retired:
            logger.info("retired: %s", listed(sorted(self.retired)))
