"""`calibrate`: temperature, thresholds and abstention of a checkpoint's heads, tuned on validation and kept in its task records.

Temperature scaling (Guo et al. 2017, arXiv:1706.04599): one number a head divides its logits, so that the head's loss (negative
log-likelihood) is least on validation; it changes no answer by itself. Thresholds of several labels are those of the best F1.
Scores before and after are of the same texts, so the thresholds' gain is a little too rosy: the test split tells.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import Faults, fault, listed
from ..hub.card import write_card
from ..hub.checkpoint import CONFIG, METRICS, check_folder, write_json
from ..hub.drop import mean_of_primary
from ..hub.rewrite import rewrite_folder
from ..metrics.calibration import (
    TEMPERATURES,
    answering_threshold,
    best_temperature,
    expected_calibration_error,
    label_thresholds,
    out_of_scope_threshold,
)
from ..model import losses
from ..model.heads import Head
from ..model.multitask import MultiTaskModel
from ..task import Abstain, Calibration, Task
from .confidences import Outputs, decisions, gather, nearest_of
from .finetune import by_task, make_scorer
from .prepare import Prepared
from .score import open_checkpoint

logger = logging.getLogger("mtl_nlp")

WITH_PROBABILITIES = ("label", "labels", "tags", "choice", "answer")
EDGE = 1e-6


@dataclass
class TaskReport:
    """What calibration did to one task.

    Attributes:
        units: decisions that the calibration error is over: texts, words, labels of texts, first and last tokens of answers.
        temperature: 1 where validation does not say.
        loss, error: before and after; the negative log-likelihood and the expected calibration error; None for a retrieval.
        thresholds, abstain: as stored; None where there are none.
        answered: share of the texts that get an answer, where the task abstains.
        metrics: metric → before and after.
    """

    units: int
    temperature: float
    loss: tuple[float, float] | None
    error: tuple[float, float] | None
    thresholds: dict[str, float] | None = None
    abstain: dict[str, Any] | None = None
    answered: float | None = None
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what the task has not is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def calibrate(
    checkpoint: str | Path,
    recipe: str | Path | None = None,
    *,
    tasks: Sequence[str] | None = None,
    out_of_scope: Mapping[str, str] | None = None,
    accuracy: Mapping[str, float] | None = None,
    thresholds: bool = True,
    sets: Sequence[str] = (),
    data_root: str | Path | None = None,
    batch: int = 64,
) -> dict[str, TaskReport]:
    """Tune a checkpoint's heads on validation and write the result into it: the whole of it, or nothing.

    Args:
        recipe: says where the data is; the checkpoint's own resolved recipe when None.
        tasks: names; all that have probabilities and validation data when None. The others keep what they have.
        out_of_scope: task → its label for texts that belong nowhere, given to texts below a tuned threshold.
        accuracy: task → how often an answer has to be right; below the threshold for it the answer is None.
        thresholds: whether tasks of several labels get thresholds.
        batch: texts a batch.

    Returns:
        Task → what was tuned, and what it did.

    Raises:
        UserError: no checkpoint, no validation data, or a task that cannot be calibrated as asked.
    """
    folder = check_folder(checkpoint)
    root = Path(data_root) if data_root is not None else None
    model, prepared = open_checkpoint(folder, recipe, sets=sets, data_root=root)
    outside, wanted = dict(out_of_scope or {}), dict(accuracy or {})
    chosen = _chosen(prepared, tasks, outside, wanted)
    _replace(prepared, {task.name: None for task in chosen})
    before = by_task(
        make_scorer(prepared, "validation").score(model, device=model.device, batch=batch), _names(prepared)
    )
    reports: dict[str, TaskReport] = {}
    found: dict[str, Calibration] = {}
    finding = [task for task in chosen if task.kind.annotation == "match"]
    for task in finding:
        found[task.name], reports[task.name] = _tune_retrieval(model, prepared, task, wanted[task.name], batch)
    for name, outputs in gather(model, prepared, [t.name for t in chosen if t not in finding], batch).items():
        kind = model.kinds[name]
        found[name], reports[name] = tune(
            kind, outputs, outside=outside.get(name), accuracy=wanted.get(name), thresholds=thresholds
        )
    _replace(prepared, found)
    after = by_task(
        make_scorer(prepared, "validation").score(model, device=model.device, batch=batch), _names(prepared)
    )
    for name, report in reports.items():
        report.metrics = {metric: (before[name][metric], value) for metric, value in after[name].items()}
    _write(folder, prepared.tasks, found, after, reports)
    return reports


def clear_calibration(checkpoint: str | Path) -> None:
    """Remove what `calibrate` wrote; `metrics.json` gets the scores back that it had before.

    Raises:
        UserError: no checkpoint.
    """
    folder = check_folder(checkpoint)
    data = json.loads((folder / METRICS).read_text(encoding="utf-8")) if (folder / METRICS).is_file() else {}
    reports = data.get("calibration") or {}
    scores = data.get("validation") or {}
    for name, report in reports.items():
        scores[name] = {metric: pair[0] for metric, pair in report["metrics"].items()}

    def change(path: Path) -> None:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        for record in config["tasks"]:
            record.pop("calibration", None)
        write_json(path / CONFIG, config)
        records = [Task.model_validate(record) for record in config["tasks"]]
        data.pop("calibration", None)
        facts = data | {"validation": scores, "mean": mean_of_primary(records, scores)}
        write_json(path / METRICS, facts)
        write_card(path)

    rewrite_folder(folder, change)


def _names(prepared: Prepared) -> list[str]:
    return [task.name for task in prepared.tasks]


def _chosen(
    prepared: Prepared, names: Sequence[str] | None, outside: Mapping[str, str], accuracy: Mapping[str, float]
) -> list[Task]:
    """The tasks to calibrate.

    Raises:
        FaultyInput: every name, label or share that does not fit.
    """
    scored = {name for corpus in prepared.encoded["validation"] for name in prepared.owners[corpus]}
    able = {
        task.name: task
        for task in prepared.tasks
        if task.name in scored
        and (task.kind.annotation in WITH_PROBABILITIES or (task.kind.annotation == "match" and task.name in accuracy))
    }
    faults = Faults()
    for name in [*(names or ()), *outside, *accuracy]:
        if name not in able:
            allowed = listed(able, 40)
            faults.add(
                f"{name} cannot be calibrated",
                key="--tasks",
                allowed=f"with probabilities and validation data: {allowed}",
            )
    for name in [*outside, *accuracy]:
        silent = ("label",) if name in outside else ("label", "match")
        key = "--out-of-scope" if name in outside else "--accuracy"
        if name in able and able[name].kind.annotation not in silent:
            faults.add(f"{name} ({able[name].head}) cannot abstain", key=key, allowed="a task of one label")
        if names is not None and name not in names:
            faults.add(f"{name} is not among --tasks", key=key, allowed=listed(names))
    for name, label in outside.items():
        if name in able and label not in (able[name].labels or ()):
            faults.add(f'found "{label}"', key=f"--out-of-scope {name}", allowed=listed(able[name].labels or (), 40))
        if name in accuracy:
            faults.add(f"{name} has --out-of-scope too", key=f"--accuracy {name}", cure="choose one of them")
    for name, share in accuracy.items():
        if not 0 < share <= 1:
            faults.add(f"found {share}", key=f"--accuracy {name}", allowed="above 0, at most 1")
    if not able:
        faults.add("no task has probabilities and validation data", key="--tasks")
    faults.check()
    return [task for name, task in able.items() if names is None or name in names]


def _replace(prepared: Prepared, found: Mapping[str, Calibration | None]) -> None:
    """Give the tasks another calibration to be scored with."""
    prepared.tasks = [
        task.model_copy(update={"calibration": found[task.name]}).placed(task._source, task.base)
        if task.name in found
        else task
        for task in prepared.tasks
    ]


def tune(
    kind: Head, outputs: Outputs, *, outside: str | None = None, accuracy: float | None = None, thresholds: bool = True
) -> tuple[Calibration, TaskReport]:
    """One task's calibration, and what it does to loss and calibration error (its metrics are scored by the caller)."""
    found = best_temperature(lambda temperature: outputs.loss(kind, temperature))
    if found is None:
        highest = outputs.loss(kind, TEMPERATURES[1]) < outputs.loss(kind, 1.0)
        why = "the answers are no better than chance" if highest else "no wrong answer, or too few"
        logger.warning("%s: validation does not tell a temperature (%s): left at 1", kind.task.name, why)
    temperature = 1.0 if found is None else found
    calibration = Calibration(temperature=temperature)
    plain, scaled = (decisions(kind, outputs, t) for t in (1.0, temperature))
    report = TaskReport(
        len(plain[0]),
        temperature,
        (outputs.loss(kind, 1.0), outputs.loss(kind, temperature)),
        (expected_calibration_error(*plain), expected_calibration_error(*scaled)),
    )
    if kind.task.kind.annotation == "labels" and thresholds:
        calibration.thresholds = report.thresholds = _thresholds(kind, outputs, temperature)
    if outside is not None or accuracy is not None:
        calibration.abstain, report.answered = _abstention(kind, outputs, temperature, outside, accuracy)
        report.abstain = None if calibration.abstain is None else calibration.abstain.model_dump()
    return calibration, report


def _tune_retrieval(
    model: MultiTaskModel, prepared: Prepared, task: Task, accuracy: float, batch: int
) -> tuple[Calibration, TaskReport]:
    """The threshold of a retrieval: cosines are no probabilities, so that is all there is to tune."""
    scores, right = nearest_of(model, prepared, task, batch)
    abstain, answered = _threshold(task.name, answering_threshold(scores, right, accuracy), scores, right, accuracy)
    report = TaskReport(len(scores), 1.0, None, None, abstain=abstain.model_dump() if abstain else None)
    report.answered = answered
    return Calibration(abstain=abstain), report


def _threshold(
    name: str, threshold: float | None, confidence: Any, right: Any, accuracy: float
) -> tuple[Abstain | None, float]:
    """(what to store, the share of texts that are answered) for a threshold that keeps so many answers right.

    Raises:
        FaultyInput: no threshold does.
    """
    told = f"without a threshold {right.mean():.4f} of the answers are right"
    if threshold is None:
        if right.mean() < accuracy:
            found = f"no threshold reaches {accuracy} on validation ({told})"
            raise fault(found, key=f"--accuracy {name}", cure="ask for less")
        logger.warning("%s: does not abstain: %s", name, told)
        return None, 1.0
    threshold = _inside(threshold)
    return Abstain(threshold=threshold), float((confidence >= threshold).mean())


def _inside(value: float) -> float:
    """A threshold that the schema takes."""
    return min(max(value, EDGE), 1 - EDGE)


def _thresholds(kind: Head, outputs: Outputs, temperature: float) -> dict[str, float]:
    labels = torch.cat(outputs.labels)
    known = ~labels.isnan().any(-1)
    probabilities = (torch.cat(outputs.logits)[known] / temperature).sigmoid().double().numpy()
    found = label_thresholds(probabilities, labels[known].long().numpy())
    return {label: _inside(value) for label, value in zip(kind.task.labels or (), found, strict=True)}


def _abstention(
    kind: Head, outputs: Outputs, temperature: float, outside: str | None, accuracy: float | None
) -> tuple[Abstain | None, float]:
    """(what to store, the share of texts that get a likeliest label as their answer)."""
    confidence, right = decisions(kind, outputs, temperature)
    if outside is not None:
        gold = torch.cat(outputs.labels)
        place = list(kind.task.labels or ()).index(outside)
        threshold = out_of_scope_threshold(confidence, right, (gold[gold != losses.IGNORE] == place).numpy())
        told = f"no threshold finds more texts of {outside} than it loses of others"
    else:
        assert accuracy is not None
        threshold = answering_threshold(confidence, right, accuracy)
        return _threshold(kind.task.name, threshold, confidence, right, accuracy)
    if threshold is None:
        logger.warning("%s: does not abstain: %s", kind.task.name, told)
        return None, 1.0
    threshold = _inside(threshold)
    return Abstain(threshold=threshold, label=outside), float((confidence >= threshold).mean())


def _write(
    folder: Path,
    tasks: Sequence[Task],
    found: Mapping[str, Calibration],
    scores: dict[str, dict[str, float]],
    reports: Mapping[str, TaskReport],
) -> None:
    def change(path: Path) -> None:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        for record in config["tasks"]:
            if record["name"] in found:
                record["calibration"] = found[record["name"]].model_dump(exclude_none=True)
        write_json(path / CONFIG, config)
        data = json.loads((path / METRICS).read_text(encoding="utf-8")) if (path / METRICS).is_file() else {}
        known = (data.get("validation") or {}) | scores
        records = [Task.model_validate(record) for record in config["tasks"]]
        told = (data.get("calibration") or {}) | {name: report.to_dict() for name, report in reports.items()}
        write_json(
            path / METRICS,
            data | {"validation": known, "mean": mean_of_primary(records, known), "calibration": told},
        )
        write_card(path)

    rewrite_folder(folder, change)
