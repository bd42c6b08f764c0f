"""The runs of a comparison on the disk: trained one after the other, each folder complete or not there.

Several processes may work on one comparison: each claims a run, and leaves alone what another has claimed.

A run is trained in `OUTPUT/.work/NAME`, scored, and renamed to `OUTPUT/runs/NAME`; killed at any moment, the next call goes on
from its newest checkpoint. Its `run.json` says what was asked for: a folder of another recipe is refused, one of the same is used
again. Runs that choose a learning rate stand in `OUTPUT/rates` until the one that was chosen becomes the run of the first seed.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..comparison import JOINT, SINGLE
from ..durable import sync_folder
from ..errors import Faults, fault, listed
from ..hub.checkpoint import CHECKSUMS, METRICS
from ..model.files import INDEX, read_json, weight_files
from ..recipe import Recipe
from ..training.finetune import finetune
from ..training.predictions import Predicted, write_predictions
from .comparison_folder import (
    RECORD,
    Place,
    claimed,
    clear_leftovers,
    differences,
    duration,
    has_weights,
    record_of,
    write_whole,
)
from .comparison_fusion import FusionRequest, find_fusion
from .comparison_plan import Plan, Run, Variant

logger = logging.getLogger("mtl_nlp")

KEEP = ("first", "all", "none")
PAUSE = 2.0  # seconds between looks at what other processes do
FOLLOWS = tuple(f"training.{name}" for name in ("max_steps", "eval_steps", "save_steps", "warmup_steps"))


class Runner:
    """Trains what is missing.

    Args:
        keep: whose weights stay: those of the `first` seed, `all`, or `none` (once they are no longer needed).
        callbacks: for the Trainer.
    """

    def __init__(self, plan: Plan, place: Place, *, keep: str = "first", callbacks: Any = ()) -> None:
        self.plan, self.place, self.keep, self.callbacks = plan, place, keep, callbacks
        self.spent: list[tuple[int, float]] = []  # (steps, seconds) of the runs of this call
        self.closed: set[int] = set()

    def all(self, after_first_seed: Callable[[], None]) -> None:
        """Every run, seed by seed; `after_first_seed` is called while all its weights are there, by one process.

        Raises:
            UserError: finished runs are of other recipes (all of them are named).
        """
        self.check_finished()
        while left := self.left():
            self._check_rates()
            self._close({run.seed for run in left}, after_first_seed)
            self._some(left)
        self._check_rates()
        self._close(set(), after_first_seed)
        shutil.rmtree(self.place.folder / ".work", ignore_errors=True)

    def left(self) -> list[Run]:
        """What has no record yet, in order: trials, then the runs seed by seed."""
        trials = [run for run in self.plan.trials() if self._trial_record(run) is None]
        return trials + [run for run in self.plan.runs() if record_of(self.place.run(run)) is None]

    def _check_rates(self) -> None:
        """Refuse a run that was trained with another learning rate than the one that is the best by now."""
        for run in self.plan.runs():
            target, record = self.place.run(run), record_of(self.place.run(run))
            if record is None or not self._settled(run.side):
                continue
            rate = self.chosen_rate(run.side)
            if rate not in (None, record["learning_rate"]):
                cure = "remove the folder to train it again, or give the learning rates of before"
                found = f"{rate:g} is the best on validation, but it was trained with {record['learning_rate']:g}"
                raise fault(found, where=str(target), key="compare.learning_rates", cure=cure)

    def _settled(self, side: str) -> bool:
        """Whether all trials of a side are there."""
        return all(self._trial_record(trial) is not None for trial in self.plan.trials() if trial.side == side)

    def _some(self, left: list[Run]) -> None:
        """Do the first of what is left that can be done and that no other process is at; wait where there is none."""
        for run in left:
            if not self._ready(run):
                continue
            target = self.place.run(run) if run.rate is None else self.place.trial(run)
            with claimed(self.place.lock(target.name)) as mine:
                if mine and run in self.left():
                    self._trial(run) if run.rate is not None else self._one(run)
                    return
        logger.info("waiting for the %d runs of other processes", len(left))
        while self.left() == left and not any(self._ready(run) and self._free(run) for run in left):
            time.sleep(PAUSE)

    def _free(self, run: Run) -> bool:
        target = self.place.run(run) if run.rate is None else self.place.trial(run)
        with claimed(self.place.lock(target.name)) as mine:
            return mine

    def _ready(self, run: Run) -> bool:
        """Whether what the run is made from is there: the learning rate of its side, the length of the joint run, parents."""
        if run.rate is None and not self._settled(run.side):
            return False
        if self.plan.variant(run.variant).kind == "fusion":
            return self._settled(JOINT) and all(
                record_of(self.place.run(parent)) is not None for parent in self._parents(run)
            )
        return run.task is None or self._joint_report(run) is not None

    def _parents(self, run: Run) -> list[Run]:
        """What a fusion is made of."""
        method = (self.plan.variant(run.variant).fuse or {})["method"]
        joint = [Run(JOINT, None, run.seed)] if getattr(find_fusion(method), "needs_joint", True) else []
        return [*joint, *(Run(SINGLE, task, run.seed) for task in self.plan.task_names)]

    def _close(self, open_seeds: set[int], after_first_seed: Callable[[], None]) -> None:
        """What is done once with all weights of a seed, before those that are no longer needed go."""
        for seed in self.plan.seeds:
            if seed in open_seeds or seed in self.closed:
                continue
            with claimed(self.place.lock("weights"), wait=True):
                if seed == self.plan.seeds[0]:
                    after_first_seed()
                self._prune(seed)
            self.closed.add(seed)

    def _trial(self, run: Run) -> None:
        self._announce(run, f"learning rate {run.rate:g}")
        self._train(run, self.place.trial(run), test=False)

    def missing(self) -> list[Run]:
        """What is still to be trained."""
        trials = [run for run in self.plan.trials() if self._trial_record(run) is None]
        tuned = {run.side for run in self.plan.trials()}
        done = [run for run in self.plan.runs() if record_of(self.place.run(run)) is not None]
        later = [run for run in self.plan.runs() if run not in done]
        # The first seed's run of a side that is tuned is one of its trials.
        return trials + [run for run in later if not (run.seed == self.plan.seeds[0] and run.side in tuned)]

    def check_finished(self) -> None:
        """Refuse what was trained by another recipe, all of it at once."""
        faults = Faults()
        for run in [*self.plan.trials(), *self.plan.runs()]:
            folder = self.place.trial(run) if run.rate is not None else self.place.run(run)
            record = record_of(folder)
            if record is None:
                continue
            for key, (old, new) in self._changes(run, record).items():
                cure = "give another --output, or remove that folder"
                faults.add(f"{new!r}, but it was trained with {old!r}", where=str(folder), key=key, cure=cure)
        self._check_parents(faults)
        faults.check()

    def _check_parents(self, faults: Faults) -> None:
        """A fusion that is still to be made needs the weights of the runs that it is made of."""
        for run in self.missing():
            if self.plan.variant(run.variant).kind != "fusion":
                continue
            folders = [self.place.run(parent) for parent in self._parents(run)]
            lost = [folder.name for folder in folders if record_of(folder) is not None and not has_weights(folder)]
            if lost:
                cure = "remove these folders to train them again, and keep weights with --keep all"
                faults.add(f"the weights of {listed(lost)} are gone", where=run.name, key=run.variant, cure=cure)

    def _changes(self, run: Run, record: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        variant = self.plan.variant(run.variant)
        if variant.kind == "fusion":
            return differences(record["asked"], {"fuse": dict(variant.fuse or {})})
        if run.task is not None and self._joint_report(run) is None:
            return {}
        rate = record["learning_rate"] if self.plan.rates else None
        wanted = self._recipe(Run(run.variant, run.task, run.seed, rate), Path("x")).resolved()
        found = differences(record["asked"], wanted)
        # The length of a single run follows from the joint one.
        return found if run.task is None else {key: pair for key, pair in found.items() if key not in FOLLOWS}

    def _one(self, run: Run) -> None:
        target, rate = self.place.run(run), self.chosen_rate(run.side)
        asked = Run(run.variant, run.task, run.seed, rate)
        trial = self.place.trial(asked)
        if rate is not None and run.seed == self.plan.seeds[0] and record_of(trial) is not None:
            self._finish(trial, asked)
            sync_folder(trial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(trial, target)
            return
        self._announce(run, f"seed {run.seed}")
        if self.plan.variant(run.variant).kind == "fusion":
            self._fuse(run, target)
        else:
            self._train(asked, target, test=True)

    def _announce(self, run: Run, what: str) -> None:
        missing, total = self.missing(), len(self.plan.runs()) + len(self.plan.trials())
        total -= len({trial.side for trial in self.plan.trials()})
        left = self.seconds_left(missing)
        told = f"; about {duration(left)} left" if left is not None else ""
        logger.info("run %d of %d: %s, %s%s", total - len(missing) + 1, total, run.side, what, told)

    def seconds_left(self, missing: list[Run]) -> float | None:
        """By the seconds a step of the runs so far, those of earlier calls included."""
        done = list(self.spent)
        if not done:
            records = [record_of(self.place.run(run)) for run in self.plan.runs()]
            done = [(r["cost"]["steps"], r["cost"]["seconds"]) for r in records if r is not None]
        steps = sum(count for count, _ in done)
        if not steps:
            return None
        return (
            sum(seconds for _, seconds in done)
            / steps
            * sum(self.place.steps.get((r.variant, r.task), 0) for r in missing)
        )

    def _train(self, run: Run, target: Path, *, test: bool) -> None:
        start = time.perf_counter()
        work = self.place.folder / ".work" / target.name
        recipe = self._recipe(run, work)
        asked = recipe.resolved()  # before the data has its say
        if not ((work / CHECKSUMS).is_file() and (work / METRICS).is_file()):
            resume = work.is_dir() and any(work.iterdir())
            finetune(
                recipe,
                datasets=self._data(recipe),
                data_root=self.place.data_root,
                resume=resume,
                callbacks=self.callbacks,
            )
        clear_leftovers(work)
        facts = read_json(work / METRICS)
        scores = write_predictions(work, "validation", self.place.data_root, datasets=self._data(recipe))
        write_whole(work / RECORD, self._record(run, work, asked, scores, facts["run"]))
        if test:
            self._finish(work, run)
        sync_folder(work)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(work, target)
        self.spent.append((int(facts["run"]["steps"]), time.perf_counter() - start))

    def _data(self, recipe: Recipe) -> dict[str, Any] | None:
        names = {task.name for task in recipe.definitions}
        return {name: data for name, data in (self.place.memory or {}).items() if name in names} or None

    def _record(
        self, run: Run, folder: Path, asked: Mapping[str, Any], scores: Predicted, report: Mapping[str, Any]
    ) -> dict[str, Any]:
        rate = run.rate if run.rate is not None else self.plan.learning_rate(run)
        cost = {
            "encoder_tokens": report.get("tokens"),
            "seconds": report.get("seconds"),
            "steps": report.get("steps"),
            "parameters": report.get("parameters", {}).get("total"),
            "bytes": sum(path.stat().st_size for path in weight_files(folder)),
        }
        return {
            "variant": run.variant,
            "task": run.task,
            "seed": run.seed,
            "learning_rate": rate,
            "asked": dict(asked),
            "validation": scores.metrics,
            "validation_mean": scores.mean,
            "cost": cost,
        }

    def _finish(self, folder: Path, run: Run) -> None:
        """The one reading of the test split."""
        record = read_json(folder / RECORD)
        recipe = self._recipe(run, folder)
        scores = write_predictions(folder, "test", self.place.data_root, datasets=self._data(recipe))
        record |= {"test": scores.metrics, "test_mean": scores.mean}
        record["cost"]["texts_per_second"] = scores.texts_per_second
        write_whole(folder / RECORD, record)

    def _fuse(self, run: Run, target: Path) -> None:
        variant = self.plan.variant(run.variant)
        work = self.place.folder / ".work" / run.name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        request = self.fusion_request(variant, run, work)
        fusion = find_fusion(request.spec["method"])
        cost = dict(fusion.build(request))
        scores = fusion.predict(work, "validation", request)
        record = {
            "variant": run.variant,
            "task": None,
            "seed": run.seed,
            "learning_rate": None,
            "asked": {"fuse": dict(request.spec)},
            "validation": scores.metrics,
            "validation_mean": scores.mean,
        }
        test = fusion.predict(work, "test", request)
        cost["bytes"] = sum(path.stat().st_size for path in work.rglob("*.safetensors"))
        cost["texts_per_second"] = test.texts_per_second
        write_whole(work / RECORD, record | {"test": test.metrics, "test_mean": test.mean, "cost": cost})
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(work, target)

    def fusion_request(self, variant: Variant, run: Run, output: Path) -> FusionRequest:
        """What a fusion is made of, and where it goes."""
        singles = {task: self.place.run(Run(SINGLE, task, run.seed)) for task in self.plan.task_names}
        joint = self.place.run(Run(JOINT, None, run.seed))
        spec, place = variant.fuse or {}, self.place
        return FusionRequest(
            spec,
            self.plan.recipe,
            run.seed,
            joint,
            singles,
            output,
            place.data_root,
            self._data(self.plan.recipe),
            self.chosen_rate(JOINT),
        )

    def _recipe(self, run: Run, folder: Path) -> Recipe:
        place = self.place
        return self.plan.recipe_of(run, folder, self._joint_report(run) or {}, place.texts, place.steps_of)

    def _joint_report(self, run: Run) -> Mapping[str, Any] | None:
        """The report of the joint run with this seed, or what is known of it beforehand."""
        for folder in self._joint_folders(run.seed):
            if (folder / METRICS).is_file() and (folder / RECORD).is_file():
                report: dict[str, Any] = read_json(folder / METRICS)["run"]
                return report
        return self.place.planned

    def _joint_folders(self, seed: int) -> list[Path]:
        trials = [Run(JOINT, None, seed, rate) for rate in self.plan.rates] if seed == self.plan.seeds[0] else []
        return [self.place.run(Run(JOINT, None, seed)), *(self.place.trial(run) for run in trials)]

    def _trial_record(self, run: Run) -> dict[str, Any] | None:
        """Of a trial, wherever it stands by now."""
        own = record_of(self.place.trial(run))
        final = record_of(self.place.run(run))
        return own or (final if final is not None and final["learning_rate"] == run.rate else None)

    def chosen_rate(self, side: str) -> float | None:
        """The learning rate with the best validation mean (the smaller of equal ones); None where there is no choice."""
        records = [self._trial_record(run) for run in self.plan.trials() if run.side == side]
        found = [record for record in records if record is not None]
        if not found:
            return None
        return float(max(found, key=lambda r: (r["validation_mean"], -r["learning_rate"]))["learning_rate"])

    def _prune(self, seed: int) -> None:
        """Delete the weights that are no longer needed: those of a seed whose runs are all there, and with the first one's those of
        the learning rates that were not chosen."""
        first = seed == self.plan.seeds[0]
        folders = [self.place.run(run) for run in self.plan.runs() if run.seed == seed]
        if self.keep == "all" or (self.keep == "first" and first):
            folders = []
        for folder in [*folders, *((self.place.folder / "rates").glob("*") if first else ())]:
            for path in [*folder.glob("*.safetensors"), folder / INDEX]:
                path.unlink(missing_ok=True)
