"""`Conditioning`: the tasks' conditions, and the hooks by which they act inside the encoder.

| kind | a task's parameters | what they do | at the start |
|---|---|---|---|
| vector | v [E] | the word embeddings of its rows get + v | v = 0 |
| token | v [E] | a token before the row's first, embedded as that one + v, at its position | v = 0: the first token stands twice |
| film | γ, β [H] at each normalisation | weight · (1 + γ), bias · (1 + γ) + β | γ = β = 0 |
| lora | A [r, in], B [out, r] at each linear module | + (alpha / r) · B A x | B = 0 |

The encoder's own names, weights and code stay as they are. Where a normalisation has no bias there is no β.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...conditioning import ConditioningRecord
from ...schema import Source, validate
from .routing import Routing, routed, routing_of
from .sites import embeddings_of, features, modules_at

TaskRows = Mapping[str, Tensor]
Run = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]


@dataclass(frozen=True)
class Encoded:
    """A conditioned pass: R rows, task by task, in place of the batch's B.

    Attributes:
        hidden: [R, T, H].
        mask, ids: [R, T].
        tasks: name → what the batch says of it, with `rows` [b] among the R.
    """

    hidden: Tensor
    mask: Tensor
    ids: Tensor
    tasks: dict[str, TaskRows]


class Conditioning(nn.Module):
    """The conditions of a model's tasks.

    Args:
        record: as in `config.json`.
        encoder: gets the hooks.
        tasks: names.

    Raises:
        UserError: a record that is not valid or does not fit the encoder.
    """

    def __init__(
        self, record: ConditioningRecord | Mapping[str, Any], encoder: nn.Module, tasks: Sequence[str]
    ) -> None:
        super().__init__()
        if not isinstance(record, ConditioningRecord):
            record = validate(ConditioningRecord, record, Source("config.json"), ("conditioning",))
        self.record = record
        self.tasks = nn.ModuleDict({task: nn.Module() for task in tasks})
        self.dropout = nn.Dropout(record.dropout)
        self._undo: list[Callable[[], None]] = []
        self._parts: dict[tuple[str, str], Any] = {}
        if record.kind in ("vector", "token"):
            _, embedding = embeddings_of(encoder)
            for task in tasks:
                self.tasks[task].vector = nn.Parameter(torch.zeros(embedding.embedding_dim))
            self._undo.append(embedding.register_forward_hook(self._embed).remove)
            return
        for site, module in modules_at(encoder, record.kind, record.sites).items():
            for task in tasks:
                self._parts[task, site] = _grow(self.tasks[task], site, _fresh(record, module))
            if record.kind == "lora":
                self._undo.append(module.register_forward_hook(partial(self._adapt, site)).remove)
            else:
                self._replace_forward(site, module)

    def remove(self) -> None:
        """Take the hooks out of the encoder; the last that were put in have to go first."""
        for undo in reversed(self._undo):
            undo()
        self._undo = []

    def encode(
        self,
        run: Run,
        ids: Tensor,
        mask: Tensor,
        types: Tensor | None,
        tasks: Mapping[str, TaskRows],
        *,
        packed: bool = False,
    ) -> Encoded:
        """One pass over every (row, task) pair that the batch asks for.

        Args:
            run: (ids, mask, types, positions) → hidden states; positions only for `token`.
            ids, mask, types: [B, T].
            tasks: name → `rows` [b] and what else its head needs; at least one.
            packed: whether `run` goes without padding.
        """
        names = tuple(tasks)
        every = torch.cat([tasks[name]["rows"] for name in names])
        ids, mask, types = ids[every], mask[every], None if types is None else types[every]
        counts, start = tuple(len(tasks[name]["rows"]) for name in names), 0
        moved: dict[str, TaskRows] = {}
        for name, count in zip(names, counts, strict=True):
            moved[name] = {**tasks[name], "rows": torch.arange(start, start + count, device=ids.device)}
            start += count
        if self.record.kind == "token":
            hidden = self._with_token(run, ids, mask, types, names, counts, packed)
        else:
            with routed(self._routing(names, counts, mask, packed)):
                hidden = run(ids, mask, types, None)
        return Encoded(hidden, mask, ids, moved)

    def _routing(self, names: tuple[str, ...], counts: tuple[int, ...], mask: Tensor, packed: bool) -> Routing:
        if not packed or len(names) == 1:
            return Routing(self, names, counts, int(packed))
        real = tuple(int(part.sum()) for part in mask.split(counts))
        return Routing(self, names, real, 1)

    def _with_token(
        self,
        run: Run,
        ids: Tensor,
        mask: Tensor,
        types: Tensor | None,
        names: tuple[str, ...],
        counts: tuple[int, ...],
        packed: bool,
    ) -> Tensor:
        """The pass with a further token before each row's first one; its own state is left out of what is returned."""
        starts, rows = mask.argmax(1), torch.arange(len(ids), device=ids.device)  # of right-padded rows 0
        wide_ids, wide_mask, wide_types = (_widened(x, rows, starts) for x in (ids, mask, types))
        assert wide_ids is not None
        assert wide_mask is not None
        wide_mask[rows, starts] = 1
        # Every other token keeps its place; the task's own has that of the first.
        places = F.pad(mask, (1, 0)).cumsum(1).sub_(1).clamp_(min=0) + self.record.first
        seen: tuple[Tensor, Tensor] = (rows, starts)
        if packed:
            lengths = wide_mask.sum(1)
            seen = (torch.zeros_like(rows), lengths.cumsum(0) - lengths)
        with routed(Routing(self, names, counts, 0, seen)):
            return run(wide_ids, wide_mask, wide_types, places)[:, 1:]

    def _embed(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """Word embeddings [R, T, E] → with the task's vector, on all tokens or on its own."""
        routing = routing_of(self)
        if routing is None:
            return None
        vectors = [getattr(self.tasks[task], "vector").to(output.dtype) for task in routing.tasks]  # noqa: B009
        if routing.places is None:
            return output + routing.spread(vectors)
        each = routing.spread(vectors).squeeze(1).expand(len(routing.places[0]), -1)
        return output.index_put(routing.places, each, accumulate=True)

    def _adapt(self, site: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """A linear module's output with the tasks' low-rank parts."""
        routing = routing_of(self)
        if routing is None:
            return None
        scale = self.record.alpha / self.record.r

        def low_rank(task: str, part: Tensor) -> Tensor:
            factors = self._parts[task, site]
            return F.linear(F.linear(self.dropout(part), factors.a), factors.b) * scale

        return output + routing.by_task(inputs[0], low_rank)

    def _replace_forward(self, site: str, module: nn.Module) -> None:
        """Normalise by each task's weights: what a folded encoder computes, bit by bit."""
        before = module.__dict__.get("forward")
        module.__dict__["forward"] = partial(self._normalise, site, module, before)

        def undo() -> None:
            if before is None:
                module.__dict__.pop("forward", None)
            else:
                module.__dict__["forward"] = before

        self._undo.append(undo)

    def _normalise(self, site: str, module: nn.Module, before: Any, x: Tensor) -> Tensor:
        routing = routing_of(self)
        if routing is None:
            return type(module).forward(module, x) if before is None else before(x)

        def own(task: str, part: Tensor) -> Tensor:
            # A copy with other weights, not other weights in the module: another thread may be in it.
            double = copy.copy(module)
            double.__dict__["_parameters"] = modulated(module, self._parts[task, site])
            return type(module).forward(double, part)

        return routing.by_task(x, own)

    def parts(self, task: str) -> dict[str, Any]:
        """Site → the module with a task's parameters there (`film`, `lora`)."""
        return {site: part for (name, site), part in self._parts.items() if name == task}


def modulated(norm: Any, part: Any) -> dict[str, Tensor | None]:
    """A normalisation's parameters for a task: weight · (1 + γ), bias · (1 + γ) + β."""
    factor = 1 + part.scale
    own: dict[str, Tensor | None] = dict(norm._parameters)
    own["weight"] = norm.weight * factor
    if getattr(norm, "bias", None) is not None:
        own["bias"] = norm.bias * factor + part.shift
    return own


def _fresh(record: ConditioningRecord, module: Any) -> dict[str, Tensor]:
    """A task's parameters at one site, such that nothing changes yet."""
    if record.kind == "film":
        found = {"scale": torch.zeros_like(module.weight)}
        if getattr(module, "bias", None) is not None:
            found["shift"] = torch.zeros_like(module.bias)
        return found
    wide, out = features(module)
    like = module.weight
    a = torch.empty(record.r, wide, dtype=like.dtype, device=like.device)
    nn.init.kaiming_uniform_(a, a=math.sqrt(5))  # as peft does
    return {"a": a, "b": torch.zeros(out, record.r, dtype=like.dtype, device=like.device)}


def _grow(root: nn.Module, path: str, values: Mapping[str, Tensor]) -> nn.Module:
    """Parameters at a dotted path below `root`, so that a checkpoint's keys name the encoder's modules."""
    node = root
    for name in path.split("."):
        if name not in node._modules:
            node.add_module(name, nn.Module())
        below = node._modules[name]
        assert below is not None
        node = below
    for name, value in values.items():
        node.register_parameter(name, nn.Parameter(value.detach()))
    return node


def _widened(x: Tensor | None, rows: Tensor, starts: Tensor) -> Tensor | None:
    """[R, T] → [R, T + 1] with a column more at the left; a row's first token once more before itself."""
    if x is None:
        return None
    wide = F.pad(x, (1, 0))
    wide[rows, starts] = x[rows, starts]
    return wide
