"""Hostile folders get a clear refusal: each case says what somebody put there, and what is said about it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mtl_nlp
from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import load_model, load_tokenizer
from mtl_nlp.model.files import MAX_DEPTH, MAX_TASKS, write_checksums
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.task import Task

ROOT = Path(__file__).resolve().parents[2]
IDS = torch.tensor([[2, 70, 71, 72, 3]])


@pytest.fixture(scope="module")
def good(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    tasks = [
        Task(name="mood", head="sequence_classification", labels=["bad", "good"]),
        Task(name="ner", head="token_classification", labels=["LOC", "PER"]),
    ]
    torch.manual_seed(0)
    model = MultiTaskModel.from_encoder(str(tiny_encoder), tasks)
    model.save_pretrained(folder / "whole")
    model.save_pretrained(folder / "shards", max_shard_size="40KB")
    for name in ("whole", "shards"):
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tiny_encoder / file, folder / name / file)
        write_checksums(folder / name)
    return folder


def changed(file: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """The JSON of a file changed, with checksums that fit."""

    def do(folder: Path) -> None:
        data = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(change(data) or data))
        write_checksums(folder)

    return do


def weights(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """The weights changed, with checksums that fit."""

    def do(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        write_checksums(folder)

    return do


def written(file: str, content: bytes) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        (folder / file).write_bytes(content)
        write_checksums(folder)

    return do


def link(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("/etc/passwd")


def offsets(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-4])
    write_checksums(folder)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/mtl-nlp-was-run",)


WEIGHT = "encoder.embeddings.word_embeddings.weight"
CASES: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "a weight is missing": (weights(lambda s: s.pop(WEIGHT)), ["weights missing", WEIGHT]),
    "a weight is left over": (weights(lambda s: s.update(extra=torch.ones(1))), ["unexpected weights: extra"]),
    "a weight has another shape": (
        weights(lambda s: s.update({WEIGHT: torch.ones(3, 2)})),
        [f"{WEIGHT} has shape [3, 2], the model [164, 32]"],
    ),
    "a weight of whole numbers": (
        weights(lambda s: s.update({WEIGHT: s[WEIGHT].long()})),
        [f"{WEIGHT} holds I64"],
    ),
    "NaN": (weights(lambda s: s[WEIGHT].fill_(float("nan"))), [WEIGHT, "NaN or infinity"]),
    "infinity": (weights(lambda s: s[WEIGHT][3].fill_(float("inf"))), [WEIGHT, "NaN or infinity"]),
    "a pickle under another name": (
        written("model.safetensors", pickle.dumps(Evil())),
        ["a pickle under another name"],
    ),
    "a zip under another name": (
        written("model.safetensors", b"PK\x03\x04" + b"0" * 99),
        ["a pickle under another name"],
    ),
    "a huge header": (written("model.safetensors", (2**40).to_bytes(8, "little") + b"{}"), ["header is damaged"]),
    "a header of 2^64": (written("model.safetensors", b"\xff" * 64), ["header is damaged"]),
    "an empty file": (written("model.safetensors", b""), ["header is damaged"]),
    "a header that is a list": (written("model.safetensors", b"\x02" + b"\0" * 7 + b"[]"), ["header is damaged"]),
    "offsets beyond the file": (offsets, ["cannot be loaded"]),
    "another file beside": (
        lambda f: shutil.copy(f / "model.safetensors", f / "more.safetensors"),
        ["left over: more"],
    ),
    "deep JSON": (
        written("config.json", b'{"model_type": "mtl_nlp", "a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        ["nested too deep"],
    ),
    "JSON that is rather deep": (
        changed("config.json", lambda c: c.update(a=json.loads("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2)))),
        ["nested too deep"],
    ),
    "huge JSON": (written("config.json", b'{"model_type": "mtl_nlp", "a": "' + b"x" * (65 << 20) + b'"}'), ["bytes"]),
    "a number that is none": (written("config.json", b'{"model_type": "mtl_nlp", "a": NaN}'), ["NaN is no number"]),
    "code in config.json": (
        changed("config.json", lambda c: c.update(auto_map={"AutoModel": "evil.Model"})),
        ["auto_map", "a checkpoint can name no code to run"],
    ),
    "code of the encoder": (
        changed("config.json", lambda c: c["encoder_config"].update(auto_map={"AutoModel": "a/b--evil.Model"})),
        ["auto_map", "a checkpoint can name no code to run"],
    ),
    "a kernel to download": (
        changed("config.json", lambda c: c.update(attn_implementation="somebody/kernel")),
        ["attn_implementation", "a checkpoint can name no code to run"],
    ),
    "code of the tokenizer": (
        changed("tokenizer_config.json", lambda c: c.update(auto_map={"AutoTokenizer": ["evil.T", None]})),
        ["auto_map", "a checkpoint can name no code to run"],
    ),
    "a file elsewhere": (
        changed("tokenizer_config.json", lambda c: c.update(vocab_file="/etc/passwd")),
        ["vocab_file", "names the file '/etc/passwd'"],
    ),
    "another model to load": (written("adapter_config.json", b"{}"), ["names another model to load"]),
    "an unknown encoder": (
        changed("config.json", lambda c: c["encoder_config"].update(model_type="evil")),
        ["encoder_config", "evil"],
    ),
    "a billion layers": (
        changed("config.json", lambda c: c["encoder_config"].update(num_hidden_layers=10**9)),
        ["encoder_config.num_hidden_layers", "at most 1000"],
    ),
    "a billion positions": (
        changed("config.json", lambda c: c["encoder_config"].update(max_position_embeddings=10**9)),
        ["has shape [64, 32], the model [1000000000, 32]"],
    ),
    "a billion words": (changed("config.json", lambda c: c["encoder_config"].update(vocab_size=10**9)), ["has shape"]),
    "too many tasks": (
        changed("config.json", lambda c: c.update(tasks=c["tasks"] * MAX_TASKS)),
        [f"found {2 * MAX_TASKS} tasks → a list of 1 to {MAX_TASKS} tasks"],
    ),
    "a task twice": (changed("config.json", lambda c: c.update(tasks=c["tasks"] * 2)), ["mood, ner more than once"]),
    "no tasks": (changed("config.json", lambda c: c.update(tasks=[])), ["found 0 tasks"]),
    "tasks that are none": (changed("config.json", lambda c: c.update(tasks=[3, "x"])), ["config.json"]),
    "a task's name with a path": (changed("config.json", lambda c: c["tasks"][0].update(name="../x")), ["name"]),
    "a head that is none": (changed("config.json", lambda c: c["tasks"][0].update(head="os:system")), ["os:system"]),
    "a label with control characters": (
        changed("config.json", lambda c: c["tasks"][0].update(labels=["bad", "good\x1b[2J"])),
        ["control characters", "x1b"],
    ),
    "a label that turns the writing": (
        changed("config.json", lambda c: c["tasks"][0].update(labels=["bad", "\u202edoog"])),
        ["control characters", "u202e"],
    ),
    "a later format": (
        changed("config.json", lambda c: c.update(format_version=2, mtl_nlp_version="0.9.1")),
        ["format_version", "written by a later mtl-nlp, in format 2", 'pip install "mtl-nlp>=0.9.1"'],
    ),
    "a later format of a hostile version": (
        changed("config.json", lambda c: c.update(format_version=2, mtl_nlp_version="0; rm -rf ~")),
        ["install the newest version"],
    ),
    "a link out of the folder": (link, ["a link that leads out of the folder, to /etc/passwd"]),
    "no checksums": (lambda f: (f / "checksums.json").unlink(), ["no checksums.json"]),
    "checksums with a path": (
        lambda f: (f / "checksums.json").write_text('{"../../etc/passwd": "0"}'),
        ["not a table of checksums"],
    ),
    "checksums of nothing": (lambda f: (f / "checksums.json").write_text("{}"), ["config.json: has no checksum"]),
    "a changed configuration": (
        lambda f: (f / "config.json").write_text((f / "config.json").read_text().replace("gelu", "relu")),
        ["config.json: damaged: its checksum is another"],
    ),
}
SHARDS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "a shard above": (
        changed("model.safetensors.index.json", lambda i: i["weight_map"].update({WEIGHT: "../evil.safetensors"})),
        ["names the file '../evil.safetensors'"],
    ),
    "a shard that is a pickle": (
        changed("model.safetensors.index.json", lambda i: i["weight_map"].update({WEIGHT: "pytorch_model.bin"})),
        ["names the file 'pytorch_model.bin'"],
    ),
    "a shard that is not there": (
        changed("model.safetensors.index.json", lambda i: i["weight_map"].update({WEIGHT: "a.safetensors"})),
        ["missing: a.safetensors"],
    ),
    "a shard is gone": (lambda f: sorted(f.glob("*.safetensors"))[0].unlink(), ["missing: model-00001-of"]),
    "no table": (written("model.safetensors.index.json", b"{}"), ["no table of shards"]),
    "both forms": (
        lambda f: shutil.copy(sorted(f.glob("*.safetensors"))[0], f / "model.safetensors"),
        ["both model.safetensors and model.safetensors.index.json"],
    ),
}


@pytest.mark.parametrize("form", ["whole", "shards"])
def test_the_good_one_loads_in_every_dtype(form: str, good: Path) -> None:
    from transformers import AutoModel

    ours = load_model(good / form)
    auto = AutoModel.from_pretrained(good / form)
    assert type(auto) is MultiTaskModel
    assert all(torch.equal(ours(IDS).logits[t], auto(IDS).logits[t]) for t in ("mood", "ner"))
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        narrow = mtl_nlp.MultiTaskModel.from_pretrained(good / form, dtype=dtype)
        assert all(torch.equal(a.to(dtype), b) for a, b in zip(ours.parameters(), narrow.parameters(), strict=True))


def refusal(folder: Path) -> str:
    def load() -> None:
        load_model(folder)
        load_tokenizer(folder)

    with pytest.raises(UserError) as error:
        load()
    return str(error.value)


@pytest.mark.parametrize("name", CASES)
def test_hostile_folders(name: str, good: Path, tmp_path: Path) -> None:
    change, wanted = CASES[name]
    folder = tmp_path / "it"
    shutil.copytree(good / "whole", folder)
    change(folder)
    said = refusal(folder)
    assert all(part in said for part in wanted), said
    assert not Path("/tmp/mtl-nlp-was-run").exists()


@pytest.mark.parametrize("name", SHARDS)
def test_hostile_shards(name: str, good: Path, tmp_path: Path) -> None:
    change, wanted = SHARDS[name]
    folder = tmp_path / "it"
    shutil.copytree(good / "shards", folder)
    change(folder)
    said = refusal(folder)
    assert all(part in said for part in wanted), said


def test_automodel_refuses_alike(good: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    shutil.copytree(good / "whole", tmp_path / "it")
    weights(lambda s: s.pop(WEIGHT))(tmp_path / "it")
    with pytest.raises(UserError, match="weights missing"):
        AutoModel.from_pretrained(tmp_path / "it")
    with pytest.raises(UserError, match="ignore_mismatched_sizes"):
        AutoModel.from_pretrained(good / "whole", ignore_mismatched_sizes=True)


@pytest.mark.parametrize("first", ["mtl_nlp", "transformers"])
def test_importing_the_package_is_enough_for_automodel(first: str, good: Path) -> None:
    """In a fresh process, whichever of the two comes first; and importing ours alone loads neither torch nor transformers."""
    ours = "import mtl_nlp, sys\nassert first != 'mtl_nlp' or not {'torch', 'transformers'} & set(sys.modules)\n"
    theirs = "from transformers import AutoModel\n"
    code = f"first = {first!r}\n" + (ours + theirs if first == "mtl_nlp" else theirs + ours)
    code += f"print(type(AutoModel.from_pretrained({str(good / 'whole')!r})).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "MultiTaskModel", done.stderr


def test_a_link_inside_the_hubs_cache_is_fine(good: Path, tmp_path: Path) -> None:
    """A snapshot is made of links to the repository's own blobs."""
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / ("0" * 40)
    shutil.copytree(good / "whole", blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert torch.equal(load_model(snapshot)(IDS).logits["mood"], load_model(good / "whole")(IDS).logits["mood"])
