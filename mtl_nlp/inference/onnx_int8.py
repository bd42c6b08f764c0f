"""int8 for a float32 graph: weights with a scale a channel, activations with a scale a token, found as they come.

    s = max |x| over a token's features,  q = round(127 x / s)        w = max |W| over a column,  Q = round(127 W / w)
    x W ≈ (q Q) · s · w / 127²

onnxruntime's own dynamic quantisation has one activation scale for a whole batch, so one outlier costs every token its precision
and a text's answer depends on its neighbours. A scale a token has neither fault; it is the vector-wise quantisation of LLM.int8()
(arXiv:2208.07339) without its mixed part. Three things more keep it precise:

* What comes out of GELU or ReLU has a known least value; it is moved to start at 0, so that all 256 levels are used, and the
  product of the shift with the weights is taken off again.
* With `largest` sizes of each feature, seen on texts, outlying features are divided and their weights multiplied by
  √(size of the feature / size of its weights): SmoothQuant (arXiv:2211.10438) at α = 0.5.
* Products may be kept in float32 (`onnx_choice` finds out which).

Products of the same activation (query, key, value) are one, and the biases that are added to them are added together. Factors of
what attention gives are folded into its values' weights. Embedding tables get a scale a row. Heads stay float32: they are small,
and their logits decide. The product is onnxruntime's `MatMulIntegerToFloat`, so the graph runs there, and attention is one node of
onnxruntime's too (`onnx_attention`).

A token of zeros has s = 0 and 0 · 1/0 is no number, but whatever q becomes is finite, and s = 0 takes it off again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_attention import ATTENTION, DOMAIN, fuse, readers, replace_nodes

SCOPES = "pkg.torch.onnx.name_scopes"
LEVELS = 127
STEPS = 255
SMALL = 1e-12
SMALLEST_TABLE = 1000  # rows; positions and token types are not worth it
# The least value that an operation gives; GELU's is at −0.7518, its tanh form goes down to −0.17004.
LEAST = {"Gelu": -0.1701, "Relu": 0.0}
TABLES = "embedding tables"
FLOAT = 1  # TensorProto.FLOAT

Sizes = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Product:
    """Matrix products of one activation, which are quantised together or not at all.

    Attributes:
        name: the modules, as `encoder.layer.0.attention.self.query, key, value`.
        source: the activation.
        nodes: names of their outputs.
    """

    name: str
    source: str
    nodes: tuple[str, ...]


def products(model: Any) -> list[Product]:
    """What of a float32 graph can be int8, in the order of the graph."""
    weights = {one.name: one for one in model.graph.initializer}
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.op_type == "MatMul" and is_matrix(weights, node.input[1]) and not in_heads(node):
            found.setdefault(node.input[0], []).append(node)
    return [
        Product(_named([_module(node) for node in nodes]), source, tuple(node.output[0] for node in nodes))
        for source, nodes in found.items()
    ]


def quantised(
    source: Path, target: Path, metadata: dict[str, str], keep: Collection[str] = (), largest: Sizes | None = None
) -> int:
    """Write the int8 form of a graph; returns how many products of activations are int8.

    Args:
        metadata: entries that replace the graph's own.
        keep: names of products (or `TABLES`) that stay float32.
        largest: activation → the largest size of each of its features, [K]; without, features are not smoothed.
    """
    import onnx

    model = onnx.load(str(source))
    made = rewritten(model, keep, largest)
    for entry in model.metadata_props:
        entry.value = metadata.get(entry.key, entry.value)
    onnx.save(model, str(target))
    return made


def note_in(file: Path, metadata: Mapping[str, str]) -> None:
    """Replace entries of a graph's metadata."""
    import onnx

    model = onnx.load(str(file))
    for entry in model.metadata_props:
        entry.value = metadata.get(entry.key, entry.value)
    onnx.save(model, str(file))


def rewritten(model: Any, keep: Collection[str] = (), largest: Sizes | None = None) -> int:
    """As `quantised`, in place."""
    import onnx

    chosen = [one for one in products(model) if one.name not in keep]
    fuse(model.graph)
    _Rewriting(model.graph, chosen, largest or {}, tables=TABLES not in keep).run()
    if all(one.domain != DOMAIN for one in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return len(chosen)


class _Rewriting:
    """One pass over the nodes of a graph."""

    def __init__(self, graph: Any, chosen: Sequence[Product], largest: Sizes, *, tables: bool) -> None:
        self.graph, self.tables = graph, tables
        self.weights = {one.name: one for one in graph.initializer}
        self.by_output = {node.output[0]: node for node in graph.node}
        self.readers = readers(graph)
        self.firsts = {one.nodes[0]: one for one in chosen}
        self.least = {one.source: LEAST.get(self._kind(one.source)) for one in chosen}
        self.sums = {name: self._sum(name) for one in chosen for name in one.nodes}
        self.done = {name for one in chosen for name in one.nodes[1:]}
        self.done |= {name for name, bias in self.sums.values() if bias}
        self.factors = {one.source: self._factors(one, largest[one.source]) for one in chosen if one.source in largest}
        self.values = {value: self.factors[one.source] for one in chosen if (value := self._mixed(one))}
        self.nodes: list[Any] = []
        self.added: set[str] = set()

    def run(self) -> None:
        """Replace products and tables, and drop the float32 weights that nothing reads any more."""
        for node in self.graph.node:
            output = node.output[0]
            if output in self.firsts:
                self._product(self.firsts[output])
            elif self.tables and node.op_type == "Gather" and self._is_table(node):
                self._table(node)
            elif output not in self.done:
                self.nodes.append(node)
        replace_nodes(self.graph, self.nodes)

    def _kind(self, name: str) -> str:
        return self.by_output[name].op_type if name in self.by_output else ""

    def _sum(self, product: str) -> tuple[str, str | None]:
        """(Sum, bias) where the only reader of a product adds a bias to it; otherwise the product and None."""
        found = self.readers.get(product, [])
        if len(found) == 1 and found[0] is not None and found[0].op_type == "Add":
            biases = [name for name in found[0].input if name in self.weights and len(self.weights[name].dims) == 1]
            if biases:
                return found[0].output[0], biases[0]
        return product, None

    def _whole(self, one: Product) -> NDArray[np.float32]:
        """The weights of a product's nodes, side by side."""
        return np.concatenate([self._matrix(self.by_output[name].input[1]) for name in one.nodes], axis=1)

    def _factors(self, one: Product, largest: NDArray[np.float32]) -> NDArray[np.float32]:
        return smoothing(largest, self._whole(one), self.least[one.source])

    def _mixed(self, one: Product) -> str | None:
        """The values, int8 too, that attention mixes for this product, if nothing else reads either: x/f is made of values/f."""
        if one.source not in self.factors or self._kind(one.source) != ATTENTION:
            return None
        value = self.by_output[one.source].input[2]
        sums = {name for name, _ in self.sums.values()}
        alone = len(self.readers[value]) == 1 and len(self.readers[one.source]) == len(one.nodes)
        return value if alone and value in sums else None

    def _is_table(self, node: Any) -> bool:
        axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
        name = node.input[0]
        return is_matrix(self.weights, name) and axis == 0 and self.weights[name].dims[0] >= SMALLEST_TABLE

    def _node(self, kind: str, inputs: Sequence[str], *outputs: str, **more: Any) -> str:
        import onnx

        self.nodes.append(onnx.helper.make_node(kind, list(inputs), list(outputs), name=f"{outputs[0]}_node", **more))
        return outputs[0]

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self.added:
            self.added.add(name)
            self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _matrix(self, name: str) -> NDArray[np.float32]:
        from onnx import numpy_helper

        return numpy_helper.to_array(self.weights[name])

    def _product(self, one: Product) -> None:
        smooth, least = self.factors.get(one.source), self.least[one.source]
        whole = self._whole(one)
        values, scales = rounded(whole if smooth is None else whole * smooth[:, None], 0)
        bias, divisor = self._bias(one), self._divisor(one)
        if least:
            real = values.astype(np.float32) * scales / (1.0 if smooth is None else smooth[:, None])
            bias = np.float32(least) * real.sum(0) + (0.0 if bias is None else bias)
        label, results = f"{one.source}_of_{one.nodes[0]}", [self.sums[name][0] for name in one.nodes]
        activation, size = self._activation(one.source, label, None if self._mixed(one) else smooth)
        step, zero = self._levels(least)
        inputs = [
            activation,
            self._constant(f"{label}_weights", values),
            step,
            self._constant(f"{label}_scales", scales / divisor),
            zero,
        ]
        out = self._node("MatMulIntegerToFloat", inputs, f"{label}_product", domain=DOMAIN)
        last = f"{label}_whole" if len(results) > 1 else results[0]
        out = self._node("Mul", [out, size], last if bias is None else f"{label}_real")
        if bias is not None:
            offset = self._constant(f"{label}_offset", (bias / divisor).astype(np.float32))
            out = self._node("Add", [out, offset], last)
        if len(results) > 1:
            widths = np.array([self._width(name) for name in one.nodes], dtype=np.int64)
            self._node("Split", [out, self._constant(f"{label}_widths", widths)], *results, axis=-1)

    def _bias(self, one: Product) -> NDArray[np.float32] | None:
        """The biases of a product's nodes, side by side; None where no node has one."""
        from onnx import numpy_helper

        found = [self.sums[name][1] for name in one.nodes]
        if not any(found):
            return None
        each = [numpy_helper.to_array(self.weights[name]) if name else np.zeros(1, dtype=np.float32) for name in found]
        return self._side_by_side(one, each)

    def _divisor(self, one: Product) -> NDArray[np.float32]:
        """What each column is divided by: the factors of what attention makes of it, otherwise 1."""
        undivided = np.ones(1, dtype=np.float32)
        return self._side_by_side(one, [self.values.get(self.sums[name][0], undivided) for name in one.nodes])

    def _side_by_side(self, one: Product, each: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """A vector a node, stretched to its width."""
        widths = [self._width(name) for name in one.nodes]
        return np.concatenate([np.broadcast_to(part, width) for part, width in zip(each, widths, strict=True)])

    def _width(self, name: str) -> int:
        return int(self.weights[self.by_output[name].input[1]].dims[1])

    def _levels(self, least: float | None) -> tuple[str, str]:
        """(Step, zero point) of activations."""
        levels, zero = (LEVELS, 128) if least is None else (STEPS, 0)
        step = self._constant(f"int8_step_{levels}", np.float32(1 / levels))
        return step, self._constant(f"int8_zero_{zero}", np.uint8(zero))

    def _activation(self, name: str, label: str, smooth: Any) -> tuple[str, str]:
        """(quantised activation, each token's largest value), shifted, and smoothed where factors are given."""
        least = self.least[name]
        step, zero = self._levels(least)
        if least:
            name = self._node("Sub", [name, self._constant(f"{label}_least", np.float32(least))], f"{label}_shifted")
        if smooth is not None:
            inverse = self._constant(f"{label}_smooth", (1 / smooth).astype(np.float32))
            name = self._node("Mul", [name, inverse], f"{label}_smoothed")
        size = self._node("Abs", [name], f"{label}_size") if least is None else name
        last = self._constant("int8_last_axis", np.array([-1], dtype=np.int64))
        most = self._node("ReduceMax", [size, last], f"{label}_most", keepdims=1)
        unit = self._node("Mul", [name, self._node("Reciprocal", [most], f"{label}_inverse")], f"{label}_unit")
        return self._node("QuantizeLinear", [unit, step, zero], f"{label}_int8"), most

    def _table(self, node: Any) -> None:
        name, out, ids = node.input[0], node.output[0], node.input[1]
        values, scales = rounded(self._matrix(name), 1)
        rows = self._node("Gather", [self._constant(f"{name}_int8", values), ids], f"{out}_int8")
        real = self._node("Cast", [rows], f"{out}_real", to=FLOAT)
        factor = self._node("Gather", [self._constant(f"{name}_scale", scales), ids], f"{out}_scale")
        last = self._constant("int8_last_axis", np.array([-1], dtype=np.int64))
        self._node("Mul", [real, self._node("Unsqueeze", [factor, last], f"{out}_wide")], out)


def is_matrix(weights: Mapping[str, Any], name: str) -> bool:
    """Whether an initializer of this name is a float32 matrix."""
    return name in weights and len(weights[name].dims) == 2 and weights[name].data_type == FLOAT


def smoothing(
    largest: NDArray[np.float32], weights: NDArray[np.float32], least: float | None = None
) -> NDArray[np.float32]:
    """SmoothQuant's factors [K] at α = 0.5: √(size of a feature / size of its weights [K, N]), their geometric mean 1.

    Args:
        least: the activation is shifted to start at 0, which adds to its sizes.

    >>> smoothing(np.array([4.0, 1.0], dtype=np.float32), np.array([[1.0], [1.0]], dtype=np.float32)).tolist()
    [1.4142135381698608, 0.7071067690849304]
    """
    sizes = np.maximum(largest - (least or 0.0), SMALL**0.5)
    own = np.maximum(np.abs(weights).max(axis=1), SMALL**0.5)
    factors = np.sqrt(sizes / own)
    return (factors / np.exp(np.log(factors).mean())).astype(np.float32)


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
    return "heads." in _scopes(node)


def _scopes(node: Any) -> str:
    return {entry.key: entry.value for entry in node.metadata_props}.get(SCOPES, "")


def _module(node: Any) -> str:
    """The module that a node comes from, below the encoder; the node's own name where the exporter noted none."""
    parts = [part.strip(" '\"") for part in _scopes(node).strip("[]").split(",")]
    named = [part for part in parts if part.startswith("encoder.")]
    return named[-1].removeprefix("encoder.") if named else node.output[0]


def _named(modules: Sequence[str]) -> str:
    """`a.query, key, value` of modules that lie together."""
    first = modules[0]
    base = first.rpartition(".")[0]
    return ", ".join([first, *(one.removeprefix(f"{base}.") for one in modules[1:])])
