"""Scores → annotations, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mtl_nlp.decoding import Decoder, TextInput, by_length
from mtl_nlp.task import Task

NER = Task(name="ner", head="token_classification", labels=["PER"])


def text(*rows: list[int], words: int) -> TextInput:
    return TextInput([{"words": list(row), "input_ids": list(row)} for row in rows], words)


def scores(*rows: list[tuple[float, float, float]]) -> np.ndarray:
    return np.asarray(rows, dtype=np.float32)


def test_an_inside_tag_cannot_follow_outside() -> None:
    # Tags O, B-PER, I-PER. Taken one by one the argmax is O, I-PER; the best valid sequence is B-PER, I-PER (.3 · .7)
    # against O, O (.6 · .2), O, B-PER (.6 · .1) and B-PER, O (.3 · .2).
    table = scores([(0, 0, 0), (0.6, 0.3, 0.1), (0.2, 0.1, 0.7), (0, 0, 0)])
    found = Decoder(NER).decode(table, [text([-1, 0, 1, -1], words=2)])[0]
    assert found.value == ["B-PER", "I-PER"]
    assert found.scores == pytest.approx([0.3, 0.7])


def test_a_word_without_token_is_outside() -> None:
    table = scores([(0, 0, 0), (0.1, 0.8, 0.1), (0.1, 0.8, 0.1)])
    found = Decoder(NER).decode(table, [text([-1, 0, 2], words=3)])[0]
    assert found.value == ["B-PER", "O", "B-PER"]


def test_each_word_is_read_in_its_own_window() -> None:
    table = scores([(0.9, 0.05, 0.05), (0, 0, 0)], [(0, 0, 0), (0.05, 0.9, 0.05)])
    found = Decoder(NER).decode(table, [text([0, -1], [-1, 1], words=2)])[0]
    assert found.value == ["O", "B-PER"]


def test_a_sentence_label_is_read_from_the_first_window() -> None:
    task = Task(name="s", head="sequence_classification", labels=["no", "yes"])
    table = np.asarray([[0.9, 0.1], [0.0, 1.0], [0.2, 0.8]], dtype=np.float32)
    found = Decoder(task).decode(table, [text([0], [0], words=0), text([0], words=0)])
    assert [one.value for one in found] == ["no", "yes"]


def test_multi_label_takes_what_is_above_a_half() -> None:
    task = Task(name="m", head="multi_label_classification", labels=["a", "b", "c"])
    found = Decoder(task).decode(np.asarray([[0.51, 0.5, 0.9]], dtype=np.float32), [text([0], words=0)])
    assert found[0].value == ["a", "c"]


def question(starts: list[int], ends: list[int]) -> TextInput:
    return TextInput([{"starts": starts, "ends": ends, "input_ids": starts}], 0, "anna lives in paris")


def test_an_answer_is_the_likeliest_span_and_never_runs_backwards() -> None:
    task = Task(name="q", head="question_answering")
    starts, ends = [-1, 0, 5, 11, 14], [-1, 4, 10, 13, 19]
    # The likeliest last token, "lives", comes before the likeliest first one: .6 · .6 is no span; "paris" has .6 · .2.
    probabilities = [[[0.1, 0.05], [0.1, 0.05], [0.1, 0.6], [0.1, 0.1], [0.6, 0.2]]]
    table = np.log(np.asarray(probabilities, dtype=np.float32))
    found = Decoder(task).decode(table, [question(starts, ends)])[0]
    assert (found.value, found.span) == ("paris", (14, 19))
    assert found.score == pytest.approx(0.12)
    nothing = np.log(np.asarray([[[0.6, 0.6], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1], [0.1, 0.1]]], dtype=np.float32))
    assert Decoder(task).decode(nothing, [question(starts, ends)])[0].value == ""


def test_a_choice_is_among_the_texts_own() -> None:
    task = Task(name="c", head="multiple_choice")
    table = np.asarray([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]], dtype=np.float32)
    found = Decoder(task).decode(table, [text([0], [0], [0], words=0), text([0], [0], words=0)])
    assert [one.value for one in found] == ["1", "0"]
    assert len(found[1].scores) == 2


def test_batches_run_from_long_to_short() -> None:
    assert list(by_length(np.asarray([3, 9, 5, 9]), 2)) == [[1, 3], [2, 0]]
