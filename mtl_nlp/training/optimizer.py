"""Parameter groups: head and layer-wise learning rates, no decay on norms, biases and conditions; AdamW for many heads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch

from ..model.encoder import layers_of
from .arguments import OwnArguments

CONDITIONS = "conditioning."


def learning_rates(model: Any, base: float, own: OwnArguments) -> dict[str, float]:
    """Parameter name → learning rate.

    The top layer has `base`, each layer below it `layer_lr_decay` times the one above, the embeddings once more; the heads have
    `head_learning_rate`, or `base`; the conditions of `conditioning:` have its `learning_rate`, or the heads'.
    """
    stack = layers_of(model.encoder)
    prefix = next(name for name, module in model.named_modules() if module is stack)
    layer = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    head = own.head_learning_rate if own.head_learning_rate is not None else base
    rates: dict[str, float] = {}
    for name, _ in model.named_parameters():
        found = layer.match(name)
        if name.startswith(CONDITIONS):
            rates[name] = own.conditioning_learning_rate or head
        elif name.startswith("heads."):
            rates[name] = head
        elif found:
            rates[name] = base * own.layer_lr_decay ** (len(stack) - 1 - int(found.group(1)))
        elif any(part in name for part in ("embed", "wte", "wpe")):
            rates[name] = base * own.layer_lr_decay ** len(stack)
        else:
            rates[name] = base
    return rates


def parameter_groups(
    model: Any, base: float, weight_decay: float, decayed: Iterable[str], own: OwnArguments
) -> list[dict[str, Any]]:
    """Groups of one learning rate and decay each, in the order in which the model lists its parameters."""
    rates, decays = learning_rates(model, base, own), set(decayed)
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = weight_decay if name in decays and not name.startswith(CONDITIONS) else 0.0
            group = groups.setdefault((rates[name], decay), {"params": [], "lr": rates[name], "weight_decay": decay})
            group["params"].append(parameter)
    return list(groups.values())


class TouchedAdamW(torch.optim.AdamW):
    """torch's AdamW, which walks through all parameters to find those with a gradient; here it is given the touched ones alone.

    Args:
        groups: as torch's.
        model: a `MultiTaskModel`; while its structure is fixed, its parameters are those that it had then.
    """

    def __init__(self, groups: list[dict[str, Any]], model: Any, **kwargs: Any) -> None:
        self._model = model
        self._members: list[set[int]] = []  # of each group, ids
        super().__init__(groups, **kwargs)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As ever."""
        super().add_param_group(param_group)
        self._members.append({id(p) for p in self.param_groups[-1]["params"]})

    def _init_group(self, group: dict[str, Any], *lists: Any) -> Any:
        structure = self._model.structure
        number = next(i for i, own in enumerate(self.param_groups) if own is group)
        if structure is not None and self._members[number] <= structure.ids:
            touched = [p for p in structure.touched() if id(p) in self._members[number]]
            group = {**group, "params": touched}
        return super()._init_group(group, *lists)
