"""The gradient of the word embeddings, kept in one buffer of which only the touched rows are written.

A batch reads a few hundred of some thirty thousand embeddings, yet torch fills a fresh gradient of the whole table with zeros
in every step: for MiniLM 47 MB, more time than attention takes. Here the rows that the last step touched are cleared and those of
this step added. The optimizer sees the same dense gradient as always, so the update is the same.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn


class RowGradient:
    """Keeps an embedding's gradient in a buffer of its own; for one process, and gradients that arrive by `backward`.

    Args:
        embedding: its table must not be tied to another layer's weights.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        self.buffer = torch.zeros_like(embedding.weight)
        self.rows: list[Tensor] = []
        self.read: list[Tensor] = []
        embedding.register_forward_pre_hook(self._choose)
        embedding.register_forward_hook(self._note)
        own = weakref.ref(self)

        # Python's collector does not see what a parameter's hooks hold: a cycle through them would never go.
        def keep(weight: Tensor) -> None:
            rows = own()
            if rows is not None:
                rows._keep(weight)

        embedding.weight.register_post_accumulate_grad_hook(keep)

    def _choose(self, module: Any, inputs: tuple[Tensor, ...]) -> None:
        """Measurements in evaluation mode take their gradients with `autograd.grad`, and dense."""
        module.sparse = module.training

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if torch.is_grad_enabled() and module.training:
            self.read.append(inputs[0].reshape(-1))

    def _keep(self, weight: Tensor) -> None:
        gradient: Any = weight.grad
        if gradient.is_sparse:  # the first of a step; later micro-batches are added to the buffer by autograd
            for rows in self.rows:
                self.buffer.index_fill_(0, rows, 0.0)
            self.rows = []
            self.buffer.index_add_(0, gradient._indices()[0], gradient._values())
            weight.grad = self.buffer
        self.rows += self.read
        self.read = []

    def touched(self) -> Tensor:
        """The rows of this step, each once; the buffer's others are zero."""
        return torch.cat(self.rows).unique()


def keep_row_gradient(model: Any) -> RowGradient | None:
    """Give the encoder's word embeddings a `RowGradient` if they are plain, trained, and not tied."""
    return RowGradient(model.get_input_embeddings()) if is_plain(model) else None


def give_sparse_gradient(model: Any) -> bool:
    """Let the same embeddings have sparse gradients, for task gradients, which `TaskGradients` makes dense; whether they have."""
    plain = is_plain(model)
    if plain:
        model.get_input_embeddings().sparse = True
    return plain


def is_plain(model: Any) -> bool:
    """Whether the encoder's word embeddings are a plain table that is trained and not tied to another layer."""
    embedding = model.get_input_embeddings()
    tied = getattr(model, "all_tied_weights_keys", None)
    plain = type(embedding) is nn.Embedding and embedding.max_norm is None and not embedding.scale_grad_by_freq
    return bool(plain and not tied and embedding.weight.requires_grad)
