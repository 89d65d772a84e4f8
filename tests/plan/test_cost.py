"""The cost sheet compared with sums by hand and with the files of a real run."""

import math
from pathlib import Path

import pytest
import yaml

from z1g.cli import main as cli
from z1g.config.resolve import resolve
from z1g.config.tree import Experiment
from z1g.config.yaml_file import YamlFile
from z1g.core.errors import UserError
from z1g.core.stages import STAGE_NAMES
from z1g.plan import cost

KNOWN = {
    "ingest_core_s_an_object": 1.0, "ingest_core_s_a_sample": 1e-6, "ingest_core_s_a_depth_pixel": 1e-5,
    "ingest_core_s_a_raster_pixel": 1e-7,
    "image_bytes_a_pixel": 0.5, "fit_objects_a_gpu_s": 10.0, "fit_raster_share": 0.5, "fit_raster_ms_fixed": 1.0,
    "fit_raster_ms_a_pixel": 0.0, "autodecoder_samples_a_gpu_s": 40.0, "codes_objects_a_gpu_s": math.nan,
    "unet_samples_a_gpu_s": 20.0, "infer_object_steps_a_gpu_s": 30.0,
    "metrics_s_an_object": 0.5, "metrics_s_a_view_pixel": 1e-6,
    "vae_parameters": 10.0, "vae_decoder_parameters": 5.0, "unet_parameters": 100.0, "other_parameters": 50.0,
    "ply_bytes_a_splat": 68.0,
}  # fmt: skip


def experiment(**values: object) -> Experiment:
    return resolve([YamlFile(Path("made-up.yaml"), values)])


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, cost.Cost]:
    monkeypatch.setattr(cost, "measured", lambda: KNOWN)
    return {row.stage: row for row in cost.costs(experiment(data={"renderer": {"kind": "blender"}}), 1000)}


def test_hours_and_bytes_match_sums_by_hand(rows: dict[str, cost.Cost]) -> None:
    # 56 views of 512² with 32 samples: 469.8 s; depth of six views: 15.7 s; plus 1 s.
    assert rows["ingest"].cpu_hours == pytest.approx(1000 * (469.762 + 15.729 + 1) / 3600, rel=1e-5)
    assert rows["ingest"].disk == 1000 * 512**2 * (56 * 0.5 + 6 * 4)
    # 128² splats as measured, but 96 steps of 4 views instead of 100 of 8; pixels have no cost here.
    assert rows["fit"].gpu_hours == pytest.approx(1000 * 384 / 800 / 10 / 3600)
    assert rows["fit"].disk == 1000 * 6 * 14 * 128 * 128 * 4
    assert rows["autodecoder"].gpu_hours == pytest.approx(800_000 / 40 / 3600)
    assert rows["codes"].gpu_hours is None
    assert rows["infer"].gpu_hours == pytest.approx(58 * 75 / 30 / 3600)
    # Ten test views of 512², plus half a second.
    assert rows["metrics"].gpu_hours == pytest.approx(58 * (10 * 512**2 * 1e-6 + 0.5) / 3600)
    assert [rows[stage].jobs for stage in ("ingest", "fit", "infer")] == [16, 16, 4]


def test_the_rasterizer_costs_as_its_pixels_of_images_and_depth(rows: dict[str, cost.Cost]) -> None:
    row = next(iter(cost.costs(experiment(data={"renderer": {"kind": "raster", "resolution": 256}}), 1000)))
    # 56 views and the depth of six: 62 times 256² pixels at 1e-7, plus 1 s.
    assert row.cpu_hours == pytest.approx(1000 * (0.4063232 + 1) / 3600)
    assert row.disk == rows["ingest"].disk / 4


def test_halving_the_work_halves_the_hours(rows: dict[str, cost.Cost]) -> None:
    half = {
        row.stage: row for row in cost.costs(experiment(fit={"steps": 48}, unet={"train": {"steps": 50_000}}), 1000)
    }
    for stage in ("fit", "unet"):
        whole, other = rows[stage].gpu_hours, half[stage].gpu_hours
        assert whole is not None
        assert other == pytest.approx(whole / 2)


def test_every_figure_has_a_reference_and_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = yaml.safe_load(cost.MEASURED.read_text())
    assert set(entries) == set(KNOWN)
    assert all(entry["where"] and set(entry) == {"value", "where"} for entry in entries.values())
    read: set[str] = set()

    class Watched(dict[str, float]):
        def __getitem__(self, name: str) -> float:
            read.add(name)
            return super().__getitem__(name)

    monkeypatch.setattr(cost, "measured", lambda: Watched(KNOWN))
    for kind in ("blender", "raster"):
        list(cost.costs(experiment(data={"renderer": {"kind": kind}}), 10))
    assert read == set(KNOWN)


def test_missing_figures_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="scale=full"):
        list(cost.costs(experiment(model={"kind": "scratch"}), 10))
    assert cli.main(["plan", "--cost", "1000"]) == 0
    sheet = capsys.readouterr().out
    assert "1,000 objects" in sheet
    hours, memory = sheet.split("GPU memory of training")
    assert hours.count("\n| ") == len(STAGE_NAMES) + 2, "a head, each stage, their sum"
    assert memory.count("\n| ") == 3
