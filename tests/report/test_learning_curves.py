"""Learning curves: where runs are on the axis, which runs share a curve, and intervals over seeds."""

from pathlib import Path
from typing import Any

import pytest
from support.study_tree import write_run

from z1g.core.files import write_jsonl
from z1g.report.collect import Results
from z1g.report.learning_curves import curve, read_curves
from z1g.report.studies import Study


def write_set(root: Path, x: Any, config: dict[str, Any] | None = None) -> list[str]:
    """Two learning rates at two numbers of steps with three seeds each."""
    names = []
    for steps in (100, 400):
        for lr in (1e-5, 1e-4):
            for seed in range(3):
                name = f"s{steps}_{lr:g}@seed={seed}"
                own = {"unet": {"lr": lr, "train": {"steps": steps, "seed": seed}}}
                if seed:  # replicate 0 has the initial weights of stage 1's option, and sets none
                    own["unet"]["init_seed"] = seed
                plan = {"set": "budget", "x": x, "arm": name.split("@")[0], "seed": seed, "differences": own}
                write_run(root, name, 20 + steps / 100 + (lr > 5e-5) + 0.1 * (seed - 1), plan, config or own)
                names.append(name)
    return names


def read(root: Path, names: list[str]) -> tuple[Results, list[Study]]:
    tree = Results(root)
    return tree, read_curves(tree, tree.ablations(names))


def test_a_key_path_makes_a_curve_for_each_group(tmp_path: Path) -> None:
    tree, (study,) = read(tmp_path, write_set(tmp_path, "unet.train.steps"))
    assert (study.name, study.x_label) == ("budget", "unet.train.steps")
    points = curve(study.runs, "psnr")
    assert [(p.group, p.x, p.n) for p in points] == [
        ("lr=0.0001", 100, 3), ("lr=0.0001", 400, 3), ("lr=1e-05", 100, 3), ("lr=1e-05", 400, 3),
    ]  # fmt: skip
    assert [p.mean for p in points] == pytest.approx([22, 25, 21, 24])
    reach = 4.302653 * 0.1 / 3**0.5  # t of 2 degrees of freedom, standard deviation 0.1
    assert [(p.low, p.high) for p in points[:1]] == [(pytest.approx(22 - reach), pytest.approx(22 + reach))]
    assert tree.notes == []


def test_lists_and_numbers_place_runs(tmp_path: Path) -> None:
    names = [f"n{n}" for n in (2, 5)]
    for n, name in zip((2, 5), names, strict=True):
        plan = {"set": "paths", "x": "data.paths", "differences": {"data": {"paths": ["a"] * n}}}
        write_run(tmp_path, name, 20.0 + n, plan, {"data": {"paths": ["a"] * n}})
    _, (study,) = read(tmp_path, names)
    assert [(p.group, p.x, p.mean, p.low) for p in curve(study.runs, "psnr")] == [("", 2, 22, None), ("", 5, 25, None)]
    for n, name in zip((2, 5), names, strict=True):
        write_run(
            tmp_path, name, 20.0 + n, {"set": "paths", "x": 10 * n, "differences": {"data": {"paths": ["a"] * n}}}
        )
    _, (study,) = read(tmp_path, names)
    assert study.x_label == "training objects"
    assert [(p.group, p.x) for p in curve(study.runs, "psnr")] == [("", 20), ("", 50)]


@pytest.mark.parametrize("x", ["objects", "number of objects"])
def test_training_objects_are_counted(tmp_path: Path, x: str) -> None:
    """Objects that are held out or quarantined do not count."""
    for n in (4, 9):
        name = f"n{n}"
        stages = {"ingest": f"in{n}", "metrics": f"me-{name}"}
        write_run(
            tmp_path,
            name,
            20.0,
            {"set": "count", "x": x, "stages": stages},
            {"data": {"split": {"test_fraction": 0.0}}},
        )
        ids = [f"object{i}" for i in range(n)]
        write_jsonl(
            tmp_path / "ingest" / f"in{n}" / "manifest.jsonl",
            [{"chunk_size": 16}, *({"id": i, "source": i} for i in ids)],
        )
        states = ["quarantined" if i == 0 else "ok" for i in range(n)]
        rows = [{"id": name, "status": status} for name, status in zip(ids, states, strict=True)]
        write_jsonl(tmp_path / "ingest" / f"in{n}" / "chunk-00000.jsonl", rows)
    _, (study,) = read(tmp_path, ["n4", "n9"])
    assert [run.x for run in study.runs] == [3, 8]


def test_sets_without_two_places_have_no_curve(tmp_path: Path) -> None:
    names = write_set(tmp_path, "unet.train.step")
    tree, curves = read(tmp_path, names)
    assert curves == []
    assert f"ablation {names[0]} has no number at unet.train.step, its x; learning curves leave it out" in tree.notes
    assert read(tmp_path, write_set(tmp_path, None))[1] == []


def test_files_of_one_set_have_their_own_axes(tmp_path: Path) -> None:
    """Folds are replicates; a curve with one place, and what another file varies, is left out."""
    names = []
    for steps in (10, 20):
        for fold in (0, 1):
            names.append(f"budget@steps={steps}@fold={fold}")
            own = {"unet": {"train": {"steps": steps}}, "data": {"split": {"folds": 2, "fold": fold}}}
            plan = {"set": "both", "study": "budget", "x": "unet.train.steps", "fold": fold, "differences": own}
            write_run(tmp_path, names[-1], 20.0 + steps + fold, {**plan, "point": {"unet.train.steps": steps}}, own)
    own = {"unet": {"train": {"steps": 10}, "lr": 1.0}}
    write_run(tmp_path, "alone", 20.0, {"set": "both", "x": "unet.train.steps", "differences": own}, own)
    for guidance in (1.0, 4.0):
        names.append(f"guided@guidance={guidance:g}")
        plan = {"set": "both", "study": "guided", "x": "infer.guidance", "point": {"infer.guidance": guidance}}
        write_run(tmp_path, names[-1], 20.0 + guidance, plan, {"infer": {"guidance": guidance}})
    _, (budget, guided) = read(tmp_path, [*names, "alone"])
    assert [(p.x, p.mean, p.n) for p in curve(budget.runs, "psnr")] == [(10, 30.5, 2), (20, 40.5, 2)]
    assert [(p.group, p.x, p.mean) for p in curve(guided.runs, "psnr")] == [("", 1, 21), ("", 4, 24)]
    assert (budget.x_label, guided.x_label) == ("unet.train.steps", "infer.guidance")


def test_options_that_follow_x_within_a_file_make_one_curve(tmp_path: Path) -> None:
    """Equal passes: fewer objects get fewer steps. Equal steps, in another file, are a curve of their own."""
    names = []
    for objects, steps in ((10, 100), (40, 400)):
        for file, own_steps in (("equal_steps", 400), ("equal_passes", steps)):
            names.append(f"{file}@train_objects={objects}")
            own = {"data": {"split": {"train_objects": objects}}}
            if file == "equal_passes":
                own["unet"] = {"train": {"steps": own_steps}}
            plan = {"set": "grown", "study": file, "x": "data.split.train_objects", "differences": own}
            write_run(tmp_path, names[-1], 20.0 + objects + own_steps / 1000, plan, own)
    _, (study,) = read(tmp_path, names)
    assert [(p.group, p.x, round(p.mean, 1)) for p in curve(study.runs, "psnr")] == [
        ("equal_passes", 10, 30.1), ("equal_passes", 40, 60.4), ("equal_steps", 10, 30.4), ("equal_steps", 40, 60.4),
    ]  # fmt: skip
