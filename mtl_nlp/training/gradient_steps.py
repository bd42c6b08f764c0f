"""Backward passes of single tasks: on the shared parameters, or down to the shared representation.

`ParameterSteps` encodes rows of different tasks in separate passes of one step and keeps each task's gradient over the
micro-batches. `RepresentationSteps` runs each head backward to the encoder's output and the encoder backward once. Both use the
model as it is, not wrapped: under DDP a wrapped one hands out copies that are not in the losses' graph. So the sums over
processes are made here, before gradients are aggregated, and every process resolves the same conflict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..balancing import TaskGradients, representation_gramian
from ..balancing.gradient_aggregation import GradientAggregator
from ..balancing.task_gradients import summed
from ..data.parts import split_by_rows
from ..model.multitask import MultiTaskModel

if TYPE_CHECKING:
    from .counts import StepCounts
    from .trainer import MultiTaskTrainer


def shared_parameters(model: MultiTaskModel) -> list[nn.Parameter]:
    """What the tasks share and learn: the encoder's parameters, and those that several heads have."""
    owners: dict[int, int] = {}
    for name in model.kinds:
        for parameter in model.heads[name].parameters():
            owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    inside = {id(parameter) for parameter in model.encoder.parameters()}
    shared = [p for p in model.parameters() if id(p) in inside or owners.get(id(p), 0) > 1]
    return [parameter for parameter in shared if parameter.requires_grad]


class GradientSteps:
    """What both routes have in common."""

    def __init__(self, trainer: MultiTaskTrainer) -> None:
        self.trainer = trainer
        self.shared = shared_parameters(trainer.multi)
        inside = {id(parameter) for parameter in self.shared}
        self.others = [p for p in trainer.multi.parameters() if p.requires_grad and id(p) not in inside]

    def micro_batch(self, inputs: dict[str, Any], counts: StepCounts) -> Tensor:
        """Forward and backward; the micro-batch's part of the step's loss."""
        raise NotImplementedError

    def finish(
        self, step: int, counts: StepCounts, late: Tensor | None, aggregator: GradientAggregator | None
    ) -> dict[str, float]:
        """After the last micro-batch: the update's gradient into `.grad`; task → α_t."""
        raise NotImplementedError

    def _train_mode(self) -> None:
        self.trainer.multi.train()
        optimizer: Any = self.trainer.optimizer
        if callable(getattr(optimizer, "train", None)):
            optimizer.train()

    def _total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """For the log, which averages over processes where the step's loss is a sum."""
        zero = torch.zeros((), device=self.trainer.args.device)
        return sum((loss.detach() for loss in losses.values()), zero) * self.trainer.args.world_size

    def _present(self, counts: StepCounts) -> list[str]:
        return [name for name in self.trainer.task_names if counts.rows[name]]

    def _alpha(self, gramian: Tensor, tasks: Sequence[str], step: int, aggregator: GradientAggregator | None) -> Tensor:
        """The aggregator's weights; plain summing where a gradient is not finite, so that it is seen (or fp16 skips the step)."""
        if aggregator is None or not bool(gramian.isfinite().all()):
            return torch.ones(len(tasks), dtype=torch.float64)
        numbers = [self.trainer.task_names.index(name) for name in tasks]
        return aggregator.weights(gramian, numbers, step)

    def _reduce(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum gradients over processes; a parameter without a gradient anywhere keeps none."""
        if self.trainer.args.world_size == 1:
            return
        found = reduced([p.grad for p in parameters], parameters)
        for parameter, grad in zip(parameters, found, strict=True):
            parameter.grad = grad


def reduced(grads: Sequence[Tensor | None], parameters: Sequence[nn.Parameter]) -> list[Tensor | None]:
    """The sum of gradients over processes, None where no process has one."""
    there = torch.tensor([float(grad is not None) for grad in grads], device=parameters[0].device)
    torch.distributed.all_reduce(there)
    wanted = [i for i, count in enumerate(there.tolist()) if count]
    dense = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)]
    result: list[Tensor | None] = [None] * len(grads)
    if wanted:
        for i, total in zip(wanted, summed([dense[i] for i in wanted]), strict=True):
            result[i] = total
    return result


class ParameterSteps(GradientSteps):
    """Task gradients on the shared parameters, by a pass of its own for every set of tasks with common rows."""

    def __init__(self, trainer: MultiTaskTrainer) -> None:
        super().__init__(trainer)
        self.gradients = TaskGradients(self.shared, trainer.task_names)

    def micro_batch(self, inputs: dict[str, Any], counts: StepCounts) -> Tensor:
        """All parts forward, then each task backward; losses are known before the first backward pass."""
        trainer = self.trainer
        self._train_mode()
        parts = [trainer._prepare_inputs(part) for part in split_by_rows(inputs)]
        means: dict[str, Tensor] = {}
        with trainer.compute_loss_context_manager():
            for part in parts:
                means |= trainer.task_means(trainer.multi, part, counts)[1]
        losses = trainer.weighted(means, counts, inputs)
        for part in parts:
            names = list(part["tasks"])
            for name in names:
                with self.gradients.collecting(name):
                    trainer.accelerator.backward(losses[name], retain_graph=name != names[-1])
        return self._total(losses)

    def finish(
        self, step: int, counts: StepCounts, late: Tensor | None, aggregator: GradientAggregator | None
    ) -> dict[str, float]:
        """Gramian → α → Σ α_t g_t on the shared parameters; the heads keep their own."""
        tasks, trainer = self._present(counts), self.trainer
        self._reduce(self.others)
        if trainer.args.world_size > 1:
            for name in tasks:
                found = self.gradients.grads.get(name) or [None] * len(self.shared)
                self.gradients.grads[name] = reduced(found, self.shared)
        weights = torch.ones(len(tasks), dtype=torch.float64)
        if late is not None:
            weights = torch.stack([late[trainer.task_names.index(name)] for name in tasks])
            self._scale_heads(tasks, weights)
        alpha = torch.ones_like(weights)
        if aggregator is not None:
            gramian = self.gradients.gramian(tasks) / trainer.loss_scale() ** 2
            alpha = self._alpha(gramian * weights[:, None] * weights[None, :], tasks, step, aggregator)
        self.gradients.combine(tasks, alpha * weights)
        return dict(zip(tasks, alpha.tolist(), strict=True)) if aggregator is not None else {}

    def _scale_heads(self, tasks: Sequence[str], weights: Tensor) -> None:
        inside = {id(parameter) for parameter in self.shared}
        for name, weight in zip(tasks, weights.tolist(), strict=True):
            for parameter in self.trainer.multi.own_parameters(name):
                if parameter.grad is not None and id(parameter) not in inside:
                    parameter.grad.mul_(weight)


class RepresentationSteps(GradientSteps):
    """Task gradients on the shared representation: every head backward once, the encoder backward once."""

    def __init__(self, trainer: MultiTaskTrainer) -> None:
        super().__init__(trainer)
        self.states: dict[str, Tensor] = {}
        self.found: dict[str, Tensor] = {}
        self.rows: dict[str, Tensor] = {}

    def micro_batch(self, inputs: dict[str, Any], counts: StepCounts) -> Tensor:
        """Forward, and the heads backward."""
        trainer = self.trainer
        self._train_mode()
        batch: dict[str, Any] = trainer._prepare_inputs(inputs)
        model = trainer.multi
        before = model.watch

        def watch(name: str, states: Tensor) -> None:
            if before is not None:
                before(name, states)
            self.states[name] = states

        model.watch = watch
        try:
            with trainer.compute_loss_context_manager():
                means = trainer.task_means(model, batch, counts)[1]
        finally:
            model.watch = before
        losses = trainer.weighted(means, counts, batch)
        scale = trainer.loss_scale()
        self.rows = {name: batch["tasks"][name]["rows"] for name in losses}
        for name, loss in losses.items():
            own = [p for p in model.heads[name].parameters() if p.requires_grad]
            grads = torch.autograd.grad(loss * scale, [self.states[name], *own], allow_unused=True)
            self.found[name] = grads[0]
            for parameter, grad in zip(own, grads[1:], strict=True):
                if grad is not None:
                    parameter.grad = grad if parameter.grad is None else parameter.grad + grad
        return self._total(losses)

    def finish(
        self, step: int, counts: StepCounts, late: Tensor | None, aggregator: GradientAggregator | None
    ) -> dict[str, float]:
        """Gramian → α → the encoder's backward pass from Σ α_t ∂L_t/∂h."""
        tasks, trainer = self._present(counts), self.trainer
        here = representation_gramian(self.found, self.rows)
        gramian = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
        places = torch.tensor([tasks.index(name) for name in self.found], dtype=torch.long)
        gramian[places[:, None], places[None, :]] = here
        total = trainer.total(gramian.to(trainer.args.device)).cpu() / trainer.loss_scale() ** 2
        alpha = self._alpha(total, tasks, step, aggregator)
        by_name = dict(zip(tasks, alpha.tolist(), strict=True))
        starts = [self.found[name] * by_name[name] for name in self.found]
        if starts:
            torch.autograd.backward([self.states[name] for name in self.found], starts)
        self.states, self.found, self.rows = {}, {}, {}
        self._reduce([*self.shared, *self.others])
        return by_name


def losses_again(
    trainer: MultiTaskTrainer, seen: Sequence[tuple[dict[str, Any], Any]], counts: StepCounts, *, apart: bool
) -> Tensor:
    """[M]: the step's losses on the same rows with the same dropout, after the update.

    Args:
        seen: micro-batches and the random generators' state before each.
        apart: whether they were encoded in separate passes.
    """
    now = trainer.random_state()
    losses = torch.zeros(len(trainer.task_names), device=trainer.args.device)
    trainer.multi.train()
    with torch.no_grad(), trainer.compute_loss_context_manager():
        for inputs, state in seen:
            trainer.set_random_state(state)
            for part in split_by_rows(inputs) if apart else [inputs]:
                means = trainer.task_means(trainer.multi, trainer._prepare_inputs(part), counts)[1]
                for name, mean in means.items():
                    losses[trainer.task_names.index(name)] += mean
    trainer.set_random_state(now)
    return trainer.total(losses).double().cpu()
