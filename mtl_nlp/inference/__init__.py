"""Texts in, one encoder pass, every task's decoded annotation out.

* `inputs`: what a row of input gives to which tasks.
* `formats`, `writers`: lines of files and pipes ↔ rows, one at a time.
* `passes`: rows of token ids through the model, a bounded number at a time.
* `answers`: decoded annotations → the JSON of a prediction.
* `predictor`: `Predictor`, which joins them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .predictor import Predictor

__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    # Torch is imported with the predictor only: input files are opened and their faults told without it.
    if name == "Predictor":
        from .predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
