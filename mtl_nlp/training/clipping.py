"""The norm of a step's gradient on a CPU, and its scaling down to `training.max_grad_norm`.

As `torch.nn.utils.clip_grad_norm_`, but of the word embeddings' gradient only the rows are read that the step has touched (half of
MiniLM's parameters are embeddings), squares are summed by BLAS, which is faster and closer (of 27 million values torch's norm
was off by 2·10⁻⁴ of itself, this one by 3·10⁻⁵), and nothing is multiplied by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from .embedding_gradient import RowGradient


def clip_gradient(parameters: Iterable[nn.Parameter], most: float, rows: RowGradient | None) -> Tensor:
    """Scale the gradients in place so that their norm is `most` where it was larger.

    Args:
        rows: the word embeddings' gradient, where it is kept by rows.

    Returns:
        The norm as it was, [].
    """
    gradients = [gradient for p in parameters if (gradient := p.grad) is not None]
    if not gradients:
        return torch.zeros(())
    whole = [gradient for gradient in gradients if rows is None or gradient is not rows.buffer]
    touched = rows.touched() if rows is not None and len(whole) < len(gradients) else None
    read = whole if rows is None or touched is None else [*whole, rows.buffer.index_select(0, touched)]
    norm = _norm(read)
    factor = most / (norm + 1e-6)
    if not factor >= 1:  # also where it is no number, which is to be seen
        torch._foreach_mul_(read, factor)
        if rows is not None and touched is not None:
            rows.buffer.index_copy_(0, touched, read[-1])
    return norm


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    return torch.stack([_square(gradient) for gradient in gradients]).sum().sqrt()


def _square(gradient: Tensor) -> Tensor:
    if gradient.dtype != torch.float32:
        return torch.linalg.vector_norm(gradient, dtype=torch.float32).square()
    flat = gradient.reshape(-1)
    return torch.dot(flat, flat)
