"""Which number format and which runtime a prediction runs in: asked for, or found out on the texts themselves.

`precision`:

* `fp32`: the checkpoint's results. The default.
* `bf16`: the encoder's weights in bfloat16, heads in float32.
* `auto`: begins as `fp32`. As soon as enough texts are there to judge, the bfloat16 encoder answers some of them as well; it takes
  over for inputs of that kind where it gives at least 99.5 % of the labels and is at least 1.2 times as fast. A few texts at
  once (`SINGLE`) are answered by onnxruntime where a float32 graph of the same weights is in the checkpoint (`onnx`) or
  beside it (`NAME-onnx`).
* `int8`: the int8 graph in the checkpoint (`onnx-int8`) or beside it (`NAME-onnx-int8`).
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..decoding import Decoded
from ..errors import UserError, fault, listed
from ..hub.checkpoint import CHECKSUMS, WEIGHTS
from ..model.encoder import layers_of
from ..model.last_layer import LastLayer
from ..model.multitask import MultiTaskModel, MultiTaskOutput
from ..model.padding_free import PaddingFree
from ..task import Task
from .onnx import GRAPH, OnnxModel, check_graph, digest

if TYPE_CHECKING:
    from .passes import EncodedPiece, Passes

logger = logging.getLogger("mtl_nlp")

PRECISIONS = ("fp32", "bf16", "auto", "int8")
SINGLE = 4  # rows at once for which a runtime that starts quicker is the better one
PROBED = (128, 512)  # texts on which bfloat16 is judged: at least, at most
EQUAL = 0.995
FASTER = 1.2
CLOSE = 1e-4


class NarrowEncoder:
    """A model whose encoder has its weights in a narrower format; called like the model, whose heads it uses in float32.

    Args:
        model: stays as it is.
        dtype: of the copy of the encoder.
    """

    is_sharded = False

    def __init__(self, model: MultiTaskModel, dtype: torch.dtype = torch.bfloat16) -> None:
        self.model, self.kinds, self.tasks, self.config = model, model.kinds, model.tasks, model.config
        self.encoder: Any = nn.Module.to(copy.deepcopy(model.encoder), dtype)
        own = model.padding_free
        self.padding_free = None if own is None else PaddingFree(self.encoder, own.first, uncounted=own.uncounted)
        if self.padding_free is not None and own is not None and own.last is not None:
            self.padding_free.last = LastLayer(layers_of(self.encoder)[-1])

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
        tasks: Mapping[str, Mapping[str, Tensor]] | None = None,
        tokens: int | None = None,
    ) -> MultiTaskOutput:
        """As `MultiTaskModel.forward`."""
        if self.padding_free is not None:
            wanted = self.model._wanted(attention_mask, tasks) if tasks else None
            hidden = self.padding_free(input_ids, attention_mask, token_type_ids, tokens=tokens, wanted=wanted)
        else:
            kwargs = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        parts = self.model._states(hidden.float(), tasks or {})
        logits = {
            name: self.model._head_logits(name, parts[name], attention_mask, input_ids, rows)
            for name, rows in (tasks or {}).items()
        }
        return MultiTaskOutput(logits=logits)


class Judge:
    """Decides once for each kind of input whether bfloat16 may answer it."""

    def __init__(self, model: MultiTaskModel) -> None:
        self.model = model
        self.narrow: NarrowEncoder | None = None
        self.verdicts: dict[Any, bool] = {}
        self.told: dict[Any, str] = {}

    def model_for(self, kind: Any) -> Any:
        """The model that answers this kind of input."""
        return self.narrow if self.verdicts.get(kind) else self.model

    def wants(self, kind: Any, pieces: int) -> bool:
        """Whether so many pieces of a kind should be put to the test."""
        return kind not in self.verdicts and pieces >= PROBED[0]

    def try_out(self, kind: Any, runner: Passes, batches: Sequence[list[EncodedPiece]]) -> None:
        """Answer some batches by both, in turns, and decide."""
        if self.narrow is None:
            self.narrow = NarrowEncoder(self.model)
        step = max(1, -(-sum(map(len, batches)) // PROBED[1]))
        same, number = dict.fromkeys(runner.decoders, 0), dict.fromkeys(runner.decoders, 0)
        seconds = [0.0, 0.0]
        runner.run(batches[-1], self.narrow)  # the first pass prepares weights
        for batch in batches[::step]:
            found = []
            for place, model in enumerate((self.model, self.narrow)):
                start = time.perf_counter()
                found.append(runner.run(batch, model))
                seconds[place] += time.perf_counter() - start
            for name in found[0]:
                for one, other in zip(found[0][name], found[1][name], strict=True):
                    equal, count = _equal(runner.decoders[name].task, one, other)
                    same[name], number[name] = same[name] + equal, number[name] + count
        shares = {name: same[name] / number[name] for name in number if number[name]}
        ratio = seconds[0] / max(seconds[1], 1e-9)
        self.verdicts[kind] = min(shares.values(), default=0.0) >= EQUAL and ratio >= FASTER
        verdict = "bfloat16 weights" if self.verdicts[kind] else "float32"
        least = min(shares.values(), default=0.0)
        self.told[kind] = f"{verdict}: {ratio:.2f} times as fast in bfloat16, {least:.2%} equal labels"
        logger.info("precision auto: %s", self.told[kind])
        if not any(self.verdicts.values()):
            self.narrow = None


def _equal(task: Task, one: Decoded, other: Decoded) -> tuple[int, int]:
    """(equal labels, labels); numbers within 1 % of each other count as equal."""
    if task.kind.annotation == "tags":
        return sum(a == b for a, b in zip(one.value, other.value, strict=True)), len(one.value)
    if task.kind.annotation == "value":
        return int(abs(one.value - other.value) <= 0.01 * max(1.0, abs(one.value))), 1
    if task.kind.annotation == "relevance":
        best = [max(range(len(row.value)), key=row.value.__getitem__) for row in (one, other)]
        return int(best[0] == best[1]), 1
    return int(one.value == other.value), 1


def graph_of(checkpoint: Path, precision: str) -> Path | None:
    """The folder of a checkpoint's own graph in `float32` or `int8`: in it or beside it; None where there is none.

    Raises:
        UserError: the graph is damaged.
    """
    ending = "onnx" if precision == "float32" else f"onnx-{precision}"
    weights = checkpoint / WEIGHTS
    for folder in (checkpoint / ending, checkpoint.with_name(f"{checkpoint.name}-{ending}")):
        if (folder / GRAPH).is_file() and (folder / CHECKSUMS).is_file() and weights.is_file():
            info = OnnxModel(check_graph(folder)).info
            if info.precision == precision and info.weights == digest(weights):
                return folder
            logger.warning("%s is not used: it is not the %s graph of these weights", folder, precision)
    return None


def need_int8(checkpoint: Path) -> Path:
    """The folder of the int8 graph.

    Raises:
        UserError: there is none, with the command that makes it.
    """
    found = graph_of(checkpoint, "int8")
    if found is None:
        name = checkpoint / "onnx-int8"
        cure = f"mtl-nlp export {checkpoint} --format onnx --int8 --output {name}"
        raise fault("no int8 graph of these weights", where=str(checkpoint), key="precision", cure=cure)
    return found


def single_graph(checkpoint: Path, model: MultiTaskModel, tokenizer: Any) -> OnnxModel | None:
    """The float32 graph for a few texts at once, if there is one, onnxruntime is installed, and it gives the model's logits."""
    from ..hub.single_task import sample

    try:
        folder = graph_of(checkpoint, "float32")
        graph = None if folder is None else OnnxModel(folder / GRAPH)
    except UserError as error:
        logger.info("precision auto: no graph for single texts: %s", error)
        return None
    if graph is None:
        return None
    batch: dict[str, Any] = {name: value[:1] for name, value in sample(model, tokenizer).items()}
    rows = {"rows": torch.arange(1), "width": torch.tensor(batch["input_ids"].shape[1]), "sizes": torch.tensor([1])}
    tasks = dict.fromkeys(graph.kinds, rows)
    with torch.inference_mode():
        expected = model(**batch, tasks=tasks).logits
    found = graph(**batch, tasks=tasks).logits
    assert expected is not None
    assert found is not None
    gap = max((float((expected[name] - found[name]).abs().max()) for name in found), default=0.0)
    if gap > CLOSE:
        logger.warning("%s is not used: its logits differ by %.1g", folder, gap)
        return None
    return graph


def checked_precision(precision: str, dtype: Any, model: Any) -> str:
    """The precision, if it is known and fits what answers.

    Raises:
        UserError: it is unknown, beside a dtype, or not one of the model's.
    """
    if precision not in PRECISIONS:
        raise fault(f'found "{precision}"', key="precision", allowed=listed(PRECISIONS))
    if precision != "fp32" and dtype is not None:
        raise fault(f'found "{precision}" beside a dtype', key="precision", cure="give one of them")
    graph = model.info.precision if isinstance(model, OnnxModel) else None
    if model is not None and precision == "int8" and graph != "int8":
        cure = "mtl-nlp export CHECKPOINT --format onnx --int8"
        raise fault(f"found int8, but this is {graph or 'a checkpoint'}", key="precision", cure=cure)
    if precision == "bf16" and getattr(model, "conditioning", None) is not None:
        # The narrow copy of the encoder knows nothing of the conditions.
        raise fault("found bf16 for a conditioned encoder", key="precision", allowed="fp32, or dtype bfloat16")
    if precision == "bf16" and graph is not None:
        raise fault("found bf16, but a graph has its own precision", key="precision", allowed=f"auto or fp32 ({graph})")
    return precision
