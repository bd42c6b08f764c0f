"""Metrics: numbers worked by hand, agreement with seqeval and with `evaluate`'s interface, faults, and no Hub."""

from __future__ import annotations

import json
import logging
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import mtl_nlp.metrics
from mtl_nlp.errors import UserError
from mtl_nlp.metrics import ALIASES, KINDS, METRICS, compute, load_metric, metric_info, metrics_for, per_label, primary

SOURCE = Path(mtl_nlp.metrics.__file__).parents[2]


def tags(*rows: str) -> list[list[str]]:
    return [row.split() for row in rows]


# (predictions, references, labels)
ABC = (list("aabbcc"), list("aaabbc"), list("abc"))
BINARY = (["yes", "yes", "no", "no", "yes"], ["no", "yes", "yes", "no", "yes"], ["no", "yes"])
SETS = ([["a"], ["a"], ["c"], ["b"]], [["a"], ["a", "b"], [], ["b", "c"]], list("abc"))
VALUES = ([1.0, 2.0, 4.0], [1.0, 3.0, 2.0], None)
SPANS = (tags("B-PER I-PER O B-PER", "O O"), tags("B-PER I-PER O B-LOC", "B-ORG O"), ["LOC", "ORG", "PER"])
LOOSE = (tags("I-PER I-PER O"), tags("B-PER I-PER O"), ["PER"])
ANSWERS = (["the Cat!", "a red big dog", "", "maybe"], [["cat"], ["big red dog house", "dog"], [], []], None)
CHOICES = ([0, 3, 1, 1], [0, 2, 1, 0], None)
SIX = ([[0.6, 0.5, 0.4, 0.3, 0.2, 0.1]], [[0.0, 0.0, 1.0, 0.0, 0.0, 1.0]], None)
RANKS = ([[0.1, 0.9, 0.5], [1.0, 0.0]], [[1.0, 0.0, 2.0], [0.0, 1.0]], None)

CASES: list[tuple[str, tuple[Any, Any, Any], float]] = [
    ("accuracy", ABC, 4 / 6),
    ("accuracy", CHOICES, 0.5),
    # a: P 1, R 2/3, F1 4/5; b: 1/2 each; c: P 1/2, R 1, F1 2/3
    ("f1_macro", ABC, (4 / 5 + 1 / 2 + 2 / 3) / 3),
    ("f1_micro", ABC, 4 / 6),
    ("f1_weighted", ABC, (3 * 4 / 5 + 2 * 1 / 2 + 2 / 3) / 6),
    ("precision_macro", ABC, (1 + 1 / 2 + 1 / 2) / 3),
    ("recall_macro", ABC, (2 / 3 + 1 / 2 + 1) / 3),
    # right 4 of 6, predicted 2, 2, 2 and wanted 3, 2, 1: (4*6 - 12) / sqrt((36 - 12) * (36 - 14))
    ("matthews_correlation", ABC, 12 / math.sqrt(24 * 22)),
    # of "yes": 2 right, 1 too many, 1 missing; "no": 1 right
    ("f1", BINARY, 2 / 3),
    ("precision", BINARY, 2 / 3),
    ("recall", BINARY, 2 / 3),
    ("matthews_correlation", BINARY, 1 / 6),
    # a: 2 of 2 of 2; b: 1 right of 1 predicted and 2 wanted; c: 0 of 1 and 1
    ("f1_macro", SETS, (1 + 2 / 3 + 0) / 3),
    ("f1_micro", SETS, 2 * 3 / (4 + 5)),
    ("f1_weighted", SETS, (2 * 1 + 2 * 2 / 3) / 5),
    ("precision_macro", SETS, 2 / 3),
    ("recall_macro", SETS, 1 / 2),
    ("subset_accuracy", SETS, 1 / 4),
    # deviations -4/3, -1/3, 5/3 and -1, 1, 0: 1 / sqrt(42/9 * 2)
    ("pearson", VALUES, 3 / math.sqrt(84)),
    ("spearman", VALUES, 1 - 6 * 2 / (3 * 8)),
    ("mse", VALUES, 5 / 3),
    ("mae", VALUES, 1.0),
    # 1 right of 2 predicted and 3 wanted
    ("span_f1", SPANS, 2 / 5),
    ("span_precision", SPANS, 1 / 2),
    ("span_recall", SPANS, 1 / 3),
    ("span_f1_strict", SPANS, 2 / 5),
    ("token_accuracy", SPANS, 4 / 6),
    ("span_f1", LOOSE, 1.0),
    ("span_f1_strict", LOOSE, 0.0),
    ("token_accuracy", LOOSE, 2 / 3),
    ("exact_match", ANSWERS, 2 / 4),
    # 1; "red big dog" shares 3 words with one of 4; no answer, rightly; an answer where there is none
    ("qa_f1", ANSWERS, (1 + 6 / 7 + 1 + 0) / 4),
    # relevance in the order of the scores: 0, 2, 1 and 0, 1
    ("ndcg", RANKS, ((2 / math.log2(3) + 1 / 2) / (2 + 1 / math.log2(3)) + 1 / math.log2(3)) / 2),
    ("ndcg@10", RANKS, ((2 / math.log2(3) + 1 / 2) / (2 + 1 / math.log2(3)) + 1 / math.log2(3)) / 2),
    # the first candidate is right in neither; of six, one of two right ones comes fifth at most
    ("recall@1", RANKS, 0.0),
    ("recall@5", SIX, 1 / 2),
    ("recall@5", RANKS, 1.0),
    ("recall@10", SIX, 1.0),
    ("mrr", RANKS, 1 / 2),
    ("mrr@10", RANKS, 1 / 2),
    ("map", RANKS, ((1 / 2 + 2 / 3) / 2 + 1 / 2) / 2),
]
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(CASES)]


@pytest.mark.parametrize(("name", "case", "wanted"), CASES, ids=IDS)
def test_values_worked_by_hand(name: str, case: tuple[Any, Any, Any], wanted: float) -> None:
    predictions, references, labels = case
    result = compute([name], predictions, references, labels=labels)
    assert result == {name: pytest.approx(wanted, abs=1e-12)}
    assert type(result[name]) is float


def test_every_metric_has_a_value_worked_by_hand() -> None:
    assert {name for name, _, _ in CASES} == set(METRICS)


@pytest.mark.parametrize(("name", "case", "wanted"), CASES, ids=IDS)
def test_evaluate_metric_agrees_with_the_function(name: str, case: tuple[Any, Any, Any], wanted: float) -> None:
    predictions, references, labels = case
    metric = load_metric(name)
    key = METRICS[name].result_key
    assert metric.compute(predictions=predictions, references=references, labels=labels) == {key: pytest.approx(wanted)}
    metric.add_batch(predictions=predictions[:1], references=references[:1])
    metric.add_batch(predictions=predictions[1:], references=references[1:])
    assert metric.compute(labels=labels) == {key: pytest.approx(wanted)}


def test_evaluate_metrics_do_not_collide_in_one_process() -> None:
    first, second = load_metric("accuracy"), load_metric("accuracy")
    first.add_batch(predictions=["a", "a"], references=["a", "b"])
    second.add_batch(predictions=["a"], references=["a"])
    assert (first.name, first.compute(), second.compute()) == ("accuracy", {"accuracy": 0.5}, {"accuracy": 1.0})


def test_evaluate_metrics_combine() -> None:
    import evaluate

    both = evaluate.combine([load_metric("accuracy"), load_metric("f1_macro")])
    assert both.compute(predictions=ABC[0], references=ABC[1]) == {
        "accuracy": pytest.approx(2 / 3),
        "f1": pytest.approx(59 / 90),
    }


@pytest.mark.parametrize("name", list(METRICS))
def test_right_predictions_score_best(name: str) -> None:
    by_kind: dict[str, tuple[list[Any], list[Any]]] = {
        "label": (list("abab"), list("abab")),
        "labels": ([["a"], [], ["a", "b"]], [["a"], [], ["b", "a"]]),
        "value": ([1.0, 2.0, 5.0], [1.0, 2.0, 5.0]),
        "tags": (tags("B-A I-A O", "B-B"), tags("B-A I-A O", "B-B")),
        "answer": (["x", ""], [["y", "x"], []]),
        "choice": ([1, 0], [1, 0]),
        "relevance": ([[0.1, 3.0, 2.0], [1.0]], [[0.0, 2.0, 1.0], [1.0]]),
    }
    for kind in METRICS[name].kinds:
        predictions, references = by_kind[kind]
        # "c" occurs nowhere and must not count; binary metrics have two labels
        labels = ["a", "b"] if name in ("f1", "precision", "recall") else ["a", "b", "c"]
        best = 1.0 if METRICS[name].higher_better else 0.0
        # Of two right candidates only one can come first.
        best = 0.75 if name == "recall@1" else best
        assert compute([name], predictions, references, labels=labels) == {name: pytest.approx(best)}


@pytest.mark.parametrize(("name", "case"), [case[:2] for case in CASES], ids=IDS)
def test_order_of_texts_does_not_matter(name: str, case: tuple[Any, Any, Any]) -> None:
    predictions, references, labels = case
    forward = compute([name], predictions, references, labels=labels)[name]
    assert compute([name], predictions[::-1], references[::-1], labels=labels)[name] == pytest.approx(forward)


def test_results_come_under_the_names_asked_for() -> None:
    assert list(compute(["matthews", "accuracy"], *ABC[:2])) == ["matthews", "accuracy"]
    assert compute("accuracy", *ABC[:2]) == {"accuracy": pytest.approx(2 / 3)}
    assert compute(["seqeval"], *SPANS[:2]) == {"seqeval": pytest.approx(0.4)}


# --- labels


def test_reference_outside_the_labels_is_wrong_not_dropped() -> None:
    found = compute(["accuracy", "f1_micro", "f1_macro"], ["a", "b"], ["a", "z"], labels=["a", "b"])
    assert found == {"accuracy": 0.5, "f1_micro": 0.5, "f1_macro": pytest.approx(1 / 3)}
    sets = compute(["f1_micro", "subset_accuracy"], [["a"], []], [["a"], ["z"]], labels=["a", "b"])
    assert sets == {"f1_micro": pytest.approx(2 / 3), "subset_accuracy": 0.5}
    assert compute(["span_recall"], tags("B-A O"), tags("B-A B-Z"), labels=["A"]) == {"span_recall": 0.5}


def test_positive_class_is_the_last_label() -> None:
    predictions, references, _ = BINARY
    assert compute(["f1"], predictions, references, labels=["yes", "no"]) == {"f1": pytest.approx(1 / 2)}
    assert compute(["f1"], predictions, references) == {"f1": pytest.approx(2 / 3)}
    with pytest.raises(UserError, match=r"two labels, the last one positive; the task has a, b, c → f1_macro"):
        compute(["f1"], *ABC[:2], labels=ABC[2])
    with pytest.raises(UserError, match=r"labels= is not given and the texts have no"):
        compute(["f1"], ["no"], ["no"])


def test_one_label_alone_among_sets_is_not_read_as_two_classes() -> None:
    assert compute(["f1_macro"], [["a"], ["a"]], [["a"], []]) == {"f1_macro": pytest.approx(2 / 3)}


def test_many_labels_raise_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    labels = [f"l{i}" for i in range(30)]
    assert compute(["accuracy", "f1_macro", "matthews"], labels, labels, labels=labels)["accuracy"] == 1.0
    assert compute(["matthews"], ["a", "a"], ["a", "a"]) == {"matthews": 0.0}
    assert not recwarn.list


def test_per_label_of_labels() -> None:
    found = per_label("label", [*ABC[0], "a"], [*ABC[1], "z"], ["c", "b", "a", "never"])
    assert list(found) == ["c", "b", "a", "never", "z"]
    assert found["c"] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert found["a"] == {
        "precision": pytest.approx(2 / 3),
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(2 / 3),
        "support": 3,
    }
    assert found["never"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert found["z"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}
    assert {type(value) for entry in found.values() for value in entry.values()} == {float, int}


def test_per_label_of_sets() -> None:
    found = per_label("labels", *SETS)
    assert found["b"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert sum(entry["f1"] for entry in found.values()) / 3 == pytest.approx(
        compute(["f1_macro"], *SETS[:2])["f1_macro"]
    )


def test_per_label_of_spans_and_of_plain_tags() -> None:
    found = per_label("tags", SPANS[0], SPANS[1], ["PER", "LOC"])
    assert found == {
        "PER": {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1},
        "LOC": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        "ORG": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
    }
    plain = per_label("tags", tags("N V N", "N"), tags("N V V", "N"), ["V", "N"], scheme="none")
    assert plain == {
        "V": {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        "N": {"precision": pytest.approx(2 / 3), "recall": 1.0, "f1": pytest.approx(4 / 5), "support": 2},
    }


def test_per_label_faults() -> None:
    with pytest.raises(UserError, match=r'kind "value" of .* → label, labels or tags'):
        per_label("value", [1.0], [1.0], [])
    with pytest.raises(UserError, match="the predictions are label → tags"):
        per_label("tags", ["a"], ["a"], ["a"])


# --- spans


@pytest.mark.parametrize(
    ("predicted", "wanted", "lenient", "strict"),
    [
        ("I-PER I-PER", "B-PER I-PER", 1.0, 0.0),
        ("B-PER I-PER", "B-PER I-PER", 1.0, 1.0),
        ("B-PER B-PER", "B-PER I-PER", 0.0, 0.0),  # two spans for one
        ("B-PER I-PER", "B-PER I-LOC", 0.0, 0.0),  # lenient: PER and LOC wanted; strict: PER of one word
        ("B-PER I-LOC", "B-PER O", 2 / 3, 1.0),  # lenient: a LOC too many; strict: no span
        ("O B-PER", "B-PER O", 0.0, 0.0),
    ],
)
def test_lenient_and_strict_spans(predicted: str, wanted: str, lenient: float, strict: float) -> None:
    found = compute(["span_f1", "span_f1_strict"], tags(predicted), tags(wanted))
    assert found == {"span_f1": pytest.approx(lenient), "span_f1_strict": pytest.approx(strict)}


def test_spans_agree_with_seqeval() -> None:
    from seqeval.metrics import classification_report, f1_score, precision_score, recall_score
    from seqeval.scheme import IOB2

    random.seed(5)
    names = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-work-of-art", "I-work-of-art"]
    lengths = [random.randrange(12) for _ in range(200)]
    wanted, found = ([[random.choice(names) for _ in range(n)] for n in lengths] for _ in range(2))
    scores = compute(["span_f1", "span_precision", "span_recall", "span_f1_strict"], found, wanted)
    assert scores["span_f1"] == pytest.approx(f1_score(wanted, found))
    assert scores["span_precision"] == pytest.approx(precision_score(wanted, found))
    assert scores["span_recall"] == pytest.approx(recall_score(wanted, found))
    assert scores["span_f1_strict"] == pytest.approx(f1_score(wanted, found, mode="strict", scheme=IOB2))
    assert scores["span_f1"] != pytest.approx(scores["span_f1_strict"])
    report = classification_report(wanted, found, output_dict=True)
    for kind, entry in per_label("tags", found, wanted, ["PER", "LOC", "work-of-art"]).items():
        assert entry["f1"] == pytest.approx(report[kind]["f1-score"])
        assert entry["support"] == report[kind]["support"]


def test_a_span_does_not_run_into_the_next_text() -> None:
    assert compute(["span_f1"], tags("B-PER", "I-PER"), tags("B-PER", "B-PER")) == {"span_f1": 1.0}


@pytest.mark.parametrize("name", ["span_f1", "span_f1_strict", "span_recall"])
def test_tags_that_are_not_iob2_are_refused(name: str) -> None:
    for bad in ("NOUN", "S-PER", "B-", ""):
        with pytest.raises(UserError, match="O, B-x or I-x"):
            compute([name], [["O", bad]], [["O", "O"]])
    with pytest.raises(UserError, match="mark no spans; name token_accuracy"):
        compute([name], tags("N V"), tags("N V"), scheme="none")
    with pytest.raises(UserError, match='scheme "bioes" → iob2 or none; convert'):
        compute([name], tags("O"), tags("O"), scheme="bioes")


def test_plain_tags_have_token_accuracy() -> None:
    assert compute(["token_accuracy"], tags("N V N", "N"), tags("N V V", "N"), scheme="none") == {
        "token_accuracy": 0.75
    }


@pytest.mark.parametrize("name", ["span_f1", "token_accuracy"])
def test_each_word_needs_a_tag(name: str) -> None:
    with pytest.raises(UserError, match=r"text 1 \(from 0\) has 2 words but 1 predicted tags"):
        compute([name], tags("O", "O"), tags("O", "O O"))


# --- answers


@pytest.mark.parametrize(
    ("found", "right", "exact", "f1"),
    [
        ("The  Eiffel-Tower.", ["eiffeltower"], 1.0, 1.0),  # case, article, spaces, punctuation
        ("an apple", ["THE APPLE!"], 1.0, 1.0),
        ("theatre", ["atre"], 0.0, 0.0),  # an article is a word, not a prefix
        ("dog dog", ["dog"], 0.0, 2 / 3),  # a word counts as often as it stands there
        ("in Paris", ["Rome", "Paris", "Paris, France"], 0.0, 2 / 3),  # the best of several
        ("", [], 1.0, 1.0),
        ("", [""], 1.0, 1.0),
        ("the", [""], 1.0, 1.0),
        ("", ["Paris"], 0.0, 0.0),
        ("Paris", [""], 0.0, 0.0),
        ("Paris", ["", "Paris"], 1.0, 1.0),
    ],
)
def test_answers_are_normalised_as_in_squad(found: str, right: list[str], exact: float, f1: float) -> None:
    assert compute(["exact_match", "qa_f1"], [found], [right]) == {"exact_match": exact, "qa_f1": pytest.approx(f1)}


# --- undefined values


@pytest.mark.parametrize(
    ("names", "predictions", "references"),
    [
        (["pearson", "spearman"], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]),
        (["pearson", "spearman"], [1.0, 2.0, 3.0], [2.0, 2.0, 2.0]),
        (["pearson", "spearman"], [1.0], [1.0]),
        (["pearson", "spearman"], [1.0, math.nan, 2.0], [1.0, 2.0, 3.0]),
        (["span_f1", "span_precision", "span_recall", "span_f1_strict"], tags("O O"), tags("O O")),
        (["token_accuracy"], [[]], [[]]),
        (["f1_macro", "f1_micro"], [[], []], [[], []]),
        (["f1"], ["no"], ["no"]),
    ],
)
def test_undefined_is_zero_and_logged(
    names: list[str],
    predictions: Any,
    references: Any,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
) -> None:
    labels = ["no", "yes"] if names == ["f1"] else None
    with caplog.at_level(logging.WARNING, logger="mtl_nlp"):
        assert compute(names, predictions, references, labels=labels) == dict.fromkeys(names, 0.0)
    assert [record.args[0] for record in caplog.records if record.args] == names
    assert not recwarn.list


def test_errors_of_diverged_predictions_are_not_the_best(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mtl_nlp"):
        assert compute(["mse", "mae"], [1.0, math.nan], [1.0, 2.0]) == {"mse": math.inf, "mae": math.inf}
    assert len(caplog.records) == 2


def test_a_reference_must_be_finite() -> None:
    with pytest.raises(UserError, match=r"text 1 \(from 0\) has the reference nan"):
        compute(["mse"], [1.0, 2.0], [1.0, math.nan])


def test_no_warning_where_all_is_well(caplog: pytest.LogCaptureFixture) -> None:
    assert compute(["span_f1"], tags("O O"), tags("B-A O")) == {"span_f1": 0.0}
    assert compute(["spearman", "mse"], [1, 2, 3.5], [1, 2, 3]) == {"spearman": 1.0, "mse": pytest.approx(1 / 12)}
    assert not caplog.records


# --- faults


@pytest.mark.parametrize("name", list(METRICS))
def test_no_texts_is_a_fault(name: str) -> None:
    with pytest.raises(UserError, match="no texts to score; is the split empty"):
        compute([name], [], [])


def test_evaluate_metrics_refuse_no_texts_alike() -> None:
    for name in ("accuracy", "f1_macro"):
        with pytest.raises(UserError, match="no texts to score"):
            load_metric(name).compute(predictions=[], references=[])


def test_each_text_has_one_prediction() -> None:
    with pytest.raises(UserError, match="1 predictions for 2 references"):
        compute(["accuracy"], ["a"], ["a", "b"])


@pytest.mark.parametrize(
    ("name", "predictions", "references", "message"),
    [
        ("span_f1", ["a"], ["a"], '"span_f1" scores tags, the predictions are label → accuracy'),
        (
            "accuracy",
            [["a"]],
            [["a"]],
            '"accuracy" scores label or choice, the predictions are labels or tags → f1_macro',
        ),
        ("qa_f1", ["a"], ["a"], "scores answer, the predictions are label"),
        ("pearson", ["1.0"], ["1.0"], "scores value, the predictions are label"),
        ("f1_macro", [1.5], [1.0], "scores label or labels, the predictions are value"),
        ("accuracy", ["a", "b"], ["a", None], r"\(text, nothing\), \(text, text\) → all alike"),
    ],
)
def test_a_metric_must_fit_the_predictions(name: str, predictions: Any, references: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compute([name], predictions, references)


# --- the table


def test_table_is_consistent() -> None:
    assert all(info.name == name and set(info.kinds) <= set(KINDS) and info.bounds for name, info in METRICS.items())
    assert not set(ALIASES) & set(METRICS)
    assert set(ALIASES.values()) <= set(METRICS)
    assert [name for name, info in METRICS.items() if not info.higher_better] == ["mse", "mae"]
    assert all(metrics_for(kind) for kind in KINDS)
    assert metrics_for("answer") == ["exact_match", "qa_f1"]


@pytest.mark.parametrize("alias", list(ALIASES))
def test_aliases_are_the_same_metric(alias: str) -> None:
    assert metric_info(alias) is METRICS[ALIASES[alias]]


def test_names_that_the_table_lacks_have_no_info() -> None:
    assert metric_info("bleu") is None
    assert metric_info("hub:accuracy") is None


def test_primary_is_the_first_and_higher_better() -> None:
    assert primary(["f1_macro", "mse"]) == "f1_macro"
    assert primary(["matthews"]) == "matthews"
    assert primary(["hub:bleu"]) == "hub:bleu"
    with pytest.raises(UserError, match=r'"mse" is better when lower .* put one of pearson, spearman before it'):
        primary(["mse", "pearson"])
    for wrong in ([], "accuracy"):
        with pytest.raises(UserError, match="a list with at least one name"):
            primary(wrong)


# --- what is imported, what is written, and the road to the Hub

HEAVY = ("torch", "evaluate", "sklearn", "seqeval", "scipy", "transformers", "datasets", "numpy")


def run_python(code: str, cwd: Path, **env: str) -> Any:
    """What a fresh interpreter prints last, as JSON."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_import_is_light(tmp_path: Path) -> None:
    code = f"import json, sys, mtl_nlp.metrics; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    assert run_python(code, tmp_path) == []


def test_computing_imports_neither_torch_nor_evaluate(tmp_path: Path) -> None:
    code = f"""
import json, sys
from mtl_nlp.metrics import compute
compute(["accuracy", "f1_macro"], ["a"], ["a"])
compute(["span_f1", "span_f1_strict"], [["B-A"]], [["B-A"]])
compute(["exact_match"], ["a"], [["a"]])
print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))
"""
    assert set(run_python(code, tmp_path)) <= {"sklearn", "seqeval", "scipy", "numpy"}


SCRIPT = """
import datasets
import evaluate


class Counts(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"right": sum(p == r for p, r in zip(predictions, references)), "highest": max(references)}
"""

OFFLINE = """
import json, os
from mtl_nlp.errors import UserError
from mtl_nlp.metrics import compute, load_metric

out = {}
out["own"] = load_metric("accuracy").compute(predictions=["a", "b"], references=["a", "a"])
out["tags"] = load_metric("seqeval").compute(predictions=[["B-A"]], references=[["B-A"]])
out["files"] = [name for _, folders, files in os.walk(".") for name in folders + files]
out["cache"] = os.path.exists(os.path.join(os.environ["HF_HOME"], "metrics"))

def fault(action):
    try:
        action()
    except UserError as error:
        return str(error)

out["unknown"] = fault(lambda: load_metric("acuracy"))
out["hub"] = fault(lambda: compute(["hub:accuracy"], ["a"], ["a"]))
script = os.environ["SCRIPT"]
rows = (["b", "a"], ["b", "b"])
out["right"] = compute([f"hub:{script}:right"], *rows, labels=["c", "a", "b"])[f"hub:{script}:right"]
out["highest"] = compute([f"hub:{script}:highest"], *rows, labels=["c", "a", "b"])[f"hub:{script}:highest"]
out["several"] = fault(lambda: compute([f"hub:{script}"], *rows))
out["unfit"] = fault(lambda: compute([f"hub:{script}"], [["a"]], [["a"]]))
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process without a Hub, in an empty folder, finds."""
    home, cwd, script = (tmp_path_factory.mktemp(name) for name in ("home", "cwd", "counts"))
    (script / "counts.py").write_text(SCRIPT)
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home), "SCRIPT": str(script / "counts.py")}
    return dict(run_python(OFFLINE, cwd, **environment))


def test_own_metrics_need_no_hub(offline: dict[str, Any]) -> None:
    assert offline["own"] == {"accuracy": 0.5}
    assert offline["tags"] == {"overall_f1": 1.0}


def test_own_metrics_write_no_file(offline: dict[str, Any]) -> None:
    assert offline["files"] == []
    assert offline["cache"] is False


def test_unknown_name_is_named_with_the_known_ones(offline: dict[str, Any]) -> None:
    message = offline["unknown"]
    assert message.startswith('no metric "acuracy". Did you mean "accuracy"? Known: accuracy, f1,')
    assert all(name in message for name in METRICS)
    assert "comes from the Hub, which must be reachable" in message


def test_hub_prefix_passes_the_table_by(offline: dict[str, Any]) -> None:
    assert offline["hub"].startswith('no metric "hub:accuracy".')


def test_a_metric_from_elsewhere_gets_label_positions(offline: dict[str, Any]) -> None:
    assert offline["right"] == 1.0
    assert offline["highest"] == 2.0


def test_a_metric_from_elsewhere_says_what_does_not_fit(offline: dict[str, Any]) -> None:
    assert "gives right, highest → name one of them: hub:" in offline["several"]
    assert "cannot score these predictions" in offline["unfit"]
