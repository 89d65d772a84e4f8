"""One cluster for all tests of this folder, and undisturbed runs that the others are compared with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, unavailable
from workspace import ASKED, ONE_PROCESS, ROOT, Workspace


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
    """The whole chain, undisturbed."""
    if not (ROOT / ".venv-blender/bin/python").exists():
        pytest.skip("Blender's environment is not made (make env)")
    workspace = Workspace(tmp_path_factory.mktemp("chain") / "work", ASKED)
    (workspace.folder / "snakemake.out").write_text(workspace.run())
    return workspace


@pytest.fixture(scope="session")
def undisturbed(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Stage 1 in one process, without SLURM."""
    workspace = Workspace(tmp_path_factory.mktemp("undisturbed") / "work", ONE_PROCESS)
    workspace.take(finished, "ingest", "fit")
    workspace.run("--until", "autodecoder", profile="local")
    return workspace


@pytest.fixture
def workspace(cluster: Cluster, finished: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """Data as in the undisturbed run, nothing trained; a sound cluster before and after."""
    workspace = Workspace(tmp_path / "work", ONE_PROCESS)
    workspace.take(finished, "ingest", "fit")
    cluster.heal()
    yield workspace
    cluster.heal()
    workspace.end()


@pytest.fixture
def goal(undisturbed: Workspace) -> str:
    """Stage 1's last output."""
    return f"results/autodecoder/{undisturbed.stage('autodecoder').name}/history.jsonl"
