"""int8 for a float32 graph: weights with a scale a channel, activations with a scale a token, found as they come.

    s = max |x| over a token's features,  q = round(127 x / s)        w = max |W| over a column,  Q = round(127 W / w)
    x W ≈ (q Q) · s · w / 127²

onnxruntime's own dynamic quantisation has one activation scale for a whole batch, so one outlier costs every token its precision
and a text's answer depends on its neighbours. A scale a token has neither fault; it is the vector-wise quantisation of LLM.int8()
(arXiv:2208.07339) without its mixed part. Embedding tables get a scale a row. Heads stay float32: they are small, and their
logits decide. The product is onnxruntime's `MatMulIntegerToFloat`, so the graph runs there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PRODUCTS = ("MatMul", "Gemm")
SCOPES = "pkg.torch.onnx.name_scopes"
DOMAIN = "com.microsoft"
LEVELS = 127
SMALL = 1e-12
SMALLEST_TABLE = 1000  # rows; positions and token types are not worth it


def quantised(source: Path, target: Path, metadata: dict[str, str]) -> int:
    """Write the int8 form of a graph; returns how many matrix products are int8.

    Args:
        metadata: entries that replace the graph's own.
    """
    import onnx

    model = onnx.load(str(source))
    rewriting = _Rewriting(model.graph)
    rewriting.run()
    if all(one.domain != DOMAIN for one in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    for entry in model.metadata_props:
        entry.value = metadata.get(entry.key, entry.value)
    onnx.save(model, str(target))
    return rewriting.products


class _Rewriting:
    """One pass over the nodes of a graph."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.weights = {one.name: one for one in graph.initializer}
        self.nodes: list[Any] = []
        self.added: set[str] = set()
        self.ready: set[str] = set()
        self.products = 0

    def run(self) -> None:
        """Replace products and tables, and drop the float32 weights that nothing reads any more."""
        for node in self.graph.node:
            if node.op_type == "MatMul" and self._is_matrix(node.input[1]) and not in_heads(node):
                self._product(node)
            elif node.op_type == "Gather" and self._is_table(node):
                self._table(node)
            else:
                self.nodes.append(node)
        read = {name for node in self.nodes for name in node.input} | {one.name for one in self.graph.output}
        kept = [one for one in self.graph.initializer if one.name in read]
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _is_matrix(self, name: str) -> bool:
        return name in self.weights and len(self.weights[name].dims) == 2 and self.weights[name].data_type == 1

    def _is_table(self, node: Any) -> bool:
        axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
        return self._is_matrix(node.input[0]) and axis == 0 and self.weights[node.input[0]].dims[0] >= SMALLEST_TABLE

    def _node(self, kind: str, inputs: Sequence[str], output: str, **more: Any) -> str:
        import onnx

        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [output], name=f"{output}_node", **more))
        return output

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self.added:
            self.added.add(name)
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _split(self, name: str, axis: int) -> tuple[str, str]:
        """(int8 weights, scales) of a float32 matrix, a scale for each entry of the other axis."""
        from onnx import numpy_helper

        whole, scales = f"{name}_int8_{axis}", f"{name}_scale_{axis}"
        if whole not in self.added:
            values, factor = rounded(numpy_helper.to_array(self.weights[name]), axis)
            self._constant(whole, values)
            self._constant(scales, factor)
        return whole, scales

    def _product(self, node: Any) -> None:
        rows = self._activation(node.input[0])
        weights, scales = self._split(node.input[1], 0)
        step, middle = self._constant("int8_step", np.float32(1 / LEVELS)), self._constant("int8_middle", np.uint8(128))
        out = node.output[0]
        inputs = [f"{rows}_int8", weights, step, scales, middle]
        product = self._node("MatMulIntegerToFloat", inputs, f"{out}_of_int8", domain=DOMAIN)
        self._node("Mul", [product, f"{rows}_largest"], out)
        self.products += 1

    def _activation(self, name: str) -> str:
        """Nodes that quantise an activation, once however many products read it (query, key and value do)."""
        if name not in self.ready:
            self.ready.add(name)
            size = self._node("Abs", [name], f"{name}_size")
            last = self._constant("int8_last_axis", np.array([-1], dtype=np.int64))
            most = self._node("ReduceMax", [size, last], f"{name}_most", keepdims=1)
            largest = self._node("Max", [most, self._constant("int8_small", np.float32(SMALL))], f"{name}_largest")
            unit = self._node("Div", [name, largest], f"{name}_unit")
            step = self._constant("int8_step", np.float32(1 / LEVELS))
            self._node("QuantizeLinear", [unit, step, self._constant("int8_middle", np.uint8(128))], f"{name}_int8")
        return name

    def _table(self, node: Any) -> None:
        from onnx import TensorProto

        weights, scales = self._split(node.input[0], 1)
        out, ids = node.output[0], node.input[1]
        values = self._node("Gather", [weights, ids], f"{out}_int8")
        real = self._node("Cast", [values], f"{out}_real", to=TensorProto.FLOAT)
        factor = self._node("Gather", [scales, ids], f"{out}_scale")
        wide = self._node(
            "Unsqueeze", [factor, self._constant("int8_last_axis", np.array([-1], dtype=np.int64))], f"{out}_wide"
        )
        self._node("Mul", [real, wide], out)


def rounded(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 values in −127 … 127 and the scales by which they are multiplied; the largest size along `axis` becomes 127.

    >>> rounded(np.array([[1.0, -0.5], [0.5, 4.0]], dtype=np.float32), 0)[0].tolist()
    [[127, -16], [64, 127]]
    """
    scales = np.maximum(np.abs(values).max(axis=axis, keepdims=True), SMALL) / LEVELS
    whole = np.clip(np.rint(values / scales), -LEVELS, LEVELS).astype(np.int8)
    return whole, scales.squeeze(axis).astype(np.float32)


def in_heads(node: Any) -> bool:
    """Whether a node comes from a head: the exporter notes the modules that it was in."""
    notes = {entry.key: entry.value for entry in node.metadata_props}
    return "heads." in notes.get(SCOPES, "")
