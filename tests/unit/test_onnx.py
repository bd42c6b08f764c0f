"""The ONNX graph behind `Predictor`: the same answers, chosen tasks, int8, damaged folders."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mtl_nlp import Predictor
from mtl_nlp.errors import UserError
from mtl_nlp.inference import onnx_threads
from mtl_nlp.inference.onnx import FEW_TOKENS, GRAPH, KEY, OnnxModel
from mtl_nlp.inference.onnx_choice import agreement
from mtl_nlp.inference.onnx_export import export_onnx
from mtl_nlp.inference.onnx_int8 import rounded
from mtl_nlp.inference.onnx_threads import QuickerSession
from mtl_nlp.task import Task
from tests.tiny_checkpoint import CONTEXT, build_checkpoint

ROWS: list[Any] = [
    "anna is in london and bob was at acme corp",
    {"tokens": ["a", "flight", "from", "paris", "to", "london"]},
    {"premise": "the food was good", "hypothesis": "i love the food"},
    {"question": "who is in london", "context": " ".join([CONTEXT] * 6)},
    {"context": "anna was late", "e0": "she cost paris", "e1": "she love the flight"},
    {"context": "the box is good", "choices": ["i want it", "acme weather", "fine"]},
    "",
    " ".join(["the staff was very good and anna was in london"] * 12),
]


@pytest.fixture(scope="module")
def checkpoint(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint", tiny_encoder, max_length=48)


@pytest.fixture(scope="module")
def graph(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(checkpoint, tmp_path_factory.mktemp("onnx") / "float32").folder


@pytest.fixture(scope="module")
def small(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return export_onnx(checkpoint, tmp_path_factory.mktemp("onnx") / "int8", ["ner", "sent"], int8=True, texts=ROWS[:2])


def close(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            close(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            close(left, right)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-5)
    else:
        assert one == other


def test_the_predictor_gives_the_checkpoints_answers(checkpoint: Path, graph: Path) -> None:
    ours, theirs = Predictor.from_pretrained(checkpoint), Predictor.from_pretrained(graph)
    assert [task.name for task in theirs.tasks] == [task.name for task in ours.tasks]
    assert (theirs.max_length, theirs.stride) == (ours.max_length, ours.stride) == (48, 4)
    for options in ({}, {"scores": True, "batch_size": 2}, {"words": "whitespace"}):
        close(theirs(ROWS, **options), ours(ROWS, **options))
    close(theirs.decoded(ROWS[:2]), ours.decoded(ROWS[:2]))


def test_the_graph_explains_itself(graph: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(graph / GRAPH), providers=["CPUExecutionProvider"])
    said = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    assert [one["name"] for one in said["tasks"]] == ["sent", "topics", "stars", "ner", "places", "nli", "qa", "swag"]
    assert said["tasks"][3]["labels"] == ["LOC", "ORG", "PER"]
    assert (said["max_length"], said["stride"], said["precision"]) == (48, 4, "float32")
    assert [one.name for one in session.get_outputs()] == list(said["outputs"].values())
    assert said["outputs"]["ner"] == "ner_logits"
    assert {one.name: one.shape for one in session.get_inputs()} == {
        name: ["rows", "tokens"] for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    assert not list(graph.glob("*.safetensors"))


def test_int8_has_the_chosen_tasks_and_fewer_bytes(small: Any, graph: Path) -> None:
    assert (small.tasks, small.precision) == (["sent", "ner"], "int8")
    assert set(small.agreement) == {"sent", "ner"}
    words = len(ROWS[0].split()) + len(ROWS[1]["tokens"])
    assert small.agreement["ner"][1] == words
    assert small.agreement["sent"][1] == 2
    predictor = Predictor.from_pretrained(small.folder)
    assert predictor.model.info.precision == "int8"
    assert list(predictor(ROWS[0])[0]["predictions"]) == ["sent", "ner"]
    import onnx

    nodes = onnx.load(str(small.folder / GRAPH)).graph.node
    # Query, key and value together, their output and the two of the feed-forward part in each of two layers.
    assert sum(node.op_type == "MatMulIntegerToFloat" for node in nodes) == 8


def test_int8_answers_do_not_depend_on_the_batch(small: Any) -> None:
    model = OnnxModel(small.folder / GRAPH)
    ids = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    together = model(ids, mask).logits
    assert together is not None
    for row in range(3):
        width = int(mask[row].sum())
        alone = model(ids[row : row + 1, :width], mask[row : row + 1, :width]).logits
        assert alone is not None
        assert torch.allclose(together["sent"][row], alone["sent"][0], atol=1e-5)
        assert torch.allclose(together["ner"][row, :width], alone["ner"][0], atol=1e-5)


def test_few_tokens_of_int8_run_on_the_quicker_session_and_give_the_same(
    small: Any, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_threads, "FIRST", (8, 2))
    model, whole = (OnnxModel(folder / GRAPH, threads=2) for folder in (small.folder, graph))
    ids = torch.randint(5, 60, (FEW_TOKENS // 12 + 1, 12), generator=torch.Generator().manual_seed(1))
    many = model(ids).logits
    assert many is not None
    assert model.quicker is not None
    assert model.quicker._seconds == [], "so many tokens are not tried on"
    answers = [model(ids[:2]).logits for _ in range(2 * 2 * 8)]
    assert [s.get_session_options().intra_op_num_threads for s in model.quicker.sessions] == [2, 1]
    assert model.quicker._seconds is None, "that was the trial"
    for answer in [*answers, model(ids[:2]).logits]:
        assert answer is not None
        for task in ("sent", "ner"):
            assert torch.equal(answer[task], answers[0][task]), "whichever session is asked, the answer is the same"
            assert torch.allclose(many[task][:2], answer[task], atol=1e-5)
    assert whole.quicker is None, "float32 is not tried"
    assert OnnxModel(small.folder / GRAPH, threads=1).quicker is None


class _Slow:
    """Takes its time, which may change."""

    def __init__(self, threads: int, seconds: float) -> None:
        self.threads, self.seconds, self.asked = threads, seconds, 0

    def get_session_options(self) -> Any:
        return SimpleNamespace(intra_op_num_threads=self.threads)

    def run(self, names: Any, fed: Any) -> list[int]:
        self.asked += 1
        time.sleep(self.seconds)
        return [self.threads]


@pytest.mark.parametrize("keep", [True, False])
def test_the_quicker_session_is_looked_for_again(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FIRST", (4, 1)), ("LATER", (2, 1)), ("AGAIN", 10), ("MARGIN", 3.0)):
        monkeypatch.setattr(onnx_threads, name, value)
    several, one = _Slow(2, 0.02), _Slow(1, 0.002)
    quicker = QuickerSession(several, lambda: one, keep=keep)

    def answers(number: int) -> list[int]:
        return [quicker.run([], {}, 8)[0] for _ in range(number)]

    assert answers(8) == [2] * 4 + [1] * 4
    assert answers(10) == [1] * 10, "one thread was quicker"
    several.seconds, one.seconds = 0.002, 0.02
    assert answers(4) == ([2, 2, 1, 1] if keep else [1] * 4)
    assert answers(10) == [2 if keep else 1] * 10
    assert len(quicker.sessions) == (2 if keep else 1), "the slower one is let go where it is not kept"
    several.seconds, one.seconds = 0.02, 0.01
    assert answers(4) == ([2, 2, 1, 1] if keep else [1] * 4)
    assert answers(3) == [2 if keep else 1] * 3, "somewhat quicker is no reason to change"


def test_rounding_is_exact_at_the_largest_value() -> None:
    values = np.array([[1.0, -0.5], [0.5, 4.0]], dtype=np.float32)
    whole, scales = rounded(values, 0)
    assert whole.tolist() == [[127, -16], [64, 127]]
    assert scales.tolist() == pytest.approx([1 / 127, 4 / 127])
    assert rounded(np.zeros((2, 2), dtype=np.float32), 1)[0].tolist() == [[0, 0], [0, 0]]


def test_agreement_counts_words_and_texts() -> None:
    tasks = [
        Task(name="tags", head="token_classification", labels=["X"]),
        Task(name="topics", head="multi_label_classification", labels=["a", "b"]),
        Task(name="stars", head="regression"),
    ]
    one = [{"tags": ["O", "B-X"], "topics": ["a", "b"], "stars": 1.0}, {"tags": ["O"]}]
    other = [{"tags": ["O", "O"], "topics": ["a"], "stars": 1.5}, {"tags": ["O"]}]
    assert agreement(tasks, one, other) == {"tags": (2, 3), "topics": (0, 1)}


def test_damaged_folders_are_refused(graph: Path, tmp_path: Path) -> None:
    cut = shutil.copytree(graph, tmp_path / "cut")
    (cut / GRAPH).write_bytes((cut / GRAPH).read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged"):
        Predictor.from_pretrained(cut)
    bare = shutil.copytree(graph, tmp_path / "bare")
    (bare / "checksums.json").unlink()
    with pytest.raises(UserError, match="does not vouch"):
        Predictor.from_pretrained(bare)
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match="onnxruntime cannot load it"):
        OnnxModel(tmp_path / "no.onnx")
    import onnx

    model = onnx.load(str(graph / GRAPH))
    for entry in model.metadata_props:
        entry.value = entry.value.replace('"format_version": 1', '"format_version": 9')
    onnx.save(model, str(tmp_path / "later.onnx"))
    with pytest.raises(UserError, match="format_version 9"):
        OnnxModel(tmp_path / "later.onnx")
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "foreign.onnx"))
    with pytest.raises(UserError, match="does not say what it answers"):
        OnnxModel(tmp_path / "foreign.onnx")


def test_what_it_cannot_do_is_refused(graph: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dtype"):
        Predictor.from_pretrained(graph, dtype="bfloat16")
    with pytest.raises(UserError, match=r'no task "snt"\. Did you mean "sent"\?'):
        export_onnx(checkpoint, tmp_path / "x", ["snt"])
    with pytest.raises(UserError, match="is not empty"):
        export_onnx(checkpoint, graph)
