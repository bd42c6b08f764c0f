"""Which files of a folder belong together: one data set each, with its splits.

Understood are `NAME.csv`; `NAME_train.csv`, `NAME.train.jsonl`, `train_NAME.csv` with their test and validation files;
and a folder `NAME/` with `train.*`, `validation.*` and `test.*`. `no_table` looks into a file for what makes reading it
as a table pointless.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import listed
from ..task import SPLITS
from .readers import FORMATS

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "development": "validation",
    "eval": "validation",
    "test": "test",
    "testing": "test",
    "tst": "test",
}
# What lies beside data and is none.
NO_DATA = (".yaml", ".yml", ".md", ".py")
LARGEST_DOCUMENT = 20_000_000
_SHARD = re.compile(r"[-_.]\d+[-_.]of[-_.]\d+$")
_WORD = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
_FIRST = re.compile(rf"({_WORD})(?:[-_. ]+(.+))?", re.IGNORECASE)
_LAST = re.compile(rf"(.+?)[-_. ]+({_WORD})", re.IGNORECASE)


@dataclass(frozen=True)
class FileGroup:
    """One data set: its name and each split's files, `train` always among them."""

    name: str
    files: dict[str, tuple[Path, ...]]

    @property
    def first(self) -> Path:
        """The first training file."""
        return self.files["train"][0]


@dataclass
class Layout:
    """The data sets of a folder, and why each other file was left out."""

    groups: list[FileGroup] = field(default_factory=list)
    unused: list[tuple[Path, str]] = field(default_factory=list)


def split_of(stem: str) -> tuple[str, str | None]:
    """What a file's stem says: the data set's name (empty if there is none) and the split, None if it names none.

    `reviews_train` → reviews, train; `train-00000-of-00002` → "", train; `reviews` → reviews, None.
    """
    stem = _SHARD.sub("", stem)
    first = _FIRST.fullmatch(stem)
    if first is not None:
        return first[2] or "", SPLIT_WORDS[first[1].lower()]
    last = _LAST.fullmatch(stem)
    if last is not None:
        return last[1], SPLIT_WORDS[last[2].lower()]
    return stem, None


def find_groups(folder: Path) -> Layout:
    """The data sets of a folder and of the folders directly in it, sorted by name."""
    layout = Layout()
    here = _groups_in(folder, layout)
    layout.groups += [FileGroup(group.name or folder.resolve().name, group.files) for group in here]
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        groups = _groups_in(inner, layout)
        if not groups and not any(path.parent == inner for path, _ in layout.unused):
            layout.unused.append((inner, "no data file directly in this folder"))
        for group in groups:
            alone = len(groups) == 1 or not group.name
            layout.groups.append(FileGroup(inner.name if alone else f"{inner.name}_{group.name}", group.files))
    return layout


def _groups_in(folder: Path, layout: Layout) -> list[FileGroup]:
    found: dict[str, dict[str, list[Path]]] = {}
    names: dict[str, str] = {}
    whole: dict[str, list[Path]] = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
        reason = _unreadable(path)
        if reason is not None:
            layout.unused += [(path, reason)] if reason else []
            continue
        name, split = split_of(path.stem)
        key = name.casefold()
        names.setdefault(key, name)
        if split is None:
            whole.setdefault(key, []).append(path)
        else:
            found.setdefault(key, {}).setdefault(split, []).append(path)
    for key, paths in whole.items():
        if "train" in found.get(key, {}):
            kept = found[key]["train"][0].name
            layout.unused += [(path, f"{kept} is the training file of {names[key]}") for path in paths]
        else:
            found.setdefault(key, {})["train"] = paths
    groups = [group for key in sorted(found) for group in _by_ending(names[key], found[key])]
    return [group for group in (_one_file_a_split(group, layout) for group in groups) if group is not None]


def _unreadable(path: Path) -> str | None:
    """Why a file is no data file, empty if that goes without saying, None if it is one."""
    ending = path.suffix.lower()
    if ending in NO_DATA:
        return ""
    if ending not in FORMATS:
        return f'ending "{ending}" is not read; allowed: {listed(FORMATS)}'
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not UTF-8: rename it"
    return None


def _by_ending(name: str, files: dict[str, list[Path]]) -> list[FileGroup]:
    """One group, or one for each ending where a split has files of several (`reviews.csv` beside `reviews.jsonl`)."""
    endings = sorted({path.suffix.lower() for paths in files.values() for path in paths})
    if all(len({path.suffix.lower() for path in paths}) == 1 for paths in files.values()):
        return [FileGroup(name, {split: tuple(files[split]) for split in SPLITS if split in files})]
    groups = []
    for ending in endings:
        own = {split: tuple(p for p in files.get(split, ()) if p.suffix.lower() == ending) for split in SPLITS}
        label = f"{name}_{ending[1:]}".lstrip("_")
        groups.append(FileGroup(label, {split: paths for split, paths in own.items() if paths}))
    return groups


def _one_file_a_split(group: FileGroup, layout: Layout) -> FileGroup | None:
    files: dict[str, tuple[Path, ...]] = {}
    for split, paths in group.files.items():
        shards = all(_SHARD.search(path.stem) for path in paths)
        files[split] = paths if shards else paths[:1]
        layout.unused += [(path, f"{paths[0].name} is the {split} file already") for path in paths[len(files[split]) :]]
    if "train" in files:
        return FileGroup(group.name, files)
    for split, paths in files.items():
        name = split_of(paths[0].stem)[0]
        told = (
            f"a {split} file without a training file (such as {f'{name}_train' if name else 'train'}{paths[0].suffix})"
        )
        layout.unused += [(path, told) for path in paths]
    return None


def no_table(path: Path) -> str:
    """Why a readable file is no table (a text, a JSON document, another separator); empty if it may be one."""
    ending = path.suffix.lower()
    try:
        if ending in (".csv", ".tsv"):
            with path.open(encoding="utf-8-sig") as handle:
                return _wrong_separator(handle.readline(), "," if ending == ".csv" else "\t")
        if ending == ".txt" and _is_fasttext(path):
            return (
                "lines of fastText (__label__NAME, then the text): write them as a .csv with the columns label and text"
            )
        if ending == ".txt":
            return "" if _looks_conll(path) else "a text, not one word a line with its tag"
        if ending == ".json" and path.stat().st_size < LARGEST_DOCUMENT:
            text = path.read_text(encoding="utf-8-sig").strip()
            return "one JSON document, not a list of rows" if "\n" in text and isinstance(_json(text), dict) else ""
    except UnicodeDecodeError:
        pass  # `read_files` names the line
    return ""


def _wrong_separator(header: str, right: str) -> str:
    names = {",": "commas", ";": "semicolons", "\t": "tabs"}
    wrong = next((mark for mark in names if mark != right and mark in header), None)
    if right in header or wrong is None:
        return ""
    cure = "save it with commas" + (" or call it .tsv" if wrong == "\t" else "")
    return f"separated by {names[wrong]}, not {names[right]}: {cure if right == ',' else 'save it with tabs'}"


def _is_fasttext(path: Path) -> bool:
    with path.open(encoding="utf-8-sig") as handle:
        return next((line for line in handle if line.strip()), "").startswith("__label__")


def _looks_conll(path: Path) -> bool:
    """Whether nearly every line has the same number of columns, two at least."""
    with path.open(encoding="utf-8-sig") as handle:
        lines = [line for _, line in zip(range(1000), handle, strict=False) if line.strip()]
    mark = "\t" if any("\t" in line for line in lines) else None
    widths = Counter(len(line.split(mark)) for line in lines)
    width, number = widths.most_common(1)[0] if widths else (0, 0)
    return width > 1 and number >= 0.9 * len(lines)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None
