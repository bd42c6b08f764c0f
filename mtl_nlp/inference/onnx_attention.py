"""Attention in a graph as one node: onnxruntime's `MultiHeadAttention` in the place of ten standard ones.

    softmax(q kᵀ · scale + bias) v      q, k, v [rows, tokens, heads · size], cut into heads; bias [1 or rows, 1 or heads, T, T]

The pattern is what PyTorch's exporter writes for transformers' eager attention. What departs from it anywhere (rotary or relative
positions, shared keys, sizes that the graph does not state) is left as it is. The node is onnxruntime's own, so only graphs that
run nowhere else are given it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DOMAIN = "com.microsoft"
ATTENTION = "MultiHeadAttention"
SPLIT, TURNED = [0, 2, 1, 3], [0, 2, 3, 1]  # [rows, tokens, heads, size] → heads before tokens; and tokens last


@dataclass(frozen=True)
class Attention:
    """What a node stands for.

    Attributes:
        inputs: query, key, value, as they are before they are cut into heads.
        bias: what is added to the scaled scores.
        output: the mixed values, heads side by side.
    """

    inputs: tuple[str, str, str]
    bias: str
    output: str
    heads: int
    scale: float


def fuse(graph: Any) -> int:
    """Replace each attention of a graph by one node; returns how many there were."""
    import onnx

    found = _Reader(graph).attentions()
    if not found:
        return 0
    made = {
        one.output: onnx.helper.make_node(
            ATTENTION,
            [*one.inputs, "", "", one.bias],
            [one.output],
            name=f"{one.output}_node",
            domain=DOMAIN,
            num_heads=one.heads,
            scale=one.scale,
        )
        for one in found
    }
    replace_nodes(graph, [made.get(node.output[0], node) for node in graph.node])
    return len(found)


def replace_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    """Give a graph these nodes, but for those that nothing reads; and drop the weights that nothing reads."""
    read, kept = {one.name for one in graph.output}, []
    for node in reversed(nodes):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update(node.input)
    weights = [one for one in graph.initializer if one.name in read]
    del graph.node[:]
    graph.node.extend(reversed(kept))
    del graph.initializer[:]
    graph.initializer.extend(weights)


def readers(graph: Any) -> dict[str, list[Any]]:
    """Value → the nodes that read it; a graph's outputs are read by None."""
    found: dict[str, list[Any]] = {one.name: [None] for one in graph.output}
    for node in graph.node:
        for name in node.input:
            found.setdefault(name, []).append(node)
    return found


class _Reader:
    """Finds the pattern, from the softmax on."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers = readers(graph)
        self.numbers = {one.name: one for one in graph.initializer}
        self.shapes = {one.name: _shape(one) for one in graph.value_info}

    def attentions(self) -> list[Attention]:
        """Those of the graph, in its order."""
        found = (self._attention(node) for node in self.graph.node if node.op_type == "Softmax")
        return [one for one in found if one is not None]

    def _attention(self, softmax: Any) -> Attention | None:
        if _setting(softmax, "axis", -1) not in (-1, 3):
            return None
        added = self._made(softmax.input[0], "Add")
        scaled = self._made(added and added.input[0], "Mul")
        scores = self._made(scaled and scaled.input[0], "MatMul")
        mixed = self._reader(softmax.output[0], "MatMul")
        joined = self._reader(mixed and mixed.output[0], "Transpose")
        output = self._reader(joined and joined.output[0], "Reshape")
        scale = self._number(scaled and scaled.input[1])
        if scores is None or mixed is None or output is None or scale is None:
            return None
        if mixed.input[0] != softmax.output[0] or _setting(joined, "perm") != SPLIT:
            return None
        cut = (self._cut(scores.input[0], SPLIT), self._cut(scores.input[1], TURNED), self._cut(mixed.input[1], SPLIT))
        query, key, value = cut
        if query is None or key is None or value is None or not query[1] == key[1] == value[1]:
            return None
        heads, size = query[1]
        fits = self._fits(added.input[1], softmax.output[0], heads)
        fits = fits and self.shapes.get(output.output[0], [])[2:] == [heads * size]
        inputs = query[0], key[0], value[0]
        return Attention(inputs, added.input[1], output.output[0], heads, scale) if fits else None

    def _cut(self, name: str, order: Sequence[int]) -> tuple[str, tuple[int, int]] | None:
        """(Value before it is cut into heads, (heads, size of one)) of an input of the scores or of the mixing."""
        turned = self._made(name, "Transpose")
        cut = self._made(turned and turned.input[0], "Reshape")
        if cut is None or _setting(turned, "perm") != order:
            return None
        whole, shape = self.shapes.get(cut.input[0], []), self.shapes.get(cut.output[0], [])
        if len(shape) != 4 or not isinstance(shape[2], int) or not isinstance(shape[3], int):
            return None
        heads, size = shape[2], shape[3]
        return (cut.input[0], (heads, size)) if whole == [*shape[:2], heads * size] else None

    def _fits(self, bias: str, scores: str, heads: int) -> bool:
        """Whether the node takes a bias of this shape: it does not stretch one over the tokens."""
        shape, whole = self.shapes.get(bias, []), self.shapes.get(scores, [])
        if len(shape) != 4 or len(whole) != 4:
            return False
        return shape[0] in (1, whole[0]) and shape[1] in (1, heads) and shape[2:] == whole[2:]

    def _made(self, name: str | None, kind: str) -> Any:
        """The node that makes a value, if it is of this kind."""
        node = self.makers.get(name) if name else None
        return node if node is not None and node.op_type == kind else None

    def _reader(self, name: str | None, kind: str) -> Any:
        """The only node that reads a value, if it is of this kind."""
        nodes = self.readers.get(name, []) if name else []
        return nodes[0] if len(nodes) == 1 and nodes[0] is not None and nodes[0].op_type == kind else None

    def _number(self, name: str | None) -> float | None:
        """A weight that is one number."""
        from onnx import numpy_helper

        if name not in self.numbers:
            return None
        value = numpy_helper.to_array(self.numbers[name])
        return float(value.item()) if value.size == 1 else None


def _shape(value: Any) -> list[int | str]:
    """The sizes that a graph states, by number or by name; one that it leaves open has a name of its own."""
    sizes = enumerate(value.type.tensor_type.shape.dim)
    return [size.dim_value or size.dim_param or f"{value.name}.{place}" for place, size in sizes]


def _setting(node: Any, name: str, default: Any = None) -> Any:
    """A node's attribute: a number or a list of numbers."""
    for one in node.attribute:
        if one.name == name:
            return list(one.ints) or one.i
    return default
