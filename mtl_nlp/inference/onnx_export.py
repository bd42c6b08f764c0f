"""Writing the ONNX graph of a checkpoint, in float32 or int8, and the check that int8 answers alike."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..durable import sync_folder
from ..errors import UserError, closest, fault, listed
from ..hub.checkpoint import (
    CHECKSUMS,
    WEIGHTS,
    check_folder,
    load_model,
    load_tokenizer,
    tokenizer_of,
    write_json,
)
from ..hub.single_task import check_destination, largest_logit, logit_gap, row_length, sample
from ..model.conditioning import fold
from ..model.heads import VanillaHead
from ..model.multitask import MultiTaskModel
from .onnx import GRAPH, KEY, GraphInfo, OnnxModel, digest
from .onnx_choice import Chooser, TextSet
from .onnx_int8 import note_in

logger = logging.getLogger("mtl_nlp")
EXTRA = 'the packages for ONNX are missing: pip install "mtl-nlp[onnx]"'
TOLERANCE = 1e-5  # of a logit, or of the largest logit where that is above 1
LARGEST = 1_900_000_000  # bytes that one protobuf file may hold, with room to spare
TOKENS = 8192  # upper bound of the graph's dynamic length for encoders without a table of positions


@dataclass
class OnnxExport:
    """What was written.

    Attributes:
        folder: graph, tokenizer, checksum.
        tasks: the graph's, in order.
        difference: the largest difference of a logit from the checkpoint's, float32.
        size: bytes of the graph.
        agreement: task → (answers that int8 gives as float32 does, answers), where texts were given.
        kept: of the products that int8 could have, `products` in number, those that stayed in float32.
    """

    folder: Path
    tasks: list[str]
    precision: str
    difference: float
    size: int
    agreement: dict[str, tuple[int, int]] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    products: int = 0


class _Graph(nn.Module):
    """The checkpoint with tensors in and out: the encoder once, every chosen head on all rows."""

    def __init__(self, model: MultiTaskModel, tasks: Sequence[str], with_types: bool) -> None:
        super().__init__()
        self.encoder, self.heads = model.encoder, nn.ModuleDict({name: model.heads[name] for name in tasks})
        self.kinds, self.with_types = {name: model.kinds[name] for name in tasks}, with_types

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Any:
        """Each task's logits, in order; of a choice one score a row."""
        kwargs = {"token_type_ids": token_type_ids} if self.with_types else {}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        return tuple(self._logits(name, hidden, attention_mask, input_ids) for name in self.kinds)

    def _logits(self, name: str, hidden: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        kind, head = self.kinds[name], self.heads[name]
        if kind.task.kind.annotation == "choice":
            return head(input_ids=ids[:, None], attention_mask=mask[:, None], inputs_embeds=hidden[:, None]).logits[
                :, 0
            ]
        if isinstance(kind, VanillaHead) and kind.task.kind.annotation == "relevance":
            return kind.run(head, hidden, mask, ids).logits[:, 0]
        return kind.logits(head, hidden, mask, ids, {})


def export_onnx(
    folder: str | Path,
    destination: str | Path,
    tasks: Sequence[str] | None = None,
    *,
    int8: bool = False,
    texts: Iterable[Any] | Sequence[TextSet] | None = None,
    least: float = 0.0,
    overwrite: bool = False,
) -> OnnxExport:
    """Write a checkpoint as an ONNX folder that `Predictor.from_pretrained` runs.

    Args:
        tasks: their names; every task that can be answered if absent.
        int8: the encoder's matrix products in int8 (see `onnx_int8`).
        texts: rows as `Predictor` takes them, or sets of rows with the tasks that answer them; int8 and float32 answer them, and
            the agreement is reported.
        least: share of equal labels that each task has to reach on the texts; products are kept in float32 until it does.

    Raises:
        UserError: no checkpoint, an unknown task, missing packages, a head that ONNX cannot express, or a graph whose logits
            differ from the checkpoint's by more than 1e-5 (of the largest logit).
    """
    source, target = check_folder(folder), Path(destination)
    check_destination(target, overwrite=overwrite)
    need_packages()
    model, tokenizer = load_model(source), load_tokenizer(source)
    names = _chosen(model, tasks)
    if model.conditioning is not None:
        model = _unconditioned(model, names)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        info = graph_info(source, model, tokenizer, names)
        batch = sample(model, tokenizer)
        plain = temporary / GRAPH
        write_graph(model, info, batch, plain)
        gap, largest = difference(model, OnnxModel(plain), tokenizer)
        if not gap <= TOLERANCE * max(1.0, largest):
            raise UserError(f"the graph's logits differ from the checkpoint's by up to {gap:.3g}; nothing was written")
        tokenizer.save_pretrained(temporary)
        result = OnnxExport(target, names, "float32", gap, plain.stat().st_size)
        if int8:
            _replace_by_int8(temporary, info, result, _sets(texts, names), least)
        write_json(temporary / CHECKSUMS, {path.name: digest(path) for path in sorted(temporary.glob(f"{GRAPH}*"))})
        sync_folder(temporary)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return result


def need_packages() -> None:
    """Refuse early where the extra is missing.

    Raises:
        UserError: with the pip line.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"{EXTRA} ({error})") from error


def _chosen(model: MultiTaskModel, tasks: Sequence[str] | None) -> list[str]:
    known = [task.name for task in model.tasks if task.kind.annotation not in ("none", "match")]
    for task in model.tasks:
        if task.kind.annotation == "match" and task.name in (tasks or ()):
            found = "a retrieval is answered from a knowledge base, which a graph does not hold"
            raise fault(found, key=task.name, cure="run the checkpoint with `predict --knowledge`")
    if tasks is None or list(tasks) == ["all"]:
        if not known:
            raise UserError("the checkpoint has no task that can be answered; there is nothing to export")
        left = [task.name for task in model.tasks if task.kind.annotation == "match"]
        if left:
            logger.warning("left out: %s; a graph holds no knowledge base to answer from", listed(left))
        return known
    for name in tasks:
        if name not in known:
            raise fault(f'no task "{name}".{closest(name, known)}', key="--task", allowed=listed([*known, "all"], 40))
    return [name for name in known if name in set(tasks)]


def _unconditioned(model: MultiTaskModel, names: Sequence[str]) -> MultiTaskModel:
    """The one task's own model, its condition folded in.

    Raises:
        UserError: several tasks, or a condition that cannot be folded in.
    """
    if len(names) > 1:
        found = f"the encoder is conditioned on the task, and a graph runs it once for all of {listed(names)}"
        raise fault(found, key="--task", allowed="one of them", cure="export each task into a folder of its own")
    return fold(model, names[0])


def graph_info(folder: Path, model: MultiTaskModel, tokenizer: Any, names: Sequence[str]) -> GraphInfo:
    """What the graph's metadata says."""
    from .flow import row_settings

    records = [record for record in model.config.tasks if record["name"] in names]
    outputs = {name: f"{name}_logits" for name in names}
    length = row_length(folder, model, tokenizer)
    kind = model.config.encoder_config.model_type
    weights = digest(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else ""
    return GraphInfo(records, outputs, length, row_settings(folder)[1], "float32", kind, weights=weights)


def _sets(texts: Iterable[Any] | Sequence[TextSet] | None, tasks: Sequence[str]) -> list[TextSet]:
    """The texts as sets, each with those of its tasks that the graph has."""
    rows = list(texts or [])
    if not rows or not isinstance(rows[0], TextSet):
        return [TextSet(rows)] if rows else []
    named = [TextSet(one.rows, tuple(name for name in one.tasks or tasks if name in tasks)) for one in rows]
    return [one for one in named if one.rows and one.tasks]


def write_graph(model: MultiTaskModel, info: GraphInfo, batch: dict[str, Tensor], path: Path) -> None:
    """Trace and write the float32 graph.

    Raises:
        UserError: an operation that ONNX cannot express, with the tasks.
    """
    graph = _Graph(model, list(info.outputs), "token_type_ids" in batch).eval()
    rows = torch.export.Dim("rows", min=1, max=65536)
    limit = getattr(model.config.encoder_config, "max_position_embeddings", None) or TOKENS
    tokens = torch.export.Dim("tokens", min=2, max=max(limit, info.max_length))
    size = sum(p.numel() * p.element_size() for p in graph.parameters())
    try:
        with _quiet(), torch.no_grad():
            program: Any = torch.onnx.export(
                graph,
                tuple(batch.values()),
                dynamo=True,
                input_names=list(batch),
                output_names=list(info.outputs.values()),
                dynamic_shapes={name: {0: rows, 1: tokens} for name in batch},
                verbose=False,
            )
    except Exception as error:  # the exporter raises whatever its passes raise
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{listed(info.outputs)}: this {info.encoder} cannot be written as ONNX: {line}") from error
    program.model.metadata_props[KEY] = info.dumped()
    program.save(str(path), external_data=size > LARGEST)


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter reports its progress on stdout and warns of its own workings."""
    before = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "torch.export", "onnx_ir")}
    for name in before:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def difference(model: MultiTaskModel, graph: OnnxModel, tokenizer: Any) -> tuple[float, float]:
    """(The largest difference of a logit, the largest logit), on padded batches of the traced shape and of others."""
    worst = largest = 0.0
    whole = sample(model, tokenizer)
    for rows, width in ((whole["input_ids"].shape[0], whole["input_ids"].shape[1]), (1, 5), (3, 11)):
        right = tokenizer.padding_side == "right"
        batch: dict[str, Any] = {
            name: value[:rows, :width] if right else value[:rows, -width:] for name, value in whole.items()
        }
        places = torch.arange(rows)
        tasks = {
            task.name: {"rows": places, "width": torch.tensor(width), "sizes": torch.tensor([rows])}
            for task in graph.tasks
        }
        with torch.inference_mode():
            expected = model(**batch, tasks=tasks).logits
        found = graph(**batch, tasks=tasks).logits
        assert found is not None
        for name, value in expected.items():
            worst = max(worst, logit_gap(value, found[name]))
            largest = max(largest, largest_logit(value))
    return worst, largest


def _replace_by_int8(folder: Path, info: GraphInfo, result: OnnxExport, sets: Sequence[TextSet], least: float) -> None:
    """Put the int8 graph in the place of the float32 one; with texts, both answer them first."""
    small = folder / f"int8-{GRAPH}"
    metadata = {KEY: replace(info, precision="int8").dumped()}
    choice = Chooser(folder / GRAPH, metadata, tokenizer_of(folder, str(folder)), sets, least).write(small)
    if choice.kept:
        note_in(small, {KEY: replace(info, precision="int8", kept=choice.kept).dumped()})
    for path in folder.glob(f"{GRAPH}*"):
        path.unlink()
    os.replace(small, folder / GRAPH)
    result.precision, result.size = "int8", (folder / GRAPH).stat().st_size
    result.agreement, result.kept, result.products = choice.agreement, choice.kept, choice.considered
