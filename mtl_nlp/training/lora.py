"""LoRA: low-rank adapters on the encoder's linear modules while its own weights stand still (Hu et al. 2021, arXiv:2106.09685).

The adapters are peft's. They are put into the shared encoder alone, in place, and heads train as always. Whatever is saved is an
ordinary checkpoint, W + (alpha / r)·BA in place of W; `checkpoint-N` has A and B beside it, because W cannot be had back from the
sum bit by bit. Before the finished model is scored the adapters are merged for good.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, fault, listed
from ..model.files import ADAPTERS
from ..model.multitask import MultiTaskModel
from ..recipe import Lora

ADAPTER = "default"


def add_adapters(model: MultiTaskModel, spec: Lora) -> None:
    """Put fresh adapters into the encoder (B is zero, so that the outputs are the same) and freeze its own weights.

    Raises:
        UserError: peft is not installed, or no module has a name of `targets`.
    """
    try:
        from peft import LoraConfig, LoraModel
    except ImportError as error:
        raise UserError('lora needs peft: pip install "mtl-nlp[lora]"') from error
    targets: Any = _targets(model, spec)
    alpha: Any = spec.alpha  # peft writes int, and computes alpha / r
    config = LoraConfig(r=spec.r, lora_alpha=alpha, lora_dropout=spec.dropout, target_modules=targets)
    LoraModel(model.encoder, config, ADAPTER)


def _targets(model: MultiTaskModel, spec: Lora) -> list[str]:
    """The last parts of the names of the modules that get adapters."""
    known = _linear_names(model)
    if spec.targets == "all-linear":
        return known
    wanted = [spec.targets] if isinstance(spec.targets, str) else spec.targets
    modules = dict(model.encoder.named_modules())
    for target in wanted or [""]:
        found = [m for name, m in modules.items() if name == target or name.endswith(f".{target}")]
        if not target or not found or not all(_is_linear(module) for module in found):
            what = "no linear module" if found else "no module"
            allowed = f"all-linear, {listed(known, 20)}"
            raise fault(f'the encoder has {what} "{target}"', key="lora.targets", allowed=allowed)
    return wanted


def _is_linear(module: nn.Module) -> bool:
    """GPT-2 calls it Conv1D."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _linear_names(model: MultiTaskModel) -> list[str]:
    """Names of the encoder's linear modules, without the part that counts layers."""
    return sorted(dict.fromkeys(_tail(name) for name, m in model.encoder.named_modules() if _is_linear(m)))


def _tail(name: str) -> str:
    """`encoder.layer.0.attention.self.query` → `attention.self.query`."""
    parts = name.split(".")
    last = max((place for place, part in enumerate(parts) if part.isdigit()), default=-1)
    return ".".join(parts[last + 1 :])


def _layers(model: MultiTaskModel) -> Iterator[tuple[str, Any]]:
    """(name in the model, adapted module)."""
    if not any(".lora_A." in name for name, _ in model.encoder.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in model.encoder.named_modules(prefix="encoder"):
        if isinstance(module, LoraLayer):
            yield name, module


def is_adapted(model: MultiTaskModel) -> bool:
    """Whether the encoder has adapters."""
    return next(_layers(model), None) is not None


def adapter_state(model: MultiTaskModel) -> dict[str, Tensor]:
    """A and B of every adapted module."""
    return {name: value for name, value in model.state_dict().items() if ".lora_A." in name or ".lora_B." in name}


def merged_state(model: MultiTaskModel) -> dict[str, Tensor]:
    """The state of the ordinary model with equal outputs, under the names that it has without adapters; nothing is changed."""
    layers = dict(_layers(model))
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        owner = next((layer for layer in layers if name.startswith(f"{layer}.")), None)
        if owner is None:
            state[name] = value
        elif name == f"{owner}.base_layer.weight":
            state[f"{owner}.weight"] = value + layers[owner].get_delta_weight(ADAPTER).to(value.dtype)
        elif name.startswith(f"{owner}.base_layer."):
            state[f"{owner}.{name.removeprefix(f'{owner}.base_layer.')}"] = value
    return state


def merge(model: MultiTaskModel) -> None:
    """Merge the adapters into the encoder for good; it is an ordinary one afterwards, bit by bit that of `merged_state`."""
    for name, layer in list(_layers(model)):
        layer.merge(safe_merge=False, adapter_names=[ADAPTER])
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.get_base_layer())
    if hasattr(model.encoder, "peft_config"):
        del model.encoder.peft_config


def write_adapters(model: MultiTaskModel, folder: Path) -> None:
    """`lora.safetensors`: what a run resumes from, beside the merged model."""
    from safetensors.torch import save_file

    save_file(
        {name: value.detach().cpu().contiguous() for name, value in adapter_state(model).items()}, folder / ADAPTERS
    )


def load_adapters(model: MultiTaskModel, folder: Path) -> None:
    """Adapters and heads of a `checkpoint-N`; the encoder's own weights are those that the run began with.

    Raises:
        UserError: the adapters do not fit, or the encoder is not the one that the run began with.
    """
    from safetensors.torch import load_file

    if not (folder / ADAPTERS).is_file():
        raise fault(f"no {ADAPTERS}", where=str(folder), cure="it was not written by a run with lora")
    adapters = load_file(folder / ADAPTERS)
    saved: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        saved |= load_file(path) if path.name != ADAPTERS else {}
    if adapters.keys() != adapter_state(model).keys():
        odd = listed(sorted(adapters.keys() ^ adapter_state(model).keys()), 6)
        raise fault(f"the adapters are of another run: {odd}", where=str(folder / ADAPTERS))
    own = {name: value for name, value in saved.items() if name.startswith(("heads.", "conditioning."))}
    model.load_state_dict(adapters | own, strict=False)
    merged = merged_state(model)
    changed = [name for name, value in saved.items() if not torch.equal(merged[name].cpu(), value)]
    if changed:
        cure = "resume with the encoder that the run began with"
        raise fault(
            f"the encoder is another one: {listed(changed, 3)} differ", where=str(folder), key="encoder", cure=cure
        )
