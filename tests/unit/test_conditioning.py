"""Conditioned runs: resumed, saved, served, extended and reduced like any other; what cannot go is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mtl_nlp.analysis.task_vectors import gramian, projected, task_vectors, vectors_of
from mtl_nlp.errors import FaultyInput, UserError
from mtl_nlp.hub.checkpoint import load_model, write_checksums
from mtl_nlp.hub.drop import drop_task
from mtl_nlp.hub.facts import facts_of
from mtl_nlp.hub.single_task import export_task
from mtl_nlp.inference.predictor import Predictor
from mtl_nlp.recipe import make_recipe
from mtl_nlp.training.add_task import add_task
from mtl_nlp.training.conditioning import row_cost
from mtl_nlp.training.finetune import build_trainer, finetune
from mtl_nlp.training.prepare import check_recipe, prepare
from tests.conftest import ENTITIES, SENTIMENT

TEXTS = [
    {
        "text": " ".join(w for w, _ in s),
        "label": row["label"],
        "spans": [{"start": 0, "end": len(s[0][0]), "label": "X"}],
    }
    for row, s in zip(SENTIMENT, ENTITIES, strict=False)
]
OTHER = [{"text": row["text"], "label": row["label"][:3]} for row in SENTIMENT]


def run_recipe(encoder: Path, output: Path, conditioning: Any, **more: Any) -> dict[str, Any]:
    """Two tasks on the same texts, and one on others."""
    training = {"max_steps": 4, "learning_rate": 1e-2, "eval_strategy": "no", "save_strategy": "steps", "save_steps": 2}
    return {
        "encoder": str(encoder),
        "tasks": [
            {
                "name": "mood",
                "head": "sequence_classification",
                "data": {"columns": {"text": "text", "label": "label"}},
            },
            {"name": "first", "head": "token_classification", "data": {"columns": {"text": "text", "spans": "spans"}}},
            {
                "name": "short",
                "head": "sequence_classification",
                "data": {"columns": {"text": "text", "label": "label"}},
            },
        ],
        "mixture": {"batch": 8},
        "conditioning": conditioning,
        "training": training | more.pop("training", {}),
        "output_dir": str(output),
        **more,
    }


def run_data() -> dict[str, Any]:
    both = {"train": TEXTS, "validation": TEXTS[:8]}
    return {"mood": both, "first": both, "short": {"train": OTHER, "validation": OTHER[:8]}}


KINDS: dict[str, Any] = {
    "vector": "vector",
    "token": {"kind": "token", "learning_rate": 0.1},
    "film": "film",
    "lora": {"kind": "lora", "r": 2, "alpha": 4.0, "dropout": 0.1},
}


@pytest.fixture(scope="module")
def runs(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each kind."""
    root = tmp_path_factory.mktemp("conditioned")
    return {
        kind: finetune(run_recipe(tiny_encoder, root / kind, value), datasets=run_data()).folder
        for kind, value in KINDS.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_resumes_bit_equal(kind: str, runs: dict[str, Path], tiny_encoder: Path, tmp_path: Path) -> None:
    made = run_recipe(tiny_encoder, tmp_path / "again", KINDS[kind])
    again = finetune(made, datasets=run_data(), resume=runs[kind] / "checkpoint-2").folder
    one, other = load_file(runs[kind] / "model.safetensors"), load_file(again / "model.safetensors")
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    learned = {name: value for name, value in one.items() if name.startswith("conditioning.tasks.")}
    assert {name.split(".")[2] for name in learned} == {"mood", "first", "short"}
    assert any(value.abs().max() > 0 for name, value in learned.items() if not name.endswith(".a"))


@pytest.mark.parametrize("kind", KINDS)
def test_all_tasks_of_a_text_share_one_pass(kind: str, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.from_pretrained(runs[kind])
    assert predictor.model.padding_free is not None
    seen: list[int] = []
    inner = predictor.model._encode
    monkeypatch.setattr(predictor.model, "_encode", lambda ids, *more: (seen.append(len(ids)), inner(ids, *more))[1])
    texts = ["anna is in london", "the food was awful", "bob"]
    found = predictor(texts, scores=True)
    assert seen == [9]  # three texts, three tasks, one pass
    plain = Predictor.from_pretrained(runs[kind], performance="plain")
    for task in ("mood", "first", "short"):
        alone = plain(texts, tasks=task, scores=True)
        for row, other in zip(found, alone, strict=True):
            one, two = row["predictions"][task], other["predictions"][task]
            if "entities" in one:
                assert [(e["start"], e["end"]) for e in one["entities"]] == [
                    (e["start"], e["end"]) for e in two["entities"]
                ]
                assert all(row["text"][e["start"] : e["end"]] == e["word"] for e in one["entities"])
            else:
                assert one["label"] == two["label"]
                assert one["score"] == pytest.approx(two["score"], abs=1e-5)


def test_the_factor_is_told(runs: dict[str, Path], tiny_encoder: Path, tmp_path: Path) -> None:
    facts = facts_of(runs["film"])
    assert (facts.conditioning, facts.rows_per_text) == ("film", 3)
    recipe = make_recipe(run_recipe(tiny_encoder, tmp_path, "film"), memory=run_data())
    prepared = prepare(recipe, memory=run_data())
    cost = row_cost(prepared, prepared.mixture())
    assert cost is not None
    # 24 texts have two annotations, 32 have one; proportional draws.
    assert cost.training == pytest.approx((24 * 2 + 32) / 56, abs=0.05)
    assert cost.prediction == 3
    metrics = json.loads((runs["film"] / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["run"]["rows_per_text"]["prediction"] == 3
    state = json.loads((runs["film"] / "checkpoint-4" / "mtl_state.json").read_text(encoding="utf-8"))
    plain = finetune(run_recipe(tiny_encoder, tmp_path / "plain", None), datasets=run_data()).folder
    without = json.loads((plain / "checkpoint-4" / "mtl_state.json").read_text(encoding="utf-8"))
    assert tokens_of(state) > tokens_of(without)
    assert "conditioning" not in json.loads((plain / "config.json").read_text(encoding="utf-8"))


def tokens_of(state: dict[str, Any]) -> int:
    return int(next(value for key, value in flat(state) if key.endswith("tokens")))


def flat(data: Any, key: str = "") -> Any:
    if isinstance(data, dict):
        for name, value in data.items():
            yield from flat(value, f"{key}.{name}")
    else:
        yield key, data


@pytest.mark.parametrize("kind", ["film", "lora"])
def test_a_task_is_added_and_dropped_without_a_trace(kind: str, runs: dict[str, Path], tmp_path: Path) -> None:
    entry = {"name": "new", "head": "sequence_classification", "data": {"columns": {"text": "text", "label": "label"}}}
    sets = ["training.max_steps=2", "training.save_strategy='no'", "training.eval_strategy='no'"]
    data = {"new": {"train": OTHER, "validation": OTHER[:8]}}
    added = add_task(
        runs[kind], entry, "frozen", output=tmp_path / "added", old_data=False, datasets=data, sets=sets
    ).folder
    before, after = load_file(runs[kind] / "model.safetensors"), load_file(added / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    gained = {name for name in after if name not in before}
    assert all(name.startswith(("heads.new.", "conditioning.tasks.new.")) for name in gained)
    assert any(after[name].abs().max() > 0 for name in gained if name.endswith((".b", ".scale")))
    assert load_model(added).conditioning.record == load_model(runs[kind]).conditioning.record  # type: ignore[union-attr]
    smaller = drop_task(added, "new", output=tmp_path / "dropped")
    again = load_file(smaller / "model.safetensors")
    assert again.keys() == before.keys()
    assert all(torch.equal(value, again[name]) for name, value in before.items())


def test_a_plain_checkpoint_can_be_conditioned_and_a_conditioned_one_goes_on(
    runs: dict[str, Path], tiny_encoder: Path, tmp_path: Path
) -> None:
    short = {"training": {"max_steps": 1, "save_strategy": "no"}}
    start = {"encoder": {"from": str(runs["vector"])}}
    made = run_recipe(tiny_encoder, tmp_path / "on", None, **short) | start
    made.pop("conditioning")
    folder = finetune(made, datasets=run_data()).folder
    assert load_model(folder).conditioning.record.kind == "vector"  # type: ignore[union-attr]
    with pytest.raises(UserError, match=r"conditioning\.kind: found film beside encoder\.from.*vector"):
        finetune(run_recipe(tiny_encoder, tmp_path / "odd", "film", **short) | start, datasets=run_data())
    # LoRA of the whole encoder beside a vector a task: merged in the end, the vectors kept.
    lora = run_recipe(tiny_encoder, tmp_path / "both", "vector", lora={"r": 2}, training={"save_strategy": "no"})
    state = load_file(finetune(lora, datasets=run_data()).folder / "model.safetensors")
    assert state["conditioning.tasks.mood.vector"].abs().max() > 0
    assert not any("lora" in name for name in state)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "wind"}, r'conditioning\.kind: found "wind"'),
        ({"r": 10**18}, r"\br\b"),
        ({"r": 3}, r"has shape"),
        ({"sites": []}, r"sites"),
        ({"sites": ["encoder.layer.0"]}, r"no such module: encoder\.layer\.0"),
        ({"sites": ["encoder.layer.0.attention.self.query"] * 2}, r"one of them twice"),
        ({"alpha": math.inf}, r"Infinity|alpha"),
        ({"more": 1}, r"more"),
    ],
)
def test_hostile_conditions_are_refused(
    changes: dict[str, Any], message: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(runs["lora"], tmp_path / "bad", ignore=shutil.ignore_patterns("checkpoint-*"))
    path = tmp_path / "bad" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["conditioning"] |= changes
    path.write_text(json.dumps(config), encoding="utf-8")
    write_checksums(tmp_path / "bad")
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "bad")


def test_a_condition_that_is_missing_is_named(runs: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(runs["vector"], tmp_path / "bad", ignore=shutil.ignore_patterns("checkpoint-*"))
    state = load_file(tmp_path / "bad" / "model.safetensors")
    state.pop("conditioning.tasks.mood.vector")
    save_file(state, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    write_checksums(tmp_path / "bad")
    with pytest.raises(UserError, match=r"weights missing: conditioning\.tasks\.mood\.vector"):
        load_model(tmp_path / "bad")


def test_exports_are_folded_or_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    for kind in ("vector", "film", "lora"):
        export_task(runs[kind], "first", tmp_path / kind)  # compares the logits itself, before and after writing
        assert not any("conditioning" in name for name in load_file(tmp_path / kind / "model.safetensors"))
    with pytest.raises(UserError, match=r"mood: cannot be a plain model: it is conditioned by a task token"):
        export_task(runs["token"], "mood", tmp_path / "token")


def test_onnx_holds_one_task_of_a_conditioned_encoder(runs: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from mtl_nlp.inference.onnx_export import export_onnx

    with pytest.raises(UserError, match=r"conditioned on the task, and a graph runs it once for all of"):
        export_onnx(runs["vector"], tmp_path / "all")
    with pytest.raises(UserError, match=r"task token"):
        export_onnx(runs["token"], tmp_path / "token", ["mood"])
    export_onnx(runs["vector"], tmp_path / "one", ["mood"])
    text = "the film was great"
    one, other = (Predictor.from_pretrained(f)(text, tasks="mood") for f in (runs["vector"], tmp_path / "one"))
    first, second = (found[0]["predictions"]["mood"] for found in (one, other))
    assert first["label"] == second["label"]
    assert first["score"] == pytest.approx(second["score"], abs=1e-5)


def test_tasks_are_balanced_with_their_own_conditions(tiny_encoder: Path, tmp_path: Path) -> None:
    balanced = {"weighting": "fixed", "gradients": "imtl_g"}
    made = run_recipe(tiny_encoder, tmp_path, "lora", balancing=balanced, training={"save_strategy": "no"})
    prepared = prepare(make_recipe(made, memory=run_data()), memory=run_data())
    trainer = build_trainer(prepared)
    assert not {id(p) for p in trainer.balancer.steps.shared} & {id(p) for p in trainer.multi.conditioning.parameters()}
    trainer.train()
    assert all(
        part.b.abs().max() > 0 for name in ("mood", "first") for part in trainer.multi.conditioning.parts(name).values()
    )


def test_rates_and_decay_of_conditions(tiny_encoder: Path, tmp_path: Path) -> None:
    made = run_recipe(tiny_encoder, tmp_path, KINDS["token"], training={"head_learning_rate": 0.5})
    trainer = build_trainer(prepare(make_recipe(made, memory=run_data()), memory=run_data()))
    groups = trainer.create_optimizer().param_groups
    vectors = {id(p) for p in trainer.multi.conditioning.parameters()}
    own = [group for group in groups if any(id(p) in vectors for p in group["params"])]
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in own] == [(0.1, 0.0, 3)]


@pytest.mark.parametrize(
    ("conditioning", "more", "message"),
    [
        ("wind", {}, r'conditioning: found "wind" → .*film'),
        ({"kind": "vector", "r": 4}, {}, r"conditioning\.r: found it with vector"),
        ("film", {"training": {"gradient_checkpointing": True}}, r"conditioning film: a layer that runs again"),
        ("film", {"training": {"fsdp": "full_shard"}}, r"conditioning film: the conditions are read inside"),
        (
            "vector",
            {"balancing": {"gradients": "imtl_g", "on": "representation"}},
            r"on representation: each row of a conditioned encoder is for one task",
        ),
    ],
)
def test_what_cannot_go_is_refused(
    conditioning: Any, more: dict[str, Any], message: str, tiny_encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(FaultyInput, match=message):
        check_recipe(make_recipe(run_recipe(tiny_encoder, tmp_path, conditioning, **more), memory=run_data()))


def test_cosines_and_the_plane_by_hand() -> None:
    a, b, c = np.array([3.0, 0.0]), np.array([0.0, 4.0]), np.array([-3.0, 0.0])
    found = vectors_of("vector", ["a", "b", "c"], gramian([{"vector": a}, {"vector": b}, {"vector": c}]))
    assert found.norms == [3.0, 4.0, 3.0]
    assert np.allclose(found.cosines, [[1, 0, -1], [0, 1, 0], [-1, 0, 1]])
    assert found.closest()[-1] == ("a", "c", -1.0)
    # Two dimensions in two dimensions: distances are kept.
    plane = np.array(found.plane)
    assert np.linalg.norm(plane[0] - plane[1]) == pytest.approx(5.0)
    assert np.linalg.norm(plane[0] - plane[2]) == pytest.approx(6.0)
    assert sum(found.explained) == pytest.approx(1.0)
    nothing = vectors_of("vector", ["a", "b"], np.zeros((2, 2)))
    assert nothing.cosines == [[1.0, 0.0], [0.0, 1.0]]
    assert not np.any(projected(np.zeros((2, 2)))[0])


def test_low_rank_products_are_those_of_the_matrices() -> None:
    draw = np.random.default_rng(0)
    parts = [
        {"x.a": draw.normal(size=(2, 5)), "x.b": draw.normal(size=(4, 2)), "n.scale": draw.normal(size=3)}
        for _ in "abc"
    ]
    whole = [np.concatenate([(p["x.b"] @ p["x.a"]).ravel(), p["n.scale"]]) for p in parts]
    assert np.allclose(gramian(parts), [[one @ other for other in whole] for one in whole])


def test_task_vectors_of_a_checkpoint_and_show(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from mtl_nlp.cli import commands  # noqa: F401
    from mtl_nlp.cli.app import app

    state = load_file(runs["vector"] / "model.safetensors")
    found = task_vectors(runs["vector"])
    assert found is not None
    one, other = (state[f"conditioning.tasks.{name}.vector"].double() for name in ("mood", "first"))
    assert found.cosines[0][1] == pytest.approx(float(torch.cosine_similarity(one, other, 0)))
    assert all(length > 0 for length in task_vectors(runs["lora"]).norms)  # type: ignore[union-attr]
    shown = CliRunner().invoke(app, ["show", str(runs["vector"])]).output
    assert "Conditions (vector): cosines" in shown
    assert "all answers to a text cost 3 rows" in " ".join(shown.split())
    data = json.loads(CliRunner().invoke(app, ["show", str(runs["vector"]), "--json"]).output)
    assert data["task_vectors"]["names"] == ["mood", "first", "short"]


def test_a_narrow_copy_of_the_encoder_does_not_stand_in_for_a_conditioned_one(
    runs: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match="conditioned encoder"):
        Predictor.from_pretrained(runs["vector"], precision="bf16")
    texts = ["anna is in london", "the food was awful", "bob"] * 60
    auto, exact = (Predictor.from_pretrained(runs["vector"], "cpu", precision=one) for one in ("auto", "fp32"))
    assert auto(texts, scores=True) == exact(texts, scores=True)
    assert "bfloat16" not in auto.path
