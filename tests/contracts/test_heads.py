"""Every registered head kind keeps the same contract, on a tiny encoder."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback

from mtl_nlp.data.batching import Collator, MixtureDataset
from mtl_nlp.data.mixture import Draw
from mtl_nlp.data.sources import read_corpora
from mtl_nlp.hub.checkpoint import WEIGHTS, load_model
from mtl_nlp.kinds import HEADS, head_kind
from mtl_nlp.model.heads import VanillaHead, make_head
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.recipe import make_recipe
from mtl_nlp.task import Task
from mtl_nlp.training.finetune import Result, finetune
from mtl_nlp.training.prepare import Prepared, prepare

from .examples import example_recipe, example_task, write_example

KINDS = HEADS.names()
VANILLA = [name for name in KINDS if issubclass(head_kind(name).torch_half(), VanillaHead)]
ANNOTATED = [name for name in KINDS if head_kind(name).annotation != "none"]


class Keep(TrainerCallback):
    """Keeps the model as it was when training ended."""

    model: Any = None

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.model = kwargs["model"]


@dataclass
class Run:
    """What a kind's run of two steps left."""

    name: str
    recipe: dict[str, Any]
    result: Result
    trained: MultiTaskModel
    prepared: Prepared

    def batch(self, task: str = "mine", texts: range = range(8)) -> dict[str, Any]:
        """A labelled batch of one corpus, its rows of different lengths."""
        corpus = next(name for name, tasks in self.prepared.owners.items() if task in tasks)
        records = MixtureDataset(self.prepared.encoded["train"]).__getitems__([Draw(corpus, i, 0) for i in texts])
        return self.collator()(records)

    def collator(self) -> Collator:
        return Collator(self.prepared.tokenizer, self.prepared.tasks, self.prepared.owners, labelled=True, seed=1)


@pytest.fixture(scope="module")
def runs(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Each kind is trained once, beside another task."""
    return {}


@pytest.fixture
def run(
    request: pytest.FixtureRequest, runs: dict[str, Run], tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    name = request.param
    if name not in runs:
        folder = tmp_path_factory.mktemp(name)
        kind, other = head_kind(name), head_kind("sequence_classification")
        tasks = [
            example_task(kind, write_example(folder / "mine", kind)),
            example_task(other, write_example(folder / "other", other), "other"),
        ]
        recipe = example_recipe(tiny_encoder, tasks, folder / "run")
        keep = Keep()
        result = finetune(recipe, callbacks=[keep])
        runs[name] = Run(name, recipe, result, keep.model.eval(), prepare(make_recipe(recipe)))
    return runs[name]


def each(names: list[str]) -> Any:
    return pytest.mark.parametrize("run", names, indirect=True)


def task_loss(model: MultiTaskModel, batch: dict[str, Any], task: str = "mine") -> tuple[Tensor, Tensor]:
    return model.task_losses(model(**batch).logits, batch["tasks"])[task]


@each(KINDS)
def test_it_trains_scores_and_saves(run: Run) -> None:
    assert run.result.report["steps"] == 2
    assert (run.result.folder / WEIGHTS).is_file()
    expected = list(head_kind(run.name).default_metrics)
    assert list(run.result.metrics.get("mine", {})) == expected
    assert all(-1.0 <= value <= 1.0 for value in run.result.metrics.get("mine", {}).values())


@each(KINDS)
def test_a_reloaded_model_gives_the_same_bits(run: Run) -> None:
    loaded, batch = load_model(run.result.folder), run.batch()
    # Bits are those of one path: the trained model encodes without padding where it can.
    fast = run.trained.padding_free
    for path in (None, fast):
        run.trained.padding_free = path
        if path is not None:
            loaded.use_fast_paths()
        with torch.no_grad():
            before, after = run.trained(**batch).logits["mine"], loaded(**batch).logits["mine"]
        assert torch.equal(before, after)
    assert [task.name for task in loaded.tasks] == ["mine", "other"]
    assert loaded.state_dict().keys() == run.trained.state_dict().keys()


@each(KINDS)
def test_only_the_tasks_own_head_and_the_encoder_get_gradient(run: Run) -> None:
    model = load_model(run.result.folder)
    total, units = task_loss(model, run.batch())
    (total / units).backward()
    mine = dict(model.heads["mine"].named_parameters())
    assert mine
    assert [name for name, p in mine.items() if p.grad is None] == []
    assert any(bool(p.grad.abs().sum() > 0) for p in mine.values() if p.grad is not None)
    assert all(p.grad is None for p in model.heads["other"].parameters())
    assert [name for name, p in model.encoder.named_parameters() if p.grad is None] == []


@each([name for name in ANNOTATED if head_kind(name).annotation != "match"])  # whose negatives are its neighbours
def test_a_texts_loss_does_not_depend_on_its_neighbours(run: Run) -> None:
    model, batch = load_model(run.result.folder), run.batch()
    assert bool((batch["attention_mask"] == 0).any()), "the batch has to hold padding"
    found = []
    with torch.no_grad():
        for fast in (False, True):
            if fast:
                model.use_fast_paths()
            parts = [task_loss(model, run.batch(texts=range(i, i + 1))) for i in range(8)]
            found += [sum(loss.item() for loss, _ in parts), task_loss(model, batch)[0].item()]
    assert found == pytest.approx([found[0]] * 4, rel=1e-5)


@each(KINDS)
def test_two_steps_changed_every_parameter(run: Run, tiny_encoder: Path) -> None:
    torch.manual_seed(run.prepared.recipe.seed)
    fresh = MultiTaskModel.from_encoder(str(tiny_encoder), run.prepared.tasks)
    before, after = fresh.state_dict(), run.trained.state_dict()
    same = [key for key in before if torch.equal(before[key], after[key])]
    assert same == []


@each(VANILLA)
def test_it_is_a_vanilla_model(run: Run) -> None:
    model, batch = load_model(run.result.folder), run.batch()
    kind = model.kinds["mine"]
    assert isinstance(kind, VanillaHead)
    config = kind.config(model.config.encoder_config)
    config._attn_implementation = "eager"
    plain = kind.vanilla_class(config)(config).eval()
    state = {f"{plain.base_model_prefix}.{key}": value for key, value in model.encoder.state_dict().items()}
    plain.load_state_dict(state | model.heads["mine"].state_dict(), strict=True)
    rows = batch["tasks"]["mine"]
    assert bool((batch["attention_mask"] == 0).any()), "the batch has to hold padding"
    width = int(rows["width"])
    fed = {key: batch[key][rows["rows"], :width] for key in ("input_ids", "token_type_ids", "attention_mask")}
    with torch.no_grad():
        ours = model(**batch).logits["mine"]
        if kind.task.kind.annotation == "choice":
            by_text = [{k: v[None] for k, v in zip(fed, part, strict=True)} for part in _split(fed, rows["sizes"])]
            theirs = [plain(**text).logits[0] for text in by_text]
            # One text at a time: other shapes, so equal to rounding only.
            for mine, scores in zip(ours, theirs, strict=True):
                assert torch.allclose(mine[: len(scores)], scores, atol=1e-6)
            same = rows["sizes"] == rows["sizes"].max()
            pairs = {k: v.view(len(v) // 3, 3, -1) for k, v in _rows_of(fed, rows["sizes"], 3).items()}
            assert torch.allclose(ours[same], plain(**pairs).logits, atol=1e-6)
            return
        output = plain(**fed)
        if kind.task.kind.annotation == "relevance":
            of_query = output.logits.view(-1).split(rows["sizes"].tolist())
            assert all(torch.equal(mine[: len(theirs)], theirs) for mine, theirs in zip(ours, of_query, strict=True))
            return
        answer = kind.task.kind.annotation == "answer"
        theirs = torch.stack([output.start_logits, output.end_logits], -1) if answer else output.logits
    if answer:  # but for padding, on which no answer can begin or end
        theirs = theirs.masked_fill(fed["attention_mask"][..., None] == 0, float("-inf"))
    assert torch.equal(ours, theirs)


def _split(fed: dict[str, Tensor], sizes: Tensor) -> Any:
    return zip(*(value.split(sizes.tolist()) for value in fed.values()), strict=True)


def _rows_of(fed: dict[str, Tensor], sizes: Tensor, size: int) -> dict[str, Tensor]:
    keep = torch.repeat_interleave(sizes == size, sizes)
    return {key: value[keep] for key, value in fed.items()}


@pytest.mark.parametrize("name", ["multiple_choice"])
def test_choices_of_one_size_give_the_vanilla_models_bits(name: str, tiny_encoder: Path) -> None:
    task = Task(name="mine", head=name)
    torch.manual_seed(0)
    model = MultiTaskModel.from_encoder(str(tiny_encoder), [task]).eval()
    kind = model.kinds["mine"]
    assert isinstance(kind, VanillaHead)
    config = kind.config(model.config.encoder_config)
    config._attn_implementation = "eager"
    plain = kind.vanilla_class(config)(config).eval()
    state = {f"{plain.base_model_prefix}.{key}": value for key, value in model.encoder.state_dict().items()}
    plain.load_state_dict(state | model.heads["mine"].state_dict(), strict=True)
    ids = torch.randint(5, 60, (6, 9))
    mask = torch.ones_like(ids)
    mask[2, 5:] = 0
    rows = {"rows": torch.arange(6), "width": torch.tensor(9), "sizes": torch.tensor([3, 3])}
    with torch.no_grad():
        ours = model(input_ids=ids, attention_mask=mask, tasks={"mine": rows}).logits["mine"]
        theirs = plain(input_ids=ids.view(2, 3, 9), attention_mask=mask.view(2, 3, 9)).logits
    assert torch.equal(ours, theirs)


@each(ANNOTATED)
def test_a_text_without_annotation_is_left_out_and_counted(run: Run) -> None:
    corpus = next(c for c in read_corpora(make_recipe(run.recipe)) if "mine" in c.task_names)
    train = corpus.splits["train"]
    assert (len(train), train.unannotated, train.counts["mine"].missing) == (17, 1, 1)


# In-batch negatives: what a text's loss is depends on its batch.
DECOMPOSING = [name for name in ANNOTATED if head_kind(name).annotation != "match"]


@each(DECOMPOSING)
def test_a_missing_annotation_adds_nothing_to_the_loss(run: Run) -> None:
    model = load_model(run.result.folder)
    dataset = MixtureDataset(run.prepared.encoded["train"])
    corpus = next(name for name, tasks in run.prepared.owners.items() if "mine" in tasks)

    def records(gaps: tuple[int, ...]) -> list[dict[str, Any]]:
        found = dataset.__getitems__([Draw(corpus, i, 0) for i in range(8)])
        for record in found:
            if record["draw"].index in gaps:
                record["@mine"] = None
        return copy.deepcopy(found)

    collator = run.collator()
    with torch.no_grad():
        parts = [task_loss(model, collator(records(gaps))) for gaps in ((), (0, 3, 5), (1, 2, 4, 6, 7))]
    whole, first, second = parts
    assert int(whole[1]) == int(first[1]) + int(second[1])
    assert float(whole[0]) == pytest.approx(float(first[0]) + float(second[0]), rel=1e-5)
    assert "mine" not in collator(records(tuple(range(8))))["tasks"]


LN2, LN3, LN4 = math.log(2), math.log(3), math.log(4)
NAN = float("nan")
# kind → logits, labels, the sum worked by hand, the number of units.
BY_HAND: dict[str, tuple[Any, Any, float, int]] = {
    # softmax(0, 0) = 1/2 each; softmax(ln 3, 0) = 3/4, 1/4: −ln(1/2) − ln(1/4). The third row is not annotated.
    "sequence_classification": ([[0.0, 0.0], [LN3, 0.0], [9.0, 9.0]], [0, 1, -100], LN2 + LN4, 2),
    # sigmoid(0) = 1/2, sigmoid(ln 3) = 3/4: mean of ln 2 and −ln(1/4). A row with NaN counts nothing.
    "multi_label_classification": ([[0.0, LN3], [5.0, 5.0]], [[1.0, 0.0], [NAN, NAN]], (LN2 + LN4) / 2, 1),
    "regression": ([[1.5], [-1.0], [7.0]], [1.0, 1.0, NAN], 0.25 + 4.0, 2),
    "token_classification": (
        [[[0.0, 0.0], [0.0, LN3], [3.0, 1.0]], [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]],
        [[-100, 0, -100], [1, -100, -100]],
        LN4 + LN2,
        2,
    ),
    # Three equal positions: ln 3 for the first token; (ln 2, 0, 0): 2/4 for the last at 0 → ln 2. Their mean.
    "question_answering": ([[[0.0, LN2], [0.0, 0.0], [0.0, 0.0]]], [[2, 0]], (LN3 + LN2) / 2, 1),
    # The second text has two choices only: ln 2, not ln 3.
    "multiple_choice": ([[0.0, 0.0, 0.0], [0.0, 0.0, -math.inf]], [1, 0], LN3 + LN2, 2),
    # Transitions, start, end, then two tokens; all 0: two words of two tags, 4 sequences: ln 4. The second row has one word: ln 2.
    "token_classification_crf": (
        [[[0.0, 0.0]] * 6, [[0.0, 0.0]] * 6],
        [[0, 1], [-100, 1]],
        LN4 + LN2,
        3,
    ),
    # Shares 1/3 and 2/3 of three equal scores: ln 3. Nothing relevant: no unit. One relevant of two: ln 2.
    "ranking": (
        [[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [0.0, 0.0, -math.inf]],
        [[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [0.0, 1.0, NAN]],
        LN3 + LN2,
        2,
    ),
    # Two passages: ln 2, and softmax(0, ln 3) at the second: 3/4. In the third row one passage is no negative, so 1 of 1: 0.
    "retrieval": ([[0.0, 0.0], [0.0, LN3], [5.0, -math.inf]], [0, 1, 0], LN2 + LN4 - LN3, 3),
    "masked_language_modeling": ([[[0.0] * 4, [0.0] * 4]], [[-100, 3]], LN4, 1),
}


def test_every_head_has_a_loss_worked_by_hand() -> None:
    assert sorted(BY_HAND) == sorted(
        name for name in KINDS if head_kind(name).torch_half().__module__.startswith("mtl_nlp.")
    )


@pytest.mark.parametrize("name", BY_HAND)
def test_the_loss_is_the_one_worked_by_hand(name: str) -> None:
    logits, labels, expected, units = BY_HAND[name]
    needs = head_kind(name).form.has_labels
    # Two outputs: for tags without a scheme the labels themselves.
    scheme = "none" if head_kind(name).chain else None
    head = make_head(Task(name="mine", head=name, labels=["a", "b"] if needs else None, scheme=scheme))
    target = torch.tensor(labels)
    total, counted = head.loss(torch.tensor(logits), target)
    assert float(total) == pytest.approx(expected, rel=1e-6)
    assert int(counted) == units == head.units(target)


@each(["masked_language_modeling"])
def test_the_masked_lm_decoder_is_the_shared_embedding_after_loading(run: Run) -> None:
    model = load_model(run.result.folder)
    embeddings = model.encoder.get_input_embeddings().weight
    decoder = model.heads["mine"].cls.predictions.decoder
    assert decoder.weight is embeddings
    assert decoder.bias is model.heads["mine"].cls.predictions.bias
    stored = load_file(run.result.folder / WEIGHTS)
    assert [key for key, value in stored.items() if value.shape == embeddings.shape] == [
        "encoder.embeddings.word_embeddings.weight"
    ]


@each(["masked_language_modeling"])
def test_the_masked_lm_loss_reaches_the_shared_embedding(run: Run) -> None:
    model = load_model(run.result.folder)
    total, units = task_loss(model, run.batch(texts=range(17)))
    assert int(units) > 0
    total.backward()
    gradient = model.encoder.get_input_embeddings().weight.grad
    assert gradient is not None
    # Through the decoder every word of the vocabulary gets some, not only those of the batch.
    assert int((gradient.abs().sum(-1) > 0).sum()) > 0.9 * len(gradient)
