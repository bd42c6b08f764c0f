"""Calibration: values worked by hand, and what a checkpoint does with them."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtl_nlp.decoding import Decoder, TextInput
from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import write_checksums
from mtl_nlp.inference.predictor import Predictor
from mtl_nlp.metrics import compute
from mtl_nlp.metrics.calibration import (
    answering_threshold,
    best_temperature,
    expected_calibration_error,
    f1_threshold,
    label_thresholds,
    out_of_scope_threshold,
)
from mtl_nlp.model.heads import make_head
from mtl_nlp.schema import Source
from mtl_nlp.task import Abstain, Calibration, Task, make_task
from mtl_nlp.training.calibration import calibrate, clear_calibration, tune
from mtl_nlp.training.confidences import Outputs, decisions
from mtl_nlp.training.finetune import finetune
from mtl_nlp.training.score import score_checkpoint
from tests.conftest import ENTITIES, SENTIMENT, write_conll, write_jsonl

THREE = Task(name="t", head="sequence_classification", labels=["a", "b", "c"])


def test_the_calibration_error_by_hand() -> None:
    # Two bins of ten: (0.9, 1] holds 0.95 twice, one right: |1 − 1.9|; (0.5, 0.6] holds 0.6 twice, both right: |2 − 1.2|.
    error = expected_calibration_error([0.95, 0.95, 0.6, 0.6], [1, 0, 1, 1], bins=10)
    assert error == pytest.approx((0.9 + 0.8) / 4)
    # Bins are closed above: 0.5 is in the lower of two, 0.500001 in the upper.
    assert expected_calibration_error([0.5, 0.500001], [1, 0], bins=2) == pytest.approx((0.5 + 0.500001) / 2)
    assert expected_calibration_error([0.5, 0.5], [1, 0], bins=2) == pytest.approx(0.0)
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0.0
    assert expected_calibration_error([], []) == 0.0


@pytest.mark.parametrize(("right", "temperature"), [(0.75, 3.0), (0.9, 3 * math.log(6) / math.log(18))])
def test_the_temperature_by_hand(right: float, temperature: float) -> None:
    # Logits (a, 0, 0): the loss is least where softmax gives the share q that is right: a / T = ln(2q / (1 − q)). a = 3 ln 6.
    count = 40
    logits = torch.tensor([[3 * math.log(6), 0.0, 0.0]]).repeat(count, 1)
    hits = round(right * count)
    labels = torch.tensor([0] * hits + [1] * (count - hits))
    outputs = Outputs([logits[:10], logits[10:]], [labels[:10], labels[10:]])
    calibration, report = tune(make_head(THREE), outputs)
    assert calibration.temperature == pytest.approx(temperature, rel=1e-3)
    assert report.loss[1] < report.loss[0]
    assert report.error[0] == pytest.approx(abs(right - 216 / 218), abs=1e-6)
    assert report.error[1] == pytest.approx(0.0, abs=1e-3)
    assert report.units == count
    assert calibration.thresholds is None
    assert calibration.abstain is None


def test_where_all_is_right_the_temperature_stays() -> None:
    outputs = Outputs([torch.tensor([[2.0, 0.0, 0.0]])], [torch.tensor([0])])
    assert tune(make_head(THREE), outputs)[0].temperature == 1.0
    assert best_temperature(lambda t: t) is None
    assert best_temperature(lambda t: 1 + (math.log(t) - 0.5) ** 2) == pytest.approx(math.exp(0.5), rel=1e-3)


@pytest.mark.parametrize(
    ("probabilities", "holds", "expected"),
    [
        ([0.9, 0.8, 0.3, 0.2], [1, 1, 1, 0], 0.25),
        ([0.2, 0.9, 0.3, 0.8], [0, 1, 1, 0], 0.25),  # F1 2/3, 1/2, 4/5, 2/3
        ([0.9, 0.8, 0.3, 0.2], [1, 1, 0, 0], 0.5),  # (0.3, 0.8) holds 0.5
        ([0.9, 0.8, 0.7], [1, 0, 0], 0.85),
        ([0.4, 0.4, 0.1], [1, 0, 1], 0.05),  # equal probabilities are not parted
        ([0.4, 0.3], [0, 0], 0.5),
    ],
)
def test_the_threshold_of_the_best_f1(probabilities: list[float], holds: list[int], expected: float) -> None:
    assert f1_threshold(probabilities, holds) == pytest.approx(expected)


def test_rare_labels_share_a_threshold() -> None:
    probabilities = np.array([[0.9, 0.3], [0.8, 0.2], [0.3, 0.1]])
    holds = np.array([[1, 1], [1, 0], [1, 0]])
    # The first has its own: below 0.3, and 0.15 is half-way to nothing. Together: 0.9, 0.8, 0.3, 0.3 | 0.2, 0.1.
    assert label_thresholds(probabilities, holds, least=3) == pytest.approx([0.15, 0.25])


def test_thresholds_of_abstention_by_hand() -> None:
    confidence, right = [0.9, 0.8, 0.7, 0.6], [1, 1, 0, 1]
    assert answering_threshold(confidence, right, 0.9) == pytest.approx(0.75)
    assert answering_threshold(confidence, right, 0.75) is None  # no threshold is needed
    assert answering_threshold([0.9, 0.8], [0, 0], 0.5) is None  # none suffices
    confidence = [0.2, 0.4, 0.6, 0.8]
    assert out_of_scope_threshold(confidence, [0, 0, 0, 1], [1, 0, 1, 0]) == pytest.approx(0.7)
    assert out_of_scope_threshold(confidence, [0, 1, 0, 1], [1, 0, 1, 0]) == pytest.approx(0.3)
    assert out_of_scope_threshold(confidence, [1, 1, 1, 1], [0, 0, 0, 0]) is None


def test_decoding_reads_the_calibration() -> None:
    texts = [TextInput([{}]), TextInput([{}])]
    scores = np.array([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1]], dtype=np.float32)

    def labels(calibration: Calibration | None, head: str = "sequence_classification") -> list[Any]:
        task = Task(name="t", head=head, labels=["a", "b", "c"], calibration=calibration)
        return [found.value for found in Decoder(task).decode(scores, texts)]

    assert labels(None) == ["a", "a"]
    assert labels(Calibration(abstain=Abstain(threshold=0.6))) == [None, "a"]
    assert labels(Calibration(abstain=Abstain(threshold=0.6, label="c"))) == ["c", "a"]
    several = Calibration(thresholds={"a": 0.6, "b": 0.25})
    assert labels(several, "multi_label_classification") == [["b"], ["a"]]
    decoder = Decoder(
        Task(name="t", head="sequence_classification", labels=["a", "b"], calibration=Calibration(temperature=4.0))
    )
    assert torch.equal(decoder.calibrated(torch.tensor([8.0, -2.0])), torch.tensor([2.0, -0.5]))


def test_no_answer_is_wrong_and_no_label_of_the_means() -> None:
    found = compute(["accuracy", "f1_macro"], ["a", "", "b"], ["a", "a", "b"], labels=["a", "b"])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["f1_macro"] == pytest.approx((2 / 3 + 1) / 2)  # a: precision 1, recall 1/2


@pytest.mark.parametrize(
    ("head", "calibration", "message"),
    [
        ("regression", {"temperature": 2.0}, "calibration: is for probabilities"),
        ("sequence_classification", {"thresholds": {"a": 0.5}}, "calibration.thresholds: are for several labels"),
        (
            "multi_label_classification",
            {"thresholds": {"z": 0.5}},
            "calibration.thresholds: has z; the labels are a, b",
        ),
        ("multi_label_classification", {"abstain": {"threshold": 0.5}}, "calibration.abstain: is for one label"),
        ("sequence_classification", {"abstain": {"threshold": 0.5, "label": "z"}}, 'calibration.abstain.label: is "z"'),
        ("sequence_classification", {"temperature": 0.0}, "calibration.temperature: found 0.0"),
        ("sequence_classification", {"abstain": {"threshold": 1.5}}, "calibration.abstain.threshold: found 1.5"),
    ],
)
def test_a_calibration_that_does_not_fit_is_refused(head: str, calibration: dict[str, Any], message: str) -> None:
    labels = {} if head == "regression" else {"labels": ["a", "b"]}
    with pytest.raises(UserError, match=message):
        make_task({"name": "t", "head": head, "calibration": calibration, **labels}, Source("t.yaml"), Path())


TOPICS = [
    {"text": "the food was good and the staff fast", "labels": ["food", "staff"]},
    {"text": "the delivery was late", "labels": ["delivery"]},
    {"text": "what a song", "labels": []},
    {"text": "the staff was slow", "labels": ["staff"]},
] * 8
MOODS = [
    *SENTIMENT,
    *({"text": f"{word} weather tomorrow", "label": "other"} for word in ("today", "what", "paris", "box")),
]


@pytest.fixture(scope="module")
def built(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one label, several labels, tags and a number, with labels that are partly wrong on validation."""
    folder = tmp_path_factory.mktemp("calibrated")
    rows = {
        "mood": MOODS,
        "topics": TOPICS,
        "stars": [{"text": r["text"], "label": float(i % 5)} for i, r in enumerate(MOODS)],
    }
    for name, data in rows.items():
        write_jsonl(folder / name / "train.jsonl", data)
        # Every third annotation is another text's, so that the model is too sure of itself.
        keys = [key for key in data[0] if key != "text"]
        turned = [row if i % 3 else {**row, **{k: data[i - 5][k] for k in keys}} for i, row in enumerate(data)]
        write_jsonl(folder / name / "validation.jsonl", turned)
    write_conll(folder / "ner" / "train.conll", ENTITIES)
    write_conll(folder / "ner" / "validation.conll", ENTITIES[:8])
    heads = {"mood": "sequence_classification", "topics": "multi_label_classification", "stars": "regression"}
    tasks: list[dict[str, Any]] = [
        {
            "name": name,
            "head": head,
            "data": {
                "source": str(folder / name),
                "columns": {
                    "text": "text",
                    "labels" if name == "topics" else "label": "labels" if name == "topics" else "label",
                },
            },
        }
        for name, head in heads.items()
    ]
    columns = {"tokens": "tokens", "labels": "labels"}
    tasks.append(
        {"name": "ner", "head": "token_classification", "data": {"source": str(folder / "ner"), "columns": columns}}
    )
    recipe = {
        "encoder": str(tiny_encoder),
        "tasks": tasks,
        "mixture": {"batch": 16},
        "training": {"max_steps": 30, "learning_rate": 5e-3, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(folder / "run"),
    }
    return finetune(recipe).folder


@pytest.fixture
def checkpoint(built: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(built, tmp_path / "checkpoint"))


def record(folder: Path, name: str) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return dict(next(task for task in config["tasks"] if task["name"] == name))


def test_calibrating_a_checkpoint(checkpoint: Path, built: Path) -> None:
    reports = calibrate(checkpoint, out_of_scope={"mood": "other"})
    assert set(reports) == {"mood", "topics", "ner"}, "a number has no probability"
    mood = reports["mood"]
    assert mood.temperature > 1, "a third of the references is wrong, so it was too sure"
    assert mood.loss[1] < mood.loss[0]
    assert mood.error[1] < mood.error[0]
    stored = record(checkpoint, "mood")["calibration"]
    assert stored["temperature"] == mood.temperature
    assert set(reports["topics"].thresholds or {}) == {"food", "staff", "delivery"}
    assert record(checkpoint, "topics")["calibration"]["thresholds"] == reports["topics"].thresholds
    assert "calibration" not in record(checkpoint, "stars")
    # The stored scores are what an evaluation gives now, and the old ones what it gave before.
    scores, mean = score_checkpoint(checkpoint, split="validation")
    told = json.loads((checkpoint / "metrics.json").read_text(encoding="utf-8"))
    assert told["validation"] == scores
    assert told["mean"] == pytest.approx(mean)
    plain, _ = score_checkpoint(built, split="validation")
    assert {m: pair[0] for m, pair in told["calibration"]["topics"]["metrics"].items()} == plain["topics"]
    assert scores["topics"]["f1_micro"] >= plain["topics"]["f1_micro"]
    assert scores["stars"] == plain["stars"]
    # The weights are untouched.
    assert (checkpoint / "model.safetensors").read_bytes() == (built / "model.safetensors").read_bytes()
    clear_calibration(checkpoint)
    assert all("calibration" not in record(checkpoint, name) for name in ("mood", "topics", "ner"))
    again = json.loads((checkpoint / "metrics.json").read_text(encoding="utf-8"))
    assert again["validation"] == plain
    assert "calibration" not in again


def test_prediction_divides_by_the_temperature(checkpoint: Path, built: Path) -> None:
    before = Predictor.from_pretrained(built)("the film was great", scores=True)[0]["predictions"]["mood"]
    temperature = calibrate(checkpoint, tasks=["mood"])["mood"].temperature
    after = Predictor.from_pretrained(checkpoint)("the film was great", scores=True)[0]["predictions"]["mood"]
    names = list(before["scores"])
    raised = np.array([before["scores"][name] for name in names]) ** (1 / temperature)
    expected = raised / raised.sum()
    assert [after["scores"][name] for name in names] == pytest.approx(expected.tolist(), abs=1e-5)
    assert after["label"] == before["label"]
    assert list(record(checkpoint, "topics")) == list(record(built, "topics")), "only the tasks that are named"


def test_a_text_without_answer(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    next(task for task in config["tasks"] if task["name"] == "mood")["calibration"] = {
        "abstain": {"threshold": 0.999999}
    }
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_checksums(checkpoint)
    answer = Predictor.from_pretrained(checkpoint)("the film was great")[0]["predictions"]["mood"]
    assert answer["label"] is None
    assert 0 < answer["score"] < 1
    scores, _ = score_checkpoint(checkpoint, split="validation")
    assert scores["mood"]["accuracy"] == 0.0


def test_answers_that_have_to_be_right_often_enough() -> None:
    # Sure and right three times, unsure and wrong once: 0.9 is reached without the last.
    logits = torch.tensor([[4.0, 0.0, 0.0]] * 3 + [[1.0, 0.0, 0.0]])
    outputs = Outputs([logits], [torch.tensor([0, 0, 0, 1])])
    calibration, report = tune(make_head(THREE), outputs, accuracy=0.9)
    assert calibration.abstain is not None
    confidence, _ = decisions(make_head(THREE), outputs, calibration.temperature)
    assert calibration.abstain.threshold == pytest.approx((confidence[0] + confidence[3]) / 2)
    assert report.answered == 0.75
    assert tune(make_head(THREE), outputs, accuracy=0.7)[0].abstain is None
    wrong = Outputs([logits], [torch.tensor([1, 1, 1, 1])])
    with pytest.raises(UserError, match=r"--accuracy t: no threshold reaches 0.9"):
        tune(make_head(THREE), wrong, accuracy=0.9)


def test_confidences_of_answers_and_labels() -> None:
    answer = make_head(Task(name="q", head="question_answering"))
    logits = torch.tensor([[[5.0, 0.0], [0.0, 5.0], [0.0, 0.0]]])
    confidence, right = decisions(answer, Outputs([logits], [torch.tensor([[0, 2]])]), 1.0)
    expected = math.exp(5) / (math.exp(5) + 2)
    assert confidence == pytest.approx([expected, expected])
    assert right.tolist() == [1.0, 0.0]
    several = make_head(Task(name="s", head="multi_label_classification", labels=["a", "b"]))
    outputs = Outputs([torch.zeros(2, 2)], [torch.tensor([[1.0, 0.0], [float("nan"), 1.0]])])
    confidence, right = decisions(several, outputs, 1.0)
    assert confidence.tolist() == [0.5, 0.5]
    assert right.tolist() == [1.0, 0.0]


def test_a_chain_is_calibrated_by_its_own_likelihood() -> None:
    from mtl_nlp.training.confidences import marginals, nll

    head = make_head(Task(name="c", head="token_classification_crf", labels=["x", "y"], scheme="none"))
    # Two tags, one word, no transition that matters: softmax of the emissions.
    packed = torch.zeros(1, 2 + 2 + 1, 2)
    packed[0, 4] = torch.tensor([math.log(3), 0.0])
    labels = torch.tensor([[1]])
    assert float(nll(head, packed, labels)[0]) == pytest.approx(math.log(4), abs=1e-5)
    assert marginals(head, packed, labels, None)[0].tolist() == pytest.approx([0.75, 0.25], abs=1e-5)
    confidence, right = decisions(head, Outputs([packed], [labels], [None]), 1.0)
    assert confidence == pytest.approx([0.75], abs=1e-5)
    assert right.tolist() == [0.0]
    # Logits / T: odds 3 become 3^(1/2).
    halved = decisions(head, Outputs([packed], [labels], [None]), 2.0)[0]
    assert halved == pytest.approx([3**0.5 / (3**0.5 + 1)], abs=1e-5)


def test_what_cannot_be_calibrated_is_named_all_at_once(checkpoint: Path) -> None:
    with pytest.raises(UserError) as error:
        calibrate(checkpoint, out_of_scope={"mood": "nowhere", "topics": "food"}, accuracy={"stars": 2.0})
    message = str(error.value)
    assert '--out-of-scope mood: found "nowhere" → negative, other, positive' in message
    assert "topics (multi_label_classification) cannot abstain" in message
    assert "stars cannot be calibrated" in message
    assert "--accuracy stars: found 2.0" in message
    with pytest.raises(UserError, match=r"no threshold reaches 1.0|--accuracy"):
        calibrate(checkpoint, accuracy={"mood": 1.5})


def test_a_folder_that_cannot_be_rewritten_is_as_it_was(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mtl_nlp.hub import rewrite

    before = {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.is_file()}

    def full(folder: Path, *, deep: bool = True) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rewrite, "sync_folder", full)
    with pytest.raises(UserError, match="No space left on device; it is as it was"):
        clear_calibration(checkpoint)
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.is_file()} == before
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_folders_are_swapped_where_the_system_cannot_do_it_at_once(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtl_nlp.hub import rewrite

    (checkpoint / "checkpoint-3").mkdir()
    (checkpoint / "checkpoint-3" / "note").write_text("kept", encoding="utf-8")
    for system in (os.name, "other"):

        def change(path: Path, text: str = system) -> None:
            # Files are replaced, never written into: they may be links to those of the old folder.
            (path / "new").write_text(text, encoding="utf-8")
            (path / "new").replace(path / "README.md")

        monkeypatch.setattr(rewrite.os, "name", system)
        rewrite.rewrite_folder(checkpoint, change)
        monkeypatch.undo()
        assert (checkpoint / "README.md").read_text(encoding="utf-8") == system
        assert (checkpoint / "checkpoint-3" / "note").read_text(encoding="utf-8") == "kept"
        assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]
