"""What is fit to be listed, and what never is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.games import checker, sphere

from z1g.core.errors import UserError
from z1g.corpus.choice import require_fit, require_seen
from z1g.corpus.converter import halved
from z1g.corpus.excluded import NEVER_LISTED, require_allowed
from z1g.meshes.raster.scene import Material, MeshError, Part, Texture

RED, BLUE = Material((1, 0, 0, 1)), Material((0, 0, 1, 1))


def ball(material: Material, stretch: tuple[float, ...] = (1, 1, 1), rings: int = 12) -> Part:
    points, faces = sphere(rings)
    return Part(points * stretch, np.array(faces), None, points[:, :2], None, material)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([ball(Material(texture=Texture(checker())))], None),
        ([ball(RED), ball(BLUE, (1, 0.9, 1))], None),
        ([ball(RED, rings=8)], "128 triangles"),
        ([ball(RED, rings=180)], "64800 triangles"),
        ([ball(RED, (1, 0.02, 1)), ball(BLUE, (1, 0.02, 1))], "thin"),
        ([ball(RED, (1, 0.07, 0.07)), ball(BLUE, (1, 0.07, 0.07))], "thin"),
        ([ball(RED), ball(RED, (1, 0.9, 1))], "one plain color"),
        ([ball(RED, (1, 1, float("nan")))], "not finite"),
        ([ball(RED), ball(Material(texture=Texture(checker())), (0.5, 0.5, 0.5))], None),
        ([ball(RED), ball(Material((0.99, 0.0001, 0, 1)))], "one plain color"),
    ],
)
def test_meshes(parts: list[Part], reason: str | None) -> None:
    if reason is None:
        require_fit(parts)
        return
    with pytest.raises(MeshError, match=reason):
        require_fit(parts)


def seen(paint: Callable[[np.ndarray], None]) -> np.ndarray:
    image = np.zeros((64, 64, 4), np.uint8)
    image[..., :3] = checker(size=64)[..., :3]
    paint(image[..., 3])
    return image


def squares(number: int, side: int = 10) -> Callable[[np.ndarray], None]:
    def paint(alpha: np.ndarray) -> None:
        for i in range(number):
            row, column = divmod(i, 4)
            alpha[16 * row + 2 :, 16 * column + 2 :][:side, :side] = 255

    return paint


def test_silhouettes() -> None:
    require_seen(seen(squares(3)))
    for image, reason in (
        (seen(squares(1)), r"2\.4 % of the image"),
        (seen(squares(4)), "4 separate blobs"),
        (np.full((64, 64, 4), 255, np.uint8), r"vary by 0\.0"),
    ):
        with pytest.raises(MeshError, match=reason):
            require_seen(image)
    specks = seen(squares(2))
    specks[60, ::6, 3] = 255  # single pixels are not counted
    require_seen(specks)


def test_halving_weighs_colors_by_alpha() -> None:
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, 0], image[0, 1] = (200, 0, 0, 255), (0, 100, 0, 51)
    np.testing.assert_array_equal(halved(image), [[[round(200 * 255 / 306), round(100 * 51 / 306), 0, 76]]])


def test_what_is_kept_for_evaluation_is_refused() -> None:
    assert NEVER_LISTED == ("KatorLegaz", "Reallusion", "supertuxkart-data")
    require_allowed(["0ad/glb/x.glb", "BlendSwap-CC-0.sh3f!/a/b.obj"])
    for text in (
        "usr/share/KatorLegaz.sh3f!/x/y.obj",
        "furniture/reallusion-chair.glb",
        str(Path("supertuxkart-data/k.glb")),
    ):
        with pytest.raises(UserError, match="kept for evaluation and never listed"):
            require_allowed(["fine", text])
