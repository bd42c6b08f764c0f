"""Texts → rows: windows, words and their first tokens, answers, choices, targets; every position worked by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from mtl_nlp.data.features import IGNORE, EncodedSplit, encode_split
from mtl_nlp.data.sources import read_corpora
from mtl_nlp.data.windows import RowEncoder, TextRows
from mtl_nlp.recipe import make_recipe
from mtl_nlp.training.prepare import row_encoder
from tests.conftest import WORDS, build_tokenizer

TEN = WORDS[:10]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """WordPiece; each of `WORDS` is one token."""
    return build_tokenizer(tmp_path_factory.mktemp("wordpiece"))


@pytest.fixture(scope="module")
def byte_level() -> Any:
    """A byte-level tokenizer without merges: a token a character, the space before a word in the word's own piece."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({piece: i for i, piece in enumerate(["<pad>", *alphabet])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>")


def encode(tokenizer: Any, reads: str, batch: dict[str, list[Any]], length: int = 64, **more: Any) -> list[TextRows]:
    return list(RowEncoder(tokenizer, reads, max_length=length, **more).encode(batch))


def pieces(tokenizer: Any, rows: TextRows) -> list[str]:
    return [" ".join(tokenizer.convert_ids_to_tokens(row.input_ids)) for row in rows.rows]


def encoded(
    tokenizer: Any, tasks: list[dict[str, Any]], data: dict[str, Any], split: str, length: int = 64
) -> EncodedSplit:
    """One corpus' split from rows in memory."""
    memory = {task["name"]: data for task in tasks}
    (corpus,) = read_corpora(make_recipe({"tasks": tasks}, memory=memory), memory=memory)
    return encode_split(
        corpus, corpus.splits[split], row_encoder(corpus, tokenizer, length, 2), scored=split != "train"
    )


def test_each_word_is_labelled_in_the_window_where_it_has_most_context(tokenizer: Any) -> None:
    (text,) = encode(tokenizer, "tokens", {"tokens": [TEN]}, 8, stride=2, with_words=True)
    # Six words fit between [CLS] and [SEP]; two are shared. Word 4 has 2 tokens after it in the first window and 1 before it
    # in the second; word 5 has 1 after it in the first and 2 before it in the second.
    assert [len(row.input_ids) for row in text.rows] == [8, 8]
    assert text.rows[0].words == [-1, 0, 1, 2, 3, 4, -1, -1]
    assert text.rows[1].words == [-1, -1, 5, 6, 7, 8, 9, -1]
    assert text.words == [(i, i + 1) for i in range(10)]


@pytest.mark.parametrize("length", [6, 7, 8, 11, 16])
@pytest.mark.parametrize("stride", [0, 1, 2, 64])
def test_every_word_is_labelled_exactly_once_however_long_the_rows(tokenizer: Any, length: int, stride: int) -> None:
    words = ["anna", "xyz", "london", "qqqq", "the", "paris", "zzzzz", "is", "a", "flight"] * 3
    (text,) = encode(tokenizer, "tokens", {"tokens": [words]}, length, stride=stride, with_words=True)
    assert sorted(w for row in text.rows for w in row.words if w >= 0) == list(range(30))
    assert max(len(row.input_ids) for row in text.rows) <= length
    whole = encode(tokenizer, "tokens", {"tokens": [words]}, 200, with_words=True)[0].rows[0]
    first = {w: whole.input_ids[i] for i, w in enumerate(whole.words) if w >= 0}
    assert {w: row.input_ids[i] for row in text.rows for i, w in enumerate(row.words) if w >= 0} == first


def test_a_word_is_labelled_on_its_first_token(tokenizer: Any) -> None:
    (text,) = encode(tokenizer, "tokens", {"tokens": [["anna", "xyz", "is"]]}, with_words=True)
    assert pieces(tokenizer, text) == ["[CLS] anna x ##y ##z is [SEP]"]
    assert text.rows[0].words == [-1, 0, 1, -1, -1, 2, -1]


def test_a_sequence_task_reads_the_first_window_and_counts_as_truncated(tokenizer: Any) -> None:
    batch = {"tokens": [TEN, TEN[:6]]}
    long, short = encode(tokenizer, "tokens", batch, 8)
    assert (len(long.rows), long.truncated, long.words) == (1, True, [])
    assert (len(short.rows), short.truncated) == (1, False)
    both, _ = encode(tokenizer, "tokens", batch, 8, with_words=True, row_tasks=True)
    assert (len(both.rows) > 1, both.truncated) == (True, True)
    tags_only, _ = encode(tokenizer, "tokens", batch, 8, with_words=True, row_tasks=False)
    assert (len(tags_only.rows) > 1, tags_only.truncated) == (True, False)


def test_words_without_tokens_are_counted_and_keep_their_place(tokenizer: Any) -> None:
    (text,) = encode(tokenizer, "tokens", {"tokens": [["anna", "", "\u200d", "is"]]}, with_words=True)
    assert text.rows[0].words == [-1, 0, 3, -1]
    assert (len(text.words), text.words_without_tokens) == (4, 2)


@pytest.mark.parametrize("tokens", [[], [""]])
def test_a_text_without_words_is_a_row_of_special_tokens(tokenizer: Any, tokens: list[str]) -> None:
    (empty, other) = encode(tokenizer, "tokens", {"tokens": [tokens, ["anna"]]}, with_words=True)
    assert pieces(tokenizer, empty) == ["[CLS] [SEP]"]
    assert empty.rows[0].words == [-1, -1]
    assert other.rows[0].words == [-1, 0, -1]


@pytest.mark.parametrize(
    ("splitter", "words", "marks"),
    [
        ("pretokenizer", ["the", "food", ",", "great", "!", "!"], [-1, 0, 1, 2, 3, 4, 5, -1]),
        ("whitespace", ["the", "food,", "great!!"], [-1, 0, 1, -1, 2, -1, -1, -1]),
    ],
)
def test_raw_text_is_cut_into_words(tokenizer: Any, splitter: str, words: list[str], marks: list[int]) -> None:
    text = "  the food, \n great!!"
    (rows,) = encode(tokenizer, "text", {"text": [text]}, splitter=splitter, with_words=True)
    assert [text[start:end] for start, end in rows.words] == words
    assert rows.rows[0].words == marks


@pytest.mark.parametrize("splitter", ["pretokenizer", "whitespace"])
def test_a_byte_level_tokenizers_offsets_hold_no_space(byte_level: Any, splitter: str) -> None:
    text = " hi  anna\n é "
    (rows,) = encode(byte_level, "text", {"text": [text]}, splitter=splitter, with_words=True)
    assert [text[start:end] for start, end in rows.words] == ["hi", "anna", "é"]
    marked = [w for w in rows.rows[0].words if w >= 0]
    assert marked == [0, 1, 2]
    assert rows.words_without_tokens == 0
    if splitter == "whitespace":
        at = rows.rows[0].words.index(0)
        assert byte_level.convert_ids_to_tokens(rows.rows[0].input_ids)[at] == "h"


def test_windows_of_raw_text_number_words_over_the_whole_text(tokenizer: Any) -> None:
    text = " ".join(TEN)
    for splitter in ("pretokenizer", "whitespace"):
        (rows,) = encode(tokenizer, "text", {"text": [text]}, 8, stride=2, splitter=splitter, with_words=True)
        assert [row.words for row in rows.rows] == [[-1, 0, 1, 2, 3, 4, -1, -1], [-1, -1, 5, 6, 7, 8, 9, -1]]
        assert [text[start:end] for start, end in rows.words] == TEN


@pytest.mark.parametrize("reads", ["text", "tokens"])
def test_words_of_a_pair_are_those_of_its_first_text(tokenizer: Any, reads: str) -> None:
    first: Any = "anna is here" if reads == "text" else ["anna", "is", "here"]
    for splitter in ("pretokenizer", "whitespace"):
        batch = {reads: [first], "pair": ["bob was in london"]}
        (rows,) = encode(tokenizer, reads, batch, splitter=splitter, with_words=True)
        assert pieces(tokenizer, rows) == ["[CLS] anna is h ##e ##r ##e [SEP] bob was in london [SEP]"]
        assert rows.rows[0].words == [-1, 0, 1, 2, -1, -1, -1, -1, -1, -1, -1, -1, -1]
        assert rows.rows[0].token_type_ids == [0] * 8 + [1] * 5
        assert len(rows.words) == 3


def test_a_pair_is_one_row_cut_from_its_longer_text(tokenizer: Any) -> None:
    (rows,) = encode(tokenizer, "text", {"text": ["anna is"], "pair": [" ".join(TEN)]}, 9)
    assert pieces(tokenizer, rows) == [f"[CLS] anna is [SEP] {' '.join(TEN[:4])} [SEP]"]
    assert rows.truncated


QUESTION, CONTEXT = "who is it", "anna and bob in london"


def answer_rows(tokenizer: Any, answers: dict[str, Any], length: int = 64) -> tuple[list[str], list[list[int]]]:
    task = {"name": "qa", "head": "question_answering"}
    data = {"train": [{"question": QUESTION, "context": CONTEXT, "answers": answers}] * 2, "validation": []}
    data["validation"] = data["train"]
    split = encoded(tokenizer, [task], data, "validation", length)
    rows = split.rows[split.rows_of([0])]
    return [" ".join(tokenizer.convert_ids_to_tokens(ids)) for ids in rows["input_ids"]], rows["@qa"]


def test_an_answers_first_and_last_token(tokenizer: Any) -> None:
    shown, found = answer_rows(tokenizer, {"text": ["bob in"], "answer_start": [9]})
    assert shown == ["[CLS] who is it [SEP] anna and bob in london [SEP]"]
    assert found == [[7, 8]]
    # White space at its borders is in no token; a part of a word is answered by the whole word.
    assert answer_rows(tokenizer, {"text": [" bob "], "answer_start": [8]})[1] == [[7, 7]]
    assert answer_rows(tokenizer, {"text": ["ondo"], "answer_start": [17]})[1] == [[9, 9]]
    assert answer_rows(tokenizer, {"text": [], "answer_start": []})[1] == [[0, 0]]
    # The first answer is learned.
    assert answer_rows(tokenizer, {"text": ["anna", "bob"], "answer_start": [0, 9]})[1] == [[5, 5]]


def test_an_answer_that_is_not_wholly_in_a_window_is_none(tokenizer: Any) -> None:
    shown, found = answer_rows(tokenizer, {"text": ["bob in"], "answer_start": [9]}, 9)
    assert shown == [
        "[CLS] who is it [SEP] anna and bob [SEP]",
        "[CLS] who is it [SEP] bob in london [SEP]",
    ]
    assert found == [[0, 0], [5, 6]]


@pytest.mark.parametrize("length", [9, 10, 11, 12, 21])
def test_a_question_too_long_leaves_half_the_row_to_the_context(tokenizer: Any, length: int) -> None:
    batch = {"question": [" ".join(TEN * 3)], "context": [" ".join(TEN * 4)]}
    (text,) = encode(tokenizer, "question", batch, length, stride=64)
    assert text.truncated
    inside = [[start for start in row.starts if start >= 0] for row in text.rows]
    assert min(len(starts) for starts in inside[:-1]) >= (length - 3) // 2
    # All of the context is in some window, and each window goes on by at least a quarter of a row.
    assert len({start for starts in inside for start in starts}) == 40
    steps = [after[0] - before[0] for before, after in itertools.pairwise(inside)]
    assert min(steps) > 0
    assert all(len(row.input_ids) <= length for row in text.rows)


def test_choices_are_rows_of_context_and_ending(tokenizer: Any) -> None:
    batch = {
        "context": ["anna is", "bob"],
        "question": ["who", ""],
        "choices": [["a box", "fine", "late"], ["great", "bad"]],
    }
    three, two = encode(tokenizer, "choices", batch)
    assert pieces(tokenizer, three) == [f"[CLS] anna is [SEP] who {c} [SEP]" for c in ("a box", "fine", "late")]
    assert pieces(tokenizer, two) == ["[CLS] bob [SEP] great [SEP]", "[CLS] bob [SEP] bad [SEP]"]
    assert not three.truncated


def test_targets_and_references_of_tasks_that_share_a_text(tokenizer: Any) -> None:
    tasks = [
        {"name": "ner", "head": "token_classification", "data": {"columns": {"tokens": "w", "labels": "t"}}},
        {"name": "mood", "head": "sequence_classification", "data": {"columns": {"tokens": "w", "label": "m"}}},
    ]
    # What decides that they share a corpus is the place, and that is one object.
    rows: list[dict[str, Any]] = [
        {"w": ["anna", "xyz"], "t": ["B-PER", "I-PER"], "m": "good"},
        {"w": TEN, "t": ["O"] * 9 + ["B-LOC"], "m": None},
        {"w": TEN, "t": None, "m": "bad"},
    ]
    split = encoded(tokenizer, tasks, {"train": rows, "validation": rows}, "validation", 8)
    assert split.offsets.tolist() == [0, 1, 3, 5]
    assert (split.truncated, split.lengths.tolist(), split.word_counts.tolist()) == (2, [6, 8, 8], [2, 10, 10])  # type: ignore[union-attr]
    # Labels by code point: LOC, PER → O, B-LOC, I-LOC, B-PER, I-PER.
    skip = IGNORE
    assert split.rows[:3]["@ner"] == [
        [skip, 3, 4, skip, skip, skip],
        [skip, 0, 0, 0, 0, 0, skip, skip],
        [skip, skip, 0, 0, 0, 0, 1, skip],
    ]
    assert split.rows[:]["@ner"][3:] == [None, None]
    assert split.rows[:]["@mood"] == [1, None, None, 0, None]
    assert split.gold == {"ner": [rows[0]["t"], rows[1]["t"], None], "mood": ["good", None, "bad"]}


def test_labels_unknown_to_train_are_scored_but_not_learned(tokenizer: Any) -> None:
    columns = {"text": "x", "labels": "l"}
    task = {"name": "m", "head": "multi_label_classification", "labels": ["a", "b"], "data": {"columns": columns}}
    rows = [{"x": "anna", "l": ["b"]}, {"x": "bob", "l": []}]
    data = {"train": rows, "validation": rows, "test": [*rows, {"x": "is", "l": ["c", "a"]}]}
    split = encoded(tokenizer, [task], data, "test")
    assert split.rows[:]["@m"] == [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    assert split.gold["m"] == [["b"], [], ["c", "a"]]
    label = {"name": "s", "head": "sequence_classification", "labels": ["a", "b"]}
    of = {split: [{"text": f"anna {i}", "label": x} for i, x in enumerate(xs)]
          for split, xs in (("train", "ab"), ("validation", "ab"), ("test", "cb"))}  # fmt: skip
    test = encoded(tokenizer, [label], of, "test")
    assert (test.rows[:]["@s"], test.gold["s"]) == ([None, 1], ["c", "b"])
    assert encoded(tokenizer, [label], of, "train").gold == {}


def test_spans_become_tags_of_words_and_bad_ones_are_counted(tokenizer: Any) -> None:
    def span(start: int, end: int, label: str = "PER") -> dict[str, Any]:
        return {"start": start, "end": end, "label": label}

    text = "anna and bob in london"
    spans = [[span(0, 4), span(16, 22, "LOC")], [span(9, 11)], [span(0, 12), span(9, 12, "LOC")], [], [span(4, 5)]]
    rows = [{"text": text, "spans": one} for one in spans]
    split = encoded(
        tokenizer, [{"name": "ner", "head": "token_classification"}], {"train": rows, "validation": rows}, "validation"
    )
    assert split.gold["ner"] == [
        ["B-PER", "O", "O", "O", "B-LOC"],
        ["O", "O", "B-PER", "O", "O"],
        ["B-PER", "I-PER", "I-PER", "O", "O"],
        ["O"] * 5,
        ["O"] * 5,
    ]
    assert (split.misaligned_spans, split.dropped_spans) == (1, 2)
    assert split.rows[:]["@ner"][0] == [IGNORE, 3, 0, 0, 0, 1, IGNORE]


def test_texts_are_the_same_rows_in_batches_and_alone(tokenizer: Any, tmp_path: Path) -> None:
    texts = [" ".join(TEN[: 1 + i % 10]) for i in range(7)]
    together = encode(tokenizer, "text", {"text": texts}, 8, stride=2, with_words=True)
    alone = [encode(tokenizer, "text", {"text": [text]}, 8, stride=2, with_words=True)[0] for text in texts]
    assert together == alone


def test_columns_read_past_datasets_formatting_are_the_same() -> None:
    values = {"input_ids": [[1, 7], [2], [3, 8, 9], []], "@t": [0, None, 2, 1], "@u": [[0.5, None], None, [], [1.0]]}
    for rows in (Dataset.from_dict(values), Dataset.from_dict(values).select([3, 1, 0, 2])):
        split = EncodedSplit(rows, np.arange(5), np.ones(4))
        for wanted in ([2], [3, 0, 0], [0, 1, 2, 3], []):
            assert split.columns(wanted) == rows[wanted]
