"""The loop of a search: propose a batch, train and measure it, record the values, until the budget is used up."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from z1g.config.search import SearchFile
from z1g.config.sweep import plain
from z1g.core.errors import UserError
from z1g.core.files import write_text
from z1g.core.locks import exclusive
from z1g.core.names import counted
from z1g.plan.plan import Plan, PlannedAblation
from z1g.plan.pruning import FOLDER
from z1g.search.dag import Where, diverged, gpu_hours, require_metric, train, value
from z1g.search.files import Trial, best_text, csv_table, markdown_table, points_text
from z1g.search.journal import Journal
from z1g.search.space import point, probes

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

log = logging.getLogger("z1g")
JOURNAL = "journal.log"


class Searcher:
    """A search in `results/studies/<name>/`.

    Files: `journal.log` (Optuna's), `<name>.yaml` with all points as an ablation file, `<name>_best.yaml` with the best
    one, `trials.csv` and `trials.md`.
    """

    def __init__(self, spec: SearchFile, where: Where) -> None:
        self.spec, self.where = spec, where
        self.folder = where.results / FOLDER / spec.name

    def run(self) -> list[Trial]:
        """Search until the budget is used up; returns all trials.

        Raises UserError if a point has no value after its jobs; the same command then tries again.
        """
        with exclusive(self.folder / ".lock"):
            if not (self.folder / JOURNAL).is_file():
                # Mistakes in the file are found before anything is proposed.
                plan = self._plan(probes(self.spec.search.space))
                require_metric(plan, self.spec.search.objective)
            journal = Journal(self.folder / JOURNAL, self.spec.name, self.spec.search)
            while batch := self._batch(journal):
                self._measure(journal, batch)
                self._write(journal)
            return self._write(journal)

    def _batch(self, journal: Journal) -> list[FrozenTrial]:
        """The trials of the current batch that have no value, proposed where they are missing; empty at the end."""
        search, number = self.spec.search, len(journal.trials())
        waiting = journal.waiting()
        if not waiting and number % search.batch == 0 and number < search.trials and self._used_up(journal):
            return []
        # Batches start at multiples of their size. A batch that was partly proposed or recorded is thus completed as it
        # would have been without a kill.
        end = min(-(-number // search.batch) * search.batch, search.trials)
        if not waiting and number == end:
            end = min(number + search.batch, search.trials)
        while len(journal.trials()) < end:
            waiting.append(journal.propose())
        return waiting

    def _used_up(self, journal: Journal) -> bool:
        limit = self.spec.search.gpu_hours
        if limit is None or not journal.trials():
            return False
        used = gpu_hours(self._plan(self._points(journal)))
        if used >= limit:
            log.info("%.3g of %.3g GPU hours are used; no further points are proposed", used, limit)
        return used >= limit

    def _measure(self, journal: Journal, batch: Sequence[FrozenTrial]) -> None:
        """Train and measure the points of a batch, and record their values in the order of their numbers."""
        plan = self._plan(self._points(journal))
        runs = [self._runs(plan, trial) for trial in batch]
        names = list(dict.fromkeys(run.ablation.name for group in runs for run in group))
        log.info("trials %s: %s", ", ".join(str(trial.number) for trial in batch), counted(len(names), "run"))
        exit_code = train(self.where, self.spec.name, names)
        missing = []
        for trial, group in zip(batch, runs, strict=True):
            measured = value(self.where.results, group, self.spec.search.objective)
            if measured is None and not diverged(self.where.results, group):
                missing.append(str(trial.number))
            elif not missing:
                journal.tell(trial, measured)
                log.info("trial %d: %s", trial.number, "diverged" if measured is None else f"{measured:.4g}")
        if missing:
            raise UserError(
                f"{self.spec.name}: trials {', '.join(missing)} have no value (exit code {exit_code} of Snakemake, see "
                "its messages above); the same command tries them again"
            )

    def _plan(self, points: Sequence[dict[str, object]]) -> Plan:
        """Write the ablation file of points, and plan it. Raises UserError for mistakes in it."""
        write_text(self.folder / f"{self.spec.name}.yaml", points_text(self.spec, points))
        where = self.where
        objects = [word for word in where.options.get("objects", "").split(",") if word]
        return Plan.load(where.scale, [self.spec.name], where.results, Path("ablations"), Path("configs"), objects)

    def _points(self, journal: Journal) -> list[dict[str, object]]:
        return [point(self.spec.search.space, trial.params) for trial in journal.trials()]

    def _runs(self, plan: Plan, trial: FrozenTrial) -> list[PlannedAblation]:
        """The runs of a trial's point: one, or one per seed."""
        wanted = plain(point(self.spec.search.space, trial.params))
        return [run for run in plan.ablations.values() if plain(dict(run.ablation.about.point)) == wanted]

    def _write(self, journal: Journal) -> list[Trial]:
        """Write the table and the best point."""
        plan = self._plan(self._points(journal))
        trials = []
        for trial in journal.trials():
            state = "measured" if trial.value is not None else "diverged" if trial.state.is_finished() else "waiting"
            names = [run.ablation.name for run in self._runs(plan, trial)]
            space = self.spec.search.space
            trials.append(Trial(trial.number, point(space, trial.params), trial.value, state, names))
        best, goal = journal.best(), self.spec.search.objective
        write_text(self.folder / "trials.csv", csv_table(trials, goal))
        write_text(self.folder / "trials.md", markdown_table(trials, goal, None if best is None else best.number))
        if best is not None:
            n = sum(trial.state != "waiting" for trial in trials)
            write_text(self.folder / f"{self.spec.name}_best.yaml", best_text(self.spec, trials[best.number], n))
        return trials
