"""Whether models can be merged: one ancestor, architecture, tokenizer, equal shapes. All that does not fit is told at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import Faults, FaultyInput, fault, listed
from ..hub.checkpoint import CONFIG, check_folder, load_model, load_tokenizer
from ..model.config import MultiTaskConfig
from ..model.encoder import load_encoder, locate
from ..model.encoder import load_tokenizer as encoder_tokenizer
from ..recipe import EncoderSpec
from ..training.parents import Parent
from .common import alike
from .vectors import relative_distance

# Models that were initialised apart are √2 of their norm from each other, fine-tuned ones some hundredths from their start.
FAR = 0.9
# Of a tokenizer's file: what decides which ids a text gets, besides the vocabulary.
PARTS = ("normalizer", "pre_tokenizer", "post_processor")


@dataclass(frozen=True)
class Ancestor:
    """What the parents were fine-tuned from.

    Attributes:
        name: as given or as the parents' recipes say; `shown` without a path of this machine.
        state: its encoder's tensors.
    """

    name: str
    shown: str
    state: dict[str, Tensor]
    config: Any
    tokenizer: Any


def encoder_state(encoder: nn.Module) -> dict[str, Tensor]:
    """Every float tensor of an encoder once (tied ones under their first name)."""
    state = {name: p.detach() for name, p in encoder.named_parameters()}
    return state | {name: b.detach() for name, b in encoder.named_buffers() if b.is_floating_point()}


def whole_numbers(encoder: nn.Module) -> dict[str, Tensor]:
    """The buffers that are not floats (position ids): not merged, they have to be equal."""
    return {name: b for name, b in encoder.named_buffers() if not b.is_floating_point()}


def recorded(parent: Parent) -> str | None:
    """What the parent's recipe says that it began at; None for a plain model."""
    start = parent.encoder.get("from") or parent.encoder.get("name")
    return locate(str(start)) if start else None


def find_ancestor(parents: Sequence[Parent], given: str | Path | None, *, needed: bool) -> Ancestor | None:
    """The ancestor that was named, or that the recipes of the parents agree on.

    Raises:
        FaultyInput: they disagree, or none says; or it cannot be loaded.
    """
    names = {parent.name: recorded(parent) for parent in parents}
    known = list(dict.fromkeys(name for name in names.values() if name))
    if given is None and len(known) > 1:
        told = listed(f"{parent} from {_shown(name)}" for parent, name in names.items() if name)
        cure = "where they do share one, name it: --ancestor"
        raise fault(f"the checkpoints have several ancestors: {told}", key="--ancestor", allowed="one", cure=cure)
    name = str(given) if given is not None else next(iter(known), None)
    if name is None:
        if not needed:
            return None
        raise fault("no checkpoint says what it was fine-tuned from", key="--ancestor", allowed="a folder or Hub name")
    try:
        return load_ancestor(name)
    except FaultyInput as error:
        if not needed and given is None:
            return None  # a mean can do without; whether the parents are near each other is looked at
        raise fault(f'"{_shown(name)}" cannot be loaded: {error}', key="--ancestor") from error


def load_ancestor(name: str) -> Ancestor:
    """A plain encoder, or that of a checkpoint of ours.

    Raises:
        UserError: it cannot be loaded.
    """
    if _is_ours(name):
        folder = check_folder(name)
        model = load_model(folder)
        return Ancestor(
            name, _shown(name), encoder_state(model.encoder), model.config.encoder_config, load_tokenizer(folder)
        )
    spec = EncoderSpec(name=name)
    encoder: Any = load_encoder(spec)
    return Ancestor(name, _shown(name), encoder_state(encoder), encoder.config, encoder_tokenizer(spec))


def _is_ours(name: str) -> bool:
    try:
        data = json.loads((Path(name) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and data.get("model_type") == MultiTaskConfig.model_type


def _shown(name: str) -> str:
    return Path(name).name if Path(name).is_absolute() else name


def check_parents(parents: Sequence[Parent], states: Sequence[Mapping[str, Tensor]], ancestor: Ancestor | None) -> None:
    """Refuse parents that do not fit the first of them, or the ancestor.

    Raises:
        FaultyInput: every reason, by the name of the checkpoint.
    """
    faults = Faults()
    first = parents[0]
    for parent, state in zip(parents[1:], states[1:], strict=True):
        if _unlike_kind(parent.model.config.encoder_config, first.model.config.encoder_config, parent, first, faults):
            continue
        _shapes(state, states[0], parent.name, first.name, faults)
        _buffers(parent, first, faults)
        tokenizers(parent.tokenizer, first.tokenizer, parent.name, first.name, faults)
        _heads(parent, parents, faults)
        if ancestor is None:
            _near(state, states[0], parent.name, first.name, faults)
    if ancestor is not None:
        for parent, state in zip(parents, states, strict=True):
            _fits_ancestor(parent, state, ancestor, faults)
    faults.check()


def _unlike_kind(config: Any, other: Any, parent: Parent, first: Parent, faults: Faults) -> bool:
    if config.model_type == other.model_type:
        return False
    found = f"its encoder is a {config.model_type}, that of {first.name} a {other.model_type}"
    faults.add(found, where=parent.name, key="architecture", cure="encoders of other kinds: fuse ensemble, or distil")
    return True


def _shapes(state: Mapping[str, Tensor], other: Mapping[str, Tensor], name: str, first: str, faults: Faults) -> None:
    odd = sorted(state.keys() ^ other.keys())
    if odd:
        faults.add(
            f"weights that only one has: {listed(odd, 4)}", where=name, key="architecture", allowed=f"as {first}"
        )
    for key in state.keys() & other.keys():
        if state[key].shape != other[key].shape:
            found = f"{key} is {list(state[key].shape)}, {list(other[key].shape)} in {first}"
            kind = "vocabulary" if "word_embeddings" in key or "embed_tokens" in key else "architecture"
            faults.add(found, where=name, key=kind, allowed="equal shapes")


def _buffers(parent: Parent, first: Parent, faults: Faults) -> None:
    mine, theirs = whole_numbers(parent.model.encoder), whole_numbers(first.model.encoder)
    for name in sorted(mine.keys() & theirs.keys()):
        if mine[name].shape != theirs[name].shape or not bool((mine[name] == theirs[name]).all()):
            found = f"{name} holds other whole numbers than in {first.name}"
            faults.add(found, where=parent.name, key="architecture", cure="they cannot be averaged")


def tokenizers(one: Any, other: Any, name: str, first: str, faults: Faults) -> None:
    """Note where two tokenizers give a text other ids."""
    mine, theirs = one.get_vocab(), other.get_vocab()
    odd = sorted(token for token in mine.keys() | theirs.keys() if mine.get(token) != theirs.get(token))
    if odd:
        found = f"{len(odd)} tokens have other ids than in {first}: {listed(odd, 4)}"
        faults.add(found, where=name, key="vocabulary", allowed="one vocabulary")
    here, there = (json.loads(t.backend_tokenizer.to_str()) for t in (one, other))
    unlike = [part for part in PARTS if here.get(part) != there.get(part)]
    if unlike:
        faults.add(f"its {listed(unlike)} differs from that of {first}", where=name, key="tokenizer", allowed="one")


def _heads(parent: Parent, parents: Sequence[Parent], faults: Faults) -> None:
    """A task that two parents have is one problem with one kind of head."""
    for task in parent.tasks:
        other = next(one for one in parents if task.name in one.model.kinds)
        if other is parent:
            continue
        theirs = next(one for one in other.tasks if one.name == task.name)
        reason = alike(task, theirs)
        mine, state = parent.model.heads[task.name].state_dict(), other.model.heads[task.name].state_dict()
        if not reason and {k: v.shape for k, v in mine.items()} != {k: v.shape for k, v in state.items()}:
            reason = "another head"
        if reason:
            cure = f"another name: OTHER={parent.name}#{task.name}"
            faults.add(f"{reason} ({other.name})", where=parent.name, key=task.name, cure=cure)


def _near(state: Mapping[str, Tensor], other: Mapping[str, Tensor], name: str, first: str, faults: Faults) -> None:
    distance = relative_distance(state, other, _is_matrix(state))
    if distance > FAR:
        found = f"its weights are {distance:.2f} of their norm from those of {first}"
        faults.add(found, where=name, key="ancestor", allowed="models that were fine-tuned from one")


def _is_matrix(state: Mapping[str, Tensor]) -> Any:
    """Norms' scales begin at 1 in any two models and say nothing of kinship."""
    return lambda name: state[name].dim() > 1


def _fits_ancestor(parent: Parent, state: Mapping[str, Tensor], ancestor: Ancestor, faults: Faults) -> None:
    config = parent.model.config.encoder_config
    if config.model_type != ancestor.config.model_type:
        found = f"its encoder is a {config.model_type}, the ancestor {ancestor.shown} a {ancestor.config.model_type}"
        faults.add(found, where=parent.name, key="ancestor", allowed="what it was fine-tuned from")
        return
    missing = sorted(state.keys() - ancestor.state.keys())
    if missing:
        faults.add(f"{ancestor.shown} has no {listed(missing, 4)}", where=parent.name, key="ancestor")
    unlike = [
        name
        for name in state.keys() & ancestor.state.keys()
        if state[name].shape[1:] != ancestor.state[name].shape[1:]
        or (state[name].shape[:1] != ancestor.state[name].shape[:1] and not _is_vocabulary(name, state, config))
    ]
    if unlike:
        found = f"{listed(sorted(unlike), 4)} have other shapes in {ancestor.shown}"
        faults.add(found, where=parent.name, key="ancestor", allowed="what it was fine-tuned from")
    known, mine = ancestor.tokenizer.get_vocab(), parent.tokenizer.get_vocab()
    moved = sorted(token for token, place in known.items() if token in mine and mine[token] != place)
    if moved:
        found = f"{len(moved)} tokens have other ids in {ancestor.shown}: {listed(moved, 4)}"
        faults.add(found, where=parent.name, key="vocabulary", allowed="the ancestor's tokens in their places")
    distance = relative_distance(state, ancestor.state, _is_matrix(state))
    if distance > FAR and not unlike:
        found = f"its weights are {distance:.2f} of their norm from {ancestor.shown}"
        cure = "it was not fine-tuned from it: name the right one"
        faults.add(found, where=parent.name, key="--ancestor", cure=cure)


def _is_vocabulary(name: str, state: Mapping[str, Tensor], config: Any) -> bool:
    """Whether a tensor has a row a token: its rows may have been made more, or fewer."""
    return len(state[name]) == config.vocab_size
