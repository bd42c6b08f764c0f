"""An ensemble behind the `Predictor`: every member encodes and decodes by itself, then `mtl_nlp.ensembling` makes one answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..decoding import Decoded, decode_all
from ..ensembling import EnsembleDecoder, KeepingDecoder
from ..hub.ensemble import Ensemble, check_members, read_ensemble
from ..task import Task
from .flow import Settings, Tally, checked_splitter
from .inputs import Piece
from .knowledge import KnowledgeBase, read_knowledge
from .passes import EncodedPiece, Passes, passes
from .predictor import Predictor

ANSWERS = dict[tuple[int, str], Any]


class EnsemblePredictor(Predictor):
    """Annotates texts with the tasks of an ensemble; called like a `Predictor`.

    It costs one encoder pass a member. Rows are as long as each member's training says.

    Args:
        ensemble: its tasks and weights.
        members: one predictor a member, in order.
        words: as a `Predictor`'s.
        knowledge: what retrieval tasks answer from; each member encodes it.

    Raises:
        UserError: members that do not fit the ensemble, or a knowledge base without a task that answers from it.
    """

    def __init__(
        self,
        ensemble: Ensemble,
        members: Sequence[Predictor],
        *,
        words: str | None = None,
        knowledge: KnowledgeBase | None = None,
    ) -> None:
        check_members(ensemble, [list(member.model.tasks) for member in members])
        self.ensemble, self.members = ensemble, list(members)
        self.words, self.device = checked_splitter(words), members[0].device
        self.model, self.tokenizer = members[0].model, members[0].tokenizer
        self.max_length = min(member.max_length for member in members)
        self.stride = members[0].stride
        self.knowledge = {}
        self.own = [{task.name: task for task in member.model.tasks} for member in members]
        self.decoders = {name: self._decoder(name) for name in ensemble.tasks}
        if knowledge is not None:
            self._learn(read_knowledge(knowledge))

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        device: Any = None,
        *,
        words: str | None = None,
        knowledge: KnowledgeBase | None = None,
        **options: Any,
    ) -> Any:
        """The predictor of an ensemble's folder; `options` as those of `Predictor.from_pretrained`.

        Raises:
            UserError: a damaged ensemble or member.
        """
        ensemble = read_ensemble(folder)
        members = [Predictor.from_pretrained(member, device, **options) for member in ensemble.members]
        return cls(ensemble, members, words=words, knowledge=knowledge)

    @property
    def path(self) -> str:
        """What answers."""
        return f"an ensemble of {len(self.members)}; {'; '.join(member.path for member in self.members)}"

    @property
    def _all_tasks(self) -> list[Task]:
        return list(self.ensemble.tasks.values())

    def _decoder(self, name: str) -> EnsembleDecoder:
        owners = self.ensemble.members_of(name)
        weights = [self.ensemble.weights[name][i] for i in owners]
        tasks = [self.own[i][name] for i in owners]
        return EnsembleDecoder(self.ensemble.tasks[name], tasks, weights, vote=self.ensemble.vote[name])

    def _answer(self, pieces: Sequence[Piece], settings: Settings, tally: Tally) -> ANSWERS:
        groups: dict[tuple[str, ...], list[Piece]] = {}
        for piece in pieces:
            groups.setdefault(piece.group, []).append(piece)
        answers: ANSWERS = {}
        truncated: set[int] = set()
        for group in groups.values():
            self._answer_group(group, settings, answers, truncated)
        tally.truncated += len(truncated)
        return answers

    def _answer_group(self, group: Sequence[Piece], settings: Settings, answers: ANSWERS, truncated: set[int]) -> None:
        tasks = [task for task in settings.tasks if task.name in group[0].tasks]
        splitters = {task.name: settings.splitter_of(task) for task in tasks if task.kind.annotation == "tags"}
        found: dict[str, list[list[Decoded]]] = {task.name: [] for task in tasks}
        shown: dict[str, list[EncodedPiece]] = {}
        for i in range(len(self.members)):
            names = [task.name for task in tasks if self.ensemble.weights[task.name][i] > 0]
            if not names:
                continue
            encoded, own = self._ask(i, group, names, splitters, settings)
            truncated |= {one.piece.row for one in encoded if one.first.truncated}
            for name, decoded in own.items():
                found[name].append(decoded)
                shown.setdefault(name, encoded)
        decoders = {task.name: self.decoders[task.name] for task in tasks}
        gathered = {name: decoders[name].gather(of_members) for name, of_members in found.items()}
        decided = decode_all(
            decoders,
            {name: scores for name, (scores, _) in gathered.items()},
            {name: texts for name, (_, texts) in gathered.items()},
        )
        for task in tasks:
            for one, told in zip(shown[task.name], decided[task.name], strict=True):
                answers[one.piece.row, task.name] = (
                    told.value
                    if settings.decoded
                    else self._told(task, told, one, splitters.get(task.name), settings.top)
                )

    def _ask(
        self, i: int, group: Sequence[Piece], names: Sequence[str], splitters: dict[str, str], settings: Settings
    ) -> tuple[list[EncodedPiece], dict[str, list[Decoded]]]:
        """A member's rows and answers, in the order of the pieces."""
        member = self.members[i]
        tasks = [self.own[i][name] for name in names]
        own = {name: splitters[name] for name in names if name in splitters}
        encoded = member._encode(group, tasks, sorted(set(own.values())))
        runner = Passes(
            member.model,
            member.tokenizer,
            tasks,
            own,
            size=settings.size,
            device=member.device,
            context=member._context,
        )
        runner.decoders = {task.name: KeepingDecoder(task) for task in tasks}
        places = {id(one): place for place, one in enumerate(encoded)}
        answers: dict[str, list[Any]] = {name: [None] * len(encoded) for name in names}
        for batch in passes(encoded, settings.size):
            for name, decoded in runner.run(batch).items():
                for one, value in zip(batch, decoded, strict=True):
                    answers[name][places[id(one)]] = value
        return encoded, answers
