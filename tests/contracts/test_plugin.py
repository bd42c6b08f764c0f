"""A head of one's own: in an installed package, and registered in the running process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mtl_nlp import Head, finetune, register_head
from mtl_nlp.errors import UserError
from mtl_nlp.hub.checkpoint import load_model
from mtl_nlp.kinds import HEADS, HeadKind, head_kind
from mtl_nlp.model import losses
from mtl_nlp.recipe import RESOLVED
from mtl_nlp.registry import Registry
from mtl_nlp.schema import dump_yaml
from mtl_nlp.task import Task

from .examples import example_recipe, example_task, write_example

ROOT = Path(__file__).parents[2]
KIND = '''"""The half that needs no torch."""
from mtl_nlp import HeadKind

MEAN_POOLED = HeadKind("mean_pooled", "label", "mtl_pooled.head:MeanPooled", description="one label, from the mean")
'''
HEAD = '''"""The torch half: a linear layer on the mean of the real tokens."""
from torch import nn

from mtl_nlp import Head
from mtl_nlp.model import losses


class MeanPooled(Head):
    def build(self, encoder_config):
        return nn.Linear(encoder_config.hidden_size, self.outputs)

    def logits(self, module, hidden, mask, ids, rows):
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        return module((hidden * weight).sum(1) / weight.sum(1))

    def loss(self, logits, labels):
        return losses.cross_entropy(logits, labels)
'''


def install(site: Path, package: str, modules: Mapping[str, str], points: Mapping[str, str]) -> Path:
    """What an installer leaves in site-packages: the package and its dist-info with the entry points."""
    (site / package).mkdir(parents=True)
    for name, source in {"__init__": "", **modules}.items():
        (site / package / f"{name}.py").write_text(source, encoding="utf-8")
    info = site / f"{package}-1.0.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    info.joinpath("entry_points.txt").write_text(f"[mtl_nlp.heads]\n{lines}", encoding="utf-8")
    return site


def python(site: Path | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that sees the package in `site`."""
    paths = [str(ROOT), *([str(site)] if site else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def write_recipe(folder: Path, encoder: Path, head: str) -> Path:
    """A recipe of one task with that head, and its data."""
    source = write_example(folder / "mine", head_kind("sequence_classification"))
    task = example_task(head_kind("sequence_classification"), source) | {"head": head}
    path = folder / "recipe.yaml"
    path.write_text(dump_yaml(example_recipe(encoder, [task], folder / "run")), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    return install(folder, "mtl_pooled", {"kind": KIND, "head": HEAD}, {"mean_pooled": "mtl_pooled.kind:MEAN_POOLED"})


def test_an_installed_packages_head_is_trained_by_the_command_line(
    site: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, tiny_encoder, "mean_pooled")
    trained = python(site, "-m", "mtl_nlp", "train", str(recipe), "--json")
    assert trained.returncode == 0, trained.stderr
    told = json.loads(trained.stdout)
    assert list(told["validation"]["mine"]) == ["accuracy", "f1_macro"]
    without = python(
        None, "-c", f"from mtl_nlp.recipe import load_recipe; load_recipe({told['folder'] + '/' + RESOLVED!r})"
    )
    assert 'no head "mean_pooled"' in without.stderr


def test_a_recipe_with_an_installed_head_is_checked_without_torch(
    site: Path, tiny_encoder: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path, tiny_encoder, "mean_pooled")
    code = (
        "import sys; from mtl_nlp.recipe import load_recipe; "
        f"kind = load_recipe({str(recipe)!r}).definitions[0].kind; "
        "print(kind.name, kind.default_metrics[0], 'torch' in sys.modules, 'mtl_pooled.head' in sys.modules)"
    )
    done = python(site, "-c", code)
    assert done.stdout.split() == ["mean_pooled", "accuracy", "False", "False"], done.stderr


def test_a_package_may_not_take_a_name_that_ships(tiny_encoder: Path, tmp_path: Path) -> None:
    site = install(tmp_path / "site", "mtl_thief", {"kind": KIND}, {"regression": "mtl_thief.kind:MEAN_POOLED"})
    done = python(site, "-m", "mtl_nlp", "tasks", "list")
    assert done.returncode == 2
    assert 'head "regression" of the installed package mtl_thief is registered already' in done.stderr
    assert "Traceback" not in done.stderr


def test_an_entry_point_may_name_a_module_that_uses_the_decorator(tmp_path: Path) -> None:
    source = 'from mtl_nlp import register_head\n\n\n@register_head("decorated", annotation="label")\nclass Mine:\n    pass\n'
    site = install(tmp_path / "site", "mtl_decorated", {"head": source}, {"decorated": "mtl_decorated.head:Mine"})
    code = (
        "from mtl_nlp.kinds import HEADS, head_kind; "
        "print(head_kind('decorated').name, head_kind('decorated').torch_half().__name__, 'decorated' in HEADS)"
    )
    assert python(site, "-c", code).stdout.split() == ["decorated", "Mine", "True"]
    imported = f"import mtl_decorated.head; {code}"
    assert python(site, "-c", imported).stdout.split() == ["decorated", "Mine", "True"]


def test_an_entry_point_that_is_no_head_kind_is_named(tmp_path: Path) -> None:
    site = install(tmp_path / "site", "mtl_wrong", {"kind": "THING = 3\n"}, {"wrong": "mtl_wrong.kind:THING"})
    code = "from mtl_nlp.task import Task; Task(name='mine', head='wrong')"
    done = python(site, "-c", code)
    assert 'head "wrong" has to be a mtl_nlp.HeadKind, not a int' in done.stderr


@pytest.fixture
def scaled() -> Iterator[type[Head]]:
    """A head of this process: logits times a learned scale, with a module that transformers does not know."""

    class Scale(nn.Module):
        def __init__(self, width: int, outputs: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(outputs))
            self.linear = nn.Linear(width, outputs, bias=False)

    @register_head("scaled", annotation="label", metrics=("f1_macro",), description="a test's own")
    class Scaled(Head):
        def build(self, encoder_config: Any) -> nn.Module:
            return Scale(encoder_config.hidden_size, self.outputs)

        def logits(self, module: Any, hidden: Tensor, mask: Tensor, ids: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
            return module.linear(hidden[:, 0]) * module.scale

        def loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            return losses.cross_entropy(logits, labels)

    yield Scaled
    del HEADS._entries["scaled"]


def test_a_head_registered_in_the_process_trains_and_reloads(
    scaled: type[Head], tiny_encoder: Path, tmp_path: Path
) -> None:
    kind = head_kind("scaled")
    assert (kind.name, kind.torch_half(), kind.default_metrics) == ("scaled", scaled, ("f1_macro",))
    source = write_example(tmp_path / "mine", kind)
    result = finetune(example_recipe(tiny_encoder, [example_task(kind, source)], tmp_path / "run"))
    assert list(result.metrics["mine"]) == ["f1_macro"]
    model = load_model(result.folder)
    assert set(dict(model.heads["mine"].named_parameters())) == {"scale", "linear.weight"}
    assert not torch.equal(model.heads["mine"].scale, torch.ones(3)), "the scale was trained and saved"


def test_a_head_starts_as_it_was_built(scaled: type[Head], tiny_encoder: Path) -> None:
    from mtl_nlp import MultiTaskModel

    model = MultiTaskModel.from_encoder(str(tiny_encoder), [Task(name="mine", head="scaled", labels=["a", "b"])])
    assert torch.equal(model.heads["mine"].scale, torch.ones(2))


def test_a_name_that_is_taken_is_refused(scaled: type[Head]) -> None:
    for name in ("scaled", "sequence_classification"):
        before = head_kind(name)
        with pytest.raises(UserError, match=f'head "{name}" is registered already'):
            register_head(name, annotation="label")(scaled)
        assert head_kind(name) is before


def test_an_unknown_annotation_is_refused() -> None:
    with pytest.raises(UserError, match='annotation "lables" is unknown; allowed: label, labels, value'):
        register_head("other", annotation="lables")  # type: ignore[arg-type]


def test_an_unknown_head_names_the_nearest_and_ones_own(scaled: type[Head]) -> None:
    with pytest.raises(UserError) as caught:
        head_kind("sequence_clasification")
    assert 'Did you mean "sequence_classification"?' in str(caught.value)
    assert "your own: scaled" in str(caught.value)


def test_a_registry_without_plugins_keeps_its_names() -> None:
    table = Registry("thing", builtin={"loads": "json:loads"})
    table.add("own", 1)
    table.add("own", 1)
    assert (table.get("own"), table.get("loads"), table.names()) == (1, json.loads, ["loads", "own"])
    assert "own" in table
    assert "other" not in table
    assert isinstance(head_kind("regression"), HeadKind)
