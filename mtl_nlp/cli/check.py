"""`check`: everything that can be known of a run before its first step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import app, quieten_loading
from .train import AsJson, DataRoot, Recipe, Sets

if TYPE_CHECKING:
    from ..data.checks import CorpusReport, DataReport, SplitReport
    from ..data.label_balance import Drift, SplitLabels, TaskBalance
    from ..data.mixture import CorpusDraws
    from ..training.probe import Estimate, RunPlan

LONG_LIST, TOP = 12, 5


@app.command()
def check(
    recipe: Recipe,
    sets: Sets = None,
    data_root: DataRoot = None,
    json: AsJson = False,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Leave out the estimate of time and memory.")] = False,
) -> None:
    """Read a recipe and its data, say what they hold and what the run will do; exit 1 if something is found wanting."""
    from ..recipe import load_recipe

    loaded = load_recipe(recipe, sets or ())
    from ..data.checks import check_data
    from ..training.prepare import prepare
    from ..training.probe import estimate, plan_run
    from . import show

    quieten_loading()
    prepared = prepare(loaded, data_root=data_root)
    if loaded.distil is not None:
        from ..training.teachers import open_teachers

        open_teachers(loaded.distil.teachers, {task.name: task for task in prepared.tasks}, prepared)
    plan = plan_run(prepared)
    report = check_data(prepared.corpora, prepared.encoded)
    cost = None if no_probe else estimate(prepared, plan)
    clean = not any(finding.wanting for finding in report.findings)
    if json:
        found = report.to_dict()
        warnings = found.pop("warnings")
        run = {"run": plan.to_dict(), "estimate": cost.to_dict() if cost else None}
        show.as_json({"recipe": recipe, **found, **run, "warnings": warnings, "clean": clean})
    else:
        render(report, plan, cost)
    if not clean:
        raise typer.Exit(1)


def render(report: DataReport, plan: RunPlan, cost: Estimate | None) -> None:
    """The whole report for people, on stdout."""
    _sizes(report.corpora)
    for task in report.tasks:
        _labels(task)
    _texts(report)
    _lengths(report.corpora, plan.max_length)
    _run(plan)
    if cost is not None:
        _cost(plan, cost)
    _findings(report)


def _splits(corpora: list[CorpusReport]) -> list[tuple[CorpusReport, str, SplitReport]]:
    return [
        (corpus, corpus.name if i == 0 else "", split)
        for corpus in corpora
        for i, split in enumerate(corpus.splits.values())
    ]


def _sizes(corpora: list[CorpusReport]) -> None:
    from . import show

    rows = []
    for _, name, split in _splits(corpora):
        missing = ", ".join(f"{task} {count}" for task, count in split.missing.items() if count)
        skipped = ", ".join(f"{task} {values.count}" for task, values in split.skipped.items())
        shown = f"{split.split} (carved)" if split.carved else split.split
        left_out = [split.filtered or "", split.unannotated or ""]
        rows.append([name, shown, split.texts, *left_out, missing, skipped, split.blank_lines_kept or ""])
    columns = ["corpus", "split", "texts", "filtered out", "not annotated", "missing", "unreadable", "blank lines kept"]
    show.table("Corpora", *_without_empty(columns, rows, keep=3))
    for corpus in corpora:
        for note in corpus.notes:
            typer.echo(f"{corpus.name}: {note}")
        for split in corpus.splits.values():
            for task, values in split.skipped.items():
                typer.echo("\n".join(f"{task} ({split.split}): {example}" for example in values.examples))


def _labels(task: TaskBalance) -> None:
    from . import show

    if all(not split.counts and not len(split.values) for split in task.splits.values()):
        return
    columns = ["", *task.splits]
    rows = _label_rows(task)
    splits = list(task.splits.values())
    rows += [
        ["annotated texts", *(split.annotated for split in splits)],
        ["unit", *(split.unit for split in splits)],
        ["most frequent", *(_named(split.most) for split in splits)],
        ["least frequent", *(_named(split.least) for split in splits)],
        ["imbalance ratio", *(_ratio(split.imbalance) for split in splits)],
        ["drift from train", *(_drift(task.drift.get(split.split)) for split in splits)],
    ]
    show.table(f"{task.task} ({task.head})", columns, [row for row in rows if any(cell != "" for cell in row[1:])])


def _label_rows(task: TaskBalance) -> list[list[Any]]:
    splits = list(task.splits.values())
    if any(len(split.values) for split in splits):
        sums = [split.summary() or {} for split in splits]
        return [[name, *(summary.get(name) for summary in sums)] for name in ("mean", "sd", "min", "max")]
    names = sorted(splits[0].counts, key=lambda name: -splits[0].counts[name])
    names += [name for split in splits[1:] for name in split.counts if name not in splits[0].counts]
    rows = [[name, *(_count(split, name) for split in splits)] for name in dict.fromkeys(names)]
    if len(rows) > LONG_LIST:
        between = [f"… {len(rows) - 2 * TOP} more labels", *("…" for _ in splits)]
        rows = [*rows[:TOP], between, *rows[-TOP:]]
    unknown = [sum(label.count for label in split.unknown) for split in splits]
    return [*rows, ["unknown labels", *unknown]] if any(unknown) else rows


def _count(split: SplitLabels, label: str) -> str:
    from ..data.checks import percent

    count = split.counts.get(label, 0)
    return f"{count} ({percent(split.share(label))})" if count else "0"


def _named(label: tuple[str, int] | None) -> str:
    return "" if label is None else f"{label[0]} ({label[1]})"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _drift(drift: Drift | None) -> str:
    if drift is None:
        return ""
    small = f", small split: chance {drift.chance:.2f}" if drift.small else ""
    return f"{drift.distance:.3f}{' (!)' if drift.flagged else ''}{small}"


def _texts(report: DataReport) -> None:
    from . import show

    rows = [[name, split.split, split.empty, split.repeats] for _, name, split in _splits(report.corpora)]
    show.table(
        "Texts (compared without case and white space)", ["corpus", "split", "empty", "repeated in the split"], rows
    )
    if not report.leaks:
        typer.echo("No text of a validation or test split stands in a training split.")
        return
    from ..data.checks import percent

    leaks = [[leak.corpus, leak.split, leak.train_corpus, leak.texts, percent(leak.share)] for leak in report.leaks]
    show.table(
        "Texts that stand in a training split too", ["corpus", "split", "trained on in", "texts", "share"], leaks
    )
    for leak in report.leaks:
        for example in leak.examples:
            typer.echo(f'{example.where} = {example.train_where}: "{example.text}"')


def _lengths(corpora: list[CorpusReport], max_length: int) -> None:
    from . import show

    rows = []
    for _, name, split in _splits(corpora):
        sizes = split.lengths
        spans = [split.misaligned_spans, split.dropped_spans, split.words_without_tokens]
        tokens = [f"{sizes.mean:.1f}", f"{sizes.p95:.0f}", sizes.longest]
        rows.append([name, split.split, sizes.rows, *tokens, sizes.truncated, sizes.windowed, *spans])
    columns = ["corpus", "split", "rows", "mean", "95 %", "max", "truncated"]
    columns += ["in windows", "spans moved", "spans dropped", "words without token"]
    show.table(f"Tokens a row (max_length {max_length})", *_without_empty(columns, rows, keep=7))


def _without_empty(columns: list[str], rows: list[list[Any]], keep: int) -> tuple[list[str], list[list[Any]]]:
    """A table without the columns after the first `keep` that say nothing."""
    kept = [i for i in range(len(columns)) if i < keep or any(row[i] for row in rows)]
    return [columns[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _run(plan: RunPlan) -> None:
    from ..data.checks import some
    from . import show

    processes = some(plan.processes, "process", "processes")
    parts = f"{processes} × {plan.accumulation} accumulated × {plan.device_batch} a device"
    size = f"{plan.batch} texts = {parts}"
    if plan.max_tokens is not None:
        size = f"up to {plan.max_tokens} tokens, about {plan.batch} texts = {parts}"
    rows = [
        ["encoder", plan.encoder],
        ["mixture", f"{plan.strategy}, {plan.batching} batches"],
        ["batch", size],
        [
            "steps",
            f"{plan.steps} ({plan.steps_per_epoch} an epoch, {plan.epochs:.2f} epochs), {plan.draws} texts drawn",
        ],
        ["warm-up", f"{plan.warmup_steps} steps"],
        ["evaluations", f"{plan.evaluations} of {plan.validation_texts} texts, and one of the finished model"],
    ]
    show.table("The run", ["", "value"], rows)
    drawn = [[c.corpus, c.texts, _rate(c), c.draws, f"{c.passes:.2f}"] for c in plan.corpora]
    show.table("What it draws", ["corpus", "training texts", "rate", "draws", "passes"], drawn)
    for note in plan.notes:
        typer.echo(note)


def _rate(corpus: CorpusDraws) -> Any:
    return corpus.rate if corpus.last_rate is None else f"{corpus.rate:.4f} → {corpus.last_rate:.4f}"


def _cost(plan: RunPlan, cost: Estimate) -> None:
    from . import show

    memory = "unknown" if cost.peak_memory is None else f"{cost.peak_memory / 2**30:.2f} GiB"
    rows = [
        ["a step", f"{cost.step_seconds:.3f} s (median of {cost.steps})"],
        ["training", f"{duration(cost.training_seconds)} ({plan.steps} steps)"],
        ["an evaluation", f"{duration(cost.evaluation_seconds)} ({cost.texts_per_second:.0f} texts a second)"],
        ["in all", duration(cost.total_seconds)],
        ["peak memory", memory],
    ]
    show.table(f"Estimate, from a short probe on {cost.device}", ["", "estimate"], rows)


def duration(seconds: float) -> str:
    """`0.35 s`, `4.2 s`, `42 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _findings(report: DataReport) -> None:
    from ..data.checks import some

    if not report.findings:
        typer.echo("Nothing to look at.")
        return
    typer.echo(f"{some(len(report.findings), 'thing')} to look at:")
    for finding in report.findings:
        typer.echo(f"{'!' if finding.wanting else '-'} {finding.message}")
