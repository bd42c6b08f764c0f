"""Scoring an ensemble: each member answers a split with its own tokenizer, one in memory at a time; then they are combined."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..decoding import Decoded, decode_all
from ..ensembling import EnsembleDecoder, KeepingDecoder
from ..errors import fault, listed
from ..hub.checkpoint import load_model, load_tokenizer
from ..hub.ensemble import Ensemble, check_members, read_ensemble
from ..recipe import RESOLVED, Recipe, load_recipe
from ..schema import read_yaml
from ..task import Task
from .evaluation import Scorer
from .finetune import by_task, make_scorer
from .prepare import Prepared, prepare

logger = logging.getLogger("mtl_nlp")
Answers = dict[str, dict[str, dict[int, Decoded]]]


@dataclass
class EnsembleAnswers:
    """What the members said of a split.

    Attributes:
        tasks: of the ensemble, with the recipe's data and metrics.
        members: task → the members that answer it, as they have it, by number.
        answers: one corpus → task → text → answer, for each member.
        scorer: holds the references.
        prepared: the split's data, as the first member reads it.
    """

    tasks: dict[str, Task]
    scorer: Scorer
    prepared: Prepared
    members: dict[str, dict[int, Task]] = field(default_factory=dict)
    answers: list[Answers] = field(default_factory=list)

    def decoder(self, task: str, weights: Sequence[float], *, vote: bool) -> EnsembleDecoder:
        """The decoder of a task; `weights` are of all members, those without the task 0."""
        own = self.members[task]
        used = [i for i in own if weights[i] > 0]
        return EnsembleDecoder(self.tasks[task], [own[i] for i in used], [weights[i] for i in used], vote=vote)

    def decide(
        self, corpus: str, weights: Mapping[str, Sequence[float]], vote: Mapping[str, bool]
    ) -> dict[str, dict[int, Decoded]]:
        """The answers of the ensemble for one corpus: those tasks of it that have weights."""
        decoders, gathered, numbers = {}, {}, {}
        for name in self.scorer.owners[corpus]:
            if name not in weights or name not in self.members:
                continue
            used = [i for i in self.members[name] if weights[name][i] > 0]
            texts = sorted(self.answers[used[0]][corpus][name])
            decoders[name] = self.decoder(name, weights[name], vote=vote[name])
            gathered[name] = decoders[name].gather([[self.answers[i][corpus][name][t] for t in texts] for i in used])
            numbers[name] = texts
        found = decode_all(
            decoders,
            {name: scores for name, (scores, _) in gathered.items()},
            {name: texts for name, (_, texts) in gathered.items()},
        )
        return {name: dict(zip(numbers[name], found[name], strict=True)) for name in found}

    def scores(self, weights: Mapping[str, Sequence[float]], vote: Mapping[str, bool]) -> dict[str, float]:
        """`eval_TASK_METRIC`, and `eval_mean`."""
        metrics: dict[str, float] = {}
        for corpus in self.scorer.splits:
            decided = self.decide(corpus, weights, vote)
            self.scorer.decoders |= {name: self.decoder(name, weights[name], vote=vote[name]) for name in decided}
            metrics |= self.scorer.measure(corpus, decided)
        return metrics | self.scorer.mean(metrics)


def member_answers(
    folders: Sequence[Path],
    recipe: Recipe,
    tasks: Mapping[str, Task],
    *,
    split: str,
    data_root: Path | None = None,
    memory: Mapping[str, Any] | None = None,
    batch: int = 64,
) -> EnsembleAnswers:
    """Every member's answers for a split of a recipe's data.

    Args:
        tasks: of the ensemble; their labels are those that the data is read with.

    Raises:
        UserError: faults of the data, no such split, or members that do not fit.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: EnsembleAnswers | None = None
    for number, folder in enumerate(folders):
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        prepared = _prepared(recipe, tasks, folder, model, tokenizer, split, data_root, memory)
        if found is None:
            known = {task.name: task for task in prepared.tasks}
            found = EnsembleAnswers(known, make_scorer(prepared, split), prepared)
        own = {task.name: task for task in model.tasks if task.name in found.tasks and task.kind.annotation != "none"}
        scorer = _member_scorer(prepared, own, split)
        model.use_fast_paths()
        moved = nn.Module.to(model, device)
        logger.info("member %d of %d answers %s", number + 1, len(folders), split)
        found.answers.append(dict(scorer.answers(moved, device=device, batch=batch)))
        for name, task in own.items():
            found.members.setdefault(name, {})[number] = task
    assert found is not None
    return found


def _prepared(
    recipe: Recipe,
    tasks: Mapping[str, Task],
    folder: Path,
    model: Any,
    tokenizer: Any,
    split: str,
    data_root: Path | None,
    memory: Mapping[str, Any] | None,
) -> Prepared:
    """The split, encoded for a member: the ensemble's tasks and texts, the member's tokenizer and row length."""
    made = recipe.model_copy()
    made._tasks = [_settled(task, tasks[task.name]) for task in recipe.definitions if task.name in tasks]
    trained = read_yaml(folder / RESOLVED, "resolved recipe")[0] if (folder / RESOLVED).is_file() else {}
    encoder = trained.get("encoder") if isinstance(trained.get("encoder"), dict) else {}
    positions = getattr(model.config.encoder_config, "max_position_embeddings", None) or 512
    length = (encoder or {}).get("max_length") or min(positions, tokenizer.model_max_length, 512)
    update = {"max_length": length, "stride": (encoder or {}).get("stride", made.encoder_spec.stride)}
    made.encoder = made.encoder_spec.model_copy(update=update)
    splits = ("train", split) if split == "validation" else (split,)
    return prepare(made, data_root=data_root, memory=memory, splits=splits, tokenizer=tokenizer, need_train=False)


def _settled(task: Task, own: Task) -> Task:
    """The recipe's task with the ensemble's labels, splitter and thresholds."""
    update = {
        "labels": own.labels,
        "words": own.words,
        "scheme": task.scheme or own.scheme,
        "calibration": own.calibration,
        "consistent_with": own.consistent_with,
        "share_head_with": None,
    }
    return task.model_copy(update=update).placed(task._source, task.base)


def _member_scorer(prepared: Prepared, own: Mapping[str, Task], split: str) -> Scorer:
    """A scorer that collects a member's answers to the tasks that it has, with all probabilities."""
    owners = {corpus: [n for n in names if n in own] for corpus, names in prepared.owners.items()}
    splits = {corpus: part for corpus, part in prepared.encoded[split].items() if owners[corpus]}
    scorer = Scorer(list(own.values()), splits, owners, prepared.tokenizer, prepared.contexts(split))
    scorer.decoders = {name: KeepingDecoder(task) for name, task in own.items()}
    return scorer


def score_ensemble(
    folder: str | Path,
    recipe: str | Path | None = None,
    *,
    sets: Sequence[str] = (),
    split: str = "test",
    data_root: Path | None = None,
    batch: int = 64,
) -> tuple[dict[str, dict[str, float]], float | None]:
    """As `score_checkpoint`, of an ensemble.

    Raises:
        UserError: a damaged ensemble, a recipe with tasks that it does not have, or no such split.
    """
    if split not in ("train", "validation", "test"):
        raise fault(f'found "{split}"', key="--split", allowed="train, validation or test")
    ensemble: Ensemble = read_ensemble(folder)
    made = load_recipe(recipe or ensemble.folder / RESOLVED, sets)
    unknown = [task.name for task in made.definitions if task.name not in ensemble.tasks]
    if unknown:
        where, allowed = str(recipe or folder), listed(ensemble.tasks)
        raise fault(f"the ensemble has no task {listed(unknown)}", where=where, allowed=allowed)
    check_members(ensemble, [list(load_model(member).tasks) for member in ensemble.members])
    wanted = {task.name: ensemble.tasks[task.name] for task in made.definitions}
    found = member_answers(ensemble.members, made, wanted, split=split, data_root=data_root, batch=batch)
    weights = {name: ensemble.weights[name] for name in wanted}
    metrics = found.scores(weights, ensemble.vote)
    return by_task(metrics, list(wanted)), metrics.get("eval_mean")
