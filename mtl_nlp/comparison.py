"""`compare:` of a recipe: seeds, learning rates to choose from, and variants of the joint model. Read by `mtl-nlp compare` alone.

A variant is a mapping of recipe keys (nested or dotted) or a list of `KEY=VALUE`, laid over the recipe; or `fuse:`, which makes a
model out of those that the comparison trains.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from .schema import Strict

JOINT, SINGLE = "joint", "single"
SEEDS = 5
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
# What makes the sides unlike each other, or is the comparison's own.
FORBIDDEN = ("seed", "output_dir", "compare", "fuse")


def _whole(value: int | list[int]) -> int | list[int]:
    several = value if isinstance(value, list) else range(value)
    if len(several) < 2:
        raise ValueError("two seeds or more: one says nothing of the spread over seeds")
    if isinstance(value, list) and (len(set(value)) < len(value) or min(value) < 0):
        raise ValueError("whole numbers from 0, each once")
    return value


def _rates(value: list[float] | None) -> list[float] | None:
    if value is not None and (len(set(value)) < max(2, len(value)) or min(value) <= 0):
        raise ValueError("two or more numbers above 0, each once")
    return value


def _variants(value: dict[str, Any]) -> dict[str, Any]:
    problems = [problem for name, given in value.items() for problem in _variant_faults(name, given)]
    if problems:
        raise ValueError("; ".join(problems))
    return value


def _variant_faults(name: str, given: Any) -> Iterable[str]:
    if not _NAME.fullmatch(name) or name.split("-")[0] in (JOINT, SINGLE):
        yield f'"{name}": a name of letters, digits, _ . and -, other than {JOINT} and {SINGLE}'
    if not isinstance(given, dict | list) or not given:
        yield f"{name}: a mapping of recipe keys, or a list of KEY=VALUE"
        return
    if isinstance(given, dict) and "fuse" in given:
        if len(given) > 1:
            yield f"{name}: fuse makes a model of others and goes with no other key"
        if not isinstance(given["fuse"], dict) or not isinstance(given["fuse"].get("method"), str):
            yield f"{name}: fuse is a mapping with a method"
        return
    if isinstance(given, list) and not all(isinstance(one, str) for one in given):
        yield f"{name}: a list of KEY=VALUE, each a string"
        return
    keys = [one.split("=")[0].strip() for one in assignments(given)]
    odd = [key for key in keys if key.split(".")[0] in FORBIDDEN or key.startswith("training.learning_rate")]
    if odd:
        yield f"{name}: {', '.join(odd)} cannot be a variant's; seeds and learning rates are the same for all sides"


class CompareSpec(Strict):
    """What `mtl-nlp compare` does with the recipe.

    `seeds` is a number (from the recipe's seed upwards) or a list; `learning_rates` are tried by every side with the first seed.
    """

    seeds: Annotated[int | list[int], AfterValidator(_whole)] = SEEDS
    learning_rates: Annotated[list[float] | None, AfterValidator(_rates)] = None
    variants: Annotated[dict[str, Any], AfterValidator(_variants)] = Field(default_factory=dict)

    def seed_list(self, first: int) -> list[int]:
        """The seeds."""
        return self.seeds if isinstance(self.seeds, list) else [first + i for i in range(self.seeds)]


def assignments(given: Mapping[str, Any] | list[str]) -> list[str]:
    """A variant's changes as `--set` assignments."""
    if isinstance(given, list):
        return list(given)
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in _leaves(given)]


def _leaves(given: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
