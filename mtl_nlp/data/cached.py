"""Corpora and their encoded rows, taken from the cache where nothing has changed (`cache`).

`cached_group` stands before the reading of a source, `cached_split` before the encoding of a split. The fingerprint of the first:
the contents of the files (or that of a Hub data set's revision), the tasks' `data`, labels, scheme and words, the seed that
carves. Of the second: that, the labels as they were settled, the tokenizer, and how texts are cut. Data in memory and streams from
the Hub have no fingerprint and are read each time.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..task import Task
from .annotations import AnnotationCounts, Problem
from .cache import DataCache, digest, key_of
from .features import EncodedSplit, encode_split
from .places import Place
from .readers import Origin, read_hub
from .windows import RowEncoder

if TYPE_CHECKING:
    from datasets import Dataset

    from .sources import Corpus, CorpusSplit

logger = logging.getLogger("mtl_nlp")

Read = Callable[[], "list[Corpus]"]
ROWS = 10_000
# What of a task its texts and annotations are read by; the files of its splits are in the place.
READ_BY = ("name", "head", "scheme", "words", "labels")


def cached_group(
    cache: DataCache | None, place: Place, tasks: Sequence[Task], splits: Sequence[str], seed: int, read: Read
) -> list[Corpus]:
    """The corpora of one place: from the cache, else by `read`, and kept."""
    what = "+".join(task.name for task in tasks)
    key = None if cache is None else group_key(place, tasks, splits, seed)
    if cache is None or key is None:
        return read()
    entry = cache.find(key, what)
    if entry is not None:
        try:
            found = _load_group(entry, tasks)
        except (OSError, ValueError, KeyError, TypeError) as error:
            cache.drop(key, what, error)
        else:
            logger.info("%s: texts from the cache %s", what, cache.folder)
            return _named(found, key)
    corpora = read()
    cache.store(key, what, lambda folder: _write_group(folder, corpora))
    return _named(corpora, key)


def _named(corpora: list[Corpus], key: str) -> list[Corpus]:
    for corpus in corpora:
        corpus.key = key
    return corpora


def group_key(place: Place, tasks: Sequence[Task], splits: Sequence[str], seed: int) -> str | None:
    """The fingerprint of what `cached_group` reads; None for what has none."""
    if place.memory:
        return None
    source: dict[str, Any] = {"optional": place.optional_splits}
    try:
        for split, paths in place.files:
            source[split] = [[str(path), path.stat().st_size, digest(path)] for path in paths]
        for split, name in place.hub_splits:
            if place.hub is None or tasks[0].data.streaming:
                return None
            source[split] = [asdict(place.hub), name, _hub_fingerprint(place, split, name)]
    except (OSError, UserError):
        return None  # told by who reads it
    told = [task.model_dump(mode="json", include=set(READ_BY)) | _data_of(task) for task in tasks]
    return key_of({"source": source, "tasks": told, "splits": list(splits), "seed": seed})


def _data_of(task: Task) -> dict[str, Any]:
    data = task.data.model_dump(mode="json", exclude={"splits"})
    return {"data": data, "missing": "missing" in task.data.model_fields_set, "kind": kind_of(task.kind)}


def kind_of(kind: Any) -> str:
    """A head kind in words, without addresses in memory."""
    return (
        f"{type(kind).__module__}.{type(kind).__qualname__} {kind.annotation} {kind.input} {kind.own_rows} {kind.chain}"
    )


def _hub_fingerprint(place: Place, split: str, name: str) -> str | None:
    assert place.hub is not None
    try:
        return str(read_hub(place.hub, name, "")[0]._fingerprint)
    except UserError:
        if place.optional_splits and split != "train":
            return None
        raise


# A corpus.


def _write_group(folder: Path, corpora: Sequence[Corpus]) -> None:
    table = []
    for number, corpus in enumerate(corpora):
        splits = {}
        for split, part in corpus.splits.items():
            write_rows(part.data, folder / f"{number}-{split}.arrow")
            np.save(folder / f"{number}-{split}.npy", np.asarray(part.source_rows, dtype=np.int64), allow_pickle=False)
            splits[split] = _split_facts(part)
        tasks = [[task.name, task.labels] for task in corpus.tasks]
        facts = {"tasks": tasks, "reads": corpus.reads, "carved": corpus.carved, "notes": corpus.notes}
        table.append({"name": corpus.name, **facts, "splits": splits})
    (folder / "corpora.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")


def _split_facts(part: CorpusSplit) -> dict[str, Any]:
    origin = part.origin
    return {
        "filtered": part.filtered,
        "unannotated": part.unannotated,
        "counts": {task: _plain_counts(counts) for task, counts in part.counts.items()},
        "origin": [[str(path) for path in origin.files], origin.format, origin.name, origin.skipped_lines],
    }


def _plain_counts(counts: AnnotationCounts) -> dict[str, Any]:
    # `asdict` of a dataclass makes counters of pairs of its counters.
    told: dict[str, Any] = {field.name: getattr(counts, field.name) for field in fields(counts)}
    return told | {name: [asdict(problem) for problem in told[name]] for name in ("problems", "skipped")}


def _load_group(entry: Path, tasks: Sequence[Task]) -> list[Corpus]:
    from .sources import Corpus

    by_name, corpora = {task.name: task for task in tasks}, []
    for number, facts in enumerate(json.loads((entry / "corpora.json").read_text(encoding="utf-8"))):
        mine = [
            by_name[name].model_copy(update={"labels": labels}).placed(by_name[name]._source, by_name[name].base)
            for name, labels in facts["tasks"]
        ]
        splits = {split: _load_split(entry, f"{number}-{split}", told) for split, told in facts["splits"].items()}
        corpora.append(Corpus(facts["name"], mine, splits, facts["reads"], facts["carved"], facts["notes"]))
    return corpora


def _load_split(entry: Path, stem: str, told: Mapping[str, Any]) -> CorpusSplit:
    from datasets import Dataset

    from .sources import CorpusSplit

    files, kind, name, skipped = told["origin"]
    origin = Origin([Path(file) for file in files], kind, name, skipped_lines=skipped)
    rows = np.load(entry / f"{stem}.npy", allow_pickle=False).tolist()
    counts = {task: _counts(found) for task, found in told["counts"].items()}
    data = Dataset.from_file(str(entry / f"{stem}.arrow"))
    return CorpusSplit(data, origin, rows, counts, told["filtered"], told["unannotated"])


def _counts(told: dict[str, Any]) -> AnnotationCounts:
    problems = {name: [Problem(**one) for one in told[name]] for name in ("problems", "skipped")}
    rows = {label: (row, word) for label, (row, word) in told["unknown_rows"].items()}
    counters = {name: Counter(told[name]) for name in ("labels", "unknown")}
    return AnnotationCounts(**{**told, **problems, **counters, "unknown_rows": rows})


def write_rows(data: Dataset, path: Path) -> None:
    """A dataset, materialised, as an Arrow file that can be memory-mapped."""
    from datasets.arrow_writer import ArrowWriter

    with ArrowWriter(path=str(path), features=data.features) as writer:
        for table in data.with_format("arrow").iter(ROWS):
            writer.write_table(table)
        writer.finalize()


# Encoded rows.


def cached_split(
    cache: DataCache | None, corpus: Corpus, split: str, encoder: RowEncoder, *, scored: bool
) -> EncodedSplit:
    """One split of a corpus, encoded: from the cache, else encoded now, and kept."""
    part, what = corpus.splits[split], f"{corpus.name} ({split})"
    if cache is None or corpus.key is None:
        return encode_split(corpus, part, encoder, scored=scored)
    key = split_key(corpus, split, encoder, scored=scored)
    entry = cache.find(key, what)
    if entry is not None:
        try:
            found = _load_encoded(entry)
        except (OSError, ValueError, KeyError, TypeError) as error:
            cache.drop(key, what, error)
        else:
            logger.info("%s: %d texts, tokenised, from the cache", what, len(found))
            return found
    encoded = encode_split(corpus, part, encoder, scored=scored)
    cache.store(key, what, lambda folder: _write_encoded(folder, encoded))
    return encoded


def split_key(corpus: Corpus, split: str, encoder: RowEncoder, *, scored: bool) -> str:
    """The fingerprint of an encoded split."""
    tasks = [[task.name, task.labels, task.tag_scheme, kind_of(task.kind)] for task in corpus.tasks]
    how = [encoder.reads, encoder.max_length, encoder.stride, encoder.splitter, encoder.with_words, encoder.row_tasks]
    parts = {"corpus": corpus.key, "name": corpus.name, "split": split, "scored": scored}
    return key_of({**parts, "tasks": tasks, "how": how, "tokenizer": tokenizer_fingerprint(encoder.tokenizer)})


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """A hash of everything that turns a text into ids."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # What the last call left there.
    kept = {name: value for name, value in backend.items() if name not in ("truncation", "padding")}
    ids = [tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id]
    text = json.dumps([kept, ids, list(tokenizer.model_input_names), type(tokenizer).__name__], ensure_ascii=False)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


ARRAYS = ("offsets", "lengths", "word_counts")
NUMBERS = ("truncated", "words_without_tokens", "misaligned_spans", "dropped_spans")


def _write_encoded(folder: Path, encoded: EncodedSplit) -> None:
    write_rows(encoded.rows, folder / "rows.arrow")
    for name in ARRAYS:
        if getattr(encoded, name) is not None:
            np.save(folder / f"{name}.npy", getattr(encoded, name), allow_pickle=False)
    facts = {"gold": encoded.gold, **{name: getattr(encoded, name) for name in NUMBERS}}
    (folder / "facts.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")


def _load_encoded(entry: Path) -> EncodedSplit:
    from datasets import Dataset

    facts = json.loads((entry / "facts.json").read_text(encoding="utf-8"))
    arrays = {n: np.load(entry / f"{n}.npy", allow_pickle=False) for n in ARRAYS if (entry / f"{n}.npy").is_file()}
    return EncodedSplit(Dataset.from_file(str(entry / "rows.arrow")), **arrays, **facts)
