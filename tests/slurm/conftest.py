"""One cluster for all tests of this folder, and one undisturbed run that the others are compared with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, unavailable
from workspace import ASKED, ROOT, Workspace


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
    workspace = Workspace(tmp_path_factory.mktemp("chain"), ASKED)
    (workspace.folder / "snakemake.out").write_text(workspace.run())
    return workspace
