"""The charts of numbers over steps and of tables: lines, shares, heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .facts import Points, Table
from .palette import ARM, STEPS
from .svg import (
    WIDTH,
    Chart,
    Ids,
    Scale,
    cut,
    evenly,
    fixed,
    frame,
    inner_ticks,
    line,
    n,
    number,
    path,
    short,
    spread,
    text,
    thinned,
    ticks,
)

MOST_SERIES = 8
TABLE_ROWS = 12
HEAT_COLUMNS = 24


@dataclass(frozen=True)
class Series:
    """One named line."""

    name: str
    points: Points


@dataclass(frozen=True)
class Axes:
    """The frame of a plot with numbers on both sides."""

    x: Scale
    y: Scale
    parts: list[str]

    @property
    def data(self) -> str:
        """The scales as attributes, for the cross-hair."""
        x, y = self.x, self.y
        numbers = (x.low, x.high, x.start, x.stop, y.low, y.high, y.start, y.stop)
        return f' data-axes="{" ".join(f"{value:.6g}" for value in numbers)}" tabindex="0"'


def axes(
    x: tuple[float, float], y: Sequence[float], box: tuple[float, float, float, float], x_label: str, y_label: str
) -> Axes:
    """Grid, ticks and names.

    Args:
        x: first and last value.
        y: ticks; the first and the last are the ends of the scale.
        box: left, top, right, bottom in px.
    """
    left, top, right, bottom = box
    across, up = Scale(x[0], x[1], left, right), Scale(y[0], y[-1], bottom, top)
    parts = []
    for tick in y:
        parts.append(line(left, up(tick), right, up(tick)))
        parts.append(text(left - 5, up(tick) + 3.5, short(tick), "end"))
    for tick in inner_ticks(x[0], x[1], 4):
        parts.append(line(across(tick), bottom, across(tick), bottom + 3, "axis"))
        parts.append(text(across(tick), bottom + 15, short(tick), "middle"))
    parts.append(line(left, bottom, right, bottom, "axis"))
    parts.append(text((left + right) / 2, bottom + 29, x_label, "middle", "name"))
    parts.append(text(2, top - 8, y_label, "", "name"))
    return Axes(across, up, parts)


def lines(
    title: str,
    note: str,
    series: Sequence[Series],
    ids: Ids,
    *,
    x_label: str = "step",
    y_label: str = "",
    bounds: tuple[float | None, float | None] = (None, None),
    dots: bool = False,
    colour: int = 0,
    height: float = 182,
) -> Chart:
    """Lines over steps, named at their ends.

    Args:
        bounds: of the values, where they are known; the ticks go a little further where not.
        dots: mark every point: for curves with few of them.
        colour: of the first series.
    """
    shown = [one for one in series if one.points][:MOST_SERIES]
    named = len(shown) > 1
    values = [value for one in shown for _, value in one.points]
    steps = [step for one in shown for step, _ in one.points]
    low = min(values) if bounds[0] is None else bounds[0]
    high = max(values) if bounds[1] is None else bounds[1]
    last_words = [one.name if named else number(one.points[-1][1]) for one in shown]
    room = min(118.0, 14 + 6.6 * max(map(len, last_words), default=0))
    box = (40.0, 26.0, WIDTH - room, height - 36)
    grid = axes((0 if min(steps) > 0 else min(steps), max(steps) or 1), ticks(low, high, 4), box, x_label, y_label)
    parts = list(grid.parts)
    ends = spread([grid.y(one.points[-1][1]) for one in shown], 13, box[1], box[3])
    for i, (one, place) in enumerate(zip(shown, ends, strict=True)):
        points = [(grid.x(step), grid.y(value)) for step, value in thinned(one.points)]
        parts.append(
            f'<path class="line k{(i + colour) % MOST_SERIES} d{i % 4}" data-name="{_attribute(one.name)}" d="{path(points)}"/>'
        )
        marked = points if dots and len(points) <= 40 else points[-1:]
        parts += [
            f'<circle class="dot k{(i + colour) % MOST_SERIES}" cx="{n(px)}" cy="{n(py)}" r="3"/>' for px, py in marked
        ]
        label = cut(last_words[i], room - 12)
        title_of = f"{one.name}: {number(one.points[-1][1])}"
        parts.append(text(box[2] + 7, place + 3.5, label, "", f"end k{(i + colour) % MOST_SERIES}", title_of))
    last = ", ".join(f"{one.name} {number(one.points[-1][1])}" for one in shown)
    picked = [evenly(one.points, TABLE_ROWS) for one in shown]
    return Chart(
        title,
        note,
        frame(parts, height, title, f"{note} At the end: {last}.", ids, grid.data),
        columns=["series", x_label, y_label or "value"],
        rows=[
            [one.name, short(step), number(value, 4)]
            for one, points in zip(shown, picked, strict=True)
            for step, value in points
        ],
    )


def _attribute(value: str) -> str:
    from markupsafe import escape

    return str(escape(value))


def shares(title: str, note: str, series: Sequence[Series], ids: Ids, height: float = 230) -> Chart:
    """Parts of a whole over steps, one above the other, named at the right."""
    steps = sorted({step for one in series for step, _ in one.points})
    tables = [dict(one.points) for one in series]
    room = min(118.0, 46 + 6.2 * max(len(one.name) for one in series))
    box = (40.0, 26.0, WIDTH - room, height - 36)
    grid = axes(
        (steps[0] if len(steps) > 1 else 0, steps[-1] or 1),
        [0, 0.25, 0.5, 0.75, 1.0],
        box,
        "step",
        "share of the loss, cumulated",
    )
    below = dict.fromkeys(steps, 0.0)
    parts, middles = [], []
    for i, table in enumerate(tables):
        above = {step: below[step] + table.get(step, 0.0) for step in steps}
        if len(steps) == 1:
            edge = [(box[0], grid.y(above[steps[0]])), (box[2], grid.y(above[steps[0]]))]
            floor = [(box[2], grid.y(below[steps[0]])), (box[0], grid.y(below[steps[0]]))]
        else:
            kept = [step for step, _ in evenly([(step, 0.0) for step in steps], 60)]
            edge = [(grid.x(step), grid.y(above[step])) for step in kept]
            floor = [(grid.x(step), grid.y(below[step])) for step in reversed(kept)]
        parts.append(f'<path class="area k{i % MOST_SERIES}" d="{path([*edge, *floor])}Z"/>')
        middles.append(grid.y((above[steps[-1]] + below[steps[-1]]) / 2))
        below = above
    parts += grid.parts
    for i, (one, place) in enumerate(zip(series, spread(middles, 13, box[1] + 2, box[3] - 2), strict=True)):
        mean = sum(value for _, value in one.points) / max(len(one.points), 1)
        parts.append(
            f'<path class="tie k{i % MOST_SERIES}" d="M{n(box[2] + 1)} {n(middles[i])}L{n(box[2] + 8)} {n(place)}"/>'
        )
        label = f"{cut(one.name, room - 44)} {100 * mean:.0f} %"
        parts.append(
            text(box[2] + 10, place + 3.5, label, "", f"end k{i % MOST_SERIES}", f"{one.name}: mean {100 * mean:.1f} %")
        )
    means = [(one.name, sum(v for _, v in one.points) / max(len(one.points), 1)) for one in series]
    told = ", ".join(f"{name} {100 * mean:.1f} %" for name, mean in means)
    rows = [
        [one.name, short(step), f"{100 * value:.1f} %"]
        for one in series
        for step, value in evenly(one.points, TABLE_ROWS)
    ]
    return Chart(
        title, note, frame(parts, height, title, f"{note} Means: {told}.", ids), ["task", "step", "share"], rows
    )


def over_time(title: str, note: str, series: Sequence[Series], ids: Ids, top: float | None = None) -> Chart:
    """Many series over steps as a heat map: a row a task, a column a stretch of steps."""
    steps = sorted({step for one in series for step, _ in one.points})
    columns = [step for step, _ in evenly([(step, 0.0) for step in steps], HEAT_COLUMNS)]
    values: list[list[float | None]] = []
    for one in series:
        known = dict(one.points)
        values.append([known.get(step) for step in columns])
    table = Table([one.name for one in series], [short(step) for step in columns], values)
    return heat(title, note, table, ids, top=top, x_label="step", square=False, mean_column=True)


def step_of(value: float, top: float) -> str:
    """The class of a value on the ramp of one hue, 0 … top."""
    part = value / top if top else 0.0
    return f"s{min(max(round(part * (STEPS - 1)), 0), STEPS - 1)}"


def arm_of(value: float, limit: float) -> str:
    """The class of a value on the ramp from harm to help, −limit … limit."""
    place = min(round(abs(value) / limit * ARM), ARM) if limit else 0
    return f"h{place}" if value < 0 and place else f"p{place}"


def heat(
    title: str,
    note: str,
    table: Table,
    ids: Ids,
    *,
    top: float | None = None,
    limit: float | None = None,
    digits: int = 2,
    x_label: str = "",
    y_label: str = "",
    square: bool = True,
    mean_column: bool = False,
    show: Sequence[Sequence[str]] | None = None,
    rows: Sequence[Sequence[str]] | None = None,
) -> Chart:
    """A table as coloured cells, with its numbers where they fit.

    Args:
        top: full colour of the ramp of one hue; the largest value if neither is given.
        limit: full colour of the ramp from harm to help.
        square: cells as high as wide.
        show: the cells' numbers, where they are not the values.
        rows: of the table beside it, where it is not the values.
    """
    wide = max((len(name) for name in table.rows), default=1)
    many = len(table.rows) > 60
    left = 8.0 if many else min(128.0, 10 + LETTER_ROW * wide)
    cell = (WIDTH - left - 4) / max(len(table.columns), 1)
    tall = min(cell, 34.0) if square else min(max(cell, 15.0), 20.0) if not many else 3.0
    tall = max(tall, 15.0) if len(table.rows) <= 12 else max(tall, 2.2)
    cell = min(cell, 64.0)
    turned = cell < 6.4 * max((len(name) for name in table.columns), default=0) + 4
    longest = max((min(len(name), 16) for name in table.columns), default=0)
    named = cell >= 9.5
    head = (18.0 if not turned else 12 + 6.4 * longest) + (14 if x_label else 0)
    head = head if named or x_label else 6
    parts = _names(table, left, head, cell, tall, turned, named, many)
    if x_label:
        parts.append(text(left, 10, x_label, "", "name"))
    by_class: dict[str, list[str]] = {}
    written = []
    fits = cell >= 26 and tall >= 15
    for i, row in enumerate(table.values):
        for j, value in enumerate(row):
            if value is None:
                continue
            kind = (
                arm_of(value, limit) if limit is not None else step_of(value, top if top is not None else _most(table))
            )
            x, y = left + j * cell, head + i * tall
            by_class.setdefault(kind, []).append(
                f"M{n(x)} {n(y)}h{n(cell - 1)}v{n(tall - 1 if tall > 5 else tall)}h-{n(cell - 1)}z"
            )
            if fits:
                shown = show[i][j] if show else fixed(value, digits)
                written.append(text(x + (cell - 1) / 2, y + tall / 2 + 3.5, shown, "middle", f"{kind}i"))
    parts += [f'<path class="{kind}" d="{"".join(cells)}"/>' for kind, cells in sorted(by_class.items())]
    height = head + tall * len(table.rows) + 4
    if y_label:
        note = f"{note} Rows: {y_label}."
    return Chart(
        title,
        note,
        frame([*parts, *written], height, title, f"{note} {_extremes(table, digits)}", ids),
        columns=["", *table.columns] if rows is None else (),
        rows=rows if rows is not None else _as_rows(table, digits),
    )


LETTER_ROW = 6.0


def _names(
    table: Table, left: float, head: float, cell: float, tall: float, turned: bool, named: bool, many: bool
) -> list[str]:
    parts = []
    skip = 1 if tall >= 9 else int(9 / tall) + 1
    for i, name in enumerate(table.rows if not many else ()):
        if i % skip == 0:
            parts.append(text(left - 5, head + i * tall + tall / 2 + 3.5, cut(name, left - 8), "end", "", name))
    for j, name in enumerate(table.columns if named else ()):
        x = left + (j + 0.5) * cell
        shown = cut(name, 100)
        if turned:
            parts.append(text(x + 3.5, head - 5, shown, "", "", name if shown != name else "", turn=-90))
        else:
            parts.append(text(x, head - 6, shown, "middle"))
    return parts


def _most(table: Table) -> float:
    return max((abs(value) for row in table.values for value in row if value is not None), default=1.0) or 1.0


def _extremes(table: Table, digits: int) -> str:
    cells = [
        (value, name, column)
        for name, row in zip(table.rows, table.values, strict=True)
        for column, value in zip(table.columns, row, strict=True)
        if value is not None and name != column
    ]
    if not cells:
        return ""
    low, high = min(cells), max(cells)
    return f"Highest: {high[1]}, {high[2]}: {number(high[0], digits)}. Lowest: {low[1]}, {low[2]}: {number(low[0], digits)}."


def _as_rows(table: Table, digits: int) -> list[list[str]]:
    """The table, unless it is too large for one: then the cells of the largest values."""
    if len(table.rows) * len(table.columns) <= 200:
        pairs = zip(table.rows, table.values, strict=True)
        return [[name, *(number(value, digits) for value in row)] for name, row in pairs]
    return []


def by_name(points: Mapping[str, Points]) -> list[Series]:
    """Named points as series."""
    return [Series(name, values) for name, values in points.items()]
