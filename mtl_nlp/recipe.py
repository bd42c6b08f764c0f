"""A recipe: one run, validated before anything is read or built.

`load_recipe` reads the file, applies `--set`, resolves every task (by name, path or inline), and raises all faults at once.
`Recipe.resolved()` is the same run with tasks embedded and sources absolute: training on that file repeats the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr

from .comparison import CompareSpec
from .conditioning import Conditioning, as_mapping
from .consistency import check_consistency
from .distil import Distil, check_distil
from .errors import Faults, FaultyInput, fault, listed
from .paths import absolute as absolute
from .paths import is_local as is_local
from .schema import Source, Strict, dump_yaml, merged, read_yaml, set_key, validate
from .sharing import check_sharing
from .task import Task, find_task, make_task, with_name, with_place

RESOLVED = "recipe.resolved.yaml"
# What describes a source, and goes when the recipe puts another in its place.
OF_SOURCE = ("config", "revision", "data_dir", "data_files", "splits")
DEFAULT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"


class EncoderSpec(Strict):
    """The shared encoder: any `AutoModel` on the Hub or in a folder.

    `freeze` keeps parameters as they are: `embeddings`, a number of layers from the bottom (embeddings included), or `all`.
    `from` is a checkpoint to begin at: a fine-tuned model of transformers gives encoder and tokenizer, one of ours also the heads
    of the recipe's tasks that it has (`training.warm_start`).
    """

    name: str = DEFAULT_ENCODER
    from_: str | None = Field(default=None, alias="from", min_length=1)
    revision: str | None = None
    freeze: Literal["none", "embeddings", "all"] | int = "none"
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    max_length: int | None = Field(default=None, ge=8)
    stride: int = Field(default=64, ge=0)
    trust_remote_code: bool = False

    @property
    def place(self) -> str:
        """Where weights, configuration and tokenizer are: `from`, else `name`."""
        return self.from_ or self.name


class SchedulePointSpec(Strict):
    """One point of `mixture.schedule`: a temperature or rates, when the share `at` of the run is done."""

    at: float = Field(ge=0.0, le=1.0)
    temperature: float | None = Field(default=None, ge=1.0, allow_inf_nan=False)
    rates: dict[str, float] | None = None


class MixtureSpec(Strict):
    """How batches are mixed; see `mtl_nlp.data.mixture`.

    `bucketing` puts texts of similar length into one batch (inside a block, so that every block keeps its rates). With `max_tokens`
    a batch holds up to so many real tokens, and `batch`, where it is given too, is the most texts (`mtl_nlp.data.budget`).
    """

    strategy: str = "proportional"  # a name in `mtl_nlp.data.strategies`, which lies above this layer; checked there
    temperature: float = Field(default=2.0, ge=1.0, allow_inf_nan=False)
    rates: dict[str, float] | None = None
    cap: int | None = Field(default=None, ge=1)
    schedule: list[SchedulePointSpec] | None = Field(default=None, min_length=1)
    reference: dict[str, float] | None = None
    adapt: float = Field(default=0.5, ge=0.0, le=1.0)
    max_passes: int | None = Field(default=None, ge=1)
    batching: Literal["mixed", "homogeneous"] = "mixed"
    batch: int = Field(default=32, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    bucketing: bool = True

    @property
    def most_texts(self) -> int | None:
        """The most texts of a batch; None where tokens alone limit it."""
        return self.batch if self.max_tokens is None or "batch" in self.model_fields_set else None


OF_A_STRATEGY = ("strategy", "temperature", "rates", "cap", "schedule", "reference", "adapt")
"""The keys of `mixture:` that go with one strategy: they are left out together."""


class Balancing(Strict):
    """How the tasks' losses become one update; see `mtl_nlp.balancing`.

    `weighting` and `gradients` are a method's name, or a mapping with its `name` and settings. `shares: rows` weighs a task by its
    rows in the step; `equal` gives every task the same weight. `cosine_steps`: how often gradient cosines are noted.
    """

    weighting: str | dict[str, Any] = "fixed"
    gradients: str | dict[str, Any] = "none"
    on: Literal["parameters", "representation"] = "parameters"
    shares: Literal["rows", "equal"] = "rows"
    cosine_steps: int | None = Field(default=None, ge=1)


class Lora(Strict):
    """Low-rank adapters in place of the encoder's own weights (`training.lora`); they are merged into what is saved.

    `targets` are names of linear modules, or `all-linear`.
    """

    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0.0, allow_inf_nan=False)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    targets: str | list[str] = "all-linear"


class Retain(Strict):
    """What keeps the tasks that come from the checkpoint `encoder.from`, while the recipe's other tasks are learned.

    `rehearsal` goes on training them on their own data; `distil` holds their outputs on the new tasks' texts (`training.distil`);
    `keep` leaves their heads as they are. With the last two their data is only read to score them.
    """

    method: Literal["rehearsal", "distil", "keep"] = "rehearsal"
    rate: float | None = Field(default=None, gt=0.0, lt=1.0)
    weight: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    temperature: float = Field(default=2.0, gt=0.0, allow_inf_nan=False)


class Budget(Strict):
    """The most that a run may use; the first that is reached ends it. `tokens` are real ones, through the encoder in training."""

    steps: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    minutes: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)


class Stopping(Strict):
    """Stop after `patience` evaluations without a gain of more than `tolerance` in the metric for the best model.

    With `per_task` it is each task that stops by its own primary metric; `freed` says what becomes of its share of the run,
    `cooldown` over which share of its steps all tasks learn once more at the end.
    """

    patience: int | None = Field(default=None, ge=1)
    tolerance: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    per_task: bool = False
    freed: Literal["save", "redistribute"] = "save"
    cooldown: float = Field(default=0.125, ge=0.0, le=1.0, allow_inf_nan=False)
    budget: Budget = Field(default_factory=Budget)


class RecipeFile(Strict):
    """The keys of a recipe file."""

    encoder: str | EncoderSpec = DEFAULT_ENCODER
    tasks: list[Any] = Field(min_length=1)  # each entry is checked by `_read_task`
    mixture: MixtureSpec = Field(default_factory=MixtureSpec)
    balancing: Balancing = Field(default_factory=Balancing)
    stopping: Stopping = Field(default_factory=Stopping)
    performance: Literal["auto", "plain"] = "auto"
    conditioning: Annotated[Conditioning | None, BeforeValidator(as_mapping)] = None
    cache: str = Field(default="auto", min_length=1)  # `auto`, `off`, or a folder (`mtl_nlp.data.cache`)
    lora: Lora | None = None
    retain: Retain | None = None
    distil: Distil | None = None
    compare: CompareSpec | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    seed: int = Field(default=13, ge=0, lt=2**32)
    output_dir: str | None = None


class Recipe(RecipeFile):
    """A validated run: the file's keys with the tasks as definitions."""

    _tasks: list[Task] = PrivateAttr(default_factory=list)
    _source: Source = PrivateAttr(default_factory=Source)
    _base: Path = PrivateAttr(default_factory=Path)
    _inherited: list[str] = PrivateAttr(default_factory=list)

    @property
    def inherited(self) -> list[str]:
        """The tasks that come from the checkpoint `encoder.from`; known once `training.warm_start` has looked."""
        return self._inherited

    @property
    def untrained(self) -> list[str]:
        """The inherited tasks that are not learned from: they are only scored."""
        return self._inherited if self.retain is not None and self.retain.method != "rehearsal" else []

    @property
    def definitions(self) -> list[Task]:
        """The tasks, in the recipe's order."""
        return self._tasks

    @property
    def encoder_spec(self) -> EncoderSpec:
        """The encoder with its options, whichever way it was written."""
        return EncoderSpec(name=self.encoder) if isinstance(self.encoder, str) else self.encoder

    @property
    def base(self) -> Path:
        """The folder that relative paths in the recipe start from."""
        return self._base

    def place_of(self, *key: str | int) -> str:
        """`file:line` of a key."""
        return self._source.where(key)

    def resolved(self) -> dict[str, Any]:
        """The run as plain data that stands alone: tasks embedded, local sources absolute, defaults written out."""
        data = self.model_dump(exclude={"tasks", "output_dir", "compare", "cache"})
        data["encoder"] = self.encoder_spec.model_dump(by_alias=True)
        if self.mixture.most_texts is None:
            del data["mixture"]["batch"]  # written out, it would be a limit
        start = self.encoder_spec.from_
        if start is not None and (self.base / start).is_dir():
            data["encoder"]["from"] = str((self.base / start).resolve())
        if Path(self.encoder_spec.name).is_absolute() or (self.base / self.encoder_spec.name).is_dir():
            data["encoder"]["name"] = str((self.base / self.encoder_spec.name).resolve())
        if self.distil is not None:
            data["distil"] = self.distil.resolved(self.base)
        tasks = [_resolved_task(task) for task in self.definitions]
        return {"encoder": data.pop("encoder"), "tasks": tasks, **data}

    def write_resolved(self, folder: Path) -> None:
        """Write `recipe.resolved.yaml`."""
        (folder / RESOLVED).write_text(dump_yaml(self.resolved()), encoding="utf-8")


def _resolved_task(task: Task) -> dict[str, Any]:
    data = task.model_dump(exclude_none=True, exclude_defaults=True, by_alias=True)
    inner = data.setdefault("data", {})
    if "missing" in task.data.model_fields_set:
        # For a regression the default, written out, means something else than the default left out.
        inner["missing"] = list(task.data.missing)
    source, base = task.data.source, task.base
    if source is not None and is_local(source, base):
        path = absolute(source, base)
        inner["source"], base = str(path), path if path.is_dir() else base
    if "splits" in inner and (source is None or is_local(source, task.base)):
        inner["splits"] = {split: _absolute_files(value, base) for split, value in inner["splits"].items()}
    return {"name": task.name, "head": task.head, **data}


def _absolute_files(value: str | list[str], base: Path) -> str | list[str]:
    if isinstance(value, list):
        return [str(_absolute_files(one, base)) for one in value]
    return str(absolute(value, base)) if is_local(value, base) else value


def load_recipe(
    path: str | Path, sets: Sequence[str] = (), *, output: str | None = None, memory: Iterable[str] = ()
) -> Recipe:
    """A recipe file with `--set` assignments applied.

    `output` overrides `output_dir` and is relative to the working directory; `memory` names tasks whose data is in memory.

    Raises:
        FaultyInput: every fault of the recipe and of its task files, each with file and line.
    """
    path = Path(path)
    data, source = read_yaml(path, "recipe")
    return make_recipe(data, source, path.parent, sets, output=output, memory=memory)


def shipped_recipe(name: str) -> Path:
    """A recipe that comes with the package (in a wheel, or in the checkout's `scripts/recipes`)."""
    package = Path(__file__).parent
    inside = package / "shipped_recipes" / f"{name}.yaml"
    return inside if inside.is_file() else package.parent / "scripts" / "recipes" / f"{name}.yaml"


def make_recipe(
    data: Mapping[str, Any],
    source: Source | None = None,
    base: Path | None = None,
    sets: Sequence[str] = (),
    *,
    output: str | None = None,
    memory: Iterable[str] = (),
) -> Recipe:
    """A recipe from plain data: what `load_recipe` does after reading the file."""
    given, base = source or Source("recipe"), base or Path()
    source = Source(given.file, dict(given.lines))
    faults, plain = Faults(), deepcopy(dict(data))
    for assignment in sets:
        set_key(plain, assignment, faults, source)
    faults.check()
    recipe: Recipe | None = None
    try:
        recipe = validate(Recipe, plain, source)
    except FaultyInput as error:
        faults.extend(error)
    entries = plain.get("tasks")
    tasks = _read_tasks(entries if isinstance(entries, list) else [], source, base, faults)
    retain = recipe.retain if recipe is not None else None
    optional = retain is not None and retain.method != "rehearsal"
    _check_tasks(tasks, set(memory), source, faults, optional=optional)
    if recipe is not None:
        _check_start(recipe, source, faults)
        check_distil(recipe.distil, tasks, recipe.retain.method if recipe.retain else None, source, faults)
    faults.check()
    assert recipe is not None
    recipe._tasks, recipe._source, recipe._base = tasks, source, base
    if output is not None:
        recipe.output_dir = str(Path(output).absolute())
    elif recipe.output_dir is not None:
        recipe.output_dir = str((base / recipe.output_dir).absolute())
    return recipe


def _read_tasks(entries: list[Any], source: Source, base: Path, faults: Faults) -> list[Task]:
    tasks = []
    for i, entry in enumerate(entries):
        try:
            tasks.append(_read_task(entry, i, source, base))
        except FaultyInput as error:
            faults.extend(error)
    return tasks


def _read_task(entry: Any, i: int, source: Source, base: Path) -> Task:
    place, prefix = source.where(("tasks", i)), ("tasks", i)
    if isinstance(entry, str):
        entry = {"use": entry}
    if not isinstance(entry, dict):
        allowed = "a task's name, a path, or a mapping"
        raise fault(f"found {entry!r}", where=place, key=f"tasks.{i}", allowed=allowed, cure="quote it")
    if "use" not in entry:
        return make_task(entry, source.below(*prefix), base, prefix)
    if not isinstance(entry["use"], str):
        raise fault(f"found {entry['use']!r}", where=place, key=f"tasks.{i}.use", allowed="a task's name or a path")
    path = find_task(entry["use"], base, place, f"tasks.{i}")
    data, own = read_yaml(path, "task file")
    over = with_place({key: value for key, value in entry.items() if key != "use"}, base)
    source_over = over["data"].get("source") if isinstance(over.get("data"), dict) else None
    if isinstance(source_over, str) and is_local(source_over, base) and isinstance(data.get("data"), dict):
        data = {**data, "data": {key: value for key, value in data["data"].items() if key not in OF_SOURCE}}
        data = {key: value for key, value in data.items() if key not in ("licence", "language")}  # of the other source
    lines = own.overlaid(source.below(*prefix))
    # A source written in the recipe is relative to the recipe, one in the task file to that file.
    return make_task(merged(with_name(data, path), over), lines, path.parent if source_over is None else base)


def _check_start(recipe: Recipe, source: Source, faults: Faults) -> None:
    """What `encoder.from`, `lora` and `retain` ask of each other."""
    retain, spec = recipe.retain, recipe.encoder_spec
    if recipe.lora is not None and spec.freeze != "none":
        cure = "with lora the encoder's own weights never change: leave freeze out"
        faults.add(
            f"found {spec.freeze} beside lora", where=source.where(("encoder",)), key="encoder.freeze", cure=cure
        )
    if retain is None:
        return
    if spec.from_ is None:
        cure = "retain keeps the tasks of a checkpoint: name it there, or leave retain out"
        faults.add("missing", where=source.where(("retain",)), key="encoder.from", allowed="a checkpoint", cure=cure)
    own = {"rate": "rehearsal", "weight": "distil", "temperature": "distil"}
    for name, method in own.items():
        if getattr(retain, name) != Retain.model_fields[name].default and retain.method != method:
            key, cure = f"retain.{name}", f"it is for method: {method}; leave it out"
            faults.add(f"found it with {retain.method}", where=source.where(("retain", name)), key=key, cure=cure)
    for key, plain in (("weighting", "fixed"), ("gradients", "none")):
        given = getattr(recipe.balancing, key)
        chosen = given.get("name") if isinstance(given, dict) else given
        if chosen != plain and retain.method != "rehearsal":
            cure = "balancing is between tasks that are learned: use retain.method: rehearsal, or leave it out"
            where = source.where(("balancing", key))
            faults.add(f"found {chosen} with {retain.method}", where=where, key=f"balancing.{key}", cure=cure)
    if retain.rate is not None and recipe.mixture.strategy != "proportional":
        where, cure = source.where(("mixture", "strategy")), "retain.rate sets the rates: leave the strategy out"
        faults.add(f"found {recipe.mixture.strategy}", where=where, key="mixture.strategy", cure=cure)


def _check_tasks(
    tasks: list[Task], memory: set[str], source: Source, faults: Faults, *, optional: bool = False
) -> None:
    """`optional`: tasks may do without data, because a checkpoint's tasks are kept without learning from it."""
    names = [task.name for task in tasks]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.add(
            f'task "{name}" stands {names.count(name)} times',
            where=source.where(("tasks",)),
            key="tasks",
            allowed="each name once",
            cure="remove it, or give one of them another `name`",
        )
    for task in tasks:
        absent = task.data.source is None and task.name not in memory and not task.data.splits.given()
        if absent and not optional:
            faults.add(
                "missing", where=task.where, key=f"{task.name}.data.source", allowed="a Hub dataset, file or folder"
            )
        if task.name in memory or task.data.columns.roles() or (absent and optional):
            continue
        faults.add(
            "missing", where=task.where, key=f"{task.name}.data.columns", allowed="which column plays which role"
        )
    check_sharing(tasks, faults)
    check_consistency(tasks, faults)
    unknown = sorted(memory - set(names))
    if unknown:
        faults.add(f"data given for {listed(unknown)}", key="datasets", allowed=listed(names))
