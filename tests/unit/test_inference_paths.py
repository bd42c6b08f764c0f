"""The paths of inference agree: int8 and its choice, precision, parts encoded ahead, several processes, constant memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from mtl_nlp import Predictor
from mtl_nlp.data.batching import Collator
from mtl_nlp.data.mixture import Draw
from mtl_nlp.data.unlabelled import InputCollator
from mtl_nlp.errors import UserError
from mtl_nlp.inference import precision, predictor
from mtl_nlp.inference.flow import Tally, parts_of
from mtl_nlp.inference.inputs import Piece
from mtl_nlp.inference.onnx import GRAPH, KEY
from mtl_nlp.inference.onnx_export import export_onnx
from mtl_nlp.inference.onnx_int8 import products, rewritten, smoothing
from mtl_nlp.inference.parallel import Job, in_processes
from mtl_nlp.task import Task
from tests.tiny_checkpoint import build_checkpoint

WORDS = "anna is in london and bob was at acme corp the food was good staff slow".split()
TEXTS = [" ".join(WORDS[i % 5 : i % 5 + 1 + i % 9]) for i in range(160)]
TASKS = ["sent", "topics", "ner"]


@pytest.fixture(scope="module")
def checkpoint(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint", tiny_encoder, max_length=48)


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_padded_as_the_tokenizer_pads_them(checkpoint: Path, side: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side=side)
    tasks = [Task(name="a", head="sequence_classification", labels=["x", "y"]), Task(name="b", head="multiple_choice")]
    records = [
        {
            "input_ids": list(range(5, 5 + n)),
            "token_type_ids": [i % 2 for i in range(n)],
            "first": first,
            "draw": Draw("input", 0, 0),
        }
        for n, first in ((4, True), (7, False), (1, True))
    ]
    plain = [{name: record[name] for name in ("input_ids", "token_type_ids")} for record in records]
    padded = tokenizer.pad(plain, return_tensors="pt")
    expected = Collator(tokenizer, tasks, {"input": ["a", "b"]}, labelled=False)(records)
    found = InputCollator(tokenizer, tasks)(records)
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        assert torch.equal(found[name], padded[name])
        assert torch.equal(expected[name], padded[name])
    for name in ("a", "b"):
        assert found["tasks"][name].keys() == expected["tasks"][name].keys()
        for key, value in expected["tasks"][name].items():
            own = found["tasks"][name][key]
            assert torch.equal(own, value) if isinstance(value, torch.Tensor) else own == value


def _graph(weights: np.ndarray, before: str) -> Any:
    """x → `before` → MatMul with the weights, and a second MatMul of the same activation."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node(before, ["x"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
        helper.make_node("MatMul", ["h", "v"], ["z"]),
    ]
    values = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(weights[:, :3].copy(), "v")]
    shape = [None, None, weights.shape[0]]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z")]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _run(model: Any, x: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


@pytest.mark.parametrize("before", ["Gelu", "Relu", "Identity"])
def test_int8_products_are_near_float32_and_nearer_with_smoothing(before: str) -> None:
    draw = np.random.default_rng(0)
    weights = draw.normal(size=(64, 16)).astype(np.float32)
    x = draw.normal(size=(2, 5, 64)).astype(np.float32)
    x[..., 3] = 20 + 40 * np.abs(x[..., 3])  # an outlying feature
    model = _graph(weights, before)
    expected = _run(model, x)
    found = products(model)
    assert [(one.source, one.nodes) for one in found] == [("h", ("y", "z"))]
    hidden = np.maximum(x, 0) if before == "Relu" else x
    errors = []
    for largest in ({}, {"h": np.abs(hidden).max((0, 1))}):
        small = _graph(weights, before)
        assert rewritten(small, (), largest) == 1
        assert sum(node.op_type == "MatMulIntegerToFloat" for node in small.graph.node) == 1
        answers = _run(small, x)
        np.testing.assert_allclose(answers[0][..., :3], answers[1], rtol=1e-5, atol=1e-4)
        errors.append(float(np.abs(answers[0] - expected[0]).mean()))
    assert errors[1] < 0.8 * errors[0]
    assert errors[1] < 0.05 * float(np.abs(expected[0]).mean())
    kept = _graph(weights, before)
    assert rewritten(kept, [found[0].name]) == 0
    np.testing.assert_array_equal(_run(kept, x)[0], expected[0])


def test_smoothing_factors_by_hand() -> None:
    # √(4/1), √(1/1): 2 and 1, divided by their geometric mean √2.
    found = smoothing(np.array([4.0, 1.0], dtype=np.float32), np.ones((2, 3), dtype=np.float32))
    assert found.tolist() == pytest.approx([2**0.5, 0.5**0.5])
    # A shift by −1 adds 1 to the sizes: √(4/1), √(1/1) again.
    shifted = smoothing(np.array([3.0, 0.0], dtype=np.float32), np.ones((2, 3), dtype=np.float32), -1.0)
    assert shifted.tolist() == pytest.approx([2**0.5, 0.5**0.5])


def test_products_are_kept_until_the_labels_agree(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = export_onnx(checkpoint, tmp_path / "loose", TASKS, int8=True, texts=TEXTS, least=0.0)
    assert (loose.kept, loose.products) == ([], 8)
    made = export_onnx(checkpoint, tmp_path / "exact", TASKS, int8=True, texts=TEXTS, least=1.0)
    assert all(same == number for same, number in made.agreement.values())
    both = Predictor.from_pretrained(made.folder), Predictor.from_pretrained(checkpoint)
    assert both[0].decoded(TEXTS, TASKS) == both[1].decoded(TEXTS, TASKS)
    assert both[0].model.info.kept == made.kept  # type: ignore[attr-defined]
    assert len(made.kept) <= 9  # products and the tables


def test_fp32_is_what_it_was_and_bf16_is_near(checkpoint: Path) -> None:
    exact = Predictor.from_pretrained(checkpoint, "cpu")
    half = Predictor.from_pretrained(checkpoint, "cpu", precision="bf16")
    assert exact.path == "float32, padding-free"
    assert half.path == "bfloat16 weights, padding-free"
    one, other = exact(TEXTS[:40], "sent", scores=True), half(TEXTS[:40], "sent", scores=True)
    scores = [[row["predictions"]["sent"]["scores"] for row in rows] for rows in (one, other)]
    gaps = [abs(left[name] - right[name]) for left, right in zip(*scores, strict=True) for name in left]
    assert 0 < max(gaps) < 0.1


def test_auto_judges_on_the_texts_and_changes_few_labels(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = Predictor.from_pretrained(checkpoint, "cpu")
    auto = Predictor.from_pretrained(checkpoint, "cpu", precision="auto")
    assert auto(TEXTS[:20], TASKS) == exact(TEXTS[:20], TASKS)
    assert "not judged yet" in auto.path
    expected, found = exact.decoded(TEXTS, "sent"), auto.decoded(TEXTS, "sent")
    assert "sent: " in auto.path
    assert sum(a == b for a, b in zip(expected, found, strict=True)) >= 0.995 * len(TEXTS)
    # Where it is too slow, or answers otherwise, it is not taken.
    monkeypatch.setattr(precision, "FASTER", 1e9)
    slow = Predictor.from_pretrained(checkpoint, "cpu", precision="auto")
    assert slow(TEXTS, TASKS) == exact(TEXTS, TASKS)
    assert "float32: " in slow.path
    # Where it is fast and equal, it is.
    monkeypatch.setattr(precision, "FASTER", 0.0)
    monkeypatch.setattr(precision, "EQUAL", 0.0)
    taken = Predictor.from_pretrained(checkpoint, "cpu", precision="auto")
    half = Predictor.from_pretrained(checkpoint, "cpu", precision="bf16")
    assert taken.decoded(TEXTS, TASKS) == half.decoded(TEXTS, TASKS)
    assert "bfloat16 weights: " in taken.path


def test_a_graph_in_the_checkpoint_answers_single_texts_and_int8(checkpoint: Path, tmp_path: Path) -> None:
    import shutil

    own = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    with pytest.raises(UserError, match=r"mtl-nlp export .* --format onnx --int8 --output"):
        Predictor.from_pretrained(own, precision="int8")
    export_onnx(own, own / "onnx", TASKS)
    export_onnx(own, own.with_name("checkpoint-onnx-int8"), TASKS, int8=True)
    auto, exact = Predictor.from_pretrained(own, "cpu", precision="auto"), Predictor.from_pretrained(own, "cpu")
    assert auto.path.endswith("up to 4 texts at once: float32, onnxruntime")
    assert auto.decoded(TEXTS[3:4], TASKS) == exact.decoded(TEXTS[3:4], TASKS)
    small = Predictor.from_pretrained(own, precision="int8")
    assert small.path == "int8, onnxruntime"
    assert [task.name for task in small.tasks] == TASKS
    # A graph of other weights is not taken for this checkpoint's.
    said = json.loads(_metadata(own / "onnx" / GRAPH)[KEY])
    assert len(said["weights"]) == 64
    foreign = shutil.copytree(checkpoint, tmp_path / "foreign")
    shutil.copytree(own / "onnx", foreign / "onnx")
    assert precision.graph_of(foreign, "float32") is not None  # the same weights under another name
    damaged = foreign / "onnx" / GRAPH
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged"):
        precision.graph_of(foreign, "float32")


def _metadata(file: Path) -> dict[str, str]:
    import onnx

    return {entry.key: entry.value for entry in onnx.load(str(file)).metadata_props}


def test_what_does_not_go_together_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UserError, match='found "half"'):
        Predictor.from_pretrained(checkpoint, precision="half")
    with pytest.raises(UserError, match="beside a dtype"):
        Predictor.from_pretrained(checkpoint, precision="bf16", dtype="bfloat16")


def _labels(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without numbers, whose last bits depend on the batch."""
    return [{name: value for name, value in row.items() if name != "stars"} for row in rows]


def test_parts_that_are_encoded_ahead_give_the_same_answers(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Predictor.from_pretrained(checkpoint, "cpu")
    rows: list[Any] = [*TEXTS, {"tokens": ["anna", "was", "late"]}, {"question": "who", "context": TEXTS[8] * 20}]
    expected = _labels(whole.decoded(rows))
    monkeypatch.setattr(predictor, "PART", 7)
    tally = Tally()
    cut = Predictor.from_pretrained(checkpoint, "cpu")
    assert _labels(cut.decoded(rows)) == expected
    found = list(cut.stream(rows, lookahead=50, tally=tally))
    assert [row["predictions"].keys() for row in found] == [row["predictions"].keys() for row in whole(rows)]
    assert tally.rows == len(rows)


def test_parts_hold_every_piece_once_the_longest_first() -> None:
    pieces = [Piece(i, "text", {"text": "x" * (i * 7 % 11)}, ("a",)) for i in range(23)]
    parts = parts_of(pieces, 5)
    assert sorted(piece.row for part in parts for piece in part) == list(range(23))
    lengths = [len(piece.fields["text"]) for part in parts for piece in part]
    assert lengths == sorted(lengths, reverse=True)
    assert max(map(len, parts)) == 5
    assert parts_of(pieces[:5], 5) == [pieces[:5]]


def test_a_stream_holds_no_more_after_many_rows_than_after_few(checkpoint: Path) -> None:
    one = Predictor.from_pretrained(checkpoint, "cpu")
    rows = (TEXTS[i % len(TEXTS)] for i in range(2000))
    held: dict[int, int] = {}
    tracemalloc.start()
    try:
        for number, _ in enumerate(one.stream(rows, ["sent", "ner"], 64, lookahead=128), 1):
            if number in (512, 1920):
                held[number] = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held[1920] - held[512] < 300_000


@pytest.mark.slow
def test_two_processes_answer_in_order_up_to_a_fault(checkpoint: Path) -> None:
    rows: list[Any] = [{"text": text, "id": i} for i, text in enumerate(TEXTS[:50])]
    expected = Predictor.from_pretrained(checkpoint, "cpu")(rows)
    job = Job(str(checkpoint), "cpu", window=7)
    tally = Tally()
    assert [row["id"] for row in in_processes(job, rows, 2, tally)] == list(range(50))
    assert tally.rows == 50
    found: list[Any] = []
    broken = [*rows[:20], 7, *rows[20:]]
    with pytest.raises(UserError, match="row 21"):
        found.extend(in_processes(job, broken, 2))
    assert [row["id"] for row in found] == list(range(20))
    assert [r["predictions"]["sent"]["label"] for r in found] == [
        r["predictions"]["sent"]["label"] for r in expected[:20]
    ]
