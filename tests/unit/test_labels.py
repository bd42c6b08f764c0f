"""Labels: tag schemes, spans, bracketed annotation, constrained decoding and label sets."""

from __future__ import annotations

import copy
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtl_nlp.labels import (
    LabelSet,
    Span,
    SpanProblem,
    TagError,
    chunks,
    entities,
    from_iob2,
    parse_bracketed,
    spans_to_tags,
    tag_names,
    tags_to_spans,
    text_words,
    to_iob2,
    transition_mask,
    types_in,
    types_in_order,
    viterbi,
    whitespace_words,
)

TYPES = ("PER", "LOC", "a-b")
BIOES = ["O", "B-x", "I-x", "B-y", "I-y", "E-x", "E-y", "S-x", "L-y", "U-y"]


@st.composite
def valid_iob2(draw: st.DrawFn) -> list[str]:
    """A valid IOB2 sequence of up to some thirty tags."""
    tags: list[str] = []
    for length, label in draw(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(TYPES)), max_size=10)):
        tags += ["O"] if length == 0 else [f"B-{label}"] + [f"I-{label}"] * (length - 1)
    return tags


# --- schemes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "given_tags", "iob2", "invalid"),
    [
        ("iob2", "B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", 0),
        ("iob2", "I-PER I-PER O I-LOC", "B-PER I-PER O B-LOC", 2),
        ("iob2", "B-PER I-LOC I-LOC I-PER", "B-PER B-LOC I-LOC B-PER", 2),
        ("iob2", "B-PER B-PER I-PER", "B-PER B-PER I-PER", 0),
        ("iob2", "", "", 0),
        ("iob1", "I-PER I-PER O I-LOC B-LOC I-LOC", "B-PER I-PER O B-LOC B-LOC I-LOC", 0),
        ("iob1", "I-PER I-LOC", "B-PER B-LOC", 0),
        ("iob1", "B-PER I-PER O B-LOC", "B-PER I-PER O B-LOC", 2),
        ("iob1", "I-PER B-LOC I-LOC", "B-PER B-LOC I-LOC", 1),
        ("bioes", "B-PER I-PER E-PER O S-LOC", "B-PER I-PER I-PER O B-LOC", 0),
        ("bioes", "B-PER I-PER L-PER O U-LOC", "B-PER I-PER I-PER O B-LOC", 0),
        ("bioes", "S-PER S-PER B-PER E-PER", "B-PER B-PER B-PER I-PER", 0),
        ("bioes", "I-PER E-PER", "B-PER I-PER", 1),
        ("bioes", "E-PER E-PER", "B-PER B-PER", 2),
        ("bioes", "S-PER I-PER E-PER", "B-PER B-PER I-PER", 1),
        ("bioes", "B-PER O", "B-PER O", 1),
        ("bioes", "B-PER I-PER", "B-PER I-PER", 1),
        ("bioes", "B-PER B-PER E-PER", "B-PER B-PER I-PER", 1),
        ("bioes", "B-PER E-LOC", "B-PER B-LOC", 1),
        ("bioes", "B-PER S-LOC", "B-PER B-LOC", 1),
        ("none", "NOUN VERB O I-x", "NOUN VERB O I-x", 0),
    ],
)
def test_to_iob2_by_hand(scheme: str, given_tags: str, iob2: str, invalid: int) -> None:
    assert to_iob2(given_tags.split(), scheme) == (iob2.split(), invalid)


@pytest.mark.parametrize(
    "tag",
    ["PER", "BPER", "", "B-", "-PER", "b-PER", "i-PER", "o", "B_PER", "O-PER", "B-PER ", "B- PER", "BI-PER"],
)
@pytest.mark.parametrize("scheme", ["iob1", "iob2", "bioes"])
def test_malformed_tag_is_named_with_its_position(tag: str, scheme: str) -> None:
    with pytest.raises(ValueError, match="tag 2: found") as caught:
        to_iob2(["O", tag], scheme)
    assert isinstance(caught.value, TagError)
    assert (caught.value.tag, caught.value.position, caught.value.scheme) == (tag, 1, scheme)
    assert repr(tag) in str(caught.value)


def test_tag_of_another_scheme_names_that_scheme() -> None:
    with pytest.raises(TagError) as caught:
        to_iob2(["B-PER", "E-PER"], "iob2")
    assert str(caught.value) == "tag 2: found 'E-PER' → allowed by iob2: O, B-TYPE, I-TYPE (or scheme: bioes)"
    again = copy.copy(caught.value)
    assert (str(again), again.position) == (str(caught.value), 1)


def test_tag_that_is_no_text_is_refused() -> None:
    with pytest.raises(TagError, match="found 3"):
        to_iob2([3], "iob2")  # type: ignore[list-item]


def test_unknown_scheme_lists_the_known_ones() -> None:
    for call in (
        lambda: to_iob2([], "bio"),
        lambda: from_iob2([], "bio"),
        lambda: tag_names([], "bio"),
        lambda: types_in([], "bio"),
        lambda: transition_mask([], "bio"),
    ):
        with pytest.raises(ValueError, match="scheme: found 'bio' → allowed: iob2, iob1, bioes, none"):
            call()


@given(valid_iob2())
def test_to_iob2_leaves_valid_iob2_alone(tags: list[str]) -> None:
    assert to_iob2(tags, "iob2") == (tags, 0)


@given(st.lists(st.sampled_from(BIOES), max_size=12))
def test_repaired_sequence_is_valid_and_stays(tags: list[str]) -> None:
    repaired, _ = to_iob2(tags, "bioes")
    assert to_iob2(repaired, "iob2") == (repaired, 0)
    assert [tag[2:] for tag in repaired] == [tag[2:] for tag in tags]


@given(valid_iob2(), st.sampled_from(["iob1", "iob2", "bioes", "none"]))
def test_iob1_and_bioes_round_trip_without_an_invalid_transition(tags: list[str], scheme: str) -> None:
    assert to_iob2(from_iob2(tags, scheme), scheme) == (tags, 0)


def test_from_iob2_by_hand() -> None:
    tags = ["B-x", "I-x", "B-x", "B-y", "O", "B-y", "I-y", "I-y"]
    assert from_iob2(tags, "iob1") == ["I-x", "I-x", "B-x", "I-y", "O", "I-y", "I-y", "I-y"]
    assert from_iob2(tags, "bioes") == ["B-x", "E-x", "S-x", "S-y", "O", "B-y", "I-y", "E-y"]
    assert from_iob2(["O", "I-x"], "iob2") == ["O", "B-x"]
    assert from_iob2(["I-x", "O"], "none") == ["I-x", "O"]


def test_chunks_by_hand() -> None:
    assert chunks(["I-x", "I-x", "O", "B-x", "B-x"]) == [(0, 2, "x"), (3, 4, "x"), (4, 5, "x")]
    assert chunks(["S-x", "B-y", "E-y"], "bioes") == [(0, 1, "x"), (1, 3, "y")]
    assert chunks(["N", "N", "O", "N", "V"], "none") == [(0, 2, "N"), (3, 4, "N"), (4, 5, "V")]


def test_tag_names_keep_the_order_of_the_types() -> None:
    assert tag_names(["PER", "LOC"], "iob2") == ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    assert tag_names(["PER"], "iob1") == tag_names(["PER"], "bioes") == ["O", "B-PER", "I-PER"]
    assert tag_names([], "iob2") == ["O"]
    assert tag_names(["VERB", "NOUN", "O"], "none") == ["VERB", "NOUN", "O"]


def test_tag_names_refuses_types_that_make_no_tags() -> None:
    with pytest.raises(ValueError, match="'PER' twice"):
        tag_names(["PER", "LOC", "PER"], "iob2")
    for bad in ("O", "", " PER"):
        with pytest.raises(ValueError, match="write entity types, without O"):
            tag_names([bad], "iob2")


def test_types_in_are_by_code_point_or_in_order() -> None:
    tags = ["O", "B-per", "I-per", "S-LOC", "B-Ärzte", "U-a-b", "E-LOC"]
    assert types_in(tags) == ["LOC", "a-b", "per", "Ärzte"]
    assert types_in_order(tags) == ["per", "LOC", "Ärzte", "a-b"]
    assert types_in(["VERB", "O", "NOUN", "VERB"], "none") == ["NOUN", "O", "VERB"]
    assert types_in([]) == []
    with pytest.raises(TagError, match="tag 2: found 'NOUN'"):
        types_in(["O", "NOUN"])


# --- spans -------------------------------------------------------------------------------------------------

TEXT = "wake me up at five am this week"
WORDS = [(0, 4), (5, 7), (8, 10), (11, 13), (14, 18), (19, 21), (22, 26), (27, 31)]


def test_whitespace_words_by_hand() -> None:
    assert whitespace_words(TEXT) == WORDS
    assert whitespace_words("  a\tbc \n") == [(2, 3), (4, 6)]
    assert whitespace_words("a\u00a0b\u3000c") == [(0, 1), (2, 3), (4, 5)]
    assert whitespace_words(" ") == whitespace_words("") == []


@given(st.text(max_size=30))
def test_whitespace_words_are_those_of_split(text: str) -> None:
    assert [text[start:end] for start, end in whitespace_words(text)] == text.split()


def test_aligned_spans_become_tags_without_a_problem() -> None:
    tags, problems = spans_to_tags([Span(22, 31, "date"), Span(14, 21, "time")], WORDS)
    assert tags == ["O", "O", "O", "O", "B-time", "I-time", "B-date", "I-date"]
    assert problems == []


def test_adjacent_spans_of_one_label_stay_two() -> None:
    tags, _ = spans_to_tags([Span(0, 4, "x"), Span(5, 7, "x")], WORDS)
    assert tags[:3] == ["B-x", "B-x", "O"]


def test_surrounding_white_space_is_no_part_of_a_span() -> None:
    spans = [Span(13, 22, "time"), Span(26, 33, "date")]
    assert spans_to_tags(spans, WORDS, TEXT + "  ") == (
        ["O", "O", "O", "O", "B-time", "I-time", "O", "B-date"],
        [],
    )
    assert spans_to_tags(spans[:1], WORDS) == (["O", "O", "O", "O", "B-time", "I-time", "O", "O"], [])


def test_white_space_at_the_borders_of_a_word_is_no_part_of_it() -> None:
    words = [(0, 4), (4, 7), (7, 10)]  # as a byte-level splitter gives them
    assert spans_to_tags([Span(5, 7, "who")], words, "wake me up") == (["O", "B-who", "O"], [])


def test_misaligned_span_takes_every_word_it_overlaps() -> None:
    span = Span(16, 20, "time")
    assert spans_to_tags([span], WORDS) == (
        ["O", "O", "O", "O", "B-time", "I-time", "O", "O"],
        [SpanProblem("misaligned", span, "taken as the whole words 14:21")],
    )
    assert not SpanProblem("misaligned", span, "").dropped


def test_character_that_the_splitter_left_out_makes_a_span_misaligned() -> None:
    _, problems = spans_to_tags([Span(0, 4, "x")], [(1, 3)], "(ab)")
    assert [problem.kind for problem in problems] == ["misaligned"]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_of_overlapping_spans_the_longer_is_kept(order: list[int]) -> None:
    spans = [Span(0, 7, "short"), Span(5, 13, "long"), Span(14, 18, "free")]
    tags, problems = spans_to_tags([spans[place] for place in order], WORDS)
    assert tags == ["O", "B-long", "I-long", "I-long", "B-free", "O", "O", "O"]
    assert problems == [SpanProblem("overlap", spans[0], "dropped for long 5:13")]
    assert problems[0].dropped


def test_of_overlapping_spans_as_long_the_earlier_is_kept() -> None:
    by_place = [Span(5, 10, "late"), Span(3, 8, "cut"), Span(0, 7, "early")]
    tags, problems = spans_to_tags([Span(8, 13, "second"), Span(5, 10, "first")], WORDS)
    assert tags[:5] == ["O", "B-first", "I-first", "O", "O"]
    assert [problem.span.label for problem in problems] == ["second"]
    tags, problems = spans_to_tags([Span(5, 7, "given first"), Span(5, 7, "given second")], WORDS)
    assert tags[1] == "B-given first"
    assert [problem.span.label for problem in problems] == ["given second"]
    tags, problems = spans_to_tags(by_place, WORDS)
    assert tags[:4] == ["B-early", "I-early", "O", "O"]
    assert [(problem.kind, problem.span.label) for problem in problems] == [
        ("overlap", "late"),
        ("overlap", "cut"),
    ]


def test_spans_that_meet_in_one_word_overlap() -> None:
    tags, problems = spans_to_tags([Span(0, 2, "a"), Span(2, 9, "b")], [(0, 4), (5, 9)])
    assert tags == ["B-b", "I-b"]
    assert [(problem.kind, problem.span.label) for problem in problems] == [
        ("overlap", "a"),
        ("misaligned", "b"),
    ]


def test_no_span_is_lost_silently() -> None:
    spans = [
        Span(5, 5, "x"),
        Span(7, 5, "x"),
        Span(-1, 4, "x"),
        Span(27, 32, "x"),
        Span(99, 120, "x"),
        Span(4, 5, "x"),
        Span(0, 4, ""),
    ]
    kinds = ["empty", "reversed", "out_of_range", "out_of_range", "out_of_range", "no_word", "no_label"]
    for text in (None, TEXT):
        tags, problems = spans_to_tags(spans, WORDS, text)
        assert tags == ["O"] * 8
        assert [problem.kind for problem in problems] == kinds
        assert [problem.span for problem in problems] == spans
        assert all(problem.dropped for problem in problems)


def test_text_without_words_has_no_tags() -> None:
    assert spans_to_tags([], []) == ([], [])
    assert spans_to_tags([Span(0, 1, "x")], [], " ")[1][0].kind == "no_word"


def test_empty_word_belongs_to_a_span_only_inside_it() -> None:
    words = [(0, 1), (1, 1), (2, 3), (3, 3), (4, 4), (4, 5)]
    tags, problems = spans_to_tags([Span(0, 3, "x"), Span(4, 5, "y")], words)
    assert tags == ["B-x", "I-x", "I-x", "O", "O", "B-y"]
    assert problems == []


@pytest.mark.parametrize("words", [[(3, 5), (0, 2)], [(0, 3), (2, 4)], [(2, 1)], [(-1, 2)]])
def test_words_out_of_order_are_refused(words: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=r"word [12]: found"):
        spans_to_tags([], words)


def test_words_beyond_the_text_are_refused() -> None:
    with pytest.raises(ValueError, match="ends at 4 → the text has 3 characters"):
        spans_to_tags([], [(0, 4)], "abc")


@given(st.data())
def test_every_span_leaves_a_tag_or_a_problem(data: st.DataObject) -> None:
    text = data.draw(st.text(alphabet="ab ", max_size=12))
    borders = st.integers(-2, 14)
    spans = data.draw(st.lists(st.builds(Span, borders, borders, st.sampled_from("xy")), max_size=5))
    tags, problems = spans_to_tags(spans, whitespace_words(text), text)
    dropped = sum(problem.dropped for problem in problems)
    assert sum(tag.startswith("B-") for tag in tags) == len(spans) - dropped
    assert to_iob2(tags, "iob2") == (tags, 0)


@given(valid_iob2(), st.data())
def test_tags_to_spans_to_tags_round_trip(tags: list[str], data: st.DataObject) -> None:
    words, end = [], 0
    for _ in tags:
        start = end + data.draw(st.integers(0, 2))
        end = start + data.draw(st.integers(1, 4))
        words.append((start, end))
    spans = tags_to_spans(tags, words)
    assert spans_to_tags(spans, words) == (tags, [])
    assert tags_to_spans(spans_to_tags(spans, words)[0], words) == spans


def test_tags_to_spans_by_hand() -> None:
    tags = ["I-x", "I-x", "O", "B-y", "B-y", "I-z", "O", "O"]
    assert tags_to_spans(tags, WORDS) == [
        Span(0, 7, "x"),
        Span(11, 13, "y"),
        Span(14, 18, "y"),
        Span(19, 21, "z"),
    ]
    assert tags_to_spans([], []) == []


def test_scheme_none_joins_equal_tags_other_than_o() -> None:
    tags = ["V", "N", "N", "O", "N", "O", "O", "V"]
    assert tags_to_spans(tags, WORDS, scheme="none") == [
        Span(0, 4, "V"),
        Span(5, 10, "N"),
        Span(14, 18, "N"),
        Span(27, 31, "V"),
    ]


def test_span_score_is_the_mean_over_its_words_and_not_compared() -> None:
    (span,) = tags_to_spans(["B-x", "I-x", "O"], WORDS[:3], [0.5, 1.0, 0.1])
    assert span.score == 0.75
    assert span == Span(0, 7, "x")


def test_empty_words_do_not_move_the_borders_of_an_entity() -> None:
    words = [(0, 0), (1, 3), (4, 4)]
    assert tags_to_spans(["B-x", "I-x", "I-x"], words) == [Span(1, 3, "x")]
    assert tags_to_spans(["O", "O", "B-x"], words) == [Span(4, 4, "x")]


def test_sequences_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="1 tags, 2 words, no scores"):
        tags_to_spans(["O"], WORDS[:2])
    with pytest.raises(ValueError, match="2 tags, 2 words, 1 scores"):
        tags_to_spans(["O", "O"], WORDS[:2], [0.5])


def test_entities_by_hand() -> None:
    tags = ["O", "O", "O", "O", "B-time", "I-time", "B-date", "I-date"]
    scores = np.array([1, 1, 1, 1, 0.5, 0.75, 1, 0.5], dtype=np.float32)
    found = entities(TEXT, tags, WORDS, scores)
    assert found == [
        {"entity_group": "time", "score": 0.625, "word": "five am", "start": 14, "end": 21},
        {"entity_group": "date", "score": 0.75, "word": "this week", "start": 22, "end": 31},
    ]
    assert list(found[0]) == ["entity_group", "score", "word", "start", "end"]
    assert type(found[0]["score"]) is float


def test_entities_hold_no_surrounding_space() -> None:
    found = entities("wake me up", ["O", "N", "N"], [(0, 4), (4, 7), (7, 10)], [1, 0.5, 0.5], scheme="none")
    assert found == [{"entity_group": "N", "score": 0.5, "word": "me up", "start": 5, "end": 10}]


# --- bracketed annotation ----------------------------------------------------------------------------------


def test_bracketed_by_hand() -> None:
    assert parse_bracketed("wake me up at [time : five am] [date : this week]") == (
        TEXT,
        [Span(14, 21, "time"), Span(22, 31, "date")],
    )
    assert parse_bracketed("olly quiet") == ("olly quiet", [])
    assert parse_bracketed("") == ("", [])
    assert parse_bracketed("[a : b]c[d:e]") == ("bce", [Span(0, 1, "a"), Span(2, 3, "d")])
    assert parse_bracketed("at [time : 5:30] ") == ("at 5:30 ", [Span(3, 7, "time")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("at [time : five", r"'\[' at character 3: the bracket is never closed"),
        ("at five] am", r"'\]' at character 7: no bracket is open"),
        ("[a : b [c : d]]", r"'\[' at character 7: the bracket at character 0 is still open"),
        ("at [five]", r"'\[' at character 3: '\[five\]' → \[label : words\]"),
        ("[ : x]", r"'\[' at character 0"),
        ("x [time : ]", r"'\[' at character 2"),
    ],
)
def test_faulty_brackets_are_named_with_their_position(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_bracketed(text)


@given(st.lists(st.tuples(st.sampled_from(["", "time", "date"]), st.text("ab:", min_size=1, max_size=5))))
def test_bracketed_spans_cut_out_the_values(pieces: list[tuple[str, str]]) -> None:
    annotated = " ".join(f"[{label} : {value}]" if label else value for label, value in pieces)
    text, spans = parse_bracketed(annotated)
    assert text == " ".join(value for _, value in pieces)
    cut_out = [(span.label, text[span.start : span.end]) for span in spans]
    assert cut_out == [piece for piece in pieces if piece[0]]


# --- constrained decoding ----------------------------------------------------------------------------------

XY = ["O", "B-x", "I-x", "B-y", "I-y"]


def test_transition_mask_by_hand() -> None:
    start, allowed = transition_mask(XY, "iob2")
    assert start.tolist() == [True, True, False, True, False]
    assert allowed.astype(int).tolist() == [
        [1, 1, 0, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 1, 1],
        [1, 1, 0, 1, 1],
    ]
    assert (start.dtype, allowed.dtype) == (np.bool_, np.bool_)


def test_transition_mask_follows_names_not_places() -> None:
    start, allowed = transition_mask(["I-x", "O", "B-x"], "bioes")
    assert start.tolist() == [False, True, True]
    assert allowed.astype(int).tolist() == [[1, 1, 1], [0, 1, 1], [1, 1, 1]]


def test_transition_mask_of_none_forbids_nothing() -> None:
    start, allowed = transition_mask(["NOUN", "I-x"], "none")
    assert start.tolist() == [True, True]
    assert allowed.tolist() == [[True, True], [True, True]]


def test_type_without_b_tag_may_begin_with_i() -> None:
    start, allowed = transition_mask(["O", "I-x", "B-y", "I-y"], "iob1")
    assert start.tolist() == [True, True, True, False]
    assert allowed[:, 1].all()
    assert allowed[:, 3].tolist() == [False, False, True, True]


def test_transition_mask_refuses_tags_of_other_schemes() -> None:
    with pytest.raises(ValueError, match="head: found tag 'E-x'"):
        transition_mask(["O", "B-x", "E-x"], "bioes")


def test_viterbi_by_hand() -> None:
    # Row 0: the argmax O I-x is forbidden. B-x I-x (-1 - 0.25) beats O O (-0.5 - 1) and O B-x (-0.5 - 2).
    # Row 1: the argmax B-y I-y is allowed. Row 2 holds one word: I-x is best and forbidden, then B-x.
    low = -9.0
    scores = np.array(
        [
            [[-0.5, -1, low, low, low], [-1, -2, -0.25, low, low]],
            [[low, low, low, -1, low], [low, low, low, -3, -2]],
            [[-2, -1, 0, low, low], [np.nan, np.nan, np.inf, 0, 0]],
        ]
    )
    path = viterbi(scores, [2, 2, 1], *transition_mask(XY, "iob2"))
    assert path.tolist() == [[1, 2], [3, 4], [1, -1]]
    assert path.dtype == np.int64


def test_viterbi_looks_beyond_the_greedy_choice() -> None:
    # Greedy left to right keeps O at word 0 and loses I-x, I-x: 0 + -5 + -5 against -3 + 0 + 0.
    scores = np.array([[[0.0, -3.0, 5.0], [-5.0, -9.0, 0.0], [-5.0, -9.0, 0.0]]])
    assert viterbi(scores, [3], *transition_mask(["O", "B-x", "I-x"], "iob2")).tolist() == [[1, 2, 2]]


def test_viterbi_ties_go_to_the_lower_index() -> None:
    start, allowed = transition_mask(["O", "B-x", "I-x"], "iob2")
    assert viterbi(np.zeros((1, 3, 3)), [3], start, allowed).tolist() == [[0, 0, 0]]
    # O I-x is best and forbidden; O O, O B-x and B-x I-x all score 1.
    tied = np.array([[[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    assert viterbi(tied, [2], start, allowed).tolist() == [[0, 0]]


def test_viterbi_needs_no_normalised_scores() -> None:
    scores = np.array([[[3.0, 2.0, 4.0], [1.0, 0.0, 2.5]]])
    mask = transition_mask(["O", "B-x", "I-x"], "iob2")
    assert viterbi(scores, [2], *mask).tolist() == viterbi(scores - 50, [2], *mask).tolist() == [[1, 2]]


@pytest.mark.parametrize("impossible", [-np.inf, np.finfo(np.float32).min, np.finfo(np.float64).min])
def test_viterbi_prefers_the_impossible_to_the_forbidden(impossible: float) -> None:
    # Only I-x is possible at word 0, where it is forbidden: one impossible tag is taken, and the best way on.
    scores = np.array([[[impossible, impossible, 0.0], [-1.0, -7.0, -0.5], [-1.0, -7.0, -0.5]]])
    assert viterbi(scores, [3], *transition_mask(["O", "B-x", "I-x"], "iob2")).tolist() == [[1, 2, 2]]
    nothing = np.full((1, 2, 3), impossible)
    nothing[0, 0, 2] = nothing[0, 1, 2] = 0
    assert viterbi(nothing, [2], *transition_mask(["O", "B-x", "I-x"], "iob2")).tolist() == [[1, 2]]


def test_viterbi_of_nothing() -> None:
    mask = transition_mask(XY, "iob2")
    assert viterbi(np.zeros((0, 3, 5)), [], *mask).shape == (0, 3)
    assert viterbi(np.zeros((2, 0, 5)), [0, 0], *mask).shape == (2, 0)
    assert viterbi(np.zeros((1, 2, 5)), [0], *mask).tolist() == [[-1, -1]]


def test_viterbi_refuses_what_it_cannot_decode() -> None:
    start, allowed = transition_mask(["O", "B-x", "I-x"], "iob2")
    scores = np.zeros((1, 2, 3))
    with pytest.raises(ValueError, match=r"lengths: found 3 to 3 → 0 to 2"):
        viterbi(scores, [3], start, allowed)
    with pytest.raises(ValueError, match=r"lengths: found shape \(2,\)"):
        viterbi(scores, [1, 1], start, allowed)
    with pytest.raises(ValueError, match=r"allowed: found shape"):
        viterbi(scores, [1], start, allowed[:2])
    with pytest.raises(ValueError, match=r"log_probs: found shape \(2, 3\)"):
        viterbi(scores[0], [1], start, allowed)
    with pytest.raises(ValueError, match="row 0, word 1 holds NaN"):
        viterbi(np.array([[[0.0, 0, 0], [0, np.nan, 0]]]), [2], start, allowed)
    with pytest.raises(ValueError, match="no tag sequence"):
        viterbi(scores, [2], start, np.zeros((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="no tag sequence"):
        viterbi(scores, [1], np.zeros(3, dtype=bool), allowed)


def test_last_tag_needs_no_successor() -> None:
    dead_end = np.array([[False, True], [False, False]])
    start = np.array([True, True])
    assert viterbi(np.array([[[0.0, 1.0], [1.0, 0.0]]]), [2], start, dead_end).tolist() == [[0, 1]]


def _brute_force(scores: np.ndarray, start: np.ndarray, allowed: np.ndarray) -> list[int] | None:
    """The best allowed sequence of one row [W, K], the first in lexicographic order among equals."""
    width, count = scores.shape
    best, best_key = None, (math.inf, -math.inf)
    for path in itertools.product(range(count), repeat=width):
        pairs_allowed = all(allowed[i, j] for i, j in itertools.pairwise(path))
        if width and not (start[path[0]] and pairs_allowed):
            continue
        taken = [float(scores[word, tag]) for word, tag in enumerate(path)]
        key = (sum(value == -math.inf for value in taken), math.fsum(v for v in taken if v != -math.inf))
        if best is None or (key[0], -key[1]) < (best_key[0], -best_key[1]):
            best, best_key = list(path), key
    return best


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_viterbi_equals_brute_force_over_all_allowed_sequences(data: st.DataObject) -> None:
    rows, width = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    tags = data.draw(
        st.sampled_from([["O"], ["O", "B-x", "I-x"], ["I-x", "B-x", "O", "I-y"], ["I-y", "O", "B-y", "I-x"]])
    )
    start, allowed = transition_mask(tags, data.draw(st.sampled_from(["iob2", "none"])))
    values = st.one_of(st.integers(-4, 2).map(float), st.just(-math.inf))  # integers add without rounding
    cells = data.draw(st.lists(values, min_size=rows * width * len(tags), max_size=rows * width * len(tags)))
    scores = np.array(cells).reshape(rows, width, len(tags))
    lengths = data.draw(st.lists(st.integers(0, width), min_size=rows, max_size=rows))
    paths = viterbi(scores, lengths, start, allowed)
    for row, length in enumerate(lengths):
        assert paths[row, :length].tolist() == _brute_force(scores[row, :length], start, allowed)
        assert (paths[row, length:] == -1).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_viterbi_equals_brute_force_under_any_transitions(data: st.DataObject) -> None:
    width, count = data.draw(st.integers(1, 4)), 3
    flags = data.draw(st.lists(st.booleans(), min_size=12, max_size=12))
    start, allowed = np.array(flags[:3]), np.array(flags[3:]).reshape(3, 3)
    cells = st.integers(-3, 0).map(float)
    scores = np.array(data.draw(st.lists(cells, min_size=width * count, max_size=width * count)))
    scores = scores.reshape(1, width, count)
    expected = _brute_force(scores[0], start, allowed)
    if expected is None:
        with pytest.raises(ValueError, match="no tag sequence"):
            viterbi(scores, [width], start, allowed)
    else:
        assert viterbi(scores, [width], start, allowed).tolist() == [expected]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_viterbi_is_always_valid_and_no_row_depends_on_another(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tags = tag_names(["x", "y", "z"], "iob2")
    start, allowed = transition_mask(tags, "iob2")
    scores = rng.normal(size=(5, 9, len(tags))).astype(np.float32)
    lengths = rng.integers(0, 10, size=5)
    paths = viterbi(scores, lengths, start, allowed)
    for row, length in enumerate(lengths):
        sequence = [tags[place] for place in paths[row, :length]]
        assert to_iob2(sequence, "iob2") == (sequence, 0)
        alone = viterbi(scores[row : row + 1, :length], [length], start, allowed)
        assert alone[0].tolist() == paths[row, :length].tolist()


@settings(max_examples=30, deadline=None)
@given(valid_iob2(), st.integers(0, 2**32 - 1))
def test_viterbi_returns_an_argmax_that_is_allowed(tags: list[str], seed: int) -> None:
    names = tag_names(TYPES, "iob2")
    scores = np.random.default_rng(seed).normal(size=(1, len(tags), len(names)))
    for word, tag in enumerate(tags):
        scores[0, word, names.index(tag)] += 100
    path = viterbi(scores, [len(tags)], *transition_mask(names, "iob2"))
    assert path.tolist() == scores.argmax(axis=2).tolist()
    assert [names[place] for place in path[0]] == tags


# --- label sets --------------------------------------------------------------------------------------------


def test_label_set_by_hand() -> None:
    labels = LabelSet(("neg", "pos"))
    assert (len(labels), list(labels), labels.names) == (2, ["neg", "pos"], ("neg", "pos"))
    assert (labels.index("pos"), labels.name(0), labels.name(np.int64(1))) == (1, "neg", "pos")
    assert [name in labels for name in ("pos", "Pos", 1)] == [True, False, False]
    from_list = LabelSet(["neg", "pos"])  # type: ignore[arg-type]
    assert labels == from_list
    assert hash(labels) == hash(from_list)
    assert labels != LabelSet(("pos", "neg"))
    assert copy.deepcopy(labels).index("pos") == 1
    assert repr(labels) == "LabelSet(names=('neg', 'pos'))"


def test_order_is_as_given_else_class_label_else_code_point() -> None:
    values = ["b", "Z", "é", "a", "b"]
    assert LabelSet.from_values(["b", "a"], ["a", "b"], values).names == ("b", "a")
    assert LabelSet.from_values(None, ["z", "a"], values).names == ("z", "a")
    assert LabelSet.from_values(None, None, values).names == ("Z", "a", "b", "é")
    assert LabelSet.from_values(None, [], iter(values)).names == ("Z", "a", "b", "é")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([True, False], r'label 1 is True \(bool\), not a text → write it in quotes: "true"'),
        (["no", False], r'label 2 is False \(bool\), not a text → write it in quotes: "false"'),
        ([1, 2], r'label 1 is 1 \(int\), not a text → write it in quotes: "1"'),
        (["a", "b", "a"], r"'a' is label 1 and 3 → write it once"),
        (["a", ""], r"label 2 is an empty text"),
        ([], r"empty list → write at least one label"),
        ("PER", r"single text 'PER' → write a list: \[PER\]"),
    ],
)
def test_faulty_labels_are_refused_with_what_to_write(labels: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelSet.from_values(labels)
    with pytest.raises(ValueError, match=message):
        LabelSet(labels)  # type: ignore[arg-type]


def test_faulty_values_are_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r'text 2 is 1 \(int\) → make the column text: "1"'):
        LabelSet.from_values(values=["0", 1])  # type: ignore[list-item]
    for missing in (None, math.nan):
        with pytest.raises(ValueError, match=r"text 1 is missing .* → leave such texts out"):
            LabelSet.from_values(values=[missing])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="the training split holds no label"):
        LabelSet.from_values()


def test_unknown_label_names_the_nearest_or_the_allowed() -> None:
    labels = LabelSet(("positive", "negative"))
    with pytest.raises(ValueError, match=r"found 'positve' → did you mean 'positive'\?"):
        labels.index("positve")
    with pytest.raises(ValueError, match="found 'xyz' → allowed: positive, negative"):
        labels.index("xyz")
    with pytest.raises(ValueError, match=r"allowed: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …$"):
        LabelSet(tuple("0123456789abc")).index("?")


@pytest.mark.parametrize("place", [-1, -100, 2])
def test_ids_outside_the_set_are_refused(place: int) -> None:
    with pytest.raises(IndexError, match=f"found {place} → allowed: 0 to 1"):
        LabelSet(("a", "b")).name(place)


@given(st.lists(st.text(min_size=1, max_size=4), min_size=1, unique=True))
def test_index_and_name_are_inverse(names: list[str]) -> None:
    labels = LabelSet(tuple(names))
    assert [labels.name(labels.index(name)) for name in names] == names


def test_import_needs_no_heavy_library() -> None:
    heavy = ("torch", "transformers", "datasets", "numpy")
    code = f"import sys, mtl_nlp.labels; sys.stdout.write(' '.join(m for m in {heavy} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("in Paris, today", ["in", "Paris", ",", "today"]),
        ("(Anna)!", ["(", "Anna", ")", "!"]),
        ("I don't :-) ... http://t.co/a", ["I", "don't", ":-)", "...", "http://t.co/a"]),
        ("@anna in the U.S. Yes.", ["@", "anna", "in", "the", "U.S.", "Yes", "."]),
        ("  ", []),
    ],
)
def test_words_as_annotators_cut_them(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in text_words(text)] == words
