"""Publishing and loading against a real HTTP server that speaks the Hub's protocol, with the unmodified client."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.model.files import write_checksums
from mtl_nlp.schema import dump_yaml
from mtl_nlp.training.finetune import finetune
from tests.conftest import ENTITIES, SENTIMENT, write_jsonl
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]
DATA = {
    "sent": SENTIMENT,
    "ner": [{"tokens": [word for word, _ in s], "labels": [tag for _, tag in s]} for s in ENTITIES],
}


def client(hub: HubServer, home: Path, steps: list[dict[str, Any]], *, token: str | None = "hf_anna") -> list[Any]:
    """What the steps gave in one process with one cache."""
    environment = {**hub.environment(home, token=token), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.hub_client"],
        input=json.dumps(steps),
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def succeeded(answer: Any) -> Any:
    """The output of a step that must not fail."""
    assert answer["code"] == 0, answer["err"]
    return answer["out"]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def checkpoint(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two tasks, its data beside it."""
    folder = tmp_path_factory.mktemp("pushed")
    for name, rows in DATA.items():
        for split in ("train", "validation", "test"):
            write_jsonl(folder / name / f"{split}.jsonl", rows[:8])
    recipe = {
        "encoder": str(tiny_encoder),
        "tasks": [
            {
                "name": "sent",
                "head": "sequence_classification",
                "data": {"columns": {"text": "text", "label": "label"}},
            },
            {
                "name": "ner",
                "head": "token_classification",
                "data": {"columns": {"tokens": "tokens", "labels": "labels"}},
            },
        ],
        "mixture": {"batch": 8},
        "training": {"max_steps": 2, "learning_rate": 1e-2, "save_strategy": "no", "eval_strategy": "no"},
        "output_dir": str(folder / "run"),
    }
    for task in recipe["tasks"]:
        task["data"]["source"] = str(folder / task["name"])
    return finetune(recipe).folder


MODEL = {
    "README.md",
    "checksums.json",
    "config.json",
    "metrics.json",
    "model.safetensors",
    "recipe.resolved.yaml",
    "tokenizer.json",
    "tokenizer_config.json",
}

LOAD = """
import mtl_nlp, torch
from transformers import AutoModel
from mtl_nlp.hub.checkpoint import load_model
here = load_model({folder!r})
there = [AutoModel.from_pretrained("anna/two", dtype=torch.float32), mtl_nlp.MultiTaskModel.from_pretrained("anna/two@main"),
         load_model("anna/two")]
ids = torch.randint(5, 100, (3, 9), generator=torch.Generator().manual_seed(0))
same = [torch.equal(here(ids).logits[t], model(ids).logits[t]) for model in there for t in ("sent", "ner")]
scores = mtl_nlp.score_checkpoint("anna/two")
local = mtl_nlp.score_checkpoint({folder!r})
answers = mtl_nlp.Predictor.from_pretrained("anna/two")(["anna is in london"])
result = [same, scores == local, list(answers[0]["predictions"])]
"""

EDIT = """
from huggingface_hub import HfApi
from pathlib import Path
api = HfApi()
card = Path(api.hf_hub_download("anna/two", "README.md")).read_text()
card = card.replace("## Limits", "Written by Anna.\\n\\n## Limits").replace("library_name:", "license: mit\\nlibrary_name:")
result = api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="anna/two").oid
"""


def test_push_and_load_by_name_and_revision(checkpoint: Path, hub: HubServer, tmp_path: Path) -> None:
    folder = str(checkpoint)
    first, loaded, shown, predicted, scored, edit, second, old, unknown = client(
        hub,
        tmp_path,
        [
            {"run": ["push", folder, "anna/two", "--message", "the first"]},
            {"python": LOAD.format(folder=folder)},
            {"run": ["show", "anna/two", "--json"]},
            {"run": ["predict", "anna/two", "--text", "anna is in london"]},
            {"run": ["evaluate", "anna/two", "--json"]},
            {"python": EDIT},
            {"run": ["push", folder, "anna/two"]},
            {"run": ["show", "anna/two@main", "--json"]},
            {"run": ["predict", "anna/two@nothing", "--text", "anna"]},
        ],
    )
    repo = hub.repo("anna/two")
    assert succeeded(first).startswith(f"{hub.url}/anna/two/commit/")
    assert succeeded(loaded) == [[True] * 6, True, ["sent", "ner"]]
    assert json.loads(succeeded(shown))["commit"] == first["out"].strip().split("/")[-1]
    assert [task["name"] for task in json.loads(shown["out"])["tasks"]] == ["sent", "ner"]
    assert json.loads(succeeded(predicted))["predictions"]["sent"]["label"] in ("positive", "negative")
    assert json.loads(succeeded(scored))["mean"] is not None
    succeeded(edit), succeeded(second), succeeded(old)
    assert repo.log() == [
        "Upload sent, ner (mtl-nlp)",
        "Upload README.md with huggingface_hub",
        "the first",
        "initial commit",
    ]
    assert set(repo.files()) == MODEL
    card = repo.files()["README.md"].decode()
    assert "Written by Anna.\n\n## Limits" in card
    assert "license: mit" in card
    assert 'Predictor.from_pretrained("anna/two")' in card
    assert unknown["code"] == 2
    assert (
        'anna/two@nothing: no such folder, and as a name on the Hub: the repository has no revision "nothing"'
        in unknown["err"]
    )


def test_private_repositories_branches_and_refusals(checkpoint: Path, hub: HubServer, tmp_path: Path) -> None:
    folder = str(checkpoint)
    part = tmp_path / "part"
    shutil.copytree(checkpoint, part)
    (part / "metrics.json").unlink()
    (part / "tokenizer.json").unlink()
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    weights = bytearray((broken / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (broken / "model.safetensors").write_bytes(weights)
    hub.create("anna/public")
    made, nobody, other, owner, branch, exists, no_token, not_mine, not_whole, damaged, no_name = client(
        hub,
        tmp_path,
        [
            {"run": ["push", folder, "anna/secret", "--private"]},
            {"run": ["predict", "anna/secret", "--text", "anna"], "token": None},
            {"run": ["predict", "anna/secret", "--text", "anna"], "token": "hf_bob"},
            {"run": ["predict", "anna/secret", "--text", "anna"]},
            {"run": ["push", folder, "anna/secret", "--branch", "dev", "--message", "on dev"]},
            {"run": ["push", folder, "anna/public", "--private"]},
            {"run": ["push", folder, "anna/other"], "token": None},
            {"run": ["push", folder, "bob/other"]},
            {"run": ["push", str(part), "anna/part"]},
            {"run": ["push", str(broken), "anna/broken"]},
            {"run": ["push", folder, "just-a-name"]},
        ],
    )
    succeeded(made)
    assert hub.repo("anna/secret").private
    assert nobody["code"] == other["code"] == 2
    assert "no such model on the Hub, or a private one and no token is given" in nobody["err"]
    assert "set HF_TOKEN" in nobody["err"]
    assert "or the token may not see it" in other["err"]
    succeeded(owner), succeeded(branch)
    assert hub.repo("anna/secret").log("dev")[0] == "on dev"
    assert hub.repo("anna/secret").log("main") == ["Upload sent, ner (mtl-nlp)", "initial commit"]
    assert "anna/public: --private: exists and is public" in exists["err"]
    assert hub.repo("anna/public").log() == ["initial commit"]
    assert "asks for a token and none is given" in no_token["err"]
    assert "bob/other: the token may not write there" in not_mine["err"]
    assert "not a whole checkpoint: tokenizer.json, metrics.json missing" in not_whole["err"]
    assert "model.safetensors: damaged" in damaged["err"]
    assert "OWNER/NAME" in no_name["err"]
    refused = (exists, no_token, not_mine, not_whole, damaged, no_name)
    assert [answer["code"] for answer in refused] == [2] * 6
    assert ("models", "anna/other") not in hub.repos
    assert "model.safetensors" not in hub.repos.get(("models", "anna/broken"), hub.repo("anna/public")).files()


@pytest.mark.parametrize("moment", ["PUT", pytest.param("commit", marks=pytest.mark.slow)])
def test_a_push_that_is_broken_off_leaves_the_earlier_revision(
    moment: str, checkpoint: Path, hub: HubServer, tmp_path: Path
) -> None:
    earlier = {path.name: path.read_bytes() for path in checkpoint.iterdir() if path.is_file()}
    repo = hub.create("anna/two", files=earlier)
    changed = tmp_path / "changed"
    shutil.copytree(checkpoint, changed)
    _double_weights(changed)
    hub.hold = moment
    process = subprocess.Popen(
        [sys.executable, "-m", "mtl_nlp", "push", str(changed), "anna/two"],
        env={**hub.environment(tmp_path), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert hub.held.wait(120), process.communicate()[1]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    hub.hold = None
    if moment == "PUT":
        assert repo.files() == earlier
        assert repo.log() == ["initial commit"]
    else:
        # The request had come whole; the Hub takes it or leaves it, but never a part.
        hub.release.set()
        assert (
            repo.files() == earlier or repo.files()["model.safetensors"] == (changed / "model.safetensors").read_bytes()
        )


def _double_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = {name: value * 2 for name, value in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_checksums(folder)


DATASET = """
from datasets import Dataset, DatasetDict
rows = {rows!r}
DatasetDict({{split: Dataset.from_list(rows) for split in ("train", "validation")}}).push_to_hub("anna/films", private=True)
"""


def test_a_pushed_data_set_feeds_a_task_and_a_run_goes_on_from_the_hub(
    hub: HubServer, tiny_encoder: Path, tmp_path: Path
) -> None:
    """train --push with hub_strategy checkpoint; the folder is lost; the run goes on from what was pushed, to equal weights."""
    task = {
        "name": "films",
        "head": "sequence_classification",
        "data": {"source": "anna/films", "columns": {"text": "text", "label": "label"}},
    }
    recipe = {
        "encoder": str(tiny_encoder),
        "tasks": [task],
        "mixture": {"batch": 4},
        "training": {
            "max_steps": 6,
            "learning_rate": 1e-3,
            "eval_strategy": "steps",
            "save_strategy": "steps",
            "eval_steps": 2,
            "save_steps": 2,
            "hub_strategy": "checkpoint",
            "hub_always_push": True,
            "load_best_model_at_end": False,
        },
        "output_dir": str(tmp_path / "whole"),
    }
    (tmp_path / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    file, half, ours = str(tmp_path / "recipe.yaml"), str(tmp_path / "half"), str(tmp_path / "ours")
    stop = (
        "from transformers import TrainerCallback\n"
        "class Stop(TrainerCallback):\n"
        "    def on_save(self, args, state, control, **kwargs):\n"
        "        if state.global_step == 4: raise KeyboardInterrupt\n"
        "from mtl_nlp import finetune, load_recipe\n"
        "try:\n"
        f"    finetune(load_recipe({file!r}, output={half!r}), push='anna/half', callbacks=[Stop()])\n"
        "except KeyboardInterrupt: result = 'stopped'\n"
    )
    pushed, whole, stopped, resumed, nothing = client(
        hub,
        tmp_path,
        [
            {"python": DATASET.format(rows=SENTIMENT[:16])},
            {"run": ["train", file, "--push", "anna/whole", "--private", "--json"]},
            {"python": stop},
            {"run": ["train", file, "--resume", "anna/half", "--output", ours, "--json"]},
            {"run": ["train", file, "--resume", "anna/films-none", "--output", half + "2"]},
        ],
    )
    succeeded(pushed)
    report = json.loads(succeeded(whole))
    repo = hub.repo("anna/whole")
    assert report["pushed"] == f"{hub.url}/anna/whole/commit/{repo.branches['main']}"
    assert repo.private
    assert repo.log()[0] == "End of training"
    assert repo.log()[-2].startswith("Training in progress, step 2")
    assert set(repo.files()) - {name for name in repo.files() if name.startswith("last-checkpoint/")} == MODEL
    assert "datasets:\n- anna/films" in repo.files()["README.md"].decode()
    assert succeeded(stopped) == "stopped"
    half_files = hub.repo("anna/half").files()
    assert {"last-checkpoint/optimizer.pt", "last-checkpoint/mtl_state.json", "model.safetensors"} <= set(half_files)
    assert not any(name.endswith((".pt", ".pth")) for name in half_files if "/" not in name)
    assert json.loads(half_files["last-checkpoint/trainer_state.json"])["global_step"] in (2, 4)
    succeeded(resumed)
    assert (tmp_path / "ours" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()
    assert nothing["code"] == 2
    assert "anna/films-none" in nothing["err"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mtl_nlp.hub.single_task") is None, reason="the exporter is not there")
def test_tasks_are_pushed_as_plain_models(checkpoint: Path, hub: HubServer, tmp_path: Path) -> None:
    code = (
        "from transformers import AutoModelForSequenceClassification as Model, AutoTokenizer\n"
        "model = Model.from_pretrained('anna/tasks', subfolder='tasks/sent')\n"
        "tokenizer = AutoTokenizer.from_pretrained('anna/tasks', subfolder='tasks/sent')\n"
        "result = [type(model).__name__, model.config.id2label[0]]\n"
    )
    pushed, loaded, again = client(
        hub,
        tmp_path,
        [
            {"run": ["push", str(checkpoint), "anna/tasks", "--with-tasks"]},
            {"python": code},
            {"run": ["push", str(checkpoint), "anna/tasks"]},
        ],
    )
    succeeded(pushed)
    assert succeeded(loaded) == ["BertForSequenceClassification", "negative"]
    assert {"tasks/sent/model.safetensors", "tasks/ner/model.safetensors"} <= set(hub.repo("anna/tasks").files())
    assert len(hub.repo("anna/tasks").log()) == 3, "one commit a push"
    assert "--with-tasks renews them" in again["err"]
