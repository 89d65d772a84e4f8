"""Splats in the report: packing, attribute images, and the viewer against the CPU rasterizer."""

import base64
import io
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from support.browser import CHROMIUM, needs_chromium
from support.report_tree import build
from torch import Tensor

from z1g.gaussians.channels import CHANNELS, to_gaussians
from z1g.geometry.camera import CameraOptions, Cameras, orbit_c2w, view_frame
from z1g.render.cpu import Cpu
from z1g.render.web import pack, thin
from z1g.report.splats import attribute_maps
from z1g.stages import report

SPECS = {
    "base": {"seed": 1, "stage1": "s1", "gain": 0, "config": {"unet": {"lr": 1e-5}}},
    "fast": {"seed": 2, "stage1": "s1", "gain": 1, "config": {"unet": {"lr": 1e-4}}},
}
START = (0.3, 0.5)
"""Initial elevation and azimuth of the viewer, radians."""


def splats(seed: int, size: int = 12) -> Tensor:
    """Splatter images [6,14,S,S]: opaque colored ellipsoids with random rotations."""
    generator = torch.Generator().manual_seed(seed)
    splatter = torch.rand(6, 14, size, size, generator=generator)
    splatter[:, CHANNELS["position"]] = 0.7 * (splatter[:, CHANNELS["position"]] - 0.5)
    splatter[:, CHANNELS["opacity"]] = 0.4 + 0.6 * splatter[:, CHANNELS["opacity"]]
    splatter[:, CHANNELS["scale"]] = 0.01 + 0.05 * splatter[:, CHANNELS["scale"]]
    splatter[:, CHANNELS["rotation"]] -= 0.5
    splatter[:, CHANNELS["rotation"]] /= splatter[:, CHANNELS["rotation"]].norm(dim=1, keepdim=True)
    return splatter


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    build(root, SPECS, images=48)
    objects = ("chair", "horse")
    save_file({name: splats(i) for i, name in enumerate(objects)}, root / "fit/fi00/chunk-00000.safetensors")
    for number, ablation in enumerate(SPECS):
        folder = root / f"infer/in-{ablation}/chunk-00000"
        samples = {f"{name}/splats": splats(10 * number + i) for i, name in enumerate(objects)}
        save_file(samples, folder / "splats.safetensors")
    report.run(root, list(SPECS), root / "report.html")
    return root


def unpack(content: bytes) -> NDArray[np.float64]:
    """Gaussians [N,14] from the viewer's 16 bytes each, decoded as in its shader."""
    words = np.frombuffer(content, "<u4").reshape(-1, 4).astype(np.int64)
    x, y, z, w = words.T
    position = np.stack([x & 65535, x >> 16, y & 65535], axis=1) / 65535 * 2 - 1
    scale = np.exp(np.stack([(y >> 16) & 255, y >> 24, z & 255], axis=1) / 255 * 10 - 10)
    vector = np.stack([(z >> 8) & 255, (z >> 16) & 255, z >> 24], axis=1) / 127.5 - 1
    real = np.sqrt(np.maximum(0, 1 - (vector**2).sum(axis=1, keepdims=True)))
    rgba = np.stack([w & 255, (w >> 8) & 255, (w >> 16) & 255, w >> 24], axis=1) / 255
    return np.concatenate([position, rgba[:, 3:], scale, real, vector, rgba[:, :3]], axis=1)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_packed_splats_decode_within_quantization_error(seed: int) -> None:
    gaussians = to_gaussians(splats(seed, 4)[None])[0].double().numpy()
    back = unpack(pack(gaussians))
    for name, tolerance in (("position", 2e-5), ("opacity", 2e-3), ("rgb", 2e-3)):
        np.testing.assert_allclose(back[:, CHANNELS[name]], gaussians[:, CHANNELS[name]], atol=tolerance)
    np.testing.assert_allclose(back[:, CHANNELS["scale"]], gaussians[:, CHANNELS["scale"]], rtol=0.021)
    cosine = np.abs((back[:, CHANNELS["rotation"]] * gaussians[:, CHANNELS["rotation"]]).sum(axis=1))
    assert cosine.min() > 0.99


def test_thinned_splats_cover_the_same_area() -> None:
    gaussians = np.random.default_rng(0).random((1000, 14))
    thinned = thin(gaussians, 250)
    area = [(g[:, CHANNELS["scale"]] ** 2).sum() for g in (gaussians, thinned)]
    assert len(thinned) == 250
    assert area[1] == pytest.approx(area[0], rel=0.15)
    assert thin(gaussians, 1000) is gaussians


def test_attribute_images_match_their_caption() -> None:
    splatter = np.zeros((6, 14, 1, 1))
    splatter[:, 0], splatter[:, 3] = 0.7, 0.25
    splatter[:, 4:7] = np.exp(-6)
    splatter[:, 7], splatter[:, 10] = np.cos(np.pi / 4), -np.sin(np.pi / 4)  # −90 degrees around z
    splatter[:, 12] = 1
    maps = {name: image[0, 0, 0].tolist() for name, image in attribute_maps(splatter).items()}
    assert maps["position"] == pytest.approx([1, 0.5, 0.5])
    assert maps["opacity"] == pytest.approx([0.25] * 3)
    assert maps["scale"] == pytest.approx([0.5] * 3)
    assert maps["rotation"] == pytest.approx([0.5, 0.5, 0.25])
    assert maps["rgb"] == [0, 1, 0]
    np.testing.assert_allclose(
        attribute_maps(-splatter)["rotation"][0, 0, 0], maps["rotation"]
    )  # q and −q are the same rotation


def test_page_with_viewer_and_attributes_stays_small(tree: Path) -> None:
    text = (tree / "report.html").read_text()
    assert re.findall(r"<option value=\"splat-\d\">(.*?)</option>", text) == [
        f"{name}: {source}" for name in ("chair", "horse") for source in ("fitted", "base", "fast")
    ]
    assert text.count('class="attributes"') == 6
    assert "864 visible splats" in text
    assert len(text) < 1.5e6


def test_damaged_splats_are_noted(tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "results"
    shutil.copytree(tree, root)
    (root / "fit/fi00/chunk-00000.safetensors").write_bytes(b"no splats")
    report.run(root, list(SPECS), root / "report.html")
    text = (root / "report.html").read_text()
    assert "fit/fi00/chunk-00000.safetensors cannot be read" in text
    assert "chair: base" in text


def browse(page: Path, profile: Path, width: int = 1200) -> tuple[str, str]:
    """The page's DOM after its scripts have run, and the browser's log."""
    flags = [
        "--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--enable-logging=stderr", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--virtual-time-budget=4000", f"--window-size={width},900", f"--user-data-dir={profile}",
    ]  # fmt: skip
    command = [str(CHROMIUM), *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, done.stderr


PROBE = """<script>
addEventListener("load", () => {
  for (const image of document.images) image.loading = "eager";
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
  const canvas = document.querySelector("#viewer canvas");
  canvas.style.width = "200px";
  document.querySelector("#viewer").scrollIntoView();
  setTimeout(() => {
    const select = document.querySelector("#viewer select");
    select.value = "splat-0"; select.dispatchEvent(new Event("change"));
    const broken = [...document.images].filter((image) => !image.complete || !image.naturalWidth).length;
    const note = document.createElement("p");
    note.id = "probe";
    note.dataset.first = canvas.toDataURL();
    note.dataset.drawn = canvas.dataset.drawn;
    note.dataset.images = `${document.images.length} ${broken}`;
    note.dataset.wide = document.documentElement.scrollWidth - innerWidth;
    select.value = "splat-4"; select.dispatchEvent(new Event("change"));
    note.dataset.other = canvas.toDataURL();
    const condition = document.querySelector("#viewer img");
    const compared = [...document.images].find((image) => image.alt === "horse, condition" && image !== condition);
    note.dataset.condition = condition.src === compared.src && condition.getBoundingClientRect().width > 20;
    const tools = [...document.querySelectorAll("#viewer button")];
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" }));
    tools.find((tool) => tool.textContent === "Add keyframe").click();
    note.dataset.keyframes = document.querySelector("#viewer .tools").dataset.keyframes;
    note.dataset.remembered = JSON.parse(localStorage.getItem("z1g report")).azimuth;
    note.dataset.status = document.querySelector("#viewer .status").textContent;
    document.body.append(note);
  }, 1500);
});
</script></body>"""


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_draws_the_splats_as_the_rasterizer_does(tree: Path, tmp_path: Path, width: int) -> None:
    page = tmp_path / "probe.html"
    page.write_text((tree / "report.html").read_text().replace("</body>", PROBE))
    dom, log = browse(page, tmp_path / "web", width)
    assert "CONSOLE" not in log
    probe = dict(re.findall(r'data-(\w+)="([^"]*)"', dom[dom.index('id="probe"') :].split(">")[0]))
    count, broken = map(int, probe["images"].split())
    assert count > 30
    assert broken == 0
    assert int(probe["drawn"]) == 864
    assert int(probe["wide"]) <= 0  # only tables scroll horizontally
    assert "864 visible splats" in probe["status"]
    assert (probe["condition"], probe["keyframes"]) == ("true", "1")
    assert float(probe["remembered"]) == pytest.approx(START[1] - 0.12)
    for key, seed in (("first", 0), ("other", 1)):
        drawn = image(probe[key])
        expected = rendered(splats(seed), drawn.shape[0])
        error = np.square(drawn - expected).mean()
        assert -10 * np.log10(error) > 30, key
    assert np.abs(image(probe["first"]) - image(probe["other"])).mean() > 0.02


def image(uri: str) -> NDArray[np.float64]:
    content = base64.b64decode(uri.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) / 255


def rendered(images: Tensor, side: int) -> NDArray[np.float64]:
    """Image of the CPU rasterizer from the viewer's initial camera."""
    camera = CameraOptions()
    elevation, azimuth = np.degrees(START)
    c2w = view_frame(camera.poses(0), camera.radius) @ orbit_c2w(elevation, azimuth, camera.radius)
    cameras = Cameras(torch.from_numpy(c2w).float()[None, None], camera.fov_y_deg, side, side)
    composited = Cpu().render(to_gaussians(images[None]), cameras).over(1.0)
    result: NDArray[np.float64] = composited[0, 0].permute(1, 2, 0).clamp(0, 1).double().numpy()
    return result
