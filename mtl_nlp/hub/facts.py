"""What a checkpoint says of itself: tasks, labels, sizes, scores, provenance, versions. For `mtl-nlp show` and the model card.

Everything is read from the folder's own files; nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..model.files import CONFIG, METRICS, read_json, tensor_table, weight_files
from ..recipe import RESOLVED
from ..schema import read_yaml

HEADS, CONDITIONS = "heads.", "conditioning.tasks."


@dataclass
class TaskFacts:
    """One task.

    Attributes:
        inputs: roles of the fields that it reads (`text`, `pair`, `question`, …).
        parameters: of its head and its condition; those that are tied to the encoder are not counted again.
        scores: metric → value on the validation split.
        source: the Hub data set, or the name of a local file or folder; None for data in memory.
    """

    name: str
    head: str
    description: str = ""
    labels: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    auxiliary: bool = False
    parameters: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    source: str | None = None
    on_hub: bool = False
    config: str | None = None
    revision: str | None = None
    licence: str | None = None
    language: str | None = None
    weight: float = 1.0


@dataclass
class Facts:
    """One checkpoint.

    Attributes:
        encoder: its name: on the Hub, or the last part of a path.
        encoder_on_hub: whether it is a name on the Hub.
        architecture: of the encoder (`bert`).
        parameters, encoder_parameters, bytes, dtype: of the weights.
        conditioning: its kind, None for an encoder that is not conditioned on the task.
        rows_per_text: what all answers to one text cost: 1, or a row a task.
        mean: of the primary metrics on validation.
        run: steps, seconds, and by corpus texts, rate, draws and passes.
        recipe: the resolved recipe's settings (`mixture`, `training`, `seed`, …), tasks left out.
        fingerprint: of the resolved recipe: equal for runs of one recipe.
        versions: `format`, `mtl_nlp`, `transformers`.
    """

    encoder: str
    encoder_on_hub: bool
    architecture: str
    tasks: list[TaskFacts]
    parameters: int
    encoder_parameters: int
    bytes: int
    dtype: str
    mean: float | None = None
    run: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    versions: dict[str, Any] = field(default_factory=dict)
    max_length: int | None = None
    conditioning: str | None = None
    rows_per_text: int = 1

    def as_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def facts_of(folder: Path, *, weights: bool = True) -> Facts:
    """The facts of a checkpoint folder that `check_folder` let through.

    Args:
        weights: look into the weight files; without, sizes are 0 (a folder whose weights were deleted).

    Raises:
        UserError: a file of it cannot be read.
    """
    config = read_json(folder / CONFIG)
    metrics = _mapping(read_json(folder / METRICS) if (folder / METRICS).is_file() else {})
    recipe = _mapping(read_yaml(folder / RESOLVED, "resolved recipe")[0] if (folder / RESOLVED).is_file() else {})
    files = weight_files(folder) if weights else []
    tables = [tensor_table(path) for path in files]
    sizes = {name: math.prod(shape) for table in tables for name, (_, shape) in table.items()}
    kinds = {kind for table in tables for kind, _ in table.values()}
    encoder = _mapping(recipe.get("encoder"))
    data = _mapping(config.get("encoder_config"))
    name, on_hub = _encoder_name(encoder.get("name") or data.get("_name_or_path"))
    scores, sources = _mapping(metrics.get("validation")), _by_name(recipe.get("tasks"))
    return Facts(
        encoder=name,
        encoder_on_hub=on_hub,
        architecture=plain(data.get("model_type")),
        tasks=[_task(task, sources, scores, sizes) for task in config["tasks"] if isinstance(task, dict)],
        parameters=sum(sizes.values()),
        encoder_parameters=sum(size for key, size in sizes.items() if not key.startswith((HEADS, CONDITIONS))),
        bytes=sum(path.stat().st_size for path in files),
        dtype="+".join(sorted(kinds)),
        mean=_number(metrics.get("mean")),
        run=_mapping(metrics.get("run")),
        recipe={key: value for key, value in recipe.items() if key not in ("tasks", "encoder")} | {"encoder": encoder},
        fingerprint=_fingerprint(folder / RESOLVED),
        versions={
            "format": config.get("format_version"),
            "mtl_nlp": plain(config.get("mtl_nlp_version")),
            "transformers": plain(config.get("transformers_version")),
        },
        max_length=_whole(encoder.get("max_length")) or _whole(data.get("max_position_embeddings")),
        conditioning=_text(_mapping(config.get("conditioning")).get("kind")),
        rows_per_text=_rows_per_text(config),
    )


def _rows_per_text(config: Mapping[str, Any]) -> int:
    if config.get("conditioning") is None:
        return 1
    heads = [task.get("head") for task in config["tasks"] if isinstance(task, dict)]
    return sum(head != "masked_language_modeling" for head in heads)


def _task(task: Mapping[str, Any], sources: Mapping[str, Any], scores: Mapping[str, Any], sizes: Any) -> TaskFacts:
    name = plain(task.get("name"))
    told = _mapping(sources.get(name))
    data = _mapping(told.get("data"))
    source, on_hub = _source(data)
    columns = _mapping(_mapping(task.get("data")).get("columns"))
    values = {plain(key): _number(value) for key, value in _mapping(scores.get(name)).items()}
    return TaskFacts(
        name=name,
        head=plain(task.get("head")),
        description=plain(task.get("description")),
        labels=[plain(label) for label in task.get("labels") or [] if isinstance(label, str)],
        inputs=_inputs(columns),
        auxiliary=bool(task.get("auxiliary")),
        parameters=sum(
            size for key, size in sizes.items() if key.startswith((f"{HEADS}{name}.", f"{CONDITIONS}{name}."))
        ),
        scores={key: value for key, value in values.items() if value is not None},
        source=source,
        on_hub=on_hub,
        config=_text(data.get("config") or data.get("data_dir")),
        revision=_text(data.get("revision")),
        licence=_text(told.get("licence")),
        language=_text(told.get("language")),
        weight=_number(_mapping(told.get("loss")).get("weight")) or 1.0,
    )


def _inputs(columns: Mapping[str, Any]) -> list[str]:
    roles = ["text"] if {"text", "tokens", "bracketed"} & columns.keys() else []
    roles += [role for role in ("pair", "question", "context") if role in columns]
    return [*roles, "choices"] if {"choices", "choice_columns"} & columns.keys() else roles


def _source(data: Mapping[str, Any]) -> tuple[str | None, bool]:
    """(name, whether it is on the Hub): paths of this machine are not told, only their last part."""
    source = data.get("source")
    if isinstance(source, str):
        local = source.startswith(("/", "\\")) or source[1:2] == ":"
        return (plain(_last(source)), False) if local else (plain(source), True)
    files = [name for value in _mapping(data.get("splits")).values() for name in _several(value)]
    return (plain(_last(str(Path(files[0]).parent))), False) if files else (None, False)


def _several(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [one for one in value or [] if isinstance(one, str)]


def _last(path: str) -> str:
    return path.replace("\\", "/").rstrip("/").split("/")[-1]


def _encoder_name(name: Any) -> tuple[str, bool]:
    text = plain(name)
    local = text.startswith(("/", ".", "\\")) or text[1:2] == ":" or text.count("/") > 1
    return (_last(text), False) if local else (text, bool(text))


def _fingerprint(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else None


def _by_name(tasks: Any) -> dict[str, Any]:
    return {str(task.get("name")): task for task in tasks or [] if isinstance(task, dict)}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _text(value: Any) -> str | None:
    return plain(value) if isinstance(value, str) else None


def plain(value: Any) -> str:
    """A string without control characters, whatever came; empty for anything but a string."""
    if not isinstance(value, str):
        return ""
    return "".join(" " if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in value).strip()


def commit_of(folder: Path) -> str | None:
    """The commit of a snapshot in the Hub's cache, None for any other folder."""
    resolved = folder.resolve()
    return resolved.name if resolved.parent.name == "snapshots" else None


__all__ = ["Facts", "TaskFacts", "commit_of", "facts_of", "plain"]
