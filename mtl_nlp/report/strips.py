"""Drawings inside table cells: intervals, dots and bars on one scale a column, as wide as the cell is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from .svg import inner_ticks, short

LEAST_TICKS = 3

EDGE = 5.0  # per cent that are left free at either side


@dataclass(frozen=True)
class Span:
    """The values at the ends of a column's scale."""

    low: float
    high: float

    def __call__(self, value: float) -> str:
        """A value's place in the cell."""
        part = (value - self.low) / ((self.high - self.low) or 1.0)
        place = EDGE + min(max(part, -0.04), 1.04) * (100 - 2 * EDGE)
        return f"{place:.2f}%"

    @classmethod
    def around(cls, values: Sequence[float], *, zero: bool = False, pad: float = 0.06) -> Span:
        """One that holds all values, and 0 if asked."""
        known = [*values, *([0.0] if zero else [])] or [0.0, 1.0]
        low, high = min(known), max(known)
        room = (high - low) * pad or abs(high) * 0.05 or 0.5
        return cls(low if zero and low == 0 else low - room, high if zero and high == 0 else high + room)


def marks(span: Span) -> list[float]:
    """Round numbers on the scale, three or a few more."""
    found: list[float] = []
    for most in range(3, 9):
        found = inner_ticks(span.low, span.high, most)
        if len(found) >= LEAST_TICKS:
            break
    return found


def strip(parts: Sequence[str], label: str, height: int = 26, kind: str = "strip") -> Markup:
    """The `svg` of one cell."""
    return Markup(
        f'<svg class="{kind}" width="100%" height="{height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def grid(span: Span, height: int = 26, *, zero: bool = False) -> list[str]:
    """The ticks' lines; the one of 0 stands out."""
    lines = [f'<line class="grid" x1="{span(t)}" x2="{span(t)}" y1="0" y2="{height}"/>' for t in marks(span)]
    if zero and span.low <= 0 <= span.high:
        lines.append(f'<line class="zero" x1="{span(0)}" x2="{span(0)}" y1="0" y2="{height}"/>')
    return lines


def axis(span: Span, unit: str = "") -> Markup:
    """The scale, for the head of a column."""
    parts, every = [], marks(span)
    for number, tick in enumerate(every):
        if len(every) <= LEAST_TICKS or number % 2 == 0 or tick == 0:
            parts.append(f'<text x="{span(tick)}" y="12" text-anchor="middle">{short(tick)}</text>')
        parts.append(f'<line class="axis" x1="{span(tick)}" x2="{span(tick)}" y1="15" y2="20"/>')
    return strip(parts, f"scale {short(span.low)} to {short(span.high)} {unit}".strip(), 20, "strip axis-strip")


def interval(span: Span, low: float | None, mid: float, high: float | None, kind: str, label: str) -> Markup:
    """A confidence interval with its middle."""
    parts = grid(span, zero=True)
    if low is not None and high is not None:
        parts.append(f'<line class="ci {kind}" x1="{span(low)}" x2="{span(high)}" y1="13" y2="13"/>')
        parts += [f'<line class="ci {kind}" x1="{span(end)}" x2="{span(end)}" y1="8" y2="18"/>' for end in (low, high)]
    parts.append(f'<circle class="mid {kind}" cx="{span(mid)}" cy="13" r="5"/>')
    return strip(parts, label)


def dots(span: Span, values: Sequence[tuple[str, float]], colour: int, label: str) -> Markup:
    """A dot a seed and a stroke at their mean."""
    parts = grid(span)
    if values:
        mean = sum(value for _, value in values) / len(values)
        parts.append(f'<line class="mean k{colour}" x1="{span(mean)}" x2="{span(mean)}" y1="4" y2="22"/>')
    parts += [
        f'<circle class="seed k{colour}" cx="{span(value)}" cy="13" r="4.5"><title>{escape(name)}: {value:.4f}</title></circle>'
        for name, value in values
    ]
    return strip(parts, label)


def bar(share: float, kind: str, label: str) -> Markup:
    """A bar from the left, `share` of the cell."""
    wide = max(min(share, 1.0), 0.005) * 100
    return strip([f'<rect class="bar {kind}" x="0" y="5" width="{wide:.1f}%" height="12" rx="2"/>'], label, 22)


def signed_bar(span: Span, value: float, label: str) -> Markup:
    """A bar from 0 to the right (help) or to the left (harm)."""
    low, high = min(value, 0.0), max(value, 0.0)
    width = float(span(high)[:-1]) - float(span(low)[:-1])
    kind = "helps" if value > 0 else "harms"
    rect = f'<rect class="bar {kind}" x="{span(low)}" y="5" width="{max(width, 0.4):.2f}%" height="14" rx="2"/>'
    return strip([*grid(span, 24, zero=True), rect], label, 24)
