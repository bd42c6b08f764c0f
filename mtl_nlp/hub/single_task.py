"""One task of a checkpoint as a plain transformers model: an `AutoModelFor…` folder that needs nothing of this package.

The vanilla model is the shared encoder under its vanilla prefix with the task's head; it is written, loaded back from the disk,
and its logits are compared with the checkpoint's, bit for bit. A temperature and thresholds of `calibrate` are affine in the
logits, so they are folded into the last layer's weight and bias.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..durable import sync_folder
from ..errors import UserError, closest, fault, listed
from ..model.conditioning import fold, why_not_folded
from ..model.encoder import longest_row
from ..model.heads import VanillaHead
from ..model.multitask import MultiTaskModel
from ..recipe import RESOLVED
from ..schema import read_yaml
from ..task import Task
from .aligned import align_weights
from .calibration import Calibration, fold_into
from .checkpoint import check_folder, load_model, load_tokenizer
from .task_card import PIPELINES, Measured, task_card

SAMPLE = (7, 23)  # rows and tokens of the batch that is compared; the rows are of different lengths


class NotEqual(UserError):
    """The exported model does not give the checkpoint's logits."""


@dataclass
class Export:
    """What an export wrote.

    Attributes:
        folder: the vanilla model.
        task: its name.
        model_class: `BertForSequenceClassification`, …
        pipeline: the stock pipeline that runs it, None where transformers has none.
        folded: what of the calibration is in the weights (`temperature`, `thresholds`).
        left: what of the decoding the stock pipeline does not do.
        measured: validation scores by both decodings, or why there are none.
    """

    folder: Path
    task: str
    model_class: str
    pipeline: str | None
    folded: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    measured: Measured | None = None


Measure = Callable[[Path, Task], Measured]


def export_task(
    folder: str | Path,
    task: str,
    destination: str | Path,
    *,
    measure: Measure | None = None,
    overwrite: bool = False,
    loaded: tuple[MultiTaskModel, Any] | None = None,
) -> Export:
    """Write one task as a vanilla transformers model.

    Args:
        folder: a checkpoint.
        task: a task of it whose head has a vanilla twin.
        destination: a folder that does not exist yet or is empty; it appears when everything is verified.
        measure: scores the written folder by the stock pipeline and by our decoding, for the card.
        overwrite: replace what is there.
        loaded: the checkpoint's model and tokenizer, where they are in memory.

    Raises:
        UserError: no such task, no vanilla twin, or the destination is taken.
        NotEqual: the logits differ; the message says by how much, and nothing is left behind.
    """
    source, target = check_folder(folder), Path(destination)
    check_destination(target, overwrite=overwrite)
    model, tokenizer = loaded or (load_model(source), load_tokenizer(source))
    definition = find(model, task)
    kind = twin(model, task)
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        tokenizer.model_max_length = row_length(source, model, tokenizer)
        result = _write(model, kind, tokenizer, temporary, calibration_of(model, task))
        result.folder, result.left = target, _left(definition, result)
        if measure is not None and (result.left or _decodes_otherwise(definition)):
            result.measured = measure(temporary, definition)
        card = task_card(definition, result, encoder=_encoder_name(source))
        (temporary / "README.md").write_text(card, encoding="utf-8")
        sync_folder(temporary)
        if target.exists():
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return result


def exportable(model: MultiTaskModel) -> dict[str, str]:
    """Every task → why it cannot be exported, empty where it can."""
    found = {}
    for task in model.tasks:
        try:
            twin(model, task.name)
            found[task.name] = ""
        except UserError as error:
            found[task.name] = str(error)
    return found


def find(model: MultiTaskModel, task: str) -> Task:
    """The task called so.

    Raises:
        UserError: the checkpoint has none.
    """
    known = {one.name: one for one in model.tasks}
    if task not in known:
        raise fault(f'no task "{task}".{closest(task, known)}', key="--task", allowed=listed([*known, "all"], 40))
    return known[task]


def twin(model: MultiTaskModel, task: str) -> VanillaHead:
    """The torch half of a task whose head is a vanilla one.

    Raises:
        UserError: transformers has no such head, named with the task.
    """
    definition, kind = find(model, task), model.kinds[task]
    cure = "export it with --format onnx, or load the checkpoint with mtl-nlp"
    if not isinstance(kind, VanillaHead):
        raise fault(f"head {definition.head} has no twin in transformers", key=task, cure=cure)
    cls = kind.vanilla_class(model.config.encoder_config)
    if not isinstance(model.heads[task], cls):
        raise fault(f"head {definition.head} is not a plain {cls.__name__}", key=task, cure=cure)
    reason = why_not_folded(model, task)
    if reason:
        raise fault(f"cannot be a plain model: {reason}", key=task, cure="load the checkpoint with mtl-nlp")
    return kind


def check_destination(target: Path, *, overwrite: bool) -> None:
    """Refuse a destination that is a file, or a folder with something in it.

    Raises:
        UserError: what is there, and what to do.
    """
    if target.exists() and not target.is_dir():
        raise fault("is a file", where=str(target), key="--output", allowed="a folder")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise fault("is not empty", where=str(target), key="--output", cure="--overwrite, or another folder")


def vanilla_state(model: MultiTaskModel, task: str, prefix: str) -> dict[str, Tensor]:
    """The weights of one task's vanilla model: the encoder's under its prefix, and the head's."""
    state = {f"{prefix}.{key}": value for key, value in model.encoder.state_dict().items()}
    return state | dict(model.heads[task].state_dict())


def vanilla_model(model: MultiTaskModel, kind: VanillaHead) -> Any:
    """The vanilla model of a task with the checkpoint's weights, eager attention, in evaluation mode.

    Raises:
        UserError: weights are missing or left over (named).
    """
    config = kind.config(model.config.encoder_config)
    config._attn_implementation = "eager"
    config.dtype = torch.float32
    plain = kind.vanilla_class(config)(config).float().eval()
    state = vanilla_state(model, kind.task.name, plain.base_model_prefix)
    missing, unexpected = plain.load_state_dict(state, strict=False)
    wrong = [*missing, *unexpected]
    if wrong:
        raise fault(f"{type(plain).__name__} has other weights: {listed(wrong, 6)}", key=kind.task.name)
    return plain


def _write(model: MultiTaskModel, kind: VanillaHead, tokenizer: Any, folder: Path, calibration: Calibration) -> Export:
    """Write weights, configuration and tokenizer; compare what was written with the checkpoint."""
    cls = kind.vanilla_class(model.config.encoder_config)
    result = Export(folder, kind.task.name, cls.__name__, PIPELINES.get(kind.auto_class))
    plain = vanilla_model(model if model.conditioning is None else fold(model, kind.task.name), kind)
    batch = sample(model, tokenizer)
    expected, found = checkpoint_logits(model, kind, batch), vanilla_logits(plain, kind, batch)
    _compare(expected, found, kind.task.name, _tolerance(model, expected))
    if model.conditioning is not None:
        expected = found
    if calibration:
        result.folded = fold_into(plain, calibration, kind, lambda: vanilla_logits(plain, kind, batch))
        result.left = [part for part in calibration.parts if part not in result.folded]
        expected = vanilla_logits(plain, kind, batch)
    plain.save_pretrained(folder)
    align_weights(folder)
    tokenizer.save_pretrained(folder)
    again = cls.from_pretrained(  # type: ignore[attr-defined]
        folder, dtype=torch.float32, attn_implementation="eager", use_safetensors=True
    ).eval()
    _compare(expected, vanilla_logits(again, kind, batch), kind.task.name, 0.0)
    return result


def _tolerance(model: MultiTaskModel, logits: Tensor) -> float:
    """0, but where adapters are merged: 1e-5, of the largest logit where that is above 1."""
    merged = model.conditioning is not None and model.conditioning.record.kind == "lora"
    return 1e-5 * max(1.0, largest_logit(logits)) if merged else 0.0


def largest_logit(logits: Tensor) -> float:
    """The largest by its size, without the −inf of places that do not count (padding under an answer)."""
    return logits.masked_fill(logits.isinf(), 0.0).abs().max().item()


def logit_gap(expected: Tensor, found: Tensor) -> float:
    """The largest difference of a logit; places that are −inf in both are equal."""
    gap = (expected - found).abs().masked_fill(expected == found, 0.0).max().item()
    return float("inf") if gap != gap else gap


def sample(model: MultiTaskModel, tokenizer: Any) -> dict[str, Tensor]:
    """A padded batch of seeded random ids; rows of different lengths, padded on the tokenizer's side."""
    rows, width = SAMPLE
    config = model.config.encoder_config
    width = min(width, longest_row(config, tokenizer, None))
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (rows, width), generator=draw)
    lengths = torch.linspace(max(2, width // 3), width, rows).long()
    places = torch.arange(width)[None]
    right = tokenizer.padding_side == "right"
    real = places < lengths[:, None] if right else places >= width - lengths[:, None]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    ids = torch.where(ids == pad, (ids + 1) % config.vocab_size, ids)
    batch = {"input_ids": torch.where(real, ids, torch.tensor(pad)), "attention_mask": real.long()}
    if "token_type_ids" in tokenizer.model_input_names and getattr(config, "type_vocab_size", 0) > 1:
        batch["token_type_ids"] = (places > width // 4).long().expand(rows, width) * batch["attention_mask"]
    return batch


def checkpoint_logits(model: MultiTaskModel, kind: VanillaHead, batch: Mapping[str, Tensor]) -> Tensor:
    """Our logits of one task for a whole batch, by eager attention; choices are taken as one text's."""
    count = len(batch["input_ids"])
    rows = {"rows": torch.arange(count), "width": torch.tensor(batch["input_ids"].shape[1])}
    if kind.task.kind.input in ("choices", "candidates"):
        rows["sizes"] = torch.tensor([count])
    before = model.encoder.config._attn_implementation
    if before != "eager":
        model.encoder.set_attn_implementation("eager")
    with torch.inference_mode():
        output = model(**batch, tasks={kind.task.name: rows}).logits[kind.task.name]
    if before != "eager":
        model.encoder.set_attn_implementation(before)
    return output


def vanilla_logits(plain: Any, kind: VanillaHead, batch: Mapping[str, Tensor]) -> Tensor:
    """The vanilla model's logits in the shape of ours, and like them −inf on the padding under an answer."""
    annotation = kind.task.kind.annotation
    fed = {name: value[None] if annotation == "choice" else value for name, value in batch.items()}
    with torch.inference_mode():
        output = plain(**fed)
    if annotation == "answer":
        pair = torch.stack([output.start_logits, output.end_logits], -1)
        return pair.masked_fill(~batch["attention_mask"].bool()[..., None], float("-inf"))
    return output.logits.view(1, -1) if annotation == "relevance" else output.logits


def _compare(expected: Tensor, found: Tensor, task: str, tolerance: float) -> None:
    if expected.shape == found.shape and torch.equal(expected, found):
        return
    if expected.shape != found.shape:
        raise NotEqual(f"{task}: the vanilla model's logits are {tuple(found.shape)}, not {tuple(expected.shape)}")
    gap = logit_gap(expected, found)
    if not gap <= tolerance:
        raise NotEqual(
            f"{task}: the vanilla model's logits differ from the checkpoint's by up to {gap:.3g}; nothing was written"
        )


def calibration_of(model: MultiTaskModel, task: str) -> Calibration:
    """What the checkpoint's record of the task says; nothing where it says nothing."""
    record: Mapping[str, Any] = next((one for one in model.config.tasks if one.get("name") == task), {})
    return Calibration.of(record.get("calibration"), model.kinds[task], f"config.json: {task}.calibration")


def _decodes_otherwise(task: Task) -> bool:
    """Whether our decoding can give other answers than the stock pipeline's on the same logits."""
    return task.kind.annotation in ("tags", "answer")


def _left(task: Task, result: Export) -> list[str]:
    """What of our decoding is not in the exported folder, in words."""
    left = []
    if task.kind.annotation == "tags":
        if task.tag_scheme != "none":
            left.append("the constrained decoding of tags (an I-x follows B-x or I-x only)")
        left.append(f"the way in which texts are cut into words ({task.word_splitter})")
        left.append("windows over texts that are longer than a row")
    if task.kind.annotation == "answer":
        left.append("the choice of the answer's span, over windows of a long context")
    return left + [f"the calibration's {name}" for name in result.left]


def row_length(folder: Path, model: MultiTaskModel, tokenizer: Any) -> int:
    """Tokens a row in training, so that the stock pipeline cuts texts where we do."""
    wanted = _encoder_of(folder).get("max_length")
    known = model.config.encoder_config
    return longest_row(known, tokenizer, wanted if isinstance(wanted, int) else None)


def _encoder_of(folder: Path) -> Mapping[str, Any]:
    if not (folder / RESOLVED).is_file():
        return {}
    encoder = read_yaml(folder / RESOLVED, "resolved recipe")[0].get("encoder")
    return encoder if isinstance(encoder, dict) else {}


def _encoder_name(folder: Path) -> str | None:
    """The encoder's name for the card; a path of the machine that trained stays private."""
    name = _encoder_of(folder).get("name")
    return name if isinstance(name, str) and not Path(name).is_absolute() else None


def chosen_tasks(model: MultiTaskModel, wanted: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """(tasks to export, task → why it is left out); `all` takes every task that can be.

    Raises:
        UserError: a task that was asked for by name cannot be exported, or there is none at all; all are told.
    """
    reasons = exportable(model)
    if list(wanted) == ["all"]:
        can = [name for name, reason in reasons.items() if not reason]
        left = {name: reason for name, reason in reasons.items() if reason}
        if not can:
            raise UserError("\n".join(left.values()))
        return can, left
    for name in wanted:
        find(model, name)
    refused = [reasons[name] for name in wanted if reasons[name]]
    if refused:
        raise UserError("\n".join(refused))
    return list(wanted), {}
