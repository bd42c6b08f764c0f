"""Templates as objects: reading them, sharing them out among the splits, filling them."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from demo_corpus import frames, intents_accounts, intents_orders, intents_service, tones
from demo_corpus.slots import Piece, SlotFiller

CORES: dict[str, str] = {**intents_orders.INTENTS, **intents_accounts.INTENTS, **intents_service.INTENTS}
INTENT_LABELS = tuple(sorted(CORES))
SENTIMENT_LABELS = ("negative", "neutral", "positive")
RARE_SLOTS = ("phone", "email", "company")
MARKS = {"-": "negative", "+": "positive"}
CHOICE = re.compile(r"\[([^\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Template:
    """One sentence with slots.

    Attributes:
        name: kind, group and position, such as `core/praise/3`.
        text: the wording, with `{slots}` and `[one|other]` choices.
        kind: core, before, after, tail, greeting, background, connector or closing.
        tone: one of the sentiment labels; neutral where the wording takes no side.
        intent: the intent of a core, else `None`.
        only: the intents that it goes with; empty for all.
        without: the intents that it does not go with.
    """

    name: str
    text: str
    kind: str
    tone: str = "neutral"
    intent: str | None = None
    only: frozenset[str] = field(default_factory=frozenset)
    without: frozenset[str] = field(default_factory=frozenset)

    def fits(self, intent: str) -> bool:
        """Whether it may stand in a message of this intent."""
        return intent not in self.without and (not self.only or intent in self.only)


def all_templates() -> list[Template]:
    """Every template, in the order of the files."""
    found: list[Template] = []
    for intent, block in CORES.items():
        found += _read(block, kind="core", group=intent, intent=intent)
    for (tone, kind), block in tones.CLAUSES.items():
        found += _read(block, kind=kind, group=tone, tone=tone)
    for kind, block in frames.FRAMES.items():
        found += _read(block, kind=kind, group="frame")
    return found


def _read(block: str, *, kind: str, group: str, tone: str = "neutral", intent: str | None = None) -> Iterator[Template]:
    """The templates of one block of lines."""
    for position, line in enumerate(block.strip().splitlines()):
        text, _, condition = line.partition(" ;; ")
        mark = MARKS.get(text[0]) if kind == "core" and text[1:2] == " " else None
        word, *intents = condition.split() or [""]
        if not set(intents) <= set(CORES) or word not in ("", "only", "not"):
            raise ValueError(f"{kind}/{group}/{position}: {condition!r} names no known intent")
        yield Template(
            name=f"{kind}/{group}/{position}",
            text=text[2:] if mark else text,
            kind=kind,
            tone=mark or tone,
            intent=intent,
            only=frozenset(intents if word == "only" else ()),
            without=frozenset(intents if word == "not" else ()),
        )


def partition(templates: list[Template], shares: dict[str, float], rng: random.Random) -> dict[str, list[Template]]:
    """Share the templates out: each goes to one split, each group of like ones in the given shares.

    Groups are (kind, intent, tone), so that every split gets wordings of each; what frames a core is grouped by
    its rarest slot too, or a split might have next to no phone number.
    """
    groups: dict[tuple[str, str | None, str, str], list[Template]] = defaultdict(list)
    for template in templates:
        rare = "" if template.intent else next((slot for slot in RARE_SLOTS if f"{{{slot}}}" in template.text), "")
        groups[template.kind, template.intent, template.tone, rare].append(template)
    banks: dict[str, list[Template]] = {split: [] for split in shares}
    for group in groups.values():
        shuffled = rng.sample(group, len(group))
        sizes = _sizes(len(group), shares)
        for split, size in sizes.items():
            banks[split] += [shuffled.pop() for _ in range(size)]
    return banks


def _sizes(total: int, shares: dict[str, float]) -> dict[str, int]:
    """Whole numbers near `total * share`, at least one a split, summing to `total`.

    A group smaller than the number of splits goes to the first split whole.
    """
    first = next(iter(shares))
    if total < len(shares):
        return {first: total}
    sizes = {split: max(1, round(total * share)) for split, share in shares.items() if split != first}
    return {first: total - sum(sizes.values()), **sizes}


def render(template: Template, filler: SlotFiller, rng: random.Random) -> list[Piece]:
    """Fill a template: choices first, then slots; the sentence begins with a capital unless an entity stands there."""
    text = CHOICE.sub(lambda found: rng.choice(found.group(1).split("|")), template.text)
    pieces: list[Piece] = []
    start = 0
    for slot in SLOT.finditer(text):
        if slot.start() > start:
            pieces.append(Piece(text[start : slot.start()]))
        pieces += _distinct(filler, slot.group(1), text[: slot.start()], pieces)
        start = slot.end()
    if start < len(text):
        pieces.append(Piece(text[start:]))
    head = pieces[0]
    if head.label is None and template.kind != "tail":
        pieces[0] = Piece(head.text[:1].upper() + head.text[1:], fixed=head.fixed)
    return pieces


def _distinct(filler: SlotFiller, slot: str, before: str, pieces: list[Piece]) -> list[Piece]:
    """A value for the slot that the sentence does not hold already, as far as a few tries find one."""
    taken = {piece.text for piece in pieces if piece.label}
    value = filler.fill(slot, before=before)
    for _ in range(10):
        if not any(piece.text in taken for piece in value):
            break
        value = filler.fill(slot, before=before)
    return value
