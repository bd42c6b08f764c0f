"""YAML 1.2 files with line numbers, checked whole by pydantic.

`read_yaml` gives plain data plus the line of every key; `validate` turns pydantic's errors into `Fault`s that name file, line,
key, what was found and what is allowed. Task files and recipes are read through here; nothing here knows what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import Fault, Faults, FaultyInput, closest, fault, listed

Key = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)
# What a union's branch says of a value that is not for it.
BRANCHES = (
    "string_type",
    "int_type",
    "float_type",
    "bool_type",
    "list_type",
    "dict_type",
    "model_type",
    "literal_error",
)


class Strict(BaseModel):
    """Base of every schema: unknown keys and silent conversions are refused."""

    model_config = ConfigDict(extra="forbid", validate_default=False, frozen=False)


@dataclass
class Source:
    """Where a piece of data was written: the file and the line of each key.

    Attributes:
        file: path as the user gave it; empty for data made in Python.
        lines: key path → line, counted from 1; or `file:line` in full where it was laid over from another file.
    """

    file: str = ""
    lines: dict[Key, int | str] = field(default_factory=dict)

    def where(self, key: Key = ()) -> str:
        """`file:line` of a key or of its nearest parent that has a line."""
        for length in range(len(key), -1, -1):
            line = self.lines.get(key[:length])
            if line is not None:
                return line if isinstance(line, str) else f"{self.file}:{line}"
        return self.file

    def overlaid(self, over: Source) -> Source:
        """The same with another source's lines laid on top (see `merged`)."""
        return Source(self.file, {**self.lines, **{key: over.where(key) for key in over.lines if key}})

    def below(self, *prefix: str | int) -> Source:
        """The same for the part of the data under `prefix`."""
        size = len(prefix)
        inner = {key[size:]: line for key, line in self.lines.items() if key[:size] == prefix}
        return Source(self.file, inner)


def dotted(key: Key) -> str:
    """`("training", "learning_rate")` → `training.learning_rate`."""
    return ".".join(str(part) for part in key)


def read_text(path: Path, what: str) -> str:
    """A text file's content; `what` names its role in messages.

    Raises:
        FaultyInput: missing, a folder, unreadable, or not UTF-8.
    """
    if path.is_dir():
        raise fault(f"{what} is a folder", where=str(path), cure="give the file itself")
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        nearby = sorted(p.name for p in path.parent.glob(f"*{path.suffix or '.yaml'}")) if path.parent.is_dir() else []
        hint = f"in that folder: {listed(nearby)}" if nearby else "check the path"
        raise fault(f"{what} not found", where=str(path), cure=hint) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise fault(
            f"byte {error.object[error.start]:#04x} is not UTF-8", where=f"{path}:{line}", cure="save the file as UTF-8"
        ) from None
    except OSError as error:
        raise fault(f"{what} cannot be read: {error.strerror}", where=str(path)) from None


def read_yaml(path: Path, what: str = "file") -> tuple[Any, Source]:
    """Plain data of a YAML 1.2 file (`yes`, `no`, `on` stay strings) and where each key stands.

    Raises:
        FaultyInput: unreadable, not YAML, a key given twice, or not a mapping.
    """
    return parse_yaml(read_text(path, what), str(path))


def parse_yaml(text: str, file: str) -> tuple[Any, Source]:
    """As `read_yaml`, for text in hand."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    reader = YAML(typ="rt", pure=True)
    reader.version = (1, 2)
    reader.Constructor = _constructor()
    try:
        data = reader.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"{file}:{mark.line + 1}" if mark else file
        problem = (error.problem or "not valid YAML").split("\n")[0]
        raise fault(f"not valid YAML: {problem}", where=line, cure="mind indentation, quotes and brackets") from None
    except YAMLError as error:
        raise fault(f"not valid YAML: {str(error).splitlines()[0]}", where=file) from None
    if not isinstance(data, Mapping):
        found = "an empty file" if data is None else f"a {type(data).__name__}"
        raise fault(f"found {found}", where=file, allowed="a mapping of keys (`name: …`)")
    source = Source(file, {(): 1})
    return _plain(data, (), source), source


@cache
def _constructor() -> Any:
    """The round-trip constructor without dates, which YAML 1.2 does not know: `2024-01-31` stays a string."""
    from ruamel.yaml.constructor import RoundTripConstructor

    made: Any = type("Constructor", (RoundTripConstructor,), {})
    made.add_constructor("tag:yaml.org,2002:timestamp", lambda _, node: str(node.value))
    return made


def _plain(node: Any, key: Key, source: Source) -> Any:
    if isinstance(node, Mapping):
        lines = getattr(node, "lc", None)
        for name in node:
            if lines is not None and name in (lines.data or {}):
                place = (*key, _scalar(name))
                source.lines[place] = lines.data[name][0] + 1
        return {_scalar(name): _plain(value, (*key, _scalar(name)), source) for name, value in node.items()}
    if isinstance(node, Sequence) and not isinstance(node, str):
        lines = getattr(node, "lc", None)
        for i in range(len(node)):
            if lines is not None and i in (lines.data or {}):
                place = (*key, i)
                source.lines[place] = lines.data[i][0] + 1
        return [_plain(value, (*key, i), source) for i, value in enumerate(node)]
    return _scalar(node)


def _scalar(value: Any) -> Any:
    # ruamel's round-trip scalars are subclasses (ScalarFloat, DoubleQuotedScalarString); plain ones travel better.
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return plain(value)
    return value


def validate(model: type[M], data: Any, source: Source, prefix: Key = ()) -> M:
    """`data` as a `model`; every fault of it in one `FaultyInput`.

    `prefix` stands before keys in messages when `data` is a part of a file.
    """
    try:
        return model.model_validate(data, strict=True)
    except ValidationError as error:
        items: dict[Key, list[Any]] = {}
        for item in error.errors():
            items.setdefault(_key_of(item, data), []).append(item)
        faults = []
        for key, found in items.items():
            # A union complains once a branch: where one branch got further, the others are beside the point.
            deeper = any(len(other) > len(key) and other[: len(key)] == key for other in items)
            wrong_type = [item for item in found if item["type"] in BRANCHES]
            others = [item for item in found if item["type"] not in BRANCHES]
            if wrong_type and not deeper and not others:
                faults.append(_wrong_type(wrong_type, source.where(key), dotted((*prefix, *key))))
            faults.extend(one for item in others for one in _as_faults(item, key, model, source, prefix))
        raise FaultyInput(dict.fromkeys(faults)) from None


def _key_of(item: Any, data: Any) -> Key:
    """Pydantic adds the name of a union's branch to `loc`; only parts that are really keys of the data are kept."""
    key: Key = ()
    node = data
    for part in item["loc"]:
        if (isinstance(node, Mapping) and part in node) or (
            isinstance(node, Sequence) and not isinstance(node, str) and isinstance(part, int) and part < len(node)
        ):
            key, node = (*key, part), node[part]
        elif item["type"] == "missing":
            key = (*key, part)
    return key


def _wrong_type(items: Sequence[Any], where: str, key: str) -> Fault:
    """One fault for all branches of a union."""
    allowed = " or ".join(dict.fromkeys(_allowed(item) for item in items))
    cures = dict.fromkeys(cure for item in items if (cure := _cure(item)))
    return Fault(
        f"found {_shown(items[0]['input'])}", where=where, key=key, allowed=allowed, cure=next(iter(cures), "")
    )


class Problems(ValueError):
    """What of a mapping does not go together: each problem begins with the key that it speaks of (`loss.focal is for …`)."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


def _as_faults(item: Any, key: Key, model: type[BaseModel], source: Source, prefix: Key) -> list[Fault]:
    error = item.get("ctx", {}).get("error")
    if not isinstance(error, Problems):
        return [_as_fault(item, key, model, source, prefix)]
    known = known_keys(model, key)
    faults = []
    for problem in error.problems:
        first, _, rest = problem.partition(" ")
        own = tuple(first.rstrip(":").split("."))
        inner = (*key, *own) if own[0] in known else key
        found = rest if own[0] in known else problem
        faults.append(Fault(found, where=source.where(inner), key=dotted((*prefix, *inner))))
    return faults


def _as_fault(item: Any, key: Key, model: type[BaseModel], source: Source, prefix: Key) -> Fault:
    where, shown = source.where(key), dotted((*prefix, *key))
    if item["type"] == "extra_forbidden":
        known = known_keys(model, key[:-1])
        guess = closest(str(key[-1]), known)
        return Fault("unknown key", where=where, key=shown, allowed=listed(known, 40), cure=guess.strip())
    if item["type"] == "missing":
        return Fault("missing", where=where, key=shown, allowed="this key has to be given")
    return Fault(f"found {_shown(item['input'])}", where=where, key=shown, allowed=_allowed(item), cure=_cure(item))


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return f"{str(value).lower()} (a boolean)"
    if isinstance(value, str):
        return f'"{value}"' if len(value) < 60 else f'"{value[:57]}…"'
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    return f"{value!r}"[:80]


def _allowed(item: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    words = {
        "string_type": "a string",
        "int_type": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "too_short": "at least 1 entry",
        "invalid_key": "a key in quotes",
    }
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "value_error":
        return str(context["error"])
    message = str(item["msg"])
    return words.get(kind, message[:1].lower() + message[1:])


def _cure(item: Any) -> str:
    if item["type"] == "string_type" and isinstance(item["input"], bool | int | float):
        return f'write it in quotes: "{str(item["input"]).lower()}"'
    if item["type"] in ("float_type", "int_type") and isinstance(item["input"], str) and _is_number(item["input"]):
        return "write the number without quotes"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def known_keys(model: type[BaseModel], path: Key) -> list[str]:
    """The keys that `model` knows below `path`, for messages."""
    current: Any = model
    for part in path:
        if isinstance(part, int):
            continue
        if not (isinstance(current, type) and issubclass(current, BaseModel)) or part not in current.model_fields:
            return []
        current = _model_in(current.model_fields[part].annotation)
    if not (isinstance(current, type) and issubclass(current, BaseModel)):
        return []
    return [info.alias or name for name, info in current.model_fields.items()]


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is not None:
        for inner in get_args(annotation):
            found = _model_in(inner)
            if found is not None:
                return found
    return None


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `over` laid on top; mappings merge key by key, everything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def set_key(data: dict[str, Any], assignment: str, faults: Faults, source: Source | None = None) -> None:
    """Apply one `--set a.b.c=value`; the value is read as YAML 1.2, and `tasks.NAME.…` finds the task by name.

    `source` is told that the key now stands on the command line.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        faults.add(f'found "{assignment}"', key="--set", allowed="KEY=VALUE, such as training.learning_rate=3e-5")
        return
    value = parse_value(text)
    parts = path.strip().split(".")
    node: Any = data
    key: Key = ()
    for depth, part in enumerate(parts[:-1]):
        step = _step(node, part, parts[: depth + 1], faults)
        if step is None:
            return
        node, key = step[0], (*key, step[1])
    if isinstance(node, list):
        if not _set_in_list(node, parts, value, faults):
            return
        key = (*key, int(parts[-1]))
    else:
        node[parts[-1]] = value
        key = (*key, parts[-1])
    if source is not None:
        kept = {old: line for old, line in source.lines.items() if old[: len(key)] != key}
        source.lines = {**kept, key: "--set"}


def _step(node: Any, part: str, path: Sequence[str], faults: Faults) -> tuple[Any, str | int] | None:
    """What lies under `part`, made a mapping if need be, and its key."""
    if isinstance(node, list):
        found = [i for i, item in enumerate(node) if part in _called(item)]
        found += [int(part)] if part.isdigit() and int(part) < len(node) else []
        if not found or not (isinstance(node[found[0]], dict | list) or (len(path) == 2 and path[0] == "tasks")):
            faults.add(f'nothing called "{part}"', key=f"--set {'.'.join(path)}", allowed=listed(_names(node)))
            return None
        if isinstance(node[found[0]], str):
            node[found[0]] = {"use": node[found[0]]}
        return node[found[0]], found[0]
    if node.get(part) is None:
        node[part] = {}
    elif not isinstance(node[part], dict | list):
        node[part] = {"name": node[part]} if part == "encoder" else {}
    return node[part], part


def _called(item: Any) -> list[Any]:
    """What an entry of a list may be called: a task's name, or the stem of its file."""
    if isinstance(item, str):
        return [Path(item).stem]
    return [item.get("name"), Path(str(item.get("use", ""))).stem] if isinstance(item, dict) else []


def _names(items: list[Any]) -> list[str]:
    return [str(i.get("name") or i.get("use")) if isinstance(i, dict) else str(i) for i in items]


def _set_in_list(node: list[Any], parts: Sequence[str], value: Any, faults: Faults) -> bool:
    if parts[-1].isdigit() and int(parts[-1]) < len(node):
        node[int(parts[-1])] = value
        return True
    faults.add(f'no entry "{parts[-1]}"', key=f"--set {'.'.join(parts)}", allowed=f"0 … {len(node) - 1}")
    return False


def parse_value(text: str) -> Any:
    """One YAML 1.2 value: `3e-5` is a number, `[a, b]` a list, `no` a string."""
    from ruamel.yaml.error import YAMLError

    try:
        data, _ = parse_yaml(f"value: {text}", "--set")
    except (FaultyInput, YAMLError):
        return text
    return data["value"]


def dump_yaml(data: Mapping[str, Any]) -> str:
    """Plain data as YAML 1.2 that `read_yaml` reads back to equal data."""
    from io import StringIO

    from ruamel.yaml import YAML

    writer: Any = YAML(typ="safe", pure=True)
    writer.version = None
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False
    writer.allow_unicode = True
    writer.width = 110
    out = StringIO()
    writer.dump(dict(data), out)
    return out.getvalue()
