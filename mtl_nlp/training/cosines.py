"""Gradient cosines between tasks, by layer group, noted while a run goes on.

Every `every` steps each task's gradient on the encoder is taken on the step's own batch, in passes beside the training: the run's
weights, random numbers and results are what they would be without. The cosine of all layers goes to the log (`cosine_A_B`), those
of every layer group to `gradient_cosines.json` in the run's folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..balancing import TaskGradients
from ..data.parts import split_by_rows
from ..hub.checkpoint import write_json
from ..model.encoder import layer_groups
from .gradient_steps import reduced

if TYPE_CHECKING:
    from .counts import StepCounts
    from .trainer import MultiTaskTrainer

COSINES = "gradient_cosines.json"


class EncoderGradients:
    """Each task's gradient on the encoder, of the plain mean loss L_t.

    Attributes:
        groups: layer group → numbers of its parameters.
    """

    def __init__(self, trainer: MultiTaskTrainer) -> None:
        self.trainer = trainer
        named = [(name, p) for name, p in trainer.multi.encoder.named_parameters() if p.requires_grad]
        places = {name: number for number, (name, _) in enumerate(named)}
        groups = layer_groups(trainer.multi.encoder)
        found = {group: [places[name] for name in names if name in places] for group, names in groups.items()}
        self.groups = {group: numbers for group, numbers in found.items() if numbers}
        self.store = TaskGradients([parameter for _, parameter in named], trainer.task_names)

    def add(self, inputs: dict[str, Any], counts: StepCounts) -> dict[str, float]:
        """Add a micro-batch's part; its part of each task's mean loss."""
        trainer, losses = self.trainer, {}
        for part in split_by_rows(inputs):
            batch = trainer._prepare_inputs(part)
            with trainer.compute_loss_context_manager():
                means = trainer.task_means(trainer.multi, batch, counts)[1]
            for number, (name, mean) in enumerate(means.items()):
                keep = number < len(means) - 1
                grads = torch.autograd.grad(mean, self.store.parameters, retain_graph=keep, allow_unused=True)
                self._add(name, grads)
                losses[name] = float(mean.detach())
        return losses

    def _add(self, name: str, grads: Sequence[Tensor | None]) -> None:
        before = self.store.grads.get(name)
        if before is not None:
            pairs = zip(before, grads, strict=True)
            grads = [old if new is None else new if old is None else old + new for old, new in pairs]
        self.store.grads[name] = list(grads)

    def gramians(self, tasks: Sequence[str]) -> Tensor:
        """[groups, m, m], sums over all processes."""
        if self.trainer.args.world_size > 1:
            for name in tasks:
                found = self.store.grads.get(name) or [None] * len(self.store.parameters)
                self.store.grads[name] = reduced(found, self.store.parameters)
        return self.store.gramian(tasks, list(self.groups.values()))


def cosines(gramian: Tensor) -> Tensor:
    """[…, m, m] inner products → cosines; 0 where a gradient is 0."""
    length = gramian.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    scale = length[..., :, None] * length[..., None, :]
    return torch.where(scale > 0, gramian / scale.clamp_min(1e-300), 0.0).clamp(-1, 1)


class GradientCosines:
    """Notes cosines every `every` steps, beginning with the first.

    Raises:
        UserError: (by the rules of combination, before training) a frozen encoder, one task, sharded parameters.
    """

    def __init__(self, trainer: MultiTaskTrainer, every: int) -> None:
        self.trainer, self.every = trainer, every
        self.gradients = EncoderGradients(trainer)
        self.notes: list[dict[str, Any]] | None = None

    def micro_batch(self, inputs: dict[str, Any], counts: StepCounts) -> None:
        """Add a micro-batch of a step that is due; write after its last one."""
        trainer = self.trainer
        step = trainer.state.global_step
        if step % self.every:
            return
        before = trainer.random_state()
        trainer.multi.train()
        self.gradients.add(inputs, counts)
        trainer.set_random_state(before)
        if trainer.accelerator.sync_gradients:
            tasks = [name for name in trainer.task_names if counts.rows[name]]
            self._write(step, tasks, self.gradients.gramians(tasks))
            self.gradients.store.clear()

    def _write(self, step: int, tasks: Sequence[str], gramians: Tensor) -> None:
        if len(tasks) < 2:
            return
        whole = cosines(gramians.sum(0)).tolist()
        pairs = [(i, j) for i in range(len(tasks)) for j in range(i + 1, len(tasks))]
        self.trainer.log({f"cosine_{tasks[i]}_{tasks[j]}": whole[i][j] for i, j in pairs})
        if not self.trainer.args.should_save:
            return
        groups = dict(zip(self.gradients.groups, cosines(gramians).tolist(), strict=True))
        path = Path(str(self.trainer.args.output_dir)) / COSINES
        if self.notes is None:
            self.notes = [note for note in read_notes(path) if note["step"] < step]
        self.notes.append({"step": step, "tasks": list(tasks), "all": whole, "groups": groups})
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"tasks": self.trainer.task_names, "groups": list(self.gradients.groups), "notes": self.notes})


def read_notes(path: Path) -> list[dict[str, Any]]:
    """What a run noted before it was interrupted; nothing if there is no such file or it is not whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    notes: list[dict[str, Any]] = found.get("notes", [])
    return notes
