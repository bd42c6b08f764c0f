"""Which tasks help each other: affinity by the lookahead loss change, on a short run.

At some steps of a short training each task's gradient on the encoder is followed alone for one step, and every task's loss is
measured before and after on other texts: Z_{i→j} = 1 − L_j(θ − Δ_i) / L_j(θ) (Fifty et al. 2021, arXiv:2109.04617). Positive
means that learning i helps j. Where we differ: gradient and loss are of different texts, because tasks here seldom share theirs;
dropout is off; a gradient is scaled as the run's Adam would (g / √v), because the bare one is hardly a step for it; and all
lookahead steps have the length of the run's own last step, so that a task is not taken for influential because its gradient is
long.

To first order Z_{i→j} is a sum over layers, ⟨Δ_i, ∂L_j⟩ / L_j layer by layer: that is what says from which layer on to split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from ..balancing.rules import Setup, check_setup
from ..balancing.task_gradients import inner
from ..data.mixture import Draw
from ..data.strategies import find_strategy
from ..errors import fault
from ..recipe import OF_A_STRATEGY, Balancing, Recipe, Stopping
from ..training.cosines import EncoderGradients, cosines
from ..training.finetune import build_trainer
from ..training.prepare import Prepared, prepare
from ..training.trainer import MultiTaskTrainer
from .advice import Advice, advise

STEPS, POINTS, TEXTS = 200, 12, 32


@dataclass(frozen=True)
class Point:
    """What was measured after one step.

    Attributes:
        losses: task → loss on the texts that are measured.
        affinity: [M][M], Z of row → column.
        by_layer: layer group → [M][M], the first-order part of Z that the group has.
        cosines: layer group → [M][M], and `all`.
    """

    step: int
    losses: dict[str, float]
    affinity: list[list[float]]
    by_layer: dict[str, list[list[float]]]
    cosines: dict[str, list[list[float]]]


@dataclass(frozen=True)
class Interference:
    """A measurement and what it proposes.

    Attributes:
        groups: layer groups, from the bottom.
        affinity, error: [M][M] mean of Z (row helps column) over the points, and its standard error.
        by_layer, cosines: layer group → [M][M], means over the points.
    """

    tasks: list[str]
    groups: list[str]
    steps: int
    seconds: float
    affinity: list[list[float]]
    error: list[list[float]]
    by_layer: dict[str, list[list[float]]]
    cosines: dict[str, list[list[float]]]
    advice: Advice
    points: list[Point]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what was not measured (a task without a labelled text at that point) is None."""
        found: dict[str, Any] = _finite(asdict(self))
        return found


def _finite(data: Any) -> Any:
    """The same with None for numbers that JSON has not."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def measure_interference(
    recipe: Recipe,
    *,
    data_root: Path | None = None,
    memory: Mapping[str, Any] | None = None,
    steps: int = STEPS,
    points: int = POINTS,
    texts: int = TEXTS,
) -> Interference:
    """Train for `steps` and measure at `points` of them, evenly spread.

    Args:
        texts: of each corpus, for the gradients and again for the losses.

    Raises:
        UserError: faults of the recipe or its data; fewer than two tasks; a frozen encoder.
    """
    start = time.perf_counter()
    frozen = recipe.encoder_spec.freeze == "all"
    check_setup(Setup(tasks=len(recipe.definitions), frozen=frozen, cosines=True), recipe.place_of)
    with TemporaryDirectory(prefix="mtl-nlp-interference-") as folder:
        prepared = prepare(short_run(recipe, folder, steps), data_root=data_root, memory=memory, splits=["train"])
        probe = Probe(prepared, points=points, steps=steps, texts=texts)
        trainer = build_trainer(prepared, callbacks=[probe])
        if trainer.args.world_size > 1:
            raise fault("several processes", key="interference", cure="run it without torchrun")
        probe.trainer = trainer
        trainer.train()
    return gathered(trainer.task_names, probe.points, steps, time.perf_counter() - start)


def short_run(recipe: Recipe, folder: str, steps: int) -> Recipe:
    """The recipe with nothing of a run but its steps, in float32 (a lookahead's change of loss is smaller than bf16 can tell)."""
    silent = {
        "max_steps": steps,
        "eval_delay": 1e9,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "load_best_model_at_end": False,
        "report_to": "none",
        "bf16": False,
        "fp16": False,
    }
    dropped = ("eval_steps", "save_steps", "metric_for_best_model", "eval_on_start")
    training = {key: value for key, value in recipe.training.items() if key not in dropped} | silent
    mixture = recipe.mixture
    if "scores" in find_strategy(mixture.strategy).reads:  # there are no evaluations to learn from
        fields = type(mixture).model_fields
        mixture = mixture.model_copy(update={key: fields[key].default for key in OF_A_STRATEGY})
    changes = {"training": training, "mixture": mixture, "stopping": Stopping(), "balancing": Balancing()}
    changes["output_dir"] = folder
    return recipe.model_copy(update=changes)


class Probe(TrainerCallback):
    """Measures after some steps of a run.

    Args:
        points: how many measurements.
        texts: of each corpus, for gradients and for losses.
    """

    def __init__(self, prepared: Prepared, *, points: int, steps: int, texts: int) -> None:
        self.prepared, self.texts = prepared, texts
        places = min(points, steps)
        self.due = {round((i + 1) * steps / places) for i in range(places)}
        self.points: list[Point] = []
        self.trainer: MultiTaskTrainer | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure, and leave everything as it was."""
        if state.global_step not in self.due or self.trainer is None:
            return
        before = torch.get_rng_state()
        self.points.append(measure(self.trainer, self._batches(state.global_step), state.global_step))
        torch.set_rng_state(before)

    def _batches(self, step: int) -> list[list[dict[str, Any]]]:
        """Two disjoint draws: a batch a corpus for gradients, and one for losses."""
        trainer = self.trainer
        assert trainer is not None
        found: list[list[dict[str, Any]]] = [[], []]
        for number, (corpus, split) in enumerate(self.prepared.encoded["train"].items()):
            order = np.random.default_rng([self.prepared.recipe.seed, step, number]).permutation(len(split))
            size = min(self.texts, len(split) // 2)
            if size == 0:
                raise fault("one training text", key=corpus, allowed="two or more, to measure on another")
            for half in range(2):
                chosen = order[half * size : (half + 1) * size].tolist()
                rows = trainer.train_dataset.__getitems__([Draw(corpus, i, 0) for i in chosen])  # type: ignore[union-attr]
                found[half].append(trainer.data_collator(rows))
        return found


def measure(trainer: MultiTaskTrainer, batches: Sequence[Sequence[dict[str, Any]]], step: int) -> Point:
    """One point: gradients on the first batches, losses before and after each task's lookahead on the second."""
    model, tasks = trainer.multi, trainer.task_names
    model.eval()
    first, second = EncoderGradients(trainer), EncoderGradients(trainer)
    for batch in batches[0]:
        first.add(batch, trainer._count([batch]))
    losses: dict[str, float] = {}
    for batch in batches[1]:
        losses |= second.add(batch, trainer._count([batch]))
    there = [name for name in tasks if name in first.store.grads and name in second.store.grads]
    gramians = first.gramians(there)
    moves = {name: _lookahead(trainer, first, name) for name in there}
    size = len(tasks)
    affinity, parts = np.full((size, size), np.nan), np.full((len(first.groups), size, size), np.nan)
    for name in there:
        after = _losses_after(trainer, first.store.parameters, moves[name], batches[1])
        for other in there:
            i, j = tasks.index(name), tasks.index(other)
            affinity[i, j] = 1 - after[other] / losses[other]
            for number, members in enumerate(first.groups.values()):
                parts[number, i, j] = _inner(moves[name], second.store.grads[other], members) / losses[other]
    angles = {"all": cosines(gramians.sum(0)), **dict(zip(first.groups, cosines(gramians), strict=True))}
    model.train()
    model.zero_grad()
    return Point(
        step,
        losses,
        affinity.tolist(),
        dict(zip(first.groups, parts.tolist(), strict=True)),
        {group: _spread(table, there, tasks) for group, table in angles.items()},
    )


def _spread(table: Tensor, there: Sequence[str], tasks: Sequence[str]) -> list[list[float]]:
    """[m, m] of the tasks that were there → [M][M], NaN elsewhere."""
    found = np.full((len(tasks), len(tasks)), np.nan)
    places = [tasks.index(name) for name in there]
    found[np.ix_(places, places)] = table.numpy()
    return found.tolist()


def _lookahead(trainer: MultiTaskTrainer, gradients: EncoderGradients, name: str) -> list[Tensor]:
    """Δ: the task's gradient over √v of Adam, at the length of the run's last step at the full learning rate."""
    states = trainer.optimizer.state  # type: ignore[union-attr]
    moves, last = [], 0.0
    for parameter, grad in zip(gradients.store.parameters, gradients.store.grads[name], strict=True):
        state = states.get(parameter, {})
        move = torch.zeros_like(parameter) if grad is None else grad.to_dense().clone()
        if "exp_avg_sq" in state:
            beta1, beta2 = trainer.optimizer.param_groups[0]["betas"]  # type: ignore[union-attr]
            steps = float(state["step"])
            scale = (state["exp_avg_sq"] / (1 - beta2**steps)).sqrt() + trainer.args.adam_epsilon
            # At most 1 a coordinate: embeddings that were never read have no v yet and would take up the whole step.
            move = move / torch.maximum(scale, move.abs())
            last += float((state["exp_avg"] / (1 - beta1**steps) / scale).square().sum())
        else:
            last += float(move.square().sum())
        moves.append(move)
    length = sum(float(move.square().sum()) for move in moves) ** 0.5
    factor = trainer.args.learning_rate * last**0.5 / length if length else 0.0
    return [move * factor for move in moves]


def _losses_after(
    trainer: MultiTaskTrainer, parameters: Sequence[Tensor], moves: Sequence[Tensor], batches: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Every task's loss at θ − Δ; θ is put back bit by bit."""
    found: dict[str, float] = {}
    with torch.no_grad():
        kept = [parameter.clone() for parameter in parameters]
        for parameter, move in zip(parameters, moves, strict=True):
            parameter.sub_(move)
        for batch in batches:
            counts = trainer._count([batch])
            means = trainer.task_means(trainer.multi, trainer._prepare_inputs(batch), counts)[1]
            found |= {name: float(mean) for name, mean in means.items()}
        for parameter, old in zip(parameters, kept, strict=True):
            parameter.copy_(old)
    return found


def _inner(moves: Sequence[Tensor], grads: Sequence[Tensor | None], members: Sequence[int]) -> float:
    total = 0.0
    for number in members:
        grad = grads[number]
        if grad is not None:
            total += float(inner(moves[number], grad))
    return total


def gathered(tasks: Sequence[str], points: Sequence[Point], steps: int, seconds: float) -> Interference:
    """Means over the points, and the advice that follows."""
    if not points:
        raise fault("nothing was measured", key="interference", cure="more steps")
    groups = list(points[0].by_layer)
    every = np.array([point.affinity for point in points])
    counts = np.maximum((~np.isnan(every)).sum(0), 1)
    mean = _mean(every)
    spread = np.sqrt(np.nansum((every - mean) ** 2, axis=0) / np.maximum(counts - 1, 1))
    error = np.where(counts > 1, spread / np.sqrt(counts), np.inf)
    layers = {group: _mean(np.array([point.by_layer[group] for point in points])) for group in groups}
    angles = {
        group: _mean(np.array([point.cosines[group] for point in points])).tolist() for group in points[0].cosines
    }
    return Interference(
        tasks=list(tasks),
        groups=groups,
        steps=steps,
        seconds=round(seconds, 1),
        affinity=mean.tolist(),
        error=error.tolist(),
        by_layer={group: table.tolist() for group, table in layers.items()},
        cosines=angles,
        advice=advise(tasks, mean, error, layers),
        points=[replace(point, losses={k: round(v, 6) for k, v in point.losses.items()}) for point in points],
    )


def _mean(tables: Any) -> Any:
    """The mean over points, 0 where a pair was never measured."""
    counts = (~np.isnan(tables)).sum(0)
    return np.nansum(tables, axis=0) / np.maximum(counts, 1)
