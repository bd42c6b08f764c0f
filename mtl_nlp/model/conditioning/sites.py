"""The places in an encoder where a condition can act."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ...errors import fault, listed

KEY = "conditioning"


def embeddings_of(encoder: Any) -> tuple[str, nn.Embedding]:
    """(name, module) of the table of word embeddings.

    Raises:
        UserError: the encoder has none that is a plain table.
    """
    try:
        found = encoder.get_input_embeddings()
    except NotImplementedError:
        found = None
    name = next((name for name, module in encoder.named_modules() if module is found), None)
    if not isinstance(found, nn.Embedding) or name is None:
        raise unfit(encoder, "it has no plain table of word embeddings", "film or lora")
    return name, found


def is_norm(module: nn.Module) -> bool:
    """A layer normalisation, RMS or other, with a weight a feature."""
    weight = getattr(module, "weight", None)
    return (
        isinstance(weight, nn.Parameter)
        and weight.dim() == 1
        and "norm" in type(module).__name__.lower()
        and not isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm)
    )


def is_linear(module: nn.Module) -> bool:
    """GPT-2 calls it Conv1D."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def features(module: Any) -> tuple[int, int]:
    """(in, out) of a linear module."""
    first, second = module.weight.shape
    return (second, first) if isinstance(module, nn.Linear) else (first, second)


def modules_at(encoder: nn.Module, kind: str, sites: Sequence[str]) -> dict[str, Any]:
    """Site → module.

    Raises:
        UserError: a site that is not there or is of another sort (a checkpoint's own list is not trusted).
    """
    # Where the whole encoder has adapters too (`lora:`), the module itself is inside peft's.
    known = {name: getattr(module, "base_layer", module) for name, module in encoder.named_modules()}
    fits = is_norm if kind == "film" else is_linear
    odd = [site for site in sites if site not in known or not fits(known[site])]
    if odd or len(set(sites)) != len(sites) or not sites:
        found = f"no such module: {listed(odd, 3)}" if odd else "no site, or one of them twice"
        allowed = f"names of the encoder's {'normalisation' if kind == 'film' else 'linear'} modules, each once"
        raise fault(found, where="config.json", key=f"{KEY}.sites", allowed=allowed)
    return {site: known[site] for site in sites}


def unfit(encoder: Any, reason: str, instead: str) -> Exception:
    """The encoder cannot be conditioned in this way."""
    kind = getattr(getattr(encoder, "config", None), "model_type", type(encoder).__name__)
    return fault(f"{kind} cannot be conditioned so: {reason}", key=f"{KEY}.kind", cure=f"{instead}, or another encoder")
