"""Training on two nodes, over loopback and gloo, has the results of a single process."""

import re
from pathlib import Path
from typing import Any

import pytest
from same import assert_close
from workspace import ONE_PROCESS, REQUESTED, Workspace

DATA = ("ingest", "fit")
ON_TWO_NODES: dict[str, Any] = {**REQUESTED, "unet": {**REQUESTED["unet"], "gpus": 1, "nodes": 2}}
WEIGHTS, FIGURES = 2e-4, 1e-3
"""Adam divides by gradient magnitudes, which amplifies rounding errors of small ones; bounds as in `test_ddp.py`."""


@pytest.fixture(scope="module")
def on_two_nodes(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Stage 2 in two processes on two nodes, from the finished run's stage 1."""
    workspace = Workspace(tmp_path_factory.mktemp("two-nodes") / "work", ON_TWO_NODES)
    workspace.take(finished, *DATA, "autodecoder", "codes")
    output = workspace.run("--until", "unet")
    assert re.findall(r"SLURM jobid \d+ \(log: \S*?/rule_(\w+)/", output) == ["unet"], "only stage 2 is run"
    return workspace


@pytest.fixture(scope="module")
def alone(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Stage 2 in one process, without SLURM, from the same stage 1."""
    workspace = Workspace(tmp_path_factory.mktemp("alone") / "work", ONE_PROCESS)
    workspace.take(finished, *DATA, "autodecoder", "codes")
    workspace.run("--until", "unet", profile="local")
    return workspace


def ranks(folder: Path) -> set[tuple[str, str]]:
    """Rank and node of each process of a training."""
    output = (folder / f"logs/{folder.parent.name}.log").read_text()
    assert "2 processes on 2 nodes" in output
    return set(re.findall(r"rank (\d) of 2 on node (\S+)", output))


def test_stage_1_has_a_process_on_each_node(finished: Workspace) -> None:
    assert ranks(finished.stage("autodecoder")) == {("0", "n1"), ("1", "n2")}


def test_stage_1_matches_a_single_process(finished: Workspace, reference: Workspace) -> None:
    ours, theirs = finished.stage("autodecoder"), reference.stage("autodecoder")
    assert_close(ours, theirs, "model", WEIGHTS, FIGURES)


def test_stage_2_has_a_process_on_each_node(on_two_nodes: Workspace) -> None:
    assert ranks(on_two_nodes.stage("unet")) == {("0", "n1"), ("1", "n2")}


def test_stage_2_matches_a_single_process(on_two_nodes: Workspace, alone: Workspace) -> None:
    assert_close(on_two_nodes.stage("unet"), alone.stage("unet"), "pipeline", WEIGHTS, FIGURES)


def test_stage_2_in_two_processes_of_one_node_matches_a_single_process(finished: Workspace, alone: Workspace) -> None:
    assert_close(finished.stage("unet"), alone.stage("unet"), "pipeline", WEIGHTS, FIGURES)
