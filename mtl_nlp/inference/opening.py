"""What a folder holds → its predictor: a checkpoint, an ONNX graph, or an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..errors import fault
from ..hub.checkpoint import check_folder, load_model, load_tokenizer, tokenizer_of
from ..hub.ensemble import is_ensemble
from .flow import autocast, checked_splitter, device_of, row_settings
from .knowledge import KnowledgeBase, read_knowledge
from .onnx import OnnxModel, check_graph, is_onnx
from .precision import checked_precision, need_int8, single_graph

if TYPE_CHECKING:
    from .predictor import Predictor


def opened(
    kind: type[Predictor],
    folder: str | Path,
    device: str | torch.device | None,
    *,
    dtype: str | torch.dtype | None,
    words: str | None,
    performance: str,
    knowledge: KnowledgeBase | None,
    precision: str,
) -> Predictor:
    """As `Predictor.from_pretrained`.

    Raises:
        UserError: no checkpoint, a damaged one, or settings that are unknown or do not go with what the folder holds.
    """
    if is_onnx(folder):
        if knowledge is not None:
            cure = "give the checkpoint that it is from"
            raise fault("an ONNX graph answers no retrieval task", where=str(folder), key="knowledge", cure=cure)
        return _of_graph(kind, Path(folder), device, dtype=dtype, words=words, precision=precision)
    if is_ensemble(folder):
        if precision != "fp32":
            raise fault(f'found "{precision}" for an ensemble', where=str(folder), key="precision", allowed="fp32")
        from .ensemble import EnsemblePredictor

        options: dict[str, Any] = {"words": words, "knowledge": knowledge, "dtype": dtype, "performance": performance}
        return EnsemblePredictor.from_folder(folder, device, **options)
    path = check_folder(folder)
    checked_precision(precision, dtype, None)
    if precision == "int8":
        return _of_graph(kind, need_int8(path), device, dtype=dtype, words=words, precision=precision)
    # Before the weights are read, which takes longer.
    autocast(device_of(device), dtype)
    checked_splitter(words)
    entries = None if knowledge is None else read_knowledge(knowledge)
    max_length, stride = row_settings(path)
    model, tokenizer = load_model(path), load_tokenizer(path)
    on_cpu = device_of(device).type == "cpu"
    return kind(
        model,
        tokenizer,
        single=single_graph(path, model.eval(), tokenizer) if precision == "auto" and on_cpu else None,
        precision=precision,
        device=device,
        dtype=dtype,
        words=words,
        max_length=max_length,
        stride=stride,
        performance=performance,
        knowledge=entries,
    )


def _of_graph(
    kind: type[Predictor],
    path: Path,
    device: str | torch.device | None,
    *,
    dtype: str | torch.dtype | None,
    words: str | None,
    precision: str,
) -> Predictor:
    """The predictor of a folder of `mtl-nlp export --format onnx`."""
    name = str(dtype).removeprefix("torch.")
    if dtype is not None and name not in ("float32", "fp32"):
        allowed = "float32: an ONNX graph has its own precision"
        raise fault(f'found "{name}"', where=str(path), key="dtype", allowed=allowed)
    place = device_of(device) if device is not None else torch.device("cpu")
    model: Any = OnnxModel(check_graph(path), device=place)
    return kind(
        model,
        tokenizer_of(path, str(path)),
        device="cpu",
        words=words,
        max_length=model.info.max_length,
        stride=model.info.stride,
        performance="plain",
        precision=precision,
    )
