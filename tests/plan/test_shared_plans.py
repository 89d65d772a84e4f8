"""Plans of many runs are those of each run alone; runs share what does not depend on what they vary."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.paths import CONFIGS, ROOT

from z1g.config.catalog import load_ablation
from z1g.config.replicates import DEFAULT_START, SECTIONS, SEED_NAMES, STARTS
from z1g.config.resolve import Ablation, merge
from z1g.config.tree import Experiment
from z1g.config.walk import places
from z1g.core.errors import UserError
from z1g.core.files import read_json
from z1g.plan.identity import planned_stages
from z1g.plan.plan import Plan
from z1g.plan.runs import NAMES_FILE, named

BASE: dict[str, Any] = {"description": "made up", "data": {"paths": [str(ROOT / "workflow" / "objects")]}}
AXES: dict[str, list[Any]] = {
    "unet.train.optimizer.lr": [1e-3, 1e-4, 3e-4],
    "infer.guidance": [1.0, 2.0, 4.0],
    "autodecoder.codes": [{"kind": "encoder"}, {"kind": "optimized", "lr": 0.02}],
    "autodecoder.train.steps": [5, 6],
    "autodecoder.losses.splat.weight": [0.5, 1.0],
    "data.split.test_fraction": [0.25, 0.5],
    "camera.train_views": [8, 12],
    "resources.unet.minutes": [30, 60],
    "fit.steps": [60, 70],
}


def folder(root: Path, **files: dict[str, Any]) -> Path:
    """Ablations in a folder."""
    root.mkdir(parents=True, exist_ok=True)
    for old in root.rglob("*.yaml"):
        old.unlink()
    for name, values in files.items():
        (root / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return root


def planned(ablations: Path, names: list[str] | None = None, results: Path = Path("results")) -> Plan:
    return Plan.load("scratch", names, results, ablations, CONFIGS)


def nested(path: str, value: Any) -> Any:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


@pytest.mark.slow
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(sorted(AXES)), st.integers(2, 3), min_size=1, max_size=3),
    st.sampled_from([None, 2, {"unet": 2}, {"infer": [0, 3]}, {"fit": [1]}]),
    st.sampled_from([None, 2]),
)
def test_a_run_has_the_ids_of_the_ablation_that_is_written_by_hand(
    tmp_path: Path, axes: dict[str, int], seeds: Any, folds: int | None
) -> None:
    """The oracle: every run as a file of its own, resolved and planned alone, without anything shared."""
    grid = {path: AXES[path][:n] for path, n in axes.items()}
    header = {key: value for key, value in (("seeds", seeds), ("folds", folds)) if value is not None}
    plan = planned(folder(tmp_path / "swept", study={**BASE, "sweep": {"grid": grid}, **header}))
    points = 1
    for values in grid.values():
        points *= len(values)
    assert len(plan.ablations) == points * n_replicates(seeds) * (folds or 1)
    for run, found in plan.ablations.items():
        about = found.ablation.about
        values = BASE
        for path, value in sorted(about.point.items(), key=lambda item: item[0].count(".")):
            values = merge(values, nested(path, value))
        if about.fold is not None:
            values = merge(values, {"data": {"split": {"folds": folds, "fold": about.fold}}})
        if about.seed:
            values = merge(values, by_hand(values, seeds, about.seed, tmp_path))
        alone = load_ablation(folder(tmp_path / "alone", run=values) / "run.yaml", "scratch", CONFIGS)
        assert alone.experiment == found.ablation.experiment, run
        assert planned_stages(alone, found.manifest) == found.stages, run


def n_replicates(seeds: Any) -> int:
    """Number of replicates that a header asks for."""
    numbers = next(iter(seeds.values())) if isinstance(seeds, dict) else seeds
    return len(numbers) if isinstance(numbers, list) else numbers or 1


def by_hand(values: dict[str, Any], seeds: Any, number: int, root: Path) -> dict[str, Any]:
    """The seeds of a replicate, option by option."""
    base = load_ablation(folder(root / "base", run=values) / "run.yaml", "scratch", CONFIGS).experiment
    start = next(iter(seeds)) if isinstance(seeds, dict) else "autodecoder"
    changes: dict[str, Any] = {"infer": {"seed": base.infer.seed + number}}
    if start != "infer":
        changes["unet"] = {"train": {"seed": base.unet.train.seed + number}}
    if start == "unet":
        changes["unet"]["init_seed"] = base.model.init_seed + number
    if start in ("autodecoder", "fit"):
        changes["model"] = {"init_seed": base.model.init_seed + number}
        changes["autodecoder"] = {"train": {"seed": base.autodecoder.train.seed + number}}
        if hasattr(base.autodecoder.codes, "seed"):
            changes["autodecoder"]["codes"] = {"seed": base.autodecoder.codes.seed + number}
    if start == "fit":
        changes["fit"] = {"seed": base.fit.seed + number}
    return changes


def test_replicate_zero_is_the_ablation_itself(tmp_path: Path) -> None:
    plan = planned(folder(tmp_path, plain=BASE, study={**BASE, "seeds": [0, 1]}, late={**BASE, "seeds": {"unet": 2}}))
    ids = {name: {stage: item.id for stage, item in found.stages.items()} for name, found in plan.ablations.items()}
    assert ids["plain"] == ids["study@seed=0"] == ids["late@seed=0"]
    assert ids["study@seed=1"]["fit"] == ids["plain"]["fit"]
    assert all(ids["study@seed=1"][stage] != ids["plain"][stage] for stage in ("autodecoder", "codes", "unet", "infer"))
    assert ids["late@seed=1"]["codes"] == ids["plain"]["codes"]
    assert ids["late@seed=1"]["unet"] != ids["plain"]["unet"] != ids["study@seed=1"]["unet"]


def test_shared_stages_are_planned_once(tmp_path: Path) -> None:
    grid = {"unet.train.optimizer.lr": [1e-3, 1e-4], "infer.guidance": [1, 2, 3]}
    plan = planned(folder(tmp_path, study={**BASE, "sweep": {"grid": grid}, "seeds": {"unet": 3}, "folds": 2}))
    counts = {
        stage: sum(name == stage for name, _ in plan.stages) for stage in ("ingest", "fit", "autodecoder", "codes")
    }
    assert len(plan.ablations) == 2 * 3 * 3 * 2
    assert counts == {"ingest": 1, "fit": 1, "autodecoder": 2, "codes": 2}, "stage 1 once for each fold"
    assert sum(name == "unet" for name, _ in plan.stages) == 2 * 3 * 2
    assert sum(name == "infer" for name, _ in plan.stages) == len(plan.ablations)


def test_every_random_seed_of_the_tree_follows_replicates_or_is_that_of_the_split() -> None:
    named = {(place.partition(".")[0].partition(":")[0], field) for place, section, _ in places(Experiment)
             for field in section.model_fields if field.endswith("seed")}  # fmt: skip
    covered = {part for start in STARTS for part in SECTIONS[start]}
    assert {field for _, field in named} == set(SEED_NAMES)
    assert {part for part, _ in named} - covered == {"data"}, "only folds vary the split"
    assert DEFAULT_START == "autodecoder"


def test_folds_hold_out_every_object_once(tmp_path: Path) -> None:
    plan = planned(folder(tmp_path, study={**BASE, "folds": 3}))
    held_out = []
    for fold, found in enumerate(plan.ablations.values()):
        splits = found.manifest.splits(found.ablation.experiment.data.split)
        assert set(splits.values()) == {"train", "test"}
        assert found.ablation.about.fold == fold
        held_out += [name for name, split in splits.items() if split == "test"]
    assert sorted(held_out) == sorted(entry.id for entry in found.manifest.objects)


def test_more_folds_than_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"study\.yaml:\d+: data\.split\.folds: 9 folds of 8 objects .*at most 8"):
        planned(folder(tmp_path, study={**BASE, "folds": 9}))


def test_records_of_runs_are_written_and_kept_where_nothing_changed(tmp_path: Path) -> None:
    text = {**BASE, "sweep": {"grid": {"infer.guidance": [1, 2]}}, "seeds": {"unet": 2}, "notes": "why", "priority": 4}
    ablations = folder(tmp_path / "ablations", study=text)
    plan = planned(ablations, results=tmp_path / "results")
    plan.write()
    names = [f"study@guidance={g}@seed={s}" for g in (1, 2) for s in (0, 1)]
    assert named([f"@{tmp_path / 'results' / NAMES_FILE}"]) == names
    record = read_json(tmp_path / "results/ablations/study@guidance=2@seed=1/plan.json")
    expected = {
        "study": "study", "arm": "study@guidance=2", "point": {"infer.guidance": 2}, "seed": 1, "fold": None,
        "replicated": ["unet"], "set": None, "priority": 4, "tags": [], "notes": "why", "x": None,
    }  # fmt: skip
    assert expected.items() <= record.items()
    assert {plan.priority(*key) for key in plan.stages} == {4}
    assert plan.priority("unet", "0000") == 0
    files = list((tmp_path / "results").rglob("*.json"))
    before = {path: path.stat().st_ino for path in files}
    planned(ablations, results=tmp_path / "results").write()
    assert before == {path: path.stat().st_ino for path in files}


def test_the_most_urgent_run_gives_a_shared_stage_its_priority(tmp_path: Path) -> None:
    plan = planned(folder(tmp_path, a={**BASE, "priority": -2}, b={**BASE, "priority": 7, "infer": {"guidance": 1.5}}))
    a, b = (found.stages for found in plan.ablations.values())
    assert plan.priority(*a["unet"].key) == plan.priority(*b["infer"].key) == 7
    assert plan.priority(*a["infer"].key) == -2


@pytest.mark.parametrize(
    ("option", "names"),
    [
        ("s@seed=1", ["s@lr=1e-3,guidance=1@seed=1", "s@lr=1e-3,guidance=2@seed=1"]),
        ("s@lr=1e-3,guidance=2,plain", ["s@lr=1e-3,guidance=2@seed=0", "s@lr=1e-3,guidance=2@seed=1", "plain"]),
        ("plain,s@lr=1e-3,guidance=2@seed=1", ["plain", "s@lr=1e-3,guidance=2@seed=1"]),
        (["s@lr=1e-3,guidance=1@seed=0", "plain"], ["s@lr=1e-3,guidance=1@seed=0", "plain"]),
    ],
)
def test_names_with_commas_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: Any, names: list[str]
) -> None:
    grid = {"unet.train.optimizer.lr": [1e-3], "infer.guidance": [1, 2]}
    folder(tmp_path / "ablations", plain=BASE, s={**BASE, "sweep": {"grid": grid}, "seeds": 2})
    (tmp_path / "configs").symlink_to(CONFIGS)
    monkeypatch.chdir(tmp_path)
    plan = Plan.from_options({"scale": "scratch", "ablations": option}, Path("results"), check=False)
    assert list(plan.ablations) == names


def test_an_ablation_without_a_run_is_its_own_study() -> None:
    about = Ablation("a", "", "scratch", {}, Experiment()).about
    assert (about.study, about.arm, about.seed, about.fold, about.point) == ("a", "a", None, None, {})
