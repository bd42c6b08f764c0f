"""How a comparison makes a model out of those that it has trained: variants with `fuse:`.

`FUSIONS` maps a method's name (`fuse.method`) to a `Fusion`; those of `mtl-nlp fuse` are there (`fused_variants`). A package
announces its own in the entry-point group `mtl_nlp.comparison_fusions`, or enters it:
`FUSIONS.add("soup", "package.module:SOUP")`. A method that is not there is refused by name before anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..recipe import Recipe
from ..registry import Registry
from ..training.predictions import Predicted, write_predictions

BUILT_IN = {
    "ensemble": "mtl_nlp.analysis.fused_variants:ENSEMBLE",
    "average": "mtl_nlp.analysis.fused_variants:MERGE",
    "task_arithmetic": "mtl_nlp.analysis.fused_variants:MERGE",
    "ties": "mtl_nlp.analysis.fused_variants:MERGE",
    "dare": "mtl_nlp.analysis.fused_variants:MERGE",
    "distil": "mtl_nlp.analysis.fused_variants:DISTIL",
}
FUSIONS = Registry("fusion", "mtl_nlp.comparison_fusions", BUILT_IN)


@dataclass(frozen=True)
class FusionRequest:
    """What a fusion is made of.

    Attributes:
        spec: the variant's `fuse:`.
        joint: the joint checkpoint with the same seed (there if the fusion's `needs_joint`); `singles`: task → its own model's.
        output: an empty folder for the result.
        learning_rate: the one that was chosen for the joint model; None where the recipe's own stands.
        validation: settings are chosen on validation, never on test.
    """

    spec: Mapping[str, Any]
    recipe: Recipe
    seed: int
    joint: Path
    singles: Mapping[str, Path]
    output: Path
    data_root: Path | None = None
    memory: Mapping[str, Any] | None = None
    learning_rate: float | None = None


class Fusion(Protocol):
    """A method. One that is made of the single models alone may say so: `needs_joint = False`."""

    def check(self, spec: Mapping[str, Any], recipe: Recipe) -> None:
        """Refuse settings that are wrong, all faults at once (`FaultyInput`), before anything is trained."""

    def build(self, request: FusionRequest) -> Mapping[str, Any]:
        """Fill `request.output`; returns the cost in training: `encoder_tokens`, `seconds`, `steps`, `parameters`, and
        `models`, where a text goes through more than one."""

    def predict(self, folder: Path, split: str, request: FusionRequest) -> Predicted:
        """Score a split and write the prediction files (`checkpoint_predictions` for an ordinary checkpoint)."""


def checkpoint_predictions(folder: Path, split: str, request: FusionRequest) -> Predicted:
    """`Fusion.predict` of a method whose result is an ordinary checkpoint."""
    return write_predictions(folder, split, request.data_root, datasets=request.memory)


def find_fusion(method: str) -> Fusion:
    """By name.

    Raises:
        UserError: no such method.
    """
    found: Fusion = FUSIONS.get(method)
    return found
