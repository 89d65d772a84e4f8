"""Studies with successive halving in the DAG: which jobs run, what is left, and a kill in the middle."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.builders import without_seconds
from support.forked import made_up_figure
from support.studies import Workspace

from z1g.core.files import read_json, read_jsonl

pytestmark = pytest.mark.slow
LR = "unet.train.optimizer.lr"
RATES = [0.1, 1e-3, 0.03]
"""Of stage 1, in six steps: the first destroys the network, the second is 0.2 dB better than the third."""
STUDY: dict[str, Any] = {
    "sweep": {"grid": {"autodecoder.train.optimizer.lr": RATES}},
    "prune": {"rungs": [0.5, 1], "keep": 0.34, "stage": "autodecoder"},
}
FULL = {"sweep": STUDY["sweep"]}


def jobs(output: str) -> dict[str, int]:
    """Rules and their number of jobs in a dry run."""
    table = output.split("Job stats:")[1].split("total")[0] if "Job stats:" in output else ""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.MULTILINE)}


def stage_of(workspace: Workspace, run: str, stage: str) -> Path:
    return workspace.results / stage / read_json(workspace.results / f"ablations/{run}/plan.json")["stages"][stage]


def lines(workspace: Workspace) -> list[str]:
    return (workspace.results / "tables/ablations.csv").read_text().splitlines()


# Real training at micro size


@pytest.fixture(scope="module")
def finished(verbs: str, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("finished") / "work", {"lr.yaml": STUDY})
    workspace.use(verbs)
    workspace.run()
    return workspace


@pytest.fixture(scope="module")
def full(verbs: str, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same runs without pruning."""
    workspace = Workspace(tmp_path_factory.mktemp("full") / "work", {"lr.yaml": FULL})
    workspace.use(verbs)
    workspace.run()
    return workspace


def test_only_the_survivor_is_trained_to_its_end(finished: Workspace) -> None:
    decision = read_json(finished.results / "studies/lr/rung-0.5.json")
    assert decision["kept"] == ["lr@lr=1e-3"]
    for rate in ("1e-3", "0.1", "0.03"):
        folder = stage_of(finished, f"lr@lr={rate}", "autodecoder")
        assert read_json(folder / "rungs/0.5.json")["step"] == 3
        assert (folder / "model").is_dir() == (rate == "1e-3")
        pruned = read_json(finished.results / f"ablations/lr@lr={rate}/plan.json").get("pruned")
        value = decision["values"][f"lr@lr={rate}"]
        assert pruned == (None if rate == "1e-3" else {"rung": 0.5, "value": value, "by": "validation_psnr"})
    assert {line.split(",")[0] for line in lines(finished)[1:]} == {"lr@lr=1e-3"}
    assert "Nothing to be done" in finished.run("-n")


def test_the_winner_is_that_of_the_full_study(finished: Workspace, full: Workspace) -> None:
    rows = [line.split(",") for line in lines(full)[1:]]
    psnr = {row[0]: float(row[4]) for row in rows if row[1:4] == ["sampled", "test", "psnr"]}
    assert len(psnr) == 3
    assert max(psnr, key=lambda name: psnr[name]) == "lr@lr=1e-3"
    # Verdicts depend on what a result is compared with.
    figures = [line.split(",")[:8] for line in lines(full) if line.startswith("lr@lr=1e-3,")]
    assert [line.split(",")[:8] for line in lines(finished)[1:]] == figures


def test_the_survivor_is_trained_as_if_it_had_never_been_asked(finished: Workspace, full: Workspace) -> None:
    for stage, output in (("autodecoder", "model"), ("unet", "pipeline"), ("infer", "chunk-00000")):
        folders = [stage_of(workspace, "lr@lr=1e-3", stage) for workspace in (finished, full)]
        tensors = []
        for folder in folders:
            files = sorted((folder / output).rglob("*.safetensors"))
            tensors.append({str(file.relative_to(folder)): load_file(file) for file in files})
        assert tensors[0]
        torch.testing.assert_close(tensors[0], tensors[1], atol=0, rtol=0)
        if stage != "infer":
            histories = [without_seconds(read_jsonl(folder / "history.jsonl")) for folder in folders]
            assert histories[0] == histories[1]


def test_killed_twice_the_same_command_gives_the_same_tables(verbs: str, finished: Workspace, tmp_path: Path) -> None:
    """SIGKILL to Snakemake and all jobs: while rungs are trained, then while the survivor is trained to its end."""
    workspace = Workspace(tmp_path / "work", {"lr.yaml": STUDY})
    workspace.use(verbs)
    for kill in ("autodecoder:1", "autodecoder:4"):
        assert workspace.start(workspace.command(), Z1G_TEST_KILL=kill).returncode == -9
        assert not (workspace.results / "tables").exists()
        workspace.run("--unlock")
    assert (workspace.results / "studies/lr/rung-0.5.json").exists(), "the second kill was after the decision"
    workspace.run()
    for file in ("tables/ablations.csv", "tables/ablations.md", "tables/ablations.tex", "studies/lr/rung-0.5.json"):
        assert (workspace.results / file).read_bytes() == (finished.results / file).read_bytes(), file


# Which jobs run, with stages that only create their outputs


def made_up(workspace: Workspace, *words: str, ablations: str | None = None) -> str:
    return workspace.run(*words, ablations=ablations, Z1G_TEST_MADE_UP="1")


def test_a_set_is_pruned_at_two_rungs_by_the_mean_over_seeds(verbs: str, tmp_path: Path) -> None:
    """Four ablations of two seeds: two go on after the first rung, one after the second. All seeds go together."""
    rates = {"low": 1e-6, "good": 1e-3, "high": 0.5, "fair": 2e-3}
    files = {f"rates/{name}.yaml": {"unet": {"train": {"optimizer": {"lr": rate}}}} for name, rate in rates.items()}
    header = {"seeds": {"unet": 2}, "prune": {"rungs": [0.1, 0.5, 1], "keep": 0.5}}
    workspace = Workspace(tmp_path / "work", {**files, "rates/_set.yaml": header})
    workspace.use(verbs)
    planned = jobs(made_up(workspace, "-n", ablations="rates"))
    assert planned["unet_rung"] == 8, "the rungs that come first"
    assert "unet" not in planned, "what comes after a decision is not planned before"
    made_up(workspace, ablations="rates")
    first, second = (read_json(workspace.results / f"studies/rates/rung-{rung}.json") for rung in ("0.1", "0.5"))
    assert first["kept"] == ["good", "fair"]
    assert second["kept"] == ["good"]
    assert set(second["values"]) == {"good", "fair"}
    expected = sum(made_up_figure(1e-3, seed, 3) for seed in (42, 43)) / 2
    assert second["values"]["good"] == pytest.approx(expected)
    runs = {file.parent.name: read_json(file) for file in workspace.results.glob("ablations/*/plan.json")}
    assert len(runs) == 8
    for name, plan in runs.items():
        folder = workspace.results / "unet" / plan["stages"]["unet"]
        assert (folder / "pipeline").exists() == (plan["arm"] == "good"), name
        assert (folder / "rungs/0.5.json").exists() == (plan["arm"] in ("good", "fair")), name
        assert plan.get("pruned", {}).get("rung") == {"good": None, "fair": 0.5}.get(plan["arm"], 0.1), name
    assert "Nothing to be done" in made_up(workspace, "-n", ablations="rates")
    # Half of two is one, at both rungs; the plan of other rungs decides again.
    text = (workspace.folder / "ablations/rates/_set.yaml").read_text()
    (workspace.folder / "ablations/rates/_set.yaml").write_text(text.replace("keep: 0.5", "keep: 0.25"))
    made_up(workspace, ablations="rates")
    assert read_json(workspace.results / "studies/rates/rung-0.1.json")["kept"] == ["good"]
    fair = read_json(workspace.results / "ablations/fair@seed=0/plan.json")
    assert fair["pruned"]["rung"] == 0.1


def test_studies_share_what_they_have_in_common(verbs: str, tmp_path: Path) -> None:
    """Two studies and an ablation that is not pruned, with one training in common."""
    prune = {"rungs": [0.5, 1], "keep": 0.34}
    workspace = Workspace(
        tmp_path / "work",
        {
            "one.yaml": {"prune": prune, "sweep": {"grid": {LR: [1e-3, 1e-4]}}},
            "two.yaml": {"prune": prune, "sweep": {"grid": {LR: [1e-3, 1e-5]}}},
            "plain.yaml": {"unet": {"train": {"optimizer": {"lr": 1e-3}}}},
        },
    )
    workspace.use(verbs)
    planned = jobs(made_up(workspace, "-n"))
    assert planned["unet_rung"] == 3, "of four points"
    assert planned["autodecoder"] == planned["unet"] == 1
    made_up(workspace)
    trained = list(workspace.results.glob("unet/*/pipeline"))
    assert len(trained) == 1, "both studies keep the training that they share"
    kept = [read_json(workspace.results / f"studies/{name}/rung-0.5.json")["kept"] for name in ("one", "two")]
    assert kept == [["one@lr=1e-3"], ["two@lr=1e-3"]]
