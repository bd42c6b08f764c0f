"""One task of a conditioned model as an ordinary model: what can be folded into the encoder's weights is.

| kind | into | equal to the conditioned model |
|---|---|---|
| vector | the table of word embeddings, E + v | bit by bit |
| film | weight and bias of each normalisation | bit by bit |
| lora | W + (alpha / r) · B A, as peft merges | but for rounding |
| token | nothing: a plain model has no such token | refused |
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import fault
from ..config import MultiTaskConfig, task_record
from ..heads import MaskedLanguageModeling
from .conditions import Conditioning, modulated
from .sites import embeddings_of, modules_at


def why_not_folded(model: Any, task: str) -> str:
    """Why a task's condition cannot be folded in; empty where it can or there is none."""
    conditioning = model.conditioning
    if conditioning is None:
        return ""
    if conditioning.record.kind == "token":
        return "it is conditioned by a task token, which is no part of a plain model's input"
    tied = any(key.startswith(f"heads.{task}.") for key in getattr(model, "all_tied_weights_keys", None) or {})
    if conditioning.record.kind == "vector" and isinstance(model.kinds[task], MaskedLanguageModeling) and tied:
        return "its head reads the table of word embeddings, into which the task vector would be folded"
    return ""


def fold(model: Any, task: str) -> Any:
    """An unconditioned model of the one task, with weights of its own.

    Raises:
        UserError: the condition cannot be folded in, with the reason.
    """
    reason = why_not_folded(model, task)
    if reason:
        raise fault(f"cannot be a plain model: {reason}", key=task, cure="load the checkpoint with mtl-nlp")
    definition = next(one for one in model.tasks if one.name == task)
    alone = definition.model_copy(update={"share_head_with": None, "consistent_with": None})
    config = MultiTaskConfig(copy.deepcopy(model.config.encoder_config), [task_record(alone)])
    config._attn_implementation = model.config._attn_implementation
    plain = type(model)(config)
    plain.to(next(model.encoder.parameters()).dtype)
    plain.encoder.load_state_dict(folded_state(model.conditioning, model.encoder, task))
    plain.heads[task].load_state_dict(model.heads[task].state_dict())
    return plain.eval()


def folded_state(conditioning: Conditioning, encoder: nn.Module, task: str) -> dict[str, Tensor]:
    """The encoder's state with a task's condition in it."""
    state = dict(encoder.state_dict())
    record = conditioning.record
    with torch.no_grad():
        if record.kind == "vector":
            name, table = embeddings_of(encoder)
            condition: Any = conditioning.tasks[task]
            state[f"{name}.weight"] = table.weight + condition.vector
            return state
        parts = conditioning.parts(task)
        for site, module in modules_at(encoder, record.kind, record.sites).items():
            if record.kind == "film":
                own = modulated(module, parts[site])
                state |= {f"{site}.{name}": value for name, value in own.items() if value is not None}
            else:
                state[f"{site}.weight"] = module.weight + delta(parts[site], module, record.alpha / record.r)
    return state


def delta(part: Any, module: nn.Module, scale: float) -> Tensor:
    """What a task's factors add to a linear module's weight."""
    product = (part.b @ part.a) * scale
    return product if isinstance(module, nn.Linear) else product.T
