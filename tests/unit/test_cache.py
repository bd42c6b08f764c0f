"""The cache: what it gives is what was read, it notices what changed and what is damaged, and it stays where it was told."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtl_nlp.data.cache import DataCache, digest
from mtl_nlp.errors import FaultyInput
from mtl_nlp.recipe import make_recipe
from mtl_nlp.training.finetune import finetune
from mtl_nlp.training.prepare import Prepared, prepare
from tests.conftest import ENTITIES, SENTIMENT, write_conll, write_jsonl


@pytest.fixture
def cached(recipe: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The recipe with a cache of its own; one corpus carves its validation split."""
    (tmp_path / "sent" / "validation.jsonl").unlink()
    return {**recipe, "cache": str(tmp_path / "cache")}


def read(recipe: dict[str, Any], caplog: pytest.LogCaptureFixture) -> tuple[Prepared, list[str]]:
    """The prepared run, and what was said of the cache."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="mtl_nlp"):
        prepared = prepare(make_recipe(recipe))
    return prepared, [record.getMessage() for record in caplog.records if "cache" in record.getMessage()]


def assert_same(first: Prepared, second: Prepared) -> None:
    """Everything that a run reads."""
    assert [task.model_dump() for task in first.tasks] == [task.model_dump() for task in second.tasks]
    for ours, theirs in zip(first.corpora, second.corpora, strict=True):
        assert (ours.name, ours.reads, ours.carved, ours.notes) == (
            theirs.name,
            theirs.reads,
            theirs.carved,
            theirs.notes,
        )
        for split, part in ours.splits.items():
            other = theirs.splits[split]
            assert part.data.features == other.data.features
            assert part.data.to_list() == other.data.to_list()
            assert list(part.source_rows) == other.source_rows
            assert part.counts == other.counts
            assert [part.where(row) for row in (0, len(part) - 1)] == [other.where(row) for row in (0, len(other) - 1)]
            assert (part.filtered, part.unannotated) == (other.filtered, other.unannotated)
    for split, corpora in first.encoded.items():
        for name, encoded in corpora.items():
            other_rows = second.encoded[split][name]
            assert encoded.rows.to_list() == other_rows.rows.to_list()
            assert encoded.gold == other_rows.gold
            for array in ("offsets", "lengths", "word_counts"):
                assert np.array_equal(getattr(encoded, array), getattr(other_rows, array))


def test_what_comes_from_the_cache_is_what_was_read(cached: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    plain, said = read({**cached, "cache": "off"}, caplog)
    assert said == []
    first, said = read(cached, caplog)
    assert said == []
    again, said = read(cached, caplog)
    assert [line for line in said if line.startswith("sent")] == [
        f"sent: texts from the cache {cached['cache']}",
        f"sent (train): {len(plain.encoded['train']['sent'])} texts, tokenised, from the cache",
        "sent (test): 8 texts, tokenised, from the cache",
        f"sent (validation): {len(plain.encoded['validation']['sent'])} texts, tokenised, from the cache",
    ]
    assert len(said) == 8
    assert_same(plain, first)
    assert_same(plain, again)


def test_a_run_on_cached_rows_gives_the_same_weights_and_tells_nobody_of_the_folder(cached: dict[str, Any]) -> None:
    sums = []
    for run in ("cold", "warm"):
        folder = Path(cached["output_dir"]).parent / run
        result = finetune({**cached, "output_dir": str(folder)})
        sums.append(digest(result.folder / "model.safetensors"))
        resolved = (folder / "recipe.resolved.yaml").read_text(encoding="utf-8")
        assert "\ncache:" not in resolved
        assert cached["cache"] not in resolved
    assert sums[0] == sums[1]


def test_changed_contents_are_noticed_though_size_and_time_are_the_same(
    cached: dict[str, Any], data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read(cached, caplog)
    path = data / "sent" / "train.jsonl"
    before = path.stat()
    path.write_text(path.read_text(encoding="utf-8").replace("great", "awful"), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    again, said = read(cached, caplog)
    assert [line.split(":")[0].split(" ")[0] for line in said] == ["ner"] * 4
    assert_same(again, read({**cached, "cache": "off"}, caplog)[0])


@pytest.mark.parametrize(
    ("change", "texts", "rows"),
    [
        ({"encoder": {"max_length": 9}}, True, False),
        ({"seed": 5}, False, False),  # carves another split, and the sources of both corpora are read with it
        ({"mixture": {"batch": 4}, "training": {"max_steps": 2}, "performance": "plain"}, True, True),
    ],
)
def test_what_matters_is_in_the_fingerprint_and_nothing_else(
    cached: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    change: dict[str, Any],
    texts: bool,
    rows: bool,
) -> None:
    read(cached, caplog)
    if "encoder" in change:
        change = {"encoder": {"name": cached["encoder"], **change["encoder"]}}
    _, said = read({**cached, **change}, caplog)
    assert any("texts from the cache" in line for line in said) is texts
    assert any("tokenised" in line for line in said) is rows


def test_another_task_definition_is_another_entry(cached: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    read(cached, caplog)
    sent, ner = cached["tasks"]
    smaller = {**sent, "data": {**sent["data"], "rows": 10}}
    prepared, said = read({**cached, "tasks": [smaller, ner]}, caplog)
    assert not any(line.startswith("sent") for line in said)
    assert len(prepared.encoded["train"]["sent"]) < 10


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "manifest"])
def test_a_damaged_entry_is_noticed_and_built_anew(
    cached: dict[str, Any], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    good, _ = read(cached, caplog)
    folders = [path for path in Path(cached["cache"]).iterdir() if (path / "rows.arrow").is_file()]
    assert len(folders) == 6
    for folder in folders:
        file = folder / ("entry.json" if damage == "manifest" else "rows.arrow")
        content = bytearray(file.read_bytes())
        if damage == "missing":
            file.unlink()
            continue
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    again, said = read(cached, caplog)
    assert sum("is damaged" in line and "built anew" in line for line in said) == 6
    assert_same(good, again)
    _, said = read(cached, caplog)
    assert sum("tokenised" in line for line in said) == 6


def test_an_interrupted_write_leaves_no_entry(tmp_path: Path) -> None:
    kept = DataCache(tmp_path / "cache")

    def fails(folder: Path) -> None:
        (folder / "half").write_text("…", encoding="utf-8")
        raise OSError(28, "No space left on device")

    kept.store("key", "rows", fails)
    assert list(kept.folder.iterdir()) == []
    assert kept.find("key", "rows") is None
    kept.store("key", "rows", lambda folder: (folder / "a").write_text("a", encoding="utf-8") and None)
    assert kept.find("key", "rows") == kept.folder / "key"


def test_what_nobody_takes_is_removed(tmp_path: Path) -> None:
    kept = DataCache(tmp_path)
    for key in ("old", "new"):
        kept.store(key, key, lambda folder: None)
    os.utime(tmp_path / "old" / "entry.json", (0, 0))
    (tmp_path / "tmp-left").mkdir()
    os.utime(tmp_path / "tmp-left", (0, 0))
    kept.store("third", "third", lambda folder: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "third"]


def test_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.delenv("MTL_NLP_CACHE")
    home = Path(datasets.config.HF_DATASETS_CACHE).expanduser()
    assert DataCache.of("auto", tmp_path).folder == home / "mtl_nlp"  # type: ignore[union-attr]
    monkeypatch.setenv("MTL_NLP_CACHE", str(tmp_path / "there"))
    assert DataCache.of("auto", tmp_path).folder == tmp_path / "there"  # type: ignore[union-attr]
    assert DataCache.of("here", tmp_path).folder == tmp_path / "here"  # type: ignore[union-attr]
    assert DataCache.of("off", tmp_path) is None
    monkeypatch.setenv("MTL_NLP_CACHE", "off")
    assert DataCache.of("auto", tmp_path) is None
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(FaultyInput, match="cache: is a file"):
        DataCache.of("file", tmp_path)


def test_data_in_memory_is_read_each_time(recipe: dict[str, Any], tmp_path: Path) -> None:
    task = {"name": "sent", "head": "sequence_classification"}
    settings = {**recipe, "tasks": [task], "cache": str(tmp_path / "cache")}
    prepared = prepare(make_recipe(settings, memory=["sent"]), memory={"sent": {"train": SENTIMENT}})
    assert prepared.corpora[0].key is None
    assert not (tmp_path / "cache").exists()


def test_streams_of_files_are_kept_too(cached: dict[str, Any], data: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_jsonl(data / "more" / "train.jsonl", SENTIMENT * 3)
    write_conll(data / "ner" / "train.conll", ENTITIES)
    sent = cached["tasks"][0]
    streamed = {**sent, "data": {**sent["data"], "source": str(data / "more"), "streaming": True, "rows": 40}}
    settings = {**cached, "tasks": [streamed]}
    first, _ = read(settings, caplog)
    again, said = read(settings, caplog)
    assert said[0].startswith("sent: texts from the cache")
    assert_same(first, again)
    manifest = json.loads(next(Path(cached["cache"]).glob("*/entry.json")).read_text(encoding="utf-8"))
    assert manifest.keys() == {"what", "files"}
