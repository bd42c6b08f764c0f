"""An exported task scored twice on validation: by our decoding, and as the stock pipeline answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..data.windows import RowEncoder
from ..errors import UserError
from ..hub.checkpoint import check_folder
from ..hub.task_card import Measured
from ..labels import Span, spans_to_tags
from ..metrics import compute
from ..model.multitask import MultiTaskModel
from ..recipe import RESOLVED, Recipe, load_recipe
from ..task import Task
from .finetune import by_task, make_scorer
from .prepare import Prepared, prepare
from .score import _take_labels

logger = logging.getLogger("mtl_nlp")
PASS = 32


class BothDecodings:
    """Scores exported folders of one checkpoint, each task on its own validation data.

    Args:
        checkpoint: its resolved recipe says where the data is.
        model: the checkpoint's.
        tokenizer: the checkpoint's.
        data_root: read `DIR/TASK/{train,validation,test}.*` in place of Hub data sets.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        model: MultiTaskModel,
        tokenizer: Any,
        *,
        data_root: Path | None = None,
    ) -> None:
        self.folder, self.model, self.tokenizer = check_folder(checkpoint), model, tokenizer
        self.data_root = data_root
        self._prepared: dict[str, Prepared | str] = {}

    def __call__(self, exported: Path, task: Task) -> Measured:
        """Both scores of one task, or why there are none."""
        stock = STOCK.get(task.kind.annotation)
        if stock is None:
            return Measured(why_not=f"transformers has no pipeline for {task.head}")
        prepared = self._data(task.name)
        if isinstance(prepared, str):
            return Measured(why_not=prepared)
        corpus = next(corpus for corpus in prepared.corpora if task.name in corpus.task_names)
        if corpus.name not in prepared.encoded["validation"]:
            return Measured(why_not="its data has no validation split")
        split = prepared.encoded["validation"][corpus.name]
        gold = split.gold[task.name]
        scored = [i for i, reference in enumerate(gold) if reference is not None]
        if not scored:
            return Measured(why_not="no validation text is annotated")
        scorer = make_scorer(prepared, "validation")
        ours = by_task(scorer.score(self.model, device=torch.device("cpu")), [task.name])[task.name]
        rows = corpus.splits["validation"].data
        answers = stock(exported, task, [rows[i] for i in scored])
        scheme = "none" if task.tag_scheme == "none" else "iob2"
        references = [gold[i] for i in scored]
        theirs = compute(task.metric_names, answers, references, labels=task.labels, scheme=scheme)
        return Measured(ours, theirs, len(scored))

    def _data(self, task: str) -> Prepared | str:
        if task not in self._prepared:
            try:
                self._prepared[task] = self._read(task)
            except (UserError, OSError) as error:
                self._prepared[task] = f"its data cannot be read: {str(error).strip().splitlines()[0]}"
        return self._prepared[task]

    def _read(self, task: str) -> Prepared:
        recipe = self._recipe(task)
        return prepare(
            recipe,
            data_root=self.data_root,
            splits=("train", "validation"),
            tokenizer=self.tokenizer,
            need_train=False,
        )

    def _recipe(self, task: str) -> Recipe:
        """The checkpoint's recipe with this task alone, its labels the checkpoint's."""
        made = load_recipe(self.folder / RESOLVED)
        made._tasks = [one for one in made.definitions if one.name == task]
        _take_labels(made, self.model.tasks, str(self.folder))
        length = made.encoder_spec.max_length or self.tokenizer.model_max_length
        made.encoder = made.encoder_spec.model_copy(update={"max_length": min(length, 512)})
        return made


Rows = Sequence[dict[str, Any]]


def _pipe(name: str, folder: Path, **options: Any) -> Any:
    import transformers

    make: Any = transformers.pipeline
    return make(name, model=str(folder), dtype=torch.float32, device="cpu", **options)


def _inputs(rows: Rows) -> list[Any]:
    """What the text-classification pipeline takes: a text, or a pair of them."""
    texts = [row["text"] if "text" in row else " ".join(row["tokens"]) for row in rows]
    if "pair" not in rows[0]:
        return texts
    return [{"text": text, "text_pair": row["pair"]} for text, row in zip(texts, rows, strict=True)]


def _stock_label(folder: Path, task: Task, rows: Rows) -> list[str]:
    pipe = _pipe("text-classification", folder)
    return [found["label"] for found in pipe(_inputs(rows), truncation=True, batch_size=PASS)]


def _stock_labels(folder: Path, task: Task, rows: Rows) -> list[list[str]]:
    pipe = _pipe("text-classification", folder)
    found = pipe(_inputs(rows), truncation=True, batch_size=PASS, top_k=None)
    return [[one["label"] for one in scores if one["score"] > 0.5] for scores in found]


def _stock_tags(folder: Path, task: Task, rows: Rows) -> list[list[str]]:
    """A tag a word: the pipeline's entities laid on the words that they touch."""
    pipe = _pipe("token-classification", folder, aggregation_strategy="first")
    given = "tokens" in rows[0]
    texts = [row["tokens"] if given else row["text"] for row in rows]
    # The stock pipeline fails on an empty text.
    full = [i for i, text in enumerate(texts) if "".join(text).strip()]
    found: list[list[dict[str, Any]]] = [[] for _ in texts]
    for i, answer in zip(full, pipe([texts[i] for i in full], is_split_into_words=given, batch_size=PASS), strict=True):
        found[i] = answer
    words = _words(task, pipe.tokenizer, texts, given)
    return [_laid(task, *place, answer) for place, answer in zip(words, found, strict=True)]


def _words(task: Task, tokenizer: Any, texts: list[Any], given: bool) -> list[tuple[str, list[tuple[int, int]]]]:
    """Each text and the offsets of its words; given words are joined by spaces, as the pipeline does."""
    if given:
        return [(" ".join(words), _joined_offsets(words)) for words in texts]
    encoder = RowEncoder(
        tokenizer, "text", max_length=tokenizer.model_max_length, splitter=task.word_splitter, with_words=True
    )
    return [(text, rows.words) for text, rows in zip(texts, encoder.encode({"text": texts}), strict=True)]


def _joined_offsets(words: Sequence[str]) -> list[tuple[int, int]]:
    offsets, start = [], 0
    for word in words:
        offsets.append((start, start + len(word)))
        start += len(word) + 1
    return offsets


def _laid(task: Task, text: str, words: Sequence[tuple[int, int]], found: Sequence[dict[str, Any]]) -> list[str]:
    spans = [Span(int(one["start"]), int(one["end"]), str(one["entity_group"])) for one in found]
    tags, _ = spans_to_tags(spans, words, text)
    return [tag[2:] if task.tag_scheme == "none" and tag != "O" else tag for tag in tags]


STOCK: dict[str, Callable[[Path, Task, Rows], list[Any]]] = {
    "label": _stock_label,
    "labels": _stock_labels,
    "tags": _stock_tags,
}
