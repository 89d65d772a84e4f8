"""The results of a stage do not change unless its version does; the figures are in `figures.json`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import golden_record
from support.golden_figures import Figures
from support.golden_record import COMMAND, differences, entry_of, may_write, read, rounded, verdict, write
from support.golden_runs import STAGES as RUNS
from support.golden_runs import WORLDS, World, ingest_meshes, ingest_originals
from support.raster import rasterizer

from z1g.plan.stages import STAGES

BLENDER_TOLERANCE = 0.02
"""Versions of Blender differ in their sampling noise."""
OPENGL_TOLERANCE = 0.005
"""Drivers differ in how they filter textures and round corners."""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    return {name: World(tmp_path_factory.mktemp(name), changes) for name, changes in WORLDS.items()}


@pytest.fixture(scope="module")
def results(worlds: dict[str, World], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Figures]]:
    """Figures by stage and run."""
    figures = {"ingest": {"originals": ingest_originals(tmp_path_factory.mktemp("originals"))}}
    for stage in RUNS:
        figures[stage] = {name: world.run(stage) for name, world in worlds.items()}
    return figures


def judge(
    request: pytest.FixtureRequest, name: str, stage: str, figures: dict[str, Figures], **tolerance: float
) -> None:
    recorded = read().get(name)
    if request.config.getoption("--write-golden", default=False) and may_write(stage, recorded, figures, **tolerance):
        write(name, entry_of(stage, figures))
        recorded = read()[name]
    complaint = verdict(stage, figures, recorded, **tolerance)
    if complaint:
        pytest.fail(complaint, pytrace=False)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_results_do_not_change_without_a_raised_version(
    request: pytest.FixtureRequest, results: dict[str, dict[str, Figures]], stage: str
) -> None:
    judge(request, stage, stage, results[stage])


@pytest.mark.blender
def test_nor_do_renders_by_blender(request: pytest.FixtureRequest, blender: str, tmp_path: Path) -> None:
    figures = {"meshes": ingest_meshes(tmp_path, kind="blender", samples=8, python=blender)}
    judge(request, "ingest with Blender", "ingest", figures, tolerance=BLENDER_TOLERANCE)


@pytest.mark.slow
def test_nor_do_renders_by_the_rasterizer(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    rasterizer(16)
    figures = {"meshes": ingest_meshes(tmp_path, kind="raster")}
    judge(request, "ingest with the rasterizer", "ingest", figures, tolerance=OPENGL_TOLERANCE)


@pytest.mark.slow
def test_a_run_on_its_own_gives_the_same_figures(
    worlds: dict[str, World], results: dict[str, dict[str, Figures]], tmp_path: Path
) -> None:
    """The figures do not depend on what ran before in the process."""
    torch.manual_seed(1)
    for stage in RUNS:
        assert (
            differences(
                {"method": results[stage]["method"]}, {"method": worlds["method"].run_aside(stage, tmp_path / stage)}
            )
            == []
        )


# Each of these changes of code affects results and leaves shapes and files as they are.


def scaled(factor: float) -> Callable[[Any], Any]:
    """A function with its result multiplied by a factor."""
    return lambda original: lambda *args, **kwargs: factor * original(*args, **kwargs)


def number(value: float) -> Callable[[Any], Any]:
    """Another constant."""
    return lambda original: value


FAULTS: list[tuple[str, str, str, Callable[[Any], Any]]] = [
    ("fit", "method", "z1g.fitting._start.Shape", lambda cls: lambda f, t, o, s: cls(f, t, 0.9 * o, s)),
    ("fit", "method", "z1g.losses.rendering.AlphaLoss.compute", scaled(1.5)),
    ("fit", "choices", "z1g.losses.splatter.RayLoss.of", scaled(2.0)),
    ("fit", "scratch", "z1g.losses.rendering.RgbLoss.compute", scaled(-1.0)),
    ("autodecoder", "method", "z1g.representations.mosaic.decoder.START_OPACITY", number(-1.9)),
    ("autodecoder", "method", "z1g.representations.mosaic.decoder.START_PIXELS", number(0.6)),
    ("autodecoder", "choices", "z1g.representations.mosaic.codec.HEAD_SEED", number(2)),
    ("autodecoder", "choices", "z1g.codes.book.OptimizedBook.BETAS", number((0.5, 0.9))),
    ("autodecoder", "scratch", "z1g.losses.splat.SplatLoss.compute", scaled(1.1)),
    ("codes", "method", "z1g.representations.mosaic.units.LATENT_SCALE", number(0.76)),
    ("codes", "choices", "z1g.losses.rendering.RgbLoss.compute", scaled(-1.0)),
    ("unet", "method", "z1g.networks.diffusion.NoiseSchedule.x0_from_v", scaled(1.02)),
    ("unet", "choices", "z1g.networks.diffusion.NoiseSchedule.snr", scaled(0.9)),
    ("unet", "scratch", "z1g.representations.codec.Codec.zero_latent", scaled(0.9)),
    ("infer", "method", "z1g.representations.mosaic.decoder.activate_rgb", scaled(0.95)),
    ("infer", "choices", "z1g.networks.diffusion.NoiseSchedule.x0_from_v", scaled(1.02)),
    ("metrics", "method", "z1g.metrics.psnr.Psnr.compute", scaled(2.0)),
    ("metrics", "method", "z1g.metrics.ssim.Ssim.compute", scaled(1.01)),
    ("metrics", "method", "z1g.metrics.surface.Chamfer.compute", scaled(2.0)),
    ("metrics", "choices", "z1g.stages.measuring.on_white", scaled(0.98)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "world", "name", "change"), FAULTS, ids=[f"{s}-{w}-{n}" for s, w, n, _ in FAULTS])
def test_a_fault_is_caught(
    worlds: dict[str, World], results: dict[str, dict[str, Figures]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    stage: str, world: str, name: str, change: Callable[[Any], Any],
) -> None:  # fmt: skip
    assert results
    owner, attribute = resolved(name)
    monkeypatch.setattr(owner, attribute, change(getattr(owner, attribute)))
    figures = {**results[stage], world: worlds[world].run_aside(stage, tmp_path / "results")}
    complaint = verdict(stage, figures, entry_of(stage, results[stage]))
    assert complaint is not None
    assert f"its version is still {STAGES[stage].version}" in complaint
    assert f"raise the version of '{stage}' in z1g/plan/stages.py" in complaint
    assert COMMAND in complaint


def test_a_fault_of_ingest_is_caught(
    results: dict[str, dict[str, Figures]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, change in {
        "z1g.sources.original.from_original_orbit": lambda f: lambda e, a, r, cam: f(-e, a, r, cam),
        "z1g.sources.original._original_files.read_image": lambda f: lambda path: f(path)[:, ::-1] // 2,
    }.items():
        with monkeypatch.context() as patch:
            owner, attribute = resolved(name)
            patch.setattr(owner, attribute, change(getattr(owner, attribute)))
            figures = {"originals": ingest_originals(tmp_path / attribute)}
        assert verdict("ingest", figures, entry_of("ingest", results["ingest"])) is not None, name


def resolved(name: str) -> tuple[Any, str]:
    """The module or class that holds a dotted name, and the attribute."""
    path, _, attribute = name.rpartition(".")
    owner: Any = __import__(name.split(".")[0])
    for part in path.split(".")[1:]:
        owner = getattr(owner, part)
    return owner, attribute


# The comparison


def entry(version: int, upstream: int = 1, **figures: Any) -> dict[str, Any]:
    return {"version": version, "upstream": {"ingest": upstream}, "figures": {"method": figures}}


@pytest.fixture
def fit_of_version_three(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setitem(golden_record.STAGES, "ingest", replace(STAGES["ingest"], version=1))
    monkeypatch.setitem(golden_record.STAGES, "fit", replace(STAGES["fit"], version=3))


@pytest.mark.usefixtures("fit_of_version_three")
def test_the_verdict_says_what_to_do() -> None:
    figures = {"method": {"psnr": 20.0, "splats": [0.001, 0.5]}}
    assert verdict("fit", figures, entry(3, psnr=20.01, splats=[0.0014, 0.5001])) is None
    for other in (entry(3, psnr=20.1, splats=[0.001, 0.5]), entry(3, psnr=20.0, splats=[0.002, 0.5]),
                  entry(3, psnr=20.1), entry(3, psnr=20.0, splats=[0.001, 0.5], more=1.0)):  # fmt: skip
        said = verdict("fit", figures, other)
        assert said is not None
        assert "its version is still 3" in said
        assert "raise the version of 'fit'" in said
        assert COMMAND in said
        assert not may_write("fit", other, figures), "figures of a version are not rewritten"
    assert "psnr: 20.0, was 20.1" in str(verdict("fit", figures, entry(3, psnr=20.1, splats=[0.001, 0.5])))
    assert "splats: [0.001, 0.5], was nothing" in str(verdict("fit", figures, entry(3, psnr=20.1)))


@pytest.mark.usefixtures("fit_of_version_three")
def test_figures_that_were_not_recorded_are_no_other_results() -> None:
    figures = {"method": {"psnr": 20.0, "splats": [0.001, 0.5]}, "scratch": {"psnr": 18.0}}
    said = str(verdict("fit", figures, entry(3, psnr=20.0)))
    assert "its results are the same" in said
    assert "scratch: psnr: 18.0, was nothing" in said
    assert COMMAND in said
    assert may_write("fit", entry(3, psnr=20.0), figures)
    assert not may_write("fit", entry(3, psnr=20.0, steps=4), figures), "a figure is gone"
    assert not may_write("fit", {**entry(3), "figures": figures}, figures), "nothing is new"


@pytest.mark.usefixtures("fit_of_version_three")
def test_a_raised_version_asks_for_new_figures_here_and_downstream() -> None:
    figures = {"method": {"psnr": 20.0}}
    said = verdict("fit", figures, entry(2, psnr=20.0))
    assert said is not None
    assert "fit 2 -> 3" in said
    assert COMMAND in said
    assert may_write("fit", entry(2, psnr=20.0), figures)
    assert "ingest 0 -> 1" in str(verdict("fit", figures, entry(3, 0, psnr=20.0)))
    assert may_write("fit", entry(3, 0, psnr=20.0), figures)
    assert "has no golden figures" in str(verdict("fit", figures, None))
    assert may_write("fit", None, figures)


def test_figures_are_written_one_entry_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    one, two = entry(1, psnr=rounded(21.123456), splats=rounded([1e-7 / 3, 2.0])), entry(2, steps=4)
    write("fit", one, file)
    write("codes", two, file)
    assert read(file) == {"codes": two, "fit": one}
    assert read(file)["fit"]["figures"]["method"] == {"psnr": 21.123, "splats": [3.3333e-8, 2.0]}
    write("codes", entry(3, steps=5), file)
    assert read(file)["fit"] == one
    assert json.loads(file.read_text())["codes"]["version"] == 3


def test_every_stage_has_figures() -> None:
    assert set(read()) == {*STAGES, "ingest with Blender", "ingest with the rasterizer"}
    assert read(Path("nowhere.json")) == {}
