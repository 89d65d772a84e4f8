"""Colors and alpha of hand-made scenes against sums in float64."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.raster import UV, camera, decoded, drawn, encoded, pixel, png, rasterizer, square

from z1g.meshes.raster.draw import Rasterizer
from z1g.meshes.raster.images import load_image
from z1g.meshes.raster.scene import Material, MeshError, Part, Texture

N = 64


@pytest.fixture(scope="module")
def gl() -> Rasterizer:
    return rasterizer(N)


def halves(left: tuple[int, ...], right: tuple[int, ...]) -> np.ndarray:
    """A texture of two colors side by side."""
    image = np.empty((64, 64, 4), np.uint8)
    image[:, :32], image[:, 32:] = left, right
    return image


def at(image: np.ndarray, x: float, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    return image[pixel(len(image), x, y, z)].astype(float)


def test_a_texture_behind_glass_is_mixed_in_linear_light(gl: Rasterizer) -> None:
    left, right = (200, 40, 10, 255), (10, 90, 250, 255)
    behind = square(-0.2, 0.2, material=Material(texture=Texture(halves(left, right))))
    glass = square(0.1, material=Material((0.2, 0.6, 0.9, 0.3), alpha_mode="blend"))
    image = drawn(gl, [glass, behind])
    for x, color in ((-0.1, left), (0.1, right)):
        mixed = 0.3 * np.array([0.2, 0.6, 0.9]) + 0.7 * decoded(color[:3])
        np.testing.assert_allclose(at(image, x), [*encoded(mixed), 255], atol=1.5)
    # Beside the back, only the glass is left: straight alpha.
    np.testing.assert_allclose(at(image, 0.25, 0.25, 0.1), [*encoded([0.2, 0.6, 0.9]), 0.3 * 255], atol=1.5)


COLOR = st.tuples(*[st.floats(0.05, 1.0)] * 4)


@settings(max_examples=15)
@given(st.lists(COLOR, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_layers_are_the_same_in_any_order(gl: Rasterizer, colors: list[tuple[float, ...]], random) -> None:
    parts = [square(0.4 - 0.15 * i, 0.2, Material(color, alpha_mode="blend")) for i, color in enumerate(colors)]
    image = drawn(gl, parts)
    premultiplied, alpha = np.zeros(3), 0.0
    for *color, opacity in colors:  # from the front to the back
        premultiplied = premultiplied + (1 - alpha) * opacity * np.array(color)
        alpha = alpha + (1 - alpha) * opacity
    np.testing.assert_allclose(at(image, 0.0), [*encoded(premultiplied / alpha), 255 * alpha], atol=2)
    shuffled = list(parts)
    random.shuffle(shuffled)
    np.testing.assert_array_equal(drawn(gl, shuffled), image)


def test_a_layer_of_glass_is_drawn_once_wherever_it_is(gl: Rasterizer) -> None:
    """A tilted pane, whose depths take all values: rounded depths must not add it a second time."""
    for tilt in (0.3, 0.31, 0.5):
        pane = Part(
            np.array([[-0.3, 0.3, -tilt], [0.3, 0.3, -tilt + 0.03], [0.3, -0.3, tilt], [-0.3, -0.3, tilt - 0.02]]),
            np.array([[0, 2, 1], [0, 3, 2]]), material=Material((1, 1, 1, 0.25), alpha_mode="blend"),
        )  # fmt: skip
        alpha = drawn(gl, [pane])[..., 3]
        assert 63 <= alpha.max() <= 65, tilt


def test_a_leaf_is_cut_by_its_mask_and_seen_from_behind(gl: Rasterizer) -> None:
    leaf = Material(texture=Texture(halves((20, 150, 30, 200), (20, 150, 30, 100))), alpha_mode="mask", cutoff=0.5)
    front, behind = (drawn(gl, [square(0.0, material=leaf)], azimuth) for azimuth in (0, 180))
    np.testing.assert_allclose(at(front, -0.15), [20, 150, 30, 255], atol=1)
    assert at(front, 0.15)[3] == 0
    np.testing.assert_allclose(at(behind, 0.15), [20, 150, 30, 255], atol=1)
    assert at(behind, -0.15)[3] == 0


def test_mirrored_coordinates_mirror_the_image(gl: Rasterizer) -> None:
    texture = Texture(np.random.default_rng(0).integers(0, 256, (8, 8, 4), np.uint8) | np.uint8([0, 0, 0, 255]))
    plain, mirrored = (
        drawn(gl, [square(0.0, material=Material(texture=texture), uv=uv)]) for uv in (UV, UV[[1, 0, 3, 2]])
    )
    np.testing.assert_allclose(mirrored.astype(float), plain[:, ::-1], atol=2)
    assert np.abs(plain.astype(float) - mirrored).mean() > 2


@pytest.mark.parametrize(("wrap", "shown"), [("repeat", "ABABAB"), ("mirror", "BAABBA"), ("clamp", "AAABBB")])
def test_textures_continue_outside_as_they_say(gl: Rasterizer, wrap: str, shown: str) -> None:
    colors = {"A": (250, 30, 0, 255), "B": (0, 40, 220, 255)}
    for axis in (0, 1):
        texture = halves(colors["A"], colors["B"])
        texture = texture if axis == 0 else np.ascontiguousarray(texture.transpose(1, 0, 2))
        uv = UV.copy()
        uv[:, axis] = 3 * uv[:, axis] - 1  # -1 to 2: six halves
        wraps = (wrap, "clamp") if axis == 0 else ("clamp", wrap)
        image = drawn(gl, [square(0.0, material=Material(texture=Texture(texture, wraps)), uv=uv)])
        for i, name in enumerate(shown):
            offset = -0.25 + 0.1 * i
            place = (offset, 0.0) if axis == 0 else (0.0, -offset)
            np.testing.assert_allclose(at(image, *place), colors[name], atol=3, err_msg=f"{wrap} {axis} {i}")


def test_vertex_colors_multiply_and_opaque_surfaces_ignore_alpha(gl: Rasterizer) -> None:
    part = square(0.0, material=Material((0.5, 1.0, 0.8, 0.2), Texture(np.full((1, 1, 4), 128, np.uint8))))
    tinted = Part(part.positions, part.triangles, None, part.uv, np.tile([0.4, 0.5, 0.6, 0.7], (4, 1)), part.material)
    expected = encoded(decoded(128) * np.array([0.5, 1.0, 0.8]) * np.array([0.4, 0.5, 0.6]))
    np.testing.assert_allclose(at(drawn(gl, [tinted]), 0.0), [*expected, 255], atol=1.5)


def test_only_the_covered_rectangle_is_drawn_and_that_changes_nothing(gl: Rasterizer) -> None:
    small = square(0.1, 0.07, Material((0.3, 0.5, 0.1, 0.6), alpha_mode="blend"))
    small = Part(small.positions + np.array([0.15, -0.2, 0.0]), small.triangles, material=small.material)
    everywhere = Part(np.array([[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]), np.array([[0, 1, 2]]))
    cropped = drawn(gl, [small])
    assert 0 < (cropped[..., 3] > 0).mean() < 0.1
    np.testing.assert_array_equal(cropped, drawn(gl, [small, everywhere]))


def test_edges_are_antialiased_without_dark_seams(gl: Rasterizer) -> None:
    image = drawn(gl, [square(0.0, 0.23, Material((0.5, 0.5, 0.5, 1.0)))])
    edge = (image[..., 3] > 8) & (image[..., 3] < 247)
    assert edge.any()
    np.testing.assert_allclose(image[edge][:, :3], encoded(0.5), atol=4)
    # The covered area, to a sample of a third of a pixel along each side.
    side = 2 * 0.23 * N / (2 * np.tan(np.radians(49.1) / 2)) / 2
    assert image[..., 3].sum() / 255 == pytest.approx(side**2, abs=side / 3)


def test_rasterizers_side_by_side_draw_the_same(gl: Rasterizer) -> None:
    generator = np.random.default_rng(3)
    parts = [
        Part(generator.uniform(-0.3, 0.3, (30, 3)), np.arange(30).reshape(-1, 3), material=Material(
            tuple(generator.uniform(0.2, 1, 4)), alpha_mode=mode))
        for mode in ("blend", "opaque", "blend")
    ]  # fmt: skip
    before = drawn(gl, parts)
    other, smaller = rasterizer(N), rasterizer(N // 2)
    assert drawn(smaller, parts).shape == (N // 2, N // 2, 4)
    assert before.any()
    np.testing.assert_array_equal(drawn(gl, parts), before)
    for azimuth in (0, 70):
        np.testing.assert_array_equal(drawn(gl, parts, azimuth), drawn(other, parts, azimuth))
    with gl.load(parts) as drawing:
        first = drawing.image(camera(), 49.1)
        drawing.geometry(camera(30), 49.1)
        np.testing.assert_array_equal(drawing.image(camera(), 49.1), first)


def test_images_of_16_bits_and_palettes() -> None:
    gray = Image.fromarray(np.array([[0, 30_000], [65_535, 257]], np.uint16))
    expected = np.array([[0, 117], [255, 1]])
    np.testing.assert_array_equal(load_image(png(gray), "gray")[..., 0], expected)
    assert (load_image(png(gray), "gray")[..., 3] == 255).all()
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 200, 100, 50])
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=bytes([255, 64]))
    np.testing.assert_array_equal(load_image(buffer.getvalue(), "p"), [[[10, 20, 30, 255], [200, 100, 50, 64]]])


def test_images_are_limited_and_large_ones_reduced(tmp_path) -> None:
    with pytest.raises(MeshError, match="texture wide has 30000x1 pixels, above the limit of 16384"):
        load_image(png(np.zeros((1, 30_000), np.uint8)), "wide")
    with pytest.raises(MeshError, match=r"texture missing or unreadable: no\.png$"):
        load_image(tmp_path / "no.png", "no.png")
    with pytest.raises(MeshError, match="texture missing or unreadable: cut"):
        load_image(png(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))[:200], "cut")
    flipped = bytearray(png(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)))
    flipped[len(flipped) // 2] ^= 1
    with pytest.raises(MeshError, match=r"texture missing or unreadable: flipped .*checksum"):
        load_image(bytes(flipped), "flipped")
    assert load_image(png(np.full((2, 8192), 77, np.uint8)), "large").shape == (1, 4096, 4)
