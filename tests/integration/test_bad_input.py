"""Bad input: one clear message with place and cure, exit code 2, never a traceback.

Each case changes a good recipe or its data and runs the command line. Most run `main()` in this process (the program itself, minus
the seconds of starting Python); some run as a subprocess to see that nothing else reaches the streams.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mtl_nlp.cli import main
from mtl_nlp.hub.checkpoint import write_checksums
from mtl_nlp.schema import dump_yaml
from tests.conftest import write_jsonl

ROOT = Path(__file__).resolve().parents[2]
Change = Callable[[dict[str, Any], Path], Any]


def call(arguments: list[str], capsys: Any, monkeypatch: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the program."""
    monkeypatch.setattr(sys, "argv", ["mtl-nlp", *arguments])
    code = 0
    try:
        main()
    except SystemExit as left:
        code = int(left.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def task(recipe: dict[str, Any], i: int = 0) -> dict[str, Any]:
    return recipe["tasks"][i]


def set_task(i: int = 0, **values: Any) -> Change:
    return lambda recipe, data: task(recipe, i).update(values)


def set_data(i: int = 0, **values: Any) -> Change:
    return lambda recipe, data: task(recipe, i)["data"].update(values)


def set_training(**values: Any) -> Change:
    return lambda recipe, data: recipe["training"].update(values)


def set_key(**values: Any) -> Change:
    return lambda recipe, data: recipe.update(values)


def rows(name: str, lines: list[dict[str, Any]]) -> Change:
    return lambda recipe, data: write_jsonl(data / "sent" / f"{name}.jsonl", lines)


def raw(path: str, content: bytes) -> Change:
    return lambda recipe, data: (data / path).write_bytes(content)


def remove(path: str) -> Change:
    return lambda recipe, data: (data / path).unlink()


GOOD = {"text": "good film", "label": "positive"}
BAD = {"text": "bad film", "label": "negative"}

RECIPE_CASES: dict[str, tuple[Change, list[str]]] = {
    "unknown key": (set_key(mixtur={"batch": 8}), ["recipe.yaml:", "mixtur", "unknown key", 'Did you mean "mixture"']),
    "unknown nested key": (set_key(mixture={"bach": 8}), ["recipe.yaml:", "mixture.bach", 'Did you mean "batch"']),
    "wrong type": (set_key(mixture={"batch": "many"}), ["recipe.yaml:", "mixture.batch", '"many"', "a whole number"]),
    "batch of nothing": (set_key(mixture={"batch": 0}), ["mixture.batch", "found 0", "greater than or equal to 1"]),
    "unknown strategy": (set_key(mixture={"strategy": "fair"}), ["mixture.strategy", '"fair"', "proportional"]),
    "cold temperature": (
        set_key(mixture={"strategy": "temperature", "temperature": 0.5}),
        ["mixture.temperature", "0.5"],
    ),
    "rates of an unknown corpus": (
        set_key(mixture={"strategy": "fixed", "rates": {"sent": 1, "nre": 1}}),
        ["mixture.rates", "nre"],
    ),
    "a negative rate": (
        set_key(mixture={"strategy": "fixed", "rates": {"sent": 1, "ner": -1}}),
        ["recipe.yaml:", "mixture.rates.ner", "-1", "≥ 0"],
    ),
    "rates that sum to zero": (
        set_key(mixture={"strategy": "fixed", "rates": {"sent": 0, "ner": 0}}),
        ["recipe.yaml:", "mixture.rates", "every weight is 0"],
    ),
    "a corpus without a rate": (
        set_key(mixture={"strategy": "fixed", "rates": {"sent": 1}}),
        ["mixture.rates", 'no rate for corpus "ner"'],
    ),
    "rates that nobody reads": (
        set_key(mixture={"rates": {"sent": 1, "ner": 1}}),
        ["recipe.yaml:", "mixture.rates", 'given with strategy "proportional"', "fixed"],
    ),
    "a cap below one": (set_key(mixture={"strategy": "capped", "cap": 0}), ["mixture.cap", "found 0"]),
    "capped without a cap": (set_key(mixture={"strategy": "capped"}), ["recipe.yaml:", "mixture.cap", "missing"]),
    "a temperature that nobody reads": (
        set_key(mixture={"temperature": 5.0}),
        ["recipe.yaml:", "mixture.temperature", 'given with strategy "proportional"', "adaptive_loss"],
    ),
    "a batch that does not divide": (
        lambda recipe, data: (
            set_key(mixture={"batch": 7})(recipe, data),
            set_training(gradient_accumulation_steps=2)(recipe, data),
        ),
        ["recipe.yaml:", "mixture.batch", "7 texts do not divide", "6 or 8"],
    ),
    "a tolerance that nobody waits for": (
        set_key(stopping={"tolerance": 0.1}),
        ["recipe.yaml:", "stopping.tolerance", "needs a patience"],
    ),
    "a learning rate below zero": (
        set_training(learning_rate=-1.0),
        ["recipe.yaml:", "training.learning_rate", "found -1", "a number from 0"],
    ),
    "no step": (set_training(max_steps=0), ["recipe.yaml:", "training.max_steps", "found 0", "or -1"]),
    "bf16 of another kind": (
        set_training(bf16="maybe"),
        ["recipe.yaml:", "training.bf16", "found 'maybe'", "true or false or auto"],
    ),
    "pos_weight where there is one label": (
        set_task(loss={"pos_weight": 2.0}),
        ["recipe.yaml:", "tasks.0.loss.pos_weight", "does not fit head sequence_classification", "remove the key"],
    ),
    "one label only": (
        rows("train", [GOOD] * 8),
        ["recipe.yaml:", "sent.labels", "one label only, 'positive'", "at least two"],
    ),
    "no pass at all": (set_key(mixture={"max_passes": 0}), ["mixture.max_passes", "found 0"]),
    "passes that do not fill a batch": (
        set_key(mixture={"max_passes": 1, "batch": 512}),
        ["recipe.yaml:", "mixture.max_passes", "not one batch of 512", "mixture.batch"],
    ),
    "a schedule of another strategy": (
        set_key(mixture={"schedule": [{"at": 0.0, "temperature": 1.0}]}),
        ["recipe.yaml:", "mixture.schedule", "annealed"],
    ),
    "a schedule that goes back": (
        set_key(mixture={"strategy": "annealed", "schedule": [{"at": a, "temperature": 2.0} for a in (0.5, 0.2)]}),
        ["recipe.yaml:", "mixture.schedule.1.at", "0.2 after 0.5"],
    ),
    "a schedule of an unknown task": (
        set_key(mixture={"strategy": "annealed", "schedule": [{"at": 0.0, "rates": {"sent": 1, "nre": 1}}]}),
        ["recipe.yaml:", "mixture.schedule.0.rates.nre", "unknown task", 'Did you mean "ner"'],
    ),
    "a reference of an unknown task": (
        set_key(mixture={"strategy": "adaptive_metric", "reference": {"snet": 0.9}}),
        ["recipe.yaml:", "mixture.reference.snet", "sent, ner"],
    ),
    "learning from evaluations that there are not": (
        set_key(mixture={"strategy": "adaptive_metric"}),
        ["recipe.yaml:", "mixture.strategy", "eval_strategy"],
    ),
    "stopping per task without patience": (
        lambda r, d: (r.update(stopping={"per_task": True}), r["training"].update(eval_strategy="epoch")),
        ["recipe.yaml:", "stopping.per_task", "patience"],
    ),
    "stopping per task without evaluation": (
        set_key(stopping={"per_task": True, "patience": 2}),
        ["recipe.yaml:", "stopping.patience", "eval_strategy"],
    ),
    "redistributing what is not freed": (
        set_key(stopping={"freed": "redistribute"}),
        ["recipe.yaml:", "stopping.freed", "per_task"],
    ),
    "cooling down where nobody is retired": (
        set_key(stopping={"cooldown": 0.2}),
        ["recipe.yaml:", "stopping.cooldown", "per_task"],
    ),
    "a cool-down longer than the run": (set_key(stopping={"cooldown": 2}), ["stopping.cooldown", "found 2"]),
    "an unknown way to free": (set_key(stopping={"freed": "spend"}), ["stopping.freed", '"spend"', "redistribute"]),
    "a budget of nothing": (set_key(stopping={"budget": {"tokens": 0}}), ["stopping.budget.tokens", "found 0"]),
    "a budget of something else": (set_key(stopping={"budget": {"euros": 9}}), ["stopping.budget.euros", "minutes"]),
    "no tasks": (set_key(tasks=[]), ["recipe.yaml:", "tasks", "at least 1"]),
    "tasks missing": (lambda recipe, data: recipe.pop("tasks"), ["tasks", "missing"]),
    "duplicate task": (lambda r, d: r["tasks"].append(dict(r["tasks"][0])), ["recipe.yaml:", '"sent" stands 2 times']),
    "task that does not exist": (
        lambda r, d: r["tasks"].append("sst3"),
        ["recipe.yaml:", 'no task "sst3"', 'mean "sst2"'],
    ),
    "task file that does not exist": (lambda r, d: r["tasks"].append("own/x.yaml"), ["own/x.yaml", "not found"]),
    "task that is a number": (lambda r, d: r["tasks"].append(7), ["recipe.yaml:", "tasks"]),
    "unknown head": (set_task(head="token_clasification"), ["recipe.yaml:", 'mean "token_classification"']),
    "head missing": (lambda r, d: task(r).pop("head"), ["recipe.yaml:", "head", "missing"]),
    "task name with a space": (set_task(name="my task"), ["recipe.yaml:", "tasks.0.name", '"my task"']),
    "a label given as a YAML boolean": (
        set_task(labels=[True, "negative"]),
        ["recipe.yaml:", "tasks.0.labels.0", "true (a boolean)", 'quotes: "true"'],
    ),
    "a label given as a number": (set_task(labels=[1, "negative"]), ["tasks.0.labels.0", "found 1", "quotes"]),
    "a label twice": (set_task(labels=["a", "a"]), ["recipe.yaml:", "more than once", "a"]),
    "tags for types": (set_task(1, labels=["B-PER", "I-PER"]), ["B-PER", "entity types"]),
    "scheme of a sentence task": (set_task(scheme="iob2"), ["recipe.yaml:", "tasks.0.scheme: is for token tasks"]),
    "unknown scheme": (set_task(1, scheme="bilo"), ["tasks.1.scheme", '"bilo"', "bioes"]),
    "unknown metric": (set_task(metrics=["acuracy"]), ["recipe.yaml:", 'metric "acuracy"', "accuracy"]),
    "metric of another kind": (set_task(metrics=["span_f1"]), ["sent.metrics", "does not fit", "accuracy"]),
    "column role missing": (set_data(columns={"text": "text"}), ["recipe.yaml:", "needs the role label"]),
    "unknown column role": (set_data(columns={"txt": "text", "label": "label"}), ["columns.txt", "unknown key"]),
    "source missing": (lambda r, d: task(r)["data"].pop("source"), ["recipe.yaml", "sent.data.source", "missing"]),
    "a refused training argument": (
        set_training(per_device_train_batch_size=4),
        ["recipe.yaml:", "per_device_train_batch_size", "mixture.batch"],
    ),
    "an unknown training argument": (
        set_training(learning_rat=1e-3),
        ["training.learning_rat", 'mean "learning_rate"'],
    ),
    "a learning rate in quotes": (set_training(learning_rate="1e-3"), ["training.learning_rate", "without quotes"]),
    "a strategy that does not exist": (set_training(eval_strategy="sometimes"), ["training", "sometimes"]),
    "accumulation that does not divide": (
        set_training(gradient_accumulation_steps=3),
        ["mixture.batch", "do not divide"],
    ),
    "best metric that does not exist": (
        set_training(metric_for_best_model="eval_f2"),
        ["metric_for_best_model", "eval_mean"],
    ),
    "stopping without evaluation": (set_key(stopping={"patience": 2}), ["stopping.patience", "eval_strategy"]),
    "freezing too many layers": (
        lambda r, d: r.update(encoder={"name": r["encoder"], "freeze": 9}),
        ["encoder.freeze", "found 9", "0 to 2"],
    ),
    "rows longer than the encoder": (
        lambda r, d: r.update(encoder={"name": r["encoder"], "max_length": 4096}),
        ["encoder.max_length", "64"],
    ),
    "encoder that does not exist": (
        set_key(encoder="no-such/encoder"),
        ["encoder", "no-such/encoder", "cannot be loaded"],
    ),
    "output_dir missing": (lambda r, d: r.pop("output_dir"), ["output_dir", "--output"]),
    "output_dir not empty": (
        lambda r, d: ((d / "run").mkdir(), (d / "run" / "x").touch()),
        ["run", "not empty", "--resume"],
    ),
    "output_dir is a file": (lambda r, d: (d / "run").touch(), ["run", "is a file"]),
}

DATA_CASES: dict[str, tuple[Change, list[str]]] = {
    "missing file": (set_data(source="nowhere.jsonl"), ["recipe.yaml:", "nowhere.jsonl", "not found"]),
    "missing folder": (set_data(source="./nowhere/train.csv"), ["nowhere", "not exist"]),
    "a folder without splits": (
        lambda r, d: (d / "e").mkdir() or task(r)["data"].update(source="./e"),
        ["no split", "train.*"],
    ),
    "no training split": (remove("sent/train.jsonl"), ["sent has no training split"]),
    "wrong column": (
        set_data(columns={"text": "sentence", "label": "label"}),
        ["recipe.yaml:", "no column sentence", "text, label"],
    ),
    "empty file": (raw("sent/train.jsonl", b""), ["train.jsonl", "empty"]),
    "file of blank lines": (raw("sent/train.jsonl", b"\n\n"), ["train.jsonl"]),
    "unreadable encoding": (
        raw("sent/train.jsonl", b'{"text": "ok", "label": "a"}\n{"text": "caf\xe9", "label": "b"}\n'),
        ["train.jsonl:2", "0xe9 is not UTF-8", "iconv"],
    ),
    "broken JSON": (
        raw("sent/train.jsonl", b'{"text": "a", "label": "b"}\n{"text": \n'),
        ["train.jsonl:2", "not valid JSON"],
    ),
    "JSON of mixed types": (rows("train", [GOOD, {"text": "x", "label": 3}]), ["train.jsonl:2", "label", "one type"]),
    "a list in place of an object": (
        raw("sent/train.jsonl", b'{"text": "a", "label": "b"}\n[1]\n'),
        ["train.jsonl:2", "list"],
    ),
    "unknown label in train": (
        lambda r, d: (
            task(r).update(labels=["positive", "negative"]),
            rows("train", [GOOD, BAD, {"text": "x", "label": "so"}])(r, d),
        ),
        ["train.jsonl:3", 'unknown label "so"', "positive, negative"],
    ),
    "unknown label in validation": (
        lambda r, d: (
            task(r).update(labels=["positive", "negative"]),
            rows("validation", [{"text": "x", "label": "so"}])(r, d),
        ),
        ["validation.jsonl:1", 'unknown label "so"'],
    ),
    "one label only": (rows("train", [GOOD, GOOD]), ["label"]),
    "label code out of range": (
        lambda r, d: (
            task(r).update(labels=["a", "b"]),
            [rows(s, [{"text": "x", "label": i} for i in (0, 1, 7)])(r, d) for s in ("train", "validation", "test")],
        ),
        ["train.jsonl:3", "label code 7", "0 to 1"],
    ),
    "no row annotated": (rows("train", [{"text": "x", "label": ""}] * 3), ["label"]),
    "CoNLL line with too few columns": (
        raw("ner/train.conll", b"anna\tB-PER\nruns\n\nbob\tB-PER\n"),
        ["train.conll:2", "too few columns", "2 columns"],
    ),
    "CoNLL with a malformed tag": (
        raw("ner/train.conll", b"anna\tB-PER\nbob\tPER\n"),
        ["train.conll:", "PER", "B-TYPE"],
    ),
    "BIOES tags declared as IOB2": (
        raw("ner/train.conll", b"anna\tS-PER\nruns\tO\n"),
        ["train.conll:1", "S-PER", "bioes"],
    ),
    "CoNLL without words": (raw("ner/train.conll", b"\n\n"), ["train.conll", "no word"]),
    "unknown file ending": (
        lambda r, d: ((d / "x.xlsx").write_bytes(b"x"), task(r)["data"].update(source="./x.xlsx")),
        ["x.xlsx", ".xlsx", ".csv"],
    ),
    "two files for a split": (
        lambda r, d: (d / "sent" / "train.csv").write_text("text,label\n"),
        ["several files for train"],
    ),
    "filter on an unknown column": (set_data(filter={"lang": "en"}), ["recipe.yaml:", "lang", "text, label"]),
    "filter that keeps nothing": (set_data(filter={"label": "x"}), ["empty"]),
    "Hub unreachable": (
        lambda r, d: task(r)["data"].update(source="stanfordnlp/sst2"),
        ["recipe.yaml:", "stanfordnlp/sst2", "--data-root"],
    ),
}


def run_case(
    change: Change, wanted: list[str], recipe: dict[str, Any], data: Path, capsys: Any, monkeypatch: Any
) -> None:
    change(recipe, data)
    (data / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    code, out, err = call(["train", str(data / "recipe.yaml")], capsys, monkeypatch)
    assert code == 2, err
    assert err.startswith("error: "), err
    assert "Traceback" not in err
    assert out == ""
    for fragment in wanted:
        assert fragment in err, (fragment, err)
    assert not (data / "run" / "config.json").exists()


@pytest.mark.parametrize("name", RECIPE_CASES)
def test_recipe(name: str, recipe: dict[str, Any], data: Path, capsys: Any, monkeypatch: Any) -> None:
    run_case(*RECIPE_CASES[name], recipe, data, capsys, monkeypatch)


@pytest.mark.parametrize("name", DATA_CASES)
def test_data(name: str, recipe: dict[str, Any], data: Path, capsys: Any, monkeypatch: Any) -> None:
    run_case(*DATA_CASES[name], recipe, data, capsys, monkeypatch)


def test_all_faults_of_a_recipe_in_one_run(recipe: dict[str, Any], data: Path, capsys: Any, monkeypatch: Any) -> None:
    for change in (set_key(sed=1), set_task(head="x"), set_task(1, scheme="y"), set_key(mixture={"batch": "z"})):
        change(recipe, data)
    (data / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    code, _, err = call(["train", str(data / "recipe.yaml")], capsys, monkeypatch)
    assert code == 2
    assert len(err.strip().splitlines()) == 4
    assert all(word in err for word in ("sed", '"x"', '"y"', '"z"'))


FILES: dict[str, tuple[bytes | None, list[str]]] = {
    "no recipe": (None, ["recipe.yaml", "not found"]),
    "not YAML": (b"tasks: [a\nb: c", ["recipe.yaml:2", "not valid YAML"]),
    "a list": (b"- a\n- b\n", ["recipe.yaml", "a mapping"]),
    "an empty recipe": (b"", ["recipe.yaml", "an empty file"]),
    "a key twice": (b"seed: 1\nseed: 2\ntasks: [sst2]\n", ["recipe.yaml:2", "seed"]),
    "Latin-1": (b"seed: 1\n# caf\xe9\n", ["recipe.yaml:2", "not UTF-8"]),
}


@pytest.mark.parametrize("name", FILES)
def test_recipe_file(name: str, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    content, wanted = FILES[name]
    if content is not None:
        (tmp_path / "recipe.yaml").write_bytes(content)
    code, out, err = call(
        ["train", str(tmp_path / "recipe.yaml"), "--output", str(tmp_path / "o")], capsys, monkeypatch
    )
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    for fragment in wanted:
        assert fragment in err, (fragment, err)


@pytest.mark.parametrize(
    ("sets", "wanted"),
    [
        ("learning_rate", ["--set", "KEY=VALUE"]),
        ("tasks.nre.head=x", ["--set", 'nothing called "nre"', "sent, ner"]),
        ("training.learning_rate=fast", ["training.learning_rate", "fast"]),
        ("mixture.bath=3", ["mixture.bath", 'mean "batch"']),
    ],
)
def test_set(sets: str, wanted: list[str], recipe: dict[str, Any], data: Path, capsys: Any, monkeypatch: Any) -> None:
    (data / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    code, _, err = call(["train", str(data / "recipe.yaml"), "--set", sets], capsys, monkeypatch)
    assert code == 2
    for fragment in wanted:
        assert fragment in err, (fragment, err)


CHECKPOINTS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "no folder": (lambda folder: None, ["no such folder"]),
    "an empty folder": (lambda folder: folder.mkdir(), ["not a checkpoint", "config.json"]),
    "a plain model": (
        lambda folder: (folder.mkdir(), (folder / "config.json").write_text('{"model_type": "bert"}')),
        ["plain bert model"],
    ),
    "a broken config": (
        lambda folder: (folder.mkdir(), (folder / "config.json").write_text("{")),
        ["config.json", "JSON"],
    ),
    "no weights": (
        lambda folder: (folder.mkdir(), (folder / "config.json").write_text('{"model_type": "mtl_nlp"}')),
        ["model.safetensors"],
    ),
    "a pickle": (
        lambda f: (
            f.mkdir(),
            (f / "config.json").write_text('{"model_type": "mtl_nlp"}'),
            (f / "pytorch_model.bin").touch(),
        ),
        ["pytorch_model.bin", "pickle"],
    ),
    "an unfinished run": (
        lambda f: [
            ((f / "checkpoint-3").mkdir(parents=True, exist_ok=True), (f / "checkpoint-3" / n).write_text("{}"))
            for n in ("mtl_state.json", "trainer_state.json")
        ],
        ["not finished", "--resume", "checkpoint-3"],
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_folder_that_is_no_checkpoint(name: str, command: str, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    make, wanted = CHECKPOINTS[name]
    make(tmp_path / "model")
    extra = ["--text", "a text"] if command == "predict" else []
    code, out, err = call([command, str(tmp_path / "model"), *extra], capsys, monkeypatch)
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    for fragment in wanted:
        assert fragment in err, (fragment, err)


@pytest.fixture
def run(recipe: dict[str, Any], data: Path, capsys: Any, monkeypatch: Any) -> Path:
    """A finished run with checkpoints, its recipe beside it."""
    recipe["training"].update(save_strategy="steps", save_steps=3)
    (data / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    assert call(["train", str(data / "recipe.yaml")], capsys, monkeypatch)[0] == 0
    return data / "run"


def resumed(run: Path, capsys: Any, monkeypatch: Any, *extra: str) -> str:
    code, _, err = call(["train", str(run.parent / "recipe.yaml"), "--resume", *extra], capsys, monkeypatch)
    assert code == 2, err
    assert "Traceback" not in err
    return err


def test_recipe_changed_on_resume(run: Path, capsys: Any, monkeypatch: Any) -> None:
    err = resumed(run, capsys, monkeypatch, "--set", "training.learning_rate=1e-5", "--set", "seed=4")
    assert all(word in err for word in ("training.learning_rate", "1e-05", "0.001", "seed", "checkpoint-6", "--output"))


def test_data_changed_on_resume(run: Path, capsys: Any, monkeypatch: Any) -> None:
    with (run.parent / "sent" / "train.jsonl").open("a") as handle:
        handle.write(json.dumps(GOOD) + "\n")
    err = resumed(run, capsys, monkeypatch)
    assert "33 training texts, 32 when the run was started" in err


def test_resume_state_damaged(run: Path, capsys: Any, monkeypatch: Any) -> None:
    (run / "checkpoint-6" / "mtl_state.json").write_text("{")
    assert "mtl_state.json cannot be read" in resumed(run, capsys, monkeypatch)


def test_damaged_weights(run: Path, capsys: Any, monkeypatch: Any) -> None:
    weights = run / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, _, err = call(["evaluate", str(run)], capsys, monkeypatch)
    assert code == 2
    assert "model.safetensors: damaged" in err


def test_a_later_format_version(run: Path, capsys: Any, monkeypatch: Any) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "format_version": 9}))
    code, _, err = call(["evaluate", str(run)], capsys, monkeypatch)
    assert code == 2
    assert "format_version: written by a later mtl-nlp, in format 9 → 1" in err


def test_weights_of_another_model(run: Path, capsys: Any, monkeypatch: Any) -> None:
    config = json.loads((run / "config.json").read_text())
    config["tasks"][0]["name"] = "tone"
    (run / "config.json").write_text(json.dumps(config))
    code, _, err = call(["evaluate", str(run)], capsys, monkeypatch)
    assert code == 2
    assert "config.json: damaged" in err
    write_checksums(run)
    code, _, err = call(["evaluate", str(run)], capsys, monkeypatch)
    assert code == 2
    assert "weights missing: heads.tone." in err


def test_a_full_disk(recipe: dict[str, Any], data: Path) -> None:
    """A file-size limit stands for a full disk: the write fails in the same place."""
    recipe["training"].update(save_strategy="steps", save_steps=2)
    (data / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))\n"
        f"sys.argv = ['mtl-nlp', 'train', {str(data / 'recipe.yaml')!r}]\n"
        "from mtl_nlp.cli import main\n"
        "main()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HF_DATASETS_CACHE": str(data / "cache")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    assert not list((data / "run").glob("checkpoint-*"))


def test_as_a_subprocess_nothing_else_reaches_the_streams(recipe: dict[str, Any], data: Path) -> None:
    recipe["tasks"][0]["data"]["source"] = "nowhere.csv"
    (data / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "mtl_nlp", "train", str(data / "recipe.yaml")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
