"""Loss weightings: what each task's mean loss is multiplied by in an optimizer step.

A step minimises Σ w_t · s_t · L_t (docs/architecture.md); a weighting gives w_t, and 1 for every task is plain training. It says
what it reads: `losses` (L_t of the whole step), `gradient_norms` (‖∂L_t/∂h‖ on the shared representation h),
`losses_after_update` (L_t on the same rows once more, after the update). The trainer supplies that, equal on every process, once
an optimizer step. Vectors hold one number a task, in the recipe's order; a task that is absent from a step has share 0 and keeps
its slot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..errors import closest, fault, listed
from ..registry import Registry
from ..schema import Strict
from .settings import Written, method_name, method_settings
from .weighting import (
    GRADIENT_NORMS,
    LOSSES,
    LOSSES_AFTER,
    SMALL,
    Learned,
    LossWeighting,
    Observation,
    WeightingContext,
)


class Fixed(LossWeighting):
    """w_t = 1: the task files' `loss.weight` alone."""

    def weights(self, step: int, losses: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Ones."""
        return torch.ones(self.size, dtype=torch.float64)


class Chance(LossWeighting):
    """w_t = 1 / c_t, with c_t the loss of the best constant prediction on the training labels: every task starts near 1.

    Raises:
        FaultyInput: a task that a constant predicts without loss.
    """

    needs_chance = True

    def __init__(self, context: WeightingContext, settings: Any) -> None:
        super().__init__(context, settings)
        for name in context.tasks:
            if not context.chance[name] > 0:
                cure = "leave the task out, or use another weighting"
                raise fault("a constant prediction has no loss: all its labels are the same", key=name, cure=cure)

    def weights(self, step: int, losses: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """The inverse losses."""
        return torch.tensor([1.0 / self.context.chance[name] for name in self.context.tasks], dtype=torch.float64)


class Random(LossWeighting):
    """Random loss weighting (Lin et al. 2022, arXiv:2111.10603): w = M · softmax(z), z ~ N(0, 1), drawn anew in every step.

    Theirs sum to 1; ours have mean 1, so that the learning rate means the same. Keyed by (seed, step): nothing to save.
    """

    def weights(self, step: int, losses: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """The step's draw."""
        draw = np.random.default_rng([self.context.seed, step, 0x524C57]).standard_normal(self.size)
        return self.size * torch.from_numpy(draw).softmax(0)


class UncertaintySettings(Strict):
    """`learning_rate`: of the log variances."""

    learning_rate: float = Field(default=1e-2, gt=0, allow_inf_nan=False)


class Uncertainty(Learned):
    """Homoscedastic uncertainty (Kendall et al. 2018, arXiv:1705.07115): w_t = k_t · exp(−u_t), u_t = log σ_t² learned from 0.

    Minimises Σ s_t · (w_t · L_t + u_t / 2); k_t is ½ for a squared error, 1 for a classification, as theirs. Ours differs in the
    shares s_t, in u's own learning rate, and in that an absent task's u_t rests.
    """

    reads = frozenset({LOSSES})
    Settings = UncertaintySettings
    start = 0.0

    def weights(self, step: int, losses: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """k · exp(−u)."""
        return self._factor() * torch.exp(-self.vector())

    def _factor(self) -> Tensor:
        halves = [0.5 if name in self.context.squared_error else 1.0 for name in self.context.tasks]
        return torch.tensor(halves, dtype=torch.float64)

    def before_update(self, seen: Observation) -> None:
        """∂/∂u_t = s_t · (½ − w_t · L_t)."""
        self.set_gradients(seen.shares * (0.5 - self.weights(seen.step) * seen.losses), seen)


class GradNormSettings(Strict):
    """`alpha`: how strongly tasks that learn slowly are favoured; `learning_rate`: of the weights."""

    alpha: float = Field(default=1.5, ge=0, allow_inf_nan=False)
    learning_rate: float = Field(default=0.025, gt=0, allow_inf_nan=False)


class GradNorm(Learned):
    """GradNorm (Chen et al. 2018, arXiv:1711.02257): weights that draw the norms G_t = w_t · ‖∂L_t/∂h‖ to mean(G) · r_t^α.

    r_t is L_t over the task's first loss, divided by the mean of these ratios. Minimises Σ |G_t − mean(G) · r_t^α| (the target
    held constant) and renormalises to Σ w = M. Theirs takes norms on the last shared weights, ours on the shared representation
    h; ours keeps w_t ≥ 0.01, and compares the tasks of a step only.
    """

    reads = frozenset({LOSSES, GRADIENT_NORMS})
    Settings = GradNormSettings
    start = 1.0
    least = 0.01

    def __init__(self, context: WeightingContext, settings: Any) -> None:
        super().__init__(context, settings)
        self.first: list[float | None] = [None] * self.size

    def weights(self, step: int, losses: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """The learned weights."""
        return self.vector()

    def before_update(self, seen: Observation) -> None:
        """∂/∂w_t = sign(G_t − mean(G) · r_t^α) · ‖∂L_t/∂h‖."""
        assert seen.norms is not None
        there = seen.present
        for i in there.nonzero().flatten().tolist():
            if self.first[i] is None:
                self.first[i] = max(float(seen.losses[i]), SMALL)
        first = torch.tensor([value or 1.0 for value in self.first], dtype=torch.float64)
        ratio = seen.losses / first
        rate = ratio / ratio[there].mean()
        norms = self.vector() * seen.norms
        target = norms[there].mean() * rate.clamp_min(0) ** self.settings.alpha
        self.set_gradients(torch.sign(norms - target) * seen.norms, seen)

    def after_update(self, seen: Observation, losses_after: Tensor | None = None) -> None:
        """Σ w = M."""
        values = self.vector().clamp_min(self.least)
        self.set_values(values * self.size / values.sum())

    def state(self) -> dict[str, Any]:
        """Weights and first losses."""
        return super().state() | {"first": dict(zip(self.context.tasks, self.first, strict=True))}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        super().load_state(state)
        self.first = [state["first"][name] for name in self.context.tasks]


class DwaSettings(Strict):
    """`temperature`: higher is more even; `every`: steps that one mean loss is over."""

    temperature: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    every: int = Field(default=50, ge=1)


class DynamicWeightAverage(LossWeighting):
    """Dynamic weight average (Liu et al. 2019, arXiv:1803.10704): w = M · softmax(r / T), r_t = L_t(k−1) / L_t(k−2).

    L_t(k) is the mean over an interval. Theirs is an epoch, ours `every` steps, because fine-tuning has few epochs; r_t is 1
    until a task has two means, and an interval without the task leaves its ratio as it was.
    """

    reads = frozenset({LOSSES})
    Settings = DwaSettings

    def __init__(self, context: WeightingContext, settings: Any) -> None:
        super().__init__(context, settings)
        self.steps = 0
        self.sums, self.counts = [0.0] * self.size, [0] * self.size
        self.means: list[list[float]] = [[] for _ in context.tasks]

    def weights(self, step: int, losses: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """M · softmax(r / T)."""
        rates = [pair[1] / max(pair[0], SMALL) if len(pair) == 2 else 1.0 for pair in self.means]
        return self.size * (torch.tensor(rates, dtype=torch.float64) / self.settings.temperature).softmax(0)

    def before_update(self, seen: Observation) -> None:
        """Add the losses; at an interval's end form the means."""
        for i, there in enumerate(seen.present.tolist()):
            if there:
                self.sums[i] += float(seen.losses[i])
                self.counts[i] += 1
        self.steps += 1
        if self.steps == self.settings.every:
            for i, count in enumerate(self.counts):
                if count:
                    self.means[i] = [*self.means[i], self.sums[i] / count][-2:]
            self.steps, self.sums, self.counts = 0, [0.0] * self.size, [0] * self.size

    def state(self) -> dict[str, Any]:
        """Sums of the open interval and the last means."""
        return {"steps": self.steps, "sums": self.sums, "counts": self.counts, "means": self.means}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        self.steps, self.sums, self.counts = state["steps"], list(state["sums"]), list(state["counts"])
        self.means = [list(pair) for pair in state["means"]]


class FamoSettings(Strict):
    """`learning_rate` β of the logits, and their `decay` γ."""

    learning_rate: float = Field(default=0.025, gt=0, allow_inf_nan=False)
    decay: float = Field(default=0.001, ge=0, allow_inf_nan=False)


class Famo(LossWeighting):
    """FAMO (Liu et al. 2023, arXiv:2306.03792): the worst relative improvement of a step is made as large as possible.

    z = softmax(ξ), w_t ∝ z_t / L_t; after the update ξ ← ξ − β · (Jᵀ δ + γ ξ) with δ_t = log L_t − log L_t' and J the softmax's
    Jacobian (their Algorithm 1; their code takes Adam for ξ). L_t' is measured as published: on the same rows (and the same
    dropout) in a second forward pass. Theirs sum to 1; ours have mean 1 over the tasks of a step, and an absent task's ξ_t rests.
    """

    reads = frozenset({LOSSES, LOSSES_AFTER})
    losses_first = True
    Settings = FamoSettings

    def __init__(self, context: WeightingContext, settings: Any) -> None:
        super().__init__(context, settings)
        self.logits = torch.zeros(self.size, dtype=torch.float64)

    def _softmax(self, present: Tensor) -> Tensor:
        return self.logits.masked_fill(~present, float("-inf")).softmax(0)

    def weights(self, step: int, losses: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """z / L, with mean 1 over the tasks of the step; 0 for the others."""
        assert losses is not None
        assert present is not None
        raw = torch.where(present, self._softmax(present) / losses.clamp_min(SMALL), 0.0)
        return raw * present.sum() / raw.sum()

    def after_update(self, seen: Observation, losses_after: Tensor | None = None) -> None:
        """One gradient step on ξ."""
        assert losses_after is not None
        there = seen.present
        change = torch.where(there, seen.losses.clamp_min(SMALL).log() - losses_after.clamp_min(SMALL).log(), 0.0)
        z = self._softmax(there)
        gradient = z * (change - (z * change).sum()) + self.settings.decay * self.logits
        self.logits = torch.where(there, self.logits - self.settings.learning_rate * gradient, self.logits)

    def state(self) -> dict[str, Any]:
        """ξ by task."""
        return {"logits": dict(zip(self.context.tasks, self.logits.tolist(), strict=True))}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take it up."""
        self.logits = torch.tensor([state["logits"][name] for name in self.context.tasks], dtype=torch.float64)


_BUILTIN = {
    "fixed": Fixed,
    "chance": Chance,
    "random": Random,
    "uncertainty": Uncertainty,
    "gradnorm": GradNorm,
    "dwa": DynamicWeightAverage,
    "famo": Famo,
}
WEIGHTINGS = Registry(
    "loss weighting", "mtl_nlp.loss_weightings", {name: f"{__name__}:{cls.__name__}" for name, cls in _BUILTIN.items()}
)


def weighting_class(name: str) -> type[LossWeighting]:
    """The class of a name.

    Raises:
        FaultyInput: unknown; the message lists the known ones.
    """
    if name not in WEIGHTINGS:
        known = WEIGHTINGS.names()
        raise fault(
            f'found "{name}"', key="balancing.weighting", allowed=listed(known), cure=closest(name, known).strip()
        )
    cls: type[LossWeighting] = WEIGHTINGS.get(name)
    return cls


def make_weighting(written: Written, context: WeightingContext) -> LossWeighting:
    """A weighting from `NAME` or `{name: NAME, settings}`.

    Raises:
        FaultyInput: an unknown name or setting.
    """
    key = "balancing.weighting"
    cls = weighting_class(method_name(written, key))
    return cls(context, method_settings(cls.Settings, written, key))
