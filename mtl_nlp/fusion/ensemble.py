"""`fuse_ensemble`: a folder of checkpoints that answer together (`mtl_nlp.ensembling`), their weights tuned on validation.

A task's weights are chosen by ensemble selection (Caruana et al. 2004, ICML): from an empty bag, the member whose addition
gives the best primary metric is put in, again and again; a weight is the member's share of the best bag. Equal weights stay
unless a bag is better than they are.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..durable import sync_folder
from ..ensembling import outputs_of_task
from ..errors import Faults, FaultyInput, fault, listed
from ..hub.checkpoint import check_folder, load_model, write_checksums, write_json, write_model
from ..hub.ensemble import ENSEMBLE
from ..model.config import FORMAT_VERSION, task_record
from ..model.files import CARD, CHECKSUMS, METRICS, vouched
from ..recipe import RESOLVED, Recipe, make_recipe
from ..schema import Source, dump_yaml
from ..task import Abstain, Calibration, Task
from ..training.ensemble_scores import EnsembleAnswers, member_answers
from ..training.finetune import by_task
from ..training.parents import Parent
from .common import encoder_entry, fused_recipe, new_folder, open_parents, optional_recipe, owners_of, readable

logger = logging.getLogger("mtl_nlp")
WEIGHTS = ("tuned", "uniform")
TAGS = ("vote", "average")
ROUNDS = 20


def fuse_ensemble(
    checkpoints: Sequence[str | Path],
    output: str | Path,
    *,
    weights: str = "tuned",
    tags: str = "vote",
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    sets: Sequence[str] = (),
    data_root: str | Path | None = None,
    datasets: Mapping[str, Any] | None = None,
    batch: int = 64,
) -> Path:
    """Make an ensemble that `Predictor`, `evaluate`, `predict` and `show` take for a checkpoint.

    Args:
        checkpoints: `[TASK=]PLACE[@REVISION][#TASK]` each, of any architecture and tokenizer; members are copied.
        output: a new or empty folder.
        weights: `tuned` on validation, or `uniform`.
        tags: `vote` takes entities by majority, `average` the best tags under the mean probabilities.
        recipe: says where the data is and how plain models' labels are called; the members' own recipes if absent.
        sets: `KEY=VALUE` on that recipe.
        data_root: read `DIR/TASK/{train,validation,test}.*` in place of Hub data sets.
        datasets: data in memory, as of `finetune`.

    Returns:
        The output folder.

    Raises:
        UserError: members that do not fit each other (all reasons at once), or no data to tune on.
    """
    faults = Faults()
    if weights not in WEIGHTS:
        faults.add(f'found "{weights}"', key="--weights", allowed=listed(WEIGHTS))
    if tags not in TAGS:
        faults.add(f'found "{tags}"', key="--tags", allowed=listed(TAGS))
    faults.check()
    folder = new_folder(output)
    made = optional_recipe(recipe, sets, datasets)
    parents = open_parents(checkpoints, made)
    check_fit(parents)
    owners = owners_of(parents)
    data = fused_recipe(parents, owners, encoder_entry(parents), made)
    if weights == "tuned" and not readable(data["tasks"], datasets):
        cure = "--recipe RECIPE says where it is; or --weights uniform"
        raise fault("tuning needs validation data", key="--weights", cure=cure)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that what is cut short leaves nothing half written there.
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        _fill(temporary, parents, data, weights, tags, data_root, datasets, batch)
        if folder.is_dir():
            folder.rmdir()
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _fill(
    folder: Path,
    parents: Sequence[Parent],
    data: Mapping[str, Any],
    weights: str,
    tags: str,
    data_root: str | Path | None,
    memory: Mapping[str, Any] | None,
    batch: int,
) -> None:
    owners = list(owners_of(parents))
    members = [_write_member(folder / f"member-{i}", parent) for i, parent in enumerate(parents, 1)]
    even = {name: uniform(parents, name) for name in owners}
    answers = _answers(members, parents, even, data, data_root, memory, batch, needed=weights == "tuned")
    vote = dict.fromkeys(owners, tags == "vote")
    chosen = even
    if weights == "tuned":
        assert answers is not None
        chosen = {name: tuned(answers, name, even[name], vote=vote[name]) for name in owners}
    tasks = ensemble_tasks(parents, chosen)
    metrics: dict[str, float] = {}
    if answers is not None:
        answers.tasks = {name: _with_calibration(task, tasks[name]) for name, task in answers.tasks.items()}
        metrics = answers.scores({name: chosen[name] for name in answers.members}, vote)
    _write(folder, parents, tasks, chosen, vote, data, metrics, weights)


def check_fit(parents: Sequence[Parent]) -> None:
    """Refuse members that have a task of one name and do not mean the same by it.

    Raises:
        FaultyInput: every reason, by the name of the checkpoint.
    """
    faults = Faults()
    for name, first in owners_of(parents).items():
        task = next(one for one in first.tasks if one.name == name)
        for parent in parents:
            own = next((one for one in parent.tasks if one.name == name), None)
            if own is None or parent is first:
                continue
            reason = _unlike(own, task) or _other_words(task, parent.tokenizer, first.tokenizer)
            if reason:
                faults.add(f"{reason} ({first.name})", where=parent.name, key=name, cure="leave it out, or rename it")
    faults.check()


def _unlike(task: Task, other: Task) -> str:
    if task.kind.annotation != other.kind.annotation:
        return f"head {task.head}, not {other.head}"
    if task.kind.annotation == "tags" and (task.tag_scheme == "none") != (other.tag_scheme == "none"):
        return f"scheme {task.tag_scheme}, not {other.tag_scheme}"
    if set(outputs_of_task(task)) != set(outputs_of_task(other)):
        return f"labels {listed(task.labels or ())}, not {listed(other.labels or ())}"
    return ""


def _other_words(task: Task, one: Any, other: Any) -> str:
    """Why two tokenizers' own words differ; empty where they do not or where the words are given."""
    if task.kind.annotation != "tags" or task.word_splitter != "pretokenizer":
        return ""
    here, there = (json.loads(t.backend_tokenizer.to_str()).get("pre_tokenizer") for t in (one, other))
    return "" if here == there else "its tokenizer cuts raw text into other words; train with words: whitespace"


def uniform(parents: Sequence[Parent], task: str) -> list[float]:
    """Equal weights for those that have the task."""
    own = [float(task in parent.model.kinds) for parent in parents]
    return [weight / sum(own) for weight in own]


def tuned(answers: EnsembleAnswers, task: str, even: list[float], *, vote: bool) -> list[float]:
    """The weights that ensemble selection finds for a task by its primary metric."""
    members = [i for i, weight in enumerate(even) if weight > 0]
    metric = answers.tasks[task].metric_names[:1] if task in answers.members else []
    corpus = next(
        (c for c, names in answers.scorer.owners.items() if task in names and c in answers.scorer.splits), None
    )
    if len(members) < 2 or not metric or corpus is None:
        return even

    def score(weights: Sequence[float]) -> float:
        decided = answers.decide(corpus, {task: weights}, {task: vote})
        return answers.scorer.measure(corpus, decided)[f"eval_{task}_{metric[0]}"]

    best, value = select(score, members, len(even), even)
    logger.info("%s: weights %s → %s %.4f", task, listed(f"{w:.2f}" for w in best), metric[0], value)
    return best


def select(
    score: Callable[[Sequence[float]], float], members: Sequence[int], count: int, even: list[float]
) -> tuple[list[float], float]:
    """Greedy selection with replacement (Caruana et al. 2004): (weights, their score).

    Args:
        score: of weights; higher is better. Equal scores leave what was found first.
        members: which may be chosen, of `count`.
        even: what has to be beaten.
    """
    best, value = even, score(even)
    bag = [0] * count
    for _ in range(ROUNDS):
        trials = []
        for i in members:
            held = [n + (j == i) for j, n in enumerate(bag)]
            trials.append((score([n / sum(held) for n in held]), -i, held))
        found, _, bag = max(trials)
        if found > value:
            best, value = [n / sum(bag) for n in bag], found
    return best, value


def ensemble_tasks(parents: Sequence[Parent], weights: Mapping[str, Sequence[float]]) -> dict[str, Task]:
    """The tasks of the ensemble: the first member's, with thresholds that are the weighted mean of all members'."""
    found = {}
    for name, first in owners_of(parents).items():
        own = next(task for task in first.tasks if task.name == name)
        pairs = [
            (w, next(t for t in parent.tasks if t.name == name))
            for w, parent in zip(weights[name], parents, strict=True)
            if w > 0
        ]
        update = {"calibration": _calibration(name, pairs), "share_head_with": None}
        found[name] = own.model_copy(update=update)
    for name, task in found.items():
        partner = task.consistent_with if isinstance(task.consistent_with, str | None) else task.consistent_with.task
        if partner is not None and partner not in found:
            found[name] = task.model_copy(update={"consistent_with": None})
    return found


def _calibration(name: str, members: Sequence[tuple[float, Task]]) -> Calibration | None:
    """Thresholds and abstention; temperatures are the members' own affair."""
    known = [(w, task.calibration or Calibration()) for w, task in members]
    labels = members[0][1].labels or []
    thresholds = None
    if any(one.thresholds for _, one in known):
        thresholds = {label: sum(w * (one.thresholds or {}).get(label, 0.5) for w, one in known) for label in labels}
    abstains = [(w, one.abstain) for w, one in known if one.abstain is not None]
    abstain = None
    if abstains and (len(abstains) < len(known) or len({one.label for _, one in abstains}) > 1):
        logger.warning("%s: the members do not abstain alike: the ensemble does not abstain", name)
    elif abstains:
        threshold = sum(w * one.threshold for w, one in abstains)
        abstain = Abstain(threshold=threshold, label=abstains[0][1].label)
    return Calibration(thresholds=thresholds, abstain=abstain) if thresholds or abstain else None


def _with_calibration(task: Task, own: Task) -> Task:
    return task.model_copy(update={"calibration": own.calibration}).placed(task._source, task.base)


def _answers(
    members: Sequence[Path],
    parents: Sequence[Parent],
    even: Mapping[str, Sequence[float]],
    data: Mapping[str, Any],
    data_root: str | Path | None,
    memory: Mapping[str, Any] | None,
    batch: int,
    *,
    needed: bool,
) -> EnsembleAnswers | None:
    """The members' answers on validation; None where there is no data and none is needed."""
    if not readable(data["tasks"], memory):
        logger.warning("no data is known: the ensemble is not scored")
        return None
    recipe = make_recipe(data, Source("the members' recipes"), memory=list(memory or ()))
    tasks = ensemble_tasks(parents, even)
    root = Path(data_root) if data_root is not None else None
    try:
        return member_answers(members, recipe, tasks, split="validation", data_root=root, memory=memory, batch=batch)
    except FaultyInput as error:
        if needed:
            raise
        logger.warning("the ensemble is not scored: %s", error)
        return None


def _write_member(folder: Path, parent: Parent) -> Path:
    """A member as a checkpoint of its own: copied as it is, or written where it was a plain model or some of its tasks."""
    folder.mkdir(parents=True)
    if not parent.plain and not parent.renamed:
        source = check_folder(parent.name)
        for path in [*vouched(source), source / METRICS, source / CHECKSUMS, source / CARD]:
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        load_model(folder)
        return folder

    def write(path: Path) -> None:
        parent.model.save_pretrained(path)
        parent.tokenizer.save_pretrained(path)
        entries = [parent.entry(task.name) for task in parent.tasks]
        encoder = {key: value for key, value in parent.encoder.items() if key != "from"} or encoder_entry([parent])
        recipe = {"encoder": encoder, "tasks": entries}
        (path / RESOLVED).write_text(dump_yaml(json.loads(json.dumps(recipe))), encoding="utf-8")

    write_model(folder, write)
    return folder


def _write(
    folder: Path,
    parents: Sequence[Parent],
    tasks: Mapping[str, Task],
    weights: Mapping[str, Sequence[float]],
    vote: Mapping[str, bool],
    recipe: Mapping[str, Any],
    metrics: Mapping[str, float],
    how: str,
) -> None:
    members = [{"folder": f"member-{i}", **parent.facts()} for i, parent in enumerate(parents, 1)]
    records = [
        {"task": task_record(task), "weights": list(weights[name]), "vote": vote[name]} for name, task in tasks.items()
    ]
    facts = {"format_version": FORMAT_VERSION, "weights": how, "members": members, "tasks": records}
    (folder / RESOLVED).write_text(dump_yaml(json.loads(json.dumps(recipe))), encoding="utf-8")
    scores = by_task(dict(metrics), list(tasks))
    write_json(folder / METRICS, {"validation": scores, "mean": metrics.get("eval_mean")})
    write_json(folder / ENSEMBLE, facts)
    write_checksums(folder)
    sync_folder(folder)
