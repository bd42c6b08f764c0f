"""Texts that stand twice: repeated within a split, or on both sides of training and evaluation.

Texts are compared by a key that forgets case and white space, so that a tokenised corpus matches a raw one; the second text of
a pair, the context of a question and the choices belong to the key. One pass over each split and one dictionary a training
split: time grows with the number of texts. `checks` puts the result into its report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .sources import Corpus, CorpusSplit

BATCH = 1000
EXAMPLES = 3
EXCERPT = 80


@dataclass(frozen=True)
class SplitTexts:
    """The keys of one split.

    Attributes:
        keys: one a text; None for an empty one.
        first: key → the first text that has it.
        empty: how many texts are empty; `first_empty` is the first.
        repeats: texts that stand earlier in the same split; `first_repeat` is the first of them and the earlier one.
    """

    keys: list[bytes | None]
    first: dict[bytes, int]
    empty: int = 0
    first_empty: int | None = None
    repeats: int = 0
    first_repeat: tuple[int, int] | None = None


@dataclass(frozen=True)
class LeakExample:
    """One text on both sides: `file:line` in the evaluation split and in the training split, and how it begins."""

    where: str
    train_where: str
    text: str


@dataclass(frozen=True)
class Leak:
    """Texts of an evaluation split that stand in a training split, of the same corpus or of another.

    Attributes:
        texts: how many texts of `corpus`'s `split` stand in the training split of `train_corpus`.
        share: of all texts of that evaluation split.
        examples: the first few.
    """

    corpus: str
    split: str
    train_corpus: str
    texts: int
    share: float
    examples: list[LeakExample]

    @property
    def across(self) -> bool:
        """Whether it is from one corpus to another."""
        return self.corpus != self.train_corpus

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "across": self.across}


def normalised(text: str) -> str:
    """A text without case and white space: `Do n't !` and `don't!` are the same."""
    return "".join(text.split()).casefold()


def text_key(parts: Sequence[str]) -> bytes | None:
    """16 bytes that stand for a text (a pair, a question with its context, …); None if one of its parts is empty."""
    plain = [normalised(part) for part in parts]
    if not all(plain):
        return None
    return blake2b("\x1f".join(plain).encode(), digest_size=16).digest()


def parts_of(batch: Mapping[str, Sequence[Any]], reads: str) -> Iterator[list[str]]:
    """The parts of each text of a batch of input columns (see `mtl_nlp.data.rows`)."""
    if reads == "question":
        yield from ([question, context] for question, context in zip(batch["question"], batch["context"], strict=True))
    elif reads == "choices":
        questions = batch.get("question") or [""] * len(batch["context"])
        for context, question, choices in zip(batch["context"], questions, batch["choices"], strict=True):
            yield [f"{context} {question}", *choices]
    elif reads == "passages":
        # Hard negatives are the trainer's choice: the same question with the same answer is the same text.
        yield from ([query, *passages[:1]] for query, passages in zip(batch["query"], batch["passages"], strict=True))
    else:
        texts = ["".join(words) for words in batch["tokens"]] if reads == "tokens" else batch["text"]
        pairs = batch.get("pair")
        yield from ([text] for text in texts) if pairs is None else map(list, zip(texts, pairs, strict=True))


def read_texts(split: CorpusSplit, reads: str) -> SplitTexts:
    """The keys of a split, with its empty texts and repeats counted."""
    keys: list[bytes | None] = []
    first: dict[bytes, int] = {}
    empty = repeats = 0
    first_empty: int | None = None
    first_repeat: tuple[int, int] | None = None
    for parts in _all_parts(split, reads):
        row, key = len(keys), text_key(parts)
        keys.append(key)
        if key is None:
            empty += 1
            first_empty = row if first_empty is None else first_empty
            continue
        earlier = first.setdefault(key, row)
        if earlier != row:
            repeats += 1
            first_repeat = first_repeat or (row, earlier)
    return SplitTexts(keys, first, empty, first_empty, repeats, first_repeat)


def _all_parts(split: CorpusSplit, reads: str) -> Iterator[list[str]]:
    columns = [name for name in split.data.column_names if not name.startswith("@")]
    inputs = split.data.select_columns(columns)
    for start in range(0, len(inputs), BATCH):
        yield from parts_of(inputs[start : start + BATCH], reads)


def find_leaks(corpora: Sequence[Corpus], texts: Mapping[tuple[str, str], SplitTexts]) -> list[Leak]:
    """Every pair of an evaluation split and a training split that share a text.

    Args:
        texts: (corpus, split) → its keys.

    Returns:
        Leaks within a corpus first, then across corpora, each in the order of the corpora.
    """
    trained = [corpus for corpus in corpora if "train" in corpus.splits]
    found = [
        leak
        for corpus in corpora
        for split in ("validation", "test")
        if split in corpus.splits
        for source in trained
        if (leak := _leak(corpus, split, source, texts)) is not None
    ]
    return sorted(found, key=lambda leak: leak.across)


def _leak(corpus: Corpus, split: str, source: Corpus, texts: Mapping[tuple[str, str], SplitTexts]) -> Leak | None:
    here, there = texts[corpus.name, split], texts[source.name, "train"].first
    rows = [(row, there[key]) for row, key in enumerate(here.keys) if key is not None and key in there]
    if not rows:
        return None
    part, train = corpus.splits[split], source.splits["train"]
    examples = [
        LeakExample(part.where(row), train.where(train_row), excerpt(part, row, corpus.reads))
        for row, train_row in rows[:EXAMPLES]
    ]
    return Leak(corpus.name, split, source.name, len(rows), len(rows) / len(here.keys), examples)


def excerpt(split: CorpusSplit, row: int, reads: str) -> str:
    """How a text begins, on one line."""
    values = split.data[row]
    first = values[{"choices": "context", "passages": "query"}.get(reads, reads)]
    text = " ".join((" ".join(first) if isinstance(first, list) else first).split())
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - 1]}…"
