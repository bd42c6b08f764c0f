"""Whether, and where, an encoder can be conditioned: found by running it on a small batch, never from a list of names.

A module can be conditioned if it sees the rows, [R, T, …]; DeBERTa's projections of relative positions, say, see a table that all
rows share. Then two tasks in one pass are compared with each of them alone.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...conditioning import Conditioning as Settings
from ...conditioning import ConditioningRecord
from ...errors import fault, listed
from ..padding_free import TOLERANCE, PaddingFree, first_positions
from ..trial import in_eval, probe, tried
from .conditions import Conditioning, Encoded
from .sites import KEY, embeddings_of, is_linear, is_norm, unfit

logger = logging.getLogger("mtl_nlp")


def condition(model: Any, settings: Settings) -> None:
    """Give every task of `model` a fresh condition; the encoder's outputs stay what they were (`token` apart).

    Raises:
        UserError: the encoder cannot be conditioned in this way, with the reason; or it cannot encode a small batch.
    """
    encoder = model.encoder
    with in_eval(encoder):
        tried(encoder)
    record = _record(encoder, settings)
    model.config.conditioning = record.model_dump()
    model.conditioning = Conditioning(record, encoder, [task.name for task in model.tasks])
    with in_eval(encoder), _disturbed(model.conditioning, encoder) as trial:
        gap = _mixed_gap(trial, partial(run_padded, encoder))
    if not gap <= TOLERANCE:
        raise unfit(encoder, f"two tasks in one batch get other outputs than alone (by {gap:.1e})", "another kind")


def agrees_without_padding(conditioning: Conditioning, path: PaddingFree) -> bool:
    """Whether conditions act on the padding-free path as on the padded one; the reason is logged where they do not."""
    encoder: Any = path.encoder
    with in_eval(encoder), _disturbed(conditioning, encoder) as trial:
        try:
            gap = _two_ways_gap(trial, partial(run_padded, encoder), path)
        # Whatever an architecture raises, it only means that it cannot take this path.
        except Exception as error:  # noqa: BLE001
            logger.debug("padding-free path: %s: %s", type(error).__name__, error)
            gap = float("inf")
    if gap <= TOLERANCE:
        return True
    name, kind = type(encoder).__name__, conditioning.record.kind
    logger.info("encoder: padded path (conditioned by %s, %s differs by %.1e without padding)", kind, name, gap)
    return False


def run_padded(encoder: Any, ids: Tensor, mask: Tensor, types: Tensor | None, positions: Tensor | None) -> Tensor:
    """The encoder's output, [R, T, H]."""
    kwargs = {} if types is None else {"token_type_ids": types}
    if positions is not None:
        kwargs["position_ids"] = positions
        if types is None and "token_type_ids" in inspect.signature(encoder.forward).parameters:
            kwargs["token_type_ids"] = torch.zeros_like(ids)  # the encoder's own may be a token too short
    return encoder(input_ids=ids, attention_mask=mask, **kwargs).last_hidden_state


def _record(encoder: Any, settings: Settings) -> ConditioningRecord:
    if settings.kind in ("vector", "token"):
        name, _ = embeddings_of(encoder)
        if name not in _seen(encoder, [name], ids=True):
            raise unfit(encoder, "its word embeddings do not see the rows", "film or lora")
        first = _first_position(encoder) if settings.kind == "token" else 0
        return ConditioningRecord(kind=settings.kind, first=first)
    if settings.kind == "film":
        known = [name for name, module in encoder.named_modules() if is_norm(module)]
        sites = _seen(encoder, known)
        if not sites:
            raise unfit(encoder, "it has no normalisation layer that sees the rows", "vector or lora")
        return ConditioningRecord(kind="film", sites=sites)
    assert settings.kind == "lora"
    sites = _lora_sites(encoder, settings.targets)
    return ConditioningRecord(kind="lora", sites=sites, r=settings.r, alpha=settings.alpha, dropout=settings.dropout)


def _lora_sites(encoder: Any, targets: str | list[str]) -> list[str]:
    """The linear modules that `targets` names and that see the rows; `all-linear` leaves the others out and says so."""
    linear = [name for name, module in encoder.named_modules() if is_linear(module)]
    tails = sorted(dict.fromkeys(_tail(name) for name in linear))
    chosen = linear
    if targets != "all-linear":
        wanted = [targets] if isinstance(targets, str) else targets
        for target in wanted or [""]:
            if not target or not any(_is_called(name, target) for name in linear):
                allowed = f"all-linear, {listed(tails, 20)}"
                raise fault(f'the encoder has no linear module "{target}"', key=f"{KEY}.targets", allowed=allowed)
        chosen = [name for name in linear if any(_is_called(name, target) for target in wanted)]
    sites = _seen(encoder, chosen)
    left = sorted(dict.fromkeys(_tail(name) for name in chosen if name not in set(sites)))
    if left and targets != "all-linear":
        found = f"{listed(left)} also works on something else than the rows, so a task cannot have its own"
        raise fault(found, key=f"{KEY}.targets", allowed=listed([tail for tail in tails if tail not in left], 20))
    if not sites:
        raise unfit(encoder, "it has no linear module that sees the rows", "vector or film")
    if left:
        logger.info("conditioning lora: without %s, which also work on something else than the rows", listed(left))
    return sites


def _is_called(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _tail(name: str) -> str:
    """`encoder.layer.0.attention.self.query` → `attention.self.query`."""
    parts = name.split(".")
    last = max((place for place, part in enumerate(parts) if part.isdigit()), default=-1)
    return ".".join(parts[last + 1 :])


def _batch(encoder: Any) -> tuple[Tensor, Tensor]:
    """Three rows of seven tokens at most, so that an axis is known by its length."""
    ids, mask = probe(encoder)
    return ids[:3, :7], mask[:3, :7]


def _seen(encoder: Any, names: Sequence[str], *, ids: bool = False) -> list[str]:
    """Those of the modules whose every input is [rows, tokens, …] (`ids`: [rows, tokens])."""
    batch, mask = _batch(encoder)
    calls: dict[str, list[bool]] = {}
    modules = dict(encoder.named_modules())

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        x = inputs[0] if inputs else None
        fits = isinstance(x, Tensor) and x.shape[:2] == batch.shape and x.dim() == (2 if ids else 3)
        calls.setdefault(name, []).append(fits)

    handles = [modules[name].register_forward_pre_hook(partial(note, name)) for name in names]
    try:
        with in_eval(encoder), torch.no_grad():
            run_padded(encoder, batch, mask, None, None)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in names if calls.get(name) and all(calls[name])]


def _first_position(encoder: Any) -> int:
    """The position of a row's first token, such that positions that are given are those that the encoder gives itself.

    Raises:
        UserError: it takes no positions, so that a further token would move the others.
    """
    if "position_ids" not in inspect.signature(encoder.forward).parameters:
        raise unfit(encoder, "it takes no positions, so a task token would move the others", "vector")
    ids, mask = _batch(encoder)
    gap = float("inf")
    with in_eval(encoder), torch.no_grad():
        own = run_padded(encoder, ids, mask, None, None)
        for first in first_positions(encoder):
            given = torch.arange(ids.shape[1], device=ids.device).expand_as(ids) + first
            found = run_padded(encoder, ids, mask, None, given)
            gap = min(gap, _gap(own, found, mask))
            if gap <= TOLERANCE:
                return first
    raise unfit(encoder, f"with positions that are given its outputs differ by {gap:.1e}", "vector")


@contextmanager
def _disturbed(conditioning: Conditioning, encoder: nn.Module) -> Iterator[Conditioning]:
    """Conditions of two made-up tasks at the same sites, that do something; their hooks are taken out again."""
    state = torch.random.get_rng_state()
    trial = Conditioning(conditioning.record, encoder, ["one", "other"])
    torch.random.set_rng_state(state)
    draw = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in trial.parameters():
                parameter.copy_(torch.empty(parameter.shape).normal_(0, 0.05, generator=draw))
        yield trial.to(next(encoder.parameters()).device).eval()
    finally:
        trial.remove()


def _pairs(encoder: Any) -> tuple[Tensor, Tensor, dict[str, dict[str, Tensor]]]:
    ids, mask = _batch(encoder)
    one, other = torch.tensor([0, 2], device=ids.device), torch.tensor([1, 2], device=ids.device)
    return ids, mask, {"one": {"rows": one}, "other": {"rows": other}}


def _mixed_gap(trial: Conditioning, run: Any) -> float:
    ids, mask, tasks = _pairs(run.args[0])
    with torch.no_grad():
        both = trial.encode(run, ids, mask, None, tasks)
        gaps = []
        for name in tasks:
            alone = trial.encode(run, ids, mask, None, {name: tasks[name]})
            rows = both.tasks[name]["rows"]
            gaps.append(_gap(both.hidden[rows], alone.hidden, alone.mask))
    return max(gaps)


def _two_ways_gap(trial: Conditioning, run: Any, path: PaddingFree) -> float:
    ids, mask, tasks = _pairs(run.args[0])
    with torch.no_grad():
        padded: Encoded = trial.encode(run, ids, mask, None, tasks)
        packed = trial.encode(path, ids, mask, None, tasks, packed=True)
    return _gap(padded.hidden, packed.hidden, padded.mask)


def _gap(one: Tensor, other: Tensor, mask: Tensor) -> float:
    difference = (one - other).float().abs()[mask.bool()]
    return float(difference.max()) if bool(difference.isfinite().all()) else float("inf")
