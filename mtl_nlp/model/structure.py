"""The parameters of a model that stays as it is while it trains, and those of them that a step may have given a gradient.

With three hundred heads a model has 1 200 parameters more, of which a step touches a tenth. To ask each whether it has a gradient
takes a millisecond, because hardly one of them is in the processor's cache; so it is the heads that are asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


class Structure:
    """All parameters in order, and the touched ones.

    A head's own parameters have a gradient only where the model has run the head since gradients were last cleared. What is
    outside of the heads, or shared with it (a tied decoder), counts as touched in every step.

    Args:
        model: a `MultiTaskModel`.
        narrow: whether to tell touched parameters from others; not where gradients come from other processes.
    """

    def __init__(self, model: Any, *, narrow: bool) -> None:
        self.parameters: list[nn.Parameter] = list(model.parameters())
        self.ids = {id(parameter) for parameter in self.parameters}
        self.narrow = narrow
        places = {id(parameter): place for place, parameter in enumerate(self.parameters)}
        rest = [child for child in model.children() if child is not model.heads]
        shared = {places[id(p)] for child in rest for p in child.parameters()}
        self._own = {name: {places[id(p)] for p in model.heads[name].parameters()} - shared for name in model.kinds}
        self._shared = set(range(len(self.parameters))).difference(*self._own.values())
        self._run: set[str] | None = None  # tasks; None before gradients are cleared for the first time
        self._touched: list[nn.Parameter] | None = None  # asked for several times a step

    def note(self, tasks: Iterable[str]) -> None:
        """The heads of these tasks have run, in a pass that keeps what a backward pass needs."""
        if self._run is not None:
            self._run.update(tasks)
            self._touched = None

    def touched(self) -> list[nn.Parameter]:
        """Every parameter that has a gradient, and perhaps others, in the model's order."""
        if self._run is None:
            return self.parameters
        if self._touched is None:
            found = self._shared.union(*(self._own[name] for name in self._run))
            self._touched = [self.parameters[place] for place in sorted(found)]
        return self._touched

    def clear_gradients(self) -> None:
        """No parameter has a gradient any more."""
        for parameter in self.touched():
            parameter.grad = None
        self._run, self._touched = set() if self.narrow else None, None
