"""Checkpoints: safetensors and JSON, written whole or not at all, loaded strictly.

A model folder holds `config.json`, `model.safetensors`, the tokenizer, `recipe.resolved.yaml`, `metrics.json`, `README.md` and
`checksums.json`. A `checkpoint-N` folder adds what a run resumes from (`mtl_state.json` and the Trainer's files).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UserError, fault, listed
from ..model.config import FORMAT_VERSION
from ..model.encoder import checked_tokenizer
from ..model.multitask import MultiTaskModel

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CHECKSUMS = "checksums.json"
METRICS = "metrics.json"
STATE = "mtl_state.json"


def sync_folder(folder: Path, *, deep: bool = True) -> None:
    """Push a folder (and with `deep` its files) to the disk."""
    if deep:
        for path in folder.iterdir():
            if path.is_file():
                _sync(path)
    if os.name == "posix":
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, data: Any) -> None:
    """JSON, indented, by way of a temporary file."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


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
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise fault(
            f"{STATE} cannot be read: {error}", where=str(folder), cure="resume from another checkpoint"
        ) from error
    if not isinstance(state, dict) or state.get("format_version") != FORMAT_VERSION:
        raise fault(
            "written by another version of mtl-nlp", where=str(folder / STATE), allowed=f"version {FORMAT_VERSION}"
        )
    return state


def newest_checkpoint(run: Path) -> Path | None:
    """The complete `checkpoint-N` with the highest N, None if there is none."""
    found = [path for path in run.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    whole = [path for path in found if (path / STATE).is_file() and (path / "trainer_state.json").is_file()]
    return max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def write_checksums(folder: Path) -> None:
    """`checksums.json`: the SHA-256 of every weight file."""
    write_json(folder / CHECKSUMS, {path.name: _sha256(path) for path in sorted(folder.glob("*.safetensors"))})


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        digest = hashlib.sha256()
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_model(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then move its files into `folder`; the checksums last, so that they vouch for the rest.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = folder / "tmp-model"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    write_checksums(temporary)
    sync_folder(temporary)
    (folder / CHECKSUMS).unlink(missing_ok=True)
    for path in sorted(temporary.iterdir(), key=lambda path: path.name == CHECKSUMS):
        if path.is_dir():
            shutil.rmtree(folder / path.name, ignore_errors=True)
        os.replace(path, folder / path.name)
    temporary.rmdir()
    sync_folder(folder, deep=False)


def check_folder(folder: str | Path) -> Path:
    """The folder, if it holds a multi-task checkpoint; a run that was cut short points to its newest `checkpoint-N`.

    Raises:
        UserError: not a folder, no checkpoint, or one of something else.
    """
    path = Path(folder)
    if not path.is_dir():
        raise fault("no such folder", where=str(folder), allowed="a folder that `mtl-nlp train` wrote")
    if not (path / CONFIG).is_file():
        newest = newest_checkpoint(path)
        if newest is not None:
            raise fault(
                "the run has not finished",
                where=str(folder),
                cure=f"`mtl-nlp train … --resume`, or use {newest} as it is",
            )
        here = listed(sorted(p.name for p in path.iterdir()), 8)
        raise fault(
            f"not a checkpoint: no {CONFIG} (it has {here})", where=str(folder), allowed="a folder of `mtl-nlp train`"
        )
    _check_config(path)
    if not (path / WEIGHTS).is_file() and not (path / INDEX).is_file():
        pickled = [p.name for p in path.glob("*.bin")]
        cure = f"{listed(pickled)} is a pickle, which is not loaded" if pickled else "copy it there, or train again"
        raise fault(f"no {WEIGHTS}", where=str(folder), cure=cure)
    return path


def _check_config(path: Path) -> None:
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise fault(f"not valid JSON: {error}", where=str(path / CONFIG)) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "mtl_nlp":
        cure = (
            f"that is a plain {kind} model; use it as `encoder:` of a recipe"
            if kind
            else "train one with `mtl-nlp train`"
        )
        raise fault("not a multi-task checkpoint", where=str(path / CONFIG), key="model_type", cure=cure)


def check_weights(path: Path) -> None:
    """Compare the weights with their checksums.

    Raises:
        UserError: damaged; a folder without checksums is one whose writing was cut short.
    """
    if not (path / CHECKSUMS).is_file():
        raise fault(f"no {CHECKSUMS}: its writing was cut short", where=str(path), cure="`mtl-nlp train … --resume`")
    for name, expected in json.loads((path / CHECKSUMS).read_text(encoding="utf-8")).items():
        if not (path / name).is_file():
            raise fault("missing", where=str(path / name), cure="copy the whole folder")
        if _sha256(path / name) != expected:
            raise fault(
                "damaged: its checksum is another", where=str(path / name), cure="copy it again, or train again"
            )


def load_model(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> MultiTaskModel:
    """A checkpoint's model, in evaluation mode.

    Raises:
        UserError: not a checkpoint, damaged, of a later version, or with weights missing or left over (named).
    """
    path = check_folder(folder)
    check_weights(path)
    try:
        loading: Any = MultiTaskModel.from_pretrained
        model, info = loading(
            path, dtype=dtype, output_loading_info=True, use_safetensors=True, attn_implementation=_attention()
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise fault(f"cannot be loaded: {lines[0]}", where=str(path)) from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(what):
            names = listed(sorted(str(key) for key in info[what]), 6)
            raise fault(
                f"{what.replace('_', ' ')}: {names}", where=str(path / WEIGHTS), cure="the weights are of another model"
            )
    return model.eval()


def _attention() -> str | None:
    return None if torch.cuda.is_available() or torch.backends.mps.is_available() else "eager"


def load_tokenizer(folder: str | Path) -> Any:
    """A checkpoint's tokenizer.

    Raises:
        UserError: missing or damaged.
    """
    from transformers import AutoTokenizer

    try:
        return checked_tokenizer(AutoTokenizer.from_pretrained(folder), str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise fault(f"the tokenizer cannot be loaded: {str(error).splitlines()[0]}", where=str(folder)) from error


def stored_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint's weight files."""
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
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
