"""A folder of `mtl-nlp compare` → facts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import fault
from ..hub.facts import plain
from ..model.files import read_json
from .facts import ComparisonReport, Cost, Group, Overall, Result, SeedScore

COMPARISON = "comparison.json"
FORMAT_VERSION = 1


def read_comparison(folder: Path, name: str) -> ComparisonReport:
    """A comparison.

    Raises:
        UserError: written by another version, or not what `mtl-nlp compare` writes.
    """
    path = folder / COMPARISON
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format_version") != FORMAT_VERSION:
        version = found.get("format_version") if isinstance(found, dict) else found
        raise fault(f"found format_version {version!r}", where=str(path), allowed=f"format_version {FORMAT_VERSION}")
    try:
        return _comparison(found, plain(name), plain(folder.name))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        allowed = "what `mtl-nlp compare` writes"
        raise fault(f"cannot be understood: {error!r}", where=str(path), allowed=allowed) from error


def _comparison(found: Mapping[str, Any], name: str, folder: str) -> ComparisonReport:
    from .gather import without_paths

    tasks = {plain(task): dict(about) for task, about in found["tasks"].items()}
    variants = [{**variant, "name": plain(variant["name"])} for variant in found["variants"]]
    kinds = {variant["name"]: variant.get("kind") for variant in variants}
    scores, split = _scores(found["runs"], tasks, kinds)
    chosen = [v["name"] for v in variants if v.get("chosen") and v.get("kind") != "single"]
    recipe = found.get("recipe")
    return ComparisonReport(
        name=name,
        folder=folder,
        seeds=[int(seed) for seed in found["seeds"]],
        tasks=tasks,
        variants=variants,
        results=[_result(result) for result in found["results"]],
        scores=scores,
        costs=_costs(found, variants),
        split=split,
        chosen=chosen[0] if chosen else "",
        overall=[
            Overall(plain(one["variant"]), float(one["difference"]), _number(one.get("low")), _number(one.get("high")))
            for one in found.get("overall") or []
            if _number(one.get("difference")) is not None
        ],
        recipe=without_paths(_yaml(recipe)) if recipe else "",
        environment=[(plain(str(k)), plain(_text(v))) for k, v in (found.get("environment") or {}).items()],
    )


def _yaml(data: Any) -> str:
    from ..schema import dump_yaml

    return data if isinstance(data, str) else dump_yaml(data)


def _text(value: Any) -> str:
    return ", ".join(str(one) for one in value) if isinstance(value, list) else str(value)


def _scores(
    runs: list[Mapping[str, Any]], tasks: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, Any]
) -> tuple[list[SeedScore], str]:
    """Every model's score on every one of its tasks, on test; on validation where test was not read."""
    split = "test" if any(run.get("test") for run in runs) else "validation"
    found = []
    for run in runs:
        scored = run.get(split) or {}
        for task, values in scored.items():
            value = values.get(tasks[plain(task)]["metric"]) if plain(task) in tasks else None
            single = kinds.get(plain(run["variant"])) == "single"
            if isinstance(value, int | float) and not (single and run.get("task") not in (None, task)):
                found.append(SeedScore(plain(task), plain(run["variant"]), int(run["seed"]), float(value)))
    return found, split


def _result(found: Mapping[str, Any]) -> Result:
    told: dict[str, Any] = {key: plain(found[key]) for key in ("task", "variant", "metric", "verdict")}
    told |= {key: float(found[key]) for key in ("mean", "single_mean", "difference")}
    optional = ("deviation", "single_deviation", "low", "high", "p_seeds", "p_examples", "p_holm", "detectable")
    groups = [
        Group(
            plain(str(group["by"])),
            plain(str(group["value"])),
            int(group["rows"]),
            _number(group.get("single")),
            _number(group.get("variant")),
            _number(group.get("difference")),
            bool(group.get("changed")),
        )
        for group in found.get("groups") or []
    ]
    told |= {key: _number(found.get(key)) for key in optional}
    return Result(**told, groups=groups)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


COSTS = ("encoder_tokens", "minutes", "parameters", "bytes", "texts_per_second", "inference_ratio")


def _costs(found: Mapping[str, Any], variants: list[dict[str, Any]]) -> list[Cost]:
    """Of every variant: what the file says, else the means of its runs over seeds (of single-task models the sum over tasks)."""
    told = found.get("costs") or {}
    if isinstance(told, list):
        told = {plain(str(one.get("variant"))): one for one in told}
    made = []
    for variant in variants:
        name = variant["name"]
        values = told.get(name) if isinstance(told, Mapping) else None
        numbers = {key: _number(values.get(key)) for key in COSTS} if isinstance(values, Mapping) else {}
        if not any(value is not None for value in numbers.values()):
            numbers = _from_runs([run for run in found["runs"] if plain(run["variant"]) == name])
        known = {key: value for key, value in numbers.items() if value is not None}
        if known:
            made.append(Cost(name, known))
    return made


def _from_runs(runs: list[Mapping[str, Any]]) -> dict[str, float | None]:
    seeds = {run["seed"] for run in runs}
    values: dict[str, float | None] = {}
    for key in ("encoder_tokens", "seconds", "parameters", "bytes", "texts_per_second"):
        numbers = [_number((run.get("cost") or {}).get(key)) for run in runs]
        known = [number for number in numbers if number]
        if not known:
            continue
        # Texts go through all single-task models one after the other.
        rate = key == "texts_per_second"
        total = sum(1 / number for number in known) if rate else sum(known)
        values[key] = len(seeds) / total if rate else total / len(seeds)
    if "seconds" in values:
        values["minutes"] = (values.pop("seconds") or 0.0) / 60
    return values


def safe_name(name: str) -> str:
    """A name as part of an HTML id."""
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "x"
