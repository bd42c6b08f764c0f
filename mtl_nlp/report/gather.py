"""Folders → facts: which kind each is, and reading a training run. Nothing is trained here; missing predictions may be made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import FaultyInput, UserError, fault
from ..hub.facts import Facts, facts_of, plain
from ..kinds import HEADS, head_kind
from ..model.files import CONFIG, HISTORY, METRICS, read_json
from ..recipe import RESOLVED
from ..schema import read_yaml
from ..version import VERSION
from .answers import answers_of
from .comparison import COMPARISON, read_comparison
from .facts import Points, Report, Rows, RunReport, TaskReport
from .interference import INTERFERENCE, read_cosines, read_interference
from .lines import PREDICTIONS, prediction_file, read_lines
from .vectors import task_vectors

SPLITS = ("train", "validation", "test")
Say = Callable[[str], None]


def gather(
    folders: Sequence[Path],
    *,
    split: str = "validation",
    predict: bool = True,
    data_root: Path | None = None,
    say: Say = lambda line: None,
) -> Report:
    """Everything that the folders hold.

    Args:
        split: of a run's predictions; read if they are there.
        predict: make predictions that are missing, with the run's model.
        data_root: as for `train`, for predictions that are made.
        say: is told what is being done.

    Raises:
        UserError: folders of another kind (all of them named), or a file in one that cannot be read.
    """
    if split not in SPLITS:
        raise fault(f'found "{split}"', key="--split", allowed=", ".join(SPLITS))
    kinds = kinds_of(folders)
    names = distinct_names(folders)
    report = Report(
        title=_title(names), made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), version=VERSION
    )
    for number, (folder, kind, name) in enumerate(zip(folders, kinds, names, strict=True), 1):
        say(f"[{number}/{len(folders)}] {kind} {folder}")
        if kind == "comparison":
            report.comparisons.append(read_comparison(folder, name))
            shown = example_run(folder, report.comparisons[-1].variants)
            if shown is not None:
                report.runs.append(read_run(shown, f"{name}: {shown.name}", split=split, predict=False, say=say))
        elif kind == "interference":
            report.interferences.append(read_interference(folder, name))
        else:
            report.runs.append(read_run(folder, name, split=split, predict=predict, data_root=data_root, say=say))
    return report


def kinds_of(folders: Sequence[Path]) -> list[str]:
    """What each folder is: `run`, `comparison` or `interference`.

    Raises:
        UserError: any that is none of them.
    """
    faults, kinds = [], []
    for folder in folders:
        files = {COMPARISON: "comparison", INTERFERENCE: "interference", CONFIG: "run"}
        found = next((kind for name, kind in files.items() if (folder / name).is_file()), None)
        kinds.append(found or "")
        if found is None:
            what = (
                "no such folder"
                if not folder.is_dir()
                else "neither a run, nor a comparison, nor an interference measurement"
            )
            allowed = f"a folder with {CONFIG} (`train`), {COMPARISON} (`compare`) or {INTERFERENCE} (`interference`)"
            cure = _unfinished(folder)
            faults += fault(what, where=str(folder), allowed=allowed, cure=cure).faults
    if faults:
        raise FaultyInput(faults)
    return kinds


def _unfinished(folder: Path) -> str:
    if folder.is_dir() and any(folder.glob("checkpoint-*")):
        return "the run is not finished: `mtl-nlp train … --resume` goes on, or name one of its checkpoint-N folders"
    return ""


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    whole = [folder.resolve() for folder in folders]
    for parts in range(1, 6):
        names = ["/".join(path.parts[-parts:]) for path in whole]
        if len(set(names)) == len(names):
            break
    return [plain(name) for name in names]


def _title(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def example_run(folder: Path, variants: Sequence[Mapping[str, Any]]) -> Path | None:
    """The run of a comparison that is shown in full: of the chosen variant, else the first joint one, its first seed."""
    names = [v["name"] for v in variants if v.get("chosen") and v.get("kind") != "single"]
    names += [v["name"] for v in variants if v.get("kind") in ("joint", "variant")]
    for name in names:
        for run in sorted((folder / "runs").glob(f"{name}-*")) if re.fullmatch(r"[\w.+@-]+", str(name)) else []:
            if (run / CONFIG).is_file() and re.fullmatch(r"\d+", run.name.removeprefix(f"{name}-")):
                return run
    return None


def read_run(
    folder: Path,
    name: str,
    *,
    split: str = "validation",
    predict: bool = True,
    data_root: Path | None = None,
    say: Say = lambda line: None,
) -> RunReport:
    """A training run: its log, its answers on a split, its recipe and environment."""
    weighty = any(folder.glob("*.safetensors"))
    facts, config = facts_of(folder, weights=weighty), read_json(folder / CONFIG)
    log, environment = read_history(folder)
    scores = read_json(folder / METRICS) if (folder / METRICS).is_file() else {}
    tasks = [
        _task(record, facts, scores.get("validation") or {}) for record in config["tasks"] if isinstance(record, dict)
    ]
    run = RunReport(name=plain(name), folder=plain(folder.name), tasks=tasks, about=about(facts), mean=facts.mean)
    run.steps = facts.run.get("steps") if isinstance(facts.run.get("steps"), int) else None
    if log:
        read_curves(run, log)
    else:
        run.notes.append(
            "There is no history of the training: the run wrote neither history.json nor a checkpoint-N folder. "
            "Runs of this version of mtl-nlp write it."
        )
    run.cosines, run.vectors = read_cosines(folder), task_vectors(folder) if weighty else None
    run.environment = [(plain(key), _value(value)) for key, value in environment.items()] or [
        (key, _value(value)) for key, value in facts.versions.items() if value
    ]
    run.recipe = shown_recipe(folder / RESOLVED)
    read_answers(run, folder, split, predict=predict, data_root=data_root, say=say)
    return run


def _task(record: Mapping[str, Any], facts: Facts, scores: Mapping[str, Any]) -> TaskReport:
    name, head = plain(record.get("name")), plain(record.get("head"))
    known = HEADS.names()
    kind = head_kind(head) if head in known else None
    told = next((task for task in facts.tasks if task.name == name), None)
    metrics = record.get("metrics") or (list(kind.default_metrics) if kind else list(scores.get(name) or {}))
    values = {key: float(value) for key, value in (scores.get(name) or {}).items() if isinstance(value, int | float)}
    return TaskReport(
        name=name,
        head=head,
        annotation=kind.annotation if kind else "none",
        labels=told.labels if told else [],
        metric=plain(metrics[0]) if metrics else "",
        scheme="none" if record.get("scheme") == "none" else "iob2",
        scores=values,
    )


def read_history(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The lines of a run's log and its environment; of a run without `history.json` those of its newest checkpoint-N."""
    if (folder / HISTORY).is_file():
        found = read_json(folder / HISTORY)
        return [line for line in found.get("log") or [] if isinstance(line, dict)], dict(found.get("environment") or {})
    states = [folder / "trainer_state.json", *folder.glob("checkpoint-*/trainer_state.json")]
    states = sorted((path for path in states if path.is_file()), key=lambda path: _number(path.parent.name))
    if not states:
        return [], {}
    found = read_json(states[-1])
    return [line for line in found.get("log_history") or [] if isinstance(line, dict)], {}


def _number(name: str) -> int:
    found = re.search(r"\d+$", name)
    return int(found.group()) if found else -1


def read_curves(run: RunReport, log: Sequence[Mapping[str, Any]]) -> None:
    """Each task's curves, from the lines of the log."""
    run.rates = _series(log, "learning_rate")
    for task in run.tasks:
        task.loss = _series(log, f"loss_{task.name}")
        task.share = _series(log, f"share_{task.name}")
        task.weight = _series(log, f"weight_{task.name}")
        task.gradient_weight = _series(log, f"gradient_weight_{task.name}")
        task.score = _series(log, f"eval_{task.name}_{task.metric}")


def _series(log: Sequence[Mapping[str, Any]], key: str) -> Points:
    """(step, value); a step that was done twice, before and after a resume, counts as it was done last."""
    found: dict[float, float] = {}
    for line in log:
        step, value = line.get("step"), line.get(key)
        if isinstance(step, int | float) and isinstance(value, int | float) and value == value:
            found[float(step)] = float(value)
    return sorted(found.items())


def read_answers(run: RunReport, folder: Path, split: str, *, predict: bool, data_root: Path | None, say: Say) -> None:
    """Each task's answers, from files of predictions; those that are missing are made, or a note says how."""
    scored = [task for task in run.tasks if task.annotation != "none"]
    absent = [task for task in scored if not prediction_file(folder, split, task.name).is_file()]
    reason = ""
    if absent and predict:
        say(f"{folder}: predictions on {split} for {len(absent)} tasks")
        reason = _make_predictions(folder, split, data_root)
    for task in scored:
        path = prediction_file(folder, split, task.name)
        if path.is_file():
            say(f"{path}")
            task.answers = answers_of(read_lines(path), task.annotation, task.labels, split, task.scheme)
        else:
            task.missing = reason or f"There are no predictions on {split} ({PREDICTIONS}/{path.name})."
    if any(task.missing for task in scored):
        missing = [task.name for task in scored if task.missing]
        run.notes.append(
            f"Without predictions on {split}: {', '.join(missing[:8])}{' and others' if len(missing) > 8 else ''}. "
            f"{reason} `mtl-nlp report` makes them where it finds the run's data; --data-root says where it is.".strip()
        )


def _make_predictions(folder: Path, split: str, data_root: Path | None) -> str:
    """Nothing if it went well, else the reason."""
    from ..training.predictions import write_predictions

    try:
        write_predictions(folder, split, data_root)
    except UserError as error:
        return without_paths(str(error).splitlines()[0])
    return ""


def about(facts: Facts) -> Rows:
    """A run in a few rows."""
    run, recipe = facts.run, facts.recipe
    mixture, balancing = recipe.get("mixture") or {}, recipe.get("balancing") or {}
    training = recipe.get("training") or {}
    rows: list[tuple[str, Any]] = [
        ("Encoder", f"{facts.encoder} ({facts.architecture})" if facts.encoder else facts.architecture),
        (
            "Parameters",
            f"{facts.parameters:,}, of them {facts.encoder_parameters:,} in the encoder" if facts.bytes else None,
        ),
        ("Weights", f"{facts.bytes / 1e6:.1f} MB, {facts.dtype}" if facts.bytes else None),
        ("Steps", run.get("steps")),
        ("Training time", duration(run.get("seconds"))),
        ("Mixture", mixture.get("strategy")),
        ("Batch", f"{mixture['batch']} texts" if mixture.get("batch") else None),
        ("Learning rate", training.get("learning_rate")),
        ("Loss weighting", _method(balancing.get("weighting"))),
        ("Gradients", _method(balancing.get("gradients"))),
        ("Seed", recipe.get("seed")),
        ("Recipe fingerprint", facts.fingerprint),
    ]
    return [(key, _value(value)) for key, value in rows if value not in (None, "")]


def _method(value: Any) -> Any:
    return value.get("name") if isinstance(value, dict) else value


def duration(seconds: Any) -> str | None:
    """`72 s`, `12 min`, `3 h 20 min`."""
    if not isinstance(seconds, int | float):
        return None
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_value(one) for one in value)
    return plain(value) if isinstance(value, str) else str(value)


def shown_recipe(path: Path) -> str:
    """A recipe's text, without the paths of this machine."""
    return without_paths(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else ""


# An absolute path: at the beginning of a word, two parts or more, of POSIX or with a drive letter.
PATH = re.compile(r"(?<![\w./:~\\-])(?:/[^\s/'\"\[\]{},:]+(?:/[^\s/'\"\[\]{},:]*)+|[A-Za-z]:\\[^\s'\"\[\]{},]+)")


def without_paths(text: str) -> str:
    """Absolute paths by their last part, as `…/train.jsonl`: a report may be passed on."""

    def last(match: re.Match[str]) -> str:
        return "…/" + match.group().replace("\\", "/").rstrip("/").split("/")[-1]

    return PATH.sub(last, text)


def recipe_data(path: Path) -> dict[str, Any]:
    """A resolved recipe as data; empty if there is none."""
    found = read_yaml(path, "resolved recipe")[0] if path.is_file() else {}
    return found if isinstance(found, dict) else {}
