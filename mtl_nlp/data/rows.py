"""One split of a place → normal rows: the input columns of a corpus and an annotation column a task.

Input columns, by what the corpus reads: `tokens` (list of words) or `text`, with `pair` beside it; `question` and `context`;
`context`, `choices` (list) and, where given, `question`; `query` and
`passages` (list: the positive, then hard negatives). Annotation columns are called `@TASK`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..errors import Faults, FaultyInput, fault, listed
from ..kinds import HeadKind
from ..task import Columns, Task, column_faults
from .annotations import AnnotationReader, bracketed_words
from .candidates import gathered
from .conll import CONLL_U
from .places import Place
from .readers import Origin, bad_json, mixed_types, read_files, read_hub, read_memory
from .streaming import first_rows

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
    names = {task.name: _class_names(task, raw, columns[task.name]) for task in tasks}
    kept = _filtered(raw, tasks[0], origin)
    source_rows = list(range(len(raw))) if kept is None else kept
    if not source_rows:
        raise fault(f"the split {split} is empty", where=origin.where(0), key=f"data ({tasks[0].name})", allowed="rows")
    plan = _plan(tasks, columns)
    readers = {task.name: AnnotationReader(task, names[task.name], skip=place.hub is not None) for task in tasks}
    rows = SplitRows(raw, origin, source_rows, readers, names, plan.reads, len(raw) - len(source_rows))
    if plan.reads == "tokens" and len(tasks) > 1 and any("spans" in roles for roles in columns.values()):
        rows.disagreement = "spans count the characters of a raw text"
        return rows
    selected = raw if kept is None else raw.select(kept)
    if "candidate" in columns[tasks[0].name]:
        selected, firsts = gathered(selected, [columns[task.name] for task in tasks])
        rows.source_rows = [source_rows[row] for row in firsts]
    rows.data = spool(_normal_batches(selected, tasks, plan, rows), _features(tasks, plan))
    return rows


def _raw(place: Place, split: str, task: Task, objects: Mapping[str, Any]) -> tuple[Dataset | None, Origin]:
    data, origin = _whole(place, split, task, objects)
    try:
        rows = None if data is None else first_rows(data, task.data.rows, task.place_of("data", "streaming"))
    except FaultyInput as error:
        # A stream breaks off without naming the line.
        raise (bad_json(origin.files) if origin.format == "json" else None) or error from error
    return rows, origin


def _whole(place: Place, split: str, task: Task, objects: Mapping[str, Any]) -> tuple[Any, Origin]:
    """All rows of a split, or a stream of them."""
    streaming = task.data.streaming
    if place.memory:
        return read_memory(objects[split], f"{task.name} ({split})")
    if place.hub is not None:
        try:
            name = dict(place.hub_splits)[split]
            return read_hub(place.hub, name, task.place_of("data", "source"), streaming=streaming)
        except Exception as error:
            if place.optional_splits and split != "train" and "nknown split" in str(error):
                return None, Origin([], "hub")
            raise
    return read_files(dict(place.files)[split], streaming=streaming)


def _resolve(task: Task, raw: Dataset, origin: Origin, split: str, faults: Faults) -> dict[str, Any]:
    """Role → column of the source for one task."""
    found: dict[str, Any] = {}
    place, numbered = task.place_of("data", "columns"), tuple(raw.column_names) == CONLL_U
    for role, names in task.data.columns.roles().items():
        if role == "choice_columns":
            missing = [name for name in names if name not in raw.column_names]
            found[role] = names
        else:
            present = [column for name in names if (column := _column(name, raw, origin))]
            missing = [] if present else list(names)
            if (
                missing
                and origin.format == "conll"
                and (role == "tokens" or (role == "labels" and raw.num_columns > 1 and not numbered))
            ):
                # A CoNLL file has no column names: the words are known and the tags come last, but for CoNLL-U, which has several.
                present, missing = ["tokens" if role == "tokens" else raw.column_names[-1]], []
            found[role] = present[0] if present else ""
            mixed = mixed_types(origin, raw, found[role]) if present and role not in ("spans", "answers") else None
            if mixed is not None:
                faults.extend(mixed)
        wrong = [
            (name, allowed) for name in _as_list(found[role]) if name and (allowed := _wrong_form(role, raw, name))
        ]
        for name, allowed in wrong:
            told = f'column "{name}" holds {_form(raw.features[name])}'
            faults.add(told, where=place, key=f"{task.name}.data.columns.{role}", allowed=allowed)
        if missing:
            file = origin.files[0].name if origin.files else origin.name
            faults.add(
                f"no column {listed(missing)} in {file} ({split})",
                where=place,
                key=f"{task.name}.data.columns.{role}",
                allowed=listed(raw.column_names, 30),
            )
    return found


def _column(name: str, raw: Dataset, origin: Origin) -> str:
    """The column of that name, empty if there is none; `column_4` is the fourth of CoNLL, whatever it is called."""
    if origin.format == "conll" and name not in raw.column_names:
        number = name.removeprefix("column_")
        known = number != name and number.isdecimal() and 1 <= int(number) <= raw.num_columns
        return str(raw.column_names[int(number) - 1]) if known else ""
    return name if name in raw.column_names else ""


def _as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _form(feature: Any) -> str:
    from datasets import LargeList, List

    if isinstance(feature, List | LargeList | list):
        return "lists"
    return "mappings" if isinstance(feature, dict) else f"{getattr(feature, 'dtype', type(feature).__name__)} values"


def _wrong_form(role: str, raw: Dataset, column: str) -> str:
    """What a column has to hold to play the role, where it holds something else."""
    form = _form(raw.features[column])
    if role in (
        "text",
        "pair",
        "question",
        "context",
        "bracketed",
        "choice_columns",
        "query",
        "candidate",
        "positive",
    ) and form in ("lists", "mappings"):
        return "text" + ("; a list of words is the role tokens" if role == "text" and form == "lists" else "")
    if role == "tokens" and form not in ("lists", "string values", "large_string values", "null values"):
        return "a list of words, or one string of them"
    return "a list of texts" if role in ("choices", "candidates") and form not in ("lists", "null values") else ""


def with_default_columns(task: Task, data: Any) -> Task:
    """For data in memory without `columns`: the columns called as the roles that the head needs.

    Raises:
        FaultyInput: it has no such columns.
    """
    names, kind = read_memory(data, task.name)[0].column_names, task.kind
    if not names:
        return task
    if kind.annotation == "tags":
        options = (("tokens", "labels"), ("text", "spans"), ("bracketed",))
        wanted: tuple[str, ...] = next((option for option in options if set(option) <= set(names)), ())
    elif kind.input == "text":
        wanted = (
            "text" if "text" in names else "tokens",
            "pair",
            *(role for role in ("label", "labels") if _asks(kind, role)),
        )
    else:
        wanted = ("question", "context", *(("answers",) if kind.input == "question" else ("choices", "label")))
    if kind.input == "passages":
        wanted = ("query", "positive", "negatives")
    if kind.input == "candidates":
        wanted = ("query", "candidates" if "candidates" in names else "candidate", "relevance")
    used = {role: role for role in wanted if role in names}
    problems = list(column_faults(set(used), kind))
    if problems:
        cure = "rename them, or say in data.columns which is which"
        raise fault("; ".join(problems), where=f"{task.name} (in memory)", allowed=listed(names, 30), cure=cure)
    data_spec = task.data.model_copy(update={"columns": Columns.model_validate(used)})
    return task.model_copy(update={"data": data_spec}).placed(task._source, task.base)


def _asks(kind: HeadKind, role: str) -> bool:
    return any(role in option for option in kind.form.columns)


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


def _annotation_role(task: Task, columns: Mapping[str, Any]) -> str:
    """The role that holds the task's annotation; masked LM has none."""
    return next((role for option in task.kind.form.columns for role in sorted(option) if role in columns), "")


def _class_names(task: Task, raw: Dataset, columns: Mapping[str, Any]) -> list[str] | None:
    from datasets import ClassLabel

    feature = raw.features.get(columns.get(_annotation_role(task, columns), ""))
    feature = getattr(feature, "feature", feature)
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def _plan(tasks: Sequence[Task], columns: dict[str, dict[str, Any]]) -> _Plan:
    kind = tasks[0].kind.input
    if kind != "text":
        return _Plan(columns, "choices" if kind == "candidates" else kind)
    with_words = [name for name, roles in columns.items() if "tokens" in roles or "bracketed" in roles]
    if with_words:
        return _Plan(columns, "tokens", with_words[0])
    return _Plan(columns, "text")


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
    given = _input_of(batch, i, roles, plan.reads)
    for other in plan.columns:
        if other != owner and not rows.disagreement:
            rows.disagreement = _disagreement(batch, i, plan.columns[other], given, row, rows)
    return given


def _input_of(batch: Mapping[str, list[Any]], i: int, roles: Mapping[str, Any], reads: str) -> dict[str, Any]:
    """A text as one task's columns give it."""
    if reads == "tokens":
        given: dict[str, Any] = {"tokens": _words(batch, i, roles)}
    elif reads == "text":
        given = {"text": _text(batch[roles["text"]][i])}
    elif reads == "passages":
        negatives = batch[roles["negatives"]][i] if "negatives" in roles else None
        listed_ones = negatives if isinstance(negatives, list) else [negatives]
        passages = [batch[roles["positive"]][i], *(one for one in listed_ones if one)]
        given = {"query": _text(batch[roles["query"]][i]), "passages": [_text(one) for one in passages]}
    else:
        given = {"context": _text(batch[roles["query" if "query" in roles else "context"]][i])}
        if reads == "choices":
            columns = roles.get("choice_columns", ())
            listing = next((roles[role] for role in ("choices", "candidates", "candidate") if role in roles), None)
            choices = batch[listing][i] if listing is not None else [batch[column][i] for column in columns]
            given["choices"] = [_text(choice) for choice in choices or []]
    return given | {role: _text(batch[roles[role]][i]) for role in ("question", "pair") if role in roles}


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
    if "tokens" in given and "text" in roles:
        # Words win over text, as long as both are the same characters.
        other = {"tokens": "".join(_text(batch[roles["text"]][i]).split())}
        other |= {"pair": _text(batch[roles["pair"]][i])} if "pair" in roles else {}
        same = other == {**given, "tokens": "".join("".join(given["tokens"]).split())}
    else:
        reads = next(name for name in ("tokens", "text", "passages", "choices", "question") if name in given)
        same = given == _input_of(batch, i, roles, reads)
    if same:
        return ""
    return f"first at {rows.origin.where(rows.source_rows[row])}"


def _annotation(
    batch: Mapping[str, list[Any]], i: int, task: Task, plan: _Plan, given: Mapping[str, Any], row: int, rows: SplitRows
) -> Any:
    roles, reader = plan.columns[task.name], rows.readers[task.name]
    role = _annotation_role(task, roles)
    value = batch[roles[role]][i]
    if role == "bracketed" and not reader.is_missing(value):
        try:
            value = bracketed_words(_text(value))[1]
        except ValueError as error:
            return reader.refuse(row, str(error))
    order = ("tokens", "text") if task.kind.input == "text" else ("passages", "choices", "context")
    about = next(given[name] for name in order if name in given)
    return reader.read(row, value, about)


def _features(tasks: Sequence[Task], plan: _Plan) -> dict[str, Any]:
    from datasets import List, Value

    text, words = Value("string"), List(Value("string"))
    inputs: dict[str, dict[str, Any]] = {
        "tokens": {"tokens": words},
        "text": {"text": text},
        "question": {"question": text, "context": text},
        "choices": {"context": text, "choices": words},
        "passages": {"query": text, "passages": words},
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
        "relevance": List(Value("float64")),
        "match": text,
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
