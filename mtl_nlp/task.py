"""A task: a dataset, a head and a metric, declared in one YAML file.

`Task` is the validated definition; `load_task` reads a file and `find_task` resolves a name beside the recipe first, then among
the files that ship. Nothing here reads data or imports torch. The next step on the road is `mtl_nlp.data.sources`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from .errors import Faults, FaultyInput, UserError, closest, fault, listed
from .kinds import INPUT_COLUMNS, HeadKind, head_kind
from .loss import Loss, name_faults, option_faults, outputs_of
from .schema import Problems, Source, Strict, read_yaml, validate

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)]
Scheme = Literal["iob2", "iob1", "bioes", "none"]
Words = Literal["given", "whitespace", "pretokenizer"]
SPLITS = ("train", "validation", "test")
SHIPPED = "shipped_tasks"
MAX_LABEL = 1000  # characters
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
MISSING: tuple[str | int | float, ...] = (-1, "")


def _one_or_more(value: str | list[str]) -> str | list[str]:
    if not value or (isinstance(value, list) and not all(value)):
        raise ValueError("a name, or a list of names")
    return value


Names = Annotated[str | list[str], AfterValidator(_one_or_more)]


class Columns(Strict):
    """Which column plays which role; a value is a column's name, or several tried in order."""

    text: Names | None = None
    tokens: Names | None = None
    bracketed: Names | None = None
    pair: Names | None = None
    label: Names | None = None
    labels: Names | None = None
    spans: Names | None = None
    question: Names | None = None
    context: Names | None = None
    answers: Names | None = None
    choices: Names | None = None
    choice_columns: list[str] | None = None
    query: Names | None = None
    candidates: Names | None = None
    candidate: Names | None = None
    relevance: Names | None = None
    positive: Names | None = None
    negatives: Names | None = None

    def roles(self) -> dict[str, list[str]]:
        """Role → the names to try, in order, for the roles that are given."""
        given = self.model_dump(exclude_none=True)
        return {role: [names] if isinstance(names, str) else list(names) for role, names in given.items()}


class Splits(Strict):
    """A split of the source for each of ours: its name, a file, a glob, or a list of files."""

    train: Names | None = None
    validation: Names | None = None
    test: Names | None = None

    def given(self) -> dict[str, list[str]]:
        """Our split → names or files."""
        pairs = self.model_dump(exclude_none=True).items()
        return {split: [value] if isinstance(value, str) else list(value) for split, value in pairs}


class Data(Strict):
    """Where a task's texts and annotations come from. Every field is explained in `tasks/README.md`."""

    source: str | None = None
    config: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    data_files: dict[Literal["train", "validation", "test"], Names] | None = None
    splits: Splits = Field(default_factory=Splits)
    validation: float = Field(default=0.1, gt=0.0, lt=1.0)
    columns: Columns = Field(default_factory=Columns)
    names: list[str] | None = None
    filter: dict[str, str | int | float | list[str | int | float]] | None = None
    missing: list[str | int | float] = Field(default_factory=lambda: list(MISSING))
    rows: int | None = Field(default=None, ge=1)
    streaming: bool = False


class Consistency(Strict):
    """The task whose label a token task's types have to go with, and which types go with which label (counted where absent)."""

    task: Name
    types: dict[str, list[str]] | None = None


class Abstain(Strict):
    """No answer, or `label` (out of scope) in its place, where the highest probability is below `threshold`."""

    threshold: float = Field(gt=0.0, lt=1.0)
    label: str | None = None


class Calibration(Strict):
    """How a head's outputs are read: logits are divided by `temperature`; a label is chosen above its threshold (else 0.5).

    Written into a checkpoint by `mtl-nlp calibrate`.
    """

    temperature: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    thresholds: dict[str, Annotated[float, Field(gt=0.0, lt=1.0)]] | None = None
    abstain: Abstain | None = None


class Task(Strict):
    """One task's definition.

    Raises:
        FaultyInput: (by the loaders) whatever is wrong with it, all at once.
    """

    name: Name
    description: str = ""
    head: str
    data: Data = Field(default_factory=Data)
    scheme: Scheme | None = None
    words: Words | None = None
    labels: list[str] | None = None
    metrics: list[str] | None = None
    from_: str | None = Field(default=None, alias="from", min_length=1)
    loss: Loss = Field(default_factory=Loss)
    share_head_with: Name | None = None
    consistent_with: Name | Consistency | None = None
    auxiliary: bool = False
    projection: int | None = Field(default=None, ge=1, le=65536)
    mask_probability: float = Field(default=0.15, gt=0.0, lt=1.0)
    licence: str | None = None
    language: str | None = None
    calibration: Calibration | None = None

    _source: Source = PrivateAttr(default_factory=Source)
    _base: Path = PrivateAttr(default_factory=Path)

    @model_validator(mode="after")
    def _coherent(self) -> Task:
        problems = list(_incoherent(self))
        if problems:
            raise Problems(problems)
        return self

    @property
    def kind(self) -> HeadKind:
        """The head's torch-free half."""
        return head_kind(self.head)

    @property
    def metric_names(self) -> list[str]:
        """The metrics, the primary one first."""
        return list(self.kind.default_metrics) if self.metrics is None else list(self.metrics)

    @property
    def counts_in_mean(self) -> bool:
        """Whether the primary metric enters `eval_mean`."""
        return not self.auxiliary and bool(self.metric_names)

    @property
    def tag_scheme(self) -> str:
        """The tagging scheme, `iob2` unless given."""
        return self.scheme or "iob2"

    @property
    def word_splitter(self) -> str:
        """How raw text is cut into words: `given` columns keep theirs."""
        return self.words or ("given" if "tokens" in self.data.columns.roles() else "pretokenizer")

    @property
    def where(self) -> str:
        """The file that defines the task, for messages."""
        return self._source.file

    @property
    def base(self) -> Path:
        """The folder that relative paths start from."""
        return self._base

    def placed(self, source: Source, base: Path) -> Task:
        """The same task, knowing where it was written."""
        self._source, self._base = source, base
        return self

    def place_of(self, *key: str | int) -> str:
        """`file:line` of one of its keys."""
        return self._source.where(key)


def _incoherent(task: Task) -> Iterable[str]:
    try:
        kind = task.kind
    except UserError as error:
        yield str(error)
        return
    yield from _label_faults(task, kind)
    roles = set(task.data.columns.roles())
    if roles:
        yield from column_faults(roles, kind)
    tags = kind.annotation == "tags"
    if not tags and task.scheme is not None:
        yield f"scheme is for token tasks; head {task.head} has none: remove the key"
    if tags and task.words == "given" and roles and not roles & {"tokens", "bracketed"}:
        yield "words: given needs a column of words (the role tokens): write whitespace or pretokenizer, or remove the key"
    if not tags and task.words is not None:
        yield f"words is for token tasks; head {task.head} has none: remove the key"
    if kind.annotation != "none" and task.mask_probability != 0.15:
        yield "mask_probability is for masked_language_modeling only: remove the key"
    if kind.annotation != "match" and task.projection is not None:
        yield "projection is for retrieval only: remove the key"
    yield from option_faults(task.loss, kind)
    if task.labels and task.loss.given():
        yield from name_faults(task.loss, outputs_of(kind, task.labels, task.tag_scheme), task.labels)
    if task.calibration is not None:
        yield from _calibration_faults(task, task.calibration, kind)
    if "validation" in task.data.model_fields_set and task.data.splits.validation is not None:
        yield "data.validation carves a split, but data.splits.validation names one: keep one of them"
    if task.data.streaming and task.data.rows is None:
        yield "data.streaming needs data.rows: write how many rows of each split are to be read"


def _label_faults(task: Task, kind: HeadKind) -> Iterable[str]:
    labels = task.labels
    if labels is None:
        return
    if not kind.form.has_labels and kind.annotation != "choice":
        yield f"labels are not used by head {task.head}: remove the key"
        return
    doubled = sorted({label for label in labels if labels.count(label) > 1})
    if doubled:
        yield f"labels has {listed(doubled)} more than once: list each label once"
    unreadable = [label for label in labels if not is_readable(label)]
    if unreadable:
        yield f"labels has control characters in {listed(repr(label)[:80] for label in unreadable)}: rename them"
    if any(not label for label in labels):
        yield "labels has an empty name: give every label a name"
    if kind.annotation == "label" and len(labels) < 2:
        yield f"labels has {len(labels)} entries; {task.head} needs at least two"
    if not labels:
        yield "labels is an empty list: list the labels, or remove the key to take them from the data"
    if kind.annotation == "tags" and task.tag_scheme != "none":
        tagged = [label for label in labels if label == "O" or label[:2] in ("B-", "I-", "E-", "S-")]
        if tagged:
            yield (
                f"labels has the tags {listed(tagged)}; with scheme {task.tag_scheme} it lists entity types (PER, LOC), "
                "without O and prefixes: write the types, or scheme: none"
            )


def is_readable(label: str) -> bool:
    """Whether a label is free of control characters and of those that turn the direction of writing."""
    return len(label) <= MAX_LABEL and not any(
        unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in TURNING for char in label
    )


def _calibration_faults(task: Task, found: Calibration, kind: HeadKind) -> Iterable[str]:
    known = set(task.labels or ())
    if kind.annotation in ("value", "none"):
        yield f"calibration is for probabilities; head {task.head} gives none: remove the key"
    if found.thresholds is not None and kind.annotation != "labels":
        yield f"calibration.thresholds are for several labels; head {task.head} has none: remove the key"
    elif found.thresholds is not None and known and (odd := sorted(set(found.thresholds) - known)):
        yield f"calibration.thresholds has {listed(odd)}; the labels are {listed(task.labels or ())}"
    if kind.annotation == "match" and (found.temperature != 1.0 or (found.abstain and found.abstain.label is not None)):
        yield f"head {task.head} gives cosines: of a calibration it takes abstain.threshold alone"
    elif found.abstain is not None and kind.annotation not in ("label", "match"):
        yield f"calibration.abstain is for one label; head {task.head} has none: remove the key"
    elif found.abstain is not None and found.abstain.label is not None and known and found.abstain.label not in known:
        yield f'calibration.abstain.label is "{found.abstain.label}"; the labels are {listed(task.labels or ())}'


def column_faults(roles: set[str], kind: HeadKind) -> Iterable[str]:
    """What a head needs that the roles do not give."""
    needed = [sorted(option) for option in kind.form.columns]
    several = sorted(roles & {"labels", "spans", "bracketed"}) if kind.annotation == "tags" else []
    if len(several) > 1:
        yield f"data.columns has {listed(several)}; head {kind.name} reads one of them: remove the others"
    if {"tokens", "spans"} <= roles and kind.annotation == "tags":
        yield "data.columns has tokens with spans, which count the characters of a text: give text in place of tokens"
    if {"candidates", "candidate"} <= roles:
        yield "data.columns has candidates (a list) with candidate (one a row): remove one of them"
    if not any(option <= roles for option in kind.form.columns):
        options = " or ".join("+".join(option) for option in needed)
        yield f"data.columns has {listed(sorted(roles))}; head {kind.name} needs the role {options}"
    inputs = INPUT_COLUMNS[kind.input]
    if not any(option <= roles for option in inputs):
        options = " or ".join("+".join(sorted(option)) for option in inputs)
        yield f"data.columns has {listed(sorted(roles))}; head {kind.name} reads {options}"


def make_task(data: dict[str, Any], source: Source, base: Path, prefix: tuple[str | int, ...] = ()) -> Task:
    """A task from plain data; `base` is where its relative paths start, `prefix` its key in the file."""
    return validate(Task, with_place(data, base), source, prefix).placed(source, base)


def with_place(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """Task data whose `from`, if it is a folder, is absolute: it may be read beside a file in another folder."""
    start = data.get("from")
    if not isinstance(start, str):
        return data
    path, mark, name = start.partition("#")
    folder = base / Path(path).expanduser()
    return {**data, "from": f"{folder.resolve()}{mark}{name}"} if path and folder.is_dir() else data


def load_task(path: str | Path) -> Task:
    """A task file.

    Raises:
        FaultyInput: unreadable or wrong, every fault with file and line.
    """
    path = Path(path)
    data, source = read_yaml(path, "task file")
    data = with_name(data, path)
    return make_task(data, source, path.parent)


def with_name(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Task data whose name defaults to the file's."""
    return data if "name" in data else {"name": path.stem, **data}


def load_folder(folder: str | Path) -> list[Task]:
    """Every task file of a folder, sorted by name; the faults of all files are raised together."""
    faults, tasks = Faults(), []
    for path in sorted(Path(folder).glob("*.yaml")):
        try:
            tasks.append(load_task(path))
        except FaultyInput as error:
            faults.extend(error)
    faults.check()
    return tasks


def shipped_folder() -> Path:
    """The folder of task files that come with the package (in a wheel, or beside it in a checkout)."""
    package = Path(__file__).parent
    inside = package / SHIPPED
    return inside if inside.is_dir() else package.parent / "tasks"


def find_task(name: str, beside: Path, place: str = "", key: str = "tasks") -> Path:
    """The file that a recipe means by `name`: a path, a file beside the recipe, or one that ships.

    Raises:
        FaultyInput: no such task; names the nearest and where was looked.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        path = path if path.is_absolute() else beside / path
        if not path.is_file():
            raise fault(f'task file "{name}" not found', where=place, key=key, allowed=f"a file below {beside}")
        return path
    folders = (beside, beside / "tasks", shipped_folder(), shipped_folder() / "demo")
    for folder in folders:
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    known = sorted({path.stem for folder in folders[1:] if folder.is_dir() for path in folder.glob("*.yaml")})
    raise fault(
        f'no task "{name}".{closest(name, known)}',
        where=place,
        key=key,
        allowed=f"a task file NAME.yaml beside the recipe, a path, or one that ships: {listed(known, 40)}",
    )
