"""The original's fits instead of fitting: layouts, values, rotations, and incomplete files."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from support.builders import ball, ball_splats
from torch import Tensor

from z1g.config.resolve import Ablation
from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.core.files import read_jsonl
from z1g.data.shards import BrokenObject
from z1g.gaussians.channels import CHANNELS, to_gaussians
from z1g.geometry.camera import CameraOptions, Cameras
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.render.reference import Reference
from z1g.sources._original_splats import drawn_rotation, read_splats
from z1g.stages import fit, ingest

SIZE = 6
CAMERA = CameraOptions(train_views=6, validation_views=2, test_views=2)
NAMES = ["x", "y", "z", "nx", "ny", "nz", *(f"f_dc_{i}" for i in range(3)), "opacity"]
NAMES += [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
LAYOUTS = ("{}/eval_pred_gs_2000_es", "run/{}/eval_pred_gs_40_es", "eval_pred_gs_2000_es/{}", "{}")


def write_ply(path: Path, image: Tensor) -> None:
    """Write an activated splatter image [14,S,S] by the formulas of the original's files."""
    rows = []
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            g = image[:, row, column].double().numpy()
            logit = np.log(g[3] / (1 - g[3]))
            rows.append([*g[:3], 0, 0, 0, *((g[11:14] - 0.5) / 0.28209479), logit, *np.log(g[4:7] + 1e-8), *g[7:11]])
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in NAMES] + ["end_header\n"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(header).encode() + np.array(rows, "<f4").tobytes())


def write_scene(folder: Path, splats: Tensor) -> None:
    for i, image in enumerate(splats):
        write_ply(folder / f"splatter_{i}.ply", image)
    (folder / "fused.ply").write_bytes(b"not read")


def made_up(seed: int = 0) -> Tensor:
    splats = ball_splats(f"scene {seed}", SIZE)
    splats[:, CHANNELS["opacity"]] = splats[:, CHANNELS["opacity"]].clamp(0.01, 0.99)
    return splats


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splats_are_read_exactly_from_every_layout(tmp_path: Path, layout: str) -> None:
    splats = made_up()
    write_scene(tmp_path / layout.format("a [chair]*"), splats)
    write_scene(tmp_path / layout.format("a chair"), made_up(1))
    actual = read_splats(tmp_path, "a [chair]*", SIZE, "as_written")
    torch.testing.assert_close(actual, splats, atol=2e-6, rtol=2e-6)


def test_the_latest_of_several_evaluations_counts(tmp_path: Path) -> None:
    for steps, seed in ((900, 1), (2000, 2), (1000, 3)):
        write_scene(tmp_path / f"chair/eval_pred_gs_{steps}_es", made_up(seed))
    torch.testing.assert_close(read_splats(tmp_path, "chair", SIZE, "as_written"), made_up(2), atol=2e-6, rtol=2e-6)


def matrices(quaternions: Tensor) -> Tensor:
    """Matrices [N,3,3] that a rasterizer computes from quaternions [N,4] without normalization."""
    w, x, y, z = quaternions.unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


@given(st.integers(0, 10_000), st.floats(1e-4, 1.6))
def test_drawn_rotations_are_the_nearest_to_the_rendered_ones(seed: int, norm: float) -> None:
    """Compared with the polar decomposition, except where a reflection would be nearest."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(20, 4, generator=generator, dtype=torch.float64), dim=1)
    quaternions = norm * direction
    drawn = matrices(quaternions)
    u, singular, vt = torch.linalg.svd(drawn)
    clear = (singular[:, -1] > 1e-3) & (torch.linalg.det(drawn) > 0)
    actual = drawn_rotation(quaternions, dim=1)
    torch.testing.assert_close(actual.norm(dim=1), torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(matrices(actual)[clear], (u @ vt)[clear], atol=1e-8, rtol=0)
    same = drawn_rotation(direction, dim=1)
    torch.testing.assert_close(matrices(same), matrices(direction), atol=1e-12, rtol=0)
    nothing = drawn_rotation(torch.zeros(1, 4, dtype=torch.float64), dim=1)
    torch.testing.assert_close(nothing, torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64))


def test_renders_match_the_originals(tmp_path: Path) -> None:
    """Renders without normalization, as in the original, match z1g's conventions with `as_drawn` rotations."""
    splats = made_up().double()
    splats[:, CHANNELS["scale"]] *= torch.tensor([4.0, 1.0, 0.2]).view(3, 1, 1)
    rotation = splats[:, CHANNELS["rotation"]]
    splats[:, CHANNELS["rotation"]] = rotation / rotation.norm()  # the original's norm is over all Gaussians
    write_scene(tmp_path / "s", splats)
    view = Cameras(torch.from_numpy(CameraOptions().poses(3)[1:3])[None], 49.1, 24, 24)

    def draw(rotations: str, normalize: bool) -> Tensor:
        gaussians = to_gaussians(read_splats(tmp_path, "s", SIZE, rotations)[None].double())
        return Reference(normalize_rotation=normalize).render(gaussians, view).rgb

    original = draw("as_written", normalize=False)
    close = (draw("as_drawn", normalize=True) - original).abs().max()
    far = (draw("as_written", normalize=True) - original).abs().max()
    # With 216 Gaussians, quaternions have length 0.07 and scale the rotated plane by 0.99; with 98,304, by 0.9999.
    assert close < 0.02 < 0.2 < far


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "splatter_3.ply").unlink(), r"splatter_3\.ply"),
        (lambda folder: (folder / "splatter_0.ply").unlink(), r"no splatter_0\.ply for s in"),
        (lambda folder: (folder / "splatter_2.ply").write_bytes(b"ply"), "its header does not end"),
        (lambda folder: cut(folder / "splatter_5.ply"), "is truncated"),
        (
            lambda folder: write_ply(folder / "splatter_1.ply", made_up()[0, :, :4, :4]),
            r"16 Gaussians, 4 per side; splat",
        ),
        (lambda folder: write_ply(folder / "splatter_1.ply", made_up()[0] * float("nan")), "not finite"),
    ],
)
def test_errors_of_incomplete_files(tmp_path: Path, damage: Any, message: str) -> None:
    write_scene(tmp_path / "s", made_up())
    damage(tmp_path / "s")
    with pytest.raises(BrokenObject, match=message):
        read_splats(tmp_path, "s", SIZE, "as_drawn")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def experiment(root: Path, **data: Any) -> Experiment:
    return Experiment.model_validate(
        {
            "data": {"kind": "original", "renders": str(root / "renders"), "splats": str(root / "splats"), **data},
            "camera": {"train_views": 6, "validation_views": 2, "test_views": 2},
            "splat": {"size": SIZE},
            "render": {"kind": "cpu"},
        }
    )


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("one", "two", "three"):
        folder = tmp_path / "renders" / name
        folder.mkdir(parents=True)
        for view, rgba in enumerate(ball(name, CAMERA, 16).rgba):
            Image.fromarray(rgba, "RGBA").save(folder / f"{view:03d}.png")
            angles = {"elevation": 10.0 * (view % 4), "azimuth": 47.0 * view, "radius": 1.5}
            np.save(folder / f"{view:03d}.npy", angles)  # type: ignore[arg-type]
    write_scene(tmp_path / "splats/one/eval_pred_gs_2000_es", made_up(1))
    write_scene(tmp_path / "splats/three/eval_pred_gs_2000_es", made_up(3))
    cut(tmp_path / "splats/three/eval_pred_gs_2000_es/splatter_4.ply")
    return tmp_path


@pytest.mark.slow
def test_the_fit_stage_uses_given_splats_unchanged(folders: Path) -> None:
    planned = Plan([Ablation("original", "", "full", {}, experiment(folders))], folders / "results")
    planned.write()
    stages = planned.ablations["original"].stages
    for stage, run in (("ingest", ingest.run), ("fit", fit.run)):
        run(StageFolder.open(planned.folder(*stages[stage].key)), chunk=0, threads=1)
    folder = planned.folder(*stages["fit"].key)
    written = load_file(folder / "chunk-00000.safetensors")
    assert list(written) == ["one"]
    torch.testing.assert_close(written["one"], read_splats(folders / "splats", "one", SIZE, "as_drawn"))
    rows = {row["id"]: row for row in read_jsonl(folder / "chunk-00000.jsonl")}
    assert list(rows) == ["one", "three", "two"]
    assert (rows["one"]["status"], rows["one"]["steps"]) == ("ok", 0)
    assert 0 < rows["one"]["psnr"] < 40
    assert "truncated" in rows["three"]["reason"]
    assert "no splatter_0.ply for two" in rows["two"]["reason"]
    assert Image.open(folder / "chunk-00000.png").size == (6 * 16, 16)


def test_the_folder_is_part_of_the_identity_of_the_fit_only(folders: Path) -> None:
    def ids(**data: Any) -> dict[str, str]:
        stages = Plan([Ablation("a", "", "full", {}, experiment(folders, **data))], Path("r")).ablations["a"].stages
        return {name: stage.id for name, stage in stages.items()}

    with tempfile.TemporaryDirectory() as other:
        for changed in (ids(splats=None), ids(splats=other), ids(rotations="as_written")):
            assert changed["ingest"] == ids()["ingest"]
            assert changed["fit"] != ids()["fit"]
    assert ids(splats=None) == ids(splats=None, rotations="as_written")
    with pytest.raises(UserError, match=r"data\.splats: .*nowhere is not a folder"):
        ids(splats=str(folders / "nowhere"))
