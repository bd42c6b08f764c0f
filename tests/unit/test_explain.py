"""Attributions: worked by hand, complete, the same by two routes, on every annotation; faults; and the page."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtl_nlp.analysis.attribution import METHODS, attribute
from mtl_nlp.analysis.explain import EXPLANATIONS, Explainer
from mtl_nlp.analysis.explanation_page import page
from mtl_nlp.analysis.faithfulness import Measured, area, curves_of, random_orders
from mtl_nlp.errors import UserError
from mtl_nlp.inference import Predictor
from mtl_nlp.training.finetune import finetune
from tests.tiny_checkpoint import CONTEXT, DATA, TASKS, build_checkpoint

pytest.importorskip("captum")

ROWS: dict[str, dict[str, Any]] = {
    "text": {"text": "  The staff was GREAT, (Anna) love it!  "},
    "pair": {"premise": "the food was good", "hypothesis": "i love the food"},
    "question": {"question": "where was bob", "context": CONTEXT},
    "choices": {"context": "anna was late", "choices": ["she cost paris", "she love the flight"]},
    "tokens": {"tokens": ["anna", "unknownword", "london"]},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("explain") / "run", tiny_encoder, max_length=40)


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    """Its token heads tag every word."""
    made = Predictor.from_pretrained(checkpoint, "cpu")
    with torch.no_grad():
        for name in ("ner", "places"):
            made.model.heads[name].classifier.bias[0] = -10.0
    return made


def explanations(explainer: Explainer, row: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(task, one) for task, found in explainer(row)[0][EXPLANATIONS].items() for one in found]


def test_by_hand() -> None:
    """f(x) = x₁² + 3 x₂ from 0 to (2, 1): gradients (4, 3); the integral of 4a is 2, × 2; removed, they lose 4 and 3."""

    def score(x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 0] ** 2 + 3 * x[:, 1, 0]

    inputs, baselines, words = torch.tensor([[[2.0], [1.0]]]), torch.zeros(1, 2, 1), torch.tensor([0, 1])
    expected = {"integrated_gradients": [4.0, 3.0], "gradient_x_input": [8.0, 3.0], "occlusion": [4.0, 3.0]}
    for method in METHODS:
        found = attribute(method, score, inputs, baselines, words)
        assert found.tokens == pytest.approx(expected[method], abs=1e-5), method
        assert (found.value, found.baseline) == (7.0, 0.0)
        assert found.complete is (True if method == "integrated_gradients" else None)


def test_steps_are_doubled_until_the_sum_is_right() -> None:
    """A steep sigmoid needs many points; a polynomial of degree 5 none beyond the first 16 (Gauss-Legendre is exact up to 31)."""

    def steep(x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(400 * (x[:, 0, 0] - 0.37))

    one, zero, words = torch.ones(1, 1, 1), torch.zeros(1, 1, 1), torch.tensor([0])
    found = attribute("integrated_gradients", steep, one, zero, words)
    assert found.steps is not None
    assert found.steps > 16
    assert found.complete
    short = attribute("integrated_gradients", steep, one, zero, words, fewest=4, most=4)
    assert short.complete is False
    assert short.delta == pytest.approx(short.tokens.sum() - 1.0, abs=1e-6)
    smooth = attribute("integrated_gradients", lambda x: x[:, 0, 0] ** 5, one, zero, words)
    assert smooth.steps == 16
    assert smooth.delta == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("baseline", ["mask", "pad", "zero"])
def test_complete_on_every_kind(predictor: Predictor, baseline: str) -> None:
    explainer = Explainer(predictor, baseline=baseline)
    seen = set()
    for row in ROWS.values():
        for task, one in explanations(explainer, row):
            seen.add(task)
            assert one["complete"], (task, one["delta"])
            assert one["rest"] == 0.0, "special tokens are kept in the baseline"
            total = math.fsum(word["attribution"] for word in one["words"])
            gap = one["logit"] - one["baseline_logit"]
            assert total - gap == pytest.approx(one["delta"], abs=1e-9)
            assert abs(total - gap) <= max(0.01 * abs(gap), 1e-5 * max(1, abs(one["logit"])))
    assert seen == {"sent", "topics", "stars", "ner", "places", "nli", "qa", "swag"}


def test_offsets_point_into_the_raw_text(predictor: Predictor) -> None:
    text = ROWS["text"]["text"]
    for task, one in explanations(Explainer(predictor, "gradient_x_input"), text):
        assert all(text[word["start"] : word["end"]] == word["word"] for word in one["words"]), task
    sent = Explainer(predictor, "gradient_x_input")(text, "sent")[0][EXPLANATIONS]["sent"][0]
    words = [word["word"] for word in sent["words"]]
    assert words == ["The", "staff", "was", "GREAT", ",", "(", "Anna", ")", "love", "it", "!"]
    pair = Explainer(predictor, "gradient_x_input")(ROWS["pair"], "nli")[0][EXPLANATIONS]["nli"][0]
    assert [(word["field"], word["word"]) for word in pair["words"]][3:5] == [("text", "good"), ("pair", "i")]


def test_the_logit_is_the_models_own(predictor: Predictor) -> None:
    """By token ids and the ordinary forward pass."""
    text = "the staff was great"
    one = Explainer(predictor, "occlusion")(text, "sent")[0][EXPLANATIONS]["sent"][0]
    coded = predictor.tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        logits = predictor.model(coded["input_ids"], coded["attention_mask"], coded["token_type_ids"]).logits["sent"][0]
    labels = next(task.labels for task in predictor.tasks if task.name == "sent")
    assert one["logit"] == pytest.approx(float(logits[list(labels or ()).index(one["target"])]), abs=1e-5)


def test_occlusion_is_the_mask_token_in_place_of_a_word(predictor: Predictor) -> None:
    text = "the staff was unknownword"
    one = Explainer(predictor, "occlusion", "mask")(text, "stars")[0][EXPLANATIONS]["stars"][0]
    coded = predictor.tokenizer(text, return_tensors="pt")
    ids, words = coded["input_ids"], coded.word_ids()

    def value(ids: torch.Tensor) -> float:
        with torch.no_grad():
            return float(predictor.model(ids, coded["attention_mask"], coded["token_type_ids"]).logits["stars"][0, 0])

    for number, word in enumerate(one["words"]):
        gone = torch.tensor(
            [[predictor.tokenizer.mask_token_id if w == number else int(i) for i, w in zip(ids[0], words, strict=True)]]
        )
        assert word["attribution"] == pytest.approx(value(ids) - value(gone), abs=1e-5)


def test_the_padding_free_path_changes_nothing(checkpoint: Path) -> None:
    row = ROWS["text"]
    found = [
        explanations(Explainer(Predictor.from_pretrained(checkpoint, "cpu", performance=path)), row)
        for path in ("auto", "plain")
    ]
    for (task, one), (other, two) in zip(*found, strict=True):
        assert task == other
        values = [[word["attribution"] for word in each["words"]] for each in (one, two)]
        assert values[0] == pytest.approx(values[1], abs=1e-5)


@pytest.mark.parametrize("kind", ["vector", "token", "film", "lora"])
def test_under_the_tasks_condition(kind: str, tiny_encoder: Path, tmp_path: Path) -> None:
    """What is explained is what the predictor answers, and the sum is right, with conditions that have something to say."""
    tasks = [task for task in TASKS if task["name"] in ("sent", "stars", "nli")]
    recipe = {
        "encoder": str(tiny_encoder),
        "tasks": tasks,
        "mixture": {"batch": 16},
        "conditioning": kind,
        "training": {"max_steps": 1, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path / "run"),
    }
    data = {task["name"]: {"train": DATA[task["name"]], "validation": DATA[task["name"]][:4]} for task in tasks}
    predictor = Predictor.from_pretrained(finetune(recipe, datasets=data).folder, "cpu")
    torch.manual_seed(3)
    with torch.no_grad():
        for value in predictor.model.conditioning.parameters():
            value.normal_(std=0.2 if kind == "lora" else 0.3)  # those act at every module
        for name, value in predictor.model.named_parameters():
            # A tiny encoder of random weights hardly looks at its tokens; adapters are large enough beside it.
            if kind != "lora" and ".layer." in name and value.dim() == 2:
                value *= 5
    explainer, text = Explainer(predictor), "the staff was great and i love it"
    answer = predictor(text, scores=True)[0]["predictions"]
    found = dict(explanations(explainer, text))
    assert found["stars"]["logit"] == pytest.approx(answer["stars"]["value"], abs=1e-5)
    labels = answer["sent"]["scores"]
    logits = {name: explainer(text, "sent", {"sent": name})[0][EXPLANATIONS]["sent"][0]["logit"] for name in labels}
    one, other = labels
    odds = math.log(labels[one] / labels[other])
    assert logits[one] - logits[other] == pytest.approx(odds, abs=1e-3)
    for task, told in [*found.items(), *explanations(explainer, ROWS["pair"])]:
        assert told["complete"], (kind, task, told["delta"])
        assert told["rest"] == 0.0
    predictor.model.conditioning = None
    alone = predictor(text, "stars")[0]["predictions"]["stars"]["value"]
    assert abs(alone - found["stars"]["logit"]) > 1e-4, "without the condition it would be another pass"


def test_choices_with_names_are_called_by_them(tiny_encoder: Path, tmp_path: Path) -> None:
    task = next(task for task in TASKS if task["name"] == "swag")
    rows = [{**row, "label": "AB"[row["label"]]} for row in DATA["swag"]]
    recipe = {
        "encoder": str(tiny_encoder),
        "tasks": [{**task, "labels": ["A", "B", "C"]}],
        "training": {"max_steps": 1, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(tmp_path / "run"),
    }
    folder = finetune(recipe, datasets={"swag": {"train": rows, "validation": rows[:4]}}).folder
    predictor = Predictor.from_pretrained(folder, "cpu")
    row = ROWS["choices"]
    answer = predictor(row, scores=True)[0]["predictions"]["swag"]
    place = row["choices"].index(answer["choice"])
    assert answer["label"] == "AB"[place]
    assert sorted(answer["scores"]) == ["A", "B"]
    assert answer["score"] == answer["scores"][answer["label"]] == max(answer["scores"].values())
    many = {**row, "choices": ["she", "love", "the", "flight"]}
    assert predictor(many)[0]["predictions"]["swag"]["label"] in "0123", "more choices than names"
    explainer = Explainer(predictor)
    for label in "AB":
        told = explainer(row, labels={"swag": label})[0][EXPLANATIONS]["swag"][0]
        assert (told["target"], told["predicted"]) == (label, label == answer["label"])
        assert told["score"] == answer["scores"][label]
        shown = [word["word"] for word in told["words"] if word["field"] == "choice"]
        assert " ".join(shown) == row["choices"]["AB".index(label)]
    with pytest.raises(UserError, match=r'--label swag: no choice "C" among 2 → A, B'):
        explainer(row, labels={"swag": "C"})


def test_entities_have_an_explanation_each(predictor: Predictor) -> None:
    row = ROWS["tokens"]
    answer = predictor(row, "ner")[0]["predictions"]["ner"]["entities"]
    found = Explainer(predictor, "gradient_x_input")(row, "ner")[0][EXPLANATIONS]["ner"]
    assert [(one["target"], one["start"], one["end"]) for one in found] == [
        (entity["entity_group"], entity["start"], entity["end"]) for entity in answer
    ]
    assert found


def test_words_beyond_the_row_are_told(predictor: Predictor) -> None:
    text = "good food " * 40
    one = Explainer(predictor, "gradient_x_input")(text, "sent")[0][EXPLANATIONS]["sent"][0]
    unread = [word for word in one["words"] if word.get("read") is False]
    assert len(one["words"]) == 80
    assert len(unread) == 80 - 38, "40 tokens, two of them special"
    assert all(word["attribution"] == 0.0 for word in unread)


def test_another_label(predictor: Predictor) -> None:
    explainer = Explainer(predictor)
    both = {
        name: explainer(["the staff was great"], "sent", {"sent": name})[0][EXPLANATIONS]["sent"][0]
        for name in ("positive", "negative")
    }
    assert {one["predicted"] for one in both.values()} == {True, False}
    with pytest.raises(UserError, match=r'no label "neutral".*negative, positive'):
        explainer(["x"], "sent", {"sent": "neutral"})


def test_an_empty_text_has_no_words(predictor: Predictor) -> None:
    one = Explainer(predictor)("", "sent")[0][EXPLANATIONS]["sent"][0]
    assert one["words"] == []
    assert one["complete"]


def test_faults(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="integrated_gradients, gradient_x_input, occlusion"):
        Explainer(predictor, "saliency")
    with pytest.raises(UserError, match="mask, pad, zero"):
        Explainer(predictor, baseline="blank")
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r'pip install "mtl-nlp\[explain\]"'):
        Explainer(predictor)


def test_an_encoder_that_takes_no_embeddings_is_refused_by_name(checkpoint: Path) -> None:
    made = Predictor.from_pretrained(checkpoint, "cpu")
    embeddings = made.model.encoder.embeddings
    forward = type(embeddings).forward

    def deaf(self: Any, *args: Any, inputs_embeds: Any = None, **kwargs: Any) -> Any:
        if inputs_embeds is not None:
            raise ValueError("input_ids are needed")
        return forward(self, *args, **kwargs)

    embeddings.forward = deaf.__get__(embeddings)
    with pytest.raises(UserError, match='encoder "bert" cannot be explained: it does not run from word embeddings'):
        Explainer(made)("good food", "sent")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


def test_the_page_escapes_and_needs_nothing(predictor: Predictor) -> None:
    text = "<script>alert(1)</script> great & good"
    html = "".join(page(Explainer(predictor, "gradient_x_input")([text]), "<model>"))
    parsed = Tags()
    parsed.feed(html)
    assert set(parsed.tags) <= {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "h1",
        "p",
        "mark",
        "article",
        "h2",
        "h3",
        "span",
    }
    assert "&lt;model&gt;" in html
    assert not any(word in html for word in ("http://", "https://", "src="))


def test_areas_by_hand() -> None:
    """Scores 1, 0.5, 0 at no, half, all words: trapezoids of 0.375 and 0.125."""
    assert area(np.array([1.0, 0.5, 0.0])) == pytest.approx(0.5)
    assert area(np.array([1.0, 0.0, 0.0])) == pytest.approx(0.25)


def test_the_gain_over_random_orders_by_hand() -> None:
    """Differences 0.1 and 0.3: mean 0.2, standard error 0.1, Student's t of one degree of freedom 12.7062."""
    found = Measured(deletion=[0.2, 0.1], random_deletion=[0.3, 0.4], insertion=[0.8], random_insertion=[0.5])
    assert found.gain("deletion") == pytest.approx((0.2, 1.27062), abs=1e-5)
    assert found.gain("insertion")[0] == pytest.approx(0.3)
    assert math.isnan(found.gain("insertion")[1])


def test_curves_begin_and_end_where_they_must(predictor: Predictor) -> None:
    explainer = Explainer(predictor)
    task = next(task for task in predictor.tasks if task.name == "sent")
    from mtl_nlp.inference.inputs import Item

    decision = next(explainer.decisions(Item({"text": "the staff was great"}, ""), [task]))
    orders = [np.array([3, 2, 1, 0]), *random_orders(4, 2, np.random.default_rng(0))]
    deletion, insertion = curves_of(decision, orders)
    assert deletion.shape == insertion.shape == (3, 5)
    assert deletion[:, 0] == pytest.approx(insertion[:, -1], abs=1e-6)
    assert deletion[:, -1] == pytest.approx(insertion[:, 0], abs=1e-6)
    # Deleting in one order is inserting in the other, read backwards.
    backwards, _ = curves_of(decision, [orders[0][::-1]])
    assert insertion[0] == pytest.approx(backwards[0][::-1], abs=1e-6)


def test_the_command(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mtl_nlp", "explain", str(checkpoint), "--tasks", "sent,stars"]
    texts = ["--text", "the staff was great", "--text", "awful <b>food</b>"]
    done = subprocess.run([*command, *texts, "--format", "json"], capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["text"] for record in records] == texts[1::2]
    assert all(list(record[EXPLANATIONS]) == ["sent", "stars"] for record in records)
    from mtl_nlp.cli.explain import _as_text

    shown = _as_text(records[0], colours=True)
    assert "\x1b[" not in shown, "no colours where there is no terminal"
    assert "the staff was great" in shown
    assert "integrated_gradients" in shown
