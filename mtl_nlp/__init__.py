"""mtl-nlp: one encoder, many NLP tasks.

`finetune` trains from a recipe, `Predictor` annotates; the other names are the parts that they are made of. Everything is
loaded when it is first asked for, so importing the package is quick. Once it is imported, transformers' `AutoModel` and
`AutoConfig` load our checkpoints too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .lazy import watch
from .version import VERSION

__version__ = VERSION

_WHERE = {
    "finetune": "training.finetune",
    "score_checkpoint": "training.score",
    "add_task": "training.add_task",
    "drop_task": "hub.drop",
    "calibrate": "training.calibration",
    "compare": "analysis.compare",
    "fuse_ensemble": "fusion.ensemble",
    "fuse_merge": "fusion.merge",
    "fuse_distil": "fusion.distil",
    "MultiTaskTrainer": "training.trainer",
    "Predictor": "inference.predictor",
    "Explainer": "analysis.explain",
    "MultiTaskModel": "model.multitask",
    "MultiTaskConfig": "model.config",
    "Head": "model.heads",
    "VanillaHead": "model.heads",
    "Mixture": "data.mixture",
    "SamplingStrategy": "data.strategies",
    "register_strategy": "data.strategies",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "make_recipe": "recipe",
    "Task": "task",
    "load_task": "task",
    "HeadKind": "kinds",
    "register_head": "kinds",
    "UserError": "errors",
}

__all__ = [
    "Explainer",
    "Head",
    "HeadKind",
    "Mixture",
    "MultiTaskConfig",
    "MultiTaskModel",
    "MultiTaskTrainer",
    "Predictor",
    "Recipe",
    "SamplingStrategy",
    "Task",
    "UserError",
    "VanillaHead",
    "add_task",
    "calibrate",
    "compare",
    "drop_task",
    "finetune",
    "fuse_distil",
    "fuse_ensemble",
    "fuse_merge",
    "load_recipe",
    "load_task",
    "make_recipe",
    "register_head",
    "register_strategy",
    "score_checkpoint",
]

if TYPE_CHECKING:
    from .analysis.compare import compare
    from .analysis.explain import Explainer
    from .data.mixture import Mixture
    from .data.strategies import SamplingStrategy, register_strategy
    from .errors import UserError
    from .fusion.distil import fuse_distil
    from .fusion.ensemble import fuse_ensemble
    from .fusion.merge import fuse_merge
    from .hub.drop import drop_task
    from .inference.predictor import Predictor
    from .kinds import HeadKind, register_head
    from .model.config import MultiTaskConfig
    from .model.heads import Head, VanillaHead
    from .model.multitask import MultiTaskModel
    from .recipe import Recipe, load_recipe, make_recipe
    from .task import Task, load_task
    from .training.add_task import add_task
    from .training.calibration import calibrate
    from .training.finetune import finetune
    from .training.score import score_checkpoint
    from .training.trainer import MultiTaskTrainer


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


# `AutoModel.from_pretrained` and `transformers.pipeline("multi-task", …)` know our checkpoints from here on.
watch()
