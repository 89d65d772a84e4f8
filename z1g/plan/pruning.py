"""Successive halving in the DAG: which arms of a study reach which rung, and why the others were pruned.

A cohort are the arms that compete: those of one ablation file, or those of one set. Files, below the results folder:

- `studies/<study>/prune.json`: the cohort, written with the plan.
- `<stage>/<id>/rungs/<rung>.json`: what training measured, see `z1g.training.rungs.write_rung`.
- `studies/<study>/rung-<rung>.json`: the decision: values, kept and pruned arms.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from z1g.config.prune import Prune
from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.core.names import did_you_mean
from z1g.core.recorded import checked
from z1g.core.sealed import read_sealed, update_sealed
from z1g.training.rungs import FIGURES, rung_file, rung_name

FOLDER = "studies"


@dataclass(frozen=True)
class Cohort:
    """Arms that compete. `arms` has the stage id of every run by arm; runs of one arm are replicates."""

    study: str
    prune: Prune
    arms: dict[str, dict[str, str]]

    @classmethod
    def load(cls, results: Path, study: str) -> Cohort:
        """Read `prune.json` of a study. Raises UserError."""
        file = cohort_file(results, study)
        if not file.is_file():
            studies = [known.parent.name for known in (results / FOLDER).glob("*/prune.json")]
            hint = did_you_mean(study, studies)
            raise UserError(f"{results}: no study {study!r} with `prune` was planned here{hint}")
        record = _read(file, study)
        try:
            return cls(record["study"], Prune.model_validate(record["prune"]), record["arms"])
        except (KeyError, TypeError, ValidationError) as error:
            raise UserError(f"{file} is no record of a study; delete it and start `snakemake` again") from error

    def record(self) -> dict[str, Any]:
        """Content of `prune.json`."""
        return {"study": self.study, "prune": self.prune.model_dump(mode="json"), "arms": self.arms}

    @property
    def runs(self) -> list[str]:
        """Names of all runs, of all arms."""
        return [run for runs in self.arms.values() for run in runs]

    def rung_files(self, results: Path, rung: float) -> dict[str, list[Path]]:
        """Files with what was measured at a rung, by arm, for the arms that all rungs before have kept.

        Reads the decision before this one, which must exist.
        """
        stage = results / self.prune.stage
        return {
            arm: [rung_file(stage / identity, rung) for identity in self.arms[arm].values()]
            for arm in self._left(results, rung)
        }

    def decision(self, results: Path, rung: float) -> dict[str, Any]:
        """The decision at a rung, from the files of `rung_files`.

        An arm's value is the mean over its runs. It is null, and the arm is last, if a run has no finite value. Arms
        that share their trainings, since they differ in later stages only, are kept together.
        """
        values = {arm: _mean([self._value(f) for f in files]) for arm, files in self.rung_files(results, rung).items()}
        best, rest = select(values, self.prune.keep, FIGURES[self.prune.by].higher_is_better)
        trained = {self._trainings(arm) for arm in best}
        kept = [*best, *(arm for arm in rest if self._trainings(arm) in trained)]
        pruned = [arm for arm in rest if arm not in kept]
        cohort = {"study": self.study, "rung": rung, "by": self.prune.by, "keep": self.prune.keep}
        return {**cohort, "kept": kept, "pruned": pruned, "values": values, "of": self.record()}

    def pruned(self, results: Path) -> dict[str, dict[str, Any]]:
        """Why runs were pruned, {"rung", "value", "by"} by the run's name, as far as has been decided."""
        reasons: dict[str, dict[str, Any]] = {}
        for rung in self.prune.decisions:
            decision = self._decided(results, rung)
            for arm in decision["pruned"] if decision else ():
                reason = {"rung": rung, "value": decision["values"][arm], "by": self.prune.by} if decision else {}
                reasons |= dict.fromkeys(self.arms[arm], reason)
        return reasons

    def _decided(self, results: Path, rung: float) -> dict[str, Any] | None:
        """The decision at a rung, or None if there is none, or one about another cohort."""
        file = decision_file(results, self.study, rung)
        decision = _read(file, self.study) if file.is_file() else None
        return decision if decision and decision["of"] == self.record() else None

    def _left(self, results: Path, rung: float) -> list[str]:
        """Arms that train up to a rung."""
        before = [other for other in self.prune.decisions if other < rung]
        if not before:
            return sorted(self.arms)
        kept: list[str] = _read(decision_file(results, self.study, before[-1]), self.study)["kept"]
        return sorted(kept)

    def _trainings(self, arm: str) -> tuple[str, ...]:
        return tuple(sorted(self.arms[arm].values()))

    def _value(self, file: Path) -> float | None:
        figures = read_json(checked(file))["figures"]
        return None if figures is None else figures.get(self.prune.by)


@dataclass(frozen=True)
class Competitor:
    """A run of a plan: its name, arm and cohort, how it is pruned (None: not at all), and its stage ids."""

    name: str
    arm: str
    cohort: str
    prune: Prune | None
    stages: Mapping[str, str]


@dataclass(frozen=True)
class Pruning:
    """All cohorts of a plan by name. `unpruned` are the runs that are trained to their end in any case."""

    results: Path
    cohorts: dict[str, Cohort]
    unpruned: list[str]

    @classmethod
    def of(cls, competitors: Sequence[Competitor], results: Path) -> Pruning:
        """Group the runs of a plan. Raises UserError if a set and a file of its name are both pruned."""
        cohorts: dict[str, Cohort] = {}
        for run in competitors:
            if run.prune is None:
                continue
            cohort = cohorts.setdefault(run.cohort, Cohort(run.cohort, run.prune, {}))
            if cohort.prune != run.prune:
                raise UserError(f"prune: the set {run.cohort} and an ablation of its name are both pruned; rename one")
            cohort.arms.setdefault(run.arm, {})[run.name] = run.stages[run.prune.stage]
        return cls(results, cohorts, [run.name for run in competitors if run.prune is None])

    def last_rung(self, study: str) -> str:
        """Name of the rung at which the last decision is made."""
        return rung_name(self.cohorts[study].prune.decisions[-1])

    def rung_before(self, study: str, rung: str) -> str | None:
        """Name of the rung before another one; None before the first."""
        before = [other for other in self.cohorts[study].prune.decisions if other < float(rung)]
        return rung_name(before[-1]) if before else None

    def rung_files(self, study: str, rung: str) -> list[str]:
        """Files from which the decision at a rung is made. The one before must have been made."""
        files = self.cohorts[study].rung_files(self.results, float(rung))
        return list(dict.fromkeys(str(file) for arm in files.values() for file in arm))

    def survivors(self, study: str) -> list[str]:
        """Runs that no rung has pruned. The last decision must have been made."""
        cohort = self.cohorts[study]
        kept = set(_read(decision_file(self.results, study, cohort.prune.decisions[-1]), study)["kept"])
        return [run for arm, runs in cohort.arms.items() if arm in kept for run in runs]

    def identity(self, study: str) -> str:
        """Text that changes with the cohort."""
        return json.dumps(self.cohorts[study].record(), sort_keys=True)

    def write(self) -> dict[str, dict[str, Any]]:
        """Write the records of all cohorts; returns why runs were pruned, as far as has been decided."""
        for study, cohort in self.cohorts.items():
            update_sealed(cohort_file(self.results, study), cohort.record(), study_owner(study))
        return {
            name: reason for cohort in self.cohorts.values() for name, reason in cohort.pruned(self.results).items()
        }


def study_owner(study: str) -> str:
    """What the checksums of a study's files cover besides their content."""
    return f"{FOLDER}/{study}"


def _read(file: Path, study: str) -> dict[str, Any]:
    try:
        return read_sealed(file, study_owner(study))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}; delete it and start `snakemake` again") from error


def cohort_file(results: Path, study: str) -> Path:
    """Path of `prune.json` of a study."""
    return results / FOLDER / study / "prune.json"


def decision_file(results: Path, study: str, rung: float) -> Path:
    """Path of the decision at a rung of a study."""
    return results / FOLDER / study / f"rung-{rung_name(rung)}.json"


def select(
    values: Mapping[str, float | None], keep: float, higher_is_better: bool = True
) -> tuple[list[str], list[str]]:
    """Names that a rung keeps and prunes, each from the best to the worst.

    The number kept is `keep` of all, rounded down, but at least one. Equal values are in the order of names; names
    without a value come last.
    """

    def rank(name: str) -> tuple[bool, float, str]:
        value = values[name]
        return value is None, 0.0 if value is None else (-value if higher_is_better else value), name

    ordered = sorted(values, key=rank)
    # 0.29 · 100 is 28.999999999999996.
    number = max(1, math.floor(round(keep * len(ordered), 9)))
    return ordered[:number], ordered[number:]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if len(known) == len(values) and known else None
