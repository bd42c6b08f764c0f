"""From templates to annotated messages: quotas of (intent, sentiment), the parts of a message, its text and offsets."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from demo_corpus.noise import add_noise
from demo_corpus.slots import Piece, SlotFiller
from demo_corpus.templates import SENTIMENT_LABELS, Template, render

# Shares of the intents, unequal on purpose.
INTENT_SHARES = {
    "track_order": 0.120, "refund_request": 0.110, "payment_issue": 0.100, "delivery_delay": 0.085,
    "product_question": 0.080, "complaint": 0.080, "technical_problem": 0.070, "account_access": 0.065,
    "cancel_order": 0.055, "subscription_change": 0.050, "booking_change": 0.040, "praise": 0.040,
    "invoice_request": 0.035, "change_address": 0.030, "report_fraud": 0.020, "speak_to_agent": 0.020,
}  # fmt: skip
# Shares of negative, neutral and positive within an intent.
SENTIMENT_SHARES = {
    "complaint": (0.66, 0.20, 0.14), "praise": (0.14, 0.20, 0.66), "product_question": (0.22, 0.48, 0.30),
    "delivery_delay": (0.46, 0.30, 0.24), "track_order": (0.34, 0.38, 0.28),
}  # fmt: skip
USUAL_SHARES = (0.40, 0.35, 0.25)
OPPOSITE = {"negative": "positive", "positive": "negative"}
MOST_TRIES = 200


@dataclass(frozen=True)
class Entity:
    """A span of characters `[start, end)` with its label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Message:
    """One annotated text; `None` is a missing annotation, an empty tuple of entities says that there are none.

    `templates` names what it was made from; it is not written to the files.
    """

    text: str
    sentiment: str | None
    intent: str | None
    entities: tuple[Entity, ...] | None
    templates: tuple[str, ...]


def cells(total: int) -> list[tuple[str, str]]:
    """(intent, sentiment) of each of `total` messages, each pair at least once."""
    counts: dict[tuple[str, str], int] = {}
    for intent, share in INTENT_SHARES.items():
        parts = SENTIMENT_SHARES.get(intent, USUAL_SHARES)
        for sentiment, part in zip(SENTIMENT_LABELS, parts, strict=True):
            counts[intent, sentiment] = max(1, round(total * share * part))
    largest = max(counts, key=lambda cell: counts[cell])
    counts[largest] += total - sum(counts.values())
    return [cell for cell, count in counts.items() for _ in range(count)]


class Composer:
    """Writes the messages of one split from its own templates and slot values."""

    def __init__(self, templates: list[Template], filler: SlotFiller, rng: random.Random) -> None:
        self._templates = templates
        self._filler = filler
        self._rng = rng

    def compose(self, total: int, seen: set[str]) -> list[Message]:
        """`total` messages, shuffled.

        A text that is in `seen` (case and punctuation apart) is drawn again; `seen` grows.
        """
        plan = cells(total)
        self._rng.shuffle(plan)
        return [self._fresh(intent, sentiment, seen) for intent, sentiment in plan]

    def _fresh(self, intent: str, sentiment: str, seen: set[str]) -> Message:
        for _ in range(MOST_TRIES):
            message = self._message(intent, sentiment)
            key = "".join(sign for sign in message.text.casefold() if sign.isalnum())
            if key not in seen:
                seen.add(key)
                return message
        raise RuntimeError(f"no new message of {intent}, {sentiment} in {MOST_TRIES} tries: too few templates")

    def _message(self, intent: str, sentiment: str) -> Message:
        parts = self._parts(intent, sentiment)
        pieces: list[Piece] = []
        before = ""
        for part in parts:
            tail = part.kind == "tail"
            if tail:
                pieces[-1] = replace(pieces[-1], text=pieces[-1].text.removesuffix("."))
            filled = render(part, self._filler, self._rng)
            if before == "connector":
                filled[0] = _continued(filled[0])
            pieces += filled if tail or not pieces else [Piece(" "), *filled]
            before = part.kind
        text, entities = assemble(add_noise(pieces, self._rng))
        return Message(text, sentiment, intent, entities, tuple(part.name for part in parts))

    def _parts(self, intent: str, sentiment: str) -> list[Template]:
        """The templates of one message, in order."""
        core = self._core(intent, sentiment)
        before, after = self._clauses(core, sentiment)
        if self._happens(0.20):
            side = before if self._happens(0.4) else after
            # After a tail, which belongs to the core, and ahead of the clause that carries the tone.
            place = len(before) if side is before else sum(part.kind == "tail" for part in after)
            side.insert(place, self._pick("background", "neutral", intent))
        greeting = [self._pick("greeting", "neutral", intent)] if self._happens(0.40) else []
        closing = [self._pick("closing", "neutral", intent)] if self._happens(0.32) else []
        return [*greeting, *before, core, *after, *closing]

    def _core(self, intent: str, sentiment: str) -> Template:
        """A core that carries the tone itself (three times in ten, where there is one), else a neutral one."""
        toned = [part for part in self._templates if part.intent == intent and part.tone == sentiment]
        if sentiment != "neutral" and toned and self._happens(0.3):
            return self._rng.choice(toned)
        return self._pick("core", "neutral", intent)

    def _clauses(self, core: Template, sentiment: str) -> tuple[list[Template], list[Template]]:
        """The clauses of tone before and after the core; where two tones meet the last one has it."""
        intent = core.intent or ""
        bare = sentiment == "neutral" or core.tone != "neutral"
        if not bare and self._happens(0.10):
            turn = [self._pick("connector", "neutral", intent), self._pick("after", sentiment, intent)]
            return [self._pick("before", OPPOSITE[sentiment], intent)], turn
        before: list[Template] = []
        after: list[Template] = []
        if not bare or self._happens(0.45):
            self._place(before, after, core, sentiment)
        if self._happens(0.15):
            self._place(before, after, core, sentiment if self._happens(0.5) else "neutral")
        return before, after

    def _place(self, before: list[Template], after: list[Template], core: Template, tone: str) -> None:
        """Add one clause of this tone in a place that is free, if there is one."""
        intent = core.intent or ""
        kinds = [kind for kind, free in (("before", not before), ("after", not after), ("after", not after)) if free]
        if not after and core.text.endswith(".") and core.tone == "neutral":
            kinds.append("tail")
        if kinds:
            kind = self._rng.choice(kinds)
            (before if kind == "before" else after).append(self._pick(kind, tone, intent))

    def _pick(self, kind: str, tone: str, intent: str) -> Template:
        own = intent if kind == "core" else None
        return self._rng.choice(
            [
                part
                for part in self._templates
                if part.kind == kind and part.tone == tone and part.intent == own and part.fits(intent)
            ]
        )

    def _happens(self, chance: float) -> bool:
        return self._rng.random() < chance


def _continued(piece: Piece) -> Piece:
    """The first piece of a sentence that goes on after a connector: small first letter, "I" apart."""
    if piece.label or re.match(r"I\b", piece.text):
        return piece
    return replace(piece, text=piece.text[:1].lower() + piece.text[1:])


def assemble(pieces: list[Piece]) -> tuple[str, tuple[Entity, ...]]:
    """Join pieces into one text with single spaces, and say where its entities are.

    An entity loses its last full stop ("Hans-J."), which could not be told from that of the sentence.
    """
    text = ""
    entities: list[Entity] = []
    for piece in pieces:
        surface = re.sub(r"\s+", " ", piece.text)
        if piece.label is None:
            text += surface.lstrip() if not text or text.endswith(" ") else surface
            continue
        surface = surface.strip().rstrip(".")
        entities.append(Entity(len(text), len(text) + len(surface), piece.label))
        text += surface
    return text.rstrip(), tuple(entities)
