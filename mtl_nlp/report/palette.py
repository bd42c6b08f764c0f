"""Colours, once for a light and once for a dark page, as CSS variables.

Series follow the colour-blind-safe set of Okabe and Ito (2008), each shifted until it stands out from its page by 3:1 or more. Heat
maps have a ramp of one hue (counts) and one from orange over the page's colour to blue (harm … help), which red-green blindness
does not confuse; each step brings the ink, black or white, that is read on it at 4.5:1 or more.
"""

from __future__ import annotations

from dataclasses import dataclass

STEPS = 9  # of the ramp of one hue
ARM = 5  # steps to either side of nothing

BLACK, WHITE = "#000000", "#ffffff"


@dataclass(frozen=True)
class Theme:
    """One page's colours, `#rrggbb`.

    Attributes:
        series: of lines, bars, dots.
        low, high: ends of the ramp of one hue.
        harm, nothing, help: ends and middle of the other.
    """

    page: str
    surface: str
    text: str
    muted: str
    rule: str
    link: str
    series: tuple[str, ...]
    low: str
    high: str
    harm: str
    nothing: str
    help: str


LIGHT = Theme(
    page="#ffffff",
    surface="#f5f7f9",
    text="#171b20",
    muted="#4f5862",
    rule="#d5dbe1",
    link="#0a5ea8",
    series=("#0072b2", "#bb4500", "#007a5a", "#a63d8c", "#8a6a00", "#5b5fc7", "#5b5b5b", "#8a2846"),
    low="#edf3fa",
    high="#083f7d",
    harm="#a33c00",
    nothing="#f4f4f2",
    help="#0a4f94",
)
DARK = Theme(
    page="#101419",
    surface="#191f26",
    text="#e8ecf1",
    muted="#a7b1bc",
    rule="#343d47",
    link="#7cc0ff",
    series=("#56b4e9", "#ff8f4d", "#2fcf9f", "#ee8fc9", "#e6cf45", "#8fa8ff", "#c3c9d0", "#ff9aa8"),
    low="#1c2630",
    high="#a9d6ff",
    harm="#ff9a55",
    nothing="#252b32",
    help="#7cc0ff",
)


def css() -> str:
    """The variables of both pages: by the system's preference, by the reader's choice, and light in print."""
    light, dark = variables(LIGHT, "light"), variables(DARK, "dark")
    return (
        f":root{{{light}}}\n"
        f"@media (prefers-color-scheme: dark){{:root:not([data-theme=light]){{{dark}}}}}\n"
        f":root[data-theme=dark]{{{dark}}}\n"
        f"@media print{{:root,:root[data-theme=dark],:root:not([data-theme=light]){{{light}}}}}\n" + classes()
    )


def variables(theme: Theme, scheme: str) -> str:
    """`--page: …; --c0: …; --s0: …; --s0i: …; …`; `h` is harm, `p` is help, `i` the ink on a step."""
    plain = {name: getattr(theme, name) for name in ("page", "surface", "text", "muted", "rule", "link")}
    found = plain | {f"c{i}": colour for i, colour in enumerate(theme.series)}
    for name, colour in ramps(theme).items():
        found |= {name: colour, f"{name}i": ink(colour)}
    return f"color-scheme:{scheme};" + "".join(f"--{name}:{value};" for name, value in found.items())


def ramps(theme: Theme) -> dict[str, str]:
    """`s0` … `s8` (none … all), `h1` … `h5` (harm), `p0` … `p5` (nothing … help)."""
    found = {f"s{i}": mix(theme.low, theme.high, i / (STEPS - 1)) for i in range(STEPS)}
    found |= {f"h{i}": mix(theme.nothing, theme.harm, i / ARM) for i in range(1, ARM + 1)}
    return found | {f"p{i}": mix(theme.nothing, theme.help, i / ARM) for i in range(ARM + 1)}


def classes() -> str:
    """A class for every series (`k0`) and step (`s0`, `h1`, …): its fill, and `i` beside it for the ink."""
    series = [f".k{i}{{--k:var(--c{i})}}" for i in range(len(LIGHT.series))]
    steps = [f".{name}{{fill:var(--{name})}}.{name}i{{fill:var(--{name}i)}}" for name in ramps(LIGHT)]
    return "".join(series + steps)


def mix(one: str, other: str, part: float) -> str:
    """A colour between two, in sRGB: `one` at 0, `other` at 1."""
    pairs = zip(rgb(one), rgb(other), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in pairs)


def rgb(colour: str) -> tuple[int, int, int]:
    """`#rrggbb` → (r, g, b), 0 … 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    parts = [value / 255 for value in rgb(colour)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """The contrast of two colours by WCAG 2.2, 1 … 21."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def ink(colour: str) -> str:
    """Black or white, whichever is read better on it."""
    return max((BLACK, WHITE), key=lambda one: contrast(one, colour))
