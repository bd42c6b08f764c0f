"""Texts → rows of token ids, with each task's targets on them.

A text gives one row, several overlapping windows if a token or question task reads it and it is too long, or one row a choice.
`RowEncoder` does it for training, evaluation and prediction alike; `EncodedSplit` keeps the rows of a corpus memory-mapped.
The next steps on the road are `mixture` (which texts come next) and `batching` (rows → padded tensors).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..labels import Span, spans_to_tags, tag_names
from ..task import Task
from .rows import spool
from .windows import Row, RowEncoder, TextRows

if TYPE_CHECKING:
    from datasets import Dataset

    from .sources import Corpus, CorpusSplit

IGNORE = -100
BATCH = 512


@dataclass
class EncodedSplit:
    """The rows of one split of a corpus.

    Attributes:
        rows: one record a row: `input_ids`, `token_type_ids` where the encoder has them, `words` (per token the word that begins
            there, else −1) for token tasks, `starts` and `ends` (characters in the context, else −1) for questions, and a
            target `@TASK` (None where the row is not labelled for the task).
        offsets: text *i* has the rows `offsets[i]` … `offsets[i + 1]` − 1.
        lengths: the longest row of each text, in tokens.
        gold: task → each text's reference in decoded form, None where missing; only for splits that are scored.
        truncated: texts of which a row task sees a part only, or whose windows were cut.
        words_without_tokens: words that the tokenizer gives no token; they are predicted `O`.
        misaligned_spans: spans that were moved to word borders; `dropped_spans` could not be kept.
    """

    rows: Dataset
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    gold: dict[str, list[Any]] = field(default_factory=dict)
    word_counts: NDArray[np.int64] | None = None
    truncated: int = 0
    words_without_tokens: int = 0
    misaligned_spans: int = 0
    dropped_spans: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Real tokens of each text, over all its rows."""
        sums = np.concatenate([[0], np.cumsum(row_tokens(self.rows))])
        return sums[self.offsets[1:]] - sums[self.offsets[:-1]]

    def columns(self, rows: list[int]) -> dict[str, list[Any]]:
        """Column → its values in these rows; they are plain numbers and lists, so that datasets' formatting, which takes longer
        than to find a row or two, has nothing to do."""
        if not rows or self.rows._indices is not None:  # a selection of another table
            return self.rows[rows]
        return self.rows.data.fast_gather(rows).to_pydict()

    def rows_of(self, texts: Sequence[int]) -> list[int]:
        """Row numbers of several texts, in order."""
        return [row for text in texts for row in range(self.offsets[text], self.offsets[text + 1])]


def row_tokens(rows: Dataset) -> NDArray[np.int64]:
    """Tokens of each row, special ones included."""
    import pyarrow.compute as pc

    column = rows.data.column("input_ids")
    return np.concatenate([pc.list_value_length(part).to_numpy() for part in column.chunks] or [[]]).astype(np.int64)


class _Targets:
    """One task's targets and references on a text's rows."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.kind = task.kind.annotation
        names = task.labels or []
        self.tags = tag_names(names, task.tag_scheme) if self.kind == "tags" else []
        self.ids = {name: i for i, name in enumerate(self.tags or names)}
        self.misaligned = self.dropped = 0

    def feature(self) -> Any:
        """The `datasets` feature of a target."""
        from datasets import List, Value

        whole, real = Value("int32"), Value("float32")
        forms = {
            "label": whole,
            "choice": whole,
            "value": real,
            "labels": List(real),
            "relevance": List(real),
            "match": whole,
        }
        return forms.get(self.kind, List(whole))

    def reference(self, normal: Any, text: TextRows, raw: Any) -> Any:
        """The annotation as metrics compare it: label, labels, number, word tags, answers."""
        if normal is None:
            return None
        if self.kind == "tags":
            return self._word_tags(normal, text, raw)
        if self.kind == "choice":
            return str(normal)
        if self.kind == "match":
            return raw
        return normal["text"] if self.kind == "answer" else normal

    def _word_tags(self, normal: Any, text: TextRows, raw: Any) -> list[str]:
        if not normal or isinstance(normal[0], str):
            return list(normal) if normal or not text.words else ["O"] * len(text.words)
        spans = [Span(span["start"], span["end"], span["label"]) for span in normal]
        tags, problems = spans_to_tags(spans, text.words, raw)
        self.dropped += sum(problem.dropped for problem in problems)
        self.misaligned += sum(not problem.dropped for problem in problems)
        if self.task.tag_scheme == "none":
            return [tag[2:] if tag != "O" else tag for tag in tags]
        return tags

    def on_rows(self, normal: Any, reference: Any, text: TextRows) -> list[Any]:
        """The target of each row; unknown labels (in a test split) are not learned from."""
        if normal is None:
            return [None] * len(text.rows)
        first: Any = None
        if self.kind == "tags":
            return [self._on_tokens(reference, row) for row in text.rows]
        if self.kind == "answer":
            return [_answer_on(row, normal) for row in text.rows]
        if self.kind == "label":
            first = self.ids.get(normal)
        elif self.kind == "labels":
            first = [float(name in normal) for name in self.ids]
        elif self.kind == "choice":
            return [normal] * len(text.rows)
        elif self.kind == "match":
            return [0] * len(text.rows)  # of the rows after the query's the first is the right one
        elif self.kind == "relevance":
            return [normal] + [[]] * (len(text.rows) - 1)
        else:
            first = normal
        return [first] + [None] * (len(text.rows) - 1)

    def _on_tokens(self, tags: Sequence[str], row: Row) -> list[int]:
        return [self.ids.get(tags[word], IGNORE) if word >= 0 else IGNORE for word in row.words]


def _answer_on(row: Row, answer: Mapping[str, Any]) -> list[int]:
    """First and last token of the first answer in this window, (0, 0) if it is not wholly inside."""
    if not answer["text"]:
        return [0, 0]
    # White space around an answer is in no token.
    text = answer["text"][0]
    begin = answer["answer_start"][0] + len(text) - len(text.lstrip())
    end = begin + len(text.strip())
    inside = [i for i, (s, e) in enumerate(zip(row.starts, row.ends, strict=True)) if s >= 0 and s < end and e > begin]
    if not inside or row.starts[inside[0]] > begin or row.ends[inside[-1]] < end:
        return [0, 0]
    return [inside[0], inside[-1]]


def encode_split(corpus: Corpus, split: CorpusSplit, encoder: RowEncoder, *, scored: bool) -> EncodedSplit:
    """Encode one split; `scored` keeps references for metrics."""
    targets = [_Targets(task) for task in corpus.tasks if task.kind.annotation != "none"]
    gold: dict[str, list[Any]] = {target.task.name: [] for target in targets} if scored else {}
    counts: list[int] = []
    lengths: list[int] = []
    words: list[int] = []
    result = EncodedSplit(split.data, np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.int64), gold)

    def batches() -> Iterator[dict[str, list[Any]]]:
        for start in range(0, len(split.data), BATCH):
            batch = split.data[start : start + BATCH]
            records: dict[str, list[Any]] = {name: [] for name in features}
            for i, text in enumerate(encoder.encode(batch)):
                counts.append(len(text.rows))
                lengths.append(max(len(row.input_ids) for row in text.rows))
                words.append(len(text.words))
                result.truncated += text.truncated
                result.words_without_tokens += text.words_without_tokens
                _add_rows(records, text, batch, i, targets, gold)
            yield records

    features = _features(encoder, targets)
    result.rows = spool(batches(), features)
    result.offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    result.lengths = np.asarray(lengths, dtype=np.int64)
    result.word_counts = np.asarray(words, dtype=np.int64)
    result.misaligned_spans = sum(target.misaligned for target in targets)
    result.dropped_spans = sum(target.dropped for target in targets)
    return result


def _add_rows(
    records: dict[str, list[Any]],
    text: TextRows,
    batch: Mapping[str, list[Any]],
    i: int,
    targets: Sequence[_Targets],
    gold: dict[str, list[Any]],
) -> None:
    for row in text.rows:
        for name in ("input_ids", "token_type_ids", "words", "starts", "ends"):
            if name in records:
                records[name].append(getattr(row, name))
    raw: Any = batch["text"][i] if "text" in batch else None
    if "passages" in batch:
        raw = {"query": batch["query"][i], "passages": batch["passages"][i]}
    for target in targets:
        name = target.task.name
        normal = batch[f"@{name}"][i]
        reference = target.reference(normal, text, raw)
        records[f"@{name}"].extend(target.on_rows(normal, reference, text))
        if name in gold:
            gold[name].append(reference)


def _features(encoder: RowEncoder, targets: Sequence[_Targets]) -> dict[str, Any]:
    from datasets import List, Value

    names = ["input_ids"]
    names += ["token_type_ids"] if encoder.type_ids else []
    names += ["words"] if encoder.with_words else []
    names += ["starts", "ends"] if encoder.reads == "question" else []
    return {name: List(Value("int32")) for name in names} | {f"@{t.task.name}": t.feature() for t in targets}
