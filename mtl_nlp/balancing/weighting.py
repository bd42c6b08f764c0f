"""What a loss weighting is: `LossWeighting`, what it may know of the run, and what it is shown of a step.

The methods themselves are in `loss_weighting`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..schema import Strict
from .settings import NoSettings

LOSSES, GRADIENT_NORMS, LOSSES_AFTER = "losses", "gradient_norms", "losses_after_update"
SMALL = 1e-8


@dataclass(frozen=True)
class WeightingContext:
    """What a weighting may know of the run.

    Attributes:
        tasks: names, in order.
        seed: the run's.
        squared_error: tasks whose loss is a squared error (a Gaussian likelihood; the others are categorical).
        chance: task → the loss of the best constant prediction; only for weightings with `needs_chance`.
    """

    tasks: Sequence[str]
    seed: int = 0
    squared_error: frozenset[str] = frozenset()
    chance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Observation:
    """What one optimizer step showed.

    Attributes:
        step: its number, from 0.
        losses: [M], L_t; anything where the share is 0.
        shares: [M], s_t; 0 where the step held no labelled row of the task.
        norms: [M], ‖∂L_t/∂h‖, for weightings that read them.
        scale: what gradients are multiplied by until the optimizer undoes it (the loss scale of fp16).
    """

    step: int
    losses: Tensor
    shares: Tensor
    norms: Tensor | None = None
    scale: float = 1.0

    @property
    def present(self) -> Tensor:
        """[M] bool: the tasks of the step."""
        return self.shares > 0


class LossWeighting(ABC):
    """One rule for w_t.

    Attributes:
        reads: of `losses`, `gradient_norms`, `losses_after_update`.
        losses_first: `weights` needs the same step's losses.
        needs_chance: it reads `context.chance`.
        learned: it has parameters that the run's optimizer updates.
    """

    reads: ClassVar[frozenset[str]] = frozenset()
    losses_first: ClassVar[bool] = False
    needs_chance: ClassVar[bool] = False
    learned: ClassVar[bool] = False
    Settings: ClassVar[type[Strict]] = NoSettings

    def __init__(self, context: WeightingContext, settings: Any) -> None:
        self.context, self.settings = context, settings
        self.size = len(context.tasks)

    @abstractmethod
    def weights(self, step: int, losses: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """[M] float64 on the CPU: the weights of the step.

        Args:
            losses, present: [M], the step's own, given where `losses_first`.
        """

    def parameters(self) -> list[nn.Parameter]:
        """Learned parameters, one a task, so that an absent one takes no optimizer step."""
        return []

    @property
    def learning_rate(self) -> float:
        """Of the parameters' group."""
        return float(getattr(self.settings, "learning_rate", 0.0))

    def before_update(self, seen: Observation) -> None:
        """After the backward passes of a step, before the optimizer: note what is needed, set the parameters' gradients."""
        return None

    def after_update(self, seen: Observation, losses_after: Tensor | None = None) -> None:
        """After the optimizer's step."""
        return None

    def state(self) -> dict[str, Any]:
        """Everything that a resumed run needs, as JSON."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        return None


class Learned(LossWeighting):
    """A weighting with one parameter a task in the optimizer's last group."""

    learned = True
    start: ClassVar[float]

    def __init__(self, context: WeightingContext, settings: Any) -> None:
        super().__init__(context, settings)
        self.values = [nn.Parameter(torch.full((1,), self.start)) for _ in context.tasks]

    def parameters(self) -> list[nn.Parameter]:
        """One [1] a task."""
        return self.values

    def vector(self) -> Tensor:
        """[M] float64 on the CPU."""
        return torch.cat([value.detach() for value in self.values]).double().cpu()

    def set_gradients(self, gradient: Tensor, seen: Observation) -> None:
        """Give each present task's parameter its gradient, the others none."""
        for value, one, there in zip(self.values, gradient.tolist(), seen.present.tolist(), strict=True):
            value.grad = torch.full_like(value, one * seen.scale) if there else None

    def set_values(self, values: Tensor) -> None:
        """Overwrite the parameters."""
        with torch.no_grad():
            for value, new in zip(self.values, values.tolist(), strict=True):
                value.fill_(new)

    def state(self) -> dict[str, Any]:
        """The values by task."""
        return {"values": dict(zip(self.context.tasks, self.vector().tolist(), strict=True))}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up the values."""
        self.set_values(torch.tensor([state["values"][name] for name in self.context.tasks], dtype=torch.float64))
