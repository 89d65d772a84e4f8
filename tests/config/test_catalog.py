"""Runs of ablation files: what they inherit, what sets say, which are selected, and mistakes named where they are."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.paths import CONFIGS

from z1g.config.catalog import Catalog
from z1g.config.entries import Entries
from z1g.config.resolve import Ablation
from z1g.core.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for ablations."""
    (tmp_path / "ablations").mkdir()
    return tmp_path / "ablations"


def write(folder: Path, **files: str) -> None:
    """Write ablations; a `__` in a name separates the set."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def catalog(folder: Path) -> Catalog:
    return Catalog(Entries.of_folder(folder), "scratch", CONFIGS)


def runs(folder: Path, *names: str) -> dict[str, Ablation]:
    """The runs of names; mistakes are errors."""
    found, problems = catalog(folder).select(names or None)
    assert not problems, problems
    return {run.name: run for run in found}


def said(folder: Path, *names: str) -> list[str]:
    """What is wrong with the runs of names."""
    _, problems = catalog(folder).select(names or None)
    return [line.replace(f"{folder}/", "") for line in problems]


def test_points_folds_and_replicates_are_runs(folder: Path) -> None:
    text = "sweep: {grid: {infer.guidance: [1, 2]}}\nfolds: 2\nseeds: [0, 4]\n"
    write(folder, study=text)
    found = runs(folder)
    assert list(found) == [
        f"study@guidance={g}@fold={f}@seed={s}" for g in (1, 2) for f in (0, 1) for s in (0, 4)
    ]  # fmt: skip
    run = found["study@guidance=2@fold=1@seed=4"]
    assert run.experiment.infer.guidance == 2
    assert (run.experiment.data.split.folds, run.experiment.data.split.fold) == (2, 1)
    record = run.about.record()
    expected = {"study": "study", "arm": "study@guidance=2", "point": {"infer.guidance": 2}, "seed": 4, "fold": 1}
    assert expected.items() <= record.items()
    assert (record["replicated"], record["set"], record["priority"], record["tags"]) == (
        ["autodecoder", "unet"],
        None,
        0,
        [],
    )
    assert json.loads(json.dumps(record)) == record


def test_a_file_without_header_is_one_run_with_the_files_name(folder: Path) -> None:
    write(folder, plain="splat: {size: 32}\n")
    (run,) = runs(folder).values()
    assert (run.name, run.about.study, run.about.arm, run.about.seed, run.about.fold) == (
        "plain",
        "plain",
        "plain",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("seeds", "numbers", "changed"),
    [
        ("3", [0, 1, 2], {"autodecoder.train.seed", "model.init_seed", "unet.train.seed", "infer.seed"}),
        ("[5, 0]", [5, 0], {"autodecoder.train.seed", "model.init_seed", "unet.train.seed", "infer.seed"}),
        ("{unet: 2}", [0, 1], {"unet.train.seed", "unet.init_seed", "infer.seed"}),
        ("{infer: [1]}", [1], {"infer.seed"}),
        ("{fit: 2}", [0, 1], {"fit.seed", "autodecoder.train.seed", "model.init_seed", "unet.train.seed",
                              "infer.seed"}),
        ("{ingest: 2}", [0, 1], {"camera.seed", "fit.seed", "autodecoder.train.seed", "model.init_seed",
                                 "unet.train.seed", "infer.seed"}),
    ],
)  # fmt: skip
def test_a_replicate_adds_its_number_to_the_seeds_of_its_stages(
    folder: Path, seeds: str, numbers: list[int], changed: set[str]
) -> None:
    write(folder, plain="splat: {size: 32}\n", study=f"splat: {{size: 32}}\nseeds: {seeds}\n")
    found = runs(folder)
    base = flat(found.pop("plain").experiment.model_dump(mode="json"))
    assert [run.about.seed for run in found.values()] == numbers
    for number, run in zip(numbers, found.values(), strict=True):
        values = flat(run.experiment.model_dump(mode="json"))
        differing = {path for path in values if values[path] != base[path]}
        assert differing == (changed if number else set())
        initial = {"unet.init_seed": base["model.init_seed"]}
        assert all(values[path] == initial.get(path, base[path]) + number for path in differing)


def flat(values: Any, path: str = "") -> dict[str, Any]:
    """Leaves by key path."""
    if not isinstance(values, dict):
        return {path: values}
    return {
        key: leaf for name, value in values.items() for key, leaf in flat(value, f"{path}.{name}".lstrip(".")).items()
    }


def test_seeds_of_chosen_kinds_follow_too(folder: Path) -> None:
    text = "autodecoder: {codes: {kind: optimized, seed: 7}}\nseeds: [3]\n"
    write(
        folder, study=text, variants="autodecoder: {codes: {kind: encoder}}\nunet: {variants: {}}\nseeds: {unet: [3]}\n"
    )
    study, variants = (run.experiment for run in runs(folder).values())
    assert study.autodecoder.codes.seed == 10
    assert variants.unet.variants.seed == 3


def test_a_base_can_be_an_ablation_and_a_point_of_one(folder: Path) -> None:
    write(
        folder,
        a="base: small\nsplat: {size: 32}\nunet: {condition_dropout: 0.2}\ntags: [x]\n",
        b="base: a\nunet: {condition_dropout: 0.3}\nsweep: {grid: {infer.guidance: [1, 3]}}\nseeds: 2\n",
        c="base: b\n",
        d="base: b@guidance=3@seed=1\nfit: {steps: 7}\n",
    )
    found = runs(folder, "c", "d")
    c, d = found["c"], found["d"]
    assert list(found) == ["c", "d"], "sweeps and replicates of the base are not inherited"
    assert (c.base, c.about.chain, c.about.tags) == ("small", ("b", "a"), ())
    assert (c.experiment.splat.size, c.experiment.unet.condition_dropout) == (32, 0.3)
    assert c.differences == {"splat": {"size": 32}, "unet": {"condition_dropout": 0.3}}
    assert d.about.chain == ("b@guidance=3@seed=1", "a")
    assert (d.experiment.infer.guidance, d.experiment.infer.seed, d.experiment.fit.steps) == (3, 1, 7)
    assert [name for name, _ in catalog(folder).chain("c")] == ["c", "b", "a", "small"]


def test_loops_name_their_files(folder: Path) -> None:
    write(
        folder,
        a="base: b\n",
        b="\nbase: c\n",
        c="base: a\n",
        me="base: me\n",
        x="base: y@seed=1\n",
        y="base: x\nseeds: 2\n",
    )
    loop = "c.yaml:1: base: a loop: a.yaml builds on b.yaml builds on c.yaml builds on a.yaml"
    assert said(folder, "a") == [loop]
    assert "me.yaml builds on me.yaml" in said(folder, "me")[0]
    assert "x.yaml builds on y.yaml builds on x.yaml" in said(folder, "x")[0]


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("tinny", 'idea.yaml:2: base: scale "tinny": there is no file configs/tinny.yaml, and no ablation of this '
                  'name; did you mean "tiny"?'),
        ("othr", 'idea.yaml:2: base: scale "othr": there is no file configs/othr.yaml, and no ablation of this name; '
                 'did you mean "other"?'),
        ("other@seed=7", 'idea.yaml:2: base: other.yaml has no run "other@seed=7"; did you mean "other@seed=1"?'),
        ("small", 'idea.yaml:2: base: "small" is a scale, configs/small.yaml, and an ablation, small.yaml; rename one'),
        ("[tiny]", "idea.yaml:2: base: expected a string, got [\"tiny\"]"),
    ],
)  # fmt: skip
def test_wrong_bases_are_named_where_they_are(folder: Path, base: str, expected: str) -> None:
    write(folder, idea=f"splat: {{}}\nbase: {base}\n", other="seeds: [1]\n")
    if base == "small":
        write(folder, small="splat: {}\n")
    (line,) = said(folder, "idea")
    assert line.replace(f"{CONFIGS}", "configs").startswith(expected), line


def test_a_set_speaks_for_its_ablations_and_they_come_first(folder: Path) -> None:
    write(
        folder,
        base_of_all="splat: {size: 16}\n",
        things__a="description: a\ntags: [own]\n",
        things__b="seeds: null\npriority: 5\nnotes: mine\nbase: small\n",
        things___set="base: base_of_all\nseeds: 2\ntags: [all]\npriority: 2\nnotes: ours\nx: infer.steps\n"
        "description: things\n",
    )
    found = runs(folder, "things")
    assert list(found) == ["a@seed=0", "a@seed=1", "b"]
    a, b = found["a@seed=1"], found["b"]
    assert (a.description, a.about.tags, a.about.priority, a.about.notes) == ("a", ("all", "own"), 2, "ours")
    assert (a.about.set, a.about.x, a.experiment.splat.size, a.about.chain) == (
        "things",
        "infer.steps",
        16,
        ("base_of_all",),
    )
    assert (b.about.tags, b.about.priority, b.about.notes, b.base, b.about.seed) == (("all",), 5, "mine", "small", None)
    assert list(runs(folder)) == ["base_of_all"], "files of sets are not trained by default"


def test_the_ablation_that_a_set_builds_on_may_be_one_of_it(folder: Path) -> None:
    write(folder, s__first="splat: {size: 16}\n", s__second="fit: {steps: 3}\n", s___set="base: first\n")
    found = runs(folder, "s")
    assert found["first"].about.chain == ()
    assert (found["second"].about.chain, found["second"].experiment.splat.size) == (("first",), 16)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seedz: 3\n", 's/_set.yaml:1: seedz: unknown key; did you mean "seeds"?'),
        ("infer: {}\n", "s/_set.yaml:1: infer: unknown key; valid: base, "),
        ("tags: [ok, not ok]\n",
         "s/_set.yaml:1: tags.1: expected a word of letters, digits and _.:/+-, got \"not ok\""),
        ("priority: true\n", "s/_set.yaml:1: priority: expected a number, got true or false"),
        ("folds: 1\n", "s/_set.yaml:1: folds: expected a number greater than or equal to 2, got 1"),
        ("\nseeds: {unet: 0}\n", "s/_set.yaml:2: seeds: expected a number of replicates, a list of their numbers, or"),
        ("seeds: [1, 1]\n", "s/_set.yaml:1: seeds: expected up to 1000 different numbers, got [1, 1]"),
        ("seeds: [4294967295]\n",
         "s/_set.yaml:1: autodecoder.train.seed: expected a number less than or equal to 4294967295, got 4294967337"),
        ("base: nowhere\n", 's/_set.yaml:1: base: scale "nowhere": there is no file'),
    ],
)  # fmt: skip
def test_mistakes_of_a_set_are_named_in_the_sets_file(folder: Path, text: str, expected: str) -> None:
    write(folder, s__idea="splat: {}\n", s___set=text)
    lines = said(folder, "s")
    assert lines[0].startswith(expected), lines


@pytest.mark.parametrize("rest", ["seeds: 3\n", "sweep: {grid: {infer.steps: [4]}}\n"])
def test_pruning_without_competitors_is_an_error(folder: Path, rest: str) -> None:
    """It would be without effect: replicates and folds of one arm do not compete."""
    write(folder, idea=f"{rest}prune: {{keep: 0.5}}\n")
    (line,) = said(folder)
    assert line.startswith("idea.yaml:2: prune: the points of a file's sweep compete, and this file has no two: add `")
    write(folder, s__a=rest, s___set="prune: {keep: 0.5}\n")
    assert said(folder, "s")[0].startswith("s/_set.yaml:1: prune: the ablations of a set compete, and this set has no ")
    write(folder, s__b="splat: {}\n", idea="prune: null\n")
    assert not said(folder, "s", "idea")


@pytest.mark.parametrize(
    ("sweep", "expected"),
    [
        ("unet.train.optimizer.lr: [1e-3,\n      -1e-3]",
         ["idea.yaml:5: unet.train.optimizer.lr: expected a number greater than 0, got -0.001"]),
        ("unet.tarin.optimizer.lr: [1e-3, 1e-4]", ['idea.yaml:4: unet.tarin: unknown key; did you mean "train"?']),
        ("autodecoder.codes: [{kind: encoder}, {kind: optimised}]",
         ['idea.yaml:4: autodecoder.codes.kind: unknown kind "optimised"; did you mean "optimized"?']),
        ("infer.steps: [1, two]\n    infer.guidance: [0, 1]",
         ["idea.yaml:5: infer.guidance: expected a number greater than or equal to 1, got 0",
          'idea.yaml:4: infer.steps: expected an integer, got "two"']),
        ("unet.condition_size: [64,\n      63]",
         ["idea.yaml:5: unet.condition_size 63 must be a multiple of 4, the model's latent factor"]),
        ("seeds: [1, 2]", ["idea.yaml:4: seeds: is no option of the experiment, which a sweep varies"]),
        ("fit.seed: [true, 1]", ["idea.yaml:4: fit.seed: expected a number, got true or false"]),
    ],
)  # fmt: skip
def test_wrong_values_of_a_sweep_are_named_once_where_they_are(folder: Path, sweep: str, expected: list[str]) -> None:
    write(folder, idea=f"description: x\nsweep:\n  grid:\n    {sweep}\nseeds: 3\n")
    assert sorted(said(folder)) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sweep: {grid: {infer.steps: [4, '4']}}\n", "idea.yaml:1: sweep: idea@steps=4 and idea@steps=4-"),
        ("seeds: 2\nsweep:\n  list:\n  - infer.steps: 4\n  - infer: {steps: 4}\n",
         "idea.yaml:2: sweep: idea@steps=4 and idea@infer=options-"),
        ("sweep: {grid: {infer: [{steps: 4}, {steps: 5}], infer.steps: [6]}}\n",
         "idea.yaml:1: sweep: idea@infer=options-"),
    ],
)  # fmt: skip
def test_points_that_mean_the_same_are_no_two_points(folder: Path, text: str, expected: str) -> None:
    write(folder, idea=text)
    (line,) = said(folder)
    assert line.startswith(expected), line
    assert line.endswith("have the same options; leave one of these points out")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("folds: 3\ndata: {split: {folds: 5}}\n", "idea.yaml:2: data.split.folds: "),
        ("sweep:\n  grid:\n    data.split.fold: [0, 1]\nfolds: 3\n", "idea.yaml:3: data.split.fold: "),
        ("sweep:\n  list:\n  - data: {split: {folds: 2}}\nfolds: 3\n", "idea.yaml:3: data.split.folds: "),
    ],
)
def test_what_folds_say_of_a_run_is_said_by_nothing_else(folder: Path, text: str, line: str) -> None:
    """Each run would be named by a value that it does not have."""
    write(folder, idea=text)
    assert said(folder) == [f"{line}`folds` says it for each run; leave one of them out"]


def test_a_name_of_a_run_means_no_other_run_with_the_same_parts(folder: Path) -> None:
    write(folder, study="sweep: {grid: {unet.train.seed: [0, 1]}}\nseeds: 2\n")
    assert list(runs(folder, "study@seed=1@seed=0")) == ["study@seed=1@seed=0"]
    assert len(runs(folder, "study@seed=1")) == 3


def test_sets_files_runs_and_parts_of_runs_are_names(folder: Path) -> None:
    text = "sweep: {grid: {unet.train.optimizer.lr: [1e-3, 1e-4], infer.guidance: [1, 2]}}\nseeds: 2\n"
    write(folder, s__study=text, s__other="", top="")
    assert len(runs(folder, "s")) == 9
    assert len(runs(folder, "study")) == 8
    assert list(runs(folder, "study@lr=1e-4,guidance=2@seed=1")) == ["study@lr=1e-4,guidance=2@seed=1"]
    assert len(runs(folder, "study@lr=1e-4,guidance=2")) == 2
    assert len(runs(folder, "study@seed=1")) == 4
    assert list(runs(folder)) == ["top"]
    assert len(runs(folder, "study@seed=1", "study", "top")) == 9, "each once"
    expected = {
        "study@lr=1e-4,guidance=3": 'study.yaml has no such run; did you mean "study@lr=1e-4,guidance=2"?',
        "study@sed=1": 'study.yaml has no such run; did you mean "study@seed=1"?',
        "studi": 'there is no file studi.yaml; did you mean "study"?',
        "studi@seed=1": 'ablation "studi": there is no file studi.yaml; did you mean "study"?',
    }
    for name, words in expected.items():
        assert words in said(folder, name)[0].replace("s/", ""), said(folder, name)


def test_a_set_file_outside_of_a_set_is_refused(folder: Path) -> None:
    write(folder, _set="seeds: 2\n")
    with pytest.raises(UserError, match="only a subfolder is a set"):
        Entries.of_folder(folder)


@pytest.mark.parametrize("name", ["idea.yml", "idea.YAML", "s/idea.Yml"])
def test_files_with_another_ending_are_not_left_out(folder: Path, name: str) -> None:
    (folder / "s").mkdir()
    (folder / name).write_text("")
    with pytest.raises(UserError, match=rf"{name}: ablations are files \*\.yaml; rename it to idea\.yaml"):
        Entries.of_folder(folder)


def test_names_that_do_not_fit_a_file_name_are_refused(folder: Path) -> None:
    write(folder, **{"n" * 190: "seeds: 2\nsweep: {grid: {infer.guidance: [1, 2]}}\n"})
    assert "has more than 200 characters; rename the file" in said(folder)[0]
