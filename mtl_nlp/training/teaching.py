"""Knowledge distillation with teacher annealing (Clark et al. 2019, BAM, arXiv:1907.04829; Hinton et al. 2015, arXiv:1503.02531).

The mean loss of a task that has a teacher is

    L_t = λ · L_t(labels) + (1 − λ) · D_t,    λ = step / steps, from 0 to 1 (or constant)

with D_t the mean over the same labelled units (class weights included) of

    one label, the tag of a word    T² · KL(softmax(teacher / T) ‖ softmax(student / T))
    several labels                  T² · mean over labels of the binary KL, at T
    a number                        (teacher − student)²

At T = 1 its gradient is that of the mixed targets λ · label + (1 − λ) · teacher, which BAM trains on: cross entropy is linear
in its target, and both squared errors have the gradient of the one to the mixed number. All else is the ordinary road:
shares, weights, balancing and logs see L_t. The teachers' outputs come with the batch (`training.teachers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.batching import Collator, Record
from ..distil import Distil
from ..model.losses import IGNORE
from ..model.multitask import MultiTaskOutput
from ..task import Task
from .counts import StepCounts
from .distil import binary_divergence, soft_divergence
from .teachers import Targets
from .trainer import MultiTaskTrainer

TEACHER = "teacher"


class TeachingCollator(Collator):
    """A `Collator` that adds the teacher's outputs for a task's rows.

    They are `teacher` [b, K], of tags [b, T, K] with 0 where no word begins.

    Args:
        targets: task → the outputs for all training texts.
    """

    def __init__(self, *args: Any, targets: Mapping[str, Targets], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.targets = dict(targets)

    def _task_rows(self, task: Task, rows: list[int], records: Sequence[Record], width: int) -> dict[str, Tensor]:
        found = super()._task_rows(task, rows, records, width)
        if task.name not in self.targets:
            return found
        targets = self.targets[task.name]
        texts = [targets.of_text(records[i]["draw"].index) for i in rows]
        if task.kind.annotation != "tags":
            return {**found, TEACHER: torch.stack(texts)}
        cut = int(found["width"])
        table = torch.zeros(len(rows), cut, targets.values.shape[1])
        for place, (i, text) in enumerate(zip(rows, texts, strict=True)):
            words = torch.as_tensor(records[i]["words"])
            tokens = torch.nonzero(words >= 0).flatten()
            table[place, tokens + self._shift(records[i], width)] = text[words[tokens]]
        return {**found, TEACHER: table}

    def _shift(self, record: Record, width: int) -> int:
        return 0 if self.tokenizer.padding_side == "right" else width - len(record["input_ids"])


def labels_share(spec: Distil, step: int, steps: int) -> float:
    """λ of a step (counted from 0): step / steps with annealing, else constant."""
    return min(step / max(steps, 1), 1.0) if spec.annealing else spec.gold


def distance(
    annotation: str, student: Tensor, rows: Mapping[str, Tensor], temperature: float, weights: Sequence[float] | None
) -> Tensor:
    """Sum over a batch's labelled units of the student's distance from the teacher.

    Args:
        student: the head's logits.
        rows: the task's part of the batch: `labels`, which say what is labelled, and `teacher`.
        weights: one a class, where the task has class weights: a unit counts as much as its label's.
    """
    labels, teacher = rows["labels"], rows[TEACHER]
    if annotation == "value":
        each = (student.float().view(-1) - teacher.view(-1)).square()
        return torch.where(labels.isnan(), 0.0, each).sum()
    if annotation == "labels":
        each = binary_divergence(student, teacher, temperature)
        return torch.where(labels.isnan().any(-1), 0.0, each).sum()
    each = soft_divergence(student, teacher, temperature)
    if weights is not None:
        each = each * torch.tensor(weights, device=each.device)[labels.clamp_min(0)]
    return torch.where(labels == IGNORE, 0.0, each).sum()


class TeachingTrainer(MultiTaskTrainer):
    """A `MultiTaskTrainer` whose batches have teachers' outputs (`TeachingCollator`).

    Args:
        distil: the recipe's.
    """

    def __init__(self, *args: Any, distil: Distil, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.distil = distil

    @property
    def labels_share(self) -> float:
        """λ of the present step."""
        return labels_share(self.distil, self.state.global_step, self.state.max_steps)

    def task_means(
        self, model: Any, inputs: Mapping[str, Any], counts: StepCounts, *, joint: bool = False
    ) -> tuple[MultiTaskOutput, dict[str, Tensor]]:
        """As the ordinary road's, mixed with the distance from the teacher."""
        outputs, means = super().task_means(model, inputs, counts, joint=joint)
        share = self.labels_share
        assert outputs.logits is not None
        for name in means:
            rows = inputs["tasks"][name]
            if TEACHER in rows:
                kind = self.multi.kinds[name]
                found = distance(
                    kind.task.kind.annotation, outputs.logits[name], rows, self.distil.temperature, kind.class_weights
                )
                means[name] = share * means[name] + (1 - share) * counts.mean(name, found)
        return outputs, means

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the labels' share to a training line."""
        if "loss" in logs:
            logs["labels_share"] = self.labels_share
        super().log(logs, start_time)
