"""Kills of ingest while Blender or the rasterizer renders: as in test_kills.py, and no process of theirs is left.

The gate kills the rasterizer's ingest once. With Z1G_ADVERSARIAL=long, the ingest of both is killed by each signal in
random moments, and Blender's while images are written.
"""

import random
import signal
from pathlib import Path

import psutil
import pytest
from support.builders import plan, stage_path
from support.killed import Appearance, Ended, Moment, run
from support.killed_stages import LONG, SIGNALS, command, killed_and_run_again, undone
from support.raster import rasterizer

from z1g.cli.main import main

pytestmark = pytest.mark.slow
MOMENTS, SEED = 4, 5
RENDERERS = {
    "raster": {"kind": "raster", "resolution": 16},
    "blender": {"kind": "blender", "resolution": 48, "samples": 8},
}
LIMIT_S = 300.0


@pytest.fixture(scope="module", params=["raster", pytest.param("blender", marks=pytest.mark.blender)])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished ingest of two triangles, one of which is set aside."""
    renderer = dict(RENDERERS[request.param])
    if request.param == "blender":
        renderer["python"] = request.getfixturevalue("blender")
    else:
        rasterizer(16)
    root = tmp_path_factory.mktemp(request.param)
    planned = plan(root, n_objects=2, data={"renderer": renderer, "max_quarantined": 0.5})
    assert main(command(root, "ingest")) == 0
    assert (stage_path(planned, "ingest") / "chunk-00000.tar").stat().st_size > 10_000, "something was rendered"
    return root


def killed(tree: Path, sent: signal.Signals, at: Moment | Appearance, copy: Path) -> Ended:
    """As `killed_and_run_again`, and all processes with temporary files in the copy end, also after SIGKILL."""
    ended = killed_and_run_again(tree, "ingest", sent, at, copy)
    own = [process for process in psutil.process_iter() if _temporary(process).startswith(str(copy))]
    assert psutil.wait_procs(own, timeout=LIMIT_S)[1] == [], ended.output
    return ended


def _temporary(process: psutil.Process) -> str:
    try:
        return process.environ().get("TMPDIR", "")
    except psutil.Error:
        return ""


@pytest.mark.parametrize("tree", ["raster"], indirect=True)
def test_a_kill_while_the_renderer_is_given_objects(tree: Path, tmp_path: Path) -> None:
    assert killed(tree, signal.SIGKILL, Moment("change", 6), tmp_path).reached


@pytest.mark.skipif(not LONG, reason="Z1G_ADVERSARIAL=long")
@pytest.mark.parametrize("sent", SIGNALS, ids=lambda sent: sent.name)
def test_kills_in_random_moments(tree: Path, tmp_path: Path, sent: signal.Signals) -> None:
    undone(tree, "ingest", tmp_path / "counted")
    counted = run(command(tmp_path / "counted", "ingest"), tmp_path / "counted")
    assert counted.code == 0, counted.output
    # The last event of each kind may come a little earlier or later, as threads take turns.
    moments = [Moment(kind, i + 1) for kind, n in sorted(counted.events.items()) for i in range(n - 1)]
    for at in random.Random(f"{SEED} {sent}").sample(moments, MOMENTS):
        killed(tree, sent, at, tmp_path / f"{at.kind}-{at.number}")


@pytest.mark.skipif(not LONG, reason="Z1G_ADVERSARIAL=long")
@pytest.mark.parametrize("tree", [pytest.param("blender", marks=pytest.mark.blender)], indirect=True)
@pytest.mark.parametrize("sent", SIGNALS, ids=lambda sent: sent.name)
def test_kills_while_blender_writes_images(tree: Path, tmp_path: Path, sent: signal.Signals) -> None:
    assert killed(tree, sent, Appearance("scratch/**/002.png"), tmp_path).reached
    # In other moments, a signal may interrupt the removal of temporary files.
    if sent != signal.SIGKILL:
        assert not list((tmp_path / "scratch").iterdir())
