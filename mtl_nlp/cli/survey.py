"""What a folder of data files holds, and the recipe that follows from it: the work behind `init`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any

from ..data.guess import Sample, TaskGuess
from ..data.layout import FileGroup
from ..errors import Faults, FaultyInput, UserError, fault, listed
from .draft import CorpusDraft, TaskDraft, recipe_text, relative, slug

LOOKED_FOR = (
    "data files (.csv, .tsv, .jsonl, .parquet, .conll), as NAME.csv, NAME_train.csv with NAME_test.csv, or NAME/train.csv; "
    "in each a column of text (or of words) and one to learn from: a label, a list of labels, a number, tags, spans, answers"
)


@dataclass
class _Survey:
    """What was found in a folder: data sets with tasks, and files without use."""

    corpora: list[CorpusDraft] = field(default_factory=list)
    unused: list[tuple[str, str]] = field(default_factory=list)


def write_recipe(folder: Path, output: Path | None, encoder: str | None) -> Path:
    """Survey `folder`, say on stderr what was found, and write the recipe; returns its path.

    Raises:
        UserError: nothing to learn from, or the recipe cannot be written or exists already.
    """
    target = _target(folder, output)
    survey = _look(folder)
    _report(survey, folder)
    if not survey.corpora:
        files = "; ".join(f"{name}: {why}" for name, why in survey.unused) or "it has no file"
        raise fault(f"nothing to learn from ({files})", where=str(folder), allowed=LOOKED_FOR)
    text = recipe_text(survey.corpora, folder=folder, target=target, encoder=encoder)
    _check(text, target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except OSError as error:
        raise fault(f"cannot be written: {error.strerror}", where=str(target), cure="give --output FILE") from error
    return target


def _target(folder: Path, output: Path | None) -> Path:
    if not folder.is_dir():
        found = "is a file" if folder.is_file() else "no such folder"
        raise fault(found, where=str(folder), allowed="a folder of data files")
    target = folder / "recipe.yaml" if output is None else output
    if target.is_dir():
        raise fault("is a folder", where=str(target), key="--output", allowed="a file to write, such as recipe.yaml")
    if target.exists():
        raise fault("exists already and is not overwritten", where=str(target), cure="give --output with another file")
    return target


def _check(text: str, target: Path) -> None:
    """The recipe reads back: a name in the data that breaks it is a fault before anything is written."""
    from ..recipe import make_recipe
    from ..schema import parse_yaml

    data, source = parse_yaml(text, str(target))
    make_recipe(data, source, target.parent)


def _look(folder: Path) -> _Survey:
    """Every data set of the folder.

    Raises:
        FaultyInput: the faults of all files at once.
    """
    from ..data.layout import find_groups

    layout, survey, faults = find_groups(folder), _Survey(), Faults()
    shown = {path: path.relative_to(folder).as_posix() for path, _ in layout.unused}
    survey.unused = [(shown[path] + ("/" if path.is_dir() else ""), why) for path, why in layout.unused]
    names: set[str] = set()
    for group in layout.groups:
        try:
            found = _draft(group, folder, names)
        except FaultyInput as error:
            faults.extend(error)
        except UserError as error:
            faults.add(str(error))
        else:
            if isinstance(found, str):
                survey.unused += [(p.relative_to(folder).as_posix(), found) for ps in group.files.values() for p in ps]
            else:
                survey.corpora.append(found)
    faults.check()
    return survey


def _draft(group: FileGroup, folder: Path, names: set[str]) -> CorpusDraft | str:
    """The tasks of one data set, or why there is none."""
    from ..data.conll import told_of_no_words
    from ..data.guess import guess_table, read_sample
    from ..data.layout import no_table

    reason = next((why for why in (no_table(path) for path in group.files["train"]) if why), None)
    if reason is not None:
        return reason
    sample = read_sample(group.files["train"])
    table = guess_table(sample.columns, sample.class_names, format=sample.format)
    if table.problem:
        return table.problem
    rows, files, notes = {"train": sample.rows}, {"train": group.files["train"]}, list(table.notes)
    if sample.no_words:
        notes.append(f"{group.first.relative_to(folder).as_posix()}: {told_of_no_words(sample.no_words)}")
    faults = Faults()
    for split in [split for split in group.files if split != "train"]:
        paths = group.files[split]
        try:
            other = read_sample(paths)
        except FaultyInput as error:
            faults.extend(error)
            continue
        lacks = _lacks(other.columns, table.tasks)
        if lacks:
            notes.append(f"{paths[0].relative_to(folder).as_posix()} is left out: {lacks}")
        else:
            rows[split], files[split] = other.rows, paths
    faults.check()
    if "validation" not in files and _texts(sample.columns, table.tasks) < 2:
        return _one_text(sample, max(task.annotated for task in table.tasks))
    looked_at = len(next(iter(sample.columns.values())))
    tasks = [
        TaskDraft(_name(group, guess.annotation, len(table.tasks), names), guess, looked_at) for guess in table.tasks
    ]
    return CorpusDraft(FileGroup(group.name, files), rows, tasks, table.unused, notes)


def _texts(columns: dict[str, list[Any]], tasks: Sequence[TaskGuess]) -> int:
    """How many different texts carry an annotation, for the task that has most."""
    found = []
    for task in tasks:
        read = [columns[name] for name in task.needs() if name != task.annotation]
        rows = zip(*read, columns[task.annotation], strict=True)
        found.append(len({repr(text) for *text, mark in rows if task.annotated_in([mark])}))
    return max(found)


def _one_text(sample: Sample, annotated: int) -> str:
    """Why so many annotated rows are one text."""
    why = f"in {annotated} rows" if annotated > 1 else ""
    if sample.format == "conll":
        why = f"which stands there {annotated} times" if annotated > 1 else "as no blank line ends a sentence"
    found = "one sentence only" if sample.format == "conll" else "one annotated text only"
    return f"{found}{', ' if why else ''}{why}: another is needed, to be held back for validation"


def _lacks(columns: dict[str, list[Any]], tasks: Sequence[TaskGuess]) -> str:
    """Why a validation or test file cannot be scored, empty if it can: every task needs its columns and some annotation."""
    missing = [name for name in dict.fromkeys(name for task in tasks for name in task.needs()) if name not in columns]
    if missing:
        return f"it has no column {listed(missing)}"
    bare = [task.annotation for task in tasks if not task.annotated_in(columns[task.annotation])]
    return f"it has no annotation in {listed(bare)}" if bare else ""


def _name(group: FileGroup, annotation: str, tasks: int, taken: set[str]) -> str:
    """A task's name: the data set's, with the column's where there are several; numbered if it is taken."""
    own, column = slug(group.name), slug(annotation)
    wanted = own if tasks == 1 else "_".join(part for part in (own, column) if part)
    wanted = wanted or column or "task"
    name = next(name for name in chain([wanted], (f"{wanted}_{n}" for n in count(2))) if name not in taken)
    taken.add(name)
    return name


def _report(survey: _Survey, folder: Path) -> None:
    """What was guessed and what was left, on stderr."""
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=True, width=None if sys.stderr.isatty() else 140, highlight=False, markup=False)
    if survey.corpora:
        table = Table(title="Guessed", title_justify="left", title_style="bold")
        for column in ("file", "rows", "task", "head", "columns"):
            table.add_column(column, justify="right" if column == "rows" else "left", overflow="fold")
        for corpus in survey.corpora:
            rows = "\n".join(f"{split} {size}" for split, size in corpus.rows.items())
            for i, task in enumerate(corpus.tasks):
                columns = ", ".join(f"{role}: {_listed(name)}" for role, name in task.guess.columns.items())
                files = "\n".join(relative(paths[0], folder) for paths in corpus.group.files.values())
                table.add_row("" if i else files, "" if i else rows, task.name, task.guess.head, columns)
        console.print(table)
    for corpus in survey.corpora:
        for note in [*corpus.notes, *(f"{task.name}: {note}" for task in corpus.tasks for note in task.guess.notes)]:
            console.print(f"note: {note}")
    for name, why in sorted(survey.unused):
        console.print(f"not used: {name}: {why}")


def _listed(names: str | list[str]) -> str:
    return names if isinstance(names, str) else ", ".join(names)
