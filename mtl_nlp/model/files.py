"""What stands in a checkpoint folder, read with distrust: names, limits, checksums, and the tables of the weight files.

A folder may come from anywhere. Before a library parses any of it, this module has looked at it: links that lead out of the folder,
file names with a path in them, JSON that is too large or too deep, keys that name code, a pickle under another name, a header that
promises more than the file holds. `loading` goes on from here; nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import FaultyInput, fault, listed

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
CHECKSUMS = "checksums.json"
METRICS = "metrics.json"
HISTORY = "history.json"
CARD = "README.md"
ADAPTERS = "lora.safetensors"
STATE = "mtl_state.json"
ENSEMBLE = "ensemble.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

MODEL_TYPE = "mtl_nlp"
MAX_TASKS = 1000
MAX_JSON = 64 << 20  # bytes; the tokenizer of a large vocabulary takes some 20 MB
MAX_DEPTH = 64
MAX_HEADER = 64 << 20  # bytes of a weight file's table
MAX_LAYERS = 1000

# Not vouched for by the checksums: what users write into, and the state that a run alone reads.
UNVOUCHED = (CARD, METRICS, HISTORY, CHECKSUMS, STATE, "trainer_state.json", "training_args.bin")
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
# Each lets a file name code, or a file elsewhere, for a library to load.
CODE_KEYS = frozenset(
    {
        "auto_map",
        "custom_pipelines",
        "custom_generate",
        "attn_implementation",
        "_attn_implementation",
        "_attn_implementation_internal",
        "experts_implementation",
        "_experts_implementation",
        "quantization_config",
        "trust_remote_code",
    }
)
FLOATS = {"F64", "F32", "F16", "BF16"}
DTYPES = FLOATS | {"I64", "I32", "I16", "I8", "U8", "BOOL"}


def read_json(path: Path, most: int = MAX_JSON) -> Any:
    """A JSON file of a size and depth that a checkpoint may have.

    Raises:
        UserError: missing, too large, not UTF-8, not JSON, or nested too deep.
    """
    try:
        if path.stat().st_size > most:
            raise fault(f"{path.stat().st_size} bytes", where=str(path), allowed=f"at most {most}")
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise fault(f"cannot be read: {error.strerror}", where=str(path), cure="copy the whole folder again") from None
    except RecursionError:
        raise _too_deep(path) from None
    except ValueError as error:
        raise fault(f"not valid JSON: {_line(error)}", where=str(path), cure="copy the folder again") from None
    if any(depth > MAX_DEPTH for depth, _, _ in walk(data)):
        raise _too_deep(path)
    return data


def _too_deep(path: Path) -> FaultyInput:
    return fault("nested too deep", where=str(path), allowed=f"at most {MAX_DEPTH} levels")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def walk(data: Any) -> Iterator[tuple[int, str, Any]]:
    """(depth, key, value) of every entry of JSON data; no recursion, so that depth cannot exhaust the stack."""
    stack: list[tuple[int, Any]] = [(1, data)]
    while stack:
        depth, node = stack.pop()
        if depth > MAX_DEPTH + 1:
            continue
        entries = node.items() if isinstance(node, dict) else ((str(i), v) for i, v in enumerate(node))
        for key, value in entries if isinstance(node, dict | list) else ():
            yield depth, key, value
            if isinstance(value, dict | list):
                stack.append((depth + 1, value))


def forbid_code(data: Any, path: Path) -> None:
    """Refuse keys that name code to run or files elsewhere.

    Raises:
        UserError: such a key, by name.
    """
    for _, key, value in walk(data):
        if key in CODE_KEYS and value is not None:
            raise fault(
                "a checkpoint can name no code to run",
                where=str(path),
                key=key,
                cure="remove the key, if you trust where the checkpoint comes from",
            )
        if key.endswith("_file") and isinstance(value, str) and not is_plain_name(value):
            raise fault(f"names the file {value!r}", where=str(path), key=key, allowed="a file of the folder")


def is_plain_name(name: Any) -> bool:
    """Whether this is the name of a file in the folder itself: no path, no control character."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 255
        and name not in (".", "..")
        and re.search(r"[/\\:\x00-\x1f\x7f]", name) is None
    )


def check_links(folder: Path) -> None:
    """Refuse links that lead out of the folder (the Hub's cache, whose snapshots link to its own blobs, excepted).

    Raises:
        UserError: such a link, with where it leads.
    """
    root = folder.resolve()
    homes = [root]
    if root.parent.name == "snapshots":
        homes.append(root.parent.parent / "blobs")
    for path in folder.iterdir():
        if path.is_symlink():
            target = path.resolve()
            if not any(target.is_relative_to(home) for home in homes):
                cure = "put the file itself there, if you trust it (`cp -L`)"
                raise fault(f"a link that leads out of the folder, to {target}", where=str(path), cure=cure)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights: one, or the shards that the index names.

    Raises:
        UserError: none, both forms at once, a shard that is missing or not a file of the folder, or a file left over.
    """
    whole, index = folder / WEIGHTS, folder / INDEX
    present = {path.name for path in folder.glob("*.safetensors")}
    if index.is_file():
        if whole.is_file():
            raise fault(f"both {WEIGHTS} and {INDEX}", where=str(folder), cure="keep the one that belongs here")
        names = sorted(_shards(index))
        missing = [name for name in names if name not in present]
        if missing:
            raise fault(
                f"missing: {listed(missing, 6)}", where=str(folder), key="weight_map", cure="copy the whole folder"
            )
    elif whole.is_file():
        names = [WEIGHTS]
    else:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        cure = f"{listed(pickled)} is a pickle, which is not loaded" if pickled else "copy it there, or train again"
        raise fault(f"no {WEIGHTS}", where=str(folder), cure=cure)
    # A run that trains adapters keeps them beside its merged model, to resume from.
    own = {ADAPTERS} if (folder / STATE).is_file() else set()
    left = sorted(present - set(names) - own)
    if left:
        raise fault(f"weights left over: {listed(left, 6)}", where=str(folder), cure="remove what does not belong here")
    return [folder / name for name in names]


def _shards(index: Path) -> set[str]:
    data = read_json(index)
    table = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(table, dict) or not table:
        raise fault("no table of shards", where=str(index), key="weight_map", allowed="weight → file")
    for name in table.values():
        if not is_plain_name(name) or not name.endswith(".safetensors"):
            raise fault(
                f"names the file {name!r}", where=str(index), key="weight_map", allowed="a .safetensors file beside it"
            )
    return set(table.values())


def tensor_table(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Weight → (dtype, shape), from the header of a safetensors file.

    Raises:
        UserError: no such header, or one larger than the file or the limit.
    """
    size = path.stat().st_size
    with path.open("rb") as handle:
        start = handle.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8 or length > MAX_HEADER:
            raise _no_table(path, start)
        text = handle.read(length)
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError):
        raise _no_table(path, start) from None
    if not isinstance(header, dict):
        raise _no_table(path, start)
    table = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind = entry.get("dtype") if isinstance(entry, dict) else None
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if kind not in DTYPES or not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise fault(
                f"the entry of {name[:200]!r} in its header is not valid", where=str(path), cure="copy it again"
            )
        table[name] = (kind, tuple(shape))
    return table


def _no_table(path: Path, start: bytes) -> FaultyInput:
    if start[:4] == b"PK\x03\x04" or start[:1] == b"\x80":
        return fault("a pickle under another name", where=str(path), cure="pickles can run code and are not loaded")
    return fault("not a safetensors file: its header is damaged", where=str(path), cure="copy it again, or train again")


def write_json(path: Path, data: Any) -> None:
    """JSON, indented, by way of a temporary file."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def vouched(folder: Path) -> list[Path]:
    """The files of a model that its checksums speak for: all but those that users or a running training write into."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and path.name not in UNVOUCHED
        and not path.name.startswith((".", "tmp-"))
        and path.suffix not in PICKLES
    )


def write_checksums(folder: Path) -> None:
    """`checksums.json`: the SHA-256 of every file that makes the model what it is."""
    write_json(folder / CHECKSUMS, {path.name: sha256(path) for path in vouched(folder)})


def sha256(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as handle:
        digest = hashlib.sha256()
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_checksums(folder: Path, needed: list[str]) -> None:
    """Compare the files with their checksums; `needed` must be among them.

    Raises:
        UserError: damaged or changed; a folder without checksums is one whose writing was cut short.
    """
    path = folder / CHECKSUMS
    if not path.is_file():
        raise fault(f"no {CHECKSUMS}: its writing was cut short", where=str(folder), cure="`mtl-nlp train … --resume`")
    sums = read_json(path)
    if not isinstance(sums, dict) or not all(is_plain_name(n) and isinstance(s, str) for n, s in sums.items()):
        raise fault("not a table of checksums", where=str(path), allowed="file of this folder → SHA-256")
    for name in needed:
        if name not in sums:
            raise fault("has no checksum", where=str(folder / name), cure="copy the whole folder again")
    for name, expected in sums.items():
        if not (folder / name).is_file():
            raise fault("missing", where=str(folder / name), cure="copy the whole folder")
        if sha256(folder / name) != expected:
            raise fault(
                "damaged: its checksum is another",
                where=str(folder / name),
                cure="it was changed after it was written; copy it again, or train again",
            )
