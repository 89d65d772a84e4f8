"""Turned, mirrored and recolored samples equal renders of turned, mirrored and recolored objects."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import kstest
from torch import Tensor

from z1g.bench.made_up import MadeUpScenes, Sizes, experiment
from z1g.codes.book import EncodedBook
from z1g.config.sections import Augmentation
from z1g.core.errors import UserError
from z1g.gaussians.affine import transformed
from z1g.gaussians.channels import CHANNELS, to_gaussians
from z1g.geometry.camera import INPUT_VIEWS, CameraOptions, Cameras, view_frame
from z1g.objectives.augmentation import Augmenter, channels, symmetries
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.render.reference import Reference

SIDE, SPLATS = 24, 4
CPU = torch.device("cpu")


def poses(layout: str = "v1.1", radius: float = 1.5) -> np.ndarray:
    """Condition, inputs and three free views in the view-1 frame."""
    options = CameraOptions(
        layout=layout, radius=radius, train_views=1, validation_views=1, test_views=1,
        condition_elevation_deg=(10, 10),
    )  # fmt: skip
    c2w = options.poses(3)
    return view_frame(c2w, radius) @ c2w


def splats(batch: int) -> Tensor:
    """Asymmetric objects [batch,6,14,S,S] of few large Gaussians with distinct color channels."""
    draw = torch.Generator().manual_seed(11)
    images = torch.rand(batch, 6, 14, SPLATS, SPLATS, generator=draw)
    images[:, :, CHANNELS["position"]] = (images[:, :, CHANNELS["position"]] - 0.4) * 0.5
    images[:, :, CHANNELS["scale"]] = 0.02 + 0.1 * images[:, :, CHANNELS["scale"]]
    rotation = torch.randn(batch, 6, 4, SPLATS, SPLATS, generator=draw)
    images[:, :, CHANNELS["rotation"]] = torch.nn.functional.normalize(rotation, dim=2)
    return images


def drawn(gaussians: Tensor, c2w: Tensor) -> Tensor:
    """Straight RGBA float [B,V,H,W,4] in 0..1."""
    output = Reference().render(gaussians.double(), Cameras(c2w.double(), 49.1, SIDE, SIDE))
    color = output.rgb / output.alpha.clamp(min=1e-9)
    return torch.cat([color, output.alpha], dim=2).movedim(2, -1).float()


def batch(n: int) -> dict[str, Tensor]:
    c2w = torch.from_numpy(poses()).float().expand(n, -1, -1, -1)
    images = splats(1).expand(n, -1, -1, -1, -1)
    rgba = drawn(to_gaussians(images[:1]), c2w[:1]).expand(n, -1, -1, -1, -1)
    return {"rgba": rgba, "c2w": c2w, "splats": images, "key": torch.tensor([[0, 0, i] for i in range(n)])}


@pytest.mark.parametrize("layout", ["v1.1", "v1.2"])
def test_the_inputs_have_a_triangles_symmetries(layout: str) -> None:
    turns = symmetries(poses(layout)[list(INPUT_VIEWS)])
    assert len(turns) == 6
    assert np.allclose(turns[0].matrix, np.eye(3))
    assert turns[0].sources == (0, 1, 2, 3, 4, 5)
    assert sum(symmetry.mirrored for symmetry in turns) == 3
    for symmetry in turns:
        assert np.allclose(symmetry.matrix @ symmetry.matrix.T, np.eye(3), atol=1e-6)
        assert np.linalg.det(symmetry.matrix) == pytest.approx(-1 if symmetry.mirrored else 1)
        assert sorted(symmetry.sources) == [0, 1, 2, 3, 4, 5]


def test_channels_equal_the_map_of_gaussians() -> None:
    """The matrix on 14 channels against the general map, by renders, which do not depend on the order of axes."""
    gaussians = to_gaussians(splats(1)).double()
    c2w = torch.from_numpy(poses())[None]
    for symmetry in symmetries(poses()[list(INPUT_VIEWS)]):
        mapped = gaussians @ torch.from_numpy(channels(symmetry)).T
        expected = transformed(gaussians, torch.from_numpy(symmetry.matrix)[None])
        assert torch.allclose(drawn(mapped, c2w), drawn(expected, c2w), atol=1e-5)


def test_quaternions_are_turned_by_the_nearest_rotation() -> None:
    """Poses are float32, so a symmetry computed from them is a rotation up to rounding only."""
    rounded = poses().astype(np.float32).astype(np.float64)
    for symmetry in symmetries(rounded[list(INPUT_VIEWS)]):
        matrix = symmetry.matrix @ np.diag([-1.0, 1, 1]) if symmetry.mirrored else symmetry.matrix
        x, y, z, w = Rotation.from_matrix(matrix).as_quat(canonical=True)
        left = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
        expected = left @ np.diag([1.0, 1, -1, -1]) if symmetry.mirrored else left
        assert np.allclose(channels(symmetry)[7:11, 7:11], expected, atol=1e-14)


@pytest.mark.slow
def test_turned_samples_are_renders_of_turned_objects() -> None:
    """Every view of every sample, and the splats, against renders of the transformed object."""
    given = batch(40)
    actual = Augmenter(Augmentation(turned=0.8), given["c2w"][0], CPU)(given)
    gaussians, c2w = to_gaussians(given["splats"][:1]), given["c2w"][:1]
    options = symmetries(given["c2w"][0, list(INPUT_VIEWS)].double().numpy())
    turned_splats = [transformed(gaussians.double(), torch.from_numpy(option.matrix)[None]) for option in options]
    renders = [drawn(moved, c2w[:, 1:7]) for moved in turned_splats]
    seen = []
    for row in range(40):
        input_views = actual["rgba"][row : row + 1, 1:7]
        (which,) = (i for i, render in enumerate(renders) if torch.allclose(render, input_views, atol=2e-3))
        moved = turned_splats[which]
        seen.append(which)
        free = drawn(moved, actual["c2w"][row : row + 1, 7:])
        assert torch.allclose(free, actual["rgba"][row : row + 1, 7:], atol=2e-3)
        images = to_gaussians(actual["splats"][row : row + 1])
        assert torch.allclose(drawn(images, c2w), drawn(moved, c2w), atol=2e-3)
        # Each splat stays on the ray of its pixel, which turns with the camera.
        first = given["splats"][0, options[which].sources[0], :3]
        first = first.flip(-1) if options[which].mirrored else first
        turned = torch.einsum("ij,jhw->ihw", torch.from_numpy(options[which].matrix).float(), first)
        assert torch.allclose(actual["splats"][row, 0, :3], turned, atol=1e-5)
    assert set(seen) == set(range(6))
    assert seen.count(0) < 20


def test_recolored_samples_exchange_colors_everywhere() -> None:
    given = batch(60)
    actual = Augmenter(Augmentation(recolored=0.7), given["c2w"][0], CPU)(given)
    assert torch.equal(actual["c2w"], given["c2w"])
    orders = set()
    for row in range(60):
        order = [int((given["splats"][row, 0, 11:] == channel).flatten(1).all(1).nonzero()) for channel in
                 actual["splats"][row, 0, 11:]]  # fmt: skip
        orders.add(tuple(order))
        assert torch.equal(actual["splats"][row, :, 11:], given["splats"][row][:, [11 + i for i in order]])
        assert torch.allclose(actual["splats"][row, :, :11], given["splats"][row, :, :11], atol=1e-6)
        assert torch.equal(actual["rgba"][row], given["rgba"][row][..., [*order, 3]])
    assert len(orders) == 6


def test_samples_depend_on_their_keys_only() -> None:
    """Two halves of a batch equal the batch, as resuming and multiple ranks require."""
    given = batch(8)
    augmenter = Augmenter(Augmentation(turned=0.5, recolored=0.5), given["c2w"][0], CPU)
    whole = augmenter(given)
    halves = [augmenter({name: value[i : i + 4] for name, value in given.items()}) for i in (0, 4)]
    for name, value in whole.items():
        assert torch.equal(value, torch.cat([half[name] for half in halves])), name


def test_inputs_without_symmetry_say_so() -> None:
    crooked = torch.from_numpy(poses()).float()
    crooked[2, :3, 3] += 0.2
    with pytest.raises(UserError, match="turned"):
        Augmenter(Augmentation(turned=0.5), crooked, CPU)


# Noise on codes


def noised(level: float, codes: Tensor, training: bool = True) -> Tensor:
    """Codes [B,C,h,w] with noise up to `level`, as the decoder receives them."""
    config = experiment(Sizes(views=2, image=16, splats=8, inputs=16, channels=(8, 8), layers=1, perceptual=64))
    changed = config.autodecoder.model_copy(update={"code_noise": level})
    config = config.model_copy(update={"autodecoder": changed})
    codec, scenes = config.new_codec(), MadeUpScenes(config, 16)
    objective = AutodecoderObjective(config, codec, EncodedBook(sample=False), scenes, scenes.ids, None)
    batch = {"key": torch.tensor([[1, 2, i] for i in range(len(codes))])}
    return objective.train(training)._noised(batch, codes)


def test_codes_get_noise_of_their_own_scale() -> None:
    """Levels are uniform up to the bound, relative to each code's deviation. No noise is added outside training."""
    draw = torch.Generator().manual_seed(0)
    scales = torch.logspace(-2, 2, 200)[:, None, None, None]
    codes = (3 + torch.randn(200, 4, 24, 16, generator=draw)) * scales
    levels = (noised(0.4, codes) - codes).flatten(1).std(dim=1) / codes.flatten(1).std(dim=1)
    assert kstest(levels.numpy() / 0.4, "uniform").pvalue > 0.01
    assert torch.equal(noised(0.4, codes, training=False), codes)
    assert torch.equal(noised(0.0, codes), codes)
    torch.testing.assert_close(noised(0.4, codes)[:50], noised(0.4, codes[:50]), atol=0, rtol=0)


def test_noise_does_not_reward_larger_codes() -> None:
    """Its scale has no gradient: the derivative of the decoder's input by the code is one."""
    codes = torch.randn(2, 4, 24, 16, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    noised(1.0, codes).sum().backward()
    assert codes.grad is not None
    torch.testing.assert_close(codes.grad, torch.ones_like(codes), atol=0, rtol=0)
