"""`z1g search` at micro size: trained points, a kill in the middle, the best point as an ablation."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.paths import ROOT
from support.studies import Workspace

from z1g.config.search import read_search
from z1g.core.errors import UserError
from z1g.plan.plan import Plan
from z1g.report.collect import Results
from z1g.search.dag import Where
from z1g.search.study import Searcher

LR = "unet.train.optimizer.lr"
STUDY: dict[str, Any] = {
    "description": "learning rate and guidance",
    "search": {
        "space": {LR: {"log_uniform": [1e-4, 0.1]}, "infer.guidance": {"choice": [1.0, 2.0]}},
        "sampler": {"seed": 2, "startup": 2},
        "trials": 4,
        "batch": 2,
    },
    "infer": {"steps": 2},
}


def made(folder: Path, verbs: str, study: dict[str, Any] = STUDY) -> Workspace:
    workspace = Workspace(folder, {"unused.yaml": {"description": "not part of the search"}})
    workspace.use(verbs)
    (folder / "rates.yaml").write_text(yaml.safe_dump(study))
    return workspace


def search(workspace: Workspace, verbs: str, **variables: str) -> tuple[int, str]:
    done = workspace.start([*verbs.split(), "search", "rates.yaml", "--scale", "micro.yaml"], **variables)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(verbs: str, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = made(tmp_path_factory.mktemp("finished") / "work", verbs)
    code, output = search(workspace, verbs)
    assert code == 0, output[-4000:]
    return workspace


def rows(workspace: Workspace) -> list[list[str]]:
    text = (workspace.results / "studies/rates/trials.csv").read_text()
    return [line.split(",", 3) for line in text.splitlines()[1:]]


@pytest.mark.slow
def test_values_are_means_of_measured_objects(finished: Workspace) -> None:
    """Against the rows of the stage `metrics`."""
    tree = Results(finished.results)
    table = rows(finished)
    assert [row[0] for row in table] == ["0", "1", "2", "3"]
    for _, state, value, rest in table:
        assert state == "measured"
        run = next(name for name in tree.planned() if rest.startswith((name, f'"{name}')))
        (ablation,) = tree.ablations([run])
        file = tree.folder("metrics", ablation.stages["metrics"]) / "metrics.jsonl"
        by_object: dict[str, list[float]] = {}
        for line in map(json.loads, file.read_text().splitlines()):
            if (line["source"], line["split"]) == ("sampled", "test"):
                by_object.setdefault(line["object"], []).append(line["psnr"])
        means = [sum(values) / len(values) for values in by_object.values()]
        assert float(value) == pytest.approx(sum(means) / len(means))
    assert not (finished.results / "tables").exists()
    assert not (finished.results / "ablations/unused").exists()


@pytest.mark.slow
def test_the_best_point_is_an_ablation(finished: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    best = max(rows(finished), key=lambda row: float(row[2]))
    monkeypatch.chdir(finished.folder)
    (finished.folder / "ablations/more.yaml").write_text("base: rates_best\nunet: {condition_dropout: 0.5}\n")
    names = ["rates_best", "more", "rates"]
    plan = Plan.load("micro.yaml", names, finished.results, Path("ablations"), Path("configs"))
    (finished.folder / "ablations/more.yaml").unlink()
    chosen, more = (plan.ablations[name].ablation.experiment for name in ("rates_best", "more"))
    point = next(run for name, run in plan.ablations.items() if best[3].startswith((name, f'"{name}')))
    assert plan.ablations["rates_best"].stages == point.stages, "nothing is trained again"
    assert more.unet.train.optimizer.lr == chosen.unet.train.optimizer.lr
    assert more.unet.condition_dropout == 0.5
    assert chosen.infer.steps == 2


@pytest.mark.slow
def test_killed_while_points_are_trained_it_ends_the_same(finished: Workspace, verbs: str, tmp_path: Path) -> None:
    """SIGKILL to the search, Snakemake and jobs; the same command goes on, with no further point proposed."""
    workspace = made(tmp_path / "work", verbs)
    workspace.take(finished, "autodecoder", "codes")
    first = yaml.safe_load((finished.results / "studies/rates/rates.yaml").read_text())["sweep"]["list"]
    code, _ = search(workspace, verbs, Z1G_TEST_KILL="unet:3")
    assert code != 0
    assert not (workspace.results / "studies/rates/trials.csv").exists()
    code, output = search(workspace, verbs)
    assert code == 0, output[-4000:]
    assert yaml.safe_load((workspace.results / "studies/rates/rates.yaml").read_text())["sweep"]["list"] == first
    for file in ("trials.csv", "trials.md", "rates_best.yaml"):
        expected = (finished.results / "studies/rates" / file).read_bytes()
        assert (workspace.results / "studies/rates" / file).read_bytes() == expected, file


@pytest.mark.slow
def test_a_finished_search_has_nothing_to_do(finished: Workspace, verbs: str) -> None:
    before = (finished.results / "studies/rates/journal.log").read_bytes()
    code, output = search(finished, verbs)
    assert code == 0
    assert "trials " not in output.partition("| Trial")[0], "nothing is trained"
    assert (finished.results / "studies/rates/journal.log").read_bytes() == before


@pytest.mark.slow
def test_a_point_that_diverges_ends_nothing(verbs: str, finished: Workspace, tmp_path: Path) -> None:
    """At the higher rate all losses are infinite from the second step. Points proposed twice are trained once."""
    wanted = {
        "space": {LR: {"choice": [1e-3, 1000.0]}},
        "sampler": {"kind": "random", "seed": 0},
        "trials": 4,
        "batch": 4,
    }
    study = {**STUDY, "search": wanted}
    study["unet"] = {"train": {"steps": 30, "optimizer": {"clip_norm": 1e9}}}
    workspace = made(tmp_path / "work", verbs, study)
    workspace.take(finished, "autodecoder", "codes")
    code, output = search(workspace, verbs)
    assert code == 0, output[-4000:]
    table = [(row[3].split(",")[-1], row[1]) for row in rows(workspace)]
    assert len(table) == 4
    assert set(table) == {("0.001", "measured"), ("1000.0", "diverged")}


@pytest.mark.slow
def test_a_metric_that_is_not_measured_is_named_before_anything_is_trained(verbs: str, tmp_path: Path) -> None:
    study = {**STUDY, "search": {**STUDY["search"], "objective": {"metric": "pnsr"}}}
    workspace = made(tmp_path / "work", verbs, study)
    code, output = search(workspace, verbs)
    assert code == 2
    assert 'search.objective.metric: pnsr is not measured; did you mean "psnr"?' in output
    assert not (workspace.results / "studies/rates/journal.log").exists()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (
            {"infer.guidance": {"uniform": [0, 8]}},
            "infer.guidance: expected a number greater than or equal to 1, got 0",
        ),
        ({"infer.steps": {"integers": [1, 9999]}}, "infer.steps: expected a number less than or equal to 1000, got 99"),
        ({LR: {"log_uniform": [1e-6, 1e6]}}, "unet.train.optimizer.lr: expected a number"),
        (
            {"unet.condition_size": {"choice": [64, 32, "large"]}},
            'unet.condition_size: expected an integer, got "large"',
        ),
        ({"infer.steps": {"integers": [2, 4]}, "infer.step": {"choice": [1]}}, "infer.step: unknown key"),
    ],
)
def test_a_space_is_checked_to_its_ends_before_anything_is_proposed(
    space: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("z1g.search.study.train", lambda *_: pytest.fail("nothing may be trained"))
    monkeypatch.chdir(ROOT)
    (tmp_path / "rates.yaml").write_text(yaml.safe_dump({"search": {"space": space}}))
    searcher = Searcher(read_search(tmp_path / "rates.yaml"), Where("local", "scratch", tmp_path / "results", {}))
    with pytest.raises(UserError, match=re.escape(message)):
        searcher.run()
    assert not (searcher.folder / "journal.log").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("description: none\n", "study.yaml: search: expected a mapping with `space`"),
        ("search: {space: {}}\n", "study.yaml:1: search.space: expected at least 1 entry"),
        ("search: {spaces: {}}\n", 'search.spaces: unknown key; did you mean "space"'),
        ("search: {space: {a.b: {uniform: [2, 1]}}}\n", "expected a smaller and a larger number"),
        ("search: {space: {a.b: {uniform: [1, 2]}}, sampler: {kind: tpx}}\n", "sampler.kind"),
        ("search: {space: {a.b: {uniform: [1, 2]}}, trials: 0}\n", "search.trials: expected a number greater"),
        ("search: {space: {a.b: {uniform: [1, 2]}}}\nsweep: {}\n", "study.yaml:2: sweep: a search proposes its own"),
    ],
)
def test_mistakes_are_named_with_their_line(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as caught:
        read_search(file)
    assert message in str(caught.value)
