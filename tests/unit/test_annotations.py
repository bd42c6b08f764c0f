"""A column's values → annotations: schemes, spans, numbers, and values that cannot be taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .test_sources import column, faults_of, label_task, one, read


def test_regression_takes_minus_one_for_a_value_unless_it_is_a_mark(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "label": value} for i, value in enumerate([-1.0, 0.5, 2.0, -1.0] * 5)]
    corpus = one(label_task(head="regression"), tmp_path, rows)
    assert sorted(set(column(corpus, "@mine") + column(corpus, "@mine", "validation"))) == [-1.0, 0.5, 2.0]
    for marks in ([-1], [-1, ""]):
        marked = one(label_task(head="regression", missing=marks), tmp_path, rows)
        assert marked.splits["train"].unannotated == 10
        assert set(column(marked, "@mine")) <= {0.5, 2.0}


@pytest.mark.parametrize("value", ["high", True, [1], "nan", 1e400])
def test_what_is_no_number_is_a_fault(tmp_path: Path, value: Any) -> None:
    rows = [{"text": f"t {i}", "label": value} for i in range(3)]
    told = faults_of(lambda: read([label_task(head="regression")], tmp_path, {"mine": rows}), tmp_path)
    assert all("a number" in item or "finite" in item for item in told)
    assert len(told) == 3


TAGS = {
    "iob1": ["I-PER", "I-PER", "B-PER", "O", "I-LOC"],
    "iob2": ["B-PER", "I-PER", "B-PER", "O", "B-LOC"],
    "bioes": ["B-PER", "E-PER", "S-PER", "O", "S-LOC"],
}


@pytest.mark.parametrize("scheme", TAGS)
@pytest.mark.parametrize("spelled", [False, True])
def test_every_scheme_is_read_as_iob2(tmp_path: Path, scheme: str, spelled: bool) -> None:
    tags: Any = " ".join(TAGS[scheme]) if spelled else TAGS[scheme]
    rows = [{"w": f"a b c d {i}" if spelled else ["a", "b", "c", "d", str(i)], "t": tags} for i in range(9)]
    task = label_task("ner", "token_classification", columns={"tokens": "w", "labels": "t"}) | {"scheme": scheme}
    corpus = one(task, tmp_path, rows)
    assert column(corpus, "@ner")[0] == TAGS["iob2"]
    assert corpus.tasks[0].labels == ["LOC", "PER"]
    assert corpus.splits["train"].counts["ner"].repaired_tags == 0


def test_invalid_sequences_are_repaired_and_counted(tmp_path: Path) -> None:
    rows = [{"w": ["a", "b", str(i)], "t": ["I-X", "O", "I-X"] if i < 4 else ["O", "O", "O"]} for i in range(9)]
    task = label_task("ner", "token_classification", columns={"tokens": "w", "labels": "t"})
    counts = one(task, tmp_path, rows).splits["train"].counts["ner"]
    assert (counts.invalid_sequences, counts.repaired_tags) == (4, 8)


@pytest.mark.parametrize(
    "written",
    [
        [{"start": 3, "end": 7, "label": "PER"}],
        [[3, 7, "PER"]],
        [{"start": 3, "end": 7, "entity_group": "PER"}],
        json.dumps([{"start": 3, "end": 7, "label": "PER"}]),
    ],
)
def test_spans_in_every_form(tmp_path: Path, written: Any) -> None:
    rows = [{"text": f"hi anna {i}", "spans": written} for i in range(9)]
    task = label_task("ner", "token_classification", columns={"text": "text", "spans": "spans"})
    (corpus,) = read([task], tmp_path, {"ner": rows})
    assert column(corpus, "@ner")[0] == [{"start": 3, "end": 7, "label": "PER"}]
    assert corpus.tasks[0].labels == ["PER"]


@pytest.mark.parametrize(
    ("head", "columns", "message"),
    [
        (
            "sequence_classification",
            {"text": "words", "label": "label"},
            'column "words" holds lists → text; a list of words',
        ),
        ("token_classification", {"tokens": "n", "labels": "words"}, 'column "n" holds int64 values → a list of words'),
        ("token_classification", {"tokens": "words", "labels": "n"}, "found 3 (int) → allowed: one tag a word"),
        ("token_classification", {"text": "text", "spans": "n"}, "found 3 → allowed: a list of {start, end, label}"),
        ("token_classification", {"text": "text", "spans": "label"}, 'found "b" → allowed: a list, as JSON'),
        ("multiple_choice", {"context": "text", "choices": "text", "label": "n"}, 'column "text" holds string values'),
        (
            "multiple_choice",
            {"context": "text", "choices": "words", "label": "words"},
            "the number of the right choice",
        ),
        ("multiple_choice", {"context": "text", "choices": "words", "label": "n"}, "choice 3 of 2 → allowed: 0 to 1"),
        (
            "question_answering",
            {"question": "text", "context": "text", "answers": "label"},
            "found 'b' → allowed: {text",
        ),
        ("multi_label_classification", {"text": "text", "labels": "n"}, "found 3 → allowed: a list of labels"),
        (
            "sequence_classification",
            {"text": "txt", "label": "lbl"},
            "no column lbl in mine.jsonl (train) → text, label",
        ),
    ],
)
def test_columns_of_the_wrong_form_are_faults_not_tracebacks(
    tmp_path: Path, head: str, columns: dict[str, str], message: str
) -> None:
    rows = [{"text": f"t {i}", "label": "b", "words": ["a", str(i)], "n": 3} for i in range(9)]
    told = faults_of(lambda: one(label_task(head=head, columns=columns), tmp_path, rows), tmp_path)
    assert any(message in item for item in told), told


def test_a_bracket_that_is_not_closed_is_a_fault_with_its_line(tmp_path: Path) -> None:
    rows = [{"u": f"wake me at [time : {i} am]" + ("" if i != 4 else " [x")} for i in range(9)]
    task = label_task("slots", "token_classification", columns={"bracketed": "u"})
    told = faults_of(lambda: one(task, tmp_path, rows), tmp_path)
    assert told == ["mine.jsonl:5: slots (train): '[' at character 25: the bracket is never closed"]
