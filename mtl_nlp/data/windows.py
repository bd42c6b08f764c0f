"""One text → its rows: tokens, windows of long texts, words by the tokens that begin them.

Used for training, evaluation and prediction, so that a text is cut the same way in all three. Offsets are characters of the raw
text; for given words they are positions in the list.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..labels import text_words, whitespace_words


@dataclass
class Row:
    """One sequence of the batch; every list has one entry a token."""

    input_ids: list[int]
    token_type_ids: list[int] | None = None
    words: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)


@dataclass
class TextRows:
    """The rows of one text.

    Attributes:
        words: character offsets of the words (raw text) or (i, i + 1) for given words; empty if no task asks for words.
        truncated: something of the text is in no row that its tasks read.
    """

    rows: list[Row]
    words: list[tuple[int, int]] = field(default_factory=list)
    truncated: bool = False
    words_without_tokens: int = 0


class RowEncoder:
    """Encodes the texts of one corpus.

    Args:
        tokenizer: a fast tokenizer.
        reads: `text`, `tokens`, `question`, `choices` or `passages`.
        max_length: most tokens a row, special ones included.
        stride: tokens that neighbouring windows share.
        splitter: how raw text is cut into words: `whitespace`, `pretokenizer`, or `given` (see `labels.text_words`).
        with_words: whether a task labels words; only then are long texts cut into windows.
        row_tasks: whether a task reads the first window alone, so that a long text counts as truncated.
    """

    def __init__(
        self,
        tokenizer: Any,
        reads: str,
        *,
        max_length: int,
        stride: int = 64,
        splitter: str = "pretokenizer",
        with_words: bool = False,
        row_tasks: bool = True,
    ) -> None:
        self.tokenizer, self.reads, self.max_length = tokenizer, reads, max_length
        self.splitter, self.with_words, self.row_tasks = splitter, with_words, row_tasks
        self.type_ids = "token_type_ids" in tokenizer.model_input_names
        special = tokenizer.num_special_tokens_to_add(pair=reads in ("question", "choices"))
        # A question may take half a row, so that its windows' overlap is at most half of what is left.
        self.stride = max(0, min(stride, (max_length - special) // (4 if reads == "question" else 2)))

    def encode(self, batch: Mapping[str, Sequence[Any]]) -> Iterator[TextRows]:
        """The rows of each text of a batch of columns (see `mtl_nlp.data.rows`); a row has at least one token."""
        if self.reads == "question":
            texts = self._questions(batch["question"], batch["context"])
        elif self.reads == "choices":
            texts = self._choices(batch)
        elif self.reads == "passages":
            texts = self._passages(batch["query"], batch["passages"])
        else:
            texts = self._texts(batch[self.reads], batch.get("pair"))
        for text in texts:
            for row in text.rows:
                if not row.input_ids:
                    self._fill(row)
            yield text

    def _fill(self, row: Row) -> None:
        """Tokenizers without special tokens (GPT-2's) give an empty text no token, and a model nothing to read."""
        known = ("eos_token_id", "bos_token_id", "unk_token_id", "pad_token_id")
        found = (getattr(self.tokenizer, name) for name in known)
        row.input_ids = [next((token for token in found if token is not None), 0)]
        row.token_type_ids = None if row.token_type_ids is None else [0]
        row.words, row.starts, row.ends = [-1], [-1], [-1]

    def _call(self, first: Any, second: Any, windows: bool, truncation: str | bool, split: bool = False) -> Any:
        return self.tokenizer(
            first,
            second,
            truncation=truncation,
            max_length=self.max_length,
            stride=self.stride if windows else 0,
            return_overflowing_tokens=True,
            is_split_into_words=split,
            padding=False,
        )

    def _texts(self, texts: Sequence[Any], pairs: Sequence[str] | None) -> Iterator[TextRows]:
        given = self.reads == "tokens"
        second = None
        if pairs is not None:
            second = [pair.split() for pair in pairs] if given else list(pairs)
        windows = self.with_words and pairs is None
        coded = self._call(list(texts), second, windows, True, split=given)
        by_text = _by_text(coded, len(texts))
        for text, encodings in zip(texts, by_text, strict=True):
            kept = encodings if windows else encodings[:1]
            result = TextRows([self._row(encoding) for encoding in kept])
            result.truncated = len(encodings) > 1 and (self.row_tasks or not windows)
            if self.with_words:
                result.words = self._mark_words(text, kept, result.rows, given)
                result.words_without_tokens = len(result.words) - len(
                    {w for r in result.rows for w in r.words if w >= 0}
                )
            yield result

    def _row(self, encoding: Any) -> Row:
        return Row(list(encoding.ids), list(encoding.type_ids) if self.type_ids else None)

    def _mark_words(
        self, text: Any, encodings: Sequence[Any], rows: Sequence[Row], given: bool
    ) -> list[tuple[int, int]]:
        """Set `words` on the rows; returns the words' offsets."""
        if given:
            words = [(i, i + 1) for i in range(len(text))]
            at = [_word_ids(encoding) for encoding in encodings]
        elif self.splitter in ("whitespace", "given"):
            # A model that learned from given words finds them best where an annotator would have cut.
            words = whitespace_words(text) if self.splitter == "whitespace" else text_words(text)
            starts = [start for start, _ in words]
            at = [
                [
                    _word_at(text, token, starts) if part == 0 else None
                    for part, token in zip(encoding.sequence_ids, encoding.offsets, strict=True)
                ]
                for encoding in encodings
            ]
        else:
            words, at = _pretokenized(text, encodings)
        best = _best_windows(at)
        for number, (row, ids) in enumerate(zip(rows, at, strict=True)):
            row.words = [word if word is not None and best[word] == (number, i) else -1 for i, word in enumerate(ids)]
        return words

    def _questions(self, questions: Sequence[str], contexts: Sequence[str]) -> Iterator[TextRows]:
        special = self.tokenizer.num_special_tokens_to_add(pair=True)
        room = (self.max_length - special) // 2
        short = [self._shortened(question, room) for question in questions]
        coded = self._call([text for text, _ in short], list(contexts), True, "only_second")
        for (_, cut), encodings in zip(short, _by_text(coded, len(questions)), strict=True):
            result = TextRows([], truncated=cut)
            for encoding in encodings:
                row = self._row(encoding)
                inside = [part == 1 for part in encoding.sequence_ids]
                row.starts = [s if ok else -1 for ok, (s, _) in zip(inside, encoding.offsets, strict=True)]
                row.ends = [e if ok else -1 for ok, (_, e) in zip(inside, encoding.offsets, strict=True)]
                result.rows.append(row)
            yield result

    def _shortened(self, question: str, room: int) -> tuple[str, bool]:
        """The question cut to `room` tokens, so that the context keeps at least half a row."""
        offsets = self.tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if len(offsets) <= room:
            return question, False
        return question[: offsets[room - 1][1]], True

    def _choices(self, batch: Mapping[str, Sequence[Any]]) -> Iterator[TextRows]:
        starts = batch.get("question") or [""] * len(batch["context"])
        sizes = [len(choices) for choices in batch["choices"]]
        first = [c for c, n in zip(batch["context"], sizes, strict=True) for _ in range(n)]
        second = [f"{q} {c}".strip() for q, cs in zip(starts, batch["choices"], strict=True) for c in cs]
        encodings = _by_text(self._call(first, second, False, True), len(first))
        place = 0
        for size in sizes:
            part = encodings[place : place + size]
            place += size
            yield TextRows([self._row(e[0]) for e in part], truncated=any(len(e) > 1 for e in part))

    def _passages(self, queries: Sequence[str], passages: Sequence[Sequence[str]]) -> Iterator[TextRows]:
        """A row for the query, and one for each passage."""
        sizes = [1 + len(listed) for listed in passages]
        texts = [text for query, listed in zip(queries, passages, strict=True) for text in (query, *listed)]
        encodings = _by_text(self._call(texts, None, False, True), len(texts))
        place = 0
        for size in sizes:
            part = encodings[place : place + size]
            place += size
            yield TextRows([self._row(e[0]) for e in part], truncated=any(len(e) > 1 for e in part))


def _by_text(coded: Any, size: int) -> list[list[Any]]:
    result: list[list[Any]] = [[] for _ in range(size)]
    owners = coded.get("overflow_to_sample_mapping", range(size))
    for owner, encoding in zip(owners, coded.encodings, strict=True):
        result[owner].append(encoding)
    return result


def _word_ids(encoding: Any) -> list[int | None]:
    """Each token's word; None for special tokens and for those of a pair's second text."""
    return [word if part == 0 else None for word, part in zip(encoding.word_ids, encoding.sequence_ids, strict=True)]


def _word_at(text: str, token: tuple[int, int], starts: Sequence[int]) -> int | None:
    if not starts or text[slice(*token)].isspace():
        return None
    # A byte-level token may carry the space before its word, so its last character decides.
    return max(bisect_right(starts, max(token[1] - 1, token[0])) - 1, 0)


def _pretokenized(text: str, encodings: Sequence[Any]) -> tuple[list[tuple[int, int]], list[list[int | None]]]:
    """The tokenizer's own words (offsets without surrounding space) and each token's word, numbered over the whole text."""
    spans: dict[int, tuple[int, int]] = {}
    ids = [_word_ids(encoding) for encoding in encodings]
    for encoding, words in zip(encodings, ids, strict=True):
        for word, (start, end) in zip(words, encoding.offsets, strict=True):
            if word is not None:
                old = spans.get(word, (start, end))
                spans[word] = (min(old[0], start), max(old[1], end))
    stripped = {word: _strip(text, *span) for word, span in sorted(spans.items())}
    kept = [word for word, (start, end) in stripped.items() if start < end]
    number = {word: i for i, word in enumerate(kept)}
    at = [[number.get(word) if word is not None else None for word in words] for words in ids]
    return [stripped[word] for word in kept], at


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _best_windows(at: Sequence[Sequence[int | None]]) -> dict[int, tuple[int, int]]:
    """For each word: (window, token) where it begins with the most context on its poorer side; the first on ties."""
    best: dict[int, tuple[int, int]] = {}
    context: dict[int, int] = {}
    for number, ids in enumerate(at):
        before: int | None = None
        for i, word in enumerate(ids):
            if word is not None and word != before:
                room = min(i, len(ids) - 1 - i)
                if (word not in best or room > context[word]) and not _began_earlier(best, word, number):
                    best[word], context[word] = (number, i), room
            before = word
    return best


def _began_earlier(best: Mapping[int, tuple[int, int]], word: int, number: int) -> bool:
    return word in best and best[word][0] == number
