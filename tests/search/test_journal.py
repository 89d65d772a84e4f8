"""The journal of a search: the same points in the same order, whenever the search was killed."""

import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from z1g.config.search import Search
from z1g.config.sweep import Distribution
from z1g.core.errors import UserError
from z1g.search import journal as journal_module
from z1g.search.journal import Journal
from z1g.search.space import distributions, point, rounded

LR = "unet.train.optimizer.lr"
SPACE = {
    LR: {"log_uniform": [1e-5, 1e-2]},
    "infer.guidance": {"uniform": [1.0, 5.0]},
    "unet.train.batch_size": {"integers": [1, 8]},
    "unet.finetune": {"choice": [{"kind": "full"}, {"kind": "lora", "rank": 4}, None]},
}
N, BATCH = 8, 2


def options(**sampler: Any) -> Search:
    return Search.model_validate({"space": SPACE, "sampler": {"startup": 3, **sampler}, "trials": N, "batch": BATCH})


def continuous(**sampler: Any) -> Search:
    """Two continuous options; a generation of CMA-ES has six points, so that three generations end within 26."""
    space = {key: SPACE[key] for key in (LR, "infer.guidance")}
    return Search.model_validate({"space": space, "sampler": {"startup": 3, "kind": "cma-es", **sampler}})


def quality(parameters: Mapping[str, Any]) -> float | None:
    """None, as of a training that diverged, at high learning rates."""
    rate = parameters[LR]
    return None if rate > 1e-3 else -((math.log10(rate) + 3.5) ** 2) - (parameters["infer.guidance"] - 2) ** 2


def search(file: Path, which: Search) -> list[tuple[dict[str, Any], float | None, str]]:
    """Batches as in `z1g search`: a batch that was begun is completed first."""
    journal = Journal(file, "study", which)
    while True:
        number, batch = len(journal.trials()), journal.waiting()
        end = -(-number // BATCH) * BATCH
        end = end if batch or number < end else min(number + BATCH, N)
        batch += [journal.propose() for _ in range(number, end)]
        if not batch:
            return [(dict(trial.params), trial.value, trial.state.name) for trial in journal.trials()]
        for trial in batch:
            journal.tell(trial, quality(trial.params))


@pytest.fixture(scope="module", params=["tpe", "random"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Search, bytes, list]:
    which = options(kind=request.param, seed=4)
    file = tmp_path_factory.mktemp("whole") / "journal.log"
    trials = search(file, which)
    return which, file.read_bytes(), trials


@pytest.mark.slow
def test_killed_at_any_byte_proposes_the_same_points(whole: tuple[Search, bytes, list], tmp_path: Path) -> None:
    which, content, expected = whole
    assert {state for _, _, state in expected} == {"COMPLETE", "FAIL"}, "both ways to end are tried"
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    cuts = sorted({0, *ends, *(end - 7 for end in ends), *(end - 1 for end in ends)})
    for cut in cuts:
        file = tmp_path / f"{cut}.log"
        file.write_bytes(content[:cut])
        assert search(file, which) == expected, f"cut after {cut} bytes"


def test_another_seed_proposes_other_points(whole: tuple[Search, bytes, list], tmp_path: Path) -> None:
    which, _, expected = whole
    other = search(tmp_path / "journal.log", options(kind=which.sampler.kind, seed=5))
    assert [trial[0] for trial in other] != [trial[0] for trial in expected]


def test_points_of_a_batch_differ(whole: tuple[Search, bytes, list]) -> None:
    points = [str(sorted(trial[0].items(), key=str)) for trial in whole[2]]
    assert len(set(points)) == N


def test_a_journal_of_another_search_is_refused(tmp_path: Path) -> None:
    search(tmp_path / "journal.log", options(kind="random"))
    Journal(tmp_path / "journal.log", "study", options(kind="random").model_copy(update={"trials": 99}))
    with pytest.raises(UserError, match="was begun here has another sampler"):
        Journal(tmp_path / "journal.log", "study", options(kind="random", seed=1))


def test_the_best_is_the_first_of_the_best(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.log", "study", options(kind="random"))
    assert journal.best() is None
    for value in (1.0, None, 3.0, 3.0, 2.0):
        journal.tell(journal.propose(), value)
    best = journal.best()
    assert best is not None
    assert best.number == 2


def by_cma_es(file: Path, which: Search, n: int, reopen: bool) -> list[tuple[dict[str, Any], float | None]]:
    """Batches of two, one step after the other; with `reopen`, each step is by another process, so to speak."""
    journal = Journal(file, "study", which)
    while True:
        journal = Journal(file, "study", which) if reopen else journal
        number, waiting = len(journal.trials()), journal.waiting()
        if waiting and number % BATCH == 0:
            journal.tell(waiting[0], quality(waiting[0].params))
        elif number < n:
            journal.propose()
        else:
            return [(dict(trial.params), trial.value) for trial in journal.trials()]


@pytest.mark.slow
def test_cma_es_proposes_the_same_points_after_every_kill(tmp_path: Path) -> None:
    which = continuous(seed=7)
    whole = by_cma_es(tmp_path / "whole.log", which, 18, reopen=False)
    assert by_cma_es(tmp_path / "killed.log", which, 18, reopen=True) == whole
    assert None in [value for _, value in whole], "a training that diverges is among them"
    assert by_cma_es(tmp_path / "longer.log", which, 20, reopen=False)[:18] == whole
    assert b"cma:" not in (tmp_path / "whole.log").read_bytes(), "no pickle is stored"


@pytest.mark.slow
def test_cma_es_is_optunas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against one study of Optuna whose sampler's state stays in memory; points are not rounded, as it sees them."""
    monkeypatch.setattr(journal_module, "rounded", lambda space, parameters: parameters)
    which, generations = continuous(seed=2), set()
    found = by_cma_es(tmp_path / "journal.log", which, 24, reopen=False)
    study = optuna.create_study(direction="maximize")
    for number, (parameters, _) in enumerate(found):
        study.sampler = journal_module._sampler(which.sampler, number)
        trial = study.ask(fixed_distributions=distributions(which.space))
        assert trial.params == parameters, number
        generations.add(study.trials[number].system_attrs.get("cma:generation"))
        for earlier in range(number - 1, number + 1) if number % BATCH else ():
            value = found[earlier][1]
            study.tell(earlier, value, state=optuna.trial.TrialState.FAIL if value is None else None)
    assert generations >= {None, 0, 1, 2}, "random points, and at least three generations"


@pytest.mark.parametrize("other", ["unet.train.batch_size", "unet.finetune"])
def test_cma_es_is_for_continuous_options(other: str) -> None:
    with pytest.raises(ValidationError, match=f"cma-es is for continuous distributions.*{other} is not. Use tpe"):
        Search.model_validate({"space": {LR: SPACE[LR], other: SPACE[other]}, "sampler": {"kind": "cma-es"}})


@pytest.mark.slow
def test_tpe_is_better_than_chance(tmp_path: Path) -> None:
    """On a smooth function, over eight seeds: the mean of its best is higher, and so is that of its later points."""
    smooth = Search.model_validate({"space": {LR: SPACE[LR], "infer.guidance": SPACE["infer.guidance"]}})
    means: dict[str, float] = {}
    for kind in ("tpe", "random"):
        later = []
        for seed in range(8):
            which = smooth.model_copy(update={"sampler": options(kind=kind, seed=seed).sampler})
            journal = Journal(tmp_path / f"{kind}{seed}.log", "study", which)
            for number in range(20):
                trial = journal.propose()
                value = -((math.log10(trial.params[LR]) + 3.5) ** 2) - (trial.params["infer.guidance"] - 2) ** 2
                journal.tell(trial, value)
                later += [value] if number >= 10 else []
        means[kind] = sum(later) / len(later)
    assert means["tpe"] > means["random"] + 0.5


DISTRIBUTIONS = {path: Distribution.model_validate(given) for path, given in SPACE.items()}


@settings(max_examples=50)
@given(st.floats(1e-5, 1e-2), st.floats(1, 5), st.integers(1, 8), st.integers(0, 2))
def test_rounded_points_stay_in_the_space(rate: float, guidance: float, batch: int, which: int) -> None:
    space = distributions(DISTRIBUTIONS)
    choice = space["unet.finetune"].choices[which]  # type: ignore[attr-defined]
    drawn = {LR: rate, "infer.guidance": guidance, "unet.train.batch_size": batch, "unet.finetune": choice}
    kept = rounded(DISTRIBUTIONS, drawn)
    assert all(space[path]._contains(space[path].to_internal_repr(value)) for path, value in kept.items())
    assert kept[LR] == pytest.approx(rate, rel=5e-3)
    assert len(f"{kept[LR]:e}".rstrip("0").split("e")[0].rstrip("0")) <= 4, "three digits"
    assert kept["infer.guidance"] == pytest.approx(guidance, abs=1e-3)
    assert rounded(DISTRIBUTIONS, kept) == kept
    values = point(DISTRIBUTIONS, kept)
    assert values["unet.finetune"] == SPACE["unet.finetune"]["choice"][which]
    assert values["unet.train.batch_size"] == batch


def test_without_optuna_one_line_says_so(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['optuna'] = None\n"
        "from z1g.cli.main import main\n"
        "sys.exit(main(['search', 'study.yaml']))\n"
    )
    (tmp_path / "study.yaml").write_text("search: {space: {infer.guidance: {uniform: [1, 4]}}}\n")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "z1g search: error: the package optuna is not installed; pip install 'z1g[search]'\n"
