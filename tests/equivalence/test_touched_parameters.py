"""A step that passes over the heads without rows must do what one does that asks every parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mtl_nlp.model.joint_losses import cross_entropies
from mtl_nlp.model.multitask import MultiTaskModel
from mtl_nlp.recipe import make_recipe
from mtl_nlp.task import Task
from mtl_nlp.training.clipping import clip_gradient
from mtl_nlp.training.counts import StepCounts, weighted_sum
from mtl_nlp.training.finetune import build_trainer
from mtl_nlp.training.optimizer import TouchedAdamW
from mtl_nlp.training.prepare import prepare
from mtl_nlp.training.trainer import MultiTaskTrainer

LABELS = ["a", "b", "c"]
TASKS = [
    Task(name="one", head="sequence_classification", labels=LABELS),
    Task(name="two", head="sequence_classification", labels=LABELS),
    Task(name="too", head="sequence_classification", labels=LABELS, share_head_with="one"),
    Task(name="masked", head="masked_language_modeling"),
    Task(name="idle", head="regression"),
]
STEPS = (["two"], ["one", "two"], ["too"], ["masked", "one"], ["two"])


def model_of(encoder: Path) -> MultiTaskModel:
    torch.manual_seed(0)
    return MultiTaskModel.from_encoder(str(encoder), TASKS).eval()


def backward(model: MultiTaskModel, names: list[str]) -> None:
    tasks = {name: {"rows": torch.tensor([place, 3])} for place, name in enumerate(names)}
    ids = torch.randint(5, 60, (4, 7), generator=torch.Generator().manual_seed(len(names)))
    logits = model(input_ids=ids, tasks=tasks).logits
    sum(values.square().mean() for values in logits.values()).backward()


def names_of(model: MultiTaskModel, parameters: Any) -> list[str]:
    ids = {id(parameter) for parameter in parameters}
    return [name for name, parameter in model.named_parameters() if id(parameter) in ids]


def test_every_parameter_with_a_gradient_is_touched_and_no_head_without_rows(tiny_encoder: Path) -> None:
    model = model_of(tiny_encoder)
    model.fix_structure(narrow=True)
    structure: Any = model.structure
    assert names_of(model, structure.touched()) == [
        name for name, _ in model.named_parameters()
    ]  # nothing is known yet
    for names in STEPS:
        model.zero_grad()
        assert all(parameter.grad is None for parameter in model.parameters())
        with torch.no_grad():
            model(input_ids=torch.randint(5, 60, (2, 5)))  # all heads, and no gradient
        backward(model, names[:1])
        backward(model, names)
        touched = names_of(model, structure.touched())
        owners = {"one" if name == "too" else name for name in names}
        assert {name.split(".")[1] for name in touched if name.startswith("heads.")} == owners
        assert [name for name in touched if name.startswith("encoder.")] == [
            name for name, _ in model.named_parameters() if name.startswith("encoder.")
        ]
        assert {name for name, p in model.named_parameters() if p.grad is not None} <= set(touched)


def test_what_is_not_told_apart_is_all_touched(tiny_encoder: Path) -> None:
    model = model_of(tiny_encoder)
    model.fix_structure()
    model.zero_grad()
    backward(model, ["two"])
    assert model.structure is not None
    assert len(model.structure.touched()) == len(list(model.parameters()))


def test_updates_and_optimizer_states_are_those_of_torchs_adamw(tiny_encoder: Path) -> None:
    results = []
    for narrow in (False, True):
        model = model_of(tiny_encoder)
        decayed = [p for p in model.parameters() if p.dim() > 1]
        others = [p for p in model.parameters() if p.dim() == 1]
        learned = torch.nn.Parameter(torch.ones(2))
        groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others}, {"params": [learned], "lr": 0.5}]
        settings = {"lr": 1e-2, "fused": True}
        optimizer: Any = TouchedAdamW(groups, model, **settings) if narrow else torch.optim.AdamW(groups, **settings)
        if narrow:
            model.fix_structure(narrow=True)
        model.zero_grad()
        norms = []
        for number, names in enumerate(STEPS):
            backward(model, names)
            learned.grad = torch.tensor([1.0, -1.0])
            parameters = model.structure.touched() if model.structure is not None else model.parameters()
            norms.append(clip_gradient(parameters, 0.5, None))
            if number == 3:  # as a resumed run
                optimizer.load_state_dict(optimizer.state_dict())
            optimizer.step()
            model.zero_grad()
        results.append((torch.stack(norms), model.state_dict() | {"learned": learned}, optimizer.state_dict()))
    (norms, weights, states), (others_norms, others_weights, others_states) = results
    assert torch.equal(norms, others_norms)
    assert all(torch.equal(weights[name], others_weights[name]) for name in weights)
    assert not torch.equal(weights["learned"], torch.ones(2))
    assert states["param_groups"] == others_states["param_groups"]
    assert states["state"].keys() == others_states["state"].keys()
    assert len(states["state"]) < len(list(model.parameters())) + 1  # the idle head has none
    for place, state in states["state"].items():
        assert all(torch.equal(value, others_states["state"][place][key]) for key, value in state.items())


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_ends_with_the_same_weights(
    accumulation: int, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    training = {**recipe["training"], "gradient_accumulation_steps": accumulation, "max_steps": 4}
    found = []
    for narrow in (True, False):
        if not narrow:
            monkeypatch.setattr(MultiTaskTrainer, "narrows", False)
        trainer = build_trainer(prepare(make_recipe({**recipe, "training": training})))
        trainer.train()
        inner: Any = trainer.optimizer
        assert isinstance(getattr(inner, "optimizer", inner), TouchedAdamW) is narrow
        found.append((trainer.multi.state_dict(), [line.get("grad_norm") for line in trainer.state.log_history]))
    (weights, norms), (others, other_norms) = found
    assert norms == other_norms
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_plain_tells_nothing_apart(recipe: dict[str, Any]) -> None:
    trainer = build_trainer(prepare(make_recipe({**recipe, "performance": "plain"})))
    assert not trainer.narrows
    assert type(trainer.create_optimizer()) is torch.optim.AdamW


def classification(**settings: Any) -> Task:
    return Task(head="sequence_classification", labels=LABELS, **settings)


def test_cross_entropies_together_are_those_of_each(tiny_encoder: Path) -> None:
    tasks = [
        classification(name="one"),
        classification(name="two"),
        classification(name="gaps"),
        classification(name="smooth", loss={"smoothing": 0.1}),
        classification(name="weighted", loss={"class_weights": {"a": 3.0}}),
        classification(name="focal", loss={"focal": 2.0}),
        Task(name="pair", head="sequence_classification", labels=["x", "y"]),
        Task(name="several", head="multi_label_classification", labels=LABELS),
    ]
    kinds = MultiTaskModel.from_encoder(str(tiny_encoder), tasks).kinds
    labels = {name: torch.tensor([0, 2]) for name in kinds}
    labels |= {"two": torch.tensor([1]), "gaps": torch.tensor([-100, 1, -100]), "pair": torch.tensor([1])}
    torch.manual_seed(0)
    logits = {
        name: torch.randn(len(own), 2 if name == "pair" else 3, requires_grad=True) for name, own in labels.items()
    }
    found = cross_entropies(kinds, logits, labels)
    assert list(found) == ["one", "two", "gaps"]  # pair is alone with two labels
    for name, (total, units) in found.items():
        alone, counted = kinds[name].loss(logits[name], labels[name])
        assert int(units) == int(counted) == {"one": 2, "two": 1, "gaps": 1}[name]
        torch.testing.assert_close(total, alone)
    together = torch.autograd.grad(sum(total for total, _ in found.values()), [logits[name] for name in found])
    for name, gradient in zip(found, together, strict=True):
        (own,) = torch.autograd.grad(kinds[name].loss(logits[name], labels[name])[0], logits[name])
        torch.testing.assert_close(gradient, own)


def test_means_and_the_weighted_sum_by_hand() -> None:
    sums: dict[str, Tensor] = {"a": torch.tensor(6.0, requires_grad=True), "b": torch.tensor(5.0, requires_grad=True)}
    counts = StepCounts({"a": 4.0, "b": 0.0, "c": 1.0}, {"a": 4, "b": 1, "c": 1})
    means = counts.means(sums)
    assert {name: mean.item() for name, mean in means.items()} == {"a": 1.5, "b": 5.0}
    assert all(torch.equal(means[name], counts.mean(name, loss)) for name, loss in sums.items())
    total = weighted_sum(means, {"a": 2.0, "b": 0.5}, torch.device("cpu"))
    assert total.item() == 5.5
    total.backward()
    assert [loss.grad.item() for loss in sums.values() if loss.grad is not None] == [0.5, 0.5]
    assert counts.means({}) == {}
    assert float(weighted_sum({}, {}, torch.device("cpu"))) == 0.0
