"""Noise that real messages have: casing, missing punctuation, typos.

It is applied piece by piece, before offsets are taken, so that spans stay exact.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace

from demo_corpus.slots import Piece

NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo",
    "j": "hk", "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "w", "r": "et",
    "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
SHORTHANDS = {
    "please": "pls",
    "you": "u",
    "your": "ur",
    "are": "r",
    "because": "cos",
    "and": "&",
    "thanks": "thx",
    "message": "msg",
}
PUNCTUATION = re.compile(r"[.,!?;:\"()]+")
LONG_WORD = re.compile(r"[^\W\d_]{4,}")


def add_noise(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """The pieces with the noise of one writer: at most one casing, then each other kind by its own chance."""
    if rng.random() < 0.30:
        for _ in range(rng.choice((1, 1, 2, 3))):
            pieces = _with_typo(pieces, rng)
    if rng.random() < 0.06:
        pieces = _map_unlabelled(pieces, _shorten)
    if rng.random() < 0.08:
        pieces = _map_unlabelled(pieces, _without_apostrophes)
    if rng.random() < 0.13:
        pieces = _map_unlabelled(pieces, lambda text: PUNCTUATION.sub("", text))
    casing = rng.random()
    if casing < 0.18:
        return [replace(piece, text=piece.text.lower()) for piece in pieces]
    if casing < 0.24:
        return [replace(piece, text=piece.text.upper()) for piece in pieces]
    return pieces


def _map_unlabelled(pieces: list[Piece], change: Callable[[str], str]) -> list[Piece]:
    """Change the text outside entities and fixed pieces."""
    return [piece if piece.label or piece.fixed else replace(piece, text=change(piece.text)) for piece in pieces]


def _without_apostrophes(text: str) -> str:
    """Without apostrophes, but for the one that keeps a name apart from its "s"."""
    return re.sub(r"(?<!^)'", "", text)


def _shorten(text: str) -> str:
    """Text-message spelling of some words."""
    return re.sub(r"\b[a-z]+\b", lambda word: SHORTHANDS.get(word.group(), word.group()), text)


def _with_typo(pieces: list[Piece], rng: random.Random) -> list[Piece]:
    """One typo in one longer word, in or outside an entity; the first letter stays."""
    places = [
        (position, word)
        for position, piece in enumerate(pieces)
        if not piece.fixed
        for word in LONG_WORD.finditer(piece.text)
    ]
    if not places:
        return pieces
    position, word = rng.choice(places)
    piece = pieces[position]
    changed = piece.text[: word.start()] + _misspell(word.group(), rng) + piece.text[word.end() :]
    return [*pieces[:position], replace(piece, text=changed), *pieces[position + 1 :]]


def _misspell(word: str, rng: random.Random) -> str:
    """Swap, drop, double or mistype one letter after the first."""
    at = rng.randrange(1, len(word) - 1)
    kind = rng.choice(("swap", "drop", "double", "mistype"))
    if kind == "swap":
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind == "drop":
        return word[:at] + word[at + 1 :]
    if kind == "double":
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice(NEIGHBOURS.get(word[at], word[at])) + word[at + 1 :]
