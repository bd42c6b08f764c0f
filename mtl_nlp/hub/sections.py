"""A document made of generated sections in which a user may write: what the user wrote survives when it is made again.

A section stands between two comments; the first holds a hash of what was generated. A section whose text no longer has that hash
was edited, and stays as it is. Text between and after the sections is the user's. A section that was removed stays away.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

OPEN = "<!-- mtl-nlp: {name} {mark} -->"
CLOSE = "<!-- /mtl-nlp: {name} -->"
BLOCK = re.compile(r"<!-- mtl-nlp: (\w+) ([0-9a-f]{8}) -->\n(.*?)\n?<!-- /mtl-nlp: \1 -->", re.S)
KNOWN = re.compile(r"<!-- mtl-nlp sections: ([\w ]*) -->\n?")
FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.S)


def _mark(text: str) -> str:
    return hashlib.sha256(text.strip().encode()).hexdigest()[:8]


def _block(name: str, text: str) -> str:
    return f"{OPEN.format(name=name, mark=_mark(text))}\n{text.strip()}\n{CLOSE.format(name=name)}"


def split_front(text: str) -> tuple[dict[str, Any], str]:
    """(front matter, the rest) of a Markdown file; a front matter that is not YAML is left in the text."""
    from ..errors import UserError
    from ..schema import parse_yaml

    found = FRONT.match(text)
    if found is None:
        return {}, text
    try:
        front, _ = parse_yaml(found[1], "README.md")
    except UserError:
        return {}, text
    return front, text[found.end() :]


def merged_body(sections: Mapping[str, str], old: str = "") -> str:
    """The sections as text; with `old`, that text with its untouched sections renewed.

    Args:
        sections: name → Markdown, in order.
        old: an earlier body; the user's own words in it are kept.
    """
    told = KNOWN.search(old)
    before = set(told[1].split()) if told else set()
    old = KNOWN.sub("", old)
    present = {found[1] for found in BLOCK.finditer(old)}

    def renewed(found: re.Match[str]) -> str:
        name, mark, text = found[1], found[2], found[3]
        untouched = _mark(text) == mark
        return _block(name, sections[name]) if untouched and name in sections else found[0]

    body = BLOCK.sub(renewed, old).strip()
    fresh = [_block(name, text) for name, text in sections.items() if name not in present and name not in before]
    known = f"<!-- mtl-nlp sections: {' '.join(sections)} -->"
    return "\n\n".join([part for part in (body, *fresh, known) if part]) + "\n"


def merged_front(made: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """The front matter: facts are renewed, lists joined, and what only the user can know is the user's.

    Args:
        made: generated keys.
        old: those of the earlier file.
    """
    front = dict(made)
    for key, value in old.items():
        if key in ("tags", "datasets", "language") and key in made:
            front[key] = list(dict.fromkeys([*_several(made[key]), *_several(value)]))
        elif key not in made or key in ("license", "pipeline_tag", "language"):
            front[key] = value
    return front


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]
