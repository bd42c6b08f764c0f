"""Checkpoints: safetensors and JSON, written whole or not at all, loaded strictly.

A model folder holds `config.json`, `model.safetensors`, the tokenizer, `recipe.resolved.yaml`, `metrics.json`, `README.md` and
`checksums.json`. A `checkpoint-N` folder adds what a run resumes from (`mtl_state.json` and the Trainer's files).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..durable import sync_folder
from ..errors import UserError, fault, listed
from ..model.config import FORMAT_VERSION
from ..model.encoder import checked_tokenizer
from ..model.files import (
    CARD,
    CHECKSUMS,
    CONFIG,
    HISTORY,
    INDEX,
    METRICS,
    STATE,
    TOKENIZER_CONFIG,
    WEIGHTS,
    forbid_code,
    read_json,
    weight_files,
    write_checksums,
    write_json,
)
from ..model.loading import check_folder, check_weights, newest_checkpoint
from ..model.multitask import MultiTaskModel
from .aligned import align_weights

__all__ = [
    "CARD",
    "CHECKSUMS",
    "CONFIG",
    "HISTORY",
    "INDEX",
    "METRICS",
    "STATE",
    "WEIGHTS",
    "check_folder",
    "check_weights",
    "load_model",
    "load_tokenizer",
    "load_weights",
    "newest_checkpoint",
    "read_state",
    "write_checksums",
    "write_json",
    "write_model",
    "write_state",
]


def write_state(
    folder: Path,
    *,
    step: int,
    mixture: Mapping[str, Any],
    schedule: Mapping[str, Any],
    sizes: Mapping[str, int],
    balancing: Mapping[str, Any] | None = None,
) -> None:
    """`mtl_state.json`: where mixture, loss weights and aggregator stand after `step` steps, and what the run has decided."""
    state = {"format_version": FORMAT_VERSION, "step": step, "mixture": mixture, "schedule": schedule, "sizes": sizes}
    state["balancing"] = dict(balancing or {})
    write_json(folder / STATE, state)


def read_state(folder: Path) -> dict[str, Any]:
    """The content of `mtl_state.json`.

    Raises:
        UserError: missing, not JSON, or of another version.
    """
    try:
        state = read_json(folder / STATE)
    except UserError as error:
        raise fault(
            f"{STATE} cannot be read: {error}", where=str(folder), cure="resume from another checkpoint"
        ) from error
    if not isinstance(state, dict) or state.get("format_version") != FORMAT_VERSION:
        raise fault(
            "written by another version of mtl-nlp", where=str(folder / STATE), allowed=f"version {FORMAT_VERSION}"
        )
    return state


def write_model(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then move its files into `folder`; the checksums last, so that they vouch for the rest.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = folder / "tmp-model"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    align_weights(temporary)
    write_checksums(temporary)
    sync_folder(temporary)
    (folder / CHECKSUMS).unlink(missing_ok=True)
    for old in [*folder.glob("*.safetensors"), folder / INDEX]:
        old.unlink(missing_ok=True)  # shards of an earlier write would be left over
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == CHECKSUMS):
        if path.is_dir():
            shutil.rmtree(folder / path.name, ignore_errors=True)
        os.replace(path, folder / path.name)
    temporary.rmdir()
    sync_folder(folder, deep=False)


def load_model(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> MultiTaskModel:
    """A checkpoint's model, in evaluation mode: `MultiTaskModel.from_pretrained` in float32.

    Args:
        folder: a folder, or `OWNER/NAME[@REVISION]`.

    Raises:
        UserError: not a checkpoint, damaged, hostile, of a later version, or with weights missing or left over (named).
    """
    return MultiTaskModel.from_pretrained(folder, dtype=dtype)


def load_tokenizer(folder: str | Path) -> Any:
    """A checkpoint's tokenizer.

    Raises:
        UserError: missing or damaged.
    """
    return tokenizer_of(check_folder(folder), str(folder))


def tokenizer_of(path: Path, name: str) -> Any:
    """The tokenizer of a folder that need not be a checkpoint (an ONNX folder); `name` is what messages call it.

    Raises:
        UserError: missing or damaged.
    """
    from transformers import AutoTokenizer

    if (path / TOKENIZER_CONFIG).is_file():
        forbid_code(read_json(path / TOKENIZER_CONFIG), path / TOKENIZER_CONFIG)
    try:
        return checked_tokenizer(AutoTokenizer.from_pretrained(path, trust_remote_code=False), name)
    except UserError:
        raise
    except Exception as error:
        # A damaged file can make the libraries raise anything.
        lines = str(error).splitlines() or [type(error).__name__]
        raise fault(f"the tokenizer cannot be loaded: {lines[0][:300]}", where=name) from error


def stored_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint's weight files."""
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        state |= load_file(path)
    return state


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load a checkpoint's weights into `model`, strictly but for parameters that are tied to others.

    Raises:
        UserError: keys missing or left over.
    """
    state = stored_weights(folder)
    result = model.load_state_dict(state, strict=False)
    tied = set(getattr(model, "all_tied_weights_keys", {}) or {})
    missing = sorted(set(result.missing_keys) - tied)
    if missing or result.unexpected_keys:
        found = listed([*missing, *result.unexpected_keys], 6)
        raise UserError(f"{folder}: weights do not fit the model: {found}; resume with the recipe that wrote them")
    if tied:
        model.tie_weights()  # type: ignore[operator]
