"""`balancing:` of a recipe, checked before training: names, settings, and the combinations that cannot work."""

from __future__ import annotations

import logging
import os

from ..balancing.gradient_aggregation import make_aggregator
from ..balancing.loss_weighting import weighting_class
from ..balancing.rules import Setup, check_setup
from ..balancing.settings import method_name, method_settings
from ..conditioning import kind_of
from ..errors import Faults, FaultyInput, listed
from ..recipe import Recipe
from .placing import placed

logger = logging.getLogger("mtl_nlp")

SHARDED = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")


def check_balancing(recipe: Recipe, *, shared_texts: bool | None = None) -> None:
    """Names, settings and combinations.

    Args:
        shared_texts: whether some corpus has annotations of two tasks; None before the data was read.

    Raises:
        FaultyInput: every fault: unknown methods and settings, a missing extra, combinations with their reasons.
    """
    spec, faults = recipe.balancing, Faults()
    try:
        with placed(recipe):
            cls = weighting_class(method_name(spec.weighting, "balancing.weighting"))
            method_settings(cls.Settings, spec.weighting, "balancing.weighting")
    except FaultyInput as error:
        faults.extend(error)
    try:
        with placed(recipe):
            make_aggregator(spec.gradients, tasks=[task.name for task in recipe.definitions], seed=recipe.seed)
    except FaultyInput as error:
        faults.extend(error)
    faults.check()
    setup = setup_of(recipe, shared_texts)
    check_setup(setup, lambda key: recipe.place_of(*key.split(".")))
    weighted = [task.name for task in recipe.definitions if task.loss.weight != 1.0]
    if setup.scale_free and weighted and shared_texts is not None:
        told = "balancing.gradients: %s does not feel how long a gradient is: the loss weights of %s act on their heads alone"
        logger.warning(told, setup.gradients, listed(weighted))


def setup_of(recipe: Recipe, shared_texts: bool | None = None) -> Setup:
    """What the rules of combination ask of a recipe."""
    spec, training = recipe.balancing, recipe.training
    sharded = bool(training.get("fsdp") or training.get("deepspeed"))
    sharded = sharded or any(os.environ.get(name, "").lower() in ("1", "true") for name in SHARDED)
    steps = training.get("gradient_accumulation_steps", 1)
    return Setup(
        weighting=method_name(spec.weighting),
        gradients=method_name(spec.gradients),
        on=spec.on,
        tasks=len(recipe.definitions),
        batching=recipe.mixture.batching,
        accumulation=steps if isinstance(steps, int) else 1,
        frozen=recipe.encoder_spec.freeze == "all",
        sharded=sharded,
        optimizer=str(training.get("optim", "adamw_torch_fused")),
        shared_texts=shared_texts,
        cosines=spec.cosine_steps is not None,
        conditioning=kind_of(recipe.conditioning),
        recomputed=bool(training.get("gradient_checkpointing") or training.get("torch_compile")),
    )


def takes_task_gradients(recipe: Recipe) -> bool:
    """Whether backward passes are of single tasks on the shared parameters."""
    setup = setup_of(recipe)
    late = weighting_class(setup.weighting).losses_first and setup.accumulation > 1
    return late or (setup.aggregates and setup.on == "parameters")
