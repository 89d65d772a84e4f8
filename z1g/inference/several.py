"""Several photographs of one object: the sampled code is refined through the decoder until renders match all of them.

Codes are tied to the azimuth of the condition image, so conditions of other azimuths cannot share one sampling. The
search through the frozen decoder (DeepSDF, Park et al. 2019, section 4.2) can use any pose and any number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import Tensor

from z1g.core.errors import UserError
from z1g.core.progress import Meter
from z1g.data.conditions import CONDITION_BACKGROUND
from z1g.data.scenes import Scene
from z1g.gaussians.channels import to_gaussians
from z1g.geometry.camera import CONDITION_VIEW, CameraOptions, Cameras, orbit_c2w, view_frame
from z1g.inference.photographs import AS_FOUND, Background, Framing, Photograph, cropped, read
from z1g.render import Rasterizer
from z1g.sampling.sample import OnStep

SIDE = 128
"""Side of the compared images, pixels."""
STEPS = 20
RATE, ALIGN_RATE = 0.2, 0.01
"""Adam's learning rates of normalized codes, and of the images' shifts and log zooms; both fall linearly to zero."""
ALPHA = 0.5
"""Weight of the squared error of alpha; that of color has 1."""
PRIOR = 0.005
"""Weight of the mean squared distance between the normalized code and the sampled one."""
PATIENCE, GAIN = 10, 0.01
"""The search ends if this many steps lower the loss by less than this fraction."""
QUIET_S = 5.0
SIDES = {"front": 0.0, "left": 90.0, "back": 180.0, "right": 270.0}
"""Azimuths of the object's own sides if the first photograph shows its front, on the right of which its left is."""
EXAMPLE = "PHOTOGRAPH@AZIMUTH or PHOTOGRAPH@AZIMUTH,ELEVATION, or front, left, back or right as azimuth"


@dataclass(frozen=True)
class View:
    """A further photograph of the object, and from where it was taken.

    azimuth_deg: from the first photograph's, counterclockwise seen from above: 90 shows the side that is on the right
    of the first photograph, 180 the back; -360 to 360. elevation_deg: above the horizon, -90 to 90; None is the
    first photograph's. file: name in messages and records. Raises UserError if an angle is out of range.
    """

    photograph: Path | str | Image.Image | Photograph
    azimuth_deg: float
    elevation_deg: float | None = None
    file: str = ""

    def __post_init__(self) -> None:
        if not abs(self.azimuth_deg) <= 360:
            raise UserError(f"azimuth {self.azimuth_deg:g} of {self.name} must be from -360 to 360 degrees")
        check_elevation(self.elevation_deg, self.name)

    @property
    def name(self) -> str:
        """The photograph in messages."""
        return self.file or (str(self.photograph) if isinstance(self.photograph, Path | str) else "a photograph")

    def opened(self, background: Background) -> View:
        """The view of a file with its photograph in memory. Raises UserError if the file cannot be used."""
        return replace(self, photograph=read(Path(self.name), background), file=self.name)

    def record(self) -> dict[str, Any]:
        """Entries of a result's record, for a view from `opened`."""
        digest = self.photograph.digest if isinstance(self.photograph, Photograph) else None
        angles = {"azimuth": self.azimuth_deg, "elevation": self.elevation_deg}
        return {"photograph": self.file, "sha256": digest, **angles}

    @classmethod
    def parse(cls, text: str) -> View:
        """The view that `EXAMPLE` spells. Raises UserError."""
        path, _, angles = text.rpartition("@")
        side, *rest = angles.split(",")
        try:
            azimuth, *elevation = (float(angle) for angle in (SIDES.get(side, side), *rest))
        except ValueError:
            azimuth, elevation = math.nan, []
        if not path or len(elevation) > 1 or math.isnan(azimuth):
            raise UserError(f"{text} does not say from where it was taken: give {EXAMPLE}, in degrees")
        return cls(Path(path), azimuth, elevation[0] if elevation else None)


def in_turn(on_step: OnStep | None) -> tuple[OnStep | None, OnStep | None]:
    """What to call after each step of sampling, and of the search after it: `on_step`, with the steps of both."""
    if on_step is None:
        return None, None
    sampled = 0

    def of_sampling(done: int, steps: int) -> None:
        nonlocal sampled
        sampled = steps
        on_step(done, steps + STEPS)

    return of_sampling, lambda done, steps: on_step(sampled + done, sampled + steps)


def check_elevation(elevation_deg: float | None, name: str) -> None:
    """Raise UserError unless an elevation is None or from -90 to 90 degrees."""
    if elevation_deg is not None and not abs(elevation_deg) <= 90:
        raise UserError(f"elevation {elevation_deg:g} of {name} must be from -90 to 90 degrees")


@dataclass(frozen=True)
class Targets:
    """Images that renders of one object should match.

    rgb, alpha: premultiplied [V,3,H,W] and [V,1,H,W] in 0..1; an alpha of 1 everywhere is unknown, the color is then
    that on gray. azimuth_deg: [V], 0 is the condition's. elevation_deg: [V], above the horizon. aligned: whether each
    image shows what the model's camera sees; otherwise, shift and zoom of each are found along with the code. c2w:
    poses [V,4,4] in the view-1 frame, in place of the angles. Raises ValueError for other shapes, and for angles that
    are not finite.
    """

    rgb: Tensor
    alpha: Tensor
    azimuth_deg: Sequence[float]
    elevation_deg: Sequence[float]
    aligned: bool = True
    c2w: Tensor | None = None

    def __post_init__(self) -> None:
        n, size = len(self.azimuth_deg), self.rgb.shape[2:]
        if self.rgb.shape != (n, 3, *size) or self.alpha.shape != (n, 1, *size) or len(self.elevation_deg) != n:
            raise ValueError(
                "targets are images [V,3,H,W] and [V,1,H,W] with V azimuths and elevations, not "
                f"{list(self.rgb.shape)} and {list(self.alpha.shape)} with {n} and {len(self.elevation_deg)}"
            )
        if not np.isfinite([*self.azimuth_deg, *self.elevation_deg]).all():
            raise ValueError("azimuths and elevations of targets must be finite numbers")

    def cameras(self, camera: CameraOptions) -> Cameras:
        """The cameras [1,V] of renders of side `SIDE`, in the view-1 frame."""
        if self.c2w is not None:
            return Cameras(self.c2w.float()[None], camera.fov_y_deg, SIDE, SIDE)
        angles = zip(self.elevation_deg, self.azimuth_deg, strict=True)
        poses = np.stack([orbit_c2w(elevation, azimuth, camera.radius) for elevation, azimuth in angles])
        to_frame = view_frame(camera.poses(0), camera.radius)
        return Cameras(torch.from_numpy(to_frame @ poses).float()[None], camera.fov_y_deg, SIDE, SIDE)


def targets(
    first: Photograph, more: Sequence[tuple[Photograph, View]], elevation_deg: float | None, camera: CameraOptions,
    background: Background, framing: Framing = AS_FOUND,
) -> Targets:  # fmt: skip
    """Targets of photographs, each cropped as `condition` does. framing: of the first one's crop.

    elevation_deg: of the first photograph, None is the mean of the range of the camera's conditions. Raises UserError
    if it is out of range.
    """
    check_elevation(elevation_deg, "the first photograph")
    usual = sum(camera.condition_elevation_deg) / 2 if elevation_deg is None else elevation_deg
    images = [_target(first, camera, background, framing)]
    images += [_target(photograph, camera, background, AS_FOUND) for photograph, _ in more]
    return Targets(
        torch.cat([rgb for rgb, _ in images]),
        torch.cat([alpha for _, alpha in images]),
        [0.0, *(view.azimuth_deg for _, view in more)],
        [usual, *(usual if view.elevation_deg is None else view.elevation_deg for _, view in more)],
        aligned=False,
    )


def of_scene(scene: Scene) -> Targets:
    """The condition image of an object that was rendered, from its own camera."""
    rgb, alpha = scene.images([CONDITION_VIEW])
    return Targets(rgb, alpha, [0.0], [0.0], c2w=scene.c2w[[CONDITION_VIEW]])


def _target(
    photograph: Photograph, camera: CameraOptions, background: Background, framing: Framing
) -> tuple[Tensor, Tensor]:
    """Color and alpha of side `SIDE` of a photograph; its alpha is unknown if its background is kept."""
    rgb, alpha = cropped(photograph, camera, background, framing)
    if background == "keep" and photograph.rgba[..., 3].min() == 255:
        rgb, alpha = _on_gray(rgb, alpha), torch.ones_like(alpha)
    return _resized(rgb), _resized(alpha)


class ViewSearch:
    """Searches codes of one object whose renders match images, near a sampled code.

    decode: `Codec.decode` of a frozen codec. rasterizer, camera: of the trained method. deviation: of codes, see
    `Trained.statistics`.
    """

    def __init__(
        self, decode: Callable[[Tensor], Tensor], rasterizer: Rasterizer, camera: CameraOptions, deviation: Tensor
    ) -> None:
        self.decode, self.rasterizer, self.camera, self.deviation = decode, rasterizer, camera, deviation

    def __call__(
        self, code: Tensor, targets: Targets, steps: int = STEPS, on_step: OnStep | None = None
    ) -> Tensor:  # fmt: skip
        """The code [*code_shape], in the decoder's units, that Adam finds from `code`.

        on_step: called in each step with the numbers of steps done and of all; an exception in it ends the search.
        """
        device, n_views = code.device, len(targets.rgb)
        rgb, alpha = (_resized(x.to(device)) for x in (targets.rgb, targets.alpha))
        cameras = targets.cameras(self.camera).to(device)
        offset = torch.zeros_like(code, requires_grad=True)
        placement = torch.zeros(n_views, 3, device=device, requires_grad=not targets.aligned)
        groups = [{"params": [offset], "lr": RATE}]
        if not targets.aligned:
            groups.append({"params": [placement], "lr": ALIGN_RATE})
        optimizer = torch.optim.Adam(groups)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        losses: list[float] = []
        best = math.inf, code
        with Meter("search", steps, quiet_s=QUIET_S) as meter, torch.enable_grad():
            for _ in range(steps):
                candidate = code + offset * self.deviation
                loss = self._error(candidate, cameras, rgb, alpha, placement) + PRIOR * offset.square().mean()
                losses.append(loss.item())
                if losses[-1] < best[0]:
                    best = losses[-1], candidate.detach()
                settled = _settled(losses)
                if on_step is not None:
                    on_step(steps if settled else len(losses), steps)
                if settled:
                    break
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                meter.advance(loss=losses[-1])
        return best[1]

    def _error(self, code: Tensor, cameras: Cameras, rgb: Tensor, alpha: Tensor, placement: Tensor) -> Tensor:
        """Sum over the views of the mean squared errors of color on gray and of alpha, if it is known."""
        output = self.rasterizer.render(to_gaussians(self.decode(code[None])), cameras)
        seen = torch.cat([output.rgb[0], output.alpha[0]], dim=1)
        if placement.requires_grad:
            seen = _placed(seen, placement)
        color = (_on_gray(seen[:, :3], seen[:, 3:]) - _on_gray(rgb, alpha)).square().mean(dim=(1, 2, 3))
        known = alpha.amin(dim=(1, 2, 3)) < 1
        outline = (seen[:, 3:] - alpha).square().mean(dim=(1, 2, 3))
        return (color + ALPHA * known * outline).sum()


def _settled(losses: Sequence[float]) -> bool:
    """Whether the last `PATIENCE` losses are hardly lower than those before them."""
    before, after = losses[:-PATIENCE], losses[-PATIENCE:]
    return bool(before) and min(after) > (1 - GAIN) * min(before)


def _on_gray(rgb: Tensor, alpha: Tensor) -> Tensor:
    return rgb + (1 - alpha) * CONDITION_BACKGROUND


def _resized(images: Tensor) -> Tensor:
    """Images of side `SIDE`."""
    return functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)


def _placed(images: Tensor, placement: Tensor) -> Tensor:
    """Images [V,C,H,W], each shifted, in half sides, and zoomed around its center by its row (x, y, log zoom)."""
    scale, shift = torch.exp(-placement[:, 2]), placement[:, :2]
    linear = scale[:, None, None] * torch.eye(2, device=images.device)
    grid = functional.affine_grid(
        torch.cat([linear, -scale[:, None, None] * shift[:, :, None]], dim=2), list(images.shape), align_corners=False
    )
    return functional.grid_sample(images, grid, align_corners=False)
