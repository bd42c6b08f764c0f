"""What a report is made of: typed facts, read from folders, drawn by nobody here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Points = list[tuple[float, float]]  # (step, value)
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: decisions, their mean confidence, and the share that is right."""

    low: float
    high: float
    count: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Reliability:
    """How far confidences can be believed: expected calibration error over `decisions`, and its bins (empty ones left out)."""

    ece: float
    decisions: int
    unit: str
    bins: list[Bin]


@dataclass(frozen=True)
class Confusion:
    """Counts of (reference, prediction), by places in `labels`; `unit` is what is counted."""

    labels: list[str]
    counts: dict[tuple[int, int], int]
    unit: str

    def row_total(self, place: int) -> int:
        """How many have this reference."""
        return sum(count for (gold, _), count in self.counts.items() if gold == place)

    def worst(self, most: int) -> list[tuple[str, str, int]]:
        """(reference, prediction, count) of the most frequent confusions."""
        wrong = [(count, g, p) for (g, p), count in self.counts.items() if g != p and count]
        wrong.sort(key=lambda one: (-one[0], one[1], one[2]))
        return [(self.labels[g], self.labels[p], count) for count, g, p in wrong[:most]]


ERROR_TYPES = ("correct", "boundary", "type", "both", "missed", "spurious")


@dataclass(frozen=True)
class SpanErrors:
    """Entity type → error type → count. All are counted under the reference's type, `spurious` under the predicted one."""

    by_type: dict[str, dict[str, int]]

    @property
    def total(self) -> dict[str, int]:
        """Over all types."""
        return {name: sum(one[name] for one in self.by_type.values()) for name in ERROR_TYPES}


@dataclass(frozen=True)
class LabelScore:
    """Precision, recall and F1 of one label, and its number in the references."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Numbers:
    """A regression: up to some hundred (reference, prediction) pairs to draw, and errors over all."""

    pairs: list[tuple[float, float]]
    mae: float
    rmse: float


@dataclass(frozen=True)
class Mark:
    """Words `first` … `stop` − 1 of a mistake's text, with an entity's type."""

    first: int
    stop: int
    label: str


@dataclass(frozen=True)
class Mistake:
    """A wrong answer.

    Attributes:
        row: of the source.
        inputs: (role, text), shortened.
        gold, predicted: shown.
        confidence: of what was predicted; None where there is none (a number: `error` instead).
        words, gold_marks, predicted_marks: for entities.
    """

    row: int | None
    inputs: list[tuple[str, str]]
    gold: str
    predicted: str
    confidence: float | None = None
    error: float | None = None
    words: list[str] = field(default_factory=list)
    gold_marks: list[Mark] = field(default_factory=list)
    predicted_marks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True)
class Answers:
    """What one task answered on a split. A part that its kind has not is None or empty.

    Attributes:
        wrong: texts whose answer is not wholly right (of a number: None).
    """

    split: str
    texts: int
    wrong: int | None
    confusion: Confusion | None = None
    labels: list[LabelScore] = field(default_factory=list)
    spans: SpanErrors | None = None
    reliability: Reliability | None = None
    numbers: Numbers | None = None
    worst: list[Mistake] = field(default_factory=list)


@dataclass
class TaskReport:
    """One task of a run.

    Attributes:
        metric: the primary one; "" for a task that is not scored.
        scores: metric → value of the saved model on validation.
        loss, score, share, weight, gradient_weight: over steps.
        missing: why there are no answers.
    """

    name: str
    head: str
    annotation: str
    labels: list[str]
    metric: str
    scheme: str = "iob2"
    scores: dict[str, float] = field(default_factory=dict)
    loss: Points = field(default_factory=list)
    score: Points = field(default_factory=list)
    share: Points = field(default_factory=list)
    weight: Points = field(default_factory=list)
    gradient_weight: Points = field(default_factory=list)
    answers: Answers | None = None
    missing: str = ""


@dataclass(frozen=True)
class Table:
    """A square or oblong table of numbers, None where nothing was measured."""

    rows: list[str]
    columns: list[str]
    values: list[list[float | None]]


@dataclass(frozen=True)
class Cosines:
    """Gradient cosines: tasks × tasks (mean over time), pairs × layer groups, and pair → cosine over steps."""

    mean: Table
    by_layer: Table
    over_time: dict[str, Points]
    notes: int


@dataclass
class RunReport:
    """One training run.

    Attributes:
        name: of the folder.
        about: what it is, in rows.
        seconds, steps: of the training.
        mean: of the primary metrics on validation.
        recipe: the resolved recipe as YAML, without paths of this machine.
        vectors: cosines between the learned task vectors, where the model is conditioned by them.
        notes: what is missing, and how to get it.
    """

    name: str
    folder: str
    tasks: list[TaskReport]
    about: Rows = field(default_factory=list)
    mean: float | None = None
    steps: int | None = None
    rates: Points = field(default_factory=list)
    cosines: Cosines | None = None
    vectors: Table | None = None
    recipe: str = ""
    environment: Rows = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Group:
    """Examples that have something in common: single-task score, variant's score, difference; `changed`: more than by chance."""

    by: str
    value: str
    rows: int
    single: float | None
    variant: float | None
    difference: float | None
    changed: bool = False


@dataclass(frozen=True)
class Result:
    """One task under one variant against its single-task model; numbers in the metric's own unit.

    `detectable` is the difference that a comparison of this size finds four times in five.
    """

    task: str
    variant: str
    metric: str
    mean: float
    deviation: float | None
    single_mean: float
    single_deviation: float | None
    difference: float
    low: float | None
    high: float | None
    p_seeds: float | None
    p_examples: float | None
    p_holm: float | None
    verdict: str
    detectable: float | None = None
    groups: list[Group] = field(default_factory=list)


@dataclass(frozen=True)
class Overall:
    """The difference of a variant's mean over all tasks, with its interval."""

    variant: str
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SeedScore:
    """One model's score on one task's test split."""

    task: str
    variant: str
    seed: int
    value: float


@dataclass(frozen=True)
class Cost:
    """What a variant costs, means over its seeds; of single-task models the sum over tasks."""

    variant: str
    values: dict[str, float]


@dataclass
class ComparisonReport:
    """One comparison, as `comparison.json` has it.

    Attributes:
        chosen: the variant that validation chose; "" if none.
        split: where the scores are from.
    overall: an entry a variant, where the file has it.
    """

    name: str
    folder: str
    seeds: list[int]
    tasks: dict[str, dict[str, Any]]
    variants: list[dict[str, Any]]
    results: list[Result]
    scores: list[SeedScore]
    costs: list[Cost]
    split: str = "test"
    chosen: str = ""
    overall: list[Overall] = field(default_factory=list)
    recipe: str = ""
    environment: Rows = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class InterferenceReport:
    """One measurement of `mtl-nlp interference`; affinities in per cent."""

    name: str
    folder: str
    affinity: Table
    error: Table
    by_layer: Table
    cosines: Table
    cosines_by_layer: Table
    pairs: list[dict[str, Any]]
    groups: list[list[str]]
    share_until: str | None
    about: Rows = field(default_factory=list)


@dataclass
class Report:
    """Everything on one page."""

    title: str
    made: str
    version: str
    runs: list[RunReport] = field(default_factory=list)
    comparisons: list[ComparisonReport] = field(default_factory=list)
    interferences: list[InterferenceReport] = field(default_factory=list)
