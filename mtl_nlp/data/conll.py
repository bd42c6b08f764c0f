"""CoNLL files: one word a line with its tags, a blank line between sentences.

Read here and not by `datasets`, whose loader ends a sentence at a line that holds only a space (Broad Twitter Corpus, test line
13 045), fills missing columns with empty tags and splits at any white space by default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import Faults, fault

CONLL_2003 = ("tokens", "pos_tags", "chunk_tags", "ner_tags")
COMMENT = "# "


@dataclass
class ConllFile:
    """A parsed file.

    Attributes:
        columns: names, `tokens` first; the last is `labels` (`ner_tags` in files of four columns, as in CoNLL-2003).
        sentences: per sentence, per column, the values of its words.
        lines: per sentence, the line of each word, from 1.
        blank_lines_kept: lines of white space only, without a tab, which end no sentence.
    """

    path: Path
    columns: list[str]
    sentences: list[list[list[str]]]
    lines: list[list[int]]
    blank_lines_kept: int = 0


def column_names(width: int) -> list[str]:
    """Names for `width` columns."""
    if width == len(CONLL_2003):
        return list(CONLL_2003)
    return ["tokens", *(f"column_{i}" for i in range(2, width)), "labels"][: max(width, 1)]


def read_conll(path: Path) -> ConllFile:
    """Parse a file; the delimiter is a tab if any line has one, else white space.

    `-DOCSTART-` lines are skipped, and so are lines before a sentence's first word that begin with `# `.
    An empty word with a tag is kept, as a word.

    Raises:
        FaultyInput: lines with too few columns (all of them), or no word at all.
    """
    # Bytes, because text mode would take a stray carriage return inside a tweet for the end of a line.
    text = path.read_bytes().decode("utf-8-sig")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    delimiter = "\t" if any("\t" in line for line in lines) else None
    parsed = ConllFile(path, [], [], [])
    faults, width = Faults(), 0
    for number, sentence in _sentences(lines, parsed):
        rows = []
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
            rows.append(cells)
        parsed.sentences.append([list(column) for column in zip(*rows, strict=True)])
        parsed.lines.append(list(number))
    faults.check()
    if not parsed.sentences:
        raise fault("no word in the file", where=str(path), allowed="one word a line with its tag")
    parsed.columns = column_names(width)
    return parsed


def _sentences(lines: Sequence[str], parsed: ConllFile) -> Iterator[tuple[list[int], list[str]]]:
    numbers: list[int] = []
    words: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line:
            if words:
                yield numbers, words
            numbers, words = [], []
        elif not line.strip() and "\t" not in line:
            parsed.blank_lines_kept += 1
        elif line.startswith("-DOCSTART-") or (not words and line.startswith(COMMENT) and "\t" not in line):
            continue
        else:
            numbers.append(number)
            words.append(line)
    if words:
        yield numbers, words


def write_conll(sentences: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Iterator[str]:
    """Lines of a CoNLL file for (words, tags) pairs, each sentence ended by a blank line."""
    for words, tags in sentences:
        yield from (f"{word}\t{tag}\n" for word, tag in zip(words, tags, strict=True))
        yield "\n"
