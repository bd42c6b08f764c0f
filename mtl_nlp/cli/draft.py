"""Guessed tasks → the text of a commented recipe."""

from __future__ import annotations

import os
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.guess import TaskGuess
from ..data.layout import FileGroup
from ..kinds import head_kind
from ..recipe import DEFAULT_ENCODER

WIDTH = 118
COMMENT_AT = 44
MOST_COUNTED = 12
MOST_LISTED = 200
UNEVEN = 5
_PLAIN = re.compile(r"(\.\./)*[A-Za-z_][\w./-]*", re.ASCII)
_WORDS_OF_YAML = ("true", "false", "null")


@dataclass(frozen=True)
class TaskDraft:
    """One task to be written.

    Attributes:
        name: unique in the recipe.
        looked_at: rows of the sample of the training file.
    """

    name: str
    guess: TaskGuess
    looked_at: int


@dataclass(frozen=True)
class CorpusDraft:
    """The tasks of one data set.

    Attributes:
        rows: of each split, in the whole file.
        unused: column → why.
        notes: what the user should know about its files.
    """

    group: FileGroup
    rows: dict[str, int]
    tasks: list[TaskDraft]
    unused: dict[str, str]
    notes: list[str]

    @property
    def held_back(self) -> float:
        """The share that is carved for validation: more of a small file."""
        return 0.1 if self.rows["train"] >= 200 else 0.2

    @property
    def texts(self) -> int:
        """Texts that are trained on."""
        size = self.rows["train"]
        return size if "validation" in self.rows else size - round(size * self.held_back)


def slug(text: str) -> str:
    """A task's name from a file's or a column's: ASCII letters, digits and `_`, a letter first; empty if nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_").lower()
    return f"task_{words}"[:48] if words[:1].isdigit() else words[:48]


def scalar(text: str) -> str:
    """A string as YAML 1.2, in quotes where they are needed."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS_OF_YAML:
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"


def inline(names: Sequence[str]) -> str:
    """Strings as a YAML list on one line."""
    return f"[{', '.join(scalar(name) for name in names)}]"


def comment(text: str, indent: int = 0) -> Iterator[str]:
    """Lines of a comment; characters that YAML refuses become `?`."""
    clean = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    start = " " * indent + "# "
    yield from textwrap.wrap(clean, WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False)


def key(text: str, why: str = "", indent: int = 0) -> str:
    """A line `key: value`, its comment behind it."""
    line = " " * indent + text
    # Without white space before it, `#` would belong to the value.
    return f"{line:<{COMMENT_AT - 2}}  # {why}" if why else line


def relative(path: Path, folder: Path) -> str:
    """A path as a recipe in `folder` names it."""
    try:
        found = os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
        # Through `..` a symbolic link would lead elsewhere, so such a path starts from where the folders really are.
        found = os.path.relpath(path.resolve(), folder.resolve()) if found.startswith("..") else found
    except ValueError:  # another drive
        found = str(path.resolve())
    return Path(found).as_posix()


def recipe_text(corpora: Sequence[CorpusDraft], *, folder: Path, target: Path, encoder: str | None) -> str:
    """The whole recipe.

    Args:
        folder: the folder of data files.
        target: the file that the recipe will be.
        encoder: as given; the default if None.
    """
    place = target.parent
    lines = [*_head(folder, target), *_encoder(encoder, place), "", "tasks:"]
    for corpus in corpora:
        lines += _corpus(corpus, place)
    texts = [corpus.texts for corpus in corpora]
    lines += ["", *_mixture(texts), "", *_training(texts, encoder), "", *_run(folder)]
    return "\n".join(lines) + "\n"


def _head(folder: Path, target: Path) -> Iterator[str]:
    yield from comment(
        f"Drafted by `mtl-nlp init` from the files in {folder.resolve().name}. Columns and heads are guesses."
    )
    yield from comment(
        f"`mtl-nlp check {target.name}` reads the data, names every fault and says what the run will do."
    )
    yield from comment(
        f"`mtl-nlp train {target.name}` trains; --set KEY=VALUE replaces any key: --set mixture.batch=16"
    )
    yield "# Paths are relative to this file. Tasks may be renamed freely: logs, checkpoints and predictions use the names."
    yield ""


def _encoder(name: str | None, place: Path) -> Iterator[str]:
    if name is not None and Path(name).expanduser().is_dir():
        name = relative(Path(name).expanduser(), place)
    yield "encoder:"
    yield key(f"name: {scalar(name or DEFAULT_ENCODER)}", "any AutoModel on the Hub, or a folder", 2)
    yield key("freeze: none", "none | embeddings | all (only heads learn) | N (so many layers from the bottom)", 2)
    yield key("# max_length: 256", "most tokens of a text; default: what the encoder takes", 2)


def _corpus(corpus: CorpusDraft, place: Path) -> Iterator[str]:
    yield ""
    told = ", ".join(f"{split} {size}" for split, size in corpus.rows.items())
    yield from comment(f"{relative(corpus.group.first, place)}: {told} rows", 2)
    if len(corpus.tasks) > 1:
        yield from comment("The tasks on one file share a corpus: each text is encoded once, for all of them.", 2)
    for note in corpus.notes:
        yield from comment(f"Note: {note}.", 2)
    if corpus.unused:
        told = "; ".join(f"{name} ({why})" for name, why in corpus.unused.items())
        yield from comment(f"Unused columns: {told}", 2)
    for task in corpus.tasks:
        yield from _task(task, corpus, place)


def _task(task: TaskDraft, corpus: CorpusDraft, place: Path) -> Iterator[str]:
    guess = task.guess
    kind = head_kind(guess.head)
    yield key(f"- name: {task.name}", "", 2)
    yield key(f"head: {guess.head}", f"{kind.description}; all heads: mtl-nlp tasks list", 4)
    yield "    data:"
    yield from _sources(corpus, place)
    yield "      columns:"
    for role, value in guess.columns.items():
        shown = scalar(value) if isinstance(value, str) else inline(value)
        yield key(f"{role}: {shown}", _role_says(role, guess.head), 8)
    if guess.missing is not None:
        yield key(f"missing: {inline(guess.missing)}", "values that mean not annotated; default: -1 and empty", 6)
    if guess.scheme is not None:
        yield key(
            f"scheme: {guess.scheme}", "how tags mark entities: iob2 | iob1 | bioes | none (every tag a label)", 4
        )
    if "spans" in guess.columns:
        yield key("words: pretokenizer", "how the text is cut into words: pretokenizer | whitespace", 4)
    yield from _labels(task, kind.form.has_labels)
    yield key(f"metrics: {inline(guess.metric_names)}", "the first is the primary one: it enters eval_mean", 4)
    yield key("# loss: {weight: 1.0}", "factor on its loss, beside its share of the mixture", 4)


def _sources(corpus: CorpusDraft, place: Path) -> Iterator[str]:
    files = corpus.group.files
    if list(files) == ["train"] and len(files["train"]) == 1:
        yield key(
            f"source: {scalar(relative(files['train'][0], place))}", "file, folder of train.* …, or Hub data set", 6
        )
    else:
        yield "      splits:"
        for split, paths in files.items():
            names = [relative(path, place) for path in paths]
            yield key(f"{split}: {scalar(names[0]) if len(names) == 1 else inline(names)}", "", 8)
    if "validation" not in files:
        share = corpus.held_back
        yield key(f"validation: {share}", "share held back from train: seeded, no text on both sides", 6)


def _role_says(role: str, head: str) -> str:
    says = {
        "text": "what is read",
        "tokens": "what is read: the words",
        "pair": "the second text",
        "question": "what is asked",
        "context": "what is read",
        "spans": "what is learned: {start, end, label} in characters",
        "answers": "what is learned: {text, answer_start}",
        "choices": "the choices, a list",
        "query": "what is asked for",
        "candidates": "what is ranked, a list",
        "candidate": "what is ranked, one a row",
        "relevance": "what is learned: 0 for none, 1 or more",
        "positive": "what is learned: the passage that answers",
        "negatives": "passages that look right and are not",
        "choice_columns": "the choices, a column each",
    }
    learned = "a tag for each word" if head == "token_classification" else "several a text: a list, or a|b"
    return says.get(role) or f"what is learned{': ' + learned if role == 'labels' else ''}"


def _labels(task: TaskDraft, has_labels: bool) -> Iterator[str]:
    guess = task.guess
    if guess.fixed_labels:
        yield key(f"labels: {inline(guess.fixed_labels)}", "what the first, second, … choice is called", 4)
    elif has_labels and guess.labels:
        order = sorted(guess.labels)
        yield from comment(f"Seen in {guess.annotated} annotated of {task.looked_at} rows: {_counted(guess.labels)}", 4)
        if len(order) <= MOST_LISTED:
            yield from comment("Labels are taken from the training data, sorted; to fix them and their order:", 4)
            yield from comment(f"labels: {inline(order)}", 4)
        else:
            yield from comment(
                "Labels are taken from the training data, sorted; `labels: [first, second, …]` fixes them.", 4
            )
    else:
        yield from comment(f"{guess.annotated} of {task.looked_at} rows looked at carry it.", 4)
    for note in guess.notes:
        yield from comment(f"Note: {note}.", 4)


def _counted(labels: Counter[str]) -> str:
    if len(labels) <= MOST_COUNTED:
        return ", ".join(f"{_shortened(name)} {labels[name]}" for name in sorted(labels))
    (first, most), *_, (last, least) = labels.most_common()
    return f"{len(labels)} labels, from {_shortened(first)} ({most}) to {_shortened(last)} ({least})"


def _shortened(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"


def batch_of(texts: int) -> int:
    """32 texts, or less where there are fewer than 64: half of them, as a power of two; 2 at least."""
    return 32 if texts >= 64 else max(2, 1 << max(texts // 2, 1).bit_length() - 1)


def epochs_of(texts: int) -> int:
    """More passes over less data; the best epoch is kept."""
    return next(epochs for least, epochs in ((20_000, 3), (2_000, 5), (200, 10), (0, 20)) if texts >= least)


def _mixture(texts: Sequence[int]) -> Iterator[str]:
    uneven = len(texts) > 1 and max(texts) > UNEVEN * min(texts)
    strategy = "temperature" if uneven else "proportional"
    yield "mixture:"
    yield key(f"strategy: {strategy}", "proportional (to size) | uniform | temperature | capped | annealed | …", 2)
    why = "1: proportional; the higher, the nearer to uniform: helps small data sets"
    yield key("temperature: 2.0" if uneven else "# temperature: 2.0", why, 2)
    yield key("# rates: {NAME: 0.5, …}", "for fixed: the share of each data set, called by one of its tasks", 2)
    yield key("batching: mixed", "mixed (several tasks in one batch) | homogeneous (one data set a batch)", 2)
    yield key(f"batch: {batch_of(sum(texts))}", "texts a step, over all devices", 2)


def _training(texts: Sequence[int], encoder: str | None) -> Iterator[str]:
    size = sum(texts)
    small = encoder in (None, DEFAULT_ENCODER)
    rate, why = ("1.0e-4", "small encoders take 1e-4 to 3e-4, larger ones (BERT-base) 2e-5 to 5e-5")
    if not small:
        rate, why = "5.0e-5", "2e-5 to 5e-5 for encoders like BERT-base, 1e-4 to 3e-4 for small ones"
    yield key("training:", "any field of transformers.TrainingArguments")
    yield key(
        f"num_train_epochs: {epochs_of(size)}", f"passes over {size} texts; max_steps: N in its place ends earlier", 2
    )
    yield key(f"learning_rate: {rate}", why, 2)
    yield key("warmup_steps: 0.06", "below 1: a share of all steps", 2)
    yield key("eval_strategy: epoch", "epoch | steps (with eval_steps) | no", 2)
    yield key("save_strategy: epoch", "as eval_strategy, so that the best model is kept", 2)
    yield key("logging_steps: 10", "steps between lines of the log", 2)
    yield key("# bf16: auto", "bfloat16 where the machine has it; false for float32", 2)
    yield key("# gradient_accumulation_steps: 2", "for a batch that does not fit the memory", 2)
    yield key("# head_learning_rate: 1.0e-3", "for the heads alone; default: learning_rate", 2)
    yield ""
    yield "# stopping:"
    yield key("#   patience: 3", "end after so many evaluations without a gain")


def _run(folder: Path) -> Iterable[str]:
    name = folder.resolve().name or "model"
    yield key("seed: 13", "the same seed gives the same run")
    yield key(
        f"output_dir: {scalar(f'runs/{name}')}", "the checkpoint; has to be new or empty, or use --resume, --output"
    )
