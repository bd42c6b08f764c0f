"""One split of a place → normal rows: the input columns of a corpus and an annotation column a task.

Input columns, by what the corpus reads: `tokens` (list of words) or `text`, with `pair` beside it; `question` and `context`;
`context`, `choices` (list) and, where given, `question`. Annotation columns are called `@TASK`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..errors import Faults, fault, listed
from ..task import Task
from .annotations import AnnotationReader, bracketed_words
from .places import Place
from .readers import Origin, mixed_types, read_files, read_hub, read_memory

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 1000
_SPOOLS: list[TemporaryDirectory[str]] = []


@dataclass
class SplitRows:
    """A split, read: normal rows, where they came from, and each task's reader with its counts."""

    data: Dataset
    origin: Origin
    source_rows: list[int]
    readers: dict[str, AnnotationReader]
    class_names: dict[str, list[str] | None]
    reads: str
    filtered: int = 0
    disagreement: str = ""

    def annotated_rows(self, columns: Sequence[str]) -> list[int]:
        """Rows with at least one annotation; all rows where no task has any."""
        if not columns:
            return list(range(len(self.data)))
        present = [self.data.data.column(name).is_valid().to_pylist() for name in columns]
        return [row for row, flags in enumerate(zip(*present, strict=True)) if any(flags)]


@dataclass
class _Plan:
    """Which column feeds which role of which task."""

    columns: dict[str, dict[str, Any]]
    reads: str
    words_of: str = ""
    texts_of: list[str] = field(default_factory=list)


def read_rows(place: Place, split: str, tasks: Sequence[Task], objects: Mapping[str, Any]) -> SplitRows | None:
    """Read one split; None if the Hub does not have an optional one.

    Raises:
        FaultyInput: unreadable source, or columns that are not there (of all tasks).
    """
    raw, origin = _raw(place, split, tasks[0], objects)
    if raw is None:
        return None
    faults = Faults()
    columns = {task.name: _resolve(task, raw, origin, split, faults) for task in tasks}
    faults.check()
    kept = _filtered(raw, tasks[0], origin)
    source_rows = list(range(len(raw))) if kept is None else kept
    if not source_rows:
        raise fault(f"the split {split} is empty", where=origin.where(0), key=f"data ({tasks[0].name})", allowed="rows")
    plan = _plan(tasks, columns)
    names = {task.name: _class_names(raw, columns[task.name]) for task in tasks}
    readers = {task.name: AnnotationReader(task, names[task.name], skip=place.hub is not None) for task in tasks}
    rows = SplitRows(raw, origin, source_rows, readers, names, plan.reads, len(raw) - len(source_rows))
    selected = raw if kept is None else raw.select(kept)
    rows.data = spool(_normal_batches(selected, tasks, plan, rows), _features(tasks, plan))
    return rows


def _raw(place: Place, split: str, task: Task, objects: Mapping[str, Any]) -> tuple[Dataset | None, Origin]:
    if place.memory:
        return read_memory(objects[split], f"{task.name} ({split})")
    if place.hub is not None:
        try:
            return read_hub(place.hub, dict(place.hub_splits)[split], task.place_of("data", "source"))
        except Exception as error:
            if place.optional_splits and split != "train" and "nknown split" in str(error):
                return None, Origin([], "hub")
            raise
    return read_files(dict(place.files)[split])


def _resolve(task: Task, raw: Dataset, origin: Origin, split: str, faults: Faults) -> dict[str, Any]:
    """Role → column of the source for one task."""
    found: dict[str, Any] = {}
    place = task.place_of("data", "columns")
    for role, names in (task.data.columns.roles() or _roles_by_default(task, raw)).items():
        if role == "choice_columns":
            missing = [name for name in names if name not in raw.column_names]
            found[role] = names
        else:
            present = [name for name in names if name in raw.column_names]
            missing = [] if present else list(names)
            if missing and origin.format == "conll" and role in ("tokens", "labels"):
                # A CoNLL file has no column names: the words come first and the tags last.
                present, missing = [raw.column_names[0 if role == "tokens" else -1]], []
            found[role] = present[0] if present else ""
            mixed = mixed_types(origin, raw, found[role]) if present and role not in ("spans", "answers") else None
            if mixed is not None:
                faults.extend(mixed)
        if missing:
            file = origin.files[0].name if origin.files else origin.name
            faults.add(
                f"no column {listed(missing)} in {file} ({split})",
                where=place,
                key=f"{task.name}.data.columns.{role}",
                allowed=listed(raw.column_names, 30),
            )
    return found


def _roles_by_default(task: Task, raw: Dataset) -> dict[str, list[str]]:
    """For data in memory without `columns`: the roles' own names."""
    roles = ("text", "tokens", "pair", "label", "labels", "spans", "question", "context", "answers", "choices")
    used = [role for role in roles if role in raw.column_names]
    if task.kind.annotation == "tags" and "tokens" in used:
        used = [role for role in used if role not in ("text", "spans")]
    return {role: [role] for role in used}


def _filtered(raw: Dataset, task: Task, origin: Origin) -> list[int] | None:
    rules = task.data.filter
    if not rules:
        return None
    for column in rules:
        if column not in raw.column_names:
            where, key = task.place_of("data", "filter"), f"{task.name}.data.filter"
            raise fault(f'no column "{column}"', where=where, key=key, allowed=listed(raw.column_names, 30))
    allowed = {column: value if isinstance(value, list) else [value] for column, value in rules.items()}
    columns = {column: raw[column] for column in rules}
    return [row for row in range(len(raw)) if all(columns[c][row] in allowed[c] for c in rules)]


def _class_names(raw: Dataset, columns: Mapping[str, Any]) -> list[str] | None:
    from datasets import ClassLabel

    feature = raw.features.get(columns.get("label") or columns.get("labels") or "")
    feature = getattr(feature, "feature", feature)
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def _plan(tasks: Sequence[Task], columns: dict[str, dict[str, Any]]) -> _Plan:
    kind = tasks[0].kind.input
    if kind != "text":
        return _Plan(columns, kind)
    with_words = [name for name, roles in columns.items() if "tokens" in roles or "bracketed" in roles]
    texts = [name for name, roles in columns.items() if "text" in roles]
    if with_words:
        return _Plan(columns, "tokens", with_words[0], [n for n in columns if n != with_words[0]])
    return _Plan(columns, "text", texts[0], texts[1:])


def _normal_batches(
    raw: Dataset, tasks: Sequence[Task], plan: _Plan, rows: SplitRows
) -> Iterator[dict[str, list[Any]]]:
    row = 0
    for start in range(0, len(raw), BATCH):
        batch = raw[start : start + BATCH]
        size = len(next(iter(batch.values())))
        out: dict[str, list[Any]] = {name: [] for name in _features(tasks, plan)}
        for i in range(size):
            given = _input(batch, i, plan, row, rows)
            for name, value in given.items():
                out[name].append(value)
            for task in tasks:
                if task.kind.annotation != "none":
                    out[f"@{task.name}"].append(_annotation(batch, i, task, plan, given, row, rows))
            row += 1
        yield out


def _input(batch: Mapping[str, list[Any]], i: int, plan: _Plan, row: int, rows: SplitRows) -> dict[str, Any]:
    owner = plan.words_of or next(iter(plan.columns))
    roles = plan.columns[owner]
    if plan.reads == "question":
        return {role: str(batch[roles[role]][i] or "") for role in ("question", "context")}
    if plan.reads == "choices":
        listed_choices = (
            batch[roles["choices"]][i] if "choices" in roles else [batch[c][i] for c in roles["choice_columns"]]
        )
        given: dict[str, Any] = {
            "context": str(batch[roles["context"]][i] or ""),
            "choices": [str(c) for c in listed_choices],
        }
        return given | ({"question": str(batch[roles["question"]][i] or "")} if "question" in roles else {})
    given = {"tokens": _words(batch, i, roles)} if plan.reads == "tokens" else {"text": _text(batch[roles["text"]][i])}
    if "pair" in roles:
        given["pair"] = _text(batch[roles["pair"]][i])
    for other in plan.texts_of:
        if not rows.disagreement:
            rows.disagreement = _disagreement(batch, i, plan.columns[other], given, row, rows)
    return given


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _words(batch: Mapping[str, list[Any]], i: int, roles: Mapping[str, Any]) -> list[str]:
    if "tokens" in roles:
        value = batch[roles["tokens"]][i]
        return value.split() if isinstance(value, str) else [_text(word) for word in value or []]
    return _bracketed(batch[roles["bracketed"]][i])[0]


def _bracketed(value: Any) -> tuple[list[str], list[str]]:
    try:
        return bracketed_words(_text(value))
    except ValueError:
        return _text(value).split(), []


def _disagreement(
    batch: Mapping[str, list[Any]],
    i: int,
    roles: Mapping[str, Any],
    given: Mapping[str, Any],
    row: int,
    rows: SplitRows,
) -> str:
    mine = "".join(given["tokens"]) if "tokens" in given else given["text"]
    other = "".join(_words(batch, i, roles)) if "text" not in roles else _text(batch[roles["text"]][i])
    if mine == other or ("tokens" in given and "".join(other.split()) == "".join(mine.split())):
        return ""
    return f"first at {rows.origin.where(rows.source_rows[row])}"


def _annotation(
    batch: Mapping[str, list[Any]], i: int, task: Task, plan: _Plan, given: Mapping[str, Any], row: int, rows: SplitRows
) -> Any:
    roles, reader = plan.columns[task.name], rows.readers[task.name]
    if "bracketed" in roles and task.kind.annotation == "tags":
        value: Any = _bracketed(batch[roles["bracketed"]][i])[1]
    else:
        name = roles.get("label") or roles.get("labels") or roles.get("spans") or roles.get("answers")
        value = batch[str(name)][i]
    about = (
        given.get("tokens", given.get("text")) if task.kind.input == "text" else given.get("choices", given["context"])
    )
    return reader.read(row, value, about)


def _features(tasks: Sequence[Task], plan: _Plan) -> dict[str, Any]:
    from datasets import List, Value

    text, words = Value("string"), List(Value("string"))
    inputs: dict[str, dict[str, Any]] = {
        "tokens": {"tokens": words},
        "text": {"text": text},
        "question": {"question": text, "context": text},
        "choices": {"context": text, "choices": words},
    }
    features = dict(inputs[plan.reads])
    roles = plan.columns[plan.words_of or tasks[0].name]
    if plan.reads == "choices" and "question" in roles:
        features["question"] = text
    if plan.reads in ("text", "tokens") and "pair" in roles:
        features["pair"] = text
    spans = List({"start": Value("int32"), "end": Value("int32"), "label": text})
    forms = {
        "label": text,
        "labels": words,
        "value": Value("float64"),
        "answer": {"text": words, "answer_start": List(Value("int32"))},
        "choice": Value("int32"),
    }
    for task in tasks:
        kind = task.kind.annotation
        if kind == "tags":
            features[f"@{task.name}"] = spans if "spans" in plan.columns[task.name] else words
        elif kind != "none":
            features[f"@{task.name}"] = forms[kind]
    return features


def spool(batches: Iterator[dict[str, list[Any]]], features: Mapping[str, Any]) -> Dataset:
    """Batches of columns → a dataset that is memory-mapped from a temporary file, so that it may exceed the memory."""
    from datasets import Dataset, Features
    from datasets.arrow_writer import ArrowWriter

    folder = TemporaryDirectory(prefix="mtl-nlp-")
    _SPOOLS.append(folder)
    path = f"{folder.name}/rows.arrow"
    with ArrowWriter(path=path, features=Features(dict(features))) as writer:
        for batch in batches:
            writer.write_batch(batch)
        writer.finalize()
    return Dataset.from_file(path)
