"""Which rows of a pass are for which task, as the hooks inside the encoder see it.

Rows stand task by task. On the padded path a module sees [R, T, …] and the tasks' parts are ranges of rows; on the padding-free
path it sees [1, N, …], all real tokens in the order of their rows, and the parts are ranges of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Routing:
    """One pass.

    Attributes:
        owner: the `Conditioning` that it belongs to; an encoder may carry hooks of two.
        tasks: names, in the order of their rows.
        sizes: how many rows (tokens, where `dim` is 1) each has.
        dim: along which the parts lie: 0 padded, 1 without padding.
        places: (row, column) of each row's task token in what a module sees; only for `token`.
    """

    owner: Any
    tasks: tuple[str, ...]
    sizes: tuple[int, ...]
    dim: int
    places: tuple[Tensor, Tensor] | None = None

    def by_task(self, x: Tensor, act: Callable[[str, Tensor], Tensor]) -> Tensor:
        """`act` on each task's part of `x`, put together again."""
        if len(self.tasks) == 1:
            return act(self.tasks[0], x)
        parts = x.split(self.sizes, self.dim)
        return torch.cat([act(task, part) for task, part in zip(self.tasks, parts, strict=True)], self.dim)

    def spread(self, values: list[Tensor]) -> Tensor:
        """One vector [E] a task → one a row, [R, 1, E], or a token, [1, N, E]."""
        if len(values) == 1:
            return values[0][None, None]
        counts = torch.tensor(self.sizes, device=values[0].device)
        each = torch.stack(values).repeat_interleave(counts, 0, output_size=sum(self.sizes))
        return each[:, None] if self.dim == 0 else each[None]


_ROUTING: ContextVar[Routing | None] = ContextVar("routing", default=None)


@contextmanager
def routed(routing: Routing) -> Iterator[None]:
    """Hooks inside this context condition their inputs; outside they do nothing."""
    token = _ROUTING.set(routing)
    try:
        yield
    finally:
        _ROUTING.reset(token)


def routing_of(owner: Any) -> Routing | None:
    """The pass that is under way, if it is `owner`'s."""
    routing = _ROUTING.get()
    return routing if routing is not None and routing.owner is owner else None
