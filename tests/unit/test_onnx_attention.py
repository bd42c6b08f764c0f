"""Graphs that are rewritten: attention as one node, and int8 whose every step is onnxruntime's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from mtl_nlp.inference.onnx import GRAPH, OnnxModel
from mtl_nlp.inference.onnx_attention import ATTENTION, DOMAIN, fuse
from mtl_nlp.inference.onnx_export import export_onnx
from mtl_nlp.inference.onnx_int8 import products, rewritten
from tests.tiny_checkpoint import build_checkpoint

LAYERS = 2


@pytest.fixture(scope="module")
def graph(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("attention")
    checkpoint = build_checkpoint(place / "checkpoint", tiny_encoder, max_length=48)
    return export_onnx(checkpoint, place / "float32", ["sent", "ner"]).folder / GRAPH


def kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def padded(left: bool = False) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 60, (3, 12), generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([12, 7, 2])[:, None]
    places = torch.arange(12)
    mask = places >= 12 - lengths if left else places < lengths
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def logits(model: Any, place: Path, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    if all(one.domain != DOMAIN for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    onnx.save(model, str(place / "made.onnx"))
    found = OnnxModel(place / "made.onnx", threads=1)(**batch).logits
    assert found is not None
    return dict(found)


@pytest.mark.parametrize("left", [False, True])
def test_one_node_gives_what_ten_gave(graph: Path, tmp_path: Path, left: bool) -> None:
    whole, fused = onnx.load(str(graph)), onnx.load(str(graph))
    assert fuse(fused.graph) == LAYERS
    assert kinds(fused).count(ATTENTION) == LAYERS
    assert "Softmax" not in kinds(fused)
    assert len(fused.graph.node) <= len(whole.graph.node) - 9 * LAYERS
    batch = padded(left)
    expected, found = logits(whole, tmp_path, batch), logits(fused, tmp_path, batch)
    for task in ("sent", "ner"):
        assert (expected[task] - found[task]).abs().max() <= 1e-5, task


def without_shapes(model: Any) -> None:
    del model.graph.value_info[:]


def bias_over_one_token(model: Any) -> None:
    bias = next(node for node in model.graph.node if node.op_type == "Softmax").input[0]
    added = next(node for node in model.graph.node if bias in node.output).input[1]
    for one in model.graph.value_info:
        if one.name == added:
            one.type.tensor_type.shape.dim[2].ClearField("dim_param")
            one.type.tensor_type.shape.dim[2].dim_value = 1


def over_queries(model: Any) -> None:
    for node in model.graph.node:
        if node.op_type == "Softmax":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("axis", 2))


def turned_otherwise(model: Any) -> None:
    for node in model.graph.node:
        if node.op_type == "Transpose" and list(node.attribute[0].ints) == [0, 2, 3, 1]:
            node.attribute[0].ints[:] = [0, 2, 1, 3]


def scores_watched(model: Any) -> None:
    names = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)


def more_added(model: Any) -> None:
    """As relative positions are: a second sum between the scaled scores and the mask."""
    for node in list(model.graph.node):
        if node.op_type == "Softmax":
            added = next(other for other in model.graph.node if node.input[0] in other.output)
            place = list(model.graph.node).index(added)
            again = helper.make_node("Add", [added.input[0], added.input[1]], [f"{added.output[0]}_before"])
            added.input[0] = again.output[0]
            model.graph.node.insert(place, again)


@pytest.mark.parametrize(
    "change", [without_shapes, bias_over_one_token, over_queries, turned_otherwise, scores_watched, more_added]
)
def test_what_departs_from_the_pattern_is_left_alone(graph: Path, change: Callable[[Any], None]) -> None:
    model = onnx.load(str(graph))
    change(model)
    before = model.SerializeToString(deterministic=True)
    assert fuse(model.graph) == 0
    assert model.SerializeToString(deterministic=True) == before


def test_a_float32_export_has_standard_nodes_only(graph: Path) -> None:
    model = onnx.load(str(graph))
    assert {node.domain for node in model.graph.node} == {""}
    assert {one.domain for one in model.opset_import if one.domain} == set()


def test_int8_folds_the_factors_of_what_attention_gives_into_its_values(graph: Path, tmp_path: Path) -> None:
    whole = loud(onnx.load(str(graph)))
    small = onnx.ModelProto.FromString(whole.SerializeToString())
    outputs = [node.output[0] for node in whole.graph.node]
    # Sizes that no text has, so that factors are far from 1 and one that is lost would be seen.
    sizes = {
        one.source: np.geomspace(0.1, 10.0, width_of(whole, one.nodes[0])).astype(np.float32)
        for one in products(whole)
        if "Gelu" not in kinds_of(whole, one.source)
    }
    assert rewritten(small, largest=sizes) == 8
    mixed = [node.output[0] for node in small.graph.node if node.op_type == ATTENTION]
    assert len(mixed) == LAYERS
    assert set(mixed) <= set(outputs)
    smoothed = {node.input[0] for node in small.graph.node if node.output[0].endswith("_smoothed")}
    assert len(smoothed) == 2 * LAYERS
    assert not smoothed & set(mixed)
    # Each bias is added once, with the others of its product, and none of the float32 weights is left.
    assert kinds(small).count("MatMulIntegerToFloat") == sum(name.endswith("_offset") for name in names_of(small)) == 8
    batch = padded()
    expected, found = logits(whole, tmp_path, batch), logits(small, tmp_path, batch)
    for task in ("sent", "ner"):
        real = batch["attention_mask"].bool() if task == "ner" else slice(None)
        assert torch.isfinite(found[task]).all()
        assert (expected[task] - found[task])[real].abs().max() <= 0.2 * expected[task][real].abs().max(), task


def loud(model: Any) -> Any:
    """Fresh weights are so small that what attention gives is lost beside the input that it is added to."""
    weights = {one.name: one for one in model.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node}
    for one in products(model):
        if "attention" in one.name:
            found = weights[makers[one.nodes[-1]].input[1]]  # of the values, the last of three, or of the output
            found.CopyFrom(numpy_helper.from_array(20 * numpy_helper.to_array(found), found.name))
    return model


def kinds_of(model: Any, name: str) -> list[str]:
    return [node.op_type for node in model.graph.node if name in node.output]


def names_of(model: Any) -> list[str]:
    return [one.name for one in model.graph.initializer]


def width_of(model: Any, product: str) -> int:
    """K of a product."""
    weights = {one.name: one for one in model.graph.initializer}
    return int(next(weights[node.input[1]].dims[0] for node in model.graph.node if product in node.output))


@pytest.mark.parametrize("kind", ["Identity", "Relu", "Gelu"])
def test_a_token_of_zeros_gives_the_bias(kind: str) -> None:
    draw = np.random.default_rng(0)
    weights, bias = draw.standard_normal((32, 8)).astype(np.float32), draw.standard_normal(8).astype(np.float32)
    nodes = [
        helper.make_node(kind, ["x"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["p"]),
        helper.make_node("Add", ["b", "p"], ["y"]),
    ]
    sizes: list[Any] = ["rows", "tokens"]
    whole = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*sizes, 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*sizes, 8])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    texts = draw.standard_normal((2, 4, 32)).astype(np.float32)
    texts[0, 1] = texts[1, 3] = 0.0
    texts[1, 0] = 1e-39  # 1/s is infinite
    expected, found = [], []
    for target in (expected, found):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        target += session.run(None, {"x": texts})
        rewritten(model)
    assert kinds(model).count("MatMulIntegerToFloat") == 1
    assert np.isfinite(found[0]).all()
    if kind != "Gelu":  # what is shifted is not zero any more
        assert np.array_equal(found[0][0, 1], bias)
        assert np.array_equal(found[0][1, 3], bias)
    assert np.abs(found[0] - expected[0]).max() <= 0.03 * np.abs(expected[0]).max()
