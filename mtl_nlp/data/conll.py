"""CoNLL files: one word a line with its tags, a blank line between sentences.

Read here and not by `datasets`, whose loader ends a sentence at a line that holds only a space (Broad Twitter Corpus, test line
13 045), fills missing columns with empty tags and splits at any white space by default.

A `.conllu` file whose words are numbered in ten columns is CoNLL-U: the word is the second column, lines that begin with `#` are
comments, and the lines of multiword tokens (`3-4`) and empty nodes (`5.1`), which stand beside the words, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import Faults, fault

CONLL_2003 = ("tokens", "pos_tags", "chunk_tags", "ner_tags")
CONLL_U = ("id", "tokens", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
COMMENT = "# "
_NUMBER = re.compile(r"[0-9]+([-.][0-9]+)?")


@dataclass
class ConllFile:
    """A parsed file.

    Attributes:
        columns: names, `tokens` first; the last is `labels` (`ner_tags` in files of four columns, as in CoNLL-2003). Those of
            CoNLL-U have its own names, with `tokens` for the word's form.
        sentences: per sentence, per column, the values of its words.
        lines: per sentence, the line of each word, from 1.
        blank_lines_kept: lines of white space only, without a tab, which end no sentence.
        no_words: lines of CoNLL-U that are no words: multiword tokens and empty nodes.
    """

    path: Path
    columns: list[str]
    sentences: list[list[list[str]]]
    lines: list[list[int]]
    blank_lines_kept: int = 0
    no_words: int = 0


def column_names(width: int) -> list[str]:
    """Names for `width` columns."""
    if width == len(CONLL_2003):
        return list(CONLL_2003)
    return ["tokens", *(f"column_{i}" for i in range(2, width)), "labels"][: max(width, 1)]


def is_conll_u(ending: str, line: str) -> bool:
    """Whether the first word's line is of CoNLL-U, in a file of this ending."""
    cells = line.split("\t")
    return ending.lower() == ".conllu" and len(cells) == len(CONLL_U) and is_numbered(cells[0])


def is_numbered(cell: str) -> bool:
    """Whether a cell is a word's number of CoNLL-U, a range (`3-4`) or an empty node's (`5.1`)."""
    return _NUMBER.fullmatch(cell) is not None


def is_word(number: str) -> bool:
    """Whether a numbered line of CoNLL-U is a word, and no multiword token or empty node."""
    return number.isdigit()


def told_of_no_words(lines: int) -> str:
    """What is said of the lines of CoNLL-U that are left out."""
    return f"{lines} lines of multiword tokens (3-4) and empty nodes (5.1) are left out"


def read_conll(path: Path) -> ConllFile:
    """Parse a file; the delimiter is a tab if any line has one, else white space.

    `-DOCSTART-` lines are skipped, and so are lines before a sentence's first word that begin with `# `.
    An empty word with a tag is kept, as a word.

    Raises:
        FaultyInput: lines with too few columns, or without a number in CoNLL-U (all of them), or no word at all.
    """
    # Bytes, because text mode would take a stray carriage return inside a tweet for the end of a line.
    text = path.read_bytes().decode("utf-8-sig")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    delimiter = "\t" if any("\t" in line for line in lines) else None
    parsed = ConllFile(path, [], [], [])
    faults, width = Faults(), 0
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    numbered = is_conll_u(path.suffix, first)
    for number, sentence in _sentences(lines, parsed, "#" if numbered else COMMENT):
        rows, kept = [], []
        for offset, line in zip(number, sentence, strict=True):
            cells = line.split(delimiter)
            width = width or len(cells)
            if len(cells) != width:
                few = "too few" if len(cells) < width else "too many"
                faults.add(
                    f'{few} columns: {len(cells)} in "{line[:60]}"',
                    where=f"{path}:{offset}",
                    allowed=f"{width} columns",
                )
                cells = (cells + [""] * width)[:width]
            elif numbered and not is_numbered(cells[0]):
                faults.add(**no_number(cells[0]), where=f"{path}:{offset}")
            if numbered and not is_word(cells[0]):
                parsed.no_words += 1
                continue
            rows.append(cells)
            kept.append(offset)
        if rows:
            parsed.sentences.append([list(column) for column in zip(*rows, strict=True)])
            parsed.lines.append(kept)
    faults.check()
    if not parsed.sentences:
        raise fault("no word in the file", where=str(path), allowed="one word a line with its tag")
    parsed.columns = list(CONLL_U) if numbered else column_names(width)
    return parsed


def no_number(cell: str) -> dict[str, str]:
    """The fault of a line of CoNLL-U that begins with something else."""
    return {"found": f'found "{cell[:60]}"', "key": "column 1", "allowed": "a word's number, as 3, 3-4 or 5.1"}


def _sentences(lines: Sequence[str], parsed: ConllFile, comment: str) -> Iterator[tuple[list[int], list[str]]]:
    numbers: list[int] = []
    words: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line:
            if words:
                yield numbers, words
            numbers, words = [], []
        elif not line.strip() and "\t" not in line:
            parsed.blank_lines_kept += 1
        elif line.startswith("-DOCSTART-") or _is_comment(line, comment, begun=bool(words)):
            continue
        else:
            numbers.append(number)
            words.append(line)
    if words:
        yield numbers, words


def _is_comment(line: str, comment: str, *, begun: bool) -> bool:
    """Inside a sentence and with a tab a hash is a word like any other, but in CoNLL-U, whose words have numbers."""
    return line.startswith(comment) and (comment == "#" or (not begun and "\t" not in line))


def write_conll(sentences: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Iterator[str]:
    """Lines of a CoNLL file for (words, tags) pairs, each sentence ended by a blank line."""
    for words, tags in sentences:
        yield from (f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True))
        yield "\n"
