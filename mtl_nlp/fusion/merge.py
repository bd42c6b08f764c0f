"""`fuse_merge`: encoders that were fine-tuned from one ancestor become one encoder, without training; heads come along.

The weights are merged as `fusion.vectors` says, the coefficients are given or searched on validation (`fusion.search`). A
head is its parent's own; of a task that several parents have, the heads are averaged with the parents' coefficients. The
result is an ordinary checkpoint, with `fusion.json` to say what it was made of.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import Faults, FaultyInput, fault, listed
from ..hub.card import write_card
from ..hub.checkpoint import METRICS, write_json, write_model
from ..model.multitask import MultiTaskModel
from ..recipe import RESOLVED, Recipe
from ..schema import dump_yaml
from ..training.parents import Parent, assemble
from .adapters import check_adapters, merged_encoder
from .ancestors import Ancestor, check_parents, encoder_state, find_ancestor
from .common import (
    FACTS,
    Validation,
    encoder_entry,
    fused_recipe,
    new_folder,
    open_parents,
    optional_recipe,
    owners_of,
    read_facts,
    readable,
)
from .search import FILE, Search
from .vectors import DENSITY, METHODS, WITH_DENSITY, average, merge_states

logger = logging.getLogger("mtl_nlp")
SEARCH = "search"


@dataclass
class Merger:
    """Parents that were found to fit each other, and how they are merged.

    Attributes:
        states: each parent's encoder: name → float tensor.
        ancestor: None where the method needs none.
        adapters: whether peft merges the parents' LoRA adapters, in place of all weights.
    """

    parents: list[Parent]
    states: list[dict[str, Tensor]]
    ancestor: Ancestor | None
    method: str
    density: float
    seed: int
    adapters: bool = False

    def model(self, coefficients: Sequence[float]) -> MultiTaskModel:
        """The merged model; the parents are left as they are."""
        heads = [(task, self.head(task.name, coefficients)) for task in self.tasks]
        return assemble(self.encoder(coefficients), self.parents[0].model.config, heads)

    def encoder(self, coefficients: Sequence[float]) -> Any:
        """The merged encoder."""
        if self.adapters:
            assert self.ancestor is not None
            name, density, seed = self.ancestor.name, self.density, self.seed
            return merged_encoder(self.parents, name, self.method, coefficients, density=density, seed=seed)
        state = merge_states(
            self.method,
            None if self.ancestor is None else self.ancestor.state,
            self.states,
            coefficients,
            density=self.density,
            seed=self.seed,
        )
        encoder = copy.deepcopy(self.parents[0].model.encoder)
        own = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)
        return encoder

    @property
    def tasks(self) -> list[Any]:
        """The tasks of all parents, each once."""
        return [next(t for t in parent.tasks if t.name == name) for name, parent in owners_of(self.parents).items()]

    def head(self, task: str, coefficients: Sequence[float]) -> dict[str, Tensor]:
        """The head of a task: its parent's, or the mean of those of its parents."""
        owners = [i for i, parent in enumerate(self.parents) if task in parent.model.kinds]
        states = [dict(self.parents[i].model.heads[task].state_dict()) for i in owners]
        if len(states) == 1:
            return states[0]
        weights = [max(coefficients[i], 0.0) for i in owners]
        weights = weights if sum(weights) > 0 else [1.0] * len(owners)
        return {
            name: average([state[name] for state in states], weights) if value.is_floating_point() else value
            for name, value in states[0].items()
        }


def fuse_merge(
    checkpoints: Sequence[str | Path],
    output: str | Path,
    *,
    method: str = "average",
    ancestor: str | Path | None = None,
    coefficients: str | Sequence[float] = SEARCH,
    density: float = DENSITY,
    adapters: bool = False,
    recipe: str | Path | Mapping[str, Any] | Recipe | None = None,
    sets: Sequence[str] = (),
    data_root: str | Path | None = None,
    datasets: Mapping[str, Any] | None = None,
    seed: int = 13,
    batch: int = 64,
    resume: bool = False,
) -> Path:
    """Merge fine-tuned models into one checkpoint.

    Args:
        checkpoints: `[TASK=]PLACE[@REVISION][#TASK]` each: folders or Hub names, of ours or of transformers.
        output: a new or empty folder.
        method: `average`, `task_arithmetic`, `ties` or `dare` (`fusion.vectors`).
        ancestor: what all were fine-tuned from; what their recipes say if absent.
        coefficients: one a parent, one for all, or `search`: the best mean of the primary metrics on validation.
        density: the share of a task vector's entries that `ties` and `dare` keep.
        adapters: merge LoRA adapters by peft (`fusion.adapters`); the checkpoints are `checkpoint-N` of runs with `lora`.
        recipe: says where the data is and how plain models' labels are called; the parents' own recipes if absent.
        sets: `KEY=VALUE` on that recipe.
        data_root: read `DIR/TASK/{train,validation,test}.*` in place of Hub data sets.
        datasets: data in memory, as of `finetune`.
        seed: of `dare`.
        resume: go on with a search that was interrupted.

    Returns:
        The output folder.

    Raises:
        UserError: parents that do not fit each other or the ancestor (all reasons at once), no data to search on.
    """
    check_settings(method, coefficients, density, len(checkpoints))
    folder = new_folder(output, resume=resume)
    made = optional_recipe(recipe, sets, datasets)
    parents = open_parents(checkpoints, made)
    if adapters:
        check_adapters(parents)
    merger = make_merger(parents, method, ancestor, density, seed, adapters=adapters)
    if resume and is_finished(folder, facts_of(merger, None)):
        logger.info("%s is finished", folder)
        return folder
    data = fused_recipe(parents, owners_of(parents), encoder_entry(parents), made)
    even = [1.0 / len(parents)] * len(parents) if method == "average" else [1.0] * len(parents)
    validation = _validation(merger, even, data, coefficients, data_root, datasets, batch)
    trials: list[dict[str, Any]] = []
    if isinstance(coefficients, str):
        assert validation is not None
        folder.mkdir(parents=True, exist_ok=True)
        search = Search(folder, facts_of(merger, None), merger.model, validation)
        chosen = search.best(method, len(parents))
        trials = search.trials
    else:
        chosen = list(coefficients) * len(parents) if len(coefficients) == 1 else list(coefficients)
    model = merger.model(chosen)
    scores, mean = validation.score(model) if validation is not None else ({}, None)
    facts = facts_of(merger, chosen) | ({"trials": trials} if trials else {})
    _write(folder, model, parents[0].tokenizer, data, facts, scores, mean)
    (folder / FILE).unlink(missing_ok=True)  # its trials are in the provenance now
    logger.info("%s of %s: %s", method, listed(checkpoints), listed(f"{c:.3g}" for c in chosen))
    return folder


def is_finished(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Whether the folder holds this merge already.

    Raises:
        UserError: it holds another.
    """
    found = read_facts(folder)
    if not found:
        return False
    if {key: found.get(key) for key in facts} != json.loads(json.dumps(facts)):
        raise fault("it holds another merge", where=str(folder), key="--resume", cure="give another folder")
    return True


def check_settings(method: str, coefficients: str | Sequence[float], density: float, parents: int) -> None:
    """Refuse what cannot be meant.

    Raises:
        FaultyInput: every fault.
    """
    faults = Faults()
    if method not in METHODS:
        faults.add(f'found "{method}"', key="--method", allowed=listed(METHODS))
    if not 0 < density <= 1:
        faults.add(f"found {density}", key="--density", allowed="above 0, at most 1")
    elif density != DENSITY and method in METHODS and method not in WITH_DENSITY:
        faults.add(f"found it with {method}", key="--density", allowed=f"with {listed(WITH_DENSITY)}")
    if isinstance(coefficients, str):
        if coefficients != SEARCH:
            faults.add(f'found "{coefficients}"', key="--coefficients", allowed="search, or numbers")
    elif len(coefficients) not in (1, parents):
        faults.add(f"{len(coefficients)} for {parents} checkpoints", key="--coefficients", allowed="one, or one each")
    elif not all(abs(c) < float("inf") for c in coefficients):
        faults.add(f"found {listed(coefficients)}", key="--coefficients", allowed="finite numbers")
    elif method == "average" and (sum(coefficients) <= 0 or min(coefficients) < 0):
        faults.add(f"found {listed(coefficients)}", key="--coefficients", allowed="weights of a mean: 0 or more")
    faults.check()


def make_merger(
    parents: list[Parent],
    method: str,
    ancestor: str | Path | None,
    density: float,
    seed: int,
    *,
    adapters: bool = False,
) -> Merger:
    """Check that the parents fit each other and their ancestor.

    Raises:
        FaultyInput: every reason why they do not.
    """
    found = find_ancestor(parents, ancestor, needed=adapters or method != "average")
    states = [encoder_state(parent.model.encoder) for parent in parents]
    check_parents(parents, states, found)
    return Merger(parents, states, found, method, density, seed, adapters)


def facts_of(merger: Merger, coefficients: Sequence[float] | None) -> dict[str, Any]:
    """The provenance, as JSON."""
    facts: dict[str, Any] = {
        "method": merger.method,
        "ancestor": None if merger.ancestor is None else merger.ancestor.shown,
        "parents": [parent.facts() for parent in merger.parents],
    }
    if merger.adapters:
        facts["adapters"] = True
    if merger.method in WITH_DENSITY:
        facts["density"] = merger.density
    if merger.method == "dare":
        facts["seed"] = merger.seed
    return facts | ({"coefficients": list(coefficients)} if coefficients is not None else {})


def _validation(
    merger: Merger,
    coefficients: Sequence[float],
    data: Mapping[str, Any],
    wanted: str | Sequence[float],
    data_root: str | Path | None,
    memory: Mapping[str, Any] | None,
    batch: int,
) -> Validation | None:
    """The data to search on and to score with; None where none is known and none is needed."""
    searching = isinstance(wanted, str)
    if not readable(data["tasks"], memory):
        if searching:
            cure = "--recipe RECIPE says where it is; or give --coefficients"
            raise fault("a search needs validation data", key="--coefficients", cure=cure)
        logger.warning("no data is known: the merged model is not scored")
        return None
    try:
        return Validation(
            merger.model(coefficients),
            merger.parents[0].tokenizer,
            data,
            data_root=data_root,
            memory=memory,
            batch=batch,
        )
    except FaultyInput as error:
        if searching:
            raise
        logger.warning("the merged model is not scored: %s", error)
        return None


def _write(
    folder: Path,
    model: MultiTaskModel,
    tokenizer: Any,
    recipe: Mapping[str, Any],
    facts: Mapping[str, Any],
    scores: Mapping[str, Any],
    mean: float | None,
) -> None:
    """An ordinary checkpoint; its checksums vouch for the provenance too."""

    def write(path: Path) -> None:
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        (path / RESOLVED).write_text(dump_yaml(json.loads(json.dumps(recipe))), encoding="utf-8")
        write_json(path / FACTS, facts)
        brief = {key: value for key, value in facts.items() if key != "trials"}
        write_json(path / METRICS, {"validation": scores, "mean": mean, "fusion": brief})
        write_card(path)

    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, write)
