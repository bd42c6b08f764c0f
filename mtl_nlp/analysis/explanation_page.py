"""Explanations → one HTML page that needs nothing beside it: no script, no network, light and dark.

Everything that comes from texts or labels is escaped. Blue speaks for the decision, orange against it; the stronger, the more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

from .explain import EXPLANATIONS

FOR, AGAINST = "37, 99, 235", "217, 98, 4"
STRONGEST = 0.75

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Which words decided</title>
<style>
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --quiet: #5f6368; --line: #d9dce0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --paper: #16181c; --quiet: #a3a9b2; --line: #3a3f47; } }
body { font: 16px/1.6 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
article { border-top: 1px solid var(--line); padding: 0.75rem 0; }
h2 { font-size: 1.05rem; margin: 0.5rem 0; }
h3 { font-size: 1rem; margin: 0.75rem 0 0.1rem; }
p { margin: 0.25rem 0; }
.quiet { color: var(--quiet); font-size: 0.85rem; }
.field { color: var(--quiet); font-size: 0.85rem; margin-right: 0.4rem; }
mark { color: inherit; border-radius: 3px; padding: 0.05em 0.15em; }
mark.unread { text-decoration: line-through; opacity: 0.6; background: none; }
</style>
</head>
<body>
<h1>Which words decided</h1>
"""


def page(records: Iterable[Mapping[str, Any]], about: str) -> Iterator[str]:
    """The page, piece by piece.

    Args:
        records: of `Explainer`.
        about: one line on model and method.
    """
    yield _HEAD
    swatches = "".join(
        f'<mark style="background: rgba({colour}, 0.5)">{word}</mark> '
        for colour, word in ((FOR, "for"), (AGAINST, "against"))
    )
    yield f'<p class="quiet">{escape(about)}. {swatches}the decision; hover over a word for its number.</p>\n'
    for number, record in enumerate(records, 1):
        yield f"<article>\n<h2>{number}</h2>\n"
        for task, found in record[EXPLANATIONS].items():
            if not found:
                yield f'<h3>{escape(task)}</h3>\n<p class="quiet">nothing found</p>\n'
            for one in found:
                yield _decision(task, one)
        yield "</article>\n"
    yield "</body>\n</html>\n"


def _decision(task: str, one: Mapping[str, Any]) -> str:
    lines = [f"<h3>{escape(task)}: {escape(heading(one))}</h3>"]
    most = max((abs(word["attribution"]) for word in one["words"]), default=0.0)
    fields = dict.fromkeys(word["field"] for word in one["words"])
    for field in fields:
        inside = [word for word in one["words"] if word["field"] == field]
        pairs = zip([None, *inside[:-1]], inside, strict=True)
        marks = "".join(spacing(before, word) + _word(word, most) for before, word in pairs).strip()
        label = f'<span class="field">{escape(field)}</span>' if len(fields) > 1 else ""
        lines.append(f"<p>{label}{marks}</p>")
    lines.append(f'<p class="quiet">{escape(footing(one))}</p>')
    return "\n".join(lines) + "\n"


def _word(word: Mapping[str, Any], most: float) -> str:
    text, value = escape(word["word"]), word["attribution"]
    if word.get("read") is False:
        return f'<mark class="unread" title="beyond the row\'s end: not read">{text}</mark>'
    share = STRONGEST * abs(value) / most if most else 0.0
    colour = FOR if value > 0 else AGAINST
    return f'<mark title="{value:+.4f}" style="background: rgba({colour}, {share:.2f})">{text}</mark>'


def spacing(before: Mapping[str, Any] | None, word: Mapping[str, Any]) -> str:
    """What stands between two words: nothing where they touch, a bar between two fields."""
    if before is None:
        return " "
    if before["field"] != word["field"]:
        return " | "
    return "" if before["end"] == word["start"] else " "


def heading(one: Mapping[str, Any]) -> str:
    """A decision in a few words: the target, where it stands, its score."""
    told = str(one["target"])
    if "word" in one:
        told += f' "{one["word"]}"'
    for key in ("choice", "candidate"):
        if key in one:
            told = f'{told} "{one[key]}"'
    if "value" in one:
        told = f"{one['value']:.4f}"
    if "answer" in one:
        told = f'"{one["answer"]}"' if one["answer"] else "no answer"
    if one.get("predicted") is False:
        told += " (not predicted)"
    return f"{told}, score {one['score']:.3f}" if "score" in one else told


def footing(one: Mapping[str, Any]) -> str:
    """Where the numbers come from, and whether they add up."""
    told = f"logit {one['logit']:.3f}, without words {one['baseline_logit']:.3f} ({one['baseline']} baseline), {one['method']}"
    if one["delta"] is None:
        return told
    gap = abs(one["logit"] - one["baseline_logit"])
    share = f"{100 * abs(one['delta']) / gap:.2f} %" if gap else "0 %"
    short = "" if one["complete"] else "; NOT within 1 %"
    return f"{told}, {one['steps']} steps, the sum is off by {share}{short}"
