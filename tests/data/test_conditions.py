"""Condition images against Pillow and numpy."""

import numpy as np
import pytest
import torch
from PIL import Image
from support.builders import ball

from z1g.data.condition_form import ConditionForm
from z1g.data.conditions import condition_image
from z1g.data.scenes import Scene, as_scene
from z1g.geometry.camera import CameraOptions
from z1g.inference.photographs import Photograph, condition

CAMERA = CameraOptions(train_views=1, validation_views=1, test_views=1)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return as_scene(ball("globe", CAMERA, 40), CAMERA.radius)


def noisy(side: int) -> np.ndarray:
    """RGBA with every kind of transparency, whose transparent pixels have colors."""
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, size=(side, side, 4), dtype=np.uint8)
    rgba[: side // 4, :, 3] = 0
    rgba[side // 2 :, :, 3] = 255
    return rgba


def original(rgba: np.ndarray, size: int) -> np.ndarray:
    """As in the original: Pillow's default resize of RGBA, which is bicubic, on the integer gray 127, cut to bytes."""
    image = np.asarray(Image.fromarray(rgba).resize((size, size))).astype(np.int64)
    out = np.zeros((size, size, 3), dtype=np.int64)
    for y in range(size):
        for x in range(size):
            for c in range(3):
                out[y, x, c] = (image[y, x, c] * image[y, x, 3] + 127 * (255 - image[y, x, 3])) // 255
    return out


@pytest.mark.parametrize("size", [40, 24, 56])
def test_bicubic_conditions_are_the_originals_bytes(size: int) -> None:
    rgba = noisy(40)
    layers = torch.from_numpy(rgba).permute(2, 0, 1)[None].float() / 255
    actual = condition_image(layers[:, :3] * layers[:, 3:], layers[:, 3:], size, "bicubic")
    np.testing.assert_array_equal((actual.double() * 255).permute(1, 2, 0).numpy().round(3), original(rgba, size))


def test_scenes_and_photographs_are_resized_as_asked(scene: Scene) -> None:
    form = ConditionForm(24, "bicubic")
    expected = torch.from_numpy(original(scene.rgba[0], 24)).permute(2, 0, 1) / 255
    torch.testing.assert_close(scene.condition(*form), expected.float())
    assert (scene.condition(24) - expected).abs().max() > 2 / 255
    photograph = Photograph(noisy(40), "0" * 64)
    smooth, bytes_ = (condition(photograph, CAMERA, 24, resize=resize) for resize in ("bilinear", "bicubic"))
    assert (smooth - bytes_).abs().max() > 2 / 255
    torch.testing.assert_close(255 * bytes_, (255 * bytes_).round(), atol=1e-4, rtol=0)
