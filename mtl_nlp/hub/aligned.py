"""Weight files whose tensors begin where memory is aligned.

Loading maps the file, and a product of few rows adds up in another order where its weights do not begin at a multiple of 64
bytes: a loaded one-output head then differs from the saved one in its last bit. The format asks for no order of tensors, so
those that keep the alignment come first.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

LINE = 64  # bytes; what torch's own memory is aligned to
CHUNK = 1 << 22


def align_weights(folder: Path) -> None:
    """Rewrite every safetensors file of a folder, each by way of a temporary file."""
    for path in sorted(folder.glob("*.safetensors")):
        _align(path)


def _align(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    with path.open("rb") as source, temporary.open("wb") as target:
        size = int.from_bytes(source.read(8), "little")
        header: dict[str, Any] = json.loads(source.read(size))
        begin = 8 + size
        places = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
        order = sorted(places, key=lambda name: ((places[name][1] - places[name][0]) % LINE != 0, places[name][0]))
        end, moved = 0, dict(header)
        for name in order:
            length = places[name][1] - places[name][0]
            moved[name] = {**header[name], "data_offsets": [end, end + length]}
            end += length
        text = json.dumps(moved, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
        text += b" " * (-(8 + len(text)) % LINE)
        target.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            source.seek(begin + places[name][0])
            left = places[name][1] - places[name][0]
            while left > 0:
                piece = source.read(min(CHUNK, left))
                target.write(piece)
                left -= len(piece)
    os.replace(temporary, path)
