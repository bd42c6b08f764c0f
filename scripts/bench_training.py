"""Training speed, side by side in one run: this toolkit's joint step against plain `transformers.Trainer`, one model a corpus.

    python scripts/bench_training.py DATA_ROOT [--bf16] [--rounds 5] [--steps 12] [--threads N]
    python scripts/bench_training.py DATA_ROOT --bf16 --encoder bert-base --batch 2048 --tokens 81920 --workers 8 --repeat 5 \\
        --rounds 2 --steps 10 --sides compiled --inference      # for a GPU (random weights)
    python scripts/bench_training.py DATA_ROOT --tasknet        # tasknet 1.60 as one more side (see tasknet_side.py)
    python scripts/bench_training.py DATA_ROOT --overhead       # the parts of our step
    python scripts/bench_training.py DATA_ROOT --heads 3 300    # steps with few and many heads (synthetic texts)
    python scripts/bench_training.py DATA_ROOT --scaling [tasks length batch rows threads] [--most N]

Work: SST-2, the Broad Twitter Corpus and SNIPS (intent and slots) on the embedded MiniLM (or an encoder of `--encoder`'s shape),
batches of 32 (`--batch`), the encoder's own dropout. Sides:

- ours: the joint recipe of the headline study, `performance: auto`;
- ours, compiled: the same with `training.torch_compile` (on a GPU);
- ours, plain: the same with `performance: plain` (padded, torch's dropout; batches still of similar length);
- Trainer: one plain Trainer a corpus with dynamic padding and its own defaults, SNIPS with its slots alone, which spares it one
  of four models.

Rounds are interleaved; a side's figure is the median over rounds of real tokens per second of whole steps (optimizer and data
loading included, from the end of the second step to the end of the last). The plain corpora are weighted by their sizes. The last
column is what part of the measured rate of a large matrix product the side's real tokens use (6 operations a token and weight of
the encoder's matrices; attention itself and padding do not count).

`--inference` adds what the trained models answer: from stored token ids to arg max labels on the host, ours for all tasks of a
corpus in one pass, with the encoder's weights in bfloat16, texts sorted by length; `Trainer.predict` in bfloat16, one task a
corpus, as they come; the loader's processes are started within the time that counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from label_speed import answered, predicted
from random_encoders import NAMES, encoder, encoder_weights
from step_benchmarks import SCALES, print_heads, print_overhead, print_scaling
from transformers.trainer_callback import PrinterCallback

from mtl_nlp import load_recipe
from mtl_nlp.training.finetune import build_trainer
from mtl_nlp.training.prepare import Prepared, prepare

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "scripts" / "recipes" / "headline.yaml"
CORPORA = ("sst2", "broad_twitter_corpus", "snips_slots")
WARM = 2 if not torch.cuda.is_available() else 5  # what a GPU needs has been allocated by then


class Clock(transformers.TrainerCallback):
    """When each step ended; a GPU, where work is queued, is waited for after the first few steps and after the last alone."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        if torch.cuda.is_available() and state.global_step in (WARM, state.max_steps):
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def rate(train: Callable[[Clock], list[int]]) -> tuple[float, float]:
    """(real tokens, seconds) of the steps that count; `train` returns the real tokens of every step."""
    clock = Clock()
    tokens = train(clock)
    return float(sum(tokens[WARM:])), clock.ends[-1] - clock.ends[WARM - 1]


def prepared_for(
    root: Path, tasks: list[str] | None, options: argparse.Namespace, performance: str, tokens: int = 0
) -> Prepared:
    """A recipe's data, read once.

    Args:
        tokens: real ones a step, in place of `options.batch` texts.
    """
    sets = [f"training.max_steps={options.steps + WARM}", f"training.bf16={str(options.bf16).lower()}"]
    sets += [f"training.{key}={value}" for key, value in SILENT.items()]
    sets += ["performance=plain"] if performance == "plain" else []
    sets += ["training.torch_compile=true"] if performance == "compiled" else []
    size = f"max_tokens: {tokens}" if tokens else f"batch: {options.batch}"
    sets += [f"encoder={encoder(options.encoder)}", f"mixture={{strategy: proportional, {size}}}"]
    sets += [f"training.dataloader_num_workers={options.workers}"] if options.workers else []
    if tasks:
        sets.append(f"tasks=[{', '.join(tasks)}]")
    return prepare(load_recipe(RECIPE, sets, output=tempfile.mkdtemp()), data_root=root, splits=("train",))


SILENT = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "load_best_model_at_end": "false",
    "logging_steps": 10**6,
    "disable_tqdm": "true",
}


def repeated(root: Path, times: int) -> Path:
    """The corpora's training files, each several times over."""
    target = Path(tempfile.mkdtemp(prefix="mtl-nlp-bench-data-"))
    for file in root.glob("*/train.*"):
        text = file.read_text(encoding="utf-8").rstrip("\n") + ("\n\n" if file.suffix == ".conll" else "\n")
        (target / file.parent.name).mkdir()
        (target / file.parent.name / file.name).write_text(text * times, encoding="utf-8")
    return target


def ours(prepared: Prepared) -> Callable[[Clock], list[int]]:
    """The joint run."""

    def train(clock: Clock) -> list[int]:
        trainer = build_trainer(prepared, callbacks=[clock])
        tokens: list[int] = []
        count = trainer._count

        def counted(batches: Any) -> Any:
            found = count(batches)
            tokens.append(found.tokens)
            return found

        trainer._count = counted  # type: ignore[method-assign]
        trainer.train()
        return tokens

    return train


def plain(prepared: Prepared, task: str, options: argparse.Namespace) -> Callable[[Clock], list[int]]:
    """A plain Trainer on the corpus of one task, rows in its own random order."""
    definition = next(t for t in prepared.tasks if t.name == task)
    rows = next(iter(prepared.encoded["train"].values())).rows
    kind = build_trainer(prepared).multi.kinds[task]
    config = kind.config(prepared.encoder_config)
    tagging = definition.kind.annotation == "tags"
    auto = transformers.AutoModelForTokenClassification if tagging else transformers.AutoModelForSequenceClassification
    from mtl_nlp.model.encoder import locate

    collate = (
        transformers.DataCollatorForTokenClassification(prepared.tokenizer)
        if tagging
        else transformers.DataCollatorWithPadding(prepared.tokenizer)
    )
    labelled = rows.rename_column(f"@{task}", "labels" if tagging else "label")
    types = ["token_type_ids"] if "token_type_ids" in labelled.column_names else []
    data = labelled.select_columns(["input_ids", *types, "labels" if tagging else "label"])

    def train(clock: Clock) -> list[int]:
        tokens: list[int] = []

        def collated(features: Any) -> Any:
            batch = collate(features)
            batch["real"] = int(batch["attention_mask"].sum())
            return batch

        class Counting(transformers.Trainer):
            def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
                tokens.append(inputs.pop("real"))
                return super().training_step(model, inputs, *args, **kwargs)

        arguments = transformers.TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            max_steps=options.steps + WARM,
            per_device_train_batch_size=options.batch,
            dataloader_num_workers=options.workers,
            remove_unused_columns=False,
            bf16=options.bf16,
            use_cpu=not torch.cuda.is_available(),
            learning_rate=1e-4,
            disable_tqdm=True,
            save_strategy="no",
            logging_strategy="no",
        )
        model = auto.from_pretrained(locate(prepared.recipe.encoder_spec.name), config=config, dtype=torch.float32)
        trainer = Counting(model, arguments, train_dataset=data, data_collator=collated, callbacks=[clock])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if options.inference:
            LABELLED["Trainer"].append(predicted(model, collate, data, options.batch, options.workers, options.bf16))
        return tokens

    return train


def rates_that_fit(
    plains: dict[str, Callable[[Clock], list[int]]], options: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Task → (real tokens, seconds) of the plain Trainers; with half as many texts a step if the GPU's memory does not do."""
    while True:
        try:
            return {task: rate(train) for task, train in plains.items()}
        except torch.OutOfMemoryError:
            if options.batch < 64:
                raise
        torch.cuda.empty_cache()
        options.batch //= 2
        LABELLED["Trainer"].clear()
        print(f"Trainer: out of memory, {options.batch} texts a step from here on", file=sys.stderr, flush=True)


LABELLED: dict[str, list[tuple[int, float]]] = {"ours": [], "Trainer": []}  # (real tokens, seconds)


def peak(bf16: bool) -> float:
    """FLOP/s of a large square matrix product."""
    cuda = torch.cuda.is_available()
    side, kind = 8192 if cuda else 2048, torch.bfloat16 if bf16 else torch.float32
    a, b = (torch.randn(side, side, dtype=kind, device="cuda" if cuda else "cpu") for _ in range(2))
    times = []
    for _ in range(12):
        start = time.perf_counter()
        a @ b
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, help="holds sst2, btc and snips; not read by --heads and --scaling")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--encoder", choices=NAMES, default="minilm", help="all but minilm have random weights")
    parser.add_argument("--batch", type=int, default=32, help="texts a step, on every side")
    parser.add_argument(
        "--tokens",
        type=int,
        default=0,
        help="also ours with up to so many real tokens a step (`mixture.max_tokens`) in place of --batch texts",
    )
    parser.add_argument("--workers", type=int, default=0, help="loader processes, on every side")
    parser.add_argument("--sides", nargs="*", choices=("ours", "compiled", "plain"), default=["ours", "plain"])
    parser.add_argument(
        "--repeat", type=int, default=1, help="go through each corpus so often an epoch: loaders begin anew at its end"
    )
    parser.add_argument("--inference", action="store_true", help="also from token ids to labels")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tasknet", action="store_true", help="tasknet's joint training as one more side")
    parser.add_argument("--overhead", action="store_true", help="the parts of our step, and what the toolkit adds")
    parser.add_argument(
        "--heads", type=int, nargs="*", help="steps with so many heads in turns (3 300 if none is given)"
    )
    parser.add_argument(
        "--scaling", nargs="*", choices=list(SCALES), help="the scaling table; all of it if none is given"
    )
    parser.add_argument("--most", type=int, default=10**9, help="with --scaling: leave larger values out")
    options = parser.parse_args()
    if options.tasknet and options.batch != 32:
        parser.error("--tasknet is set up for batches of 32")
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    if options.repeat > 1:
        options.data_root = repeated(options.data_root, options.repeat)
    if options.heads is not None:
        settings = {"bf16": options.bf16, "detail": options.overhead, "threads": options.threads}
        print_heads(options.heads or (3, 300), options.rounds, options.steps, **settings)
    elif options.scaling is not None:
        wanted = options.scaling or list(SCALES)
        print_scaling(wanted, options.steps, options.most, bf16=options.bf16, threads=options.threads)
    elif options.overhead:
        options.steps *= 2  # every second one is timed
        print_overhead(prepared_for(options.data_root, None, options, "auto", options.tokens), options.steps // 2)
    else:
        side_by_side(options)


def side_by_side(options: argparse.Namespace) -> None:
    """Ours against the others, in turns."""
    joint = prepared_for(options.data_root, None, options, "auto")
    sides = {}
    for side, performance in {"ours": "auto", "compiled": "compiled", "plain": "plain"}.items():
        for tokens in dict.fromkeys((0, options.tokens)) if side in options.sides else ():
            name = (
                f"{'ours' if side == 'ours' else f'ours, {side}'}{f', up to {tokens} tokens a step' if tokens else ''}"
            )
            sides[name] = ours(prepared_for(options.data_root, None, options, performance, tokens))
    singles = {task: prepared_for(options.data_root, [task], options, "plain") for task in CORPORA}
    sizes = {task: len(next(iter(part.encoded["train"].values()))) for task, part in singles.items()}
    other = argparse.Namespace(**vars(options))
    plains = {task: plain(part, task, other) for task, part in singles.items()}
    if options.tasknet:
        from tasknet_side import tasknet_side

        sides["tasknet"] = tasknet_side(singles, steps=options.steps + WARM, bf16=options.bf16)
    rates: dict[str, list[float]] = {name: [] for name in (*sides, "Trainer")}
    for number in range(options.rounds):
        for name, side in sides.items():
            tokens, seconds = rate(side)
            rates[name].append(tokens / seconds)
            print(f"round {number + 1}: {name}: {tokens / seconds:.0f} real tokens/s", file=sys.stderr, flush=True)
        found = rates_that_fit(plains, other)
        # Every corpus is gone through as often: its steps count by its size.
        tokens = sum(sizes[task] * count for task, (count, _) in found.items())
        rates["Trainer"].append(tokens / sum(sizes[task] * seconds for task, (_, seconds) in found.items()))
    base, most = statistics.median(rates["Trainer"]), peak(options.bf16)
    if other.batch < options.batch:
        print(f"Trainer ran out of memory with more than {other.batch} texts a step; its figures are with these")
    kind, place = "bf16" if options.bf16 else "fp32", f"{options.threads} threads"
    if torch.cuda.is_available():
        place = torch.cuda.get_device_name()
    print(
        f"{kind}, {options.encoder}, {options.batch} texts a step, {place}, {options.rounds} rounds of {options.steps} steps; "
        f"torch {torch.__version__}, transformers {transformers.__version__}"
    )
    weights = encoder_weights(build_trainer(joint).multi.encoder)
    print(
        "| side | real tokens/s (median; lowest, highest) | × Trainer | of the matrix product's rate |\n|---|---|---|---|"
    )
    for name, values in rates.items():
        middle = statistics.median(values)
        spread = f"{middle:.0f}; {min(values):.0f}, {max(values):.0f}"
        print(f"| {name} | {spread} | {middle / base:.2f} | {6 * weights * middle / most:.0%} |")
    if options.inference:
        LABELLED["ours"].append(answered(joint, options.batch, options.workers, options.bf16))
        found = {name: sum(n for n, _ in values) / sum(s for _, s in values) for name, values in LABELLED.items()}
        print("\n| inference | real tokens/s | × Trainer | of the matrix product's rate |\n|---|---|---|---|")
        for name, value in found.items():
            print(f"| {name} | {value:.0f} | {value / found['Trainer']:.2f} | {2 * weights * value / most:.0%} |")
    print(f"matrix product: {most / 1e9:.0f} GFLOP/s; {weights / 1e6:.1f} million weights in the encoder's matrices")


if __name__ == "__main__":
    main()
