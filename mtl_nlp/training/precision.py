"""`training.bf16: auto`: bfloat16 where the machine computes in it, asked of torch and the processor.

Weights, gradients and the optimizer stay in float32; the layers run under autocast. The answer depends on the machine and the
encoder's width alone, never on a timing, so that all processes of a run give the same one, and it is written into the resolved
recipe as `true` or `false`, so that a repeat elsewhere is of the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..recipe import RESOLVED, Recipe
from ..schema import read_yaml
from .arguments import DEFAULTS

# Narrower layers gain nothing on a CPU: a step of a BERT 32 wide took 1.4 times as long under autocast, 64 wide as long, 128 wide
# 0.7 times as long (AVX512-BF16, 768 tokens).
NARROWEST = 128


@dataclass(frozen=True)
class Precision:
    """What a run computes in.

    Attributes:
        bf16: whether layers run in bfloat16.
        reason: in a few words.
        chosen: by `auto`, rather than by the recipe.
    """

    bf16: bool
    reason: str
    chosen: bool = True

    def __str__(self) -> str:
        kind = "bfloat16, weights and optimizer in float32" if self.bf16 else "float32"
        return f"precision: {kind} ({self.reason})"


def machine_bf16(*, use_cpu: bool = False) -> tuple[bool, str]:
    """Whether the device that a run takes has bfloat16 matrix products of its own, and which; emulation does not count."""
    if torch.cuda.is_available() and not use_cpu:
        found = torch.cuda.is_bf16_supported(including_emulation=False)
        return found, torch.cuda.get_device_name() if found else "the GPU has no bfloat16"
    if torch.backends.mps.is_available() and not use_cpu:
        return False, "not on MPS"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False, "the processor has no bfloat16"
    for ask, name in (("_is_amx_tile_supported", "AMX"), ("_is_avx512_bf16_supported", "AVX512-BF16")):
        if getattr(torch.cpu, ask, lambda: False)():
            return True, name
    # oneDNN counts processors that only convert; on Arm it asks for the instructions themselves.
    arm = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2", "AVX512")
    return arm, torch.backends.cpu.get_cpu_capability() if arm else "the processor has no bfloat16 matrix products"


def precision_of(recipe: Recipe, encoder_config: Any) -> Precision:
    """What the recipe's `training.bf16` means on this machine.

    Args:
        encoder_config: tells the encoder's width.
    """
    training = recipe.training
    given = training.get("bf16", DEFAULTS["bf16"])
    if given != "auto":
        return Precision(bool(given), "as the recipe says", chosen=False)
    if training.get("fp16"):
        return Precision(False, "the layers run in float16, as the recipe says")
    if recipe.performance == "plain":
        return Precision(False, "performance: plain")
    use_cpu = bool(training.get("use_cpu"))
    found, reason = machine_bf16(use_cpu=use_cpu)
    width = getattr(encoder_config, "hidden_size", None) or getattr(encoder_config, "dim", None) or NARROWEST
    on_cpu = use_cpu or not torch.cuda.is_available()
    if found and on_cpu and width < NARROWEST:
        return Precision(False, f"an encoder {width} wide gains nothing by bfloat16 on a CPU")
    return Precision(found, reason)


def settle_precision(recipe: Recipe, encoder_config: Any) -> Precision:
    """Write into the recipe what `auto` is here; returns it."""
    precision = precision_of(recipe, encoder_config)
    recipe.training = {**recipe.training, "bf16": precision.bf16}
    return precision


def keep_precision(recipe: Recipe, precision: Precision, checkpoint: Path) -> Precision:
    """A resumed run goes on in the precision that it was started with, wherever that was, unless its recipe says otherwise."""
    before = (read_yaml(checkpoint / RESOLVED, "resolved recipe")[0].get("training") or {}).get("bf16")
    if not precision.chosen or before in (None, "auto", precision.bf16):
        return precision
    recipe.training = {**recipe.training, "bf16": bool(before)}
    return Precision(bool(before), "as the run was started")
