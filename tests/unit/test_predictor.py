"""Predictions by head kind, offsets, order, windows, what a row feeds, and faults."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
import torch

from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import write_checksums
from mtl_nlp.inference import Predictor
from mtl_nlp.inference.inputs import FRAME_PART, rows_of
from mtl_nlp.inference.predictor import Tally
from mtl_nlp.metrics import compute
from tests.tiny_checkpoint import CONTEXT, DATA, build_checkpoint

TEXT_TASKS = ["sent", "topics", "stars", "ner", "places"]
LONG = "bob was at acme corp in paris . the food was slow and the staff was late " * 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("predict") / "run", tiny_encoder, max_length=24)


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.from_pretrained(checkpoint, "cpu")


@pytest.fixture(scope="module")
def tagging(checkpoint: Path) -> Predictor:
    """The same with token heads that tag every word: `places` with B-CITY, `ner` by turns of random weights."""
    made = Predictor.from_pretrained(checkpoint, "cpu")
    with torch.no_grad():
        ner, places = made.model.heads["ner"].classifier, made.model.heads["places"].classifier
        ner.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
        ner.bias[0] = -1000.0
        places.bias[:] = torch.tensor([-1000.0, 0.0, -1000.0])
    return made


def one(predictor: Predictor, row: Any, task: str, **options: Any) -> dict[str, Any]:
    """The only row's answer to one task."""
    return predictor([row], [task], **options)[0]["predictions"][task]


def close(first: Any, second: Any) -> bool:
    """Equal but for numerical noise in floats."""
    if isinstance(first, float):
        return first == pytest.approx(second, abs=1e-5)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(close(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(close(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


def logits(predictor: Predictor, task: str, *texts: str) -> torch.Tensor:
    """What the model says of one text or pair, without any of our encoding."""
    inputs = predictor.tokenizer(*texts, return_tensors="pt")
    with torch.inference_mode():
        return predictor.model(**inputs, tasks={task: {"rows": torch.tensor([0])}}).logits[task]


# The form of each kind


def test_classification_gives_the_likeliest_label_and_its_probability(predictor: Predictor) -> None:
    found = predictor(["the film was great"], ["sent"], scores=True)
    assert list(found[0]) == ["text", "predictions"]
    expected = logits(predictor, "sent", "the film was great").softmax(-1)[0]
    answer = found[0]["predictions"]["sent"]
    assert list(answer) == ["label", "score", "scores"]
    assert answer["label"] == ["negative", "positive"][int(expected.argmax())]
    assert answer["score"] == pytest.approx(float(expected.max()), abs=1e-6)
    assert answer["scores"] == pytest.approx({"negative": float(expected[0]), "positive": float(expected[1])}, abs=1e-6)
    assert list(answer["scores"].values()) == sorted(answer["scores"].values(), reverse=True)


def test_multi_label_gives_labels_above_one_half(predictor: Predictor) -> None:
    answer = one(predictor, "the food was good", "topics", scores=True)
    probabilities = logits(predictor, "topics", "the food was good").sigmoid()[0]
    expected = {name: float(p) for name, p in zip(["delivery", "food", "staff"], probabilities, strict=True)}
    assert answer["scores"] == pytest.approx(expected, abs=1e-6)
    assert {found["label"] for found in answer["labels"]} == {name for name, p in expected.items() if p > 0.5}
    assert all(found["score"] == pytest.approx(expected[found["label"]], abs=1e-6) for found in answer["labels"])


def test_regression_gives_a_number(predictor: Predictor) -> None:
    answer = one(predictor, "the food was good", "stars", scores=True)
    assert answer == {"value": pytest.approx(float(logits(predictor, "stars", "the food was good")[0]), abs=1e-5)}


def test_entities_have_the_five_fields_of_the_pipeline(tagging: Predictor) -> None:
    answer = one(tagging, "a flight to Paris", "places")
    assert list(answer) == ["entities"]
    assert answer["entities"]
    for entity in answer["entities"]:
        assert list(entity) == ["entity_group", "score", "word", "start", "end"]
        assert entity["entity_group"] == "CITY"
        assert 0 < entity["score"] <= 1


def test_an_answer_is_a_span_of_the_context(predictor: Predictor) -> None:
    answer = one(predictor, {"question": "who is in london", "context": CONTEXT}, "qa")
    assert list(answer) == ["answer", "start", "end", "score"]
    assert answer["answer"] == CONTEXT[answer["start"] : answer["end"]]
    assert 0 < answer["score"] <= 1


def test_a_choice_is_its_number_as_a_string_and_its_text(predictor: Predictor) -> None:
    row = {"context": "anna was late", "e0": "she cost paris", "e1": "the box is fine"}
    answer = one(predictor, row, "swag", scores=True)
    assert answer["choice"] == row[f"e{answer['label']}"]
    assert set(answer["scores"]) == {"0", "1"}
    assert sum(answer["scores"].values()) == pytest.approx(1)
    as_list = one(predictor, {"context": "anna was late", "choices": [row["e0"], row["e1"]]}, "swag", scores=True)
    assert close(answer, as_list)


def test_choices_may_differ_in_number(predictor: Predictor) -> None:
    rows = [{"context": "anna", "choices": ["a"] * size} for size in (1, 5, 2)]
    found = [row["predictions"]["swag"] for row in predictor(rows, "swag", scores=True)]
    assert [len(answer["scores"]) for answer in found] == [1, 5, 2]
    assert [answer["score"] for answer in found] == pytest.approx([1, 1 / 5, 1 / 2])


def test_top_gives_the_highest_scores_only(predictor: Predictor) -> None:
    everything = one(predictor, "the food", "topics", scores=True)["scores"]
    assert one(predictor, "the food", "topics", top=2)["scores"] == dict(list(everything.items())[:2])


def test_predictions_are_json(predictor: Predictor) -> None:
    rows = ["anna is in london", {"question": "who", "context": CONTEXT}, ["a", "b"]]
    found = predictor(rows, scores=True)
    assert json.loads(json.dumps(found)) == found


def test_predictions_score_what_the_evaluation_reported(predictor: Predictor, checkpoint: Path) -> None:
    reported = json.loads((checkpoint / "metrics.json").read_text())["validation"]
    read = {
        "sent": lambda answer: answer["label"],
        "nli": lambda answer: answer["label"],
        "swag": lambda answer: answer["label"],
        "topics": lambda answer: [one["label"] for one in answer["labels"]],
        "stars": lambda answer: answer["value"],
        "ner": lambda answer: answer["tags"],
        "qa": lambda answer: answer["answer"],
    }
    gold = {"swag": lambda row: str(row["label"]), "qa": lambda row: row["answers"]["text"]}
    gold |= {name: lambda row: row["labels"] for name in ("topics", "ner")}
    for task in predictor.tasks:
        if task.name not in read:
            continue
        rows = DATA[task.name][:4]
        answers = [read[task.name](row["predictions"][task.name]) for row in predictor(rows, [task.name])]
        references = [gold.get(task.name, lambda row: row["label"])(row) for row in rows]
        found = compute(task.metric_names, answers, references, labels=task.labels, scheme=task.tag_scheme)
        assert {name: found[name] for name in found} == pytest.approx(reported[task.name], abs=1e-4), task.name


# Offsets

ODD = ["  Anna  is\tin Paris, not in LONDON ! ", "café à Paris 🙂 londres", "x", "12-b @anna: paris/london", LONG]


@pytest.mark.parametrize("words", [None, "whitespace", "pretokenizer"])
@pytest.mark.parametrize("text", ODD)
def test_offsets_point_into_the_raw_text(tagging: Predictor, text: str, words: str | None) -> None:
    answers = tagging([text], ["ner", "places"], words=words)[0]["predictions"]
    entities = [entity for answer in answers.values() for entity in answer["entities"]]
    assert entities
    for entity in entities:
        assert text[entity["start"] : entity["end"]] == entity["word"]
        assert entity["word"] == entity["word"].strip() != ""


def test_an_entity_of_several_words_spans_what_is_between_them(tagging: Predictor) -> None:
    entities = one(tagging, LONG.replace(" ", "  "), "ner")["entities"]
    assert any("  " in entity["word"] for entity in entities)
    assert [w for entity in entities for w in entity["word"].split()] == LONG.split()


def test_the_splitter_decides_what_a_word_is(tagging: Predictor) -> None:
    text = "paris, london"
    white = [e["word"] for e in one(tagging, text, "places")["entities"]]
    own = [e["word"] for e in one(tagging, text, "places", words="pretokenizer")["entities"]]
    assert white == ["paris,", "london"]
    assert own == ["paris", ",", "london"]


def test_given_words_get_one_tag_each_and_offsets_in_the_joined_text(tagging: Predictor) -> None:
    words = ["anna", "", "is", "in", "new york", "!"]
    row = tagging([words], ["places"])[0]
    assert row["tokens"] == words
    answer = row["predictions"]["places"]
    assert list(answer) == ["entities", "tags"]
    assert len(answer["tags"]) == len(words)
    assert answer["tags"] == ["B-CITY", "O", *["B-CITY"] * 4], "a word without sub-token is outside"
    assert [entity["word"] for entity in answer["entities"]] == ["anna", "is", "in", "new york", "!"]
    joined = "anna  is in new york !"
    for entity in answer["entities"]:
        assert joined[entity["start"] : entity["end"]] == entity["word"]


def test_given_words_that_are_the_tokenizers_own_give_the_same_entities(tagging: Predictor) -> None:
    text = "anna is in london , paris !"
    given = one(tagging, text.split(), "ner")["entities"]
    raw = one(tagging, text, "ner")["entities"]
    assert close(given, raw)


# Order, batches, windows


def mixed_rows() -> list[Any]:
    """Rows of every form, of many lengths."""
    texts = [row["text"] for row in DATA["sent"][:8]]
    questions = [{"question": "who is in london", "context": f"{'the food ' * n}{CONTEXT}"} for n in (0, 9, 30)]
    pairs = [{"id": n, "premise": "the food " * n, "hypothesis": "i love it"} for n in (0, 1, 20)]
    choices = [{"context": "anna", "choices": ["the box " * n for n in range(1, size)]} for size in (2, 4, 9)]
    return [LONG, *texts, *questions, "", *pairs, ["anna", "in", "paris"], *choices, " ", LONG[:90]]


def test_order_and_fields_are_the_inputs(predictor: Predictor) -> None:
    rows = mixed_rows()
    for row, found in zip(rows, predictor(rows, batch_size=3), strict=True):
        given = {"text": row} if isinstance(row, str) else {"tokens": row} if isinstance(row, list) else row
        assert {name: value for name, value in found.items() if name != "predictions"} == given


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_a_rows_answer_does_not_depend_on_its_neighbours(predictor: Predictor, batch_size: int) -> None:
    rows = mixed_rows()
    alone = [predictor([row], scores=True)[0] for row in rows]
    assert close(predictor(rows, batch_size=batch_size, scores=True), alone)
    assert close(predictor(rows[::-1], batch_size=batch_size, scores=True)[::-1], alone)


def test_tasks_answered_together_are_answered_as_alone(predictor: Predictor) -> None:
    row = {"text": "anna was slow in paris", "premise": "a film", "hypothesis": "i love it"}
    together = predictor([row])[0]["predictions"]
    assert list(together) == [*TEXT_TASKS, "nli"]
    assert close(together, {name: one(predictor, row, name) for name in together})


def test_all_text_tasks_share_one_encoder_pass(predictor: Predictor) -> None:
    seen: list[tuple[int, ...]] = []
    handle = predictor.model.encoder.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        predictor(["anna is in paris", "bob"])
        predictor([{"text": "anna is in paris", "tokens": ["anna", "is", "in", "paris"]}])
    finally:
        handle.remove()
    # A row of six tokens and one of three, behind each other without padding; then one of six.
    assert seen == [(1, 9), (1, 6)]


def test_a_pass_has_no_more_rows_than_the_batch_size(predictor: Predictor) -> None:
    seen: list[int] = []
    handle = predictor.model.encoder.register_forward_pre_hook(
        # Rows stand behind each other; each begins at position 0.
        lambda _, args, kwargs: seen.append(int((kwargs["position_ids"] == 0).sum())),
        with_kwargs=True,
    )
    try:
        predictor([LONG * 3, "a", "b"], batch_size=4)
    finally:
        handle.remove()
    assert max(seen) == 4
    assert len(seen) > 3


def test_rows_are_as_long_as_in_training(predictor: Predictor, checkpoint: Path, tmp_path: Path) -> None:
    assert (predictor.max_length, predictor.stride) == (24, 4)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in checkpoint.iterdir():
        if path.is_file() and path.name != "recipe.resolved.yaml":
            (copy / path.name).write_bytes(path.read_bytes())
    write_checksums(copy)
    assert Predictor.from_pretrained(copy).max_length == 64, "the encoder's limit"


def test_a_long_text_is_tagged_to_its_end_and_its_label_reads_the_beginning(
    predictor: Predictor, tagging: Predictor
) -> None:
    tally = Tally()
    found = next(iter(predictor.stream([LONG], tally=tally)))["predictions"]
    entities = one(tagging, LONG, "places")["entities"]
    assert [entity["word"] for entity in entities] == LONG.split(), "every word is tagged once"
    # 22 tokens and two special ones fit a row.
    assert close(found["sent"], one(predictor, " ".join(LONG.split()[:22]), "sent"))
    assert (tally.rows, tally.truncated) == (1, 1)


def test_a_text_that_only_token_tasks_read_is_not_truncated(predictor: Predictor) -> None:
    tally = Tally()
    list(predictor.stream([LONG, "a"], ["ner"], tally=tally))
    assert (tally.rows, tally.truncated) == (2, 0)


def test_a_long_context_is_searched_to_its_end(predictor: Predictor) -> None:
    context = "the food was good . " * 20 + "anna is in london"
    answer = one(predictor, {"question": "who is in london", "context": context}, "qa")
    assert answer["answer"] == context[answer["start"] : answer["end"]]


# Streaming


def test_a_stream_reads_no_further_than_its_lookahead(predictor: Predictor) -> None:
    read: list[int] = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            read.append(number)
            yield f"text {number}"

    stream = predictor.stream(endless(), ["sent"], batch_size=2, lookahead=4)
    found = [next(stream)["text"] for _ in range(5)]
    assert found == [f"text {i}" for i in range(5)]
    assert len(read) == 8


def test_a_stream_answers_what_stands_before_a_fault(predictor: Predictor) -> None:
    stream = predictor.stream(["a", "b", 3, "c"], ["sent"])
    assert [next(stream)["text"], next(stream)["text"]] == ["a", "b"]
    with pytest.raises(UserError, match=r"row 3: found a int → a text"):
        next(stream)


def test_nothing_in_nothing_out(predictor: Predictor) -> None:
    assert predictor([]) == []


def test_one_text_or_mapping_is_one_row(predictor: Predictor) -> None:
    assert predictor("anna") == predictor(["anna"])
    assert predictor({"text": "anna"}) == predictor(["anna"])


def test_a_frame_gives_its_rows(predictor: Predictor) -> None:
    frame = pandas.DataFrame({"text": ["anna is in paris", None], "id": [7, 8], "n": [0.5, float("nan")]}, index=[3, 3])
    frame["tags"] = [numpy.array(["a", "b"]), []]
    rows = [
        {"text": "anna is in paris", "id": 7, "n": 0.5, "tags": ["a", "b"]},
        {"text": None, "id": 8, "n": None, "tags": []},
    ]
    wanted = predictor(rows, ["sent"])
    assert predictor(frame, ["sent"]) == wanted
    assert list(predictor.stream(frame, ["sent"])) == wanted
    assert predictor.decoded(frame, ["sent"]) == predictor.decoded(rows, ["sent"])
    assert [type(row["id"]) for row in predictor(frame, ["sent"])] == [int, int]
    json.dumps(predictor(frame, ["sent"]), allow_nan=False)


def test_a_frame_larger_than_a_part_keeps_its_order() -> None:
    frame = pandas.DataFrame({"text": [f"text {i}" for i in range(2 * FRAME_PART + 1)]})
    assert [row["text"] for row in rows_of(frame)] == list(frame["text"])


def test_a_frame_with_two_columns_of_one_name_is_a_fault(predictor: Predictor) -> None:
    frame = pandas.DataFrame([["a", "b"]], columns=["text", "text"])
    with pytest.raises(UserError, match=r"^DataFrame: column text stands more than once → columns of distinct names$"):
        predictor(frame)


def test_one_text_is_one_row_of_a_stream(predictor: Predictor) -> None:
    assert list(predictor.stream("anna", ["sent"])) == predictor(["anna"], ["sent"])


def test_calls_are_deterministic_and_leave_no_gradient(predictor: Predictor) -> None:
    assert not predictor.model.training
    assert predictor(mixed_rows()) == predictor(mixed_rows())
    assert all(parameter.grad is None for parameter in predictor.model.parameters())


def test_threads_may_share_a_predictor(predictor: Predictor) -> None:
    rows = mixed_rows()
    expected = predictor(rows)
    found: dict[int, Any] = {}

    def work(number: int) -> None:
        part = rows if number % 2 else rows[::-1]
        answers = predictor(part, batch_size=4 + number)
        found[number] = answers if number % 2 else answers[::-1]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(close(answers, expected) for answers in found.values())


def test_half_precision_scores_are_near(predictor: Predictor, checkpoint: Path) -> None:
    half = Predictor.from_pretrained(checkpoint, "cpu", dtype="bfloat16")
    first, second = one(predictor, "the film was great", "sent"), one(half, "the film was great", "sent")
    assert first["score"] == pytest.approx(second["score"], abs=0.02)
    assert first["score"] != second["score"], "autocast was on"


# What a row feeds


def test_a_text_feeds_the_text_tasks(predictor: Predictor) -> None:
    assert list(predictor(["anna"])[0]["predictions"]) == TEXT_TASKS


def test_a_pair_feeds_the_pair_task_by_column_or_by_role(predictor: Predictor) -> None:
    by_column = {"id": 7, "premise": "the food was good", "hypothesis": "i love it"}
    found = predictor([by_column], scores=True)[0]
    assert found["id"] == 7
    assert list(found["predictions"]) == ["nli"]
    by_role = {"text": "the food was good", "pair": "i love it"}
    assert close(one(predictor, by_role, "nli", scores=True), found["predictions"]["nli"])
    expected = logits(predictor, "nli", "the food was good", "i love it").softmax(-1)[0]
    assert found["predictions"]["nli"]["score"] == pytest.approx(float(expected.max()), abs=1e-6)


def test_a_question_with_its_context_feeds_question_answering(predictor: Predictor) -> None:
    assert list(predictor([{"question": "who", "context": CONTEXT}])[0]["predictions"]) == ["qa"]


def test_words_may_stand_under_any_of_the_tasks_column_names(predictor: Predictor) -> None:
    assert one(predictor, {"words": ["anna"]}, "ner") == one(predictor, ["anna"], "ner")


@pytest.mark.parametrize("empty", ["", " \t ", None, float("nan"), [], {"text": None}, {"tokens": []}])
def test_an_empty_text_is_answered(predictor: Predictor, empty: Any) -> None:
    found = predictor([empty, "anna"])[0]["predictions"]
    assert list(found) == TEXT_TASKS
    assert found["ner"]["entities"] == found["places"]["entities"] == []


def test_an_empty_context_has_no_answer(predictor: Predictor) -> None:
    answer = one(predictor, {"question": "", "context": ""}, "qa")
    assert (answer["answer"], answer["start"], answer["end"]) == ("", 0, 0)
    assert 0 < answer["score"] <= 1, "the probability of no answer"


def test_an_empty_text_is_answered_without_special_tokens(predictor: Predictor) -> None:
    from tokenizers import processors

    tokenizer = copy.deepcopy(predictor.tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    assert tokenizer("anna")["input_ids"] == predictor.tokenizer("anna")["input_ids"][1:-1]
    bare = Predictor(predictor.model, tokenizer, device="cpu", max_length=24)
    assert list(bare([""])[0]["predictions"]) == TEXT_TASKS
    assert bare([{"question": "", "context": ""}])[0]["predictions"]["qa"]["answer"] == ""


def test_null_fields_feed_nothing_when_others_do(predictor: Predictor) -> None:
    row = {"text": "anna", "question": None, "context": None, "pair": None}
    assert list(predictor([row])[0]["predictions"]) == TEXT_TASKS


def test_earlier_predictions_in_the_input_are_replaced(predictor: Predictor) -> None:
    found = predictor([{"text": "anna", "predictions": {"old": 1}}], ["sent"])[0]
    assert list(found["predictions"]) == ["sent"]


def test_tasks_are_answered_in_the_order_asked(predictor: Predictor) -> None:
    assert list(predictor(["anna"], ["ner", "sent"])[0]["predictions"]) == ["ner", "sent"]
    assert [task.name for task in predictor.tasks] == [*TEXT_TASKS, "nli", "qa", "swag"], "mlm answers nothing"


def test_a_predictor_is_pickled_by_its_folder(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    made = Predictor.from_pretrained(checkpoint.name, "cpu", words="whitespace")
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickle.dumps(made))  # noqa: S301 (written the moment before)
    assert (again.words, again.device) == ("whitespace", made.device)
    assert again(["anna is in paris"]) == made(["anna is in paris"])


def test_a_predictor_of_a_model_is_not_pickled(predictor: Predictor) -> None:
    made = Predictor(predictor.model, predictor.tokenizer, device="cpu")
    with pytest.raises(
        UserError, match=r"^Predictor: made of a model, it is not pickled \(open it with from_pretrained"
    ):
        pickle.dumps(made)


# Faults


@pytest.mark.parametrize(
    ("rows", "tasks", "told"),
    [
        (["a"], ["sentt"], r'tasks: no task "sentt". Did you mean "sent"\? → sent, topics'),
        (["a"], ["mlm"], r'no task "mlm"'),
        (["a"], [], r"no task is named"),
        (["a", "b"], ["qa"], r"row 1: qa: no field question, context; the row has text → question_answering reads"),
        ([{"question": "a"}], ["qa"], r"row 1: qa: no field context; the row has question"),
        (["a"], ["nli"], r"row 1: nli: no field hypothesis or pair"),
        (["a", {"id": 1}], None, r"row 2: sent \(and topics, .*\): no field text or tokens; the row has id"),
        ([{"context": "a"}], ["swag"], r"no field e0 \+ e1"),
        ([{"context": "a", "choices": []}], ["swag"], r"row 1: choices: found an empty list → a list of at least one"),
        ([{"context": "a", "choices": "[1"}], ["swag"], r"row 1: choices: not valid JSON"),
        ([{"text": ["a"]}], ["sent"], r"row 1: text: found a list → a text \(words go into `tokens`\)"),
        ([{"tokens": 3}], ["ner"], r"row 1: tokens: found a int → a list of words"),
        ([3], None, r"row 1: found a int"),
        (["a", "bad \ud800 x"], None, r"^row 2: text: not valid Unicode \(a lone surrogate at character 5\)$"),
        ([["a", "\udc00"]], ["ner"], r"^row 1: tokens: not valid Unicode \(a lone surrogate at character 1\)$"),
    ],
)
def test_faults_name_row_and_field(predictor: Predictor, rows: list[Any], tasks: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        predictor(rows, tasks)


def test_options_are_checked(predictor: Predictor, checkpoint: Path) -> None:
    with pytest.raises(UserError, match="batch_size: found 0 → at least 1"):
        predictor(["a"], batch_size=0)
    with pytest.raises(UserError, match='words: found "spaces" → given, whitespace, pretokenizer'):
        predictor(["a"], words="spaces")
    with pytest.raises(UserError, match="top: found 0"):
        predictor(["a"], top=0)
    with pytest.raises(UserError, match='dtype: found "int8"'):
        Predictor.from_pretrained(checkpoint, dtype="int8")
    with pytest.raises(UserError, match='device: "gpu" cannot be used'):
        Predictor.from_pretrained(checkpoint, "gpu")
    with pytest.raises(UserError, match="no such folder"):
        Predictor.from_pretrained(checkpoint / "absent")


def test_a_model_that_gives_nan_is_a_fault(checkpoint: Path) -> None:
    broken = Predictor.from_pretrained(checkpoint, "cpu")
    with torch.no_grad():
        broken.model.heads["sent"].classifier.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="sent: the model gives no number"):
        broken(["anna"], ["sent"])
