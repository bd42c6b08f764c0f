"""A comparison as a page shows it: verdicts with intervals, scores a seed, costs, and the groups that changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from ..metrics.table import metric_info
from .facts import ComparisonReport, Result
from .strips import Span, axis, bar, dots, interval, signed_bar
from .svg import number, short, signed

GROUPS = 8
LEAST = 5  # examples of a group that is shown, where larger ones are there
WORDS = {"helps": "▲", "harms": "▼", "same": "●"}


@dataclass
class VerdictRow:
    """One task under one variant; texts ready to be shown."""

    task: str
    metric: str
    single: str
    variant: str
    difference: str
    interval: str
    drawing: Markup
    p: str
    verdict: str
    kind: str
    detectable: str = ""


@dataclass
class Block:
    """The tables of one variant, or of one task."""

    title: str
    note: str
    axis: Markup
    rows: list[Any] = field(default_factory=list)
    unit: str = ""


@dataclass
class Compared:
    """All of a comparison's tables; `groups` by variant."""

    summary: list[str]
    legend: str
    verdicts: list[Block]
    seeds: list[Block]
    costs: list[Block]
    groups: list[tuple[str, list[Block]]]


def scale_of(metric: str) -> tuple[float, str]:
    """What a metric's differences are multiplied by, and their unit: points where the metric ends at 1."""
    try:
        info = metric_info(metric)
    except Exception:  # noqa: BLE001 - a metric of the Hub, or of a plugin that is not here
        info = None
    bounded = info is not None and info.bounds.endswith("1]")
    return (100.0, "points") if bounded else (1.0, "")


def verdict_kind(verdict: str) -> str:
    """`helps`, `harms` or `same`, by the verdict's first word."""
    first = verdict.strip().lower()
    return "helps" if first.startswith("help") else "harms" if first.startswith("harm") else "same"


def compared(found: ComparisonReport) -> Compared:
    """Everything of a comparison."""
    names = ordered_variants(found)
    return Compared(
        summary=[summary(found, name) for name in names if any(r.variant == name for r in found.results)],
        legend=legend(found),
        verdicts=[verdicts(found, name) for name in names if any(r.variant == name for r in found.results)],
        seeds=[seed_scores(found, task) for task in found.tasks if any(s.task == task for s in found.scores)],
        costs=costs(found),
        groups=[
            (name, blocks)
            for name in names
            if (blocks := [b for r in _of(found, name) if (b := groups(r)) is not None])
        ],
    )


def ordered_variants(found: ComparisonReport) -> list[str]:
    """The chosen one first, single-task models last."""
    kinds = {variant["name"]: variant.get("kind") for variant in found.variants}
    names = list(dict.fromkeys([*kinds, *(result.variant for result in found.results)]))
    return sorted(names, key=lambda name: (kinds.get(name) == "single", name != found.chosen))


def colour(found: ComparisonReport, name: str) -> int:
    """A variant's colour: grey for single-task models; never that of harm."""
    kinds = {variant["name"]: variant.get("kind") for variant in found.variants}
    others = [one for one in ordered_variants(found) if kinds.get(one) != "single"]
    return SINGLE if name not in others else COLOURS[others.index(name) % len(COLOURS)]


COLOURS, SINGLE = (0, 2, 3, 4, 5, 7), 6


def in_order(found: ComparisonReport, names: list[str]) -> list[Result]:
    """Results by variant and task."""
    return sorted(
        found.results,
        key=lambda r: (names.index(r.variant), list(found.tasks).index(r.task) if r.task in found.tasks else 0),
    )


def _of(found: ComparisonReport, name: str) -> list[Result]:
    return [result for result in in_order(found, [name, *(r.variant for r in found.results)]) if result.variant == name]


def summary(found: ComparisonReport, name: str) -> str:
    """One sentence a variant."""
    results = _of(found, name)
    counts = {kind: sum(verdict_kind(r.verdict) == kind for r in results) for kind in WORDS}
    parts = [
        f"helps on {counts['helps']}" if counts["helps"] else "",
        f"harms on {counts['harms']}" if counts["harms"] else "",
        f"shows no difference at this size on {counts['same']}" if counts["same"] else "",
    ]
    said = ", ".join(part for part in parts if part)
    overall = next((one for one in found.overall if one.variant == name), None)
    scaled = [r.difference * scale_of(r.metric)[0] for r in results if scale_of(r.metric)[1]]
    mean = f" Mean difference over {len(scaled)} tasks: {signed(sum(scaled) / len(scaled))} points." if scaled else ""
    if overall is not None and len(scaled) == len(results):
        low, high = (None if v is None else 100 * v for v in (overall.low, overall.high))
        between = "" if low is None else f", interval [{signed(low)}, {signed(high)}]"
        mean = f" Mean over all tasks: {signed(100 * overall.difference)} points{between}."
    chosen = " (chosen on validation)" if name == found.chosen else ""
    return f"{name}{chosen}: of {len(results)} tasks it {said}.{mean}"


def verdicts(found: ComparisonReport, name: str) -> Block:
    """The forest: difference from the single-task model with its interval, a row a task."""
    results = _of(found, name)
    ends = [
        value * scale_of(r.metric)[0] for r in results for value in (r.low, r.difference, r.high) if value is not None
    ]
    span = Span.around(ends, zero=True)
    rows = []
    for r in results:
        factor, unit = scale_of(r.metric)
        low, high = (None if v is None else v * factor for v in (r.low, r.high))
        middle = r.difference * factor
        told = "–" if low is None or high is None else f"[{signed(low)}, {signed(high)}]"
        kind = verdict_kind(r.verdict)
        label = f"{r.task}: {signed(middle)} {unit}, interval {told}, {r.verdict}"
        rows.append(
            VerdictRow(
                r.task,
                r.metric,
                with_deviation(r.single_mean, r.single_deviation),
                with_deviation(r.mean, r.deviation),
                f"{signed(middle)}",
                told,
                interval(span, low, middle, high, kind, label),
                "–" if r.p_holm is None else p_value(r.p_holm),
                r.verdict,
                kind,
                ""
                if not r.detectable  # where no score varies nothing is known of chance
                else f"{number(r.detectable * factor, 2)} {unit} would be found".replace("  ", " "),
            )
        )
    mark = " · chosen on validation" if name == found.chosen else ""
    return Block(f"{name}{mark}", "", axis(span, "points"), rows)


def legend(found: ComparisonReport) -> str:
    """How to read the verdicts."""
    points = all(scale_of(r.metric)[1] for r in found.results)
    unit = "points (hundredths of the metric)" if points else "the unit of each metric, points where it ends at 1"
    return (
        f"Difference to the single-task models in {unit}, on {found.split}, {len(found.seeds)} seeds; to the right sharing is "
        "better. The line is the 95 % confidence interval; p is corrected over tasks (Holm). What would be found: the difference "
        "that a comparison of this size finds four times in five."
    )


def with_deviation(mean: float, deviation: float | None) -> str:
    """`0.8898 ± 0.0048`."""
    return number(mean, 4) + ("" if deviation is None else f" ± {number(deviation, 4)}")


def p_value(p: float) -> str:
    """`0.031`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def seed_scores(found: ComparisonReport, task: str) -> Block:
    """A row a variant, a dot a seed; the scale is the task's own."""
    scores = [score for score in found.scores if score.task == task]
    span = Span.around([score.value for score in scores])
    rows, names = [], ordered_variants(found)
    for name in names:
        mine = [(f"seed {score.seed}", score.value) for score in scores if score.variant == name]
        if mine:
            mean = sum(value for _, value in mine) / len(mine)
            told = ", ".join(f"{seed} {value:.4f}" for seed, value in mine)
            rows.append(
                (name, number(mean, 4), dots(span, mine, colour(found, name), f"{name} on {task}: {told}"), told)
            )
    metric = str(found.tasks[task].get("metric", ""))
    return Block(task, metric, axis(span, metric), rows)


COSTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("inference_ratio", "Inference, time a text with all tasks (separate models = 1)", lambda v: number(v, 2)),
    (
        "texts_per_second",
        "Inference, texts a second with all tasks (more is better)",
        lambda v: number(v, 0 if v >= 100 else 1),
    ),
    ("encoder_tokens", "Training, tokens through the encoder", short),
    ("minutes", "Training, minutes", lambda v: number(v, 1)),
    ("parameters", "Parameters to store", short),
    ("bytes", "Size on disk, MB", lambda v: number(v / 1e6, 1)),
)


def costs(found: ComparisonReport) -> list[Block]:
    """A block a kind of cost, a bar a variant, and how many times as much as the single-task models."""
    names = ordered_variants(found)
    singles = {variant["name"] for variant in found.variants if variant.get("kind") == "single"}
    blocks = []
    for key, title, shown in COSTS:
        known = {cost.variant: cost.values[key] for cost in found.costs if key in cost.values}
        if not known:
            continue
        base = next((value for name, value in known.items() if name in singles), None)
        most = max(known.values()) or 1.0
        rows = []
        for name in names:
            if name in known:
                ratio = f"{known[name] / base:.2f} ×" if base else "–"
                label = f"{name}: {shown(known[name])}, {ratio} the single-task models"
                rows.append(
                    (name, shown(known[name]), ratio, bar(known[name] / most, f"k{colour(found, name)}", label))
                )
        blocks.append(Block(title, "", Markup(""), rows))
    return blocks


def groups(result: Result) -> Block | None:
    """The groups of examples that changed most."""
    known = [group for group in result.groups if group.difference is not None]
    large = [group for group in known if group.rows >= LEAST] or known
    kept = sorted(large, key=lambda group: -abs(group.difference or 0.0))[:GROUPS]
    kept = sorted((group for group in kept if group.difference), key=lambda group: -(group.difference or 0.0))
    if not kept:
        return None
    factor, unit = scale_of(result.metric)
    span = Span.around([(group.difference or 0.0) * factor for group in kept], zero=True)
    rows = []
    for group in kept:
        value = (group.difference or 0.0) * factor
        label = f"{group.by} {group.value}, {group.rows} examples: {signed(value, 1)} {unit}"
        scores = tuple("–" if v is None else number(v, 3) for v in (group.single, group.variant))
        shown = signed(value, 1) + ("*" if group.changed else "")
        rows.append((group.by, group.value, group.rows, *scores, shown, signed_bar(span, value, label)))
    hidden = len(known) - len(kept)
    note = f"{hidden} other groups changed less or have fewer than {LEAST} examples." if hidden else ""
    if any(group.changed for group in kept):
        note = f"* changed by more than chance. {note}".strip()
    return Block(f"{result.task} · {result.variant}", note, axis(span, unit), rows, unit)
