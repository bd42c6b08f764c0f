"""What teachers say of the training texts: computed once a text, before the first step, and kept beside the run.

A teacher encodes the texts with its own tokenizer and row length, so it need not look like the student; where words are
tagged, both see the same words. Its outputs are probabilities (of a CRF the marginal ones, of an ensemble the mean), kept as
logits in the order of the student's labels: `teachers/TASK.safetensors` in the run's folder, with a key of the teacher's
weights, the labels and the texts. A resumed run reads them again, or computes the same ones anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..data.features import EncodedSplit, encode_split
from ..data.sources import Corpus
from ..decoding import Decoded
from ..ensembling import EnsembleDecoder, KeepingDecoder
from ..errors import Faults, FaultyInput, UserError, fault, listed
from ..hub.ensemble import is_ensemble, read_ensemble
from ..model.encoder import longest_row
from ..task import Task
from .evaluation import Scorer
from .parents import Parent, open_parent
from .prepare import Prepared, row_encoder
from .transfer import NoMatch, map_labels

logger = logging.getLogger("mtl_nlp")
FOLDER = "teachers"
TINY, NEAR_ONE = 1e-30, 1e-7


@dataclass
class Targets:
    """A teacher's outputs for the training texts of a corpus.

    Attributes:
        values: logits [texts, K], of a number [texts, 1], of tags [words of all texts, K].
        offsets: of tags, where each text's words begin, [texts + 1]; None otherwise.
    """

    values: Tensor
    offsets: Tensor | None = None

    def of_text(self, number: int) -> Tensor:
        """[K], or [words, K] for tags."""
        if self.offsets is None:
            return self.values[number]
        return self.values[self.offsets[number] : self.offsets[number + 1]]


@dataclass
class Teacher:
    """One task's teacher: one member, or those of an ensemble with their weights; labels called as the student's."""

    place: str
    members: list[Parent]
    tasks: list[Task]
    weights: list[float]

    def fingerprint(self) -> str:
        """Of all weights."""
        digest = hashlib.sha256(json.dumps(self.weights).encode())
        for member in self.members:
            for name, value in member.model.state_dict().items():
                digest.update(name.encode())
                digest.update(value.contiguous().cpu().view(torch.uint8).numpy().tobytes() if value.dim() else b"")
        return digest.hexdigest()


def teacher_targets(
    prepared: Prepared, folder: Path | None, *, write: bool = True, batch: int = 64
) -> dict[str, Targets]:
    """Task → its teacher's outputs for the training texts.

    Args:
        folder: of the run; nothing is kept where it is None.
        write: whether this process keeps them.

    Raises:
        UserError: every teacher that cannot be read or does not fit its task.
    """
    spec = prepared.recipe.distil
    assert spec is not None
    tasks = {task.name: task for task in prepared.tasks}
    found = {}
    for name, teacher in open_teachers(spec.teachers, tasks, prepared).items():
        corpus = next(one for one in prepared.corpora if name in one.task_names)
        split = prepared.encoded["train"][corpus.name]
        path = None if folder is None else folder / FOLDER / f"{name}.safetensors"
        key = _key(teacher, tasks[name], split)
        targets = read_targets(path, key) if path is not None else None
        told = "read again" if targets is not None else "computed once"
        if targets is None:
            targets = compute_targets(prepared, corpus, tasks[name], teacher, batch)
            if path is not None and write:
                write_targets(path, key, targets)
        logger.info("teacher of %s: %s, outputs for %d texts %s", name, teacher.place, len(split), told)
        found[name] = targets
    return found


def open_teachers(places: Mapping[str, str], tasks: Mapping[str, Task], prepared: Prepared) -> dict[str, Teacher]:
    """All teachers.

    Raises:
        FaultyInput: every one that cannot be read or does not fit.
    """
    faults, found = Faults(), {}
    base, where = prepared.recipe.base, prepared.recipe.place_of("distil")
    for name, place in places.items():
        try:
            found[name] = _teacher(name, place, tasks[name], base)
        except FaultyInput as error:
            for one in error.faults:
                told = f"{one.where}: {one.found}" if one.where else one.found
                faults.add(told, where=where, key=f"distil.teachers.{name}", allowed=one.allowed, cure=one.cure)
        except UserError as error:
            faults.add(str(error), where=where, key=f"distil.teachers.{name}")
    faults.check()
    return found


def _teacher(name: str, place: str, task: Task, base: Path) -> Teacher:
    path, mark, wanted = place.partition("#")
    located = str((base / Path(path).expanduser()).resolve()) if (base / Path(path).expanduser()).is_dir() else path
    if is_ensemble(located):
        ensemble = read_ensemble(located)
        own = wanted or (name if name in ensemble.tasks else next(iter(ensemble.tasks)))
        if own not in ensemble.tasks or (not wanted and own != name and len(ensemble.tasks) > 1):
            raise fault(f'no task "{wanted or name}"', where=place, allowed=listed(ensemble.tasks))
        numbers = ensemble.members_of(own)
        members = [open_parent(f"{name}={ensemble.members[i]}#{own}") for i in numbers]
        weights = [ensemble.weights[own][i] for i in numbers]
    else:
        members, weights = [open_parent(f"{name}={located}{mark}{wanted}", {name: task})], [1.0]
    return Teacher(place, members, [_fitting(task, member.tasks[0], place) for member in members], weights)


def _fitting(task: Task, own: Task, place: str) -> Task:
    """The teacher's task with its labels called as the student's; it may know more of them.

    Raises:
        FaultyInput: another kind of answer, or a label that it does not know.
    """
    if own.kind.annotation != task.kind.annotation:
        raise fault(f"its head is {own.head}", where=place, allowed=task.head)
    if task.kind.annotation == "value":
        return own
    if task.kind.annotation == "tags" and (own.tag_scheme == "none") != (task.tag_scheme == "none"):
        raise fault(f"its tags have the scheme {own.tag_scheme}", where=place, allowed=task.tag_scheme)
    try:
        labels = map_labels(task.labels or [], own.labels or [], given=False)
    except NoMatch:
        missing = listed(label for label in task.labels or () if label not in (own.labels or ()))
        found = f"it does not know the labels {missing}"
        raise fault(found, where=place, allowed=f"a teacher of {listed(task.labels or (), 40)}") from None
    return own.model_copy(update={"labels": labels, "share_head_with": None, "consistent_with": None})


def compute_targets(prepared: Prepared, corpus: Corpus, task: Task, teacher: Teacher, batch: int = 64) -> Targets:
    """The teacher's outputs for every training text of a corpus."""
    answers = [
        member_outputs(prepared, corpus, member, own, batch)
        for member, own in zip(teacher.members, teacher.tasks, strict=True)
    ]
    scores, texts = EnsembleDecoder(task, teacher.tasks, teacher.weights, vote=False).gather(answers)
    kind = task.kind.annotation
    if kind == "value":
        return Targets(torch.from_numpy(np.asarray(scores, dtype=np.float32))[:, None])
    if kind == "tags":
        counts = [text.words for text in texts]
        rows = [table[:count] for table, count in zip(scores, counts, strict=True)]
        offsets = torch.tensor([0, *np.cumsum(counts)], dtype=torch.long)
        return Targets(_logits(np.concatenate(rows) if rows else scores[:, 0], kind), offsets)
    return Targets(_logits(scores, kind))


def _logits(probabilities: NDArray[np.float32], kind: str) -> Tensor:
    """Logits with these probabilities; of labels that the student has, where the teacher knows more."""
    p = torch.from_numpy(np.ascontiguousarray(probabilities, dtype=np.float64))
    if kind == "labels":
        return p.clamp(NEAR_ONE, 1 - NEAR_ONE).logit().float()
    return (p / p.sum(-1, keepdim=True).clamp_min(TINY)).clamp_min(TINY).log().float()


def member_outputs(prepared: Prepared, corpus: Corpus, parent: Parent, task: Task, batch: int) -> list[Decoded]:
    """A model's answers for all training texts of a corpus, with all probabilities, in the texts' order."""
    split = _encoded(prepared, corpus, parent)
    scorer = Scorer([task], {corpus.name: split}, {corpus.name: [task.name]}, parent.tokenizer)
    scorer.decoders = {task.name: KeepingDecoder(task)}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = nn.Module.to(parent.model, device)
    if prepared.recipe.performance != "plain":
        model.use_fast_paths()
    ((_, found),) = scorer.answers(model, device=device, batch=batch)
    return [found[task.name][number] for number in range(len(split))]


def _encoded(prepared: Prepared, corpus: Corpus, parent: Parent) -> EncodedSplit:
    """The training split as the teacher reads it; the student's own where both read alike."""
    wanted = parent.encoder.get("max_length")
    length = longest_row(
        parent.model.config.encoder_config, parent.tokenizer, wanted if isinstance(wanted, int) else None
    )
    stride = parent.encoder.get("stride")
    stride = stride if isinstance(stride, int) else prepared.recipe.encoder_spec.stride
    mine, theirs = (t.backend_tokenizer.to_str() for t in (prepared.tokenizer, parent.tokenizer))
    if (length, stride) == (prepared.max_length, prepared.recipe.encoder_spec.stride) and mine == theirs:
        return prepared.encoded["train"][corpus.name]
    encoder = row_encoder(corpus, parent.tokenizer, length, stride)
    return encode_split(corpus, corpus.splits["train"], encoder, scored=False)


def _key(teacher: Teacher, task: Task, split: EncodedSplit) -> str:
    """What makes outputs the same outputs: the teacher's weights, the labels in order, the texts."""
    digest = hashlib.sha256(json.dumps([teacher.fingerprint(), task.head, task.labels, task.tag_scheme]).encode())
    for rows in split.rows.select_columns(["input_ids"]).iter(1000):
        for ids in rows["input_ids"]:
            digest.update(np.asarray(ids, dtype=np.int32).tobytes())
    digest.update(np.asarray(split.offsets, dtype=np.int64).tobytes())
    return digest.hexdigest()


def read_targets(path: Path, key: str) -> Targets | None:
    """What was kept under this key; None where there is nothing, something else, or a file that was cut short."""
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            offsets = file.get_tensor("offsets") if "offsets" in file.keys() else None  # noqa: SIM118
            return Targets(file.get_tensor("values"), offsets)
    except (OSError, SafetensorError):
        return None


def write_targets(path: Path, key: str, targets: Targets) -> None:
    """Keep them, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"values": targets.values} | ({} if targets.offsets is None else {"offsets": targets.offsets})
    temporary = path.with_name(f".{path.name}.tmp")
    save_file(tensors, temporary, metadata={"key": key})
    temporary.replace(path)
