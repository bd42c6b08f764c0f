"""Each task's gradient, on the shared parameters or on the shared representation, and the Gramian of them.

`TaskGradients` keeps one gradient a task over the micro-batches of a step: around each task's backward pass it lends the
parameters the task's own `.grad`, so that autograd adds in place and nothing is copied. `representation_gramian` compares
gradients on rows of the shared representation. Neither knows a model or a method.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class TaskGradients:
    """Gradients of several tasks on shared parameters.

    Args:
        parameters: the shared ones that take a gradient.
        tasks: names, in order.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], tasks: Sequence[str]) -> None:
        self.parameters, self.tasks = list(parameters), list(tasks)
        self.grads: dict[str, list[Tensor | None]] = {}
        self.buffers: dict[int, tuple[Tensor, list[Tensor]]] = {}

    @contextmanager
    def collecting(self, task: str) -> Iterator[None]:
        """Inside, backward passes add to the task's gradient instead of the parameters' own."""
        own = [parameter.grad for parameter in self.parameters]
        stored = self.grads.get(task) or [None] * len(self.parameters)
        for parameter, grad in zip(self.parameters, stored, strict=True):
            parameter.grad = grad
        try:
            yield
            self.grads[task] = [parameter.grad for parameter in self.parameters]
        finally:
            for parameter, grad in zip(self.parameters, own, strict=True):
                parameter.grad = grad

    @property
    def present(self) -> list[str]:
        """Tasks with a gradient, in order."""
        return [task for task in self.tasks if task in self.grads]

    def gramian(self, tasks: Sequence[str], groups: Sequence[Sequence[int]] | None = None) -> Tensor:
        """Inner products of the tasks' gradients.

        Args:
            groups: parameter numbers of each group; all parameters in one if None.

        Returns:
            [m, m] float64 on the CPU, or [groups, m, m].
        """
        parts = [list(range(len(self.parameters)))] if groups is None else groups
        found = torch.stack([self._gramian(tasks, part) for part in parts])
        return found[0] if groups is None else found

    def _gramian(self, tasks: Sequence[str], numbers: Sequence[int]) -> Tensor:
        size = len(tasks)
        result = torch.zeros(size, size, dtype=torch.float64)
        for i in range(size):
            for j in range(i, size):
                pairs = [(self.grads[tasks[i]][number], self.grads[tasks[j]][number]) for number in numbers]
                # Brought to the CPU in one go.
                dots = [inner(one, other) for one, other in pairs if one is not None and other is not None]
                result[i, j] = result[j, i] = float(torch.stack(dots).double().sum()) if dots else 0.0
        return result

    def combine(self, tasks: Sequence[str], weights: Tensor) -> None:
        """Σ α_t g_t becomes the parameters' `.grad`; the task gradients are given up."""
        scales = weights.tolist()
        for number, parameter in enumerate(self.parameters):
            found = [(self.grads[task][number], scale) for task, scale in zip(tasks, scales, strict=True)]
            there = [(grad, scale) for grad, scale in found if grad is not None]
            if any(grad.is_sparse for grad, _ in there):
                parameter.grad = self._dense(number, there)
                continue
            total: Tensor | None = None
            for grad, scale in there:
                total = grad.mul_(scale) if total is None else total.add_(grad, alpha=scale)
            parameter.grad = total
        self.clear()

    def _dense(self, number: int, found: Sequence[tuple[Tensor, float]]) -> Tensor:
        """A sum of sparse gradients as a dense one, in a buffer of which only the rows in use are written."""
        if number not in self.buffers:
            self.buffers[number] = (torch.zeros_like(self.parameters[number]), [])
        buffer, used = self.buffers[number]
        for rows in used:
            buffer.index_fill_(0, rows, 0.0)
        used.clear()
        for grad, scale in found:
            rows = grad._indices()[0]
            buffer.index_add_(0, rows, grad._values(), alpha=scale)
            used.append(rows)
        return buffer

    def clear(self) -> None:
        """Forget the step."""
        self.grads = {}


def inner(one: Tensor, other: Tensor) -> Tensor:
    """Inner product of two gradients of a parameter; sparse ones (rows of an embedding table) meet on their common rows."""
    if not one.is_sparse and not other.is_sparse:
        return torch.dot(one.flatten().float(), other.flatten().float())
    if not one.is_sparse or not other.is_sparse:
        return torch.dot(one.to_dense().flatten().float(), other.to_dense().flatten().float())
    first, second = one.coalesce(), other.coalesce()
    place = torch.full((one.shape[0],), -1, dtype=torch.long, device=one.device)
    rows = first.indices()[0]
    place[rows] = torch.arange(len(rows), device=one.device)
    meet = place[second.indices()[0]]
    there = meet >= 0
    left, right = first.values()[meet[there]], second.values()[there]
    return torch.dot(left.flatten().float(), right.flatten().float())


def summed(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each tensor's sum over all processes, in one message."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def representation_gramian(gradients: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> Tensor:
    """Inner products of gradients on the shared representation [B, T, H] of a batch.

    Two tasks meet only on rows that both have. By MGDA-UB's argument (Sener and Koltun 2018, arXiv:1810.04650, section 3.3) the
    norm of Σ α_t ∂L_t/∂h bounds that of Σ α_t ∂L_t/∂θ up to the constant ‖∂h/∂θ‖; it is a bound, not the same.

    Args:
        gradients: task → [b, T_t, H], on its own rows, cut to its own width.
        rows: task → [b], which rows of the batch these are.

    Returns:
        [m, m] float64 on the CPU, in the order of `gradients`.
    """
    tasks = list(gradients)
    result = torch.zeros(len(tasks), len(tasks), dtype=torch.float64)
    for i, one in enumerate(tasks):
        for j in range(i, len(tasks)):
            other = tasks[j]
            first, second = gradients[one], gradients[other]
            if i != j:
                here, there = (rows[one][:, None] == rows[other][None, :]).nonzero(as_tuple=True)
                width = min(first.shape[1], second.shape[1])
                first, second = first[here, :width], second[there, :width]
            if first.numel():
                result[i, j] = result[j, i] = float(torch.dot(first.flatten().float(), second.flatten().float()))
    return result
