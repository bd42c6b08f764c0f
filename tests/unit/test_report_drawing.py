"""The parts of a chart, and colours that everybody can read."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from mtl_nlp.report import palette
from mtl_nlp.report.answer_charts import confusion_matrix
from mtl_nlp.report.charts import Series, heat, lines
from mtl_nlp.report.facts import Confusion, Table
from mtl_nlp.report.gather import distinct_names, duration, without_paths
from mtl_nlp.report.markdown import plain
from mtl_nlp.report.palette import DARK, LIGHT, Theme, contrast, ramps
from mtl_nlp.report.strips import Span
from mtl_nlp.report.svg import Ids, cut, evenly, fixed, inner_ticks, number, short, signed, spread, thinned, ticks

THEMES = {"light": LIGHT, "dark": DARK}


@pytest.mark.parametrize("theme", THEMES.values(), ids=list(THEMES))
def test_text_and_marks_stand_out_from_their_ground(theme: Theme) -> None:
    for ground in (theme.page, theme.surface):
        assert all(contrast(ink, ground) >= 4.5 for ink in (theme.text, theme.muted, theme.link))
        assert all(contrast(colour, ground) >= 3 for colour in theme.series)
    # Names at the ends of lines, chips and numbers inside bars are text in a series' colour, or on it.
    assert all(contrast(colour, theme.surface) >= 3.7 for colour in theme.series)
    assert all(contrast(theme.series[i], theme.surface) >= 4.3 for i in (0, 1))
    assert all(contrast(palette.ink(colour), colour) >= 4.5 for colour in ramps(theme).values())


# What the cones of a dichromat see (Machado et al. 2009, severity 1), on linear RGB.
DEUTAN = ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881))
PROTAN = ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998))


def seen(colour: str, matrix: tuple[tuple[float, ...], ...]) -> tuple[float, float, float]:
    """The colour in OKLab as a dichromat sees it."""
    linear = [
        (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4) for p in (v / 255 for v in palette.rgb(colour))
    ]
    r, g, b = (min(max(sum(m * v for m, v in zip(row, linear, strict=True)), 0), 1) for row in matrix)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    mid = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    low = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * mid - 0.0040720468 * low,
        1.9779984951 * long - 2.4285922050 * mid + 0.4505937099 * low,
        0.0259040371 * long + 0.7827717662 * mid - 0.8086757660 * low,
    )


@pytest.mark.parametrize("matrix", [DEUTAN, PROTAN], ids=["deuteranopia", "protanopia"])
@pytest.mark.parametrize("theme", THEMES.values(), ids=list(THEMES))
def test_the_first_colours_and_help_and_harm_are_told_apart_by_the_colour_blind(theme: Theme, matrix: tuple) -> None:
    def apart(one: str, other: str) -> float:
        return sum((a - b) ** 2 for a, b in zip(seen(one, matrix), seen(other, matrix), strict=True)) ** 0.5

    assert min(apart(a, b) for a, b in combinations(theme.series[:4], 2)) > 0.05
    assert apart(theme.help, theme.harm) > 0.15


def test_the_page_has_both_themes_by_preference_and_by_choice_and_prints_light() -> None:
    css = palette.css()
    assert "@media (prefers-color-scheme: dark){:root:not([data-theme=light])" in css
    assert ":root[data-theme=dark]{color-scheme:dark" in css
    assert css.index("@media print") > css.index(":root[data-theme=dark]")


def test_numbers_as_people_write_them() -> None:
    assert [number(v) for v in (0.5, 1234.0, 12345.6, 1e-6, -0.25, None)] == [
        "0.500",
        "1,234",
        "12,346",
        "1.0e-06",
        "−0.250",
        "–",
    ]
    assert [short(v) for v in (0, 0.05, 1500, 2e6, -0.5)] == ["0", "0.05", "1.5k", "2M", "−0.5"]
    assert [signed(v) for v in (0.354, -1.2, -0.001)] == ["+0.35", "−1.20", "0.00"]
    assert [fixed(v, 2) for v in (-0.001, 0.0001, -0.5)] == ["0.00", "0.00", "−0.50"]
    assert [duration(s) for s in (72, 725, 12000, None)] == ["72 s", "12 min", "3 h 20 min", None]


def test_ticks_are_round_and_hold_the_values() -> None:
    assert ticks(0.71, 0.94, 4) == [0.7, 0.8, 0.9, 1.0]
    assert ticks(0, 1, 5) == [0, 0.25, 0.5, 0.75, 1.0]
    assert inner_ticks(0, 2400, 4) == [0, 1000, 2000]
    assert len(ticks(3, 3)) > 1


def test_labels_are_spread_and_points_thinned_without_losing_a_peak() -> None:
    assert spread([50, 51, 90], 13, 0, 100) == [50, 63, 90]
    assert spread([99, 99, 99], 13, 0, 100) == [74, 87, 100]
    points = [(float(i), 100.0 if i == 517 else 0.0) for i in range(1000)]
    kept = thinned(points, 100)
    assert len(kept) <= 102
    assert (517.0, 100.0) in kept
    assert evenly(points, 3) == [points[0], points[500], points[999]]
    assert cut("a" * 30 + " · " + "b" * 30, 128) == "aaaaaaa… · bbbbbbb…"


def test_paths_of_this_machine_are_not_told() -> None:
    text = "source: /home/anna/data/train.jsonl\nurl: https://a.example/b/c\nname: org/model\nwin: C:\\data\\x.csv\n"
    shown = without_paths(text)
    assert "anna" not in shown
    assert "…/train.jsonl" in shown
    assert "https://a.example/b/c" in shown
    assert "org/model" in shown
    assert "…/x.csv" in shown


def test_folders_are_told_apart_by_as_many_parts_as_it_takes(tmp_path) -> None:
    assert distinct_names([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert distinct_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def test_markdown_takes_names_for_text() -> None:
    assert plain("a|b <img> [x](http://y)\n# z") == r"a\|b \<img\> \[x\](http://y) \# z"


def test_a_chart_names_itself_and_has_its_table() -> None:
    chart = lines("Loss", "A note.", [Series("x", [(1, 2.0), (2, 1.0)]), Series("<y>", [(1, 1.0)])], Ids())
    svg = str(chart.svg)
    assert 'role="img" aria-labelledby="c1t c1d"' in svg
    assert '<title id="c1t">Loss</title>' in svg
    assert "&lt;y&gt;" in svg
    assert "<y>" not in svg
    assert chart.rows == [["x", "1", "2.0000"], ["x", "2", "1.0000"], ["<y>", "1", "1.0000"]]


def test_a_matrix_of_many_labels_stays_small() -> None:
    names = [f"label {i}" for i in range(150)]
    counts = {(i, (i * 7) % 150): 3 for i in range(150)} | {(i, i): 9 for i in range(150)}
    chart = confusion_matrix("Confusion", Confusion(names, counts, "texts"), Ids())
    assert len(chart.svg) < 20_000
    assert len(chart.rows) == 12
    assert "150" not in re.findall(r">(\d+)</text>", chart.svg)


def test_help_is_blue_and_harm_orange() -> None:
    svg = str(heat("Cosines", "", Table(["a", "b"], ["a", "b"], [[1.0, -1.0], [0.0, None]]), Ids(), limit=1.0).svg)
    assert re.findall(r'<path class="(\w+)" d="M', svg) == ["h5", "p0", "p5"]


def test_a_scale_holds_zero_where_asked() -> None:
    span = Span.around([0.4, 0.8], zero=True)
    assert span.low <= 0 < span.high
    assert Span.around([-0.4, 0.8], zero=True).low < -0.4
    assert float(span(0.4)[:-1]) > float(span(0)[:-1])
