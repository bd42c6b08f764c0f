"""Damaged and hostile checkpoints, made from a good one: bytes flipped, files cut, JSON mutated."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**31, 10**18, 1e308, "", "x", "../x", "/etc/passwd", "\x00", "a\nb", [], {}, [[]], [None], {"a": 1},
)  # fmt: skip


def flip(data: bytes, random: random.Random) -> bytes:
    """One to four bytes changed."""
    made = bytearray(data)
    for _ in range(random.randint(1, 4)):
        place = random.randrange(len(made))
        made[place] ^= random.randint(1, 255)
    return bytes(made)


def cut(data: bytes, random: random.Random) -> bytes:
    """The beginning only, possibly nothing."""
    return data[: random.randrange(len(data))]


def grown(data: bytes, random: random.Random) -> bytes:
    """Bytes put in somewhere."""
    place = random.randrange(len(data) + 1)
    return data[:place] + random.randbytes(random.randint(1, 64)) + data[place:]


def mutated(data: bytes, random: random.Random) -> bytes:
    """JSON with one entry replaced, removed or renamed."""
    tree = json.loads(data)
    places = list(_places(tree))
    node, key = random.choice(places)
    what = random.randrange(3)
    if what == 0:
        node[key] = random.choice(VALUES)
    elif what == 1:
        del node[key]
    elif isinstance(node, dict):
        node[f"{key}{random.choice('xX_')}"] = node.pop(key)
    else:
        node.insert(key, node[key])
    return json.dumps(tree).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    stack = [tree]
    while stack:
        node = stack.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            yield node, key
            stack.append(node[key])


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip": flip,
    "cut": cut,
    "grow": grown,
    "mutate": mutated,
}


def damage(file: Path, content: bytes, random: random.Random) -> str:
    """Write a damaged `content` to `file`; says which damage it was."""
    kinds = list(DAMAGES) if file.suffix == ".json" else ["flip", "cut", "grow"]
    kind = random.choice(kinds)
    file.write_bytes(DAMAGES[kind](content, random))
    return f"{kind} {file.name}"
