"""What `init` takes columns and files for: literal tables, worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.cli.draft import CorpusDraft, TaskDraft, batch_of, epochs_of, recipe_text, relative, scalar, slug
from mtl_nlp.data.annotations import AnnotationReader
from mtl_nlp.data.guess import TaskGuess, guess_table, read_sample
from mtl_nlp.data.guess_columns import profile
from mtl_nlp.data.guess_names import name_parts, name_role
from mtl_nlp.data.guess_tags import guess_scheme
from mtl_nlp.data.layout import FileGroup, find_groups, no_table, split_of
from mtl_nlp.recipe import make_recipe
from mtl_nlp.schema import parse_yaml
from mtl_nlp.task import Task

TEXTS = [f"the film number {i} was fine" for i in range(20)]
BINARY = ["good", "bad"] * 10


def only(columns: dict[str, list[Any]], **more: Any) -> TaskGuess:
    """The one task of a table."""
    found = guess_table(columns, **more)
    assert len(found.tasks) == 1, found
    return found.tasks[0]


@pytest.mark.parametrize("text", ["text", "Sentence", "review_text", "Message", "utterance", "nothing telling"])
@pytest.mark.parametrize("label", ["label", "sentiment", "Intent", "airline_sentiment", "is_spam", "whatever"])
def test_a_text_and_a_label_are_found_by_name_or_by_form(text: str, label: str) -> None:
    task = only({"id": list(range(20)), text: TEXTS, label: BINARY})
    assert task.head == "sequence_classification"
    assert task.columns == {"text": text, "label": label}
    assert task.labels == {"good": 10, "bad": 10}
    assert task.annotated == 20


def test_an_exact_name_of_a_text_column_comes_before_longer_texts() -> None:
    task = only({"title": [text * 3 for text in TEXTS], "text": TEXTS, "label": BINARY})
    assert task.columns == {"text": "text", "label": "label"}


def test_without_a_telling_name_the_longest_texts_are_read() -> None:
    found = guess_table({"a": [f"x{i}" for i in range(20)], "b": TEXTS, "c": BINARY})
    assert [task.columns for task in found.tasks] == [{"text": "b", "label": "c"}]
    assert found.unused == {"a": "another text"}


def test_integer_labels_are_called_as_digits() -> None:
    assert only({"text": TEXTS, "label": [0, 1] * 10}).labels == {"0": 10, "1": 10}
    assert only({"text": TEXTS, "label": [0.0, 1.0, None, 1.0] * 5}).labels == {"0": 5, "1": 10}


def test_class_names_of_the_source_name_the_labels() -> None:
    task = only({"text": TEXTS, "label": [0, 1] * 10}, class_names={"label": ["neg", "pos"]})
    assert task.labels == {"neg": 10, "pos": 10}


def test_booleans_are_labels() -> None:
    task = only({"text": TEXTS, "is_spam": [True, False] * 10})
    assert (task.head, task.labels) == ("sequence_classification", {"true": 10, "false": 10})


def test_several_named_labels_are_several_tasks_on_the_same_text() -> None:
    found = guess_table(
        {"text": TEXTS, "intent": ["a", "b"] * 10, "sentiment": ["x", "y"] * 10, "author": ["m", "n"] * 10}
    )
    assert [task.columns for task in found.tasks] == [
        {"text": "text", "label": "intent"},
        {"text": "text", "label": "sentiment"},
    ]
    assert found.unused == {"author": "no annotation, it seems"}


def test_a_column_of_few_values_beside_a_named_label_is_only_mentioned() -> None:
    found = guess_table({"text": TEXTS, "label": BINARY, "team": ["red", "blue"] * 10})
    assert [task.annotation for task in found.tasks] == ["label"]
    assert found.unused == {"team": "2 values, could be a label"}


def test_codes_beside_their_names_are_no_task_of_their_own() -> None:
    found = guess_table({"text": TEXTS, "label": [0, 1] * 10, "label_text": BINARY})
    assert [task.annotation for task in found.tasks] == ["label_text"]
    assert found.unused == {"label": "the codes of label_text"}


@pytest.mark.parametrize("name", ["score", "label", "similarity"])
def test_fractions_are_regression(name: str) -> None:
    task = only({"text": TEXTS, name: [i * 0.25 for i in range(20)]})
    assert (task.head, task.columns) == ("regression", {"text": "text", "label": name})
    assert not task.labels


def test_whole_scores_are_labels_when_few_and_numbers_when_many() -> None:
    few = only({"text": TEXTS, "rating": [1, 2, 3, 4, 5] * 4})
    assert few.head == "sequence_classification"
    assert few.notes == ("`head: regression` would predict the number itself",)
    assert only({"text": TEXTS, "rating": [5 * i for i in range(20)]}).head == "regression"
    assert only({"text": TEXTS, "rating": [str(5 * i) for i in range(20)]}).head == "regression"


def test_a_confidence_beside_a_label_is_not_learned() -> None:
    found = guess_table({"text": TEXTS, "label": BINARY, "label_confidence": [i / 20 for i in range(20)]})
    assert [task.annotation for task in found.tasks] == ["label"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("question1", "question2"),
        ("text_a", "text_b"),
        ("Question", "Sentence"),
    ],
)
def test_pairs(first: str, second: str) -> None:
    task = only({"idx": list(range(20)), first: TEXTS, second: TEXTS[::-1], "label": [0, 1] * 10})
    assert task.columns == {"text": first, "pair": second, "label": "label"}


def test_a_list_of_strings_is_several_labels() -> None:
    task = only({"text": TEXTS, "emotions": [["joy"], ["joy", "fear"], [], ["fear"]] * 5})
    assert (task.head, task.columns) == ("multi_label_classification", {"text": "text", "labels": "emotions"})
    assert task.labels == {"joy": 10, "fear": 10}
    assert task.annotated == 20


@pytest.mark.parametrize(
    "values",
    [["joy", "joy|fear", "fear", "joy | fear"] * 5, ['["joy"]', '["joy", "fear"]', '["fear"]', '["joy", "fear"]'] * 5],
)
def test_several_labels_in_one_string(values: list[str]) -> None:
    task = only({"text": TEXTS, "labels": values})
    assert task.head == "multi_label_classification"
    assert task.labels == {"joy": 15, "fear": 15}


def test_lists_as_python_prints_them_are_refused_by_name() -> None:
    found = guess_table({"text": TEXTS, "labels": ["['joy']", "['joy', 'fear']"] * 10})
    assert found.tasks == []
    assert found.unused == {"labels": "lists as Python prints them; JSONL keeps lists"}


def test_labels_with_commas_are_remarked_on() -> None:
    task = only({"text": TEXTS, "topic": ["a;b", "a", "b", "b;a"] * 5})
    assert "several labels a text are written a|b" in task.notes[0]


def test_spellings_of_one_label_are_remarked_on() -> None:
    task = only({"text": TEXTS, "label": ["Good", "good", "bad ", "bad"] * 5})
    assert task.notes[0].startswith('"Good", "good" count as different labels')


def test_minus_one_is_a_label_only_between_zero_and_one() -> None:
    polarity = only({"text": TEXTS, "polarity": [-1, 0, 1, 1] * 5})
    assert polarity.missing == ("",)
    assert polarity.labels == {"-1": 5, "0": 5, "1": 10}
    gaps = only({"text": TEXTS, "label": [-1, 0, 1, 2] * 5})
    assert gaps.missing is None
    assert gaps.labels == {"0": 5, "1": 5, "2": 5}
    assert gaps.annotated == 15


WORDS = [["anna", "is", "in", "paris"], ["bob", "left"]] * 5


def test_words_and_their_tags() -> None:
    tags = [["B-PER", "O", "O", "B-LOC"], ["B-PER", "O"]] * 5
    task = only({"id": list(range(10)), "tokens": WORDS, "ner_tags": tags})
    assert (task.head, task.columns) == ("token_classification", {"tokens": "tokens", "labels": "ner_tags"})
    assert (task.scheme, task.labels) == ("iob2", {"PER": 10, "LOC": 5})
    assert task.metric_names == ("span_f1", "span_precision", "span_recall")


def test_tags_are_told_from_words_by_their_number_not_their_order() -> None:
    task = only({"x": [["B", "O", "O", "B"], ["B", "O"]] * 5, "y": WORDS})
    assert task.columns == {"tokens": "y", "labels": "x"}


def test_integer_tags_take_the_source_s_names_or_ask_for_them() -> None:
    codes = [[1, 0, 0, 2], [1, 0]] * 5
    named = only({"tokens": WORDS, "tags": codes}, class_names={"tags": ["O", "B-PER", "B-LOC"]})
    assert (named.scheme, named.labels) == ("iob2", {"PER": 10, "LOC": 5})
    bare = only({"tokens": WORDS, "tags": codes})
    assert (bare.scheme, bare.metric_names) == ("none", ("token_accuracy",))
    assert "data.names" in bare.notes[0]


def test_words_and_tags_in_strings() -> None:
    columns = {
        "sentence": ["anna is here", "bob left"] * 5,
        "tags": ["B-PER O O", "B-PER O"] * 5,
        "label": ["a", "b"] * 5,
    }
    found = guess_table(columns)
    assert [task.columns for task in found.tasks] == [
        {"tokens": "sentence", "labels": "tags"},
        {"text": "sentence", "label": "label"},
    ]


def test_labels_beside_tags_are_read_from_the_raw_text_if_it_holds_the_words() -> None:
    tags = [["B-PER", "O", "O", "B-LOC"], ["B-PER", "O"]] * 5
    table = {"tokens": WORDS, "tags": tags, "intent": ["a", "b"] * 5}
    raw = [" ".join(words) for words in WORDS]
    assert guess_table({**table, "text": raw}).tasks[1].columns == {"text": "text", "label": "intent"}
    assert guess_table({**table, "title": TEXTS[:10]}).tasks[1].columns == {"tokens": "tokens", "label": "intent"}


@pytest.mark.parametrize(
    ("sentences", "scheme"),
    [
        ([["B-X", "I-X", "O", "B-X"]], "iob2"),
        ([["I-X", "I-X", "O", "I-Y"]], "iob1"),
        ([["I-X", "B-X", "O"], ["I-Y"]], "iob1"),
        ([["B-X", "O"]], "iob2"),
        ([["S-X", "O", "B-X", "I-X", "E-X"]], "bioes"),
        ([["U-X", "O", "B-X", "L-X"]], "bioes"),
        ([["NOUN", "VERB"]], "none"),
        ([["B-X", "NOUN"]], "none"),
        ([["PER", "O"]], "none"),
    ],
)
def test_the_scheme_follows_from_the_tags(sentences: list[list[str]], scheme: str) -> None:
    assert guess_scheme(sentences) == scheme


def test_parts_of_speech_are_scored_by_word() -> None:
    task = only({"tokens": WORDS, "upos": [["N", "V", "P", "N"], ["N", "V"]] * 5})
    assert (task.scheme, task.metric_names) == ("none", ("token_accuracy",))


@pytest.mark.parametrize(
    "spans",
    [
        [[{"start": 0, "end": 3, "label": "DET"}], []],
        [[[0, 3, "DET"]], []],
        ['[{"start": 0, "end": 3, "label": "DET"}]', "[]"],
    ],
)
def test_spans_in_raw_text(spans: list[Any]) -> None:
    task = only({"text": TEXTS, "label": spans * 10})
    assert (task.head, task.columns) == ("token_classification", {"text": "text", "spans": "label"})
    assert (task.labels, task.annotated) == ({"DET": 10}, 20)


def test_intent_and_spans_of_one_file_are_two_tasks() -> None:
    found = guess_table(
        {"text": TEXTS, "intent": BINARY, "entities": [[{"start": 0, "end": 3, "label": "A"}], []] * 10}
    )
    assert {task.annotation: task.head for task in found.tasks} == {
        "entities": "token_classification",
        "intent": "sequence_classification",
    }


def test_tags_come_before_spans_as_words_can_be_cut_in_one_way_only() -> None:
    found = guess_table(
        {
            "text": [" ".join(words) for words in WORDS],
            "tokens": WORDS,
            "tags": [["B-PER", "O", "O", "B-LOC"], ["B-PER", "O"]] * 5,
            "spans": [[{"start": 0, "end": 3, "label": "A"}]] * 10,
        }
    )
    assert [task.annotation for task in found.tasks] == ["tags"]
    assert found.unused == {"spans": "spans; the words' tags are learned instead"}


@pytest.mark.parametrize(
    "answer",
    [{"text": ["film"], "answer_start": [4]}, [{"text": "film", "answer_start": 4}], {"text": [], "answer_start": []}],
)
def test_question_answering(answer: Any) -> None:
    columns = {
        "id": [str(i) for i in range(20)],
        "title": BINARY,
        "question": TEXTS,
        "context": TEXTS,
        "answers": [answer] * 20,
    }
    task = only(columns)
    assert task.head == "question_answering"
    assert task.columns == {"question": "question", "context": "context", "answers": "answers"}


def test_multiple_choice_in_one_list_and_in_columns() -> None:
    race = only(
        {"article": TEXTS, "question": TEXTS, "options": [["a b", "c d", "e f"]] * 20, "answer": ["A", "C"] * 10}
    )
    assert race.columns == {"context": "article", "question": "question", "choices": "options", "label": "answer"}
    assert race.fixed_labels == ("A", "B", "C")
    swag = only({"sent1": TEXTS, "sent2": TEXTS, "ending0": TEXTS, "ending1": TEXTS, "label": [0, 1] * 10})
    assert swag.columns["choice_columns"] == ["ending0", "ending1"]
    assert swag.fixed_labels == ()


QUERIES = ["where is my parcel", "who pays the return", "where is my parcel", "can I pay later"]
PASSAGES = ["Parcels are tracked.", "Returns are free.", "Parcels can be late.", "Pay within 30 days."]


def test_a_passage_that_answers_is_a_retrieval_and_other_labels_are_of_the_question() -> None:
    columns = {"query": QUERIES, "positive": PASSAGES, "negatives": [[PASSAGES[1]], [], [], [PASSAGES[0]]]}
    columns["intent"] = ["parcel", "money", "parcel", "money"]
    retrieval, intent = guess_table(columns).tasks
    assert retrieval.head == "retrieval"
    assert retrieval.columns == {"query": "query", "positive": "positive", "negatives": "negatives"}
    assert (intent.head, intent.columns) == ("sequence_classification", {"text": "query", "label": "intent"})
    (triplet,) = guess_table({"anchor": QUERIES, "positive": PASSAGES, "negative": PASSAGES[::-1]}).tasks
    assert triplet.columns == {"query": "anchor", "positive": "positive", "negatives": "negative"}


def test_candidates_and_their_relevance_are_a_ranking() -> None:
    lists = {"query": QUERIES[:2], "candidates": [PASSAGES[:2], PASSAGES[2:]], "relevance": [[0, 1], [1, 0]]}
    (ranking,) = guess_table(lists).tasks
    roles = {"query": "query", "candidates": "candidates", "relevance": "relevance"}
    assert (ranking.head, ranking.columns) == ("ranking", roles)
    rows = {"query": [*QUERIES[:1] * 2, *QUERIES[1:2] * 2], "passage": PASSAGES, "relevance": [0, 1, 1, 0]}
    (ranking,) = guess_table(rows).tasks
    assert (ranking.head, ranking.columns["candidate"]) == ("ranking", "passage")
    # A query that never comes twice has nothing to be ranked: these are pairs.
    (pairs,) = guess_table({**rows, "query": ["a b", "c d", "e f", "g h"], "label": ["x", "y", "x", "y"]}).tasks[:1]
    assert pairs.head == "sequence_classification"


def test_conll_reads_words_first_and_tags_last() -> None:
    columns = {
        "tokens": WORDS,
        "pos_tags": WORDS,
        "chunk_tags": WORDS,
        "ner_tags": [["B-PER", "O", "O", "O"], ["O", "O"]] * 5,
    }
    found = guess_table(columns, format="conll")
    assert found.tasks[0].columns == {"tokens": "tokens", "labels": "ner_tags"}
    assert list(found.unused) == ["pos_tags", "chunk_tags"]


def test_conll_u_numbers_its_words_and_tags_stand_fourth() -> None:
    names = ["tokens", *(f"column_{i}" for i in range(2, 10)), "labels"]
    columns: dict[str, list[Any]] = {name: [["_"] * 4, ["_"] * 2] * 5 for name in names}
    columns |= {"tokens": [["1", "2", "3", "4"], ["1", "2"]] * 5, "column_2": WORDS}
    columns["column_4"] = [["NOUN", "VERB", "ADP", "NOUN"], ["NOUN", "VERB"]] * 5
    assert guess_table(columns, format="conll").tasks[0].columns == {"tokens": "column_2", "labels": "column_4"}


def test_conll_u_under_another_ending_tells_of_its_ranges() -> None:
    names = ["tokens", *(f"column_{i}" for i in range(2, 10)), "labels"]
    columns: dict[str, list[Any]] = {name: [["_"] * 4, ["_"] * 2] * 5 for name in names}
    columns |= {"tokens": [["1", "2-3", "2", "3"], ["1", "2"]] * 5, "column_2": WORDS}
    columns["column_4"] = [["NOUN", "_", "ADP", "NOUN"], ["NOUN", "VERB"]] * 5
    told = "it has multiword tokens (3-4), which are read as words: call it .conllu, and they are left out"
    assert guess_table(columns, format="conll").notes == (told,)


def test_conll_without_tags_is_no_task() -> None:
    assert guess_table({"tokens": WORDS}, format="conll").problem == "one column only: no tags beside the words"


def test_a_file_without_column_names_is_noticed() -> None:
    columns = {"the film was great": TEXTS, "good": BINARY}
    assert guess_table(columns, format="csv").problem.startswith('line 1 seems to be data ("good" is the name')


def test_a_column_of_splits_is_a_warning() -> None:
    found = guess_table({"text": TEXTS, "label": BINARY, "split": ["train", "test"] * 10})
    assert [task.annotation for task in found.tasks] == ["label"]
    assert found.notes[0].startswith('column "split" names splits')


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"id": [1, 2, 3], "n": [4, 5, 6]}, "no column of text (it has id, n)"),
        (
            {"text": TEXTS, "id": list(range(20))},
            "no column to learn from beside text; others: id: no annotation, it seems",
        ),
        ({"text": TEXTS, "label": ["x"] * 20}, "no column to learn from beside text; others: label: one value only"),
        ({"text": TEXTS, "label": [None] * 20}, "no column to learn from beside text; others: label: empty"),
    ],
)
def test_no_task_is_explained(columns: dict[str, list[Any]], problem: str) -> None:
    found = guess_table(columns)
    assert (found.tasks, found.problem) == ([], problem)


def test_languages_are_learned_when_there_is_nothing_else() -> None:
    assert only({"text": TEXTS, "lang": ["en", "de"] * 10}).annotation == "lang"


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("label", "label"),
        ("goldLabels", "label"),
        ("categories", "label"),
        ("Señtiment", "label"),
        ("has_toxicity", "label"),
        ("label_id", "identifier"),
        ("pairID", "identifier"),
        ("sentiment_score", "value"),
        ("sentiment_confidence", "meta"),
        ("user name", "meta"),
        ("team", ""),
        ("!", ""),
    ],
)
def test_roles_of_names(name: str, role: str) -> None:
    assert name_role(name) == role


def test_name_parts_lose_case_digits_accents_and_plural() -> None:
    assert name_parts("Gold_Labels2 café-isClass") == ["gold", "label", "cafe", "is", "class"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, ""], "empty"),
        ([1, 2.0, None], "int"),
        ([1, 2.5], "float"),
        (["[1, 2]", "[3]"], "ints"),
        (["[Anna] called", "x"], "text"),
        ([{"a": 1}], "other"),
    ],
)
def test_kinds_of_values(values: list[Any], kind: str) -> None:
    assert profile("x", values).kind == kind


def test_a_sample_is_spread_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sorted.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{'a' if i < 50 else 'b'}\n" for i in range(100)), encoding="utf-8")
    sample = read_sample([path], most=10)
    assert sample.rows == 100
    assert sample.columns["label"] == ["a"] * 5 + ["b"] * 5


def test_class_names_come_with_a_parquet_file(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, List, Value

    tags = List(ClassLabel(names=["O", "B-X", "I-X"]))
    features = Features({"tokens": List(Value("string")), "tags": tags, "label": ClassLabel(names=["no", "yes"])})
    rows = {"tokens": WORDS, "tags": [[1, 2, 0, 0], [0, 0]] * 5, "label": [0, 1] * 5}
    Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "a.parquet"))
    sample = read_sample([tmp_path / "a.parquet"])
    found = guess_table(sample.columns, sample.class_names, format=sample.format)
    assert [(task.annotation, task.labels) for task in found.tasks] == [
        ("tags", {"X": 5}),
        ("label", {"no": 5, "yes": 5}),
    ]


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        ("reviews", ("reviews", None)),
        ("reviews_train", ("reviews", "train")),
        ("reviews.dev", ("reviews", "validation")),
        ("Test-reviews", ("reviews", "test")),
        ("valid", ("", "validation")),
        ("train-00000-of-00002", ("", "train")),
        ("trained", ("trained", None)),
        ("contest", ("contest", None)),
    ],
)
def test_splits_in_names(stem: str, found: tuple[str, str | None]) -> None:
    assert split_of(stem) == found


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")


def _names(folder: Path) -> dict[str, dict[str, list[str]]]:
    groups = find_groups(folder).groups
    return {g.name: {s: [p.name for p in paths] for s, paths in g.files.items()} for g in groups}


def test_files_are_grouped_by_data_set(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "a.csv",
        "b_train.csv",
        "b_test.csv",
        "dev_b.jsonl",
        "c/train.tsv",
        "c/valid.tsv",
        "d/x.csv",
        "d/y.csv",
    )
    assert _names(tmp_path) == {
        "a": {"train": ["a.csv"]},
        "b": {"train": ["b_train.csv"], "validation": ["dev_b.jsonl"], "test": ["b_test.csv"]},
        "c": {"train": ["train.tsv"], "validation": ["valid.tsv"]},
        "d_x": {"train": ["x.csv"]},
        "d_y": {"train": ["y.csv"]},
    }


def test_splits_directly_in_the_folder_are_called_after_it(tmp_path: Path) -> None:
    _touch(tmp_path / "mine", "train.csv", "test.csv")
    assert _names(tmp_path / "mine") == {"mine": {"train": ["train.csv"], "test": ["test.csv"]}}


def test_one_name_with_two_endings_is_two_data_sets(tmp_path: Path) -> None:
    _touch(tmp_path, "a.csv", "a.jsonl")
    assert _names(tmp_path) == {"a_csv": {"train": ["a.csv"]}, "a_jsonl": {"train": ["a.jsonl"]}}


def test_shards_stay_together(tmp_path: Path) -> None:
    _touch(tmp_path, "d/train-00000-of-00002.parquet", "d/train-00001-of-00002.parquet")
    assert _names(tmp_path) == {"d": {"train": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]}}


def test_files_left_out_have_a_reason(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "a.csv",
        "a_train.csv",
        "x.xlsx",
        "b_test.csv",
        "c/dev.csv",
        "c/train.csv",
        "c/val.csv",
        "e/f/g.csv",
        "r.yaml",
    )
    assert {path.name: why for path, why in find_groups(tmp_path).unused} == {
        "a.csv": "a_train.csv is the training file of a",
        "x.xlsx": 'ending ".xlsx" is not read; allowed: .jsonl, .json, .csv, .tsv, .parquet, .conll, .conllu, .bio, .iob, .txt',
        "b_test.csv": "a test file without a training file (such as b_train.csv)",
        "val.csv": "dev.csv is the validation file already",
        "e": "no data file directly in this folder",
    }


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "text,label\n", ""),
        ("a.csv", "text;label\n", "separated by semicolons, not commas: save it with commas"),
        ("a.tsv", "text,label\n", "separated by commas, not tabs: save it with tabs"),
        ("a.txt", "one two three\nfour five\n", "a text, not one word a line with its tag"),
        ("a.txt", "anna B-PER\nleft O\n\nbob B-PER\n", ""),
        (
            "a.txt",
            "__label__pos a good film\n__label__neg a bad film\n",
            "lines of fastText (__label__NAME, then the text): write them as a .csv with the columns label and text",
        ),
        ("a.json", '{\n "a": 1\n}\n', "one JSON document, not a list of rows"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', ""),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert no_table(tmp_path / name) == reason


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Kundenbewertungen 2023 (neu)", "kundenbewertungen_2023_neu"),
        ("été", "ete"),
        ("20newsgroups", "task_20newsgroups"),
        ("отзывы", ""),
    ],
)
def test_names_of_tasks(text: str, name: str) -> None:
    assert slug(text) == name


@pytest.mark.parametrize("texts", range(1, 200))
def test_the_batch_is_32_or_fits_a_small_file(texts: int) -> None:
    batch = batch_of(texts)
    assert batch == 32 if texts >= 64 else 2 <= batch <= max(2, texts // 2)


def test_less_data_is_passed_over_more_often() -> None:
    assert [epochs_of(texts) for texts in (50, 200, 2_000, 20_000)] == [20, 10, 5, 3]


NASTY = [
    "label: #1",
    "true",
    "12",
    "été",
    'a "b" \\n',
    "line\nbreak",
    "bell\x07",
    "- x",
    "😀",
    "a, [b]",
    "~",
    " lead",
    "NULL",
    "no",
    "x\x85y",
    "{a}",
    "*a",
]


@pytest.mark.parametrize("text", NASTY)
def test_any_string_survives_the_recipe(text: str) -> None:
    data, _ = parse_yaml(f"key: {scalar(text)}\nlist: [{scalar(text)}, x]", "x.yaml")
    assert data == {"key": text, "list": [text, "x"]}


@pytest.mark.parametrize("text", NASTY)
def test_a_recipe_with_strange_names_reads_back(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    columns = {text: TEXTS, "label": [text, "bad"] * 10}
    guess = only(columns)
    group = FileGroup("x", {"train": (folder / "a b.csv",)})
    corpus = CorpusDraft(group, {"train": 20}, [TaskDraft("x", guess, 20)], {text: "unused\n"}, [text])
    written = recipe_text([corpus], folder=folder, target=tmp_path / "recipe.yaml", encoder=f"owner/{text}")
    data, source = parse_yaml(written, "recipe.yaml")
    task = make_recipe(data, source, tmp_path).definitions[0]
    assert task.data.columns.text == text
    assert task.data.source == "data/a b.csv"
    assert data["encoder"]["name"] == f"owner/{text}"
    assert task.metrics == ["accuracy", "f1_macro"]
    assert task.labels is None


def test_paths_start_from_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "recipes").mkdir()
    file = tmp_path / "data" / "a.csv"
    assert relative(file, tmp_path) == "data/a.csv"
    assert relative(file, tmp_path / "recipes") == "../data/a.csv"
    (tmp_path / "data" / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert relative(tmp_path / "data" / "link.csv", tmp_path / "data") == "link.csv"


ANSWERS = [
    {"text": ["film"], "answer_start": [4]},
    [{"text": "film", "answer_start": 4}],
    '{"text": ["film"], "answer_start": [4]}',
]


@pytest.mark.parametrize("value", [*ANSWERS, "film", {"text": ["film"]}, {"text": ["film"], "answer_start": [4, 5]}])
def test_what_is_guessed_to_be_answers_is_read_as_answers(value: Any) -> None:
    columns: dict[str, Any] = {"question": "question", "context": "context", "answers": "answers"}
    task = Task.model_validate({"name": "qa", "head": "question_answering", "data": {"columns": columns}})
    reader = AnnotationReader(task, None)
    read = reader.read(0, value, "the film was fine")
    guessed = guess_table({"question": TEXTS, "context": TEXTS, "answers": [value] * 20}).tasks
    if value in ANSWERS:
        assert read == {"text": ["film"], "answer_start": [4]}
        assert [task.head for task in guessed] == ["question_answering"]
    else:
        assert read is None
        assert "allowed: {text: [a, …], answer_start: [0, …]}" in reader.counts.problems[0].found
