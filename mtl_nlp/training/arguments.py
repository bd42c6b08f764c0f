"""`training:` of a recipe → `transformers.TrainingArguments`, checked.

What contradicts the road is refused by name with what to use instead; types are checked here because `TrainingArguments` does not
(`learning_rate: "5e-5"` would be kept as a string). Our defaults are the table `DEFAULTS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import torch
from transformers import TrainingArguments

from ..consistency import JOINT_METRICS
from ..data.budget import BudgetMixture
from ..data.mixture import Mixture, check_division
from ..errors import Faults, FaultyInput, closest, listed
from ..processes import leave_at_exit
from ..recipe import Recipe
from ..schema import parse_value
from .placing import placed
from .sharding import check_fsdp

DEFAULTS: dict[str, Any] = {
    "num_train_epochs": 3,
    "learning_rate": 5e-5,
    "weight_decay": 0.01,
    "warmup_steps": 0.06,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "eval_mean",
    "logging_steps": 50,
    # A loss that is no number is shown as it is, and a GPU is not waited for in every step to hide it.
    "logging_nan_inf_filter": False,
    # Settled by `precision` when data is prepared, and written out in the resolved recipe.
    "bf16": "auto",
    # Else transformers hides bars whenever its own verbosity is low.
    "disable_tqdm": False,
    "per_device_eval_batch_size": 64,
    "report_to": "none",
}

# Least value, whether that is itself too small, and what a value has to stay below: torch and transformers say it late, if at all.
RANGES: dict[str, tuple[float, bool, float | None]] = {
    "learning_rate": (0.0, False, None),
    "weight_decay": (0.0, False, None),
    "adam_beta1": (0.0, False, 1.0),
    "adam_beta2": (0.0, False, 1.0),
    "adam_epsilon": (0.0, False, None),
    "max_grad_norm": (0.0, False, None),
    "num_train_epochs": (0.0, True, None),
    "warmup_steps": (0.0, False, None),
    "gradient_accumulation_steps": (1.0, False, None),
    "per_device_eval_batch_size": (1.0, False, None),
    "dataloader_num_workers": (0.0, False, None),
    "logging_steps": (0.0, True, None),
    "eval_steps": (0.0, True, None),
    "save_steps": (0.0, True, None),
    "save_total_limit": (1.0, False, None),
}

OWN = ("head_learning_rate", "layer_lr_decay")

REFUSED = {
    "per_device_train_batch_size": "use mixture.batch, the global batch; a device's part follows from it",
    "seed": "use the recipe's own `seed`",
    "data_seed": "use the recipe's own `seed`",
    "output_dir": "use the recipe's own `output_dir`, or --output",
    "remove_unused_columns": "rows carry several tasks; leave it out",
    "label_names": "labels belong to tasks; leave it out",
    "label_smoothing_factor": "a loss belongs to a task; leave it out",
    "resume_from_checkpoint": "use --resume",
    "auto_find_batch_size": "the mixture is planned for mixture.batch; lower that, or raise gradient_accumulation_steps",
    "dataloader_drop_last": "the mixture gives whole batches; leave it out",
    "train_sampling_strategy": "use mixture.strategy and mixture.batching",
    "eval_do_concat_batches": "tasks are scored from decoded labels; leave it out",
    "batch_eval_metrics": "tasks are scored from decoded labels; leave it out",
    "prediction_loss_only": "tasks are scored from decoded labels; leave it out",
    "include_for_metrics": "tasks are scored from decoded labels; leave it out",
    "average_tokens_across_devices": "labelled units are always counted over all devices; leave it out",
    "past_index": "encoders have no past; leave it out",
    "do_train": "use `mtl-nlp train`",
    "do_eval": "use eval_strategy",
    "do_predict": "use `mtl-nlp predict`",
    "hub_token": "it would stand in the checkpoint for all to read; `hf auth login`, or set HF_TOKEN",
    "save_only_model": 'a run could not be resumed; use save_strategy: "no" to save nothing but the final model',
    "deepspeed": "use fsdp, which shards what ZeRO 3 shards",
    "ignore_data_skip": "a resumed run sees exactly what is left; leave it out",
}

GONE = {
    "evaluation_strategy": "eval_strategy",
    "warmup_ratio": "warmup_steps (a fraction below 1 is a share of the steps)",
    "overwrite_output_dir": "--output with another folder",
    "save_safetensors": "nothing: weights are always safetensors",
    "group_by_length": "nothing",
    "no_cuda": "use_cpu",
    "logging_dir": "report_to and the back end's own setting",
}


@dataclass(frozen=True)
class OwnArguments:
    """What transformers has no name for.

    Attributes:
        head_learning_rate: for the heads; `learning_rate` when None.
        conditioning_learning_rate: of the tasks' conditions (`conditioning.learning_rate`); the heads' when None.
        layer_lr_decay: each layer's rate is that of the layer above it times this (ULMFiT, arXiv:1801.06146).
    """

    head_learning_rate: float | None = None
    layer_lr_decay: float = 1.0
    conditioning_learning_rate: float | None = None


def check_training(recipe: Recipe) -> None:
    """Every fault of the `training:` block at once.

    Raises:
        FaultyInput: refused, unknown or ill-typed arguments.
    """
    faults = Faults()
    known = {field.name: field for field in fields(TrainingArguments) if field.init}
    for name, value in recipe.training.items():
        where, key = recipe.place_of("training", name), f"training.{name}"
        if name in OWN:
            _check_own(name, value, where, key, faults)
        elif name in REFUSED:
            faults.add("not used here", where=where, key=key, cure=REFUSED[name])
        elif name in GONE:
            faults.add("gone from transformers 5", where=where, key=key, cure=f"use {GONE[name]}")
        elif name not in known:
            guess = closest(name, [*known, *OWN]).strip()
            faults.add(
                "unknown argument",
                where=where,
                key=key,
                allowed="a field of transformers.TrainingArguments",
                cure=guess,
            )
        else:
            # transformers takes true for fsdp, though its hint says otherwise; auto is ours.
            hint = {"fsdp": bool | str | None, "bf16": bool | Literal["auto"]}.get(name, known[name].type)
            _check_type(hint, value, where, key, faults)
    if recipe.training.get("max_steps", -1) in (0, 0.0):
        allowed = "a whole number from 1, or -1: as many as num_train_epochs makes"
        faults.add("found 0", where=recipe.place_of("training", "max_steps"), key="training.max_steps", allowed=allowed)
    check_fsdp(recipe, faults)
    faults.check()


def _check_own(name: str, value: Any, where: str, key: str, faults: Faults) -> None:
    limits = (0.0, 1.0) if name == "layer_lr_decay" else (0.0, float("inf"))
    allowed = "a number above 0, at most 1" if name == "layer_lr_decay" else "a number above 0"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not limits[0] < value <= limits[1]:
        faults.add(f"found {value!r}", where=where, key=key, allowed=allowed)


def _check_type(hint: Any, value: Any, where: str, key: str, faults: Faults) -> None:
    from pydantic import PydanticSchemaGenerationError, PydanticUndefinedAnnotation, TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(hint)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        return
    try:
        adapter.validate_python(value, strict=not isinstance(value, str) or _is_plain(hint))
    except ValidationError:
        cure = "write it without quotes" if isinstance(value, str) and not isinstance(parse_value(value), str) else ""
        faults.add(f"found {value!r}", where=where, key=key, allowed=_told(hint), cure=cure)
        return
    least, exclusive, most = RANGES.get(key.removeprefix("training."), (None, False, None))
    if least is None or isinstance(value, bool | str) or value is None:
        return
    outside = value <= least if exclusive else value < least
    if outside or value != value or (most is not None and value >= most):
        allowed = f"a number {'above' if exclusive else 'from'} {least:g}" + (f" and below {most:g}" if most else "")
        faults.add(f"found {value!r}", where=where, key=key, allowed=allowed)


def _told(hint: Any) -> str:
    """A type in the words of a recipe."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", type(None): "nothing"}
    if get_origin(hint) is Literal:
        return " or ".join(str(one) for one in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_told(one) for one in get_args(hint)))
    return words.get(hint) or getattr(hint, "__name__", None) or str(hint).replace("typing.", "")


def _is_plain(hint: Any) -> bool:
    """Whether strings have to stay strings for this hint (enumerations take them)."""
    return all(word not in str(hint) for word in ("Strategy", "Enum", "Type", "Names", "Scheduler", "Hub"))


def training_arguments(
    recipe: Recipe, *, max_steps: int, processes: int | None = None
) -> tuple[TrainingArguments, OwnArguments]:
    """The Trainer's arguments and ours.

    Args:
        max_steps: from the mixture, fixed before the first step.

    Raises:
        FaultyInput: values that transformers refuses, or a global batch that does not divide.
    """
    settings = {**DEFAULTS, **{k: v for k, v in recipe.training.items() if k not in OWN}}
    own = OwnArguments(**{k: recipe.training[k] for k in OWN if k in recipe.training})
    if recipe.conditioning is not None:
        own = replace(own, conditioning_learning_rate=recipe.conditioning.learning_rate)
    if settings["eval_strategy"] == "no" or settings["save_strategy"] == "no":
        settings = {k: v for k, v in settings.items() if k != "load_best_model_at_end" or k in recipe.training}
    elif settings["eval_strategy"] != settings["save_strategy"] and "load_best_model_at_end" not in recipe.training:
        settings["load_best_model_at_end"] = False
    if not any(task.counts_in_mean for task in recipe.definitions):
        # Nothing is scored (masked LM alone, auxiliary tasks alone), so no model is the best.
        for name in ("load_best_model_at_end", "metric_for_best_model"):
            settings = {k: v for k, v in settings.items() if k != name or k in recipe.training}
    settings.setdefault("greater_is_better", True)
    # Without an accelerator transformers allows bf16 only when it is told so.
    settings.setdefault("use_cpu", not (torch.cuda.is_available() or torch.backends.mps.is_available()))
    settings["max_steps"] = max_steps
    settings["bf16"] = settings["bf16"] is True
    leave_at_exit()  # `TrainingArguments` joins the group
    try:
        arguments = TrainingArguments(
            output_dir=str(recipe.output_dir),
            seed=recipe.seed,
            remove_unused_columns=False,
            ddp_find_unused_parameters=settings.pop("ddp_find_unused_parameters", True),
            **settings,
        )
    except (ValueError, TypeError, ImportError) as error:
        where = recipe.place_of("training")
        raise FaultyInput([_as_fault(str(error), where)]) from error
    count = processes or arguments.world_size
    if recipe.mixture.max_tokens is None:  # else `fit_batches`, once there is a mixture
        with placed(recipe):
            check_division(recipe.mixture.batch, count, arguments.gradient_accumulation_steps)
        arguments.per_device_train_batch_size = recipe.mixture.batch // (count * arguments.gradient_accumulation_steps)
    if arguments.world_size == 1 and arguments.n_gpu > 1:
        arguments._n_gpu = 1  # DataParallel cannot split a mixed batch; torchrun uses all devices
    return arguments, own


def fit_batches(arguments: TrainingArguments, mixture: Mixture, recipe: Recipe) -> None:
    """See that token-budget batches can be cut for all processes, and tell the Trainer about how many texts a device has of them.

    Raises:
        FaultyInput: they cannot.
    """
    if not isinstance(mixture, BudgetMixture):
        return
    with placed(recipe):
        mixture.check_parts(arguments.world_size, arguments.gradient_accumulation_steps)
    parts = arguments.world_size * arguments.gradient_accumulation_steps
    arguments.per_device_train_batch_size = max(1, round(mixture.texts_a_step / parts))


def _as_fault(message: str, where: str) -> Any:
    from ..errors import Fault

    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return Fault(lines[0] if lines else "refused by transformers", where=where, key="training")


def metric_names(tasks: Mapping[str, list[str]]) -> list[str]:
    """What `training.metric_for_best_model` may be."""
    return ["eval_mean", *(f"eval_{task}_{metric}" for task, metrics in tasks.items() for metric in metrics)]


def check_best_metric(recipe: Recipe) -> None:
    """`metric_for_best_model` names a metric that evaluation gives.

    Raises:
        FaultyInput: it does not (the Trainer would only find out after an epoch).
    """
    scored = any(task.counts_in_mean for task in recipe.definitions)
    chooses = recipe.training.get("load_best_model_at_end") or recipe.stopping.patience is not None
    if not scored and not chooses and "metric_for_best_model" not in recipe.training:
        return
    wanted = str(recipe.training.get("metric_for_best_model", "eval_mean"))
    name = wanted if wanted.startswith("eval_") else f"eval_{wanted}"
    known = metric_names(
        {t.name: [*t.metric_names, *(JOINT_METRICS if t.consistent_with else ())] for t in recipe.definitions}
    )
    known = known if scored else known[1:]
    if name not in known:
        faults = Faults()
        where = recipe.place_of("training", "metric_for_best_model")
        faults.add(f'found "{wanted}"', where=where, key="training.metric_for_best_model", allowed=listed(known, 40))
        faults.check()
