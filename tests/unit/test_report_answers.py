"""What a report says of predictions, against values worked out by hand."""

from __future__ import annotations

import pytest

from mtl_nlp.report.answers import answers_of, decisions, match_spans, reliability, span_errors, worst
from mtl_nlp.report.facts import ERROR_TYPES


def line(gold: object, predicted: object, **more: object) -> dict[str, object]:
    return {"row": 0, "text": "a b", "gold": gold, "predicted": predicted, **more}


def test_confusions_are_counted_and_unknown_labels_follow() -> None:
    lines = [line("a", "a"), line("a", "b"), line("a", "b"), line("b", "a"), line("z", "a"), line("b", None)]
    found = answers_of(lines, "label", ["a", "b"], "validation")
    assert found.confusion is not None
    assert found.confusion.labels == ["a", "b", "z", "(no answer)"]
    assert found.confusion.counts == {(0, 0): 1, (0, 1): 2, (1, 0): 1, (2, 0): 1, (1, 3): 1}
    assert found.confusion.worst(2) == [("a", "b", 2), ("b", "a", 1)]
    assert [found.confusion.row_total(i) for i in range(4)] == [3, 2, 1, 0]
    assert (found.texts, found.wrong) == (6, 5)


@pytest.mark.parametrize(
    ("gold", "predicted", "error"),
    [
        ((0, 2, "PER"), (0, 2, "PER"), "correct"),
        ((0, 2, "PER"), (0, 2, "ORG"), "type"),
        ((0, 2, "PER"), (0, 1, "PER"), "boundary"),
        ((0, 2, "PER"), (1, 4, "ORG"), "both"),
    ],
)
def test_an_overlap_is_told_by_its_words_and_type(gold: tuple, predicted: tuple, error: str) -> None:
    assert match_spans([gold], [predicted]) == ([(gold, predicted, error)], [], [])


def test_what_does_not_overlap_is_missed_and_spurious() -> None:
    assert match_spans([(0, 1, "A")], [(1, 2, "A")]) == ([], [(0, 1, "A")], [(1, 2, "A")])


def test_a_span_is_used_once_and_the_best_match_first() -> None:
    # One long prediction over two references: the same type is a boundary error, the other reference is missed.
    matched, missed, spurious = match_spans([(0, 1, "A"), (1, 3, "B")], [(0, 3, "A")])
    assert matched == [((0, 1, "A"), (0, 3, "A"), "boundary")]
    assert (missed, spurious) == ([(1, 3, "B")], [])
    # An exact match is not given up for an overlap that comes earlier.
    matched, missed, spurious = match_spans([(0, 2, "A"), (1, 2, "A")], [(1, 2, "A")])
    assert matched == [((1, 2, "A"), (1, 2, "A"), "correct")]
    assert missed == [(0, 2, "A")]


def test_error_types_of_two_texts_by_hand() -> None:
    found = span_errors(
        [
            ([(0, 2, "PER"), (3, 4, "LOC"), (5, 6, "LOC")], [(0, 2, "PER"), (3, 4, "ORG")]),
            ([(0, 3, "ORG")], [(0, 1, "ORG"), (4, 5, "PER")]),
        ]
    )
    none = dict.fromkeys(ERROR_TYPES, 0)
    assert found.by_type == {
        "LOC": none | {"type": 1, "missed": 1},
        "ORG": none | {"boundary": 1},
        "PER": none | {"correct": 1, "spurious": 1},
    }
    assert found.total == none | {"correct": 1, "type": 1, "missed": 1, "boundary": 1, "spurious": 1}


def test_calibration_error_and_bins_by_hand() -> None:
    # Two bins: (0, 0.5] holds 0.3 wrong and 0.5 right; (0.5, 1] holds 0.8 right and 1.0 wrong.
    found = reliability([0.3, 0.5, 0.8, 1.0], [0, 1, 1, 0], "texts", bins=2)
    assert [(b.count, b.confidence, b.right) for b in found.bins] == [
        (2, pytest.approx(0.4), 0.5),
        (2, pytest.approx(0.9), 0.5),
    ]
    assert found.ece == pytest.approx(0.5 * 0.1 + 0.5 * 0.4)


def test_decisions_are_those_that_calibrate_counts() -> None:
    label = [
        line("a", None, score=0.6, scores={"a": 0.6, "b": 0.4}),
        line("b", "a", score=0.7, scores={"a": 0.7, "b": 0.3}),
    ]
    assert decisions(label, "label") == ([0.6, 0.7], [1.0, 0.0], "texts")
    several = [line(["a"], ["b"], scores={"a": 0.2, "b": 0.9})]
    assert decisions(several, "labels") == ([0.2, 0.9], [1.0, 0.0], "labels of texts")
    tags = [line(["O", "B-A"], ["O", "O"], scores=[0.9, 0.8])]
    assert decisions(tags, "tags") == ([0.9, 0.8], [1.0, 0.0], "words")


def test_labels_of_texts_by_hand() -> None:
    lines = [line(["a", "b"], ["a"], scores={"a": 0.9, "b": 0.4}), line(["b"], ["a", "b"], scores={"a": 0.6, "b": 0.7})]
    found = answers_of(lines, "labels", ["a", "b", "c"], "test")
    shown = {one.label: (one.precision, one.recall, one.f1, one.support) for one in found.labels}
    assert shown == {
        "a": (0.5, 1.0, pytest.approx(2 / 3), 1),
        "b": (1.0, 0.5, pytest.approx(2 / 3), 2),
        "c": (0.0, 0.0, 0.0, 0),
    }
    # The surest wrong decision: b left out of the first with 1 − 0.4, a added to the second with 0.6.
    assert [one.confidence for one in found.worst] == [pytest.approx(0.6), pytest.approx(0.6)]


def test_numbers_by_hand() -> None:
    found = answers_of([line(1.0, 2.0), line(3.0, 0.0), line(2.0, 2.0)], "value", [], "test")
    assert found.numbers is not None
    assert found.numbers.mae == pytest.approx(4 / 3)
    assert found.numbers.rmse == pytest.approx((10 / 3) ** 0.5)
    assert [one.error for one in found.worst] == [-3.0, 1.0, 0.0]
    assert found.wrong is None


def test_a_mistake_on_given_words_shows_them() -> None:
    lines = [
        {"row": 3, "words": ["play", "it"], "gold": "a", "predicted": "b", "score": 0.9, "scores": {"a": 0.1, "b": 0.9}}
    ]
    assert [one.inputs for one in worst(lines, "label")] == [[("words", "play it")]]


def test_the_surest_mistakes_come_first() -> None:
    lines = [line("a", "b", score=0.6), line("a", "a", score=0.99), line("a", "b", score=0.9), line("a", None)]
    assert [one.confidence for one in worst(lines, "label")] == [0.9, 0.6, None]


def test_an_entity_is_as_sure_as_its_least_sure_word() -> None:
    tags = {"words": ["x", "y", "z"], "scores": [0.9, 0.7, 0.95]}
    (found,) = worst([line(["O", "O", "B-A"], ["B-A", "I-A", "B-A"], **tags)], "tags")
    assert found.confidence == pytest.approx(0.7)
    assert [(m.first, m.stop, m.label) for m in found.predicted_marks] == [(0, 2, "A"), (2, 3, "A")]
    assert [(m.first, m.stop, m.label) for m in found.gold_marks] == [(2, 3, "A")]


def test_an_answer_is_right_if_one_reference_is_hit() -> None:
    lines = [line(["The Thames", "Thames"], "thames", score=0.5), line([], "", score=0.4), line([], "x", score=0.3)]
    assert answers_of(lines, "answer", [], "test").wrong == 1


def test_tags_that_mark_no_spans_are_confused_word_by_word() -> None:
    found = answers_of([line(["NOUN", "VERB"], ["NOUN", "NOUN"])], "tags", ["NOUN", "VERB"], "test", "none")
    assert found.spans is None
    assert found.confusion is not None
    assert found.confusion.counts == {(0, 0): 1, (1, 0): 1}
