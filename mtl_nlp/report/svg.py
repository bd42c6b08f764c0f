"""The small parts of a chart: escaped text, numbers as people write them, scales with round ticks, and the frame around all.

Coordinates are px of a chart 360 wide, the width of a phone; on a wider page several charts stand beside each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from markupsafe import Markup, escape

WIDTH = 360
FONT = 11  # px
LETTER = 6.1  # px, the mean width of one
PAIR = " · "


@dataclass(frozen=True)
class Chart:
    """A drawing with its words.

    Attributes:
        title, note: shown above it; `note` says what is seen and in which unit.
        columns, rows: the same as a table, for those who do not see it or want the numbers.
        wide: it may take two columns of the page.
        key: marks with their names, for what cannot be labelled in the drawing.
    """

    title: str
    note: str
    svg: Markup
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    wide: bool = False
    key: Sequence[tuple[str, str]] = ()


class Ids:
    """Numbers for ids that must be unique on a page."""

    def __init__(self) -> None:
        self._next = count(1)

    def __call__(self) -> str:
        """The next one."""
        return f"c{next(self._next)}"


def frame(parts: Iterable[str], height: float, title: str, description: str, ids: Ids, extra: str = "") -> Markup:
    """The `svg` element: an image with name and description for who cannot see it."""
    key = ids()
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {n(height)}" role="img" aria-labelledby="{key}t {key}d"{extra}>'
        f'<title id="{key}t">{escape(title)}</title><desc id="{key}d">{escape(description)}</desc>{"".join(parts)}</svg>'
    )


def n(value: float) -> str:
    """A coordinate: at most one decimal."""
    shown = f"{value:.1f}"
    return shown[:-2] if shown.endswith(".0") else shown


def text(x: float, y: float, words: str, anchor: str = "", kind: str = "", title: str = "", turn: float = 0) -> str:
    """A piece of text; `title` is told by hovering, `turn` are degrees around its place."""
    attributes = f' text-anchor="{anchor}"' if anchor else ""
    attributes += f' class="{kind}"' if kind else ""
    attributes += f' transform="rotate({n(turn)} {n(x)} {n(y)})"' if turn else ""
    told = f"<title>{escape(title)}</title>" if title else ""
    return f'<text x="{n(x)}" y="{n(y)}"{attributes}>{told}{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> str:
    """A straight line."""
    return f'<path class="{kind}" d="M{n(x1)} {n(y1)}L{n(x2)} {n(y2)}"/>'


def path(points: Sequence[tuple[float, float]]) -> str:
    """`M x y L …` of a line."""
    return "M" + "L".join(f"{n(x)} {n(y)}" for x, y in points)


def box(x: float, y: float, width: float, height: float) -> str:
    """`M … z` of a rectangle."""
    return f"M{n(x)} {n(y)}h{n(width)}v{n(height)}h-{n(width)}z"


def cut(words: str, width: float) -> str:
    """The words as far as they fit into so many px; of a pair (`a · b`) both halves."""
    most = max(2, int(width / LETTER))
    if len(words) > most and words.count(PAIR) == 1:
        half = (width - LETTER * len(PAIR)) / 2
        one, other = words.split(PAIR)
        spare = max(half - LETTER * len(one), 0), max(half - LETTER * len(other), 0)
        return cut(one, half + spare[1]) + PAIR + cut(other, half + spare[0])
    return words if len(words) <= most else words[: most - 1] + "…"


def number(value: float | None, digits: int = 3) -> str:
    """A number as people write it: `12,345`, `0.8900`, `1.5e-05`; a real minus sign."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if value == int(value) and size < 1e15 and (size >= 1000 or digits == 0):
        shown = f"{int(value):,}"
    elif size >= 1000:
        shown = f"{value:,.0f}"
    elif size and size < 10 ** -(digits + 1):
        shown = f"{value:.1e}"
    else:
        shown = f"{value:.{digits}f}"
    return shown.replace("-", "−", 1) if shown.startswith("-") else shown


def fixed(value: float, digits: int) -> str:
    """A number with just so many decimals, for cells that are narrow; no minus before 0."""
    shown = f"{value:.{digits}f}"
    return shown.replace("-", "−") if float(shown) else shown.lstrip("-")


def short(value: float) -> str:
    """A tick's number: as few digits as tell it (`0.05`, `1.5k`, `2M`)."""
    size = abs(value)
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= unit:
            return _trimmed(value / unit) + sign
    return _trimmed(value)


def _trimmed(value: float) -> str:
    shown = f"{value:.6g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.0e}"
    return shown.replace("-", "−", 1) if shown.startswith("-") else shown


def signed(value: float | None, digits: int = 2) -> str:
    """`+0.35`, `−1.20`, `0.00`."""
    if value is None or not math.isfinite(value):
        return "–"
    shown = f"{value:+.{digits}f}"
    return shown.replace("-", "−") if float(shown) else shown[1:]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from below `low` to above `high`, at most about `most` + 2 of them."""
    if not high > low:
        pad = abs(low) * 0.1 or 0.5
        low, high = low - pad, high + pad
    raw = (high - low) / max(most - 1, 1)
    unit = 10 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def inner_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two ends."""
    return [tick for tick in ticks(low, high, most) if low - 1e-9 <= tick <= high + 1e-9]


@dataclass(frozen=True)
class Scale:
    """Values `low` … `high` at px `start` … `stop`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """A value's place in px; a little outside at most."""
        part = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.start + min(max(part, -0.02), 1.02) * (self.stop - self.start)


def thinned(points: Sequence[tuple[float, float]], most: int = 120) -> list[tuple[float, float]]:
    """At most about `most` points: of each stretch its lowest and highest, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(2 * len(points) / (most - 2))
    kept = [points[0]]
    for start in range(1, len(points) - 1, size):
        stretch = points[start : min(start + size, len(points) - 1)]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return [*kept, points[-1]]


def evenly(items: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` of them, evenly picked, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, `gap` apart, between `low` and `high` as far as they fit; in the order given."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    places = [0.0] * len(wanted)
    last = low - gap
    for i in order:
        last = places[i] = max(wanted[i], last + gap)
    over = last - high
    if over > 0:
        above = high + gap
        for i in reversed(order):
            above = places[i] = min(places[i], above - gap)
    return places
