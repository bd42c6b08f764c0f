"""Recipe → encoded corpora and the mixture over them: everything before a model is built.

`check`, `train` and `evaluate` stand on this, so that what `check` reads is what the run will read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..data.cache import DataCache
from ..data.cached import cached_split
from ..data.class_weights import settle_losses
from ..data.features import EncodedSplit
from ..data.mixture import Mixture
from ..data.sources import Corpus, check_label_counts, final_tasks, read_corpora
from ..data.windows import RowEncoder
from ..errors import Faults, FaultyInput, listed
from ..metrics import METRICS, metrics_for
from ..metrics.table import ALIASES, did_you_mean, metric_info
from ..model.encoder import load_config, load_tokenizer, longest_row, match_types
from ..recipe import Recipe
from ..task import SPLITS, Task
from .arguments import check_best_metric, check_training
from .check_balancing import check_balancing
from .conditioning import check_conditioning
from .mixing import build_mixture, check_mixture, check_stopping
from .precision import Precision, settle_precision
from .transfer import adopt_labels
from .warm_start import Start, inherit, starting_point

METRIC_KINDS = {
    "value": "value",
    "tags": "tags",
    "label": "label",
    "labels": "labels",
    "answer": "answer",
    "choice": "label",
    "relevance": "relevance",
    "match": "relevance",
}


@dataclass
class Prepared:
    """Everything that a run reads.

    Attributes:
        tasks: in the recipe's order, labels settled.
        encoded: split → corpus → its rows.
        owners: corpus → names of its tasks.
        max_length: most tokens a row.
        start: the checkpoint that the run begins at.
        precision: what a run computes in; None where a checkpoint is scored.
    """

    recipe: Recipe
    corpora: list[Corpus]
    tasks: list[Task]
    tokenizer: Any
    encoder_config: Any
    encoded: dict[str, dict[str, EncodedSplit]]
    max_length: int
    start: Start | None = None
    precision: Precision | None = None

    @property
    def owners(self) -> dict[str, list[str]]:
        """Corpus → names of its tasks."""
        return {corpus.name: corpus.task_names for corpus in self.corpora}

    def contexts(self, split: str) -> dict[str, list[str]]:
        """Corpus → the contexts of its questions."""
        return {
            corpus.name: corpus.splits[split].data["context"]
            for corpus in self.corpora
            if corpus.reads == "question" and split in corpus.splits
        }

    def mixture(self) -> Mixture:
        """The mixture over the training splits, for the run's planned steps."""
        return build_mixture(self)


def check_recipe(recipe: Recipe) -> None:
    """What can be checked before reading data: training arguments, metrics, the best model's metric.

    Raises:
        FaultyInput: every fault.
    """
    faults = Faults()
    checks = (check_training, check_metrics, check_best_metric, check_mixture, check_stopping, check_balancing)
    for check in (*checks, check_conditioning):
        try:
            check(recipe)
        except FaultyInput as error:
            faults.extend(error)
    faults.check()


def check_metrics(recipe: Recipe) -> None:
    """Every metric is known and fits its task's annotations.

    Raises:
        FaultyInput: which task, which metric, what is allowed.
    """
    faults = Faults()
    for task in recipe.definitions:
        kind = METRIC_KINDS.get(task.kind.annotation)
        for i, name in enumerate(task.metric_names):
            where, key = task.place_of("metrics", i), f"{task.name}.metrics"
            info = metric_info(name)
            if info is None and not name.startswith("hub:"):
                allowed = f"{listed([*METRICS, *ALIASES], 40)}, or hub:NAME"
                faults.add(
                    f'unknown metric "{name}"', where=where, key=key, allowed=allowed, cure=did_you_mean(name).strip()
                )
            elif info is not None and kind not in info.kinds:
                allowed = listed(metrics_for(kind), 40) if kind else "none"
                faults.add(f'metric "{name}" does not fit head {task.head}', where=where, key=key, allowed=allowed)
            elif info is not None and i == 0 and not info.higher_better:
                faults.add(f'"{name}" is lower-better and cannot come first', where=where, key=key, cure="put it later")
    faults.check()


def row_encoder(corpus: Corpus, tokenizer: Any, max_length: int, stride: int) -> RowEncoder:
    """How the texts of a corpus become rows."""
    tagging = [task for task in corpus.tasks if task.kind.annotation == "tags"]
    return RowEncoder(
        tokenizer,
        corpus.reads,
        max_length=max_length,
        stride=stride,
        splitter=tagging[0].word_splitter if tagging else "pretokenizer",
        with_words=bool(tagging),
        row_tasks=len(tagging) < len(corpus.tasks),
    )


def prepare(
    recipe: Recipe,
    *,
    data_root: Path | None = None,
    memory: Mapping[str, Any] | None = None,
    splits: Iterable[str] = SPLITS,
    tokenizer: Any = None,
    need_train: bool = True,
) -> Prepared:
    """Read, check and encode the data of a recipe.

    Args:
        tokenizer: a checkpoint's own, when one is being scored.

    Raises:
        UserError: every fault of the recipe first, then every fault of the data.
    """
    check_recipe(recipe)
    scoring = tokenizer is not None
    start = None if scoring else starting_point(recipe)
    if start is not None:
        inherit(recipe, start)
        config, tokenizer = start.encoder_config, start.tokenizer()
    else:
        config = None if scoring else load_config(recipe.encoder_spec, recipe.base)
    corpora = _read(recipe, data_root=data_root, memory=memory, splits=list(splits), need_train=need_train)
    if not scoring:
        adopt_labels(corpora, given={task.name for task in recipe.definitions if task.labels is not None})
    tasks = final_tasks(recipe, corpora)
    check_label_counts(tasks)
    if need_train:
        check_balancing(recipe, shared_texts=any(len(corpus.tasks) > 1 for corpus in corpora))
    if tokenizer is None:
        given = any(corpus.reads == "tokens" for corpus in corpora)
        tokenizer = load_tokenizer(recipe.encoder_spec, recipe.base, given_words=given)
    if config is not None:
        match_types(tokenizer, config)
    spec = recipe.encoder_spec
    max_length = longest_row(config, tokenizer, spec.max_length) if config is not None else spec.max_length or 512
    encoded: dict[str, dict[str, EncodedSplit]] = {split: {} for split in SPLITS}
    cache = DataCache.of(recipe.cache, recipe.base, recipe.place_of("cache"))
    for corpus in corpora:
        encoder = row_encoder(corpus, tokenizer, max_length, spec.stride)
        for split in corpus.splits:
            scored = split != "train" or not need_train
            encoded[split][corpus.name] = cached_split(cache, corpus, split, encoder, scored=scored)
    tasks = settle_losses(tasks, {corpus.name: corpus.task_names for corpus in corpora}, encoded["train"])
    recipe._tasks = tasks
    precision = None if scoring else settle_precision(recipe, config)
    return Prepared(recipe, corpora, tasks, tokenizer, config, encoded, max_length, start, precision)


def _read(
    recipe: Recipe,
    *,
    data_root: Path | None,
    memory: Mapping[str, Any] | None,
    splits: Sequence[str],
    need_train: bool,
) -> list[Corpus]:
    """The recipe's corpora. Tasks that are kept without being learned are read apart, so that no text is drawn for them; one
    whose data is not told is not read."""
    tasks, untrained = recipe.definitions, set(recipe.untrained)
    learned = [task for task in tasks if task.name not in untrained]
    read = partial(read_corpora, data_root=data_root, splits=splits)
    known = dict(memory or {})
    parts = [(learned, need_train)]
    told = [task for task in tasks if task.name in untrained and (_is_told(task) or task.name in known)]
    parts += [(told, False)] if told else []
    corpora: list[Corpus] = []
    faults = Faults()
    for part, needed in parts:
        mine = recipe.model_copy()
        mine._tasks = part
        own = {name: data for name, data in known.items() if name in {task.name for task in part}}
        try:
            corpora += read(mine, memory=own or None, need_train=needed)
        except FaultyInput as error:
            faults.extend(error)
    faults.check()
    for corpus in corpora:
        if need_train and set(corpus.task_names) <= untrained:
            corpus.splits.pop("train", None)  # read, because validation may have been carved from it
    order = {task.name: place for place, task in enumerate(tasks)}
    return sorted(corpora, key=lambda corpus: order[corpus.tasks[0].name])


def _is_told(task: Task) -> bool:
    return task.data.source is not None or bool(task.data.splits.given())
