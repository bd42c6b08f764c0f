"""Which fast paths a run takes: `performance:`, and what does not go together with them."""

from __future__ import annotations

import os
from typing import Any

import torch

from ..model.dropout import MaskSource
from ..model.multitask import MultiTaskModel
from ..model.trial import check_encoder
from ..recipe import Recipe
from .check_balancing import takes_task_gradients
from .embedding_gradient import give_sparse_gradient, keep_row_gradient
from .memory import keep_freed_memory


def fast_paths(model: MultiTaskModel, recipe: Recipe, arguments: Any) -> MaskSource | None:
    """Switch the fast paths on unless `performance: plain`; the source of dropout masks, if it is ours.

    A layer that is computed a second time in the backward pass, or compiled on a CPU, would draw other masks than in the forward
    pass; a sharded one gathers its parameters when it is called, which a path of our own does not do. On a GPU
    `training.torch_compile` compiles the encoder layer by layer, beside the padding-free path.

    Raises:
        UserError: the encoder cannot encode a small batch.
    """
    on_cpu, attention = arguments.device.type == "cpu", recipe.encoder_spec.attention
    layers = arguments.torch_compile and not on_cpu and recipe.lora is None and model.conditioning is None
    again = arguments.gradient_checkpointing or arguments.fsdp or (arguments.torch_compile and not layers)
    packed = recipe.performance != "plain" and not again and attention == "auto"
    if not packed and attention in ("auto", "eager", "sdpa"):  # others may not take float32
        check_encoder(model.encoder)
    if recipe.performance == "plain":
        return None
    keep_freed_memory()
    dropout = None if again or not on_cpu else MaskSource(recipe.seed)
    if not again:
        model.use_fast_paths(dropout, padding_free=packed)
    if layers and model.padding_free is not None:
        chosen = (arguments.torch_compile_backend, arguments.torch_compile_mode)
        dtype = torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else torch.float32
        model.padding_free.compile_layers(arguments.device, dtype, *chosen)
        leave_compiling(arguments)
    if on_cpu and arguments.world_size == 1:
        if takes_task_gradients(recipe):
            give_sparse_gradient(model)
        else:
            model.row_gradient = keep_row_gradient(model)
    return dropout


def leave_compiling(arguments: Any) -> None:
    """The Trainer shall not compile the model as a whole: it would, for each number of tokens anew.

    It reads the arguments, and accelerate the variables that they have set.
    """
    arguments.torch_compile, arguments.torch_compile_backend, arguments.torch_compile_mode = False, None, None
    for name in ("BACKEND", "MODE"):
        os.environ.pop(f"ACCELERATE_DYNAMO_{name}", None)
