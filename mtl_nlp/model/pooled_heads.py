"""Heads on a text's first token, run beside one another while training.

Such a head is three or four small layers under several layers of Python; with hundreds of tasks a batch holds a text or two for
each of thirty, and the way to the layers takes longer than the layers. Here a head's layers are found by watching it run once, and
are called in a row without it; those without parameters (activation, dropout) are called once for all heads. A head whose logits
its layers in a row do not give is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from .heads import Head, PassThroughBase, VanillaHead
from .trial import calls_of

# [3, 5]: a whole row, one padded on the right and one on the left, so that no other token passes for the first.
PROBE_MASK = ((1, 1, 1, 1, 1), (1, 1, 1, 0, 0), (0, 0, 1, 1, 1))
PROBE_SCALES = (1.0, 10.0, 100.0)  # of the rows, so that activations are told apart whatever the size of the weights
SAME = 1e-5  # of a row's largest logit
# What architectures call as functions behind the first linear layer, where there is no module to be seen.
UNSEEN = (nn.Tanh, nn.ReLU, nn.GELU)
ELEMENTWISE = (*UNSEEN, GELUActivation, nn.Dropout)
REFUSALS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class Chain:
    """A head as layers in a row: logits = layers(hidden[:, 0]).

    Attributes:
        head: the module that the layers are part of.
        layers: in the order in which it calls them.
    """

    head: nn.Module
    layers: tuple[nn.Module, ...]

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal where heads differ in their parameters and in the number of their logits alone."""
        widths = [getattr(layer, "out_features", None) for layer in self.layers[:-1]]
        return tuple(
            (type(layer), getattr(layer, "p", None), width)
            for layer, width in zip(self.layers, [*widths, None], strict=True)
        )


class PooledHeads:
    """The heads of a model that are chains on the first token.

    Args:
        chains: task → its head.
    """

    def __init__(self, chains: Mapping[str, Chain]) -> None:
        self.chains = dict(chains)

    def __call__(
        self, hidden: Tensor, tasks: Mapping[str, Mapping[str, Tensor]], heads: Mapping[str, nn.Module]
    ) -> dict[str, Tensor]:
        """The logits, [b, K] each, of those of the tasks whose heads are run here.

        On a CPU they are computed in the precision of the weights, under autocast too: to convert a matrix takes longer than to
        multiply a few rows by it.

        Args:
            hidden: [B, T, H].
            tasks: name → `rows` [b].
            heads: the model's own; one that came later than the chains is not run here.
        """
        alike: dict[tuple[Any, ...], list[str]] = {}
        for name in tasks:
            if self.holds(name, heads):
                alike.setdefault(self.chains[name].signature, []).append(name)
        found: dict[str, Tensor] = {}
        first = hidden[:, 0] if alike else hidden
        with torch.autocast("cpu", enabled=False) if hidden.device.type == "cpu" else nullcontext():
            for names in alike.values():
                rows = [tasks[name]["rows"] for name in names]
                layers = [self.chains[name].layers for name in names]
                logits = _side_by_side(layers, first.index_select(0, torch.cat(rows)), [len(some) for some in rows])
                found |= zip(names, logits, strict=True)
        return found

    def holds(self, task: str, heads: Mapping[str, nn.Module]) -> bool:
        """Whether the task's present head is one of these, and so reads the first token alone."""
        return task in self.chains and self.chains[task].head is heads[task]


def _side_by_side(layers: Sequence[Sequence[nn.Module]], first: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """[sum of sizes, H] → [size, K] of each head; all heads have the same kinds of layers."""
    dtype = next((p.dtype for layer in layers[0] for p in layer.parameters()), first.dtype)
    whole: Tensor | None = first.to(dtype)
    parts: Sequence[Tensor] = ()
    for same in zip(*layers, strict=True):
        if isinstance(same[0], ELEMENTWISE):
            whole = same[0](torch.cat(list(parts)) if whole is None else whole)
        else:
            own = parts if whole is None else whole.split(list(sizes))
            parts, whole = [layer(part) for layer, part in zip(same, own, strict=True)], None
    return parts if whole is None else whole.split(list(sizes))


def find_pooled_heads(kinds: Mapping[str, Head], heads: Mapping[str, nn.Module], encoder_config: Any) -> PooledHeads:
    """The chains of a model's heads, each compared with the head itself on three rows of random states.

    Args:
        kinds: task → kind.
        heads: task → module.
        encoder_config: the encoder's, for its width and its padding token.
    """
    found = {name: _chain(kind, heads[name], encoder_config) for name, kind in kinds.items() if _is_vanilla(kind)}
    return PooledHeads({name: chain for name, chain in found.items() if chain is not None})


def _is_vanilla(kind: Head) -> bool:
    own: Any = type(kind)
    return isinstance(kind, VanillaHead) and own.logits is VanillaHead.logits and own.run is VanillaHead.run


def _chain(kind: Any, head: nn.Module, encoder_config: Any) -> Chain | None:
    weights, width = next(head.parameters(), None), getattr(encoder_config, "hidden_size", None)
    if weights is None or not isinstance(width, int):
        return None
    mask = torch.tensor(PROBE_MASK)
    states = torch.randn(*mask.shape, width, generator=torch.Generator().manual_seed(0))
    hidden = (states * torch.tensor(PROBE_SCALES)[:, None, None]).to(weights)
    padding = getattr(encoder_config, "pad_token_id", None) or 0
    ids = torch.where(mask.bool(), 1 if padding == 0 else 0, padding).to(weights.device)
    leaves = [m for m in head.modules() if not isinstance(m, PassThroughBase) and not list(m.children())]
    with torch.no_grad(), _dropout_off(head):
        try:
            with calls_of(leaves) as called:
                logits = kind.run(head, hidden, mask.to(weights.device), ids).logits
        except REFUSALS:  # of these rows; what it refuses of a text's it says in training
            return None
        linear = next((i for i, layer in enumerate(called) if isinstance(layer, nn.Linear)), len(called))
        tries = [called, *([*called[: linear + 1], unseen(), *called[linear + 1 :]] for unseen in UNSEEN)]
        found = next((layers for layers in tries if _gives(layers, hidden[:, 0], logits)), None)
    return None if found is None else Chain(head, tuple(found))


@contextmanager
def _dropout_off(head: nn.Module) -> Iterator[None]:
    """Training mode but for the dropout layers, so that dropout which is no layer shows."""
    before = {module: module.training for module in head.modules()}
    for module in before:
        module.training = not isinstance(module, nn.Dropout)
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def _gives(layers: Sequence[nn.Module], first: Tensor, logits: Tensor) -> bool:
    found = first
    for layer in layers:
        if isinstance(layer, nn.Linear) and layer.in_features != found.shape[-1]:
            return False
        found = layer(found)
    if found.shape != logits.shape:
        return False
    return bool(((found - logits).abs().amax(-1) <= SAME * logits.abs().amax(-1)).all())
