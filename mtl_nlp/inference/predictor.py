"""`Predictor`: texts in, one encoder pass, every task's decoded annotation out, with character offsets.

    predictor = Predictor.from_pretrained("runs/assistant")
    predictor(["book a table in Paris"])
    # [{"text": "book a table in Paris", "predictions": {"intent": {"label": …}, "slots": {"entities": […]}}}]

Texts are cut into words, tokens and windows exactly as in training (`mtl_nlp.data.windows`, `mtl_nlp.decoding`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from ..decoding import Decoded
from ..errors import UserError, closest, fault, listed
from ..model.encoder import checked_tokenizer, longest_row, match_types
from ..model.multitask import MultiTaskModel
from ..task import Task
from .answers import answer
from .flow import Settings, Tally, autocast, checked_splitter, device_of, fed_rows, parts_of, windows
from .inputs import PREDICTIONS, Piece
from .knowledge import Entry, Knowledge, KnowledgeBase, read_knowledge
from .onnx import OnnxModel, one_torch_thread
from .passes import EncodedPiece, Passes, encode_pieces, passes
from .precision import SINGLE, Judge, NarrowEncoder, checked_precision

logger = logging.getLogger("mtl_nlp")

PERFORMANCE = ("auto", "plain")
LOOKAHEAD = 2048
PART = 512  # pieces that are encoded together, while the part before them is in the model


def _absolute(place: str | Path) -> str | Path:
    """A file or folder as it is found from everywhere; what is neither (a name on the Hub) as it is."""
    return Path(place).absolute() if Path(place).exists() else place


def _reopened(folder: str, device: str | torch.device | None, options: dict[str, Any]) -> Predictor:
    """For `pickle` to call."""
    return Predictor.from_pretrained(folder, device, **options)


class Predictor:
    """Annotates texts with the tasks of one checkpoint; may be called from several threads.

    Args:
        model: put into evaluation mode and moved to `device`.
        tokenizer: the checkpoint's.
        device: a torch device; CUDA where there is one, else the CPU.
        dtype: `bfloat16` or `float16` runs the passes under autocast; float32 otherwise.
        words: how raw text is cut into words, in place of each token task's own way: `given`, `whitespace` or `pretokenizer`.
        max_length: most tokens a row; what the encoder allows if absent.
        stride: tokens that neighbouring windows of a long text share.
        performance: `auto` encodes without padding where this encoder's outputs stay the same; `plain` pads.
        knowledge: what retrieval tasks answer from: a JSONL, CSV, TSV or text file, or entries (see `read_knowledge`). Without it
            they are not among the tasks that can be answered.
        precision: `fp32` (exact), `bf16` (encoder weights), `auto` (what is verified on the texts to be as good and faster; see
            `precision`), `int8` (a graph of that kind only; `from_pretrained` finds it).
        single: a float32 graph of the same weights, for a few texts at once.

    Raises:
        UserError: an unknown device, dtype, splitter, performance or precision, or a dtype beside a precision.
    """

    # What `from_pretrained` was given, folders absolute: another process opens the same.
    _opening: tuple[str, str | torch.device | None, dict[str, Any]] | None = None

    def __init__(
        self,
        model: MultiTaskModel,
        tokenizer: Any,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        words: str | None = None,
        max_length: int | None = None,
        stride: int = 64,
        performance: str = "auto",
        knowledge: KnowledgeBase | None = None,
        precision: str = "fp32",
        single: OnnxModel | None = None,
    ) -> None:
        self.device = device_of(device)
        self.model = model.to(self.device).eval()  # type: ignore[arg-type]
        self.tokenizer = checked_tokenizer(tokenizer, "the tokenizer")
        self.words = checked_splitter(words)
        self.stride = stride
        match_types(self.tokenizer, model.config.encoder_config)
        self.max_length = longest_row(model.config.encoder_config, tokenizer, max_length)
        self._context = autocast(self.device, dtype)
        if performance not in PERFORMANCE:
            raise fault(f'found "{performance}"', key="performance", allowed=listed(PERFORMANCE))
        if performance == "auto":
            self.model.use_fast_paths()
        self.precision = checked_precision(precision, dtype, model)
        ours: Any = self.model if isinstance(model, MultiTaskModel) else None
        self._narrow = NarrowEncoder(ours) if precision == "bf16" and ours is not None else None
        plain = ours is not None and ours.conditioning is None
        self._judge = Judge(ours) if precision == "auto" and plain else None
        self._single = single
        # Truncation is state of a fast tokenizer, so two threads must not encode at once.
        self.encoding = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._runners: dict[Any, Passes] = {}
        self.knowledge: dict[str, Knowledge] = {}
        if knowledge is not None:
            self._learn(read_knowledge(knowledge))

    def _learn(self, entries: Sequence[Entry]) -> None:
        """Encode the knowledge base, once for each retrieval task."""
        finding = [task for task in self._all_tasks if task.kind.annotation == "match"]
        if not finding:
            raise fault("no task answers from a knowledge base", key="knowledge", cure="leave it out")
        tally = Tally()
        settings = Settings(tuple(finding), True, 32, None, None, decoded=True)
        pieces = [
            Piece(number, "text", {"text": entry.passage}, tuple(task.name for task in finding))
            for number, entry in enumerate(entries)
        ]
        found = self._answer(pieces, settings, tally)
        if tally.truncated:
            told = f"longer than {self.max_length} tokens: only their beginning is searched"
            logger.warning("knowledge: %d of %d passages are %s", tally.truncated, len(entries), told)
        for task in finding:
            self.knowledge[task.name] = Knowledge(entries, [found[i, task.name][0] for i in range(len(entries))])

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: str | torch.device | None = None,
        *,
        dtype: str | torch.dtype | None = None,
        words: str | None = None,
        performance: str = "auto",
        knowledge: KnowledgeBase | None = None,
        precision: str = "fp32",
    ) -> Predictor:
        """The predictor of a checkpoint folder; rows are as long as in its training.

        An ONNX folder (`mtl-nlp export --format onnx`) is run by onnxruntime, on the CPU unless `device` says otherwise. Pickled,
        it is its folder and these arguments: whoever unpickles it opens the folder anew, and changes to the model are not kept.

        Raises:
            UserError: no checkpoint, a damaged one, or an unknown device, dtype or splitter.
        """
        from .opening import opened

        if isinstance(knowledge, str | Path):
            knowledge = _absolute(knowledge)
        elif knowledge is not None:
            knowledge = list(knowledge)
        options: dict[str, Any] = {"dtype": dtype, "words": words, "performance": performance}
        options |= {"knowledge": knowledge, "precision": precision}
        made = opened(cls, folder, device, **options)
        made._opening = str(_absolute(folder)), device, options
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        if self._opening is None:
            cure = "open it with from_pretrained, or make it where it is used"
            raise fault("made of a model, it is not pickled", where=type(self).__name__, cure=cure)
        return _reopened, self._opening

    @property
    def path(self) -> str:
        """What answers: number format and runtime; with `auto`, what was found for each kind of input so far."""
        if isinstance(self.model, OnnxModel):
            return f"{self.model.info.precision}, onnxruntime"
        layout = "padded" if self.model.padding_free is None else "padding-free"
        told = f"{'bfloat16 weights' if self._narrow is not None else 'float32'}, {layout}"
        if self._judge is not None:
            found = [f"{', '.join(kind[2])}: {verdict}" for kind, verdict in self._judge.told.items()]
            told += f"; auto: {'; '.join(found) or 'not judged yet, too few texts'}"
        return told + (f"; up to {SINGLE} texts at once: float32, onnxruntime" if self._single is not None else "")

    @property
    def _all_tasks(self) -> list[Task]:
        """Those that it has, answerable or not."""
        return list(self.model.tasks)

    @property
    def tasks(self) -> list[Task]:
        """The tasks that can be answered, in the checkpoint's order (auxiliary language modelling cannot, and retrieval only from a
        knowledge base)."""
        return [
            task
            for task in self._all_tasks
            if task.kind.annotation != "none" and (task.kind.annotation != "match" or task.name in self.knowledge)
        ]

    @property
    def without_knowledge(self) -> list[str]:
        """Retrieval tasks that have no knowledge base to answer from."""
        return [t.name for t in self._all_tasks if t.kind.annotation == "match" and t.name not in self.knowledge]

    def __call__(
        self,
        texts: Iterable[Any] | str | Mapping[str, Any],
        tasks: Sequence[str] | str | None = None,
        batch_size: int = 32,
        *,
        scores: bool = False,
        top: int | None = None,
        words: str | None = None,
    ) -> list[dict[str, Any]]:
        """One prediction a row, in order: the row's fields and `predictions`, task → answer.

        Args:
            texts: rows; each a raw text, a list of words (offsets are then those of the words joined by single spaces, and
                token tasks add `tags`, one a word), or a mapping with fields called as in the tasks' `columns` or by role
                (`text`, `tokens`, `pair`, `question`, `context`, `choices`). One text or mapping is taken for one row; a pandas
                DataFrame gives its rows, without its index.
            tasks: names; by default every task that the row can feed.
            batch_size: most sequences (texts, windows, choices) a pass.
            scores: add every label's score; `top` adds the highest ones only.
            words: overrides the splitter of raw text for this call.

        Raises:
            UserError: an unknown task, or a row that does not feed the named tasks (or none at all).
        """
        return list(self.stream(texts, tasks, batch_size, scores=scores, top=top, words=words))

    def stream(
        self,
        rows: Iterable[Any],
        tasks: Sequence[str] | str | None = None,
        batch_size: int = 32,
        *,
        scores: bool = False,
        top: int | None = None,
        words: str | None = None,
        lookahead: int = LOOKAHEAD,
        tally: Tally | None = None,
    ) -> Iterator[dict[str, Any]]:
        """As a call, one prediction after the other; `rows` may be endless.

        Args:
            lookahead: rows that are read before the first is answered, so that texts of similar length share a pass; at least
                `batch_size`.
            tally: is kept up to date.

        Raises:
            UserError: as a call; the rows before a faulty one are answered first.
        """
        if batch_size < 1:
            raise fault(f"found {batch_size}", key="batch_size", allowed="at least 1")
        if top is not None and top < 1:
            raise fault(f"found {top}", key="top", allowed="at least 1")
        chosen = self.chosen(tasks)
        best = top if top is not None else (0 if scores else None)
        settings = Settings(tuple(chosen), tasks is not None, batch_size, best, checked_splitter(words) or self.words)
        return self._stream(rows, settings, max(lookahead, batch_size), tally or Tally())

    def decoded(
        self, rows: Iterable[Any], tasks: Sequence[str] | str | None = None, batch_size: int = 32
    ) -> list[dict[str, Any]]:
        """Task → the decoded annotation alone, a row each, as metrics compare it: a label, labels, a number, a tag a word, a text.

        Raises:
            UserError: as a call.
        """
        chosen = tuple(self.chosen(tasks))
        settings = Settings(chosen, tasks is not None, batch_size, None, self.words, decoded=True)
        return [row[PREDICTIONS] for row in self._stream(rows, settings, max(LOOKAHEAD, batch_size), Tally())]

    def chosen(self, names: Sequence[str] | str | None = None) -> list[Task]:
        """The tasks called so, in that order; all that can be answered if absent.

        Raises:
            UserError: an unknown name, or nothing to answer.
        """
        known = {task.name: task for task in self.tasks}
        if not known:
            raise UserError("the checkpoint has no task that can be answered; it was trained on unlabelled text alone")
        if names is None:
            return list(known.values())
        wanted = list(dict.fromkeys([names] if isinstance(names, str) else names))
        for name in wanted:
            if name in self.without_knowledge:
                raise fault(f"{name} answers from a knowledge base", key="knowledge", cure="give one: --knowledge FILE")
            if name not in known:
                raise fault(f'no task "{name}".{closest(name, known)}', key="tasks", allowed=listed(known, 40))
        if not wanted:
            raise fault("no task is named", key="tasks", allowed=listed(known, 40))
        return [known[name] for name in wanted]

    def _stream(
        self, rows: Iterable[Any], settings: Settings, lookahead: int, tally: Tally
    ) -> Iterator[dict[str, Any]]:
        fed = fed_rows(rows, settings, lookahead)
        for window in windows(fed, lookahead):
            answers = self._answer([piece for _, pieces in window for piece in pieces], settings, tally)
            for number, (item, _) in enumerate(window):
                found = {
                    task.name: answers[number, task.name] for task in settings.tasks if (number, task.name) in answers
                }
                tally.rows += 1
                yield {**item.fields, PREDICTIONS: found}

    def _answer(self, pieces: Sequence[Piece], settings: Settings, tally: Tally) -> dict[tuple[int, str], Any]:
        """(row, task) → answer, or the decoded annotation alone."""
        groups: dict[tuple[str, ...], list[Piece]] = {}
        for piece in pieces:
            groups.setdefault(piece.group, []).append(piece)
        answers: dict[tuple[int, str], Any] = {}
        truncated: set[int] = set()
        for group in groups.values():
            tasks = [task for task in settings.tasks if task.name in group[0].tasks]
            splitters = {task.name: settings.splitter_of(task) for task in tasks if task.kind.annotation == "tags"}
            runner = self._runner(tasks, splitters, settings.size)
            known = {task.name: task for task in tasks}
            kind = (group[0].form, tuple(sorted(group[0].fields)), tuple(known))
            for encoded in self._ahead(group, tasks, sorted(set(splitters.values()))):
                truncated |= {one.piece.row for one in encoded if one.first.truncated}
                batches = list(passes(encoded, settings.size))
                model = self._model_for(kind, runner, batches)
                for batch in batches:
                    with one_torch_thread() if isinstance(model, OnnxModel) else nullcontext():
                        ran = runner.run(batch, model)
                    for name, found in ran.items():
                        for one, decoded in zip(batch, found, strict=True):
                            answers[one.piece.row, name] = (
                                decoded.value
                                if settings.decoded
                                else self._told(known[name], decoded, one, splitters.get(name), settings.top)
                            )
        tally.truncated += len(truncated)
        return answers

    def _told(self, task: Task, decoded: Decoded, one: EncodedPiece, splitter: str | None, top: int | None) -> Any:
        if task.kind.annotation == "match":
            return self.knowledge[task.name].answer(task, decoded.value[0], top)
        return answer(task, decoded, one, splitter, top)

    def _runner(self, tasks: Sequence[Task], splitters: dict[str, str], size: int) -> Passes:
        """The passes of these tasks, made once."""
        key = (tuple(task.name for task in tasks), tuple(splitters.items()), size)
        if key not in self._runners:
            self._runners[key] = Passes(
                self.model, self.tokenizer, tasks, splitters, size=size, device=self.device, context=self._context
            )
        return self._runners[key]

    def _model_for(self, kind: Any, runner: Passes, batches: Sequence[list[EncodedPiece]]) -> Any:
        """What answers these batches."""
        rows = sum(len(piece.first.rows) for batch in batches for piece in batch)
        if self._single is not None and rows <= SINGLE and runner.decoders.keys() <= self._single.kinds.keys():
            return self._single
        if self._judge is not None:
            if self._judge.wants(kind, sum(map(len, batches))):
                self._judge.try_out(kind, runner, batches)
            return self._judge.model_for(kind)
        return self._narrow or self.model

    def _ahead(
        self, group: Sequence[Piece], tasks: Sequence[Task], splitters: Sequence[str]
    ) -> Iterator[list[EncodedPiece]]:
        """The group in parts of similar length; the next one is encoded in a thread while this one is answered."""
        parts = parts_of(group, PART)
        if len(parts) == 1:
            yield self._encode(parts[0], tasks, splitters)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
        coming = self._pool.submit(self._encode, parts[0], tasks, splitters)
        for number in range(len(parts)):
            encoded = coming.result()
            if number + 1 < len(parts):
                coming = self._pool.submit(self._encode, parts[number + 1], tasks, splitters)
            yield encoded

    def _encode(self, group: Sequence[Piece], tasks: Sequence[Task], splitters: Sequence[str]) -> list[EncodedPiece]:
        row_tasks = any(task.kind.annotation != "tags" for task in tasks)
        with self.encoding:
            return encode_pieces(
                group,
                self.tokenizer,
                splitters,
                row_tasks=row_tasks,
                max_length=self.max_length,
                stride=self.stride,
            )
