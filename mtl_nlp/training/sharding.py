"""Training with sharded parameters (FSDP2, by accelerate): what it needs of a model with many heads, and what is refused.

Every process takes part in every gathering of parameters and every reduction of gradients, so all have to do the same: as many
forward passes, and gradients for the same heads. A head whose task is in the step, but not among this process' rows, therefore
gets a gradient of zeros here (`MultiTaskModel.forward(idle=…)`); one whose task is nowhere in the step gets none anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from ..errors import Faults, UserError
from ..hub.checkpoint import stored_weights
from ..model.encoder import layers_of
from ..model.multitask import MultiTaskModel
from ..recipe import Recipe

# What would shard heads apart, write a checkpoint in parts, or give unused heads a step.
ONLY: dict[str, tuple[Any, str]] = {
    "version": (2, "FSDP 1 keeps all heads in one flat parameter, so that absent ones would take steps"),
    "auto_wrap_policy": ("TRANSFORMER_BASED_WRAP", "a head that is sharded apart waits for processes without its rows"),
    "state_dict_type": ("FULL_STATE_DICT", "checkpoints are written whole"),
    "xla": (False, "not supported"),
}


def wants_fsdp(training: Mapping[str, Any]) -> bool:
    """Whether `training:` asks for FSDP."""
    return bool(training.get("fsdp")) and training.get("fsdp") not in ("false", "none")


def check_fsdp(recipe: Recipe, faults: Faults) -> None:
    """Note what of a recipe does not go with FSDP."""
    if not wants_fsdp(recipe.training):
        return
    where, config = recipe.place_of("training", "fsdp_config"), recipe.training.get("fsdp_config") or {}
    if not isinstance(config, Mapping):
        faults.add(f"found {config!r}", where=where, key="training.fsdp_config", allowed="a mapping")
        return
    for name, value in config.items():
        plain = str(name).removeprefix("fsdp_")
        if plain in ONLY and str(value).lower() != str(ONLY[plain][0]).lower():
            allowed, reason = ONLY[plain]
            faults.add(
                f"found {value}: {reason}", where=where, key=f"training.fsdp_config.{name}", allowed=str(allowed)
            )
    for task in recipe.definitions:
        if task.kind.annotation == "none":
            found = f"{task.name} shares its output layer with the embeddings, which FSDP shards apart"
            faults.add(
                found,
                where=recipe.place_of("training", "fsdp"),
                key="training.fsdp",
                cure="train it without fsdp (DDP), or leave the task out",
            )


def check_processes(recipe: Recipe) -> None:
    """Refuse FSDP where this run cannot shard.

    Raises:
        FaultyInput: one process, or no accelerator.
    """
    faults, where = Faults(), recipe.place_of("training", "fsdp")
    if not wants_fsdp(recipe.training):
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            found = "the launcher asks for FSDP, the recipe does not"
            faults.add(found, where=where, key="training.fsdp", cure="write training.fsdp: true, or launch without it")
        faults.check()
        return
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        cure = "start with torchrun or accelerate launch, or leave fsdp out"
        faults.add("there is one process, and nothing to shard over", where=where, key="training.fsdp", cure=cure)
    elif not has_accelerator(recipe.training):
        cure = "leave it out: without it several processes train with DDP"
        faults.add("accelerate shards on GPUs only", where=where, key="training.fsdp", cure=cure)
    faults.check()


def shard_layers(arguments: TrainingArguments, model: MultiTaskModel) -> None:
    """Let accelerate shard the encoder layer by layer, unless the recipe names classes.

    Architectures list their embeddings beside their layers, and accelerate shards the word embeddings apart: that would be twice.
    """
    plugin = arguments.fsdp_plugin_args
    if plugin is not None:
        layers = dict.fromkeys(type(layer).__name__ for layer in layers_of(model.encoder))
        plugin.setdefault("transformer_cls_names_to_wrap", list(layers))


def has_accelerator(training: Mapping[str, Any]) -> bool:
    """Whether the run will be on GPUs or the like; accelerate shards on those only, and would go on with DDP on CPUs."""
    return torch.cuda.is_available() and not training.get("use_cpu")


def whole_state(model: MultiTaskModel) -> dict[str, Tensor] | None:
    """All parameters and buffers on the first process (nothing on the others); None for a model that is not sharded.

    All processes have to call it.
    """
    if not model.is_sharded:
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return cast(dict[str, Tensor], get_model_state_dict(model, options=options))


def save_optimizer(trainer: Trainer, folder: Path) -> None:
    """`optimizer.bin` (whole, by parameter name) and `scheduler.pt`; all processes have to call it.

    The Trainer's own way would also pickle the weights, which are in the model's file already.
    """
    from accelerate.utils import save_fsdp_optimizer

    plugin = trainer.accelerator.state.fsdp_plugin
    save_fsdp_optimizer(plugin, trainer.accelerator, trainer.optimizer, trainer.model, str(folder))
    if trainer.args.should_save:
        assert trainer.lr_scheduler is not None
        torch.save(trainer.lr_scheduler.state_dict(), folder / "scheduler.pt")


def load_sharded(model: MultiTaskModel, folder: Path) -> None:
    """A checkpoint's whole weights into a sharded model, strictly; all processes have to call it.

    Raises:
        UserError: keys missing or left over.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    state: dict[str, Any] = stored_weights(folder)
    missing, further = sorted(set(model.state_dict()) - set(state)), sorted(set(state) - set(model.state_dict()))
    if missing or further:
        found = ", ".join([*missing, *further][:6])
        raise UserError(f"{folder}: weights do not fit the model: {found}; resume with the recipe that wrote them")
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True))


def idle_tasks(names: Sequence[str], rows: Mapping[str, int], batch: Mapping[str, Any]) -> list[str]:
    """Tasks that are in the step but not in this batch."""
    return [name for name in names if rows[name] and name not in batch]
