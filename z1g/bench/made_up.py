"""Synthetic data and networks for benchmarks of stage 1, which need neither objects nor published weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from z1g.config.resolve import merge
from z1g.config.tree import Experiment
from z1g.data.scenes import Scene
from z1g.gaussians.channels import join
from z1g.geometry.camera import view_frame
from z1g.losses.lpips import LpipsLoss

if TYPE_CHECKING:
    from z1g.networks.perceptual import Frozen

OBJECTS = 4


@dataclass(frozen=True)
class Sizes:
    """Sizes: `views` renders of `image`² pixels, six splatter images of `splats`², inputs of `inputs`² pixels.

    perceptual: side of the images that LPIPS compares. channels, layers: of the autoencoder.
    """

    views: int = 20
    image: int = 512
    splats: int = 128
    inputs: int = 320
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    perceptual: int = 256


class UntrainedLpips(LpipsLoss):
    """LPIPS-VGG with random weights."""

    def network(self) -> Frozen:
        from z1g.networks.perceptual import untrained_lpips

        return untrained_lpips()


class MadeUpScenes:
    """Objects with random images and splats, at the poses of a configuration."""

    def __init__(self, config: Experiment, image: int) -> None:
        poses = config.camera.poses(0)
        self.c2w = torch.from_numpy(view_frame(poses, config.camera.radius) @ poses).float()
        self.config, self.image = config, image
        self.ids = [f"object{i}" for i in range(OBJECTS)]

    def views(self, name: str, views: Sequence[int]) -> Scene:
        """See `Scenes`."""
        return self[name].only(views)

    def seen(self, name: str, views: Sequence[int]) -> Scene:
        """See `SceneStore.seen`."""
        return replace(self.views(name, views), splats=None)

    def __getitem__(self, name: str) -> Scene:
        generator = torch.Generator().manual_seed(self.ids.index(name))
        size = self.config.splat.size
        noise = torch.randn(6, 14, size, size, generator=generator)
        splats = join(
            {
                "position": 0.3 * torch.nn.functional.normalize(noise[:, 0:3], dim=1),
                "opacity": torch.sigmoid(noise[:, 3:4]),
                "scale": 0.005 * torch.exp(0.3 * noise[:, 4:7]),
                "rotation": torch.nn.functional.normalize(noise[:, 7:11], dim=1),
                "rgb": torch.sigmoid(noise[:, 11:14]),
            },
            dim=1,
        )
        shape = (len(self.c2w), self.image, self.image, 4)
        rgba = torch.randint(256, shape, generator=generator, dtype=torch.uint8).numpy()
        return Scene(name, self.c2w, self.config.camera.fov_y_deg, rgba, None, splats)


def experiment(sizes: Sizes) -> Experiment:
    """Configuration of these sizes with the published architecture, random weights and the original's losses."""
    values = {
        "data": {"kind": "meshes", "paths": ["."]},
        "camera": {"train_views": sizes.views, "validation_views": 1, "test_views": 1},
        "splat": {"size": sizes.splats},
        "model": {
            "kind": "scratch",
            "autoencoder_size": {"channels": sizes.channels, "layers_per_block": sizes.layers},
        },
        "representation": {"input_size": sizes.inputs},
        "autodecoder": {"views": sizes.views},
    }
    groups = min(32, min(sizes.channels))
    values["model"]["autoencoder_size"]["norm_groups"] = groups  # type: ignore[index]
    config = Experiment.model_validate(merge(Experiment().model_dump(mode="json"), values))
    losses = {**config.autodecoder.losses, "perceptual": UntrainedLpips(resolution=sizes.perceptual)}
    return config.model_copy(update={"autodecoder": config.autodecoder.model_copy(update={"losses": losses})})
