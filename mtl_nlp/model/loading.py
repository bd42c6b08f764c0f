"""Checkpoint → `MultiTaskModel`, strictly: the one way in, for `from_pretrained`, `AutoModel` and the commands alike.

A folder (or `OWNER/NAME[@REVISION]`) is checked from the outside in: what its files are, their checksums, the configuration,
the names and shapes of the weights; then transformers loads it, and the numbers are looked at. Whatever does not fit is named.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import FaultyInput, UserError, fault, listed
from .config import FORMAT_VERSION, MultiTaskConfig
from .files import (
    CONFIG,
    ENSEMBLE,
    FLOATS,
    INDEX,
    MAX_LAYERS,
    MAX_TASKS,
    MODEL_TYPE,
    STATE,
    TOKENIZER_CONFIG,
    WEIGHTS,
    check_checksums,
    check_links,
    forbid_code,
    read_json,
    tensor_table,
    weight_files,
)
from .snapshot import download, hub_name

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "proxies")


def checkpoint_folder(name: str | Path, *, revision: str | None = None, **options: Any) -> Path:
    """The folder that `name` means: itself, or the cached revision of `OWNER/NAME[@REVISION]`.

    Raises:
        UserError: neither a folder nor a model on the Hub.
    """
    path = Path(name)
    if path.is_dir():
        return path
    found = hub_name(str(name))
    if found is None:
        allowed = "a folder that `mtl-nlp train` wrote, or OWNER/NAME[@REVISION] on the Hub"
        raise fault("no such folder", where=str(name), allowed=allowed)
    try:
        return download(found[0], found[1] or revision, **options)
    except FaultyInput as error:
        raise fault(
            f"no such folder, and as a name on the Hub: {error.faults[0].found}",
            where=str(name),
            cure=error.faults[0].cure,
        ) from error


def newest_checkpoint(run: Path) -> Path | None:
    """The complete `checkpoint-N` with the highest N, None if there is none."""
    found = [path for path in run.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    whole = [path for path in found if (path / STATE).is_file() and (path / "trainer_state.json").is_file()]
    return max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def check_folder(name: str | Path, *, revision: str | None = None, **options: Any) -> Path:
    """The folder of a multi-task checkpoint, given or downloaded; a run that was cut short points to its newest `checkpoint-N`.

    Raises:
        UserError: not a folder, no checkpoint, one of something else or of a later version, or a hostile one.
    """
    path = checkpoint_folder(name, revision=revision, **options)
    if not (path / CONFIG).is_file():
        newest = newest_checkpoint(path)
        if newest is not None:
            raise fault(
                "the run has not finished",
                where=str(name),
                cure=f"`mtl-nlp train … --resume`, or use {newest} as it is",
            )
        if (path / ENSEMBLE).is_file():
            cure = "this needs a single one: take one of its members, or distil it (`mtl-nlp fuse distil`)"
            raise fault("an ensemble of checkpoints", where=str(name), cure=cure)
        here = listed(sorted(p.name for p in path.iterdir()), 8)
        raise fault(
            f"not a checkpoint: no {CONFIG} (it has {here})", where=str(name), allowed="a folder of `mtl-nlp train`"
        )
    check_links(path)
    config = _own_config(path)
    weight_files(path)
    check_config(path, config)
    return path


def _own_config(path: Path) -> dict[str, Any]:
    where = str(path / CONFIG)
    config = read_json(path / CONFIG)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != MODEL_TYPE:
        cure = "train one with `mtl-nlp train`"
        if isinstance(kind, str) and kind:
            cure = f"that is a plain {kind[:60]} model; use it as `encoder:` of a recipe"
        raise fault("not a multi-task checkpoint", where=where, key="model_type", cure=cure)
    assert isinstance(config, dict)
    return config


def check_config(path: Path, config: dict[str, Any]) -> None:
    """Refuse the configuration of a checkpoint that this version does not read or that is hostile.

    Raises:
        UserError: of another version, with too many tasks or layers, or naming code.
    """
    where = str(path / CONFIG)
    _check_version(config, where)
    forbid_code(config, path / CONFIG)
    if (path / "adapter_config.json").exists():
        cure = "merge the adapter into the weights first"
        raise fault("names another model to load", where=str(path / "adapter_config.json"), cure=cure)
    tasks = config.get("tasks")
    if not isinstance(tasks, list) or not tasks or len(tasks) > MAX_TASKS:
        found = f"{len(tasks)} tasks" if isinstance(tasks, list) else f"a {type(tasks).__name__}"
        raise fault(f"found {found}", where=where, key="tasks", allowed=f"a list of 1 to {MAX_TASKS} tasks")
    encoder = config.get("encoder_config")
    if not isinstance(encoder, dict):
        raise fault(f"found {type(encoder).__name__}", where=where, key="encoder_config", allowed="a mapping")
    for key, value in encoder.items():
        if "layers" in key and isinstance(value, int | float) and value > MAX_LAYERS:
            raise fault(f"found {value}", where=where, key=f"encoder_config.{key}", allowed=f"at most {MAX_LAYERS}")


def _check_version(config: dict[str, Any], where: str) -> None:
    found = config.get("format_version")
    if found == FORMAT_VERSION and type(found) is int:
        return
    if isinstance(found, int) and found > FORMAT_VERSION:
        writer = config.get("mtl_nlp_version")
        known = isinstance(writer, str) and re.fullmatch(r"[0-9][0-9A-Za-z.+-]{0,30}", writer)
        cure = f'pip install "mtl-nlp>={writer}"' if known else "install the newest version: pip install -U mtl-nlp"
        raise fault(
            f"written by a later mtl-nlp, in format {found}", where=where, key="format_version",
            allowed=f"{FORMAT_VERSION} for this version", cure=cure,
        )  # fmt: skip
    raise fault(f"found {found!r}"[:100], where=where, key="format_version", allowed=str(FORMAT_VERSION))


def check_weights(path: Path) -> None:
    """Compare the files of a model with their checksums.

    Raises:
        UserError: damaged; a folder without checksums is one whose writing was cut short.
    """
    files = [file.name for file in weight_files(path)]
    index = [INDEX] if (path / INDEX).is_file() else []
    check_checksums(path, [CONFIG, *index, *files])
    if (path / TOKENIZER_CONFIG).is_file():
        forbid_code(read_json(path / TOKENIZER_CONFIG), path / TOKENIZER_CONFIG)


def read_config(path: Path) -> MultiTaskConfig:
    """The configuration of a folder that `check_folder` let through.

    Raises:
        UserError: an encoder or a task that is not valid.
    """
    try:
        config = MultiTaskConfig.from_pretrained(path)
        config.task_definitions()
    except UserError:
        raise
    except Exception as error:
        # A hostile file can make transformers raise anything.
        raise _unloadable(path / CONFIG, error) from error
    return config


def load_strictly(model_class: Any, read: Callable[..., Any], name: Any, *args: Any, **kwargs: Any) -> Any:
    """`from_pretrained`: what `read`, transformers' own, would give, and nothing that does not fit.

    Raises:
        UserError: whatever is wrong with the checkpoint, by name.
    """
    if name is None:  # weights and configuration in memory
        return read(name, *args, **kwargs)
    if kwargs.pop("ignore_mismatched_sizes", False):
        raise fault("not used here", key="ignore_mismatched_sizes", cure="a checkpoint is loaded whole; leave it out")
    hub = {key: kwargs.pop(key) for key in HUB_OPTIONS if kwargs.get(key) is not None}
    folder = check_folder(name, revision=kwargs.pop("revision", None), **hub)
    if kwargs.get("subfolder"):
        raise fault("not used here", key="subfolder", cure="give the folder itself")
    check_weights(folder)
    config = kwargs.pop("config", None)
    if not isinstance(config, MultiTaskConfig):
        config = read_config(folder)
    check_shapes(model_class, config, folder)
    wants_info = kwargs.pop("output_loading_info", False)
    kwargs["use_safetensors"] = True
    if "attn_implementation" not in kwargs and getattr(config, "_attn_implementation_internal", None) is None:
        kwargs["attn_implementation"] = default_attention()
    try:
        model, info = read(folder, *args, config=config, output_loading_info=True, **kwargs)
    except UserError:
        raise
    except Exception as error:
        # A hostile file can make the libraries raise anything.
        raise _unloadable(folder, error) from error
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(what):
            names = listed(sorted(str(key) for key in info[what]), 6)
            raise _misfit(f"{what.replace('_', ' ')}: {names}", folder)
    check_numbers(model, folder)
    return (model, info) if wants_info else model


def default_attention() -> str | None:
    """Plain attention on a CPU, transformers' own choice elsewhere: the same as in training."""
    return None if torch.cuda.is_available() or torch.backends.mps.is_available() else "eager"


def check_shapes(model_class: Any, config: MultiTaskConfig, folder: Path) -> None:
    """Compare the weights' names and shapes with those of the model that the configuration describes (built without memory).

    Raises:
        UserError: weights missing, left over, of another shape or kind, each by name.
    """
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for path in weight_files(folder):
        table = tensor_table(path)
        doubled = sorted(found.keys() & table.keys())
        if doubled:
            raise _misfit(f"in two shards: {listed(doubled, 6)}", folder)
        found |= table
    try:
        with torch.device("meta"):
            skeleton = model_class(copy.deepcopy(config))
    except UserError:
        raise
    except Exception as error:
        # A hostile file can make the libraries raise anything.
        raise _unloadable(folder / CONFIG, error) from error
    wanted = skeleton.state_dict()
    tied = set(getattr(skeleton, "all_tied_weights_keys", None) or {})
    missing = sorted(wanted.keys() - found.keys() - tied)
    if missing:
        raise _misfit(f"weights missing: {listed(missing, 6)}", folder)
    unexpected = sorted(found.keys() - wanted.keys())
    if unexpected:
        raise _misfit(f"unexpected weights: {listed(unexpected, 6)}", folder)
    for name, (kind, shape) in found.items():
        if tuple(wanted[name].shape) != shape:
            raise _misfit(f"{name} has shape {list(shape)}, the model {list(wanted[name].shape)}", folder)
        if wanted[name].is_floating_point() != (kind in FLOATS):
            raise _misfit(f"{name} holds {kind}", folder)


def check_numbers(model: nn.Module, folder: Path) -> None:
    """Refuse weights that are no numbers.

    Raises:
        UserError: NaN or infinity, in which weight.
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.device.type != "meta" and not bool(torch.isfinite(value).all()):
            raise fault(
                f"{name} has NaN or infinity",
                where=str(folder / WEIGHTS),
                cure="the training that wrote it diverged, or the dtype is too narrow; take an earlier checkpoint",
            )


def _misfit(found: str, folder: Path) -> FaultyInput:
    return fault(found, where=str(folder / WEIGHTS), cure="the weights are of another model")


def _unloadable(path: Path, error: Exception) -> FaultyInput:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return fault(f"cannot be loaded: {lines[0][:300]}", where=str(path), cure="copy it again, or train again")
