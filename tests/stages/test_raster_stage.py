"""From mesh files to fitted splats with the rasterizer: nothing between the two stages is synthetic."""

from pathlib import Path

import numpy as np
import pytest
from support.builders import plan, stage_path
from support.raster import rasterizer

from z1g.core.files import read_jsonl
from z1g.data.shards import read_objects, shard_path, table_path
from z1g.plan.folder import StageFolder
from z1g.stages import fit, ingest


@pytest.mark.slow
def test_rendered_objects_are_fitted(tmp_path: Path) -> None:
    rasterizer(16)
    planned = plan(tmp_path, data={"renderer": {"kind": "raster", "resolution": 24}, "max_quarantined": 0.5})
    chunks = range(planned.ablations["micro"].manifest.n_chunks)
    for stage in (ingest, fit):
        folder = StageFolder.open(stage_path(planned, stage.__name__.rpartition(".")[2]))
        for chunk in chunks:
            stage.run(folder, chunk=chunk, threads=1)
    rendered, fitted = (stage_path(planned, name) for name in ("ingest", "fit"))
    rows = {row["id"]: row for chunk in chunks for row in read_jsonl(table_path(rendered, chunk))}
    reasons = {name[:7]: row["reason"] for name, row in rows.items()}
    assert "flat" in reasons.pop("object0")
    assert reasons == {"object1": None, "object2": None, "object3": None}
    for chunk in chunks:
        for item in read_objects(shard_path(rendered, chunk)):
            assert item.rgba.shape[1:] == (24, 24, 4)
            # Triangles without a material are Blender's gray of 0.8.
            assert np.abs(item.rgba[item.rgba[..., 3] == 255].astype(int) - [231, 231, 231, 255]).max() <= 1
        table = {row["id"]: row for row in read_jsonl(table_path(fitted, chunk))}
        assert {name for name, row in rows.items() if row["reason"] is None and name in table} == set(table)
        assert all(row["psnr"] > 20 for row in table.values())
