"""Facts → the page: which charts a run has, and the template that holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from . import answer_charts, charts
from .charts import MOST_SERIES, Series
from .compared import compared
from .facts import InterferenceReport, Mark, Mistake, Report, RunReport, TaskReport
from .palette import css
from .svg import Chart, Ids, number

FILES = Path(__file__).parent / "page_files"
OPEN = 6  # tasks up to which all are shown unfolded
WORDS = 60  # of a mistake
PAIRS = 5  # whose cosines are drawn over time


@dataclass
class Piece:
    """A stretch of words of a mistake; `label` is the entity's type, "" outside."""

    text: str
    label: str = ""


@dataclass
class MistakeView:
    """A mistake as the page shows it."""

    found: Mistake
    confidence: str = ""
    gold: list[Piece] = field(default_factory=list)
    predicted: list[Piece] = field(default_factory=list)


@dataclass
class TaskView:
    """One task's charts and mistakes."""

    task: TaskReport
    key: str
    curves: list[Chart] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    mistakes: list[MistakeView] = field(default_factory=list)


@dataclass
class RunView:
    """One run's charts."""

    run: RunReport
    key: str
    tasks: list[TaskView]
    unfolded: bool
    training: list[Chart] = field(default_factory=list)
    interference: list[Chart] = field(default_factory=list)


def html(report: Report) -> str:
    """The page.

    Everything that comes from data or names is escaped, by the template or by the charts.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    ids = Ids()
    environment = Environment(
        loader=FileSystemLoader(FILES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = number
    runs = [run_view(run, f"run-{i}", ids) for i, run in enumerate(report.runs, 1)]
    return environment.get_template("report.html").render(
        report=report,
        runs=runs,
        table=side_by_side(report.runs) if len(report.runs) > 1 else [],
        comparisons=[(f"comparison-{i}", found, compared(found)) for i, found in enumerate(report.comparisons, 1)],
        interferences=[
            (f"interference-{i}", found, measured(found, ids)) for i, found in enumerate(report.interferences, 1)
        ],
        style=Markup(css() + (FILES / "style.css").read_text(encoding="utf-8")),
        script=Markup((FILES / "script.js").read_text(encoding="utf-8")),
    )


def run_view(run: RunReport, key: str, ids: Ids) -> RunView:
    """A run's charts, task by task and of all tasks."""
    tasks = [task_view(task, f"{key}-task-{i}", ids) for i, task in enumerate(run.tasks, 1)]
    return RunView(
        run,
        key,
        tasks,
        len(tasks) <= OPEN,
        training=training_charts(run, ids),
        interference=interference_charts(run, ids),
    )


def task_view(task: TaskReport, key: str, ids: Ids) -> TaskView:
    """Curves, what goes wrong, and how sure it is."""
    view = TaskView(task, key)
    if task.loss:
        note = "Mean loss of the task's labelled units since the last line of the log."
        one = [Series(task.name, task.loss)]
        view.curves.append(charts.lines("Training loss", note, one, ids, y_label="loss", bounds=(0.0, None)))
    if task.score:
        best = max(task.score, key=lambda point: point[1])
        note = f"On validation. Best: {number(best[1], 4)} at step {best[0]:.0f}."
        one = [Series(task.name, task.score)]
        view.curves.append(
            charts.lines(f"Validation {task.metric}", note, one, ids, y_label=task.metric, dots=True, colour=2)
        )
    answers = task.answers
    if answers is None:
        return view
    if answers.confusion is not None and answers.confusion.counts:
        view.charts.append(answer_charts.confusion_matrix("Confusion matrix", answers.confusion, ids))
    if answers.spans is not None and answers.spans.by_type:
        view.charts.append(answer_charts.error_types("Entity errors", answers.spans, ids))
    if answers.labels:
        view.charts.append(answer_charts.label_bars("Labels", answers.labels, ids))
    if answers.numbers is not None:
        view.charts.append(answer_charts.scatter("Prediction and reference", answers.numbers, ids))
    if answers.reliability is not None:
        view.charts.append(answer_charts.reliability_diagram("Calibration", answers.reliability, ids))
    view.mistakes = [mistake_view(one) for one in answers.worst]
    return view


def mistake_view(found: Mistake) -> MistakeView:
    """A mistake with its entities marked in the text."""
    sure = ""
    if found.confidence is not None:
        sure = f"{100 * found.confidence:.1f} % sure"
    elif found.error is not None:
        sure = f"off by {number(found.error)}"
    return MistakeView(found, sure, pieces(found.words, found.gold_marks), pieces(found.words, found.predicted_marks))


def pieces(words: list[str], marks: list[Mark], most: int = WORDS) -> list[Piece]:
    """The words, cut where entities begin and end."""
    found, place = [], 0
    for mark in marks:
        if mark.first >= most:
            break
        if mark.first > place:
            found.append(Piece(" ".join(words[place : mark.first])))
        found.append(Piece(" ".join(words[mark.first : mark.stop]), mark.label))
        place = mark.stop
    if place < min(len(words), most):
        found.append(Piece(" ".join(words[place:most])))
    if len(words) > max(most, place):
        found.append(Piece("…"))
    return found


def training_charts(run: RunReport, ids: Ids) -> list[Chart]:
    """Shares, weights and learning rate over the run."""
    made = []
    share = [Series(task.name, task.share) for task in run.tasks if task.share]
    note = "A task's part of the labelled rows of a step: how much it counts in the loss, before weights."
    if share and len(share) <= MOST_SERIES:
        made.append(charts.shares("Effective share", note, share, ids))
    elif share:
        made.append(charts.over_time("Effective share", note, share, ids))
    weighted = [
        (
            "Loss weights",
            "By the loss weighting, on top of the share.",
            [Series(t.name, t.weight) for t in run.tasks if t.weight],
        ),
        (
            "Gradient weights",
            "What the gradient aggregator multiplied each task's gradient by.",
            [Series(t.name, t.gradient_weight) for t in run.tasks if t.gradient_weight],
        ),
    ]
    for title, told, series in weighted:
        if series and len(series) <= MOST_SERIES:
            made.append(charts.lines(title, told, series, ids, y_label="weight", height=230))
        elif series:
            made.append(charts.over_time(title, told, series, ids))
    if len(run.tasks) > OPEN:
        losses = [Series(task.name, task.loss) for task in run.tasks if task.loss]
        if losses:
            made.append(charts.over_time("Training loss of all tasks", "Darker is higher.", losses, ids))
    if run.rates:
        one = [Series("learning rate", run.rates)]
        made.append(
            charts.lines(
                "Learning rate", "As the trainer logs it.", one, ids, y_label="rate", bounds=(0.0, None), height=230
            )
        )
    return made


def interference_charts(run: RunReport, ids: Ids) -> list[Chart]:
    """Gradient cosines, and what lies close in a conditioned encoder."""
    made = []
    if run.cosines is not None:
        told = f"Mean of {run.cosines.notes} notes. Blue: the tasks pull the encoder the same way; orange: against each other."
        made.append(charts.heat("Gradient cosines", told, run.cosines.mean, ids, limit=1.0))
        if run.cosines.by_layer.rows:
            told = "The same by layer group, from the bottom of the encoder to its top; the pairs with the largest cosines."
            made.append(
                charts.heat("Gradient cosines by layer", told, run.cosines.by_layer, ids, limit=1.0, square=False)
            )
        pairs = sorted(charts.by_name(run.cosines.over_time), key=lambda one: -abs(one.points[-1][1]))[:PAIRS]
        if pairs and len(pairs[0].points) > 1:
            made.append(
                charts.lines(
                    "Gradient cosines over time",
                    "All layers; the pairs with the largest cosines at the end.",
                    pairs,
                    ids,
                    y_label="cosine",
                    dots=True,
                    height=230,
                )
            )
    if run.vectors is not None:
        told = "Cosines between what the encoder has learned of each task; blue: close."
        made.append(charts.heat("Task vectors", told, run.vectors, ids, limit=1.0))
    return made


def measured(found: InterferenceReport, ids: Ids) -> list[Chart]:
    """The heat maps of `mtl-nlp interference`."""
    others = [
        abs(value)
        for i, row in enumerate(found.affinity.values)
        for j, value in enumerate(row)
        if i != j and value is not None
    ]
    layers = [abs(value) for row in found.by_layer.values for value in row if value is not None]
    told = "How much the column's loss falls (%) when the row's task takes a step. Blue helps, orange harms."
    made = [
        charts.heat(
            "Affinity",
            told,
            found.affinity,
            ids,
            limit=max(others, default=0) or 1.0,
            x_label="loss of →",
            y_label="learned",
        ),
        charts.heat("Gradient cosines", "All layers, mean over the run.", found.cosines, ids, limit=1.0),
    ]
    if found.by_layer.rows:
        told = "Affinity (%) of each layer group, mean of both directions, the pairs with the largest."
        made.append(
            charts.heat(
                "Affinity by layer", told, found.by_layer, ids, limit=max(layers, default=0) or 1.0, square=False
            )
        )
        told = "Gradient cosines of each layer group, from the bottom of the encoder to its top."
        made.append(
            charts.heat("Gradient cosines by layer", told, found.cosines_by_layer, ids, limit=1.0, square=False)
        )
    return made


def side_by_side(runs: list[RunReport]) -> list[Any]:
    """(task, metric, a number a run, whether it is the best) of tasks that two runs or more have."""
    rows = []
    for name in dict.fromkeys(task.name for run in runs for task in run.tasks):
        found = [next((task for task in run.tasks if task.name == name), None) for run in runs]
        metric = next((task.metric for task in found if task is not None and task.metric), "")
        values = [task.scores.get(metric) if task is not None else None for task in found]
        known = [value for value in values if value is not None]
        if len(known) > 1:
            rows.append((name, metric, [(value, value == max(known)) for value in values]))
    return rows
