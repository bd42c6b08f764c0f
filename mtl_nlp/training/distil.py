"""Learning without Forgetting: on the new tasks' texts the inherited heads are held to what the old model says
(Li and Hoiem 2016, arXiv:1606.09282), with softened targets (Hinton et al. 2015, arXiv:1503.02531).

To a step's loss comes weight · Σ_t D_t over the inherited tasks t, where D_t is the mean over all rows of the step (token tasks:
over all their tokens) of

    label, choice of a token's tag, first and last token of an answer    T² · KL(softmax(old / T) ‖ softmax(new / T))
    labels                                                              T² · mean over labels of the binary KL, at T
    a number                                                            (old − new)²

Old data is never learned from. It costs one forward pass of the old model a batch, without gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import fault
from ..model.multitask import MultiTaskModel
from ..task import Task
from .counts import StepCounts
from .trainer import MultiTaskTrainer

DISTILLED = ("label", "labels", "value", "tags", "answer")


def soft_divergence(new: Tensor, old: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(old / T) ‖ softmax(new / T)) over the last dimension: [..., K] → [...], in nats."""
    log_new, log_old = (F.log_softmax(x.float() / temperature, -1) for x in (new, old))
    # Where both are −inf (padding of an answer's tokens), they agree.
    terms = torch.where(log_old.isneginf(), 0.0, log_old.exp() * (log_old - log_new))
    return temperature**2 * terms.sum(-1)


def binary_divergence(new: Tensor, old: Tensor, temperature: float) -> Tensor:
    """T² · KL of independent labels, mean over them: [..., K] → [...], in nats."""
    new, old = new.float() / temperature, old.float() / temperature
    chosen = old.sigmoid() * (F.logsigmoid(old) - F.logsigmoid(new))
    left_out = (-old).sigmoid() * (F.logsigmoid(-old) - F.logsigmoid(-new))
    return temperature**2 * (chosen + left_out).mean(-1)


def divergence(annotation: str, new: Tensor, old: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Sum over the batch's rows (token tasks: tokens) of one task's distance from its old outputs.

    Args:
        new: the logits, as the head's docstring says.
        old: those of the old model, of the same shape.
        mask: [b, T], 1 for real tokens.
    """
    if annotation == "label":
        return soft_divergence(new, old, temperature).sum()
    if annotation == "labels":
        return binary_divergence(new, old, temperature).sum()
    if annotation == "value":
        return (new.float() - old.float()).square().sum()
    if annotation == "tags":
        return (soft_divergence(new, old, temperature) * mask).sum()
    hidden = mask[..., None] == 0
    new, old = (x.float().masked_fill(hidden, float("-inf")).transpose(1, 2) for x in (new, old))  # [b, 2, T]
    return soft_divergence(new, old, temperature).mean(-1).sum()


def emissions(task: Task, logits: Tensor) -> Tensor:
    """The logits of each token; of a chain (CRF) without the transitions that stand before them, which nothing here changes."""
    return logits[:, logits.shape[-1] + 2 :] if task.kind.chain else logits


@dataclass
class RetainCounts(StepCounts):
    """The step's counts, and how many rows it has: with its tokens, what a distance is a mean over."""

    step_rows: int = 0


class DistillingTrainer(MultiTaskTrainer):
    """A `MultiTaskTrainer` that holds the heads of `old` to its outputs.

    Args:
        old: the checkpoint's model; frozen.
        inherited: the names of its tasks that are kept.
        weight: on the distance, beside the new tasks' losses, whose shares sum to 1.
        temperature: T.

    Raises:
        UserError: a kind of head whose outputs mean nothing on other tasks' texts.
    """

    def __init__(
        self,
        *args: Any,
        old: MultiTaskModel,
        inherited: Sequence[str],
        weight: float = 1.0,
        temperature: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        tasks: dict[str, Task] = {task.name: task for task in self.multi.tasks}
        # An auxiliary head over masked tokens is kept as it is: unmasked texts say nothing to it.
        self.held = [tasks[name] for name in inherited if tasks[name].kind.annotation != "none"]
        for task in self.held:
            if task.kind.annotation not in DISTILLED:
                cure = "use retain.method: rehearsal"
                raise fault(f"{task.name} ({task.head}) cannot be distilled", key="retain.method", cure=cure)
        self.old = old.to(self.args.device).eval().requires_grad_(False)  # type: ignore[arg-type]
        self.weight, self.temperature = weight, temperature
        self._distance: list[Tensor] = []

    def _count(self, batches: Sequence[Mapping[str, Any]]) -> RetainCounts:
        counts = super()._count(batches)
        rows = torch.tensor([sum(len(batch["input_ids"]) for batch in batches)])
        self._all_reduce(rows)
        return RetainCounts(**vars(counts), step_rows=int(rows))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The step's loss with this micro-batch's part of the distance."""
        counts = num_items_in_batch or self._count([inputs])
        every = {"rows": torch.arange(len(inputs["input_ids"]), device=inputs["input_ids"].device)}
        held = {task.name: every for task in self.held}
        # Without labels, so that the trainer leaves them to us.
        loss, outputs = super().compute_loss(
            model, {**inputs, "tasks": {**inputs["tasks"], **held}}, return_outputs=True, num_items_in_batch=counts
        )
        with torch.no_grad():
            old = self.old(**{**inputs, "tasks": held}).logits
        distance = torch.zeros((), device=loss.device)
        for task in self.held:
            units = counts.tokens if task.kind.annotation == "tags" else counts.step_rows
            now, before = (emissions(task, logits[task.name]) for logits in (outputs.logits, old))
            found = divergence(task.kind.annotation, now, before, inputs["attention_mask"], self.temperature)
            distance = distance + found / max(units, 1)
        self._distance.append(distance.detach())
        # DDP averages gradients over processes, the step's distance is a sum over them.
        loss = loss + self.weight * distance * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean distance from the old outputs since the last line to a training line."""
        if "loss" in logs and self._distance:
            steps = max(self._task_log.steps, 1)
            logs["distance_retained"] = self._summed(torch.stack(self._distance).sum()) / steps
            self._distance = []
        super().log(logs, start_time)
