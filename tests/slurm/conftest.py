"""One cluster for all tests of this folder, and undisturbed runs as references."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, unavailable
from workspace import ONE_PROCESS, REQUESTED, Workspace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def finished(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The whole chain, reference."""
    workspace = Workspace(tmp_path_factory.mktemp("chain") / "work", REQUESTED)
    (workspace.folder / "snakemake.out").write_text(workspace.run())
    return workspace


@pytest.fixture(scope="session")
def reference(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Stage 1 in one process, without SLURM."""
    workspace = Workspace(tmp_path_factory.mktemp("reference") / "work", ONE_PROCESS)
    workspace.take(finished, "ingest", "fit")
    workspace.run("--until", "autodecoder", profile="local")
    return workspace


@pytest.fixture
def workspace(cluster: Cluster, finished: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace with the reference run's data, nothing trained; the cluster is restored before and after."""
    workspace = Workspace(tmp_path / "work", ONE_PROCESS)
    workspace.take(finished, "ingest", "fit")
    cluster.heal()
    yield workspace
    cluster.heal()
    workspace.end()


@pytest.fixture
def goal(reference: Workspace) -> str:
    """Stage 1's last output."""
    return f"results/autodecoder/{reference.stage('autodecoder').name}/history.jsonl"
