"""Which matrix products of a graph become int8: all of them, but for those that cost too many labels on given texts.

1. The float32 graph answers the texts; the largest size of every feature of every activation is noted (for the smoothing of
   `onnx_int8`).
2. Everything is quantised, and answers the same texts. If each task gives as many equal labels as asked, that is it.
3. Otherwise products are sorted by how much nearer the probabilities of the tasks that fall short come to float32's when that
   product alone is kept in float32, and are kept one after another, the greatest gain first, until the labels agree.

The texts should be those of a validation split: what is chosen on a test split says nothing about it any more.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..task import Task
from .onnx import ON_TOKENS, OnnxModel, open_session
from .onnx_int8 import TABLES, Sizes, products, quantised

logger = logging.getLogger("mtl_nlp")

PROBED = 256  # texts on which sizes and gains are measured
Fed = dict[str, NDArray[Any]]
Agreement = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class TextSet:
    """Texts and the tasks that answer them (None: every task that the rows can feed)."""

    rows: Sequence[Any]
    tasks: tuple[str, ...] | None = None


@dataclass
class Choice:
    """What was quantised.

    Attributes:
        kept: products (and `embedding tables`) in float32, in the order in which they were kept.
        agreement: task → (labels as float32's, labels).
        considered: how many products there are.
    """

    kept: list[str] = field(default_factory=list)
    agreement: Agreement = field(default_factory=dict)
    considered: int = 0

    def short_of(self, least: float) -> list[str]:
        """Tasks that agree on less."""
        return [name for name, (same, number) in self.agreement.items() if same < least * number]


class _Recorder(OnnxModel):
    """A graph that keeps what it was fed, up to a number of rows."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.fed: list[tuple[Fed, list[str]]] = []
        self.rows = 0

    def run(self, names: Sequence[str], fed: Fed) -> list[NDArray[np.float32]]:
        """As the graph."""
        if self.rows < PROBED:
            self.fed.append((fed, list(names)))
            self.rows += len(fed["input_ids"])
        return super().run(names, fed)


class Chooser:
    """Makes the int8 form of one graph.

    Args:
        graph: the float32 file.
        metadata: of the int8 file.
        tokenizer: the checkpoint's.
        sets: texts to agree on.
        least: share of equal labels that every task has to reach.
    """

    def __init__(
        self, graph: Path, metadata: dict[str, str], tokenizer: Any, sets: Sequence[TextSet], least: float
    ) -> None:
        self.graph, self.metadata, self.tokenizer = graph, metadata, tokenizer
        self.sets, self.least = list(sets), least
        self.sizes: Sizes = {}
        self.probes: list[tuple[Fed, list[str], list[NDArray[np.float32]]]] = []

    def write(self, target: Path) -> Choice:
        """Write the int8 graph to `target`.

        Raises:
            UserError: the texts feed no task that has labels.
        """
        import onnx

        found = products(onnx.load(str(self.graph)))
        choice = Choice(considered=len(found))
        if not self.sets:
            quantised(self.graph, target, self.metadata)
            return choice
        expected = self._float_answers()
        self.sizes = self._sizes([one.source for one in found])
        choice.agreement = self._agreement(target, (), expected)
        if not choice.agreement:
            raise UserError("the texts feed no task with labels, so there is nothing to agree on")
        short = choice.short_of(self.least)
        if not short:
            return choice
        logger.info("int8 falls short on %s; looking for the products to keep in float32", ", ".join(short))
        for name in self._by_gain([one.name for one in found], short, target.with_name("gain.onnx")):
            choice.kept.append(name)
            choice.agreement = self._agreement(target, choice.kept, expected)
            if not choice.short_of(self.least):
                break
        return choice

    def _quantise(self, target: Path, keep: Collection[str]) -> None:
        quantised(self.graph, target, self.metadata, keep, self.sizes)

    def _predictor(self, model: OnnxModel) -> Any:
        from .predictor import Predictor

        limits: dict[str, Any] = {"max_length": model.info.max_length, "stride": model.info.stride}
        return Predictor(cast(Any, model), self.tokenizer, device="cpu", performance="plain", **limits)

    def _answers(self, predictor: Any) -> list[list[dict[str, Any]]]:
        return [predictor.decoded(one.rows, one.tasks) for one in self.sets]

    def _float_answers(self) -> list[list[dict[str, Any]]]:
        """The float32 graph's answers; notes batches of every set and their logits on the way."""
        answers = []
        for one in self.sets:
            recorder = _Recorder(self.graph)
            answers.append(self._predictor(recorder).decoded(one.rows, one.tasks))
            for fed, names in _spread(recorder.fed, PROBED // len(self.sets)):
                self.probes.append((fed, names, recorder.run(names, fed)))
            self.tasks = recorder.tasks
            self.kinds = {recorder.info.outputs[task.name]: task.kind.annotation for task in recorder.tasks}
        return answers

    def _sizes(self, activations: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The largest size of each feature of the activations, over the real tokens of the noted batches."""
        import onnx

        model = onnx.load(str(self.graph))
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in activations)
        file = self.graph.with_name("watched.onnx")
        onnx.save(model, str(file))
        session = open_session(file)
        file.unlink()
        largest: dict[str, NDArray[np.float32]] = {}
        for fed, _, _ in self.probes:
            real = fed["attention_mask"].astype(bool)
            for name, values in zip(activations, session.run(list(activations), fed), strict=True):
                size = np.abs(values[real] if values.shape[:2] == real.shape else values).reshape(-1, values.shape[-1])
                largest[name] = np.maximum(largest.get(name, np.float32(0)), size.max(0)).astype(np.float32)
        return largest

    def _agreement(self, target: Path, keep: Collection[str], expected: Any) -> Agreement:
        self._quantise(target, keep)
        found: Agreement = {}
        for left, right in zip(expected, self._answers(self._predictor(OnnxModel(target))), strict=True):
            for name, (same, number) in agreement(self.tasks, left, right).items():
                before = found.get(name, (0, 0))
                found[name] = (before[0] + same, before[1] + number)
        return found

    def _by_gain(self, names: Sequence[str], short: Sequence[str], file: Path) -> list[str]:
        """Products and tables, that first whose float32 form brings the tasks nearest to float32's probabilities."""
        errors = {}
        outputs = {f"{name}_logits" for name in short}
        for name in [*names, TABLES]:
            self._quantise(file, [name])
            errors[name] = self._error(file, outputs)
            logger.info("int8 without %s: error %.4f", name, errors[name])
        file.unlink(missing_ok=True)
        return sorted(errors, key=lambda name: errors[name])

    def _error(self, file: Path, outputs: Collection[str]) -> float:
        """Root of the mean squared difference of probabilities of these outputs, the worst of them."""
        session = open_session(file)
        squares: dict[str, list[float]] = {}
        for fed, names, expected in self.probes:
            for name, one, other in zip(names, expected, session.run(names, fed), strict=True):
                if name in outputs:
                    apart = (_softmax(one) - _softmax(other)) ** 2
                    if self.kinds[name] in ON_TOKENS and apart.shape[:2] == fed["attention_mask"].shape:
                        apart = apart[fed["attention_mask"].astype(bool)]
                    squares.setdefault(name, []).append(float(apart.sum(-1).mean()))
        return max((float(np.sqrt(np.mean(values))) for values in squares.values()), default=0.0)


def _spread(fed: list[tuple[Fed, list[str]]], rows: int) -> list[tuple[Fed, list[str]]]:
    """Some of the batches, evenly, up to about a number of rows: they come sorted by length."""
    total = sum(len(one["input_ids"]) for one, _ in fed)
    step = max(1, -(-total // max(rows, 1)))
    return fed[::step]


def _softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    table = values if values.ndim > 1 else values[:, None]
    if table.shape[-1] == 1:
        return cast(NDArray[np.float32], np.tanh(table / 2))
    powers = np.exp(table - table.max(-1, keepdims=True))
    return cast(NDArray[np.float32], powers / powers.sum(-1, keepdims=True))


def agreement(tasks: Sequence[Task], one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> Agreement:
    """Task → (same labels, labels): of tags each word counts, else each text; numbers have no labels and are left out."""
    found: Agreement = {}
    for task in tasks:
        pairs = [
            (left[task.name], right[task.name]) for left, right in zip(one, other, strict=True) if task.name in left
        ]
        if task.kind.annotation == "tags":
            pairs = [pair for left, right in pairs for pair in zip(left, right, strict=True)]
        if pairs and task.kind.annotation not in ("value", "relevance"):
            found[task.name] = (sum(left == right for left, right in pairs), len(pairs))
    return found
