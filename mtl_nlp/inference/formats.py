"""Lines of a file or a pipe → rows, one at a time: plain text, JSONL, CSV, TSV, CoNLL.

Nothing holds the whole input, but for a JSON array, whose end is needed to read it. Every fault names file and line.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from ..data.conll import COMMENT, CONLL_U, column_names, is_conll_u, is_numbered, is_word, no_number, told_of_no_words
from ..data.json_text import no_unicode, refuse_constant, strict_json
from ..data.readers import doubled
from ..errors import fault, listed
from .inputs import Item, as_item

FORMATS = ("text", "jsonl", "json", "csv", "tsv", "conll", "conllu")
ENDINGS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
    ".conllu": "conllu",
    ".bio": "conll",
    ".iob": "conll",
}
SHOWN = {"text": "plain text, one text a line", "jsonl": "JSONL", "json": "a JSON array", "conll": "CoNLL"}
LONGEST_FIELD = 2**31 - 1
_SPACE = re.compile(r"\s*")

Line = tuple[int, str]
Tell = Callable[[str], None]


def read_items(stream: BinaryIO, name: str, kind: str, tell: Tell | None = None) -> Iterator[Item]:
    """The rows of an input.

    Args:
        stream: bytes, read line by line.
        name: of the input, for messages; its ending decides where `kind` is `auto`, else its first line.
        kind: `auto` or one of `FORMATS`.
        tell: is called with what the user should know: the format, where neither `kind` nor an ending says it, and what is left
            out of CoNLL-U.

    Raises:
        FaultyInput: an unknown format, or (while iterating) a malformed line or one that is not UTF-8.
    """
    if kind not in ("auto", *FORMATS):
        raise fault(f'found "{kind}"', key="--format", allowed=listed(("auto", *FORMATS)))
    if kind == "auto":
        ending = Path(name).suffix.lower()
        if ending in (".parquet", ".gz", ".zip", ".xlsx"):
            allowed = "plain text, JSONL, CSV, TSV or CoNLL"
            raise fault(f"{ending} files are not read here", where=name, allowed=allowed, cure="convert or unpack it")
        kind = ENDINGS.get(ending, "auto")
    return _items(_lines(stream, name), name, kind, tell)


def _items(lines: Iterator[Line], name: str, kind: str, tell: Tell | None) -> Iterator[Item]:
    first = next(lines, None)
    if first is None:
        return
    if kind == "auto":
        kind = guess(first[1])
        if tell is not None and not Path(name).suffix:
            others = ", ".join(other for other in FORMATS if other != kind)
            tell(f"{name}: read as {SHOWN[kind]}, by its first line; another format is said by --format ({others})")
    if kind in ("conll", "conllu"):
        yield from _read_conll(chain([first], lines), name, f".{kind}", tell)
    else:
        yield from READERS[kind](chain([first], lines), name)


def guess(line: str) -> str:
    """The format that an input's first line shows.

    JSONL begins with `{`, or its whole line is a JSON string or a list of words; a JSON array begins with a line `[`, or its line
    is a list of objects; CoNLL is a word, a tab and a tag. All else is plain text, such as a line that only begins with a quote.
    """
    begin = line.lstrip()[:1]
    if begin == "{":
        return "jsonl"
    if line.strip() == "[":
        return "json"
    value = _json_value(line) if begin in ("[", '"') else None
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return "json"
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
        return "jsonl"
    cells = line.rstrip("\r\n").split("\t")
    if len(cells) == 2 and all(cell and not any(c.isspace() for c in cell) for cell in cells):
        return "conll"
    return "text"


def _json_value(line: str) -> Any:
    """The value of a line that is JSON; None if it is not."""
    try:
        return strict_json(line)
    except (ValueError, RecursionError):
        return None


def _lines(stream: BinaryIO, name: str) -> Iterator[Line]:
    """(number, line) with the line's end; only a line feed ends a line."""
    for number, raw in enumerate(stream, 1):
        try:
            # A byte order mark may begin the first line only.
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = f"{raw[error.start]:#04x}"
            cure = "save the file as UTF-8, for example: iconv -f latin1 -t utf-8"
            raise fault(f"byte {byte} is not UTF-8", where=f"{name}:{number}", cure=cure) from None


def _read_text(lines: Iterable[Line], name: str) -> Iterator[Item]:
    """One text a line; an empty line is an empty text, so that output lines match input lines."""
    for number, line in lines:
        yield Item({"text": line.removesuffix("\n").removesuffix("\r")}, f"{name}:{number}")


def _read_jsonl(lines: Iterable[Line], name: str) -> Iterator[Item]:
    """One object a line (or one string, or one list of words); empty lines are skipped."""
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            row = strict_json(line)
        except ValueError as error:
            reason = getattr(error, "msg", str(error))
            column = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            raise fault(f"not valid JSON: {reason}{column}", where=where, allowed="one object a line") from None
        except RecursionError:
            raise fault("not readable JSON: nested too deeply", where=where, allowed="one object a line") from None
        # A line without escapes was decoded from UTF-8, which has no surrogates.
        yield _json_item(row, where, escapes="\\u" in line)


def _json_item(row: Any, where: str, *, escapes: bool) -> Item:
    unreadable = no_unicode(row, where) if escapes else None
    if unreadable is not None:
        raise unreadable
    return as_item(row, where)


def _read_json(lines: Iterable[Line], name: str) -> Iterator[Item]:
    """An array of rows (objects, strings or lists of words), on one line or several; else JSONL.

    Lists of words, a line each, are JSONL too: the first line is then a whole value and not the last.
    """
    coming = iter(lines)
    begun = _through_content(coming)
    if not begun or not begun[-1][1].lstrip().startswith("["):
        yield from _read_jsonl(chain(begun, coming), name)
        return
    more = _through_content(coming)
    if more and more[-1][1].strip() and _json_value(begun[-1][1]) is not None:
        yield from _read_jsonl(chain(begun, more, coming), name)
        return
    yield from _read_array("".join(line for _, line in chain(begun, more, coming)), name)


def _through_content(lines: Iterator[Line]) -> list[Line]:
    """The lines up to the first that is not blank, with it."""
    found: list[Line] = []
    for line in lines:
        found.append(line)
        if line[1].strip():
            break
    return found


def _read_array(text: str, name: str) -> Iterator[Item]:
    number, counted = 1, 0
    try:
        for begin, end, row in _elements(text):
            number, counted = number + text.count("\n", counted, begin), begin
            yield _json_item(row, f"{name}:{number}", escapes="\\u" in text[begin:end])
    except json.JSONDecodeError as error:
        found = f"not valid JSON: {error.msg} (column {error.colno})"
        raise fault(found, where=f"{name}:{error.lineno}", allowed="a list of objects, or one object a line") from None


def _elements(text: str) -> Iterator[tuple[int, int, Any]]:
    """(begin, end, value) of an array's elements; raises `JSONDecodeError`, which knows the line."""
    decoder = json.JSONDecoder(parse_constant=refuse_constant)
    at = _skipped(text, text.index("[") + 1)
    while text[at : at + 1] != "]":
        try:
            value, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
            raise json.JSONDecodeError(reason, text, at) from None
        yield at, end, value
        at = _skipped(text, end)
        if text[at : at + 1] == ",":
            at = _skipped(text, at + 1)
            if text[at : at + 1] == "]":
                raise json.JSONDecodeError("a comma before the end", text, at)
        elif text[at : at + 1] != "]":
            raise json.JSONDecodeError("no comma between two rows, or no ] at the end", text, at)
    behind = _skipped(text, at + 1)
    if behind < len(text):
        raise json.JSONDecodeError("more stands behind the array", text, behind)


def _skipped(text: str, at: int) -> int:
    """The next place without white space."""
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def _read_csv(lines: Iterable[Line], name: str, delimiter: str = ",") -> Iterator[Item]:
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader((line for _, line in lines), delimiter=delimiter, strict=True)
    columns: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            found, cure = f"not a readable record: {error}", 'a quote inside a quoted field is written ""'
            raise fault(found, where=f"{name}:{line}", cure=cure) from None
        if not cells:
            continue
        if not columns:
            columns = _header(cells, f"{name}:{line}")
        elif len(cells) != len(columns):
            few = "too few" if len(cells) < len(columns) else "too many"
            allowed = f"{len(columns)}: {listed(columns)}"
            raise fault(f"{few} fields: {len(cells)}", where=f"{name}:{line}", allowed=allowed)
        else:
            yield Item(dict(zip(columns, cells, strict=True)), f"{name}:{line}")


def _header(cells: list[str], where: str) -> list[str]:
    columns = [cell.strip() for cell in cells]
    twice = doubled(columns)
    if twice:
        raise fault(twice, where=where, allowed="a header of distinct names")
    return columns


def _read_tsv(lines: Iterable[Line], name: str) -> Iterator[Item]:
    return _read_csv(lines, name, "\t")


def _read_conll(lines: Iterable[Line], name: str, ending: str, tell: Tell | None) -> Iterator[Item]:
    """Sentences as `tokens` and the other columns, by the rules of `mtl_nlp.data.conll`.

    The delimiter is a tab if the first word's line has one, else white space: a pipe cannot be searched for tabs first.
    """
    delimiter: str | None = None
    columns: list[str] = []
    numbered, no_words, begin = False, 0, 0
    rows: list[list[str]] = []
    for number, ended in chain(lines, [(0, "\n")]):
        line = ended.removesuffix("\n").removesuffix("\r")
        if not line:
            if rows:
                yield Item(_sentence(rows, columns), f"{name}:{begin}")
            rows = []
        elif _is_no_word(line, begun=bool(rows), numbered=numbered or (not columns and ending == ".conllu")):
            continue
        else:
            if not columns:
                numbered = is_conll_u(ending, line)
                delimiter = "\t" if "\t" in line else None
                columns = list(CONLL_U) if numbered else column_names(len(line.split(delimiter)))
            cells = _cells(line, delimiter, columns, f"{name}:{number}", numbered=numbered)
            if numbered and not is_word(cells[0]):
                no_words += 1
                continue
            begin = begin if rows else number
            rows.append(cells)
    if no_words and tell is not None:
        tell(f"{name}: {told_of_no_words(no_words)}")


def _cells(line: str, delimiter: str | None, columns: list[str], where: str, *, numbered: bool) -> list[str]:
    cells = line.split(delimiter)
    if len(cells) != len(columns):
        few = "too few" if len(cells) < len(columns) else "too many"
        raise fault(f'{few} columns: {len(cells)} in "{line[:60]}"', where=where, allowed=f"{len(columns)} columns")
    if numbered and not is_numbered(cells[0]):
        raise fault(**no_number(cells[0]), where=where)
    return cells


def _is_no_word(line: str, *, begun: bool, numbered: bool) -> bool:
    """White space only, a document's mark, or a comment: in CoNLL-U anywhere, else before a sentence's first word."""
    if numbered and line.startswith("#"):
        return True
    if "\t" not in line and (not line.strip() or (not begun and line.startswith(COMMENT))):
        return True
    return line.startswith("-DOCSTART-")


def _sentence(rows: list[list[str]], columns: list[str]) -> dict[str, Any]:
    return {column: list(values) for column, values in zip(columns, zip(*rows, strict=True), strict=True)}


READERS = {
    "text": _read_text,
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_csv,
    "tsv": _read_tsv,
}
