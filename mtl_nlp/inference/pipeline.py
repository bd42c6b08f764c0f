"""`transformers.pipeline("multi-task", model=…)`: every task's answer in the shape of the stock pipelines, by one encoder pass.

A head is a vanilla model of transformers, so the stock text- and token-classification pipelines make the answers from its logits;
here a text is encoded once for all of them. Calibration is applied as an exported task has it in its weights. Registered when
`transformers.pipelines` is imported (`mtl_nlp.lazy`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline
from transformers.pipelines.text_classification import TextClassificationPipeline
from transformers.pipelines.token_classification import TokenClassificationPipeline

from ..errors import closest, fault, listed
from ..hub.single_task import calibration_of, exportable, row_length
from ..model.multitask import MultiTaskModel
from ..task import Task

NAME = "multi-task"
STOCK: dict[str, Any] = {
    "label": TextClassificationPipeline,
    "labels": TextClassificationPipeline,
    "value": TextClassificationPipeline,
    "tags": TokenClassificationPipeline,
}
TEXT_OPTIONS = ("top_k", "function_to_apply")
TOKEN_OPTIONS = ("aggregation_strategy", "ignore_labels")
LOGITS = "logits of "


# The base declares the class attributes as None and the hooks with other arguments than its own subclasses have.
_Base: Any = ChunkPipeline


class MultiTaskPipeline(_Base):
    """Answers for all tasks of a checkpoint that read a text (or a pair), `{task: answer}` a text.

    Call it with a text, `{"text": …, "text_pair": …}`, a list of words (with `is_split_into_words=True`), or a list of these.
    Options, as the stock pipelines have them, when it is made or called: `tasks` (names), `batch_size`; `top_k` and
    `function_to_apply` for labels; `aggregation_strategy` (`first` if absent, because only a word's first token was trained),
    `ignore_labels` and `stride` (long texts in overlapping chunks) for tags. Without `stride` a text is cut to a row's length.
    """

    default_input_names = "sequences"
    _load_tokenizer = True
    _load_processor = _load_image_processor = _load_feature_extractor = False

    def __init__(self, **kwargs: Any) -> None:
        model = kwargs["model"]
        if not isinstance(model, MultiTaskModel):
            raise fault(f"found a {type(model).__name__}", key="model", allowed="a checkpoint of mtl-nlp")
        if kwargs.get("tokenizer") is None:
            raise fault("missing", key="tokenizer", cure="give the folder's name as model, or the tokenizer too")
        refused = exportable(model)
        self._refused = {name: reason for name, reason in refused.items() if reason}
        self._stock: dict[str, Any] = {}
        self._calibration = {task.name: calibration_of(model, task.name) for task in model.tasks}
        super().__init__(**kwargs)
        folder = Path(str(getattr(model, "name_or_path", "") or "."))
        self.tokenizer.model_max_length = row_length(folder, model, self.tokenizer)
        for task in model.tasks:
            if task.kind.annotation in STOCK and task.name not in self._refused:
                head = model.heads[task.name]
                made = STOCK[task.kind.annotation](model=head, tokenizer=self.tokenizer, device=self.device)
                self._stock[task.name] = made
        if not self._stock:
            raise fault("no task has a stock pipeline", key="model", cure="use mtl_nlp.Predictor")

    def _sanitize_parameters(
        self,
        tasks: str | Sequence[str] | None = None,
        stride: int | None = None,
        is_split_into_words: bool = False,
        delimiter: str | None = None,
        **options: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = set(options) - {*TEXT_OPTIONS, *TOKEN_OPTIONS}
        if unknown:
            allowed = listed(["tasks", "stride", "is_split_into_words", "delimiter", *TEXT_OPTIONS, *TOKEN_OPTIONS])
            raise fault(f"unknown option {listed(sorted(unknown))}", key=NAME, allowed=allowed)
        pre: dict[str, Any] = {}
        if tasks is not None:
            pre["tasks"] = [tasks] if isinstance(tasks, str) else list(tasks)
        if stride is not None:
            pre["stride"] = stride
        if is_split_into_words:
            pre["delimiter"] = " " if delimiter is None else delimiter
        return pre, {}, dict(options)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """`{task: answer}`, or a list of such for a list (see the class)."""
        words = kwargs.get("is_split_into_words", False)
        if words and isinstance(inputs, list) and not all(isinstance(one, list) for one in inputs):
            return super().__call__([inputs], **kwargs)[0]
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **kwargs)

    def _asked(self, tasks: Sequence[str] | None, *, pair: bool) -> list[str]:
        """The tasks that answer an input: those that read pairs, or those that do not."""
        if tasks is None:
            found = [name for name in self._stock if self._reads_pairs(name) == pair]
            if not found:
                form = "a pair (text, text_pair)" if pair else "a text alone"
                raise fault(f"no task reads {form}", key="inputs", allowed=self._known())
            return found
        for name in tasks:
            if name in self._refused:
                raise fault(f"no stock pipeline: {self._refused[name]}", key="tasks", cure="use mtl_nlp.Predictor")
            if name not in self._stock:
                raise fault(f'no task "{name}".{closest(name, self._stock)}', key="tasks", allowed=self._known())
        return list(tasks)

    def _known(self) -> str:
        return listed(f"{name} (pairs)" if self._reads_pairs(name) else name for name in self._stock)

    def _reads_pairs(self, name: str) -> bool:
        return "pair" in self._task(name).data.columns.roles()

    def _task(self, name: str) -> Task:
        return next(task for task in self.model.tasks if task.name == name)

    def preprocess(
        self,
        inputs: Any,
        tasks: Sequence[str] | None = None,
        stride: int | None = None,
        delimiter: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The rows of a text: one, or with `stride` as many as it fills."""
        pair = inputs.get("text_pair") if isinstance(inputs, Mapping) else None
        text = inputs["text"] if isinstance(inputs, Mapping) else inputs
        words = delimiter is not None
        if not isinstance(text, list if words else str):
            expected = "a list of words" if words else 'a text, or {"text": …, "text_pair": …}'
            raise fault(f"found a {type(text).__name__}", key="inputs", allowed=expected)
        asked = self._asked(tasks, pair=pair is not None)
        chunks = {"return_overflowing_tokens": True, "padding": True, "stride": stride} if stride is not None else {}
        coded = self.tokenizer(
            text,
            pair,
            return_tensors="pt",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_special_tokens_mask=True,
            return_offsets_mapping=True,
            is_split_into_words=words,
            **chunks,
        )
        coded.pop("overflow_to_sample_mapping", None)
        places = _places(text, delimiter) if delimiter is not None else None
        sentence = delimiter.join(text) if delimiter is not None else text
        count = len(coded["input_ids"])
        for i in range(count):
            yield {
                **{name: value[i][None] for name, value in coded.items()},
                "sentence": sentence,
                "asked": asked,
                "word_ids": coded.word_ids(i) if words else None,
                "word_to_chars_map": places,
                "is_last": i == count - 1,
            }

    def _forward(self, model_inputs: dict[str, Any]) -> dict[str, Any]:
        """One encoder pass, then the heads that a text of the batch asks for, on all rows."""
        fed = {
            name: model_inputs[name]
            for name in ("input_ids", "attention_mask", "token_type_ids")
            if name in model_inputs
        }
        asked = model_inputs["asked"]
        names = list(dict.fromkeys(name for one in asked for name in ([one] if isinstance(one, str) else one)))
        count, width = fed["input_ids"].shape
        rows = {"rows": torch.arange(count, device=self.device), "width": torch.tensor(width)}
        logits = self.model(**fed, tasks=dict.fromkeys(names, rows)).logits
        return {f"{LOGITS}{name}": value for name, value in logits.items()} | model_inputs

    def postprocess(self, model_outputs: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """Task → the stock pipeline's answer for one text."""
        return {name: self._answer(name, model_outputs, options) for name in model_outputs[0]["asked"]}

    def _answer(self, name: str, outputs: list[dict[str, Any]], options: Mapping[str, Any]) -> Any:
        stock = self._stock[name]
        annotation = self._task(name).kind.annotation
        used = TOKEN_OPTIONS if annotation == "tags" else TEXT_OPTIONS
        given = {key: value for key, value in options.items() if key in used}
        rows = [self._as_stock(name, output) for output in outputs]
        if annotation == "tags":
            given = {"aggregation_strategy": "first", **given}
            return stock.postprocess(rows, **stock._sanitize_parameters(**given)[2])
        return stock.postprocess(rows[0], **stock._sanitize_parameters(**given)[2])

    def _as_stock(self, name: str, output: Mapping[str, Any]) -> dict[str, Any]:
        """A row's output under the names of the stock pipelines."""
        kept = {key: value for key, value in output.items() if not key.startswith(LOGITS)}
        return {**kept, "logits": self._calibration[name].applied(output[f"{LOGITS}{name}"])}


def _places(words: Sequence[str], delimiter: str) -> list[tuple[int, int]]:
    """Each word's characters in the joined text."""
    places, start = [], 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + len(delimiter)
    return places


def register() -> None:
    """Make `transformers.pipeline("multi-task", …)` known."""
    if NAME not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(NAME, pipeline_class=MultiTaskPipeline, pt_model=AutoModel, type="text")


register()
