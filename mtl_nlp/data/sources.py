"""Tasks → corpora: rows read, annotations made normal, labels put in order.

Tasks that name the same place share a `Corpus`: each text is there once, with the annotation of every task, None where one is
missing. `read_corpora` raises every fault at once. The next step on the road is `features`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Faults, FaultyInput, UserError, fault, listed
from ..recipe import Recipe
from ..sharing import joined_labels
from ..task import SPLITS, Task, is_readable
from .annotations import AnnotationCounts, label_order
from .cache import DataCache
from .cached import cached_group
from .conll import told_of_no_words
from .consistency import settle_types
from .passages import passage_note
from .places import Place, located, place_of
from .readers import Origin
from .rows import SplitRows, read_rows, with_default_columns
from .splits import carve

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class CorpusSplit:
    """One split of a corpus.

    Attributes:
        data: one row a text: the input columns (see `rows`) and `@TASK` with the annotation or None.
        origin: finds file and line of a row in `source_rows`.
        source_rows: for each row of `data`, its row in the source.
        counts: per task, what was met while reading (whole source split, before carving).
        left_out: rows that the filter removed and rows without any annotation.
    """

    data: Dataset
    origin: Origin
    source_rows: list[int]
    counts: dict[str, AnnotationCounts]
    filtered: int = 0
    unannotated: int = 0

    def where(self, row: int, word: int | None = None) -> str:
        """`file:line` of a row."""
        return self.origin.where(self.source_rows[row], word)

    def __len__(self) -> int:
        return len(self.source_rows)


@dataclass
class Corpus:
    """One source of texts with the annotations that its tasks read.

    Attributes:
        name: its tasks' names, joined by `+`.
        tasks: with labels in their final order.
        splits: train, validation, test as far as they exist.
        reads: `tokens`, `text`, `question` or `choices`.
        carved: whether validation was carved from train.
        notes: what `check` says about it.
        key: its fingerprint in the cache; None where it has none.
    """

    name: str
    tasks: list[Task]
    splits: dict[str, CorpusSplit]
    reads: str
    carved: bool = False
    notes: list[str] = field(default_factory=list)
    key: str | None = None

    @property
    def task_names(self) -> list[str]:
        """Names of its tasks."""
        return [task.name for task in self.tasks]


def read_corpora(
    recipe: Recipe,
    *,
    data_root: Path | None = None,
    memory: Mapping[str, Any] | None = None,
    splits: Iterable[str] = SPLITS,
    need_train: bool = True,
) -> list[Corpus]:
    """The corpora of a recipe, in the order of their first task.

    Args:
        data_root: read `DIR/TASK_NAME/{train,validation,test}.*` in place of Hub datasets.
        memory: task → data (or split → data) that is in memory.
        splits: the splits to read.
        need_train: a task without a training split is a fault.

    Raises:
        FaultyInput: every fault of all sources, with file and line where there is one.
    """
    faults = Faults()
    in_memory = {task: _by_split(data) for task, data in (memory or {}).items()}
    groups: dict[Any, tuple[Place, list[Task]]] = {}
    for task in recipe.definitions:
        try:
            if task.name in in_memory and not task.data.columns.roles():
                task = with_default_columns(task, next(iter(in_memory[task.name].values()), []))
            place = place_of(task, data_root=data_root, memory=in_memory.get(task.name))
        except FaultyInput as error:
            faults.extend(error)
            continue
        if need_train and "train" not in place.splits:
            faults.add(f"{task.name} has no training split", where=task.where, key="data.splits", allowed="train: …")
        task = located(task, place)
        groups.setdefault(_group_key(task, place), (place, []))[1].append(task)
    faults.check()
    corpora: list[Corpus] = []
    cache, wanted = DataCache.of(recipe.cache, recipe.base, recipe.place_of("cache")), set(splits)
    chosen = [split for split in SPLITS if split in wanted]
    for place, tasks in groups.values():
        try:
            read = partial(_read_group, place, tasks, in_memory.get(tasks[0].name, {}), chosen, recipe.seed)
            corpora.extend(cached_group(cache, place, tasks, chosen, recipe.seed, read))
        except FaultyInput as error:
            faults.extend(error)
        except UserError as error:
            faults.add(str(error))
    faults.check()
    _join_labels(corpora)
    settle_types(corpora)
    order = {task.name: i for i, task in enumerate(recipe.definitions)}
    return sorted(corpora, key=lambda corpus: order[corpus.tasks[0].name])


def _join_labels(corpora: Sequence[Corpus]) -> None:
    """Tasks under one head have all its labels."""
    joined = joined_labels([task for corpus in corpora for task in corpus.tasks])
    for corpus in corpora:
        corpus.tasks = [
            task.model_copy(update={"labels": joined.get(task.name, task.labels)}).placed(task._source, task.base)
            for task in corpus.tasks
        ]


def final_tasks(recipe: Recipe, corpora: Sequence[Corpus]) -> list[Task]:
    """The recipe's tasks, in its order, with the labels that the corpora settled.

    Those without a corpus are left out, but for the ones that are kept without being learned.
    """
    found = {task.name: task for task in recipe.definitions if task.name in recipe.untrained}
    found |= {task.name: task for corpus in corpora for task in corpus.tasks}
    return [found[task.name] for task in recipe.definitions if task.name in found]


def check_label_counts(tasks: Sequence[Task]) -> None:
    """See that every task that chooses one label has at least two to choose from.

    Raises:
        FaultyInput: the training texts of a task have one label only, and none are listed.
    """
    faults = Faults()
    for task in tasks:
        if task.kind.annotation == "label" and task.labels is not None and len(task.labels) < 2:
            found = f"the texts have one label only, {listed(repr(label) for label in task.labels)}"
            cure = "list under `labels` those that there may be, or leave the task out"
            key, allowed = f"{task.name}.labels", f"at least two for {task.head}"
            faults.add(found, where=task.place_of("labels"), key=key, allowed=allowed, cure=cure)
    faults.check()


def _by_split(data: Any) -> dict[str, Any]:
    return dict(data) if isinstance(data, Mapping) else {"train": data}


def _group_key(task: Task, place: Place) -> Any:
    carve_share = task.data.validation if "validation" not in place.splits else None
    filters = tuple(sorted((column, str(value)) for column, value in (task.data.filter or {}).items()))
    own = task.name if task.kind.own_rows else ""
    some = (task.data.rows, task.data.streaming)
    return place, filters, some, carve_share, task.kind.input, own, bool(task.data.columns.pair)


def _read_group(
    place: Place, tasks: list[Task], objects: Mapping[str, Any], splits: Sequence[str], seed: int
) -> list[Corpus]:
    read: dict[str, SplitRows] = {}
    for split in [s for s in place.splits if s in splits]:
        rows = read_rows(place, split, tasks, objects)
        if rows is not None:
            read[split] = rows
    if not read:
        return []
    if any(rows.disagreement for rows in read.values()):
        told = next(rows.disagreement for rows in read.values() if rows.disagreement)
        apart = [c for task in tasks for c in _read_group(place, [task], objects, splits, seed)]
        apart[0].notes.append(f"{listed(t.name for t in tasks)} read other texts ({told}): kept as separate corpora")
        return apart
    faults = Faults()
    _check_splitters(tasks, faults)
    final = [_with_labels(task, read, faults) for task in tasks]
    for task in final:
        _check_annotations(task, read, faults)
    faults.check()
    corpus = Corpus("+".join(task.name for task in tasks), final, {}, next(iter(read.values())).reads)
    for split, rows in read.items():
        corpus.splits[split] = _corpus_split(rows, final)
        if rows.origin.no_words:
            corpus.notes.append(f"{split}: {told_of_no_words(rows.origin.no_words)}")
    if corpus.reads == "passages" and "train" in corpus.splits:
        corpus.notes.append(passage_note(corpus.splits["train"].data))
    _carve_validation(corpus, read.get("train"), splits, seed)
    for split, part in corpus.splits.items():
        if len(part) == 0:
            faults.add(f"no row with an annotation in {split}", where=part.origin.where(0), key=f"data ({corpus.name})")
    faults.check()
    return [corpus]


def _check_splitters(tasks: Sequence[Task], faults: Faults) -> None:
    splitters = {task.word_splitter: task for task in tasks if task.kind.annotation == "tags"}
    if len(splitters) > 1:
        told = listed(f"{task.name}: {splitter}" for splitter, task in splitters.items())
        cure = "give them the same `words`"
        faults.add(f"tasks on one corpus cut words differently ({told})", where=tasks[0].where, key="words", cure=cure)


def _with_labels(task: Task, read: Mapping[str, SplitRows], faults: Faults) -> Task:
    train = read.get("train")
    seen: Counter[str] = train.readers[task.name].counts.labels if train else Counter()
    names = next(iter(read.values())).class_names.get(task.name) if read else None
    try:
        labels = label_order(task, names, seen)
    except ValueError as error:
        faults.add(str(error), where=task.where, key=f"{task.name}.labels")
        labels = task.labels
    for label in labels or ():
        if not is_readable(label):
            cure = "clean the column; a checkpoint with such a name is not loaded"
            faults.add(
                f"label {label[:80]!r} has control characters", where=task.where, key=f"{task.name}.labels", cure=cure
            )
    final = task.model_copy(update={"labels": labels})
    final.placed(task._source, task.base)
    return final


def _check_annotations(task: Task, read: Mapping[str, SplitRows], faults: Faults) -> None:
    given = next(iter(read.values())).readers[task.name].task.labels is not None
    known = set(task.labels or ())
    for split, rows in read.items():
        counts = rows.readers[task.name].counts
        for problem in counts.problems:
            where = rows.origin.where(rows.source_rows[problem.row], problem.word)
            faults.add(problem.found, where=where, key=f"{task.name} ({split})", allowed=problem.allowed)
        if counts.more_problems:
            faults.add(f"and {counts.more_problems} more of the kind", key=f"{task.name} ({split})")
        if not given:
            counts.unknown = Counter({label: n for label, n in counts.labels.items() if known and label not in known})
        if given and split != "test":
            for label, number in counts.unknown.items():
                row, word = counts.unknown_rows[label]
                where = rows.origin.where(rows.source_rows[row], word)
                found = f'unknown label "{label}" ({number} times)'
                faults.add(found, where=where, key=f"{task.name}.labels ({split})", allowed=listed(task.labels or ()))


def _corpus_split(rows: SplitRows, tasks: Sequence[Task]) -> CorpusSplit:
    columns = [f"@{task.name}" for task in tasks if task.kind.annotation != "none"]
    keep = rows.annotated_rows(columns)
    data = rows.data if len(keep) == len(rows.data) else rows.data.select(keep)
    sources = [rows.source_rows[row] for row in keep]
    counts = {name: reader.counts for name, reader in rows.readers.items()}
    for found in counts.values():
        # As rows of the source, because those without annotation are no longer there to be pointed at.
        found.skipped = [replace(problem, row=rows.source_rows[problem.row]) for problem in found.skipped]
    return CorpusSplit(data, rows.origin, sources, counts, rows.filtered, len(rows.data) - len(keep))


def _carve_validation(corpus: Corpus, whole: SplitRows | None, splits: Sequence[str], seed: int) -> None:
    """Hold out a share of the training texts.

    Which ones is decided on the whole source, so that corpora kept apart on one source hold out the same texts.
    """
    if "validation" in corpus.splits or whole is None or "validation" not in splits:
        return
    train, share = corpus.splits["train"], corpus.tasks[0].data.validation
    _, held = carve(_text_keys(whole.data), share, seed)
    held_rows = {whole.source_rows[row] for row in held}
    parts = {
        "train": [row for row, source in enumerate(train.source_rows) if source not in held_rows],
        "validation": [row for row, source in enumerate(train.source_rows) if source in held_rows],
    }
    if not all(parts.values()):
        # Too few annotated rows for a share of the whole to fall among them.
        kept, held = carve(_text_keys(train.data), share, seed)
        parts = {"train": kept.tolist(), "validation": held.tolist()}
    if not all(parts.values()):
        raise fault("too few texts to carve a validation split", where=train.where(0), key=f"data ({corpus.name})")
    for split, chosen in parts.items():
        sources = [train.source_rows[row] for row in chosen]
        corpus.splits[split] = CorpusSplit(train.data.select(chosen), train.origin, sources, train.counts)
    corpus.splits["train"].filtered, corpus.splits["train"].unannotated = train.filtered, train.unannotated
    corpus.carved = True


def _text_keys(data: Dataset) -> list[str]:
    """Each row's text without white space, so that words and raw text of one sentence are the same."""
    inputs = sorted(name for name in data.column_names if not name.startswith("@"))
    columns = [["".join(value) if isinstance(value, list) else value for value in data[name]] for name in inputs]
    return ["\x00".join("".join((part or "").split()) for part in row) for row in zip(*columns, strict=True)]
