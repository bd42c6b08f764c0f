"""`pipeline("multi-task")` answers as the stock pipelines do on the exported folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import mtl_nlp  # noqa: F401 - makes the pipeline known
from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import load_model, load_tokenizer
from mtl_nlp.hub.single_task import export_task
from tests.tiny_checkpoint import build_checkpoint

TEXTS = [
    "anna is in london and bob was at acme corp",
    "late",
    "the staff was very good and the food great, but the delivery was slow and the box was awful",
    "where is my parcel ?",
]
ANSWERED = ["sent", "topics", "stars", "ner", "places"]
make: Any = transformers.pipeline


@pytest.fixture(scope="module")
def checkpoint(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("run") / "checkpoint", tiny_encoder)


@pytest.fixture(scope="module")
def exports(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    loaded = load_model(checkpoint), load_tokenizer(checkpoint)
    place = tmp_path_factory.mktemp("exports")
    return {name: export_task(checkpoint, name, place / name, loaded=loaded).folder for name in [*ANSWERED, "nli"]}


@pytest.fixture(scope="module")
def pipe(checkpoint: Path) -> Any:
    return make("multi-task", model=str(checkpoint))


def stock(folder: Path, **options: Any) -> Any:
    name = "token-classification" if folder.name in ("ner", "places") else "text-classification"
    return make(name, model=str(folder), **options)


def close(ours: Any, theirs: Any) -> None:
    """Equal, scores to rounding (the rows stand in batches of other shapes)."""
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            close(ours[key], theirs[key])
    elif isinstance(ours, list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            close(one, other)
    elif isinstance(ours, str) or ours is None:
        assert ours == theirs
    else:
        assert float(ours) == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_tags_are_the_stock_pipelines(strategy: str, batch_size: int, pipe: Any, exports: dict[str, Path]) -> None:
    found = pipe(TEXTS, aggregation_strategy=strategy, batch_size=batch_size)
    assert any(answer["ner"] for answer in found)
    for name in ("ner", "places"):
        expected = stock(exports[name])(TEXTS, aggregation_strategy=strategy, batch_size=batch_size)
        close([answer[name] for answer in found], expected)


@pytest.mark.parametrize("options", [{}, {"top_k": None}, {"top_k": 2}, {"function_to_apply": "none"}])
def test_labels_are_the_stock_pipelines(options: dict[str, Any], pipe: Any, exports: dict[str, Path]) -> None:
    found = pipe(TEXTS, batch_size=3, **options)
    assert [list(answer) for answer in found] == [ANSWERED] * len(TEXTS)
    for name in ("sent", "topics", "stars"):
        expected = stock(exports[name])(TEXTS, batch_size=3, **options)
        close([answer[name] for answer in found], expected)


def test_an_answer_does_not_depend_on_the_batch(pipe: Any) -> None:
    alone = [pipe(text) for text in TEXTS]
    close(pipe(TEXTS, batch_size=4), alone)
    close(list(pipe(iter_of(TEXTS), batch_size=2)), alone)


def iter_of(texts: list[str]) -> Any:
    yield from texts


def test_pairs_go_to_the_tasks_that_read_pairs(pipe: Any, exports: dict[str, Path]) -> None:
    pairs = [{"text": "the food was good", "text_pair": "i love the food"}, {"text": "late", "text_pair": "fine"}]
    found = pipe(pairs, batch_size=2)
    assert [list(answer) for answer in found] == [["nli"], ["nli"]]
    close([answer["nli"] for answer in found], stock(exports["nli"])(pairs, batch_size=2))


def test_words_are_taken_as_they_are(pipe: Any, exports: dict[str, Path]) -> None:
    words = [text.split() for text in TEXTS]
    found = pipe(words, is_split_into_words=True, tasks="ner")
    expected = stock(exports["ner"], aggregation_strategy="first")(words, is_split_into_words=True)
    close([answer["ner"] for answer in found], expected)
    close(pipe(words[0], is_split_into_words=True, tasks=["ner"])["ner"], expected[0])


def test_a_long_text_is_read_in_chunks_with_stride(pipe: Any, exports: dict[str, Path]) -> None:
    long = " ".join(TEXTS * 12)
    assert len(pipe.tokenizer(long)["input_ids"]) > 2 * pipe.tokenizer.model_max_length
    found = pipe([long, TEXTS[0]], tasks="ner", stride=8, batch_size=2)
    expected = stock(exports["ner"], aggregation_strategy="first", stride=8)([long, TEXTS[0]], batch_size=2)
    close([answer["ner"] for answer in found], expected)
    assert max((one["end"] for one in found[0]["ner"]), default=0) > len(long) // 2


def test_what_it_cannot_answer_is_named(pipe: Any) -> None:
    with pytest.raises(UserError, match=r'no task "snt"\. Did you mean "sent"\?'):
        pipe("late", tasks=["snt"])
    with pytest.raises(UserError, match="unknown option top"):
        pipe("late", top=3)
    with pytest.raises(UserError, match="found a int"):
        pipe(3)
    assert pipe([]) == []


def test_the_calibration_is_applied(checkpoint: Path, exports: dict[str, Path]) -> None:
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    for record in model.config.tasks:
        record.update({"sent": {"calibration": {"temperature": 2.0}}}.get(record["name"], {}))
    warm = make("multi-task", model=model, tokenizer=tokenizer)(TEXTS[0], tasks="sent", top_k=None)["sent"]
    plain = stock(exports["sent"])(TEXTS[0], top_k=None, function_to_apply="none")
    scores = {one["label"]: one["score"] for one in warm}
    expected = torch.tensor([one["score"] for one in plain]).div(2).softmax(-1)
    for one, value in zip(plain, expected, strict=True):
        assert scores[one["label"]] == pytest.approx(float(value), abs=1e-5)


ORDERS = [
    "import mtl_nlp; from transformers import AutoModel, pipeline",
    "import transformers; transformers.pipelines; import mtl_nlp; from transformers import AutoModel, pipeline",
    "from mtl_nlp.model import encoder; from transformers import AutoModel, pipeline",
]


@pytest.mark.parametrize("imports", ORDERS)
def test_transformers_knows_the_classes_in_any_order_of_imports(imports: str, checkpoint: Path) -> None:
    code = f"{imports}\nm = AutoModel.from_pretrained({str(checkpoint)!r})\n"
    code += "from transformers.pipelines import check_task\n"
    code += "print(type(m).__name__, check_task('multi-task')[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["MultiTaskModel", "multi-task"], done.stderr[-2000:]


def test_importing_the_package_imports_no_library() -> None:
    code = "import mtl_nlp, sys; print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
