"""`Balancer`: a loss weighting and a gradient aggregator inside the Trainer's step.

It supplies what a method reads, once an optimizer step and equal on every process: the tasks' mean losses over all micro-batches,
gradient norms on the shared representation, losses after the update, task gradients. The trainer calls it at four places: the
training step, the loss, after the optimizer, and for what a checkpoint keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from ..balancing import LossWeighting, Observation, WeightingContext, make_aggregator, make_weighting
from ..balancing.gradient_aggregation import GradientAggregator
from ..balancing.settings import method_name
from ..balancing.weighting import GRADIENT_NORMS, LOSSES, LOSSES_AFTER
from ..model.multitask import MultiTaskModel
from ..recipe import Balancing
from .gradient_steps import ParameterSteps, RepresentationSteps, losses_again

if TYPE_CHECKING:
    from .counts import StepCounts
    from .trainer import MultiTaskTrainer

Inputs = dict[str, Any]


@dataclass
class StepRecord:
    """One optimizer step, as its micro-batches pass.

    Attributes:
        number: of the step, from 0.
        counts: units and rows of the whole step.
        shares: [M], s_t.
        losses: [M], this process' part of L_t so far.
        squares: [M], this process' part of ‖∂L_t/∂h‖².
        factors: task → what its mean loss was multiplied by before the backward pass.
        seen: micro-batches with the state of the random generators before them, for a second forward pass.
        weights: [M] of the step.
    """

    number: int
    counts: StepCounts
    shares: Tensor
    losses: Tensor
    squares: Tensor
    factors: dict[str, float] = field(default_factory=dict)
    seen: list[tuple[Inputs, Any]] = field(default_factory=list)
    weights: Tensor | None = None
    random_state: Any = None


class Balancer:
    """Weighting and aggregation of one run.

    Args:
        tasks: names, in order.
        weighting, aggregator: the methods; None for no aggregation.
        on: what gradients are aggregated on, `parameters` or `representation`.
    """

    def __init__(
        self,
        tasks: list[str],
        weighting: LossWeighting | None = None,
        aggregator: GradientAggregator | None = None,
        *,
        on: str = "parameters",
    ) -> None:
        self.tasks, self.on = tasks, on
        self.weighting = weighting or make_weighting("fixed", WeightingContext(tasks))
        self.aggregator = aggregator
        self.weighted = weighting is not None
        self.plain = weighting is None and aggregator is None
        self.record: StepRecord | None = None
        self.steps: ParameterSteps | RepresentationSteps | None = None
        self.late = False
        self._log: dict[str, list[float]] = {}

    @classmethod
    def from_recipe(
        cls, spec: Balancing, model: MultiTaskModel, *, seed: int, chance: Callable[[], Mapping[str, float]]
    ) -> Balancer:
        """The recipe's methods.

        Args:
            chance: gives task → loss of the best constant prediction; asked only by a weighting that needs it.

        Raises:
            UserError: an unknown method or setting, or torchjd is missing.
        """
        from ..balancing.loss_weighting import weighting_class

        names = [task.name for task in model.tasks]
        wanted = weighting_class(method_name(spec.weighting))
        squares = frozenset(task.name for task in model.tasks if task.kind.annotation == "value")
        context = WeightingContext(names, seed, squares, chance() if wanted.needs_chance else {})
        made = make_weighting(spec.weighting, context)
        weighting = None if method_name(spec.weighting) == "fixed" else made
        return cls(names, weighting, make_aggregator(spec.gradients, tasks=names, seed=seed), on=spec.on)

    def prepare(self, trainer: MultiTaskTrainer) -> None:
        """Take the run's device and route: called before the optimizer is made."""
        for parameter in self.weighting.parameters():
            parameter.data = parameter.data.to(trainer.args.device)
        # Weights that need the whole step's losses are put on task gradients that are kept over its micro-batches.
        self.late = self.weighting.losses_first and trainer.args.gradient_accumulation_steps > 1
        if self.on == "representation" and self.aggregator is not None:
            self.steps = RepresentationSteps(trainer)
        elif self.aggregator is not None or self.late:
            self.steps = ParameterSteps(trainer)

    def parameter_group(self) -> dict[str, Any] | None:
        """The learned weights' own group for the optimizer, to stand last."""
        learned = self.weighting.parameters()
        return {"params": learned, "lr": self.weighting.learning_rate, "weight_decay": 0.0} if learned else None

    def training_step(
        self, trainer: MultiTaskTrainer, plain: Callable[[], Tensor], inputs: Inputs, counts: StepCounts
    ) -> Tensor:
        """One micro-batch forward and backward; with the step's last one, what the methods do before the update."""
        if self.plain:
            return plain()
        record = self._record(trainer, counts)
        reads = self.weighting.reads
        if LOSSES_AFTER in reads:
            record.random_state = trainer.random_state()
        if GRADIENT_NORMS in reads:
            trainer.multi.watch = self._watch
        try:
            loss = plain() if self.steps is None else self.steps.micro_batch(inputs, counts)
        finally:
            if GRADIENT_NORMS in reads:
                trainer.multi.watch = None
        if trainer.accelerator.sync_gradients:
            self._before_update(trainer, record)
        return loss

    def _record(self, trainer: MultiTaskTrainer, counts: StepCounts) -> StepRecord:
        if self.record is None:
            zeros = torch.zeros(len(self.tasks), device=trainer.args.device)
            shares = torch.tensor([counts.share(name) for name in self.tasks], dtype=torch.float64)
            self.record = StepRecord(trainer.state.global_step, counts, shares, zeros, zeros.clone())
        return self.record

    def loss_weights(
        self, trainer: MultiTaskTrainer, means: Mapping[str, Tensor], factors: Mapping[str, float], inputs: Inputs
    ) -> dict[str, float]:
        """The step's weights w_t, given a micro-batch's part of the tasks' mean losses.

        Args:
            means: task → its part of L_t.
            factors: task → what else the part is multiplied by (its own weight and share).
        """
        if self.plain:
            return dict.fromkeys(means, 1.0)
        record = self.record
        if record is None:  # a loss outside of training
            return dict.fromkeys(means, 1.0)
        if self.weighting.reads:
            for name, mean in means.items():
                record.losses[self.tasks.index(name)] += mean.detach()
        if LOSSES_AFTER in self.weighting.reads:
            record.seen.append((inputs, record.random_state))
        weights = self._weights(trainer, record)
        found = {name: 1.0 if self.late else weights[self.tasks.index(name)] for name in means}
        record.factors = {name: found[name] * factors[name] for name in means}
        return found

    def _weights(self, trainer: MultiTaskTrainer, record: StepRecord) -> list[float]:
        if self.late:
            return []
        if record.weights is None:
            losses = present = None
            if self.weighting.losses_first:
                losses, present = trainer.total(record.losses.clone()).double().cpu(), record.shares > 0
            record.weights = self.weighting.weights(record.number, losses, present)
        return record.weights.tolist()

    def _watch(self, name: str, states: Tensor) -> None:
        """Note the norm of a task's gradient on its part of the representation."""
        if not states.requires_grad:
            return

        def note(gradient: Tensor) -> None:
            record = self.record
            assert record is not None
            factor = record.factors[name]
            if factor:
                record.squares[self.tasks.index(name)] += (gradient.float() / factor).square().sum()

        states.register_hook(note)

    def _before_update(self, trainer: MultiTaskTrainer, record: StepRecord) -> None:
        scale = trainer.loss_scale()
        losses, norms = record.losses.double().cpu(), None
        if self.weighting.reads & {LOSSES, GRADIENT_NORMS}:
            both = trainer.total(torch.stack([record.losses, record.squares / scale**2])).double().cpu()
            losses, norms = both[0], both[1].sqrt() if GRADIENT_NORMS in self.weighting.reads else None
        record.losses = losses
        seen = Observation(record.number, losses, record.shares, norms, scale)
        if self.late:
            record.weights = self.weighting.weights(record.number, losses, seen.present)
        if self.steps is not None:
            late = record.weights if self.late else None
            self._note("gradient_weight", self.steps.finish(record.number, record.counts, late, self.aggregator))
        if norms is None or bool(norms.isfinite().all()):
            self.weighting.before_update(seen)
        if record.weights is not None and self.weighted:
            names = [name for name, there in zip(self.tasks, seen.present.tolist(), strict=True) if there]
            self._note("weight", {name: float(record.weights[self.tasks.index(name)]) for name in names})

    def after_update(self, trainer: MultiTaskTrainer) -> None:
        """After the optimizer's step: losses once more for a weighting that reads them."""
        record, self.record = self.record, None
        if record is None or trainer.accelerator.optimizer_step_was_skipped:
            return
        after = None
        if LOSSES_AFTER in self.weighting.reads:
            after = losses_again(trainer, record.seen, record.counts, apart=isinstance(self.steps, ParameterSteps))
        self.weighting.after_update(Observation(record.number, record.losses, record.shares), after)

    def _note(self, what: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self._log.setdefault(f"{what}_{name}", []).append(value)

    def log_lines(self) -> dict[str, float]:
        """Means since the last line of the log: `weight_TASK`, `gradient_weight_TASK`."""
        found = {key: sum(values) / len(values) for key, values in self._log.items()}
        self._log = {}
        return found

    def state(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON."""
        state = {"weighting": self.weighting.state()}
        return state | {"gradients": self.aggregator.state() if self.aggregator else {}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        if state.get("weighting"):
            self.weighting.load_state(state["weighting"])
        if self.aggregator is not None and state.get("gradients"):
            self.aggregator.load_state(state["gradients"])


class AfterUpdate(TrainerCallback):
    """Hands the moment after the optimizer's step to the balancer."""

    def __init__(self, trainer: MultiTaskTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The model is wrapped and loaded, so that nothing comes or goes from here on (FSDP exchanges parameters in every step)."""
        if not self.trainer.multi.is_sharded:
            self.trainer.multi.fix_structure(narrow=self.trainer.narrows)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The weights have just been updated."""
        self.trainer.balancer.after_update(self.trainer)
