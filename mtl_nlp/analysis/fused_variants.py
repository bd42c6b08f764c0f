"""The fusions of `mtl-nlp fuse` as variants of a comparison: made of the models that the comparison has trained with the same seed.

| `fuse.method` | made of | settings beside it |
|---|---|---|
| `ensemble` | the joint model and one model a task | `weights`, `tags` |
| `average`, `task_arithmetic`, `ties`, `dare` | one model a task | `coefficients`, `density` |
| `distil` | a student under the joint recipe, taught by one model a task | `temperature`, `gold` |
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Faults, listed
from ..fusion.distil import fuse_distil
from ..fusion.ensemble import TAGS, WEIGHTS, fuse_ensemble
from ..fusion.merge import check_settings, fuse_merge
from ..fusion.vectors import DENSITY
from ..hub.facts import facts_of
from ..model.files import METRICS, read_json, weight_files
from ..recipe import Recipe
from ..training.predictions import Predicted, ensemble_predictions
from .comparison_folder import clear_leftovers
from .comparison_fusion import FusionRequest, checkpoint_predictions


@dataclass(frozen=True)
class _Fused:
    """A `Fusion` of functions; the settings beside `method` are handed on by name."""

    settings: tuple[str, ...]
    make: Callable[[FusionRequest, dict[str, Any], Path], Path]
    faults: Callable[[str, Mapping[str, Any], int], None]
    read: Callable[[Path, str, FusionRequest], Predicted]
    needs_joint: bool = False

    def check(self, spec: Mapping[str, Any], recipe: Recipe) -> None:
        """Refuse settings that are wrong, all faults at once."""
        faults = Faults()
        for key in spec:
            if key != "method" and key not in self.settings:
                faults.add("unknown key", key=f"compare.variants: fuse.{key}", allowed=listed(self.settings))
        faults.check()
        self.faults(str(spec["method"]), spec, len(recipe.definitions))

    def build(self, request: FusionRequest) -> Mapping[str, Any]:
        """Make it; what making it cost beyond the models that it is made of."""
        start = time.perf_counter()
        made = self.make(
            request, {key: request.spec[key] for key in self.settings if key in request.spec}, request.output
        )
        seconds = round(time.perf_counter() - start, 1)
        clear_leftovers(made)
        report = read_json(made / METRICS).get("run") or {} if (made / METRICS).is_file() else {}
        folders = sorted(path.parent for path in made.rglob("config.json") if weight_files(path.parent))
        return {
            "encoder_tokens": report.get("tokens", 0),
            "seconds": seconds,
            "steps": report.get("steps", 0),
            "parameters": sum(facts_of(folder).parameters for folder in folders),
            "models": len(folders),
        }

    def predict(self, folder: Path, split: str, request: FusionRequest) -> Predicted:
        """Score a split and write the prediction files."""
        return self.read(folder, split, request)


def _members(request: FusionRequest) -> list[str]:
    return [f"{task}={folder}" for task, folder in request.singles.items()]


def _data(request: FusionRequest) -> dict[str, Any]:
    return {"recipe": request.recipe, "data_root": request.data_root, "datasets": request.memory}


def _ensemble(request: FusionRequest, settings: dict[str, Any], output: Path) -> Path:
    return fuse_ensemble([str(request.joint), *_members(request)], output, **settings, **_data(request))


def _merge(request: FusionRequest, settings: dict[str, Any], output: Path) -> Path:
    method = str(request.spec["method"])
    return fuse_merge(_members(request), output, method=method, seed=request.seed, **settings, **_data(request))


def _distil(request: FusionRequest, settings: dict[str, Any], output: Path) -> Path:
    teachers = {task: str(folder) for task, folder in request.singles.items()}
    sets = [f"seed={request.seed}"]
    if request.learning_rate is not None:
        sets.append(f"training.learning_rate={request.learning_rate!r}")
    plain = request.recipe.resolved()
    shutil.rmtree(output, ignore_errors=True)
    return fuse_distil(
        plain, teachers, output, sets=sets, data_root=request.data_root, datasets=request.memory, **settings
    )


def _ensemble_faults(method: str, spec: Mapping[str, Any], tasks: int) -> None:
    faults = Faults()
    for key, known in (("weights", WEIGHTS), ("tags", TAGS)):
        if spec.get(key, known[0]) not in known:
            faults.add(f'found "{spec[key]}"', key=f"compare.variants: fuse.{key}", allowed=listed(known))
    faults.check()


def _merge_faults(method: str, spec: Mapping[str, Any], tasks: int) -> None:
    check_settings(method, spec.get("coefficients", "search"), spec.get("density", DENSITY), tasks)


def _distil_faults(method: str, spec: Mapping[str, Any], tasks: int) -> None:
    faults = Faults()
    for key, low, high in (("temperature", 0, float("inf")), ("gold", 0, 1)):
        value = spec.get(key)
        if value is not None and not (
            isinstance(value, int | float) and low <= value <= high and (key == "gold" or value > 0)
        ):
            faults.add(
                f"found {value!r}", key=f"compare.variants: fuse.{key}", allowed=f"a number from {low} to {high}"
            )
    faults.check()


def _ensemble_read(folder: Path, split: str, request: FusionRequest) -> Predicted:
    root = Path(request.data_root) if request.data_root is not None else None
    return ensemble_predictions(folder, request.recipe, split=split, data_root=root, memory=request.memory)


ENSEMBLE = _Fused(("weights", "tags"), _ensemble, _ensemble_faults, _ensemble_read, needs_joint=True)
MERGE = _Fused(("coefficients", "density"), _merge, _merge_faults, checkpoint_predictions)
DISTIL = _Fused(("temperature", "gold"), _distil, _distil_faults, checkpoint_predictions)
