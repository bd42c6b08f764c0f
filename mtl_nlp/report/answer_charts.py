"""The charts of what a task answered: confusion matrices, reliability diagrams, error types, labels, scatter plots."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import escape

from .charts import LETTER_ROW, TABLE_ROWS, axes, heat
from .facts import ERROR_TYPES, Confusion, LabelScore, Numbers, Reliability, SpanErrors, Table
from .svg import WIDTH, Chart, Ids, Scale, box, cut, frame, line, n, number, short, text, ticks

LABELLED = 22  # labels that a matrix can name
NUMBERED = 12  # labels up to which cells hold their number


def confusion_matrix(title: str, found: Confusion, ids: Ids) -> Chart:
    """Rows are references, columns predictions; the colour is the share of the row, the number the count."""
    size = len(found.labels)
    totals = [found.row_total(i) for i in range(size)]
    counts = found.counts
    values: list[list[float | None]] = [
        [
            counts[i, j] / totals[i] if totals[i] and (i, j) in counts else (0.0 if size <= LABELLED else None)
            for j in range(size)
        ]
        for i in range(size)
    ]
    show = [[str(counts.get((i, j), 0)) for j in range(size)] for i in range(size)]
    table = Table(found.labels, found.labels, values)
    right = sum(count for (g, p), count in counts.items() if g == p)
    total = sum(counts.values())
    note = (
        f"Rows: reference. Columns: prediction. Numbers: {found.unit}; colour: share of the row. "
        f"{right} of {total} {found.unit} are right."
    )
    if size > LABELLED:
        note += " With so many labels the matrix shows where confusions lie; the table names the most frequent."
    worst = [[gold, predicted, str(count)] for gold, predicted, count in found.worst(TABLE_ROWS)]
    chart = heat(title, note, table, ids, top=1.0, show=show, rows=worst, x_label="prediction →")
    if size > NUMBERED:
        return Chart(title, note, chart.svg, ["reference", "prediction", found.unit], worst)
    rows = [[f"{name} (reference)", *show[i]] for i, name in enumerate(found.labels)]
    return Chart(title, note, chart.svg, ["", *found.labels], rows)


def reliability_diagram(title: str, found: Reliability, ids: Ids) -> Chart:
    """Share of right decisions against confidence, the diagonal, and below it how many decisions each bin has."""
    height = 282.0
    grid = axes((0.0, 1.0), [0, 0.25, 0.5, 0.75, 1.0], (40.0, 26.0, 346.0, 196.0), "", "share that is right")
    parts = list(grid.parts)
    parts.append(text(grid.x(1), 17, f"ECE {found.ece:.3f}", "end", "big"))
    most = max(one.count for one in found.bins)
    base, tall = 262.0, 34.0
    for one in found.bins:
        x, w = grid.x(one.low) + 0.8, grid.x(one.high) - grid.x(one.low) - 1.6
        told = (
            f"confidence {one.low:.2f} to {one.high:.2f}: {one.count} {found.unit}, "
            f"mean confidence {one.confidence:.3f}, right {one.right:.3f}"
        )
        y, ideal = grid.y(one.right), grid.y(one.confidence)
        gap = "over" if one.confidence > one.right else "under"
        parts.append(
            f'<g><title>{told}</title><path class="bar k0" d="{box(x, max(y, ideal), w, grid.y(0) - max(y, ideal))}"/>'
            f'<path class="gap {gap}" d="{box(x, min(y, ideal), w, abs(y - ideal))}"/></g>'
        )
        h = max(1.0, tall * one.count / most)
        parts.append(f'<path class="bar k6" d="{box(x, base - h, w, h)}"><title>{told}</title></path>')
    parts.append(line(grid.x(0), grid.y(0), grid.x(1), grid.y(1), "ideal"))
    parts.append(text(grid.x(0.5), base + 14, "confidence (below: how many decisions)", "middle", "name"))
    parts.append(line(40, base, 346, base, "axis"))
    side = "surer than it is right" if _overconfident(found) else "less sure than it is right"
    note = (
        f"Expected calibration error {found.ece:.4f} over {number(found.decisions, 0)} {found.unit}. "
        f"On average the model is {side}. Bars: share that is right; light orange: what is missing to the confidence; "
        "light blue: what is above it."
    )
    rows = [
        [f"{one.low:.2f}–{one.high:.2f}", str(one.count), f"{one.confidence:.3f}", f"{one.right:.3f}"]
        for one in found.bins
    ]
    columns = ["confidence", "decisions", "mean confidence", "share right"]
    return Chart(title, note, frame(parts, height, title, note, ids), columns, rows)


def _overconfident(found: Reliability) -> bool:
    return sum(one.count * (one.confidence - one.right) for one in found.bins) >= 0


ERROR_NAMES = {
    "correct": "correct",
    "boundary": "boundary",
    "type": "type",
    "both": "boundary and type",
    "missed": "missed",
    "spurious": "spurious",
}
ERROR_COLOURS = {"correct": 2, "boundary": 0, "type": 4, "both": 3, "missed": 1, "spurious": 6}
MOST_TYPES = 24


def error_types(title: str, found: SpanErrors, ids: Ids) -> Chart:
    """A bar an entity type, cut by what became of its entities."""
    ordered = sorted(found.by_type.items(), key=lambda item: -sum(item[1].values()))
    shown = ordered[:MOST_TYPES]
    left = min(128.0, 10 + LETTER_ROW * max((len(name) for name, _ in shown), default=1))
    most = max((sum(counts.values()) for _, counts in shown), default=1) or 1
    scale = Scale(0, most, left, WIDTH - 40)
    parts = []
    for i, (name, counts) in enumerate(shown):
        y, x = 8 + i * 24.0, left
        parts.append(text(left - 5, y + 12.5, cut(name, left - 8), "end", "", name))
        for error in ERROR_TYPES:
            w = scale(counts[error]) - left
            if counts[error]:
                told = f"{name}: {counts[error]} {ERROR_NAMES[error]}"
                parts.append(
                    f'<path class="bar k{ERROR_COLOURS[error]}" d="{box(x, y, max(w - 1, 1), 17)}">'
                    f"<title>{escape(told)}</title></path>"
                )
                if w > 7 * len(str(counts[error])) + 6:
                    parts.append(text(x + w / 2, y + 12.5, str(counts[error]), "middle", "on"))
            x += w
        parts.append(text(x + 5, y + 12.5, str(sum(counts.values()))))
    bottom = 12 + 24.0 * len(shown)
    parts.append(line(left, 4, left, bottom, "axis"))
    total = found.total
    wrong = sum(total.values()) - total["correct"]
    note = (
        f"Entities by what became of them: {total['correct']} correct, {wrong} errors ("
        + ", ".join(f"{total[error]} {ERROR_NAMES[error]}" for error in ERROR_TYPES[1:])
        + "). Under the reference's type; spurious ones under the predicted type."
    )
    if len(ordered) > len(shown):
        note += f" Drawn are the {len(shown)} most frequent of {len(ordered)} types."
    rows = [[name, *(str(counts[error]) for error in ERROR_TYPES)] for name, counts in ordered[:60]]
    key = [(f"k{ERROR_COLOURS[error]}", ERROR_NAMES[error]) for error in ERROR_TYPES]
    svg = frame(parts, bottom + 6, title, note, ids)
    return Chart(title, note, svg, ["type", *(ERROR_NAMES[error] for error in ERROR_TYPES)], rows, key=key)


def label_bars(title: str, found: Sequence[LabelScore], ids: Ids) -> Chart:
    """F1 of each label, with precision and recall, the most frequent labels first."""
    shown = sorted(found, key=lambda one: -one.support)[:MOST_TYPES]
    left = min(128.0, 10 + LETTER_ROW * max((len(one.label) for one in shown), default=1))
    scale = Scale(0, 1, left, WIDTH - 44)
    parts = []
    bottom = 8 + 22.0 * len(shown)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(line(scale(tick), 4, scale(tick), bottom))
        parts.append(text(scale(tick), bottom + 13, short(tick), "middle"))
    for i, one in enumerate(shown):
        y = 8 + i * 22.0
        told = (
            f"{one.label}: F1 {one.f1:.3f}, precision {one.precision:.3f}, recall {one.recall:.3f}, {one.support} texts"
        )
        parts.append(text(left - 5, y + 11.5, cut(one.label, left - 8), "end", "", one.label))
        parts.append(
            f'<g><title>{escape(told)}</title><path class="bar k0" d="{box(left, y + 3, max(scale(one.f1) - left, 1), 9)}"/>'
        )
        parts.append(
            f'<path class="mark" d="M{n(scale(one.precision))} {n(y)}v15"/>'
            f'<circle class="mark" cx="{n(scale(one.recall))}" cy="{n(y + 7.5)}" r="3.5"/></g>'
        )
        parts.append(text(WIDTH - 38, y + 11.5, f"{one.f1:.3f}"))
    parts.append(
        text((left + WIDTH - 44) / 2, bottom + 27, "bar: F1 · stroke: precision · ring: recall", "middle", "name")
    )
    more = f" The {len(shown)} most frequent of {len(found)} labels." if len(found) > len(shown) else ""
    note = f"Each label by itself, the most frequent first.{more}"
    rows = [[o.label, f"{o.precision:.3f}", f"{o.recall:.3f}", f"{o.f1:.3f}", str(o.support)] for o in shown]
    svg = frame(parts, bottom + 34, title, note, ids)
    return Chart(title, note, svg, ["label", "precision", "recall", "F1", "texts"], rows)


def scatter(title: str, found: Numbers, ids: Ids) -> Chart:
    """Prediction against reference, with the diagonal."""
    every = [value for pair in found.pairs for value in pair]
    marks = ticks(min(every), max(every), 5)
    grid = axes((marks[0], marks[-1]), marks, (40.0, 26.0, 346.0, 286.0), "reference", "prediction")
    parts = list(grid.parts)
    parts.append(line(grid.x(marks[0]), grid.y(marks[0]), grid.x(marks[-1]), grid.y(marks[-1]), "ideal"))
    spots = "".join(f"M{n(grid.x(gold))} {n(grid.y(said))}h0" for gold, said in found.pairs)
    parts.append(f'<path class="spots k0" d="{spots}"/>')
    note = f"Mean absolute error {found.mae:.3f}, root mean squared error {found.rmse:.3f}; on the diagonal both are equal."
    rows = [[number(gold), number(said)] for gold, said in found.pairs[:TABLE_ROWS]]
    return Chart(title, note, frame(parts, 320, title, note, ids), ["reference", "prediction"], rows)
