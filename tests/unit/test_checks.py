"""What `check` finds in data, on data small enough to count by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_nlp.data.annotations import Problem
from mtl_nlp.data.checks import DataReport, check_data, percent, row_lengths, some
from mtl_nlp.data.features import EncodedSplit
from mtl_nlp.data.label_balance import Drift, TaskBalance, drift_between, task_balance
from mtl_nlp.data.leakage import find_leaks, normalised, parts_of, read_texts, text_key
from mtl_nlp.data.sources import Corpus, read_corpora
from mtl_nlp.recipe import Recipe, make_recipe
from mtl_nlp.training.finetune import build_trainer
from mtl_nlp.training.prepare import Prepared, prepare
from mtl_nlp.training.probe import StepClock, count_evaluations, estimate, plan_run, spread
from tests.conftest import SENTIMENT, write_conll, write_jsonl

Rows = list[dict[str, Any]]


def task(name: str, head: str, source: Path, columns: dict[str, str], **rest: Any) -> dict[str, Any]:
    data = {"source": str(source), "columns": columns, **rest.pop("data", {})}
    return {"name": name, "head": head, "data": data, **rest}


def written(folder: Path, **splits: Rows) -> Path:
    for split, rows in splits.items():
        write_jsonl(folder / f"{split}.jsonl", rows)
    return folder


def corpora_of(folder: Path, *tasks: dict[str, Any]) -> list[Corpus]:
    return read_corpora(make_recipe({"tasks": list(tasks)}, base=folder))


def balance_of(folder: Path, made: dict[str, Any]) -> TaskBalance:
    (corpus,) = corpora_of(folder, made)
    return task_balance(corpus, corpus.tasks[0])


def labelled(*labels: str) -> Rows:
    return [{"text": f"text {i} {label}", "label": label} for i, label in enumerate(labels)]


def prepared_with(encoder: Path, folder: Path, *tasks: dict[str, Any], **rest: Any) -> Prepared:
    name = {"name": str(encoder), "max_length": rest.pop("max_length", 64), "stride": rest.pop("stride", 4)}
    return prepare(make_recipe({"encoder": name, "tasks": list(tasks), **rest}, base=folder))


def report_of(prepared: Prepared) -> DataReport:
    return check_data(prepared.corpora, prepared.encoded)


def messages(report: DataReport, kind: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.kind == kind]


CLASSIFY = {"text": "text", "label": "label"}
WORDS = {"tokens": "tokens", "labels": "labels"}


# Labels


def test_shares_imbalance_and_drift_of_one_label(tmp_path: Path) -> None:
    source = written(
        tmp_path / "s",
        train=labelled(*"pppppp", *"nn"),
        validation=labelled("p", "p", "p", "n"),
        test=labelled("p", "n", "n", "n"),
    )
    found = balance_of(tmp_path, task("s", "sequence_classification", source, CLASSIFY))
    train = found.splits["train"]
    assert train.counts == {"n": 2, "p": 6}
    assert (train.share("p"), train.share("n")) == (0.75, 0.25)
    assert (train.most, train.least, train.imbalance) == (("p", 6), ("n", 2), 3.0)
    assert found.drift["validation"].distance == 0.0
    test = found.drift["test"]
    assert test.distance == 0.5  # (|0.75 - 0.25| + |0.25 - 0.75|) / 2
    assert test.moved == [("n", 0.25, 0.75), ("p", 0.75, 0.25)]
    # Pooled shares are 7/12 and 5/12: each label's mean absolute deviation is sqrt(2/π · (1/8 + 1/4) · 35/144).
    assert test.chance == pytest.approx(math.sqrt(2 / math.pi * 3 / 8 * 35 / 144))
    assert test.flagged
    assert test.small
    assert not found.drift["validation"].flagged
    assert found.absent == []


def test_drift_is_flagged_above_a_tenth_only() -> None:
    assert not Drift("test", "total variation", 0.1, 0.0).flagged
    assert not Drift("test", "total variation", 0.1 + 1e-15, 0.0).flagged
    assert Drift("test", "total variation", 0.1001, 0.0).flagged
    assert not Drift("test", "total variation", 0.0, 0.05).small
    assert Drift("test", "total variation", 0.0, 0.051).small


def test_drift_of_a_large_split_is_not_called_small(tmp_path: Path) -> None:
    many = labelled(*("p", "n") * 400)
    source = written(tmp_path / "s", train=many, validation=many, test=labelled(*("p",) * 500, *("n",) * 300))
    drift = balance_of(tmp_path, task("s", "sequence_classification", source, CLASSIFY)).drift["test"]
    assert drift.distance == pytest.approx(0.125)  # 500/800 - 1/2
    assert drift.flagged
    assert not drift.small


def test_several_labels_are_counted_once_a_text(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "labels": labels} for i, labels in enumerate((["a", "b"], ["a"], ["a"], ["c"]))]
    source = written(tmp_path / "m", train=rows, validation=rows[:2])
    columns = {"text": "text", "labels": "labels"}
    train = balance_of(tmp_path, task("m", "multi_label_classification", source, columns)).splits["train"]
    assert train.counts == {"a": 3, "b": 1, "c": 1}
    assert (train.unit, train.total, train.share("a")) == ("texts", 4, 0.75)
    assert (train.most, train.least, train.imbalance) == (("a", 3), ("b", 1), 3.0)


def test_tags_with_a_scheme_are_counted_by_span_and_without_by_word(tmp_path: Path) -> None:
    tags = [["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "B-PER", "O", "O"]]
    rows = [{"tokens": [f"{i}a", "b", "c", "d"], "labels": line} for i, line in enumerate(tags)]
    source = written(tmp_path / "n", train=rows, validation=rows)
    spans = balance_of(tmp_path, task("n", "token_classification", source, WORDS)).splits["train"]
    assert (spans.unit, spans.total, spans.counts) == ("spans", 4, {"LOC": 1, "PER": 3})
    words = balance_of(tmp_path, task("n", "token_classification", source, WORDS, scheme="none")).splits["train"]
    assert (words.unit, words.total) == ("words", 8)
    assert words.counts == {"B-LOC": 1, "B-PER": 3, "I-PER": 1, "O": 3}


def test_character_spans_are_counted_by_span(tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 4, "label": "PER"}, {"start": 8, "end": 14, "label": "LOC"}]
    rows = [{"text": "anna in london", "spans": spans}, {"text": "bob in london", "spans": spans[:1]}]
    source = written(tmp_path / "n", train=rows, validation=rows)
    columns = {"text": "text", "spans": "spans"}
    train = balance_of(tmp_path, task("n", "token_classification", source, columns)).splits["train"]
    assert (train.unit, train.total, train.counts) == ("spans", 3, {"LOC": 1, "PER": 2})


def test_numbers_are_summed_up_and_compared_by_their_distribution(tmp_path: Path) -> None:
    def rows(*values: float) -> Rows:
        return [{"text": f"t {value}", "label": value} for value in values]

    source = written(tmp_path / "v", train=rows(3.0, 0.0, 1.0, 2.0), validation=rows(2.0, 3.0))
    found = balance_of(tmp_path, task("v", "regression", source, CLASSIFY))
    assert found.splits["train"].summary() == {
        "mean": 1.5,
        "sd": pytest.approx(math.sqrt(1.25)),
        "min": 0.0,
        "max": 3.0,
    }
    assert found.splits["train"].imbalance is None
    drift = found.drift["validation"]
    assert (drift.measure, drift.distance) == ("Kolmogorov-Smirnov", 0.5)  # at 1: half of train, none of validation
    assert drift.chance == pytest.approx(math.sqrt(math.pi / 2) * math.log(2) * math.sqrt(1 / 4 + 1 / 2))


def test_answers_and_choices(tmp_path: Path) -> None:
    answers = ({"text": ["anna"], "answer_start": [0]}, {"text": [], "answer_start": []})
    rows = [{"q": "who?", "c": f"anna {i}", "a": answer} for i, answer in enumerate((*answers, answers[0]))]
    source = written(tmp_path / "q", train=rows, validation=rows)
    columns = {"question": "q", "context": "c", "answers": "a"}
    asked = balance_of(tmp_path, task("q", "question_answering", source, columns))
    assert asked.splits["train"].counts == {"answered": 2, "unanswered": 1}
    rows = [{"c": f"anna {i}", "e": ["x", "y"], "label": label} for i, label in enumerate((1, 1, 0))]
    source = written(tmp_path / "c", train=rows, validation=rows)
    columns = {"context": "c", "choices": "e", "label": "label"}
    chosen = balance_of(tmp_path, task("c", "multiple_choice", source, columns))
    assert chosen.splits["train"].counts == {"0": 1, "1": 2}
    assert chosen.absent == []


def test_labels_absent_from_training(tmp_path: Path, tiny_encoder: Path) -> None:
    source = written(tmp_path / "s", train=labelled("p", "n"), validation=labelled("p", "n"), test=labelled("x"))
    made = task("s", "sequence_classification", source, CLASSIFY, labels=["n", "p", "x"])
    report = report_of(prepared_with(tiny_encoder, tmp_path, made))
    assert report.tasks[0].absent == ["x"]
    assert report.tasks[0].splits["train"].least == ("n", 1)
    assert messages(report, "label_absent_from_training") == ["s: 1 label without a training text: x"]


def test_unknown_labels_in_test_have_a_count_and_a_line(tmp_path: Path, tiny_encoder: Path) -> None:
    known = [[("anna", "B-PER"), ("is", "O")]]
    odd = [[("the", "O")], [("a", "O"), ("box", "B-BOX")], [("box", "B-BOX"), ("film", "I-BOX")]]
    for split, sentences in (("train", known), ("validation", known), ("test", odd)):
        write_conll(tmp_path / "n" / f"{split}.conll", sentences)
    made = task("n", "token_classification", tmp_path / "n", WORDS, labels=["PER"])
    report = report_of(prepared_with(tiny_encoder, tmp_path, made))
    (unknown,) = report.tasks[0].splits["test"].unknown
    # Lines of test.conll: the, blank, a, box, …
    assert (unknown.label, unknown.count, unknown.where) == ("BOX", 2, f"{tmp_path}/n/test.conll:4")
    assert messages(report, "unknown_label") == [
        f'n: unknown label "BOX" in test (2 spans, counted as wrong); first {tmp_path}/n/test.conll:4'
    ]
    assert report.tasks[0].drift["test"].distance == 1.0


def test_unknown_labels_are_found_where_the_labels_come_from_training(tmp_path: Path) -> None:
    source = written(tmp_path / "s", train=labelled("p", "n"), validation=labelled("p"), test=labelled("p", "x", "x"))
    found = balance_of(tmp_path, task("s", "sequence_classification", source, CLASSIFY))
    (unknown,) = found.splits["test"].unknown
    assert (unknown.label, unknown.count, unknown.where) == ("x", 2, f"{source}/test.jsonl:2")
    # train p 1/2, n 1/2; test p 1/3, x 2/3: (1/6 + 1/2 + 2/3) / 2
    assert found.drift["test"].distance == pytest.approx(2 / 3)
    assert found.drift["test"].moved[0] == ("x", 0.0, pytest.approx(2 / 3))


def test_no_drift_where_a_split_has_no_annotation(tmp_path: Path) -> None:
    source = written(tmp_path / "s", train=labelled("p", "n"), validation=labelled("p", "n"))
    found = balance_of(tmp_path, task("s", "sequence_classification", source, CLASSIFY))
    empty = replace(found.splits["validation"], counts={"p": 0, "n": 0}, annotated=0)
    assert drift_between(found.splits["train"], empty) is None


# What was met while reading


def test_invalid_tag_sequences_are_counted_as_repaired(tmp_path: Path, tiny_encoder: Path) -> None:
    broken = [
        [("a", "O"), ("anna", "I-PER"), ("b", "O"), ("bob", "I-PER")],
        [("london", "I-LOC")],
        [("paris", "B-LOC")],
    ]
    for split, sentences in (("train", broken), ("validation", broken[2:])):
        write_conll(tmp_path / "n" / f"{split}.conll", sentences)
    report = report_of(prepared_with(tiny_encoder, tmp_path, task("n", "token_classification", tmp_path / "n", WORDS)))
    assert report.corpora[0].splits["train"].repaired == {"n": (2, 3)}
    assert report.corpora[0].splits["validation"].repaired == {}
    assert messages(report, "repaired_tags") == ["n (train): n has 2 invalid tag sequences, 3 transitions repaired"]


def test_sizes_filtered_unannotated_and_missing(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = [
        {"text": "good film", "a": "p", "b": "x", "lang": "en"},
        {"text": "bad film", "a": "n", "b": None, "lang": "en"},
        {"text": "fine film", "a": None, "b": None, "lang": "en"},
        {"text": "great film", "a": None, "b": "y", "lang": "en"},
        {"text": "film", "a": "p", "b": "y", "lang": "de"},
    ]
    source = written(tmp_path / "c", train=rows, validation=rows[:1])
    tasks = [
        task(name, "sequence_classification", source, {"text": "text", "label": name}, data={"filter": {"lang": "en"}})
        for name in ("a", "b")
    ]
    report = report_of(prepared_with(tiny_encoder, tmp_path, *tasks))
    (corpus,) = report.corpora
    assert (corpus.name, corpus.tasks, corpus.reads) == ("a+b", ["a", "b"], "text")
    train = corpus.splits["train"]
    assert (train.texts, train.filtered, train.unannotated, train.missing) == (3, 1, 1, {"a": 1, "b": 1})
    assert (corpus.splits["validation"].texts, corpus.splits["validation"].missing) == (1, {"a": 0, "b": 0})
    assert [b.splits["train"].annotated for b in report.tasks] == [2, 2]


def test_a_carved_validation_split_tells_the_reading_once(tmp_path: Path, tiny_encoder: Path) -> None:
    sentences = [[("anna", "I-PER"), (f"a{i}", "O")] for i in range(10)]
    write_conll(tmp_path / "n" / "train.conll", sentences)
    made = task("n", "token_classification", tmp_path / "n", WORDS, data={"validation": 0.2})
    splits = report_of(prepared_with(tiny_encoder, tmp_path, made)).corpora[0].splits
    assert (splits["train"].texts, splits["train"].carved, splits["train"].repaired) == (8, False, {"n": (10, 10)})
    assert (splits["validation"].texts, splits["validation"].carved, splits["validation"].repaired) == (2, True, {})


def test_tasks_that_read_other_texts_are_told_apart(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = [{"one": f"good {i}", "two": f"bad {i}", "label": "pn"[i % 2]} for i in range(4)]
    source = written(tmp_path / "c", train=rows, validation=rows[:2])
    tasks = [
        task(column, "sequence_classification", source, {"text": column, "label": "label"}) for column in ("one", "two")
    ]
    report = report_of(prepared_with(tiny_encoder, tmp_path, *tasks))
    assert [corpus.name for corpus in report.corpora] == ["one", "two"]
    (note,) = messages(report, "note")
    assert "one, two read other texts" in note
    assert f"{source}/train.jsonl:1" in note
    assert "kept as separate corpora" in note


def test_blank_lines_that_end_no_sentence(tmp_path: Path, tiny_encoder: Path) -> None:
    folder = tmp_path / "n"
    write_conll(folder / "validation.conll", [[("anna", "B-PER")]])
    (folder / "train.conll").write_text("anna\tB-PER\n \nis\tO\n\nbob\tB-PER\n", encoding="utf-8")
    splits = report_of(prepared_with(tiny_encoder, tmp_path, task("n", "token_classification", folder, WORDS)))
    train, validation = splits.corpora[0].splits["train"], splits.corpora[0].splits["validation"]
    assert (train.texts, train.blank_lines_kept, validation.blank_lines_kept) == (2, 1, 0)


def test_values_skipped_in_hub_data_are_shown_with_their_place(tmp_path: Path, tiny_encoder: Path) -> None:
    source = written(tmp_path / "s", train=labelled(*"pnpn"), validation=labelled("p", "n"))
    prepared = prepared_with(tiny_encoder, tmp_path, task("s", "sequence_classification", source, CLASSIFY))
    # What a reader of a Hub dataset leaves, which cannot be reached from here.
    counts = prepared.corpora[0].splits["train"].counts["s"]
    counts.skipped = [Problem(row, f"label code {row + 5}") for row in (1, 2, 3, 3)]
    report = report_of(prepared)
    skipped = report.corpora[0].splits["train"].skipped["s"]
    assert skipped.count == 4
    assert skipped.examples == [f"{source}/train.jsonl:{row + 1}: label code {row + 5}" for row in (1, 2, 3)]
    assert messages(report, "skipped_values") == [
        f"s (train): 4 values of s not readable, taken as missing; {source}/train.jsonl:2: label code 6"
    ]


# Texts


def test_a_key_forgets_case_and_white_space_and_keeps_the_parts_apart() -> None:
    assert normalised("Do n't\tSTOP ß") == "don'tstopss"
    assert text_key(["Good film !"]) == text_key(["goodfilm!"])
    assert text_key(["ab", "c"]) != text_key(["a", "bc"])
    assert text_key(["a"]) != text_key(["a", "b"])
    assert text_key(["a", " \n"]) is None


def test_every_input_of_a_text_belongs_to_its_key() -> None:
    assert list(parts_of({"tokens": [["do", "n't"]]}, "tokens")) == [["don't"]]
    assert list(parts_of({"text": ["a"], "pair": ["b"]}, "text")) == [["a", "b"]]
    assert list(parts_of({"question": ["q"], "context": ["c"]}, "question")) == [["q", "c"]]
    chosen = {"context": ["c", ""], "question": ["", "q"], "choices": [["x", "y"], ["z", ""]]}
    keys = [text_key(parts) for parts in parts_of(chosen, "choices")]
    assert keys == [text_key(["c", "x", "y"]), None]  # one choice of the second is empty


def test_empty_texts_and_duplicates_with_their_places(tmp_path: Path, tiny_encoder: Path) -> None:
    texts = ["good film", "bad", "  ", "Good  Film", "", "good film"]
    rows = [{"text": text, "label": "pn"[i % 2]} for i, text in enumerate(texts)]
    source = written(tmp_path / "s", train=rows, validation=labelled("p", "n"))
    report = report_of(prepared_with(tiny_encoder, tmp_path, task("s", "sequence_classification", source, CLASSIFY)))
    train = report.corpora[0].splits["train"]
    assert (train.empty, train.first_empty) == (2, f"{source}/train.jsonl:3")
    assert (train.repeats, train.first_repeat) == (2, (f"{source}/train.jsonl:4", f"{source}/train.jsonl:1"))
    assert messages(report, "empty_text") == [f"s (train): 2 empty texts; first {source}/train.jsonl:3"]
    assert messages(report, "duplicate_texts") == [
        f"s (train): 2 texts (33.3 %) also earlier in the split; first {source}/train.jsonl:4 = {source}/train.jsonl:1"
    ]
    assert report.leaks == []


def test_a_pair_with_an_empty_side_is_empty(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = [{"text": "good", "pair": pair, "label": label} for pair, label in (("film", "p"), ("", "n"), ("food", "n"))]
    source = written(tmp_path / "p", train=rows, validation=[{"text": "bad", "pair": "box", "label": "p"}])
    made = task("p", "sequence_classification", source, CLASSIFY | {"pair": "pair"})
    train = report_of(prepared_with(tiny_encoder, tmp_path, made)).corpora[0].splits["train"]
    assert (train.empty, train.first_empty, train.repeats) == (1, f"{source}/train.jsonl:2", 0)


def test_texts_on_both_sides_of_one_corpus(tmp_path: Path, tiny_encoder: Path) -> None:
    source = written(
        tmp_path / "s",
        train=[{"text": text, "label": label} for text, label in (("good", "p"), ("bad", "n"), ("awful", "n"))],
        validation=[{"text": text, "label": "p"} for text in ("fine", "Bad")],
        test=[{"text": text, "label": "p"} for text in ("great", "GOOD", "film", "awful ")],
    )
    report = report_of(prepared_with(tiny_encoder, tmp_path, task("s", "sequence_classification", source, CLASSIFY)))
    validation, test = report.leaks
    assert (validation.split, validation.texts, validation.share, validation.across) == ("validation", 1, 0.5, False)
    assert (test.corpus, test.split, test.train_corpus, test.texts, test.share) == ("s", "test", "s", 2, 0.5)
    assert [(e.where, e.train_where, e.text) for e in test.examples] == [
        (f"{source}/test.jsonl:2", f"{source}/train.jsonl:1", "GOOD"),
        (f"{source}/test.jsonl:4", f"{source}/train.jsonl:3", "awful"),
    ]
    assert messages(report, "leakage")[1] == (
        f"s: 2 test texts (50.0 %) also in its own training split; first {source}/test.jsonl:2 = {source}/train.jsonl:1"
    )
    assert [finding.wanting for finding in report.findings if finding.kind == "leakage"] == [True, True]


def test_leakage_between_a_tokenised_and_a_raw_corpus(tmp_path: Path, tiny_encoder: Path) -> None:
    raw = written(
        tmp_path / "raw",
        train=labelled("p", "n"),
        validation=[{"text": "Bob was at Acme.", "label": "p"}, {"text": "fine", "label": "n"}],
        test=[{"text": text, "label": "p"} for text in ("good", "Anna is in  London!", "love", "bob was at acme.")],
    )
    sentences = [
        [("the", "O"), ("box", "O")],
        [("Anna", "B-PER"), ("is", "O"), ("in", "O"), ("London", "B-LOC"), ("!", "O")],
        [("Bob", "B-PER"), ("was", "O"), ("at", "O"), ("Acme", "B-LOC"), (".", "O")],
    ]
    write_conll(tmp_path / "n" / "train.conll", sentences)
    write_conll(tmp_path / "n" / "validation.conll", [[("cost", "O"), ("paris", "B-LOC")]])
    tasks = [
        task("raw", "sequence_classification", raw, CLASSIFY),
        task("n", "token_classification", tmp_path / "n", WORDS),
    ]
    report = report_of(prepared_with(tiny_encoder, tmp_path, *tasks))
    conll = f"{tmp_path}/n/train.conll"
    found = [(leak.corpus, leak.split, leak.train_corpus, leak.texts, leak.share, leak.across) for leak in report.leaks]
    assert found == [("raw", "validation", "n", 1, 0.5, True), ("raw", "test", "n", 2, 0.5, True)]
    # The CoNLL file: 2 words and a blank line, 5 words and a blank line, …
    assert [(e.where, e.train_where) for e in report.leaks[1].examples] == [
        (f"{raw}/test.jsonl:2", f"{conll}:4"),
        (f"{raw}/test.jsonl:4", f"{conll}:10"),
    ]
    assert messages(report, "leakage_across_tasks")[1] == (
        f"raw: 2 test texts (50.0 %) also in the training split of n; first {raw}/test.jsonl:2 = {conll}:4"
    )


def test_the_second_text_of_a_pair_belongs_to_the_comparison(tmp_path: Path) -> None:
    def pairs(*rows: tuple[str, str]) -> Rows:
        return [{"text": first, "pair": second, "label": "pn"[i % 2]} for i, (first, second) in enumerate(rows)]

    source = written(
        tmp_path / "p",
        train=pairs(("a", "b"), ("c", "d")),
        validation=pairs(("x", "y"), ("z", "y")),
        test=pairs(("a", "c"), ("A", "B")),
    )
    corpora = corpora_of(tmp_path, task("p", "sequence_classification", source, CLASSIFY | {"pair": "pair"}))
    texts = {("p", name): read_texts(part, "text") for name, part in corpora[0].splits.items()}
    (leak,) = find_leaks(corpora, texts)
    assert (leak.split, leak.texts, leak.examples[0].where) == ("test", 1, f"{source}/test.jsonl:2")


def test_only_the_first_few_leaks_are_shown(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = labelled(*"pnpnpn")
    source = written(tmp_path / "s", train=rows, validation=[{"text": "fine", "label": "p"}], test=rows)
    report = report_of(prepared_with(tiny_encoder, tmp_path, task("s", "sequence_classification", source, CLASSIFY)))
    (leak,) = report.leaks
    assert (leak.texts, leak.share, len(leak.examples)) == (6, 1.0, 3)


# Lengths


def test_lengths_truncated_texts_and_windows(tmp_path: Path, tiny_encoder: Path) -> None:
    # Each word is one token; a row has two special ones, so that 8 tokens hold 6 words.
    short, long = ["the", "a"], ["the", "film", "was", "very", "good", "and", "great", "i", "love", "it"]
    rows = [{"tokens": words, "labels": ["O"] * len(words), "label": "pn"[i]} for i, words in enumerate((short, long))]
    source = written(tmp_path / "c", train=rows, validation=rows[:1])
    tags = task("n", "token_classification", source, WORDS, labels=["PER"])
    label = task("s", "sequence_classification", source, {"tokens": "tokens", "label": "label"}, labels=["p", "n"])
    train = report_of(prepared_with(tiny_encoder, tmp_path, tags, max_length=8, stride=2)).corpora[0].splits["train"]
    # Windows of 6 words that share 2: words 0-5 and 4-9; the rows have 4, 8 and 8 tokens.
    assert (train.lengths.rows, train.lengths.windowed, train.lengths.truncated) == (3, 1, 0)
    assert (train.lengths.mean, train.lengths.longest) == (pytest.approx(20 / 3), 8)
    report = report_of(prepared_with(tiny_encoder, tmp_path, label, max_length=8))
    lengths = report.corpora[0].splits["train"].lengths
    assert (lengths.rows, lengths.windowed, lengths.truncated, lengths.longest) == (2, 0, 1, 8)
    assert (lengths.mean, lengths.p95) == (6.0, pytest.approx(4 + 0.95 * 4))
    assert messages(report, "truncated") == ["s (train): 1 text (50.0 %) longer than a row, cut"]


def test_choices_are_no_windows() -> None:
    from datasets import Dataset

    rows = Dataset.from_dict({"input_ids": [[1, 2], [1, 2, 3], [1, 2, 3, 4], [1]]})
    encoded = EncodedSplit(rows, np.asarray([0, 2, 4]), np.asarray([3, 4]))
    assert row_lengths(encoded, windows=False).windowed == 0
    assert row_lengths(encoded, windows=True).windowed == 2
    assert row_lengths(encoded, windows=False).mean == 2.5


def test_spans_that_cut_words_or_cannot_be_kept_and_words_without_tokens(tmp_path: Path, tiny_encoder: Path) -> None:
    spans = [
        {"start": 0, "end": 3, "label": "PER"},  # "ann" cuts the word "anna"
        {"start": 8, "end": 14, "label": "LOC"},
        {"start": 8, "end": 9, "label": "PER"},  # within the span before
    ]
    rows = [
        {"text": "anna in london", "spans": spans},
        {"text": "bob in paris", "spans": [{"start": 7, "end": 12, "label": "LOC"}]},
    ]
    source = written(tmp_path / "n", train=rows, validation=rows[1:])
    made = task("n", "token_classification", source, {"text": "text", "spans": "spans"})
    report = report_of(prepared_with(tiny_encoder, tmp_path, made))
    train = report.corpora[0].splits["train"]
    assert (train.misaligned_spans, train.dropped_spans, train.words_without_tokens) == (1, 1, 0)
    assert messages(report, "misaligned_spans") == ["n (train): 1 span cutting words, moved to their borders"]
    assert messages(report, "dropped_spans") == ["n (train): 1 span left out, covering no word or overlapping"]
    for split in ("train", "validation"):
        write_conll(tmp_path / "w" / f"{split}.conll", [[("anna", "B-PER"), ("\u200d", "O"), ("is", "O")]])
    report = report_of(prepared_with(tiny_encoder, tmp_path, task("w", "token_classification", tmp_path / "w", WORDS)))
    assert report.corpora[0].splits["train"].words_without_tokens == 1
    assert messages(report, "words_without_tokens")[0] == "w (train): 1 word without a token, predicted O"


# The findings as a whole


def test_clean_data_has_nothing_to_look_at(tmp_path: Path, tiny_encoder: Path) -> None:
    splits = {
        name: [{"text": f"{name} {i}", "label": "pn"[i % 2]} for i in range(4)] for name in ("train", "validation")
    }
    source = written(tmp_path / "s", **splits)
    report = report_of(prepared_with(tiny_encoder, tmp_path, task("s", "sequence_classification", source, CLASSIFY)))
    assert report.findings == []


def test_drift_alone_is_worth_a_look_but_not_wanting(tmp_path: Path, tiny_encoder: Path) -> None:
    source = written(
        tmp_path / "s",
        train=[{"text": f"a {i}", "label": "pn"[i % 2]} for i in range(4)],
        validation=[{"text": f"b {i}", "label": "p"} for i in range(4)],
    )
    report = report_of(prepared_with(tiny_encoder, tmp_path, task("s", "sequence_classification", source, CLASSIFY)))
    (finding,) = report.findings
    assert (finding.kind, finding.wanting) == ("drift", False)
    # Pooled shares 6/8 and 2/8: chance is sqrt(2/π · 1/2 · 3/16) = 0.24.
    assert finding.message == (
        "s: validation differs from train (total variation 0.500); moved most: n 50.0 % → 0.0 %, p 50.0 % → 100.0 %; "
        "the split is small: chance alone gives about 0.24"
    )


def test_wanting_findings_come_first(tmp_path: Path, tiny_encoder: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in (("good", "p"), ("good", "p"), ("bad", "n"))]
    source = written(tmp_path / "s", train=rows, validation=[{"text": "", "label": "n"}])
    report = report_of(prepared_with(tiny_encoder, tmp_path, task("s", "sequence_classification", source, CLASSIFY)))
    assert [(finding.kind, finding.wanting) for finding in report.findings] == [
        ("empty_text", True),
        ("drift", False),
        ("duplicate_texts", False),
    ]


def test_percentages_and_plurals() -> None:
    assert [percent(share) for share in (0.0, 0.0011, 0.01, 0.036, 1.0)] == [
        "0.0 %",
        "0.11 %",
        "1.0 %",
        "3.6 %",
        "100.0 %",
    ]
    assert [some(1, "text"), some(2, "text"), some(2, "process", "processes")] == ["1 text", "2 texts", "2 processes"]


# The run and its estimate


def sentiment(folder: Path, encoder: Path, **rest: Any) -> Recipe:
    for split, start in (("train", 0), ("validation", 32), ("test", 40)):
        rows = [
            {**row, "text": f"{row['text']} {start + i}"}
            for i, row in enumerate(SENTIMENT[:8] * (4 if not start else 1))
        ]
        write_jsonl(folder / "sent" / f"{split}.jsonl", rows)
    made = task("sent", "sequence_classification", folder / "sent", CLASSIFY)
    training = {"use_cpu": True, **rest.pop("training", {})}
    data = {"encoder": str(encoder), "tasks": [made], "mixture": {"batch": 8}, "training": training, **rest}
    return make_recipe(data, base=folder)


def test_the_plan_of_a_run(tmp_path: Path, tiny_encoder: Path) -> None:
    training = {"num_train_epochs": 2.5, "gradient_accumulation_steps": 2, "warmup_steps": 0.1}
    plan = plan_run(prepare(sentiment(tmp_path, tiny_encoder, training=training)))
    # 32 texts in batches of 8 are 4 steps an epoch; 2.5 epochs are 10 steps and 80 texts.
    assert (plan.steps_per_epoch, plan.steps, plan.epochs, plan.draws) == (4, 10, 2.5, 80)
    assert (plan.batch, plan.processes, plan.accumulation, plan.device_batch) == (8, 1, 2, 4)
    assert (plan.warmup_steps, plan.evaluations, plan.validation_texts) == (1, 3, 8)
    (corpus,) = plan.corpora
    assert (corpus.corpus, corpus.texts, corpus.rate, corpus.draws, corpus.passes) == ("sent", 32, 1.0, 80, 2.5)


def test_patience_without_evaluation_is_a_fault_of_the_plan(tmp_path: Path, tiny_encoder: Path) -> None:
    from mtl_nlp.errors import FaultyInput

    made = sentiment(tmp_path, tiny_encoder, training={"eval_strategy": "no"}, stopping={"patience": 2})
    with pytest.raises(FaultyInput, match=r"stopping\.patience: needs evaluation"):
        plan_run(prepare(made))


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"eval_strategy": "no"}, 0),
        ({"eval_strategy": "epoch"}, 3),  # after steps 4, 8 and 10
        ({"eval_strategy": "epoch", "eval_delay": 2}, 2),  # epochs 2 and 2.5
        ({"eval_strategy": "steps", "eval_steps": 4}, 3),  # steps 4, 8 and the last
        ({"eval_strategy": "steps", "eval_steps": 5, "eval_on_start": True}, 3),
        ({"eval_strategy": "steps", "eval_steps": 0.25, "eval_delay": 4}, 3),  # every 3: steps 6, 9 and 10
    ],
)
def test_evaluations_are_counted_as_the_trainer_makes_them(
    tmp_path: Path, tiny_encoder: Path, training: dict[str, Any], expected: int
) -> None:
    from transformers import TrainerCallback

    class Counter(TrainerCallback):
        seen = 0

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.seen += 1

    settings = {"max_steps": 10, "save_strategy": "no", "load_best_model_at_end": False, "disable_tqdm": True}
    made = sentiment(tmp_path, tiny_encoder, training=settings | training, output_dir=str(tmp_path / "run"))
    prepared, counter = prepare(made), Counter()
    trainer = build_trainer(prepared, callbacks=[counter])
    trainer.train()
    assert counter.seen == expected
    assert count_evaluations(trainer.args, prepared.mixture()) == expected


def test_the_estimate_is_made_of_its_parts_and_writes_nothing(tmp_path: Path, tiny_encoder: Path) -> None:
    folder = tmp_path / "run"
    training = {"num_train_epochs": 2, "lr_scheduler_type": "reduce_lr_on_plateau"}
    made = sentiment(tmp_path, tiny_encoder, training=training, stopping={"patience": 1}, output_dir=str(folder))
    prepared = prepare(made)
    plan = plan_run(prepared)
    found = estimate(prepared, plan, warmup=1, measured=3)
    assert (found.device, found.steps) == ("cpu", 3)
    assert found.step_seconds > 0
    assert found.training_seconds == pytest.approx(8 * found.step_seconds)
    assert found.evaluation_seconds == pytest.approx(8 / found.texts_per_second)
    # Two evaluations in the run, one of the finished model.
    assert found.total_seconds == pytest.approx(found.training_seconds + 3 * found.evaluation_seconds)
    assert found.peak_memory is None or found.peak_memory > 2**20
    assert not folder.exists()
    # `auto` is settled: an encoder this narrow is not trained in bfloat16.
    assert prepared.recipe.training == {"use_cpu": True, "bf16": False, **training}
    assert prepared.recipe.output_dir == str(folder)


def test_steps_are_timed_from_end_to_end_after_the_warm_up() -> None:
    clock = StepClock()
    clock.ends = [1.0, 5.0, 6.0, 8.0]
    assert clock.seconds(2) == [1.0, 2.0]


def test_batches_to_score_are_spread_over_the_lengths() -> None:
    assert list(spread(10, 2)) == [2, 7]
    assert list(spread(1, 2)) == [0]
    assert list(spread(2, 2)) == [0, 1]
