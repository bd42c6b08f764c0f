"""Facts → Markdown: the numbers of the page as tables, to be read in a terminal or pasted into an issue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .compared import compared
from .facts import ERROR_TYPES, ComparisonReport, InterferenceReport, Mistake, Report, RunReport, Table, TaskReport
from .svg import number

MISTAKES = 5
CELLS = 144  # of a table that is written out


def markdown(report: Report) -> str:
    """The whole report."""
    lines = [f"# {plain(report.title)}", "", f"Made {report.made} by mtl-nlp {report.version}.", ""]
    for found in report.comparisons:
        lines += _comparison(found)
    for run in report.runs:
        lines += _run(run)
    for measured in report.interferences:
        lines += _interference(measured)
    return "\n".join(lines).rstrip() + "\n"


def plain(text: Any) -> str:
    """Text that Markdown takes for text: nothing in it is markup, a link or a new line."""
    marks = {ord(char): f"\\{char}" for char in "\\`*_{}[]<>#|!~"}
    return " ".join(str(text).split()).replace("&", "&amp;").translate(marks)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], numbers: int = 1) -> list[str]:
    """A table; the columns from `numbers` on are set right."""
    rule = ["---" if i < numbers else "---:" for i in range(len(columns))]
    head = [f"| {' | '.join(plain(name) for name in columns)} |", f"| {' | '.join(rule)} |"]
    return [*head, *(f"| {' | '.join(plain(cell) for cell in row)} |" for row in rows), ""]


def _comparison(found: ComparisonReport) -> list[str]:
    shown = compared(found)
    lines = [f"## Comparison {plain(found.name)}", "", *(f"- {plain(line)}" for line in shown.summary), ""]
    lines += [plain(shown.legend), ""] if shown.verdicts else []
    rows: list[Sequence[Any]]
    for block in shown.verdicts:
        columns = ["task", "metric", "single-task", "shared", "difference", "interval", "p (Holm)", "verdict"]
        rows = [(r.task, r.metric, r.single, r.variant, r.difference, r.interval, r.p, r.verdict) for r in block.rows]
        lines += [f"### {plain(block.title)}", "", *table(columns, rows, 2)]
    if shown.seeds:
        lines += [f"### Scores by seed, on {found.split}", ""]
        rows = [(block.title, name, mean, told) for block in shown.seeds for name, mean, _, told in block.rows]
        lines += table(["task", "variant", "mean", "seeds"], rows, 2)
    if shown.costs:
        rows = [(block.title, name, value, ratio) for block in shown.costs for name, value, ratio, _ in block.rows]
        lines += ["### Costs", "", *table(["", "variant", "value", "against single-task"], rows, 2)]
    if shown.groups:
        rows = [
            (block.title, by, value, count, single, variant, difference)
            for _, blocks in shown.groups
            for block in blocks
            for by, value, count, single, variant, difference, _ in block.rows
        ]
        columns = ["task and variant", "by", "group", "examples", "single-task", "shared", "difference"]
        lines += ["### Which examples changed", "", *table(columns, rows, 3)]
    return lines + _recipe(found.recipe) + _environment(found.environment)


def _run(run: RunReport) -> list[str]:
    lines = [f"## Run {plain(run.name)}", "", *(f"> {plain(note)}\n" for note in run.notes)]
    lines += table(["", ""], run.about, 2)
    rows: list[Sequence[Any]] = []
    for task in run.tasks:
        answers = task.answers
        ece = number(answers.reliability.ece) if answers and answers.reliability else "–"
        wrong = "–" if answers is None or answers.wrong is None else answers.wrong
        share = sum(value for _, value in task.share) / len(task.share) if task.share else None
        scored = number(task.scores.get(task.metric), 4)
        rows.append((task.name, task.metric, scored, answers.texts if answers else "–", wrong, ece, number(share)))
    if run.mean is not None:
        rows.append(("mean", "", number(run.mean, 4), "", "", "", ""))
    lines += table(["task", "metric", "validation", "texts", "wrong", "ECE", "mean share"], rows, 2)
    for task in run.tasks:
        lines += _task(task)
    if run.cosines is not None:
        lines += ["### Gradient cosines", "", *_numbers(run.cosines.mean, 2)]
    if run.vectors is not None:
        lines += ["### Task vectors, cosines", "", *_numbers(run.vectors, 2)]
    return lines + _recipe(run.recipe) + _environment(run.environment)


def _task(task: TaskReport) -> list[str]:
    answers = task.answers
    if answers is None:
        return []
    lines: list[str] = []
    if answers.spans is not None and answers.spans.by_type:
        spans = [(name, *(counts[error] for error in ERROR_TYPES)) for name, counts in answers.spans.by_type.items()]
        lines += ["Entities by what became of them:", "", *table(["type", *ERROR_TYPES], spans)]
    if answers.confusion is not None and (worst := answers.confusion.worst(10)):
        lines += [
            "Most frequent confusions:",
            "",
            *table(["reference", "prediction", answers.confusion.unit], worst, 2),
        ]
    if answers.labels:
        rows = [(o.label, number(o.precision), number(o.recall), number(o.f1), o.support) for o in answers.labels]
        lines += table(["label", "precision", "recall", "F1", "texts"], rows)
    if answers.worst:
        lines += ["Worst mistakes:", "", *(f"- {_mistake(one)}" for one in answers.worst[:MISTAKES]), ""]
    return [f"### {plain(task.name)}", "", *lines] if lines else []


def _mistake(found: Mistake) -> str:
    sure = f" ({100 * found.confidence:.1f} % sure)" if found.confidence is not None else ""
    if found.gold_marks or found.predicted_marks:
        said = [
            ", ".join(f"{' '.join(found.words[m.first : m.stop])} = {m.label}" for m in marks) or "none"
            for marks in (found.gold_marks, found.predicted_marks)
        ]
        text = " ".join(found.words[:60]) or " ".join(value for _, value in found.inputs)
        return f"{plain(text)} → reference: {plain(said[0])}; predicted: {plain(said[1])}{sure}"
    text = " ¦ ".join(value for _, value in found.inputs)
    return f"{plain(text)} → reference: {plain(found.gold)}; predicted: {plain(found.predicted)}{sure}"


def _interference(found: InterferenceReport) -> list[str]:
    groups = " | ".join(", ".join(group) for group in found.groups)
    lines = [f"## Interference {plain(found.name)}", "", f"Train together: {plain(groups)}.", ""]
    lines += ["Affinity (%): how much the column's loss falls when the row's task takes a step.", ""]
    return [*lines, *_numbers(found.affinity, 3), "Gradient cosines:", "", *_numbers(found.cosines, 2)]


def _numbers(found: Table, digits: int) -> list[str]:
    if len(found.rows) * len(found.columns) > CELLS:
        return [f"{len(found.rows)} × {len(found.columns)} values: see the page.", ""]
    rows = [[name, *(number(v, digits) for v in row)] for name, row in zip(found.rows, found.values, strict=True)]
    return table(["", *found.columns], rows)


def _recipe(text: str) -> list[str]:
    if not text:
        return []
    fence = "```"
    while fence in text:
        fence += "`"
    return ["### Recipe", "", f"{fence}yaml", text.rstrip(), fence, ""]


def _environment(rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["### Environment", "", *table(["", ""], rows, 2)] if rows else []
