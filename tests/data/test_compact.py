"""Compact shards and fits: what is read is what was written, or as near as half precision is."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from safetensors.torch import save_file
from support.builders import ball, ball_splats, plan, stage_path

from z1g.core.errors import UserError
from z1g.core.files import write_jsonl
from z1g.data.depth_file import decode_depth, encode_depth
from z1g.data.shards import EncodedObject, ShardReader, encode_png, shard_path, table_path, write_object
from z1g.data.splat_files import SplatFile, with_checksums
from z1g.data.stored_splats import BadSplats, pack, stored, unpack
from z1g.gaussians.channels import MIN_ALPHA, to_gaussians
from z1g.geometry.camera import CameraOptions
from z1g.plan.folder import StageFolder
from z1g.stages import fit

CAMERA = CameraOptions(train_views=2, validation_views=1, test_views=1)


@given(arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))))
def test_depth_is_the_same_bit_by_bit(depth: np.ndarray) -> None:
    assert decode_depth(encode_depth(depth)).tobytes() == depth.tobytes()


@given(st.integers(0, 200), st.integers(0, 255))
def test_damaged_depth_is_an_error(at: int, value: int) -> None:
    content = bytearray(encode_depth(np.arange(24, dtype=np.float32).reshape(2, 3, 4)))
    content[at % len(content)] = value
    try:
        depth = decode_depth(bytes(content))
    except ValueError:
        return
    assert depth.size <= 1 << 28


@pytest.mark.parametrize("bad", [b"", b"[2,3]\n", b"[1099511627776]\nx", b"[0]\n", b'{"a": 1}\n', b"[-1,-6]\nabc"])
def test_depth_of_other_bytes_is_refused(bad: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode_depth(bad)


@pytest.mark.parametrize("encoded", [False, True])
def test_compact_shards_hold_the_same_pixels_and_depth(tmp_path: Path, encoded: bool) -> None:
    item = ball("globe", CAMERA, 64)
    item.rgba[:, :8, :8, :3] = 77  # colors of transparent pixels
    item.rgba[:, :8, :8, 3] = 0
    images = tuple(encode_png(view) for view in item.rgba)
    given_item = EncodedObject(item.id, item.c2w, item.fov_y_deg, images, item.depth, item.info) if encoded else item
    sizes = {}
    for compact in (False, True):
        folder = tmp_path / str(compact)
        folder.mkdir()
        with tarfile.open(shard_path(folder, 0), "w") as tar:
            row = {"id": item.id, "status": "ok", **write_object(tar, given_item, compact).row()}
        write_jsonl(table_path(folder, 0), [row])
        found = ShardReader(shard_path(folder, 0)).read(item.id)
        np.testing.assert_array_equal(found.rgba, item.rgba)
        assert found.depth is not None
        assert item.depth is not None
        assert found.depth.tobytes() == item.depth.tobytes()
        some = ShardReader(shard_path(folder, 0)).read_views(item.id, [3, 1])
        np.testing.assert_array_equal(some.rgba, item.rgba[[3, 1]])
        sizes[compact] = shard_path(folder, 0).stat().st_size
    assert sizes[True] < sizes[False] / 2
    with tarfile.open(shard_path(tmp_path / "True", 0)) as tar:
        file = tar.extractfile("globe.000.webp")
        assert file is not None
        view = np.asarray(Image.open(io.BytesIO(file.read())).convert("RGBA"))
        np.testing.assert_array_equal(view, item.rgba[0])


@given(st.integers(1, 9), st.integers(0, 100))
def test_packed_splats_are_the_visible_ones_in_half_precision(size: int, seed: int) -> None:
    splats = torch.rand(6, 14, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    read = unpack(pack(splats))
    seen = splats[:, 3] >= MIN_ALPHA
    half = torch.from_numpy(splats.numpy().astype(np.float16).astype(np.float32))
    for channel in range(14):
        torch.testing.assert_close(read[:, channel][seen], half[:, channel][seen], atol=0, rtol=0)
    hidden = to_gaussians(read[None])[0][~seen.flatten()]
    assert bool((hidden[:, 3] < MIN_ALPHA).all())
    assert bool((hidden[:, 4:7] > 0).all())
    torch.testing.assert_close(hidden[:, 7:11].norm(dim=1), torch.ones(len(hidden)))
    torch.testing.assert_close(pack(read), pack(splats), atol=0, rtol=0)


@given(st.binary(max_size=60), st.integers(0, 40), st.integers(0, 255))
def test_other_bytes_are_no_splats(noise: bytes, at: int, value: int) -> None:
    packed = pack(torch.ones(6, 14, 2, 2)).numpy().copy()
    packed[at % len(packed)] = value
    for content in (np.frombuffer(noise, np.uint8).copy(), packed):
        try:
            splats = unpack(torch.from_numpy(content))
        except BadSplats:
            continue
        assert splats.shape[:2] == (6, 14)


@pytest.mark.parametrize(("form", "share"), [("float32", 1.0), ("float16", 0.5), ("visible", 0.5)])
def test_fits_of_all_forms_are_read_by_all_readers(tmp_path: Path, form: str, share: float) -> None:
    splats = {"a": ball_splats("a", 32), "b": ball_splats("b", 32)}
    written = {name: stored(value, form) for name, value in splats.items()}  # type: ignore[arg-type]
    file = tmp_path / "chunk-00000.safetensors"
    save_file(written, file)
    write_jsonl(file.with_suffix(".jsonl"), with_checksums([{"id": name} for name in splats], written))
    assert file.stat().st_size < share * sum(value.nbytes for value in splats.values()) * 1.02
    read = SplatFile(file).read("b")
    assert read.dtype == torch.float32
    seen = (splats["b"][:, 3:4] >= MIN_ALPHA).expand_as(read)
    torch.testing.assert_close(read[seen], splats["b"][seen], atol=1e-3 if form != "float32" else 0, rtol=0)


def test_packed_fits_that_are_damaged_name_their_object(tmp_path: Path) -> None:
    file = tmp_path / "chunk-00000.safetensors"
    save_file({"a": torch.tensor([1, 2, 3], dtype=torch.uint8)}, file)
    with pytest.raises(UserError, match="the splats of a cannot be unpacked"):
        SplatFile(file).read("a")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["float16", "visible"])
def test_the_fit_stage_stores_what_it_is_told_to(tmp_path: Path, form: str) -> None:
    from support.builders import fill

    found = {}
    for name in ("float32", form):
        planned = plan(tmp_path / name, n_objects=2, fit={"stored": name})
        fill(planned)
        folder = stage_path(planned, "fit")
        for file in folder.glob("chunk-*"):
            file.unlink()
        fit.run(StageFolder.open(folder), chunk=0, threads=1)
        found[name] = SplatFile(folder / "chunk-00000.safetensors")
    assert found[form].ids == found["float32"].ids != []
    for object_id in found[form].ids:
        exact, read = found["float32"].read(object_id), found[form].read(object_id)
        seen = (exact[:, 3:4] >= MIN_ALPHA).expand_as(read)
        assert seen.any()
        torch.testing.assert_close(read[seen], exact[seen], atol=1e-3, rtol=1e-3)
