"""Files and Hub datasets → raw rows, with the way back to file and line.

`read_split` returns a `datasets.Dataset` with the source's own columns and an `Origin` that finds the line of a row when there
is a fault to report. JSONL, CSV, TSV and Parquet are read by `datasets`; CoNLL by `mtl_nlp.data.conll`. What the
columns mean is decided in `annotations`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FaultyInput, UserError, fault, listed
from .conll import ConllFile, read_conll
from .json_text import escaped_surrogate, no_unicode
from .streaming import stream_files

if TYPE_CHECKING:
    from datasets import Dataset

FORMATS = {
    ".jsonl": "json",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".conll": "conll",
    ".conllu": "conll",
    ".bio": "conll",
    ".iob": "conll",
    ".txt": "conll",
}
DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass
class Origin:
    """Where rows came from, to name file and line in a message.

    Attributes:
        files: in the order in which they were read.
        format: a value of `FORMATS`; `hub` or `memory` for rows without a file.
        name: shown when there is no file.
        conll: the parsed CoNLL files, which know each word's line.
        skipped_lines: of CoNLL, lines of white space only.
        no_words: of CoNLL-U, lines of multiword tokens and empty nodes, which are left out.
    """

    files: list[Path]
    format: str
    name: str = ""
    conll: list[ConllFile] = field(default_factory=list)
    skipped_lines: int = 0
    no_words: int = 0

    def where(self, row: int, word: int | None = None) -> str:
        """`file:line` of a row, of one of its words for CoNLL; `name, row N` where rows have no lines."""
        if self.format == "conll":
            # From the cache they come without their lines.
            self.conll = self.conll or [read_conll(path) for path in self.files]
            for file in self.conll:
                if row < len(file.sentences):
                    return f"{file.path}:{file.lines[row][word or 0]}"
                row -= len(file.sentences)
        if self.format in ("json", "csv", "tsv"):
            for path in self.files:
                for line in _record_lines(path, self.format):
                    if row == 0:
                        return f"{path}:{line}"
                    row -= 1
        if self.format == "parquet" and self.files:
            return f"{self.files[0]}, row {row + 1}"
        return f"{self.name}, row {row + 1}"


def _record_lines(path: Path, kind: str) -> Iterator[int]:
    with path.open(encoding="utf-8-sig", newline="") as handle:
        if kind == "json":
            yield from (number for number, line in enumerate(handle, 1) if line.strip())
            return
        rows = csv.reader(handle, delimiter=DELIMITERS[kind])
        next((row for row in rows if row), None)  # the header, below blank lines
        before = rows.line_num
        for row in rows:
            if row:
                yield before + 1
            before = rows.line_num


def format_of(path: Path) -> str:
    """The format that a file's ending names.

    Raises:
        FaultyInput: unknown ending.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise fault(f'ending "{path.suffix}" is not known', where=str(path), allowed=listed(FORMATS))
    return kind


def read_files(paths: Sequence[Path], *, streaming: bool = False) -> tuple[Any, Origin]:
    """Local files of one format as one dataset, or as a stream of rows (CoNLL files are always read whole).

    Raises:
        FaultyInput: missing, empty, not UTF-8, malformed, or of different formats.
    """
    kinds = {format_of(path) for path in paths}
    if len(kinds) > 1:
        raise fault(f"files of several formats: {listed(sorted(kinds))}", where=str(paths[0].parent), allowed="one")
    kind = kinds.pop()
    for path in paths:
        _check_readable(path, kind, whole=not streaming or kind == "conll")
        if kind in ("csv", "tsv"):
            _check_header(path, kind)
    if kind == "conll":
        return _conll_dataset(paths)
    return _load(kind, paths, streaming), Origin(list(paths), kind)


def _check_readable(path: Path, kind: str, *, whole: bool) -> None:
    if not path.is_file():
        raise fault("file not found", where=str(path), cure="check data.source, data.splits and --data-root")
    if path.stat().st_size == 0:
        raise fault("the file is empty", where=str(path), allowed="at least one row")
    if path.suffix == ".parquet" or not whole:
        return
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"{line[error.start]:#04x}"
                cure = "save the file as UTF-8, for example: iconv -f latin1 -t utf-8"
                raise fault(f"byte {byte} is not UTF-8", where=f"{path}:{number}", cure=cure) from None
            # `datasets` refuses half a surrogate pair without its line, or drops it where the file is one array.
            unreadable = escaped_surrogate(line, f"{path}:{number}") if kind == "json" else None
            if unreadable is not None:
                raise unreadable


def doubled(columns: Sequence[str]) -> str:
    """What is found where a header has a name twice, white space at its ends aside; empty if it has not."""
    names = [column.strip() for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    return f"column {listed(name or 'without a name' for name in twice)} stands more than once" if twice else ""


def _check_header(path: Path, kind: str) -> None:
    """Refuse two columns of one name: `datasets` would rename the second; columns without a name are its own affair."""
    with path.open(encoding="utf-8-sig", newline="") as handle:
        rows = csv.reader(handle, delimiter=DELIMITERS[kind])
        try:
            header = next((row for row in rows if row), [])
        except (csv.Error, UnicodeDecodeError):
            return  # told by who reads it
        found = doubled([name for name in header if name.strip()])
        if found:
            raise fault(found, where=f"{path}:{rows.line_num}", allowed="a header of distinct names")


def _conll_dataset(paths: Sequence[Path]) -> tuple[Dataset, Origin]:
    from datasets import Dataset

    files = [read_conll(path) for path in paths]
    widths = {len(file.columns) for file in files}
    if len({tuple(file.columns) for file in files}) > 1 and len(widths) == 1:
        raise fault("CoNLL-U beside other CoNLL", where=str(paths[0].parent), allowed="one form")
    if len(widths) > 1:
        raise fault(f"files of {listed(sorted(widths))} columns", where=str(paths[0].parent), allowed="the same number")
    columns = files[0].columns
    data = {name: [s[i] for f in files for s in f.sentences] for i, name in enumerate(columns)}
    origin = Origin(list(paths), "conll", conll=files, skipped_lines=sum(file.blank_lines_kept for file in files))
    origin.no_words = sum(file.no_words for file in files)
    return Dataset.from_dict(data), origin


def _load(kind: str, paths: Sequence[Path], streaming: bool) -> Any:
    from datasets import load_dataset

    options: dict[str, Any] = {}
    loader = kind
    if kind in ("csv", "tsv"):
        # Only an empty field is a missing value; pandas would also take the words "NA", "null" and "None".
        loader, options = "csv", {"keep_default_na": False, "na_values": [""]}
        options["delimiter"] = DELIMITERS[kind]
    try:
        if streaming:
            return stream_files(loader, paths, options)
        return load_dataset(loader, data_files=[str(path) for path in paths], split="train", **options)
    except Exception as error:
        raise _diagnosis(kind, paths, error) from error


def _diagnosis(kind: str, paths: Sequence[Path], error: Exception) -> UserError:
    """What is wrong with a file that `datasets` could not read (it raises many types; the causes are found here)."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, OSError) and cause.errno is not None and not isinstance(cause, FileNotFoundError):
        return UserError(f"{paths[0]}: cannot be read: {cause.strerror}; free some disk space or set HF_HOME elsewhere")
    found = (bad_json(paths) if kind == "json" else None) or (None if kind == "parquet" else _no_row(kind, paths))
    if found is not None:
        return found
    text = str(cause).strip().splitlines()
    reason = text[0] if text else type(cause).__name__
    return fault(f"not a readable {kind} file: {reason}", where=str(paths[0]))


def _no_row(kind: str, paths: Sequence[Path]) -> FaultyInput | None:
    """The fault of files without a row: blank lines, or a header alone."""
    try:
        if any(True for path in paths for _ in _record_lines(path, kind)):
            return None
    except csv.Error:
        return None
    headed = kind != "json" and bool(paths[0].read_text(encoding="utf-8-sig").strip())
    found = "no row below the header" if headed else "no row in the file"
    return fault(found, where=str(paths[0]), allowed="at least one row")


def bad_json(paths: Sequence[Path]) -> FaultyInput | None:
    """The fault of the first line that is no object or that holds half a surrogate pair; None if there is none."""
    return next((found for path in paths if (found := _first_bad_json(path)) is not None), None)


def _first_bad_json(path: Path) -> FaultyInput | None:
    import json

    with path.open(encoding="utf-8-sig") as handle:
        for number, line in enumerate(handle, 1):
            if not line.strip():
                continue
            if path.suffix.lower() == ".json" and line.lstrip().startswith("["):
                return _bad_array(path)
            where = f"{path}:{number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                return fault(
                    f"not valid JSON: {error.msg} (column {error.colno})", where=where, allowed="one object a line"
                )
            if not isinstance(record, dict):
                return fault(f"found a {type(record).__name__}", where=where, allowed="one object a line")
            unreadable = escaped_surrogate(line.encode("utf-8"), where)
            if unreadable is not None:
                return unreadable
    return None


def _bad_array(path: Path) -> FaultyInput | None:
    """The fault of a file that is one list of rows."""
    import json

    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        told, where = f"not valid JSON: {error.msg} (column {error.colno})", f"{path}:{error.lineno}"
        return fault(told, where=where, allowed="a list of objects, or one object a line")
    if not rows:
        return fault("no row in the file", where=str(path), allowed="at least one row")
    odd = next((type(row).__name__ for row in rows if not isinstance(row, dict)), None)
    return None if odd is None else fault(f"found a {odd} in the list", where=str(path), allowed="objects")


def mixed_types(origin: Origin, data: Dataset, column: str) -> FaultyInput | None:
    """A column whose values are of several types, which `datasets` keeps as they are: a fault that names the first two lines."""
    if type(data.features[column]).__name__ != "Json":
        return None
    first: tuple[type, int] | None = None
    for row, value in enumerate(data[column]):
        if value is None:
            continue
        if first is None:
            first = (type(value), row)
        elif type(value) is not first[0] and {type(value), first[0]} != {int, float}:
            found = f"{value!r} is a {type(value).__name__}, but a {first[0].__name__} at {origin.where(first[1])}"
            return fault(found, where=origin.where(row), key=column, allowed="one type a column", cure="quote them all")
    return None


def read_memory(data: Any, name: str) -> tuple[Dataset, Origin]:
    """A `datasets.Dataset`, a pandas DataFrame or a list of dicts as a dataset.

    Raises:
        UserError: anything else, or a column of several types.
    """
    from datasets import Dataset

    origin = Origin([], "memory", name)
    if isinstance(data, Dataset):
        return data, origin
    try:
        if isinstance(data, Sequence) and not isinstance(data, str) and all(isinstance(row, Mapping) for row in data):
            # `from_list` would take the columns from the first row alone.
            columns = list(dict.fromkeys(key for row in data for key in row))
            filled = [{column: row.get(column) for column in columns} for row in data]
            return Dataset.from_list(filled, on_mixed_types="use_json"), origin
        if type(data).__name__ == "DataFrame":
            return Dataset.from_pandas(data, preserve_index=False), origin
    except UnicodeEncodeError as error:
        raise _unreadable_row(data, name) from error
    except (TypeError, ValueError) as error:
        raise fault(f"a column holds values of several types: {_first_line(error)}", where=name) from error
    raise UserError(
        f"{name}: data is a {type(data).__name__}; allowed: a datasets.Dataset, a DataFrame, a list of dicts"
    )


def _unreadable_row(data: Any, name: str) -> FaultyInput:
    """The first row in memory with half a surrogate pair."""
    rows = data if isinstance(data, Sequence) else data.to_dict("records")
    found = (no_unicode(row, f"{name}, row {number}") for number, row in enumerate(rows, 1))
    return next((one for one in found if one is not None), fault("not valid Unicode (a lone surrogate)", where=name))


@dataclass(frozen=True)
class HubSource:
    """A dataset on the Hub, as `datasets.load_dataset` takes it."""

    name: str
    config: str | None = None
    revision: str | None = None
    data_dir: str | None = None
    data_files: tuple[tuple[str, tuple[str, ...]], ...] = ()


def read_hub(source: HubSource, split: str, where: str, *, streaming: bool = False) -> tuple[Any, Origin]:
    """One split of a Hub dataset, or a stream of its rows.

    Raises:
        FaultyInput: no such dataset or split, or the Hub cannot be reached; says how to use a local copy.
    """
    from datasets import load_dataset

    local = "give a local copy with --data-root DIR (DIR/NAME/train.jsonl …) or in data.source"
    files = {key: list(value) for key, value in source.data_files} or None
    try:
        data = load_dataset(
            source.name,
            name=source.config,
            revision=source.revision,
            data_dir=source.data_dir,
            data_files=files,
            split=split,
            streaming=streaming,
        )
    except ConnectionError as error:
        found = f'cannot reach the Hub for "{source.name}": {_first_line(error)}'
        raise fault(found, where=where, key="data.source", cure=local) from error
    except ValueError as error:
        raise fault(f'"{source.name}": {_first_line(error)}', where=where, key="data.splits", cure=local) from error
    except Exception as error:
        found = f'"{source.name}" cannot be loaded: {type(error).__name__}: {_first_line(error)}'
        raise fault(found, where=where, key="data.source", cure=local) from error
    return data, Origin([], "hub", f"{source.name} {split}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
