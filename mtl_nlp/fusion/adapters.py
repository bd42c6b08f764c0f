"""Merging of LoRA adapters by peft: of the `checkpoint-N` folders of runs with `lora`, which keep A and B beside the model.

| method | peft's combination | what it gives |
|---|---|---|
| `average`, `task_arithmetic` | `cat` | Σ cᵢ (αᵢ / rᵢ) BᵢAᵢ exactly (of a mean the cᵢ sum to 1) |
| `ties` | `ties_svd` | TIES on these products, trimmed matrix by matrix, then the best matrix of rank Σ rᵢ |
| `dare` | `dare_linear_svd` | DARE on these products, likewise |

The result is added to the ancestor's weights. A finished run with `lora` has no adapters any more: its weights are merged as any
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Faults, FaultyInput, UserError
from ..hub.checkpoint import check_folder
from ..model.encoder import load_encoder
from ..model.files import ADAPTERS
from ..recipe import EncoderSpec, Lora
from ..schema import Source, validate
from ..training.parents import Parent, split_name

COMBINATIONS = {
    "average": "cat",
    "task_arithmetic": "cat",
    "ties": "ties_svd",
    "dare": "dare_linear_svd",
}
MERGED = "merged"


def check_adapters(parents: Sequence[Parent]) -> None:
    """Refuse parents that have no adapters.

    Raises:
        FaultyInput: each of them; peft is not installed.
    """
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise UserError('--adapters needs peft: pip install "mtl-nlp[lora]"') from error
    faults = Faults()
    for parent in parents:
        try:
            if parent.plain or not adapter_file(parent).is_file() or not parent.recipe.get("lora"):
                cure = "take a checkpoint-N of a run with lora, or leave --adapters out"
                faults.add(f"no {ADAPTERS}", where=parent.name, key="--adapters", cure=cure)
        except FaultyInput as error:
            faults.extend(error)
    faults.check()


def adapter_file(parent: Parent) -> Path:
    """Where a parent's A and B are."""
    return check_folder(split_name(parent.name)[1]) / ADAPTERS


def merged_encoder(
    parents: Sequence[Parent],
    ancestor: str,
    method: str,
    coefficients: Sequence[float],
    *,
    density: float,
    seed: int,
) -> nn.Module:
    """The ancestor's encoder with the parents' adapters merged into it.

    Args:
        coefficients: one a parent.
        density: of `ties` and `dare`.
        seed: of `dare`.
    """
    from peft import get_peft_model

    # Plain encoders alone are ancestors here: a run with lora began at one.
    encoder: Any = load_encoder(EncoderSpec(name=ancestor))
    encoder.pooler = None
    wrapped: Any = None
    names, ranks = [], []
    for number, parent in enumerate(parents):
        spec = validate(Lora, parent.recipe["lora"], Source(parent.name), ("lora",))
        weights, name = _adapters(parent), f"parent{number}"
        config = _config(spec, weights)
        if wrapped is None:
            wrapped = get_peft_model(encoder, config, adapter_name=name)
        else:
            wrapped.add_adapter(name, config)
        own = {_key(key, name): value for key, value in weights.items()}
        wrapped.load_state_dict(own, strict=False)
        names.append(name)
        ranks.append(spec.r)
    total = sum(coefficients) if method == "average" else 1.0
    combination = COMBINATIONS[method]
    options: dict[str, Any] = {"svd_rank": sum(ranks)} if combination.endswith("svd") else {}
    options |= {"density": density} if combination != "cat" else {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights_of = [c / total for c in coefficients]
        wrapped.add_weighted_adapter(names, weights_of, MERGED, combination_type=combination, **options)
    merged: nn.Module = wrapped.merge_and_unload(adapter_names=[MERGED])
    return merged.requires_grad_(True)


def _adapters(parent: Parent) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(adapter_file(parent))


def _config(spec: Lora, weights: dict[str, Tensor]) -> Any:
    """peft's configuration: the very modules that have adapters."""
    from peft import LoraConfig

    modules = sorted({key.removeprefix("encoder.").split(".lora_")[0] for key in weights})
    alpha: Any = spec.alpha
    return LoraConfig(r=spec.r, lora_alpha=alpha, target_modules=modules)


def _key(name: str, adapter: str) -> str:
    """Our name of a tensor → peft's."""
    return "base_model.model." + name.removeprefix("encoder.").replace(".default.", f".{adapter}.")
