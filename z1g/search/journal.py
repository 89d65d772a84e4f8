"""The points of a search and their values, in Optuna's journal format, so that Optuna's own tools can read it.

A point is one line of the journal, appended whole, and a proposal depends only on the sampler's seed, on the number of
the trial and on the trials before. A search that is killed at any moment therefore proposes the same points as one that
is not: points without a value are used again, and no generator has a state.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from z1g.config.search import Proposals, Search
from z1g.core.errors import UserError
from z1g.search.space import distributions, rounded

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.storages import InMemoryStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial

SEEDS_APART = 1_000_003
SPACE = "space"
FINISHED = "finished"
"""Attribute of a trial of CMA-ES: how many trials had ended when it was proposed."""


class Journal:
    """The trials of one search. No other process may use the file at the same time."""

    def __init__(self, file: Path, name: str, search: Search) -> None:
        """Open or create the journal. Raises UserError if it is of another search."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search = search
        _drop_unfinished_line(file)
        with _quiet():
            storage = JournalStorage(JournalFileBackend(str(file), lock_obj=_NoLock()))
            self._study: Study
            if any(study.study_name == name for study in storage.get_all_studies()):
                self._study = optuna.load_study(study_name=name, storage=storage)
            else:
                self._study = optuna.create_study(
                    study_name=name, storage=storage, direction=search.objective.direction
                )
        meaning = search.model_dump(mode="json", include={"space", "objective", "sampler"})
        earlier = self._study.user_attrs.get(SPACE)
        if earlier is None and not self.trials():
            self._study.set_user_attr(SPACE, meaning)
        elif earlier != meaning:
            changed = [key for key in meaning if (earlier or {}).get(key) != meaning[key]]
            raise UserError(
                f"{file}: the search that was begun here has another {' and '.join(changed)}; restore it, or give the "
                "changed search another file name"
            )

    def trials(self) -> list[FrozenTrial]:
        """All trials in the order of their numbers."""
        trials: list[FrozenTrial] = self._study.get_trials(deepcopy=True)
        return trials

    def waiting(self) -> list[FrozenTrial]:
        """Trials without a value, which have been proposed before."""
        return [trial for trial in self.trials() if not trial.state.is_finished()]

    def propose(self) -> FrozenTrial:
        """Append a trial and return it."""
        import optuna
        from optuna.trial import TrialState, create_trial

        before = self.trials()
        # The sampler works on a copy: what it writes while it proposes must not be half in the journal after a kill.
        with _quiet():
            storage = optuna.storages.InMemoryStorage()
            copy = optuna.create_study(direction=self.search.objective.direction, storage=storage)
            remarks = {}
            if self.search.sampler.kind == "cma-es":
                self._replay(copy, storage, before)
                remarks[FINISHED] = _n_finished(before)
            else:
                copy.add_trials(before)
            # A sampler for each proposal, so that none has a state.
            copy.sampler = _sampler(self.search.sampler, len(before))
            space = distributions(self.search.space)
            parameters = rounded(self.search.space, copy.ask(fixed_distributions=space).params)
            self._study.add_trial(
                create_trial(state=TrialState.RUNNING, params=parameters, distributions=space, user_attrs=remarks)
            )
        return self.trials()[-1]

    def _replay(self, copy: Study, storage: InMemoryStorage, trials: Sequence[FrozenTrial]) -> None:
        """Propose and end trials in an empty study as they were, with the points that they got.

        CMA-ES has a state. Optuna keeps it in the journal as a pickle, which could run any code when it is read; here
        it is made again from the points and their values, in the order in which they became known.
        """
        space, known = distributions(self.search.space), 0
        study = storage.get_study_id_from_name(copy.study_name)
        for trial in trials:
            while known < trial.user_attrs[FINISHED]:
                _tell(copy, known, trials[known].value)
                known += 1
            copy.sampler = _sampler(self.search.sampler, trial.number)
            copy.ask(fixed_distributions=space)
            # What was proposed was rounded. An enqueued trial with these values would not be one of the sampler's.
            again = storage.get_trial_id_from_study_id_trial_number(study, trial.number)
            for name, kind in space.items():
                storage.set_trial_param(again, name, kind.to_internal_repr(trial.params[name]), kind)
        for ended in trials[known : _n_finished(trials)]:
            _tell(copy, ended.number, ended.value)

    def tell(self, trial: FrozenTrial, value: float | None) -> None:
        """Record the value of a trial; None if its training diverged."""
        with _quiet():
            _tell(self._study, trial.number, value)

    def best(self) -> FrozenTrial | None:
        """The trial with the best value, the earliest of several; None if there is no value."""
        sign = 1 if self.search.objective.direction == "maximize" else -1
        valued = [trial for trial in self.trials() if trial.value is not None]
        return max(valued, key=lambda trial: (sign * (trial.value or 0.0), -trial.number), default=None)


def _tell(study: Study, number: int, value: float | None) -> None:
    from optuna.trial import TrialState

    study.tell(number, value, state=TrialState.FAIL if value is None else None)


def _n_finished(trials: Sequence[FrozenTrial]) -> int:
    return sum(trial.state.is_finished() for trial in trials)


def _sampler(options: Proposals, number: int) -> BaseSampler:
    from optuna.samplers import CmaEsSampler, GPSampler, RandomSampler, TPESampler

    seed = (options.seed * SEEDS_APART + number) % 2**32
    if options.kind == "random":
        return RandomSampler(seed)
    if options.kind == "gp":
        return GPSampler(seed=seed, n_startup_trials=options.startup)
    if options.kind == "cma-es":
        return CmaEsSampler(
            seed=seed,
            n_startup_trials=options.startup,
            independent_sampler=RandomSampler(seed),
            warn_independent_sampling=False,
        )
    # Points of one batch are proposed without each other's values; the constant liar keeps them apart.
    return TPESampler(seed=seed, n_startup_trials=options.startup, constant_liar=True)


def _drop_unfinished_line(file: Path) -> None:
    """Remove what a killed process wrote of a line: Optuna would append to it and never read the file again."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        return
    content = file.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(file, whole)


class _NoLock:
    """A lock that is always free: the search holds one on the whole folder, which the kernel releases after a kill."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's warnings that what is used here is experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
