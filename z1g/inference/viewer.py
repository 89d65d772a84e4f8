"""Viewer of Gaussians in the browser: orbit camera, side by side, scaling, coloring by attribute."""

from __future__ import annotations

import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from z1g.core.errors import UserError
from z1g.gaussians import files as splat_files
from z1g.gaussians.channels import CHANNELS, MIN_ALPHA
from z1g.gaussians.rotations import rotation_matrices
from z1g.surface.views import Frame

if TYPE_CHECKING:
    import viser

SIZE = 10.0
"""Diameter of displayed objects: viser stores covariances in half precision, which is too coarse for small objects."""
GAP = 11.0
VIEWS = 6
_HEX = ("e64d40", "f2a626", "8cbf33", "26a699", "4073d9", "a659bf")
VIEW_COLORS = np.array([list(bytes.fromhex(color)) for color in _HEX]) / 255
COLORINGS = ("rgb", "opacity", "scale", "normal", "source view")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class VisibleGaussians:
    """The visible Gaussians of one file in the viewer's format; `views` [N] are indices of input views, if known."""

    name: str
    centers: Floats
    scales: Floats
    axes: Floats
    """Rotation matrices [N,3,3]; columns are the Gaussians' axes."""
    opacities: Floats
    rgb: Floats
    views: NDArray[np.int64] | None

    @classmethod
    def load(cls, path: Path) -> VisibleGaussians:
        """Read a file and scale it to a common size. Raises UserError."""
        gaussians = splat_files.read(path)
        side = math.isqrt(len(gaussians) // VIEWS)
        # Files of `infer` contain six square images, row by row; in pruned files the views are unknown.
        complete = len(gaussians) == VIEWS * side * side
        views = np.repeat(np.arange(VIEWS), side * side) if complete else None
        visible = (gaussians[:, CHANNELS["opacity"].start] >= MIN_ALPHA).numpy()
        frame = Frame.around(gaussians)
        parts = {name: frame.enter(gaussians)[:, c].double().numpy()[visible] for name, c in CHANNELS.items()}
        quaternions = torch.from_numpy(parts["rotation"].T.copy())[None]
        axes = rotation_matrices(quaternions, normalize=False)[0].permute(2, 0, 1).numpy()
        return cls(
            path.name, SIZE * parts["position"], SIZE * parts["scale"], axes,
            parts["opacity"], parts["rgb"].clip(0, 1), None if views is None else views[visible],
        )  # fmt: skip

    def covariances(self, factor: float) -> Floats:
        """Covariances [N,3,3] with all scales multiplied by `factor`."""
        half = self.axes * (factor * self.scales)[:, None, :]
        covariance: Floats = half @ half.transpose(0, 2, 1)
        return covariance

    def colors(self, by: str) -> Floats:
        """Colors [N,3] in 0..1 by one of COLORINGS. `normal` is the thinnest axis, turned outwards."""
        if by == "opacity":
            return ramp(self.opacities[:, 0])
        if by == "scale":
            size = np.log(self.scales.max(axis=1))
            low, high = np.quantile(size, [0.02, 0.98])
            return ramp((size - low) / max(high - low, 1e-9))
        if by == "normal":
            normal = np.take_along_axis(self.axes, self.scales.argmin(axis=1)[:, None, None], axis=2)[..., 0]
            outward = np.sign((normal * self.centers).sum(axis=1, keepdims=True))
            return 0.5 + 0.5 * normal * np.where(outward == 0, 1, outward)
        if by == "source view":
            return np.full_like(self.rgb, 0.6) if self.views is None else VIEW_COLORS[self.views]
        return self.rgb


class Viewer:
    """A viser server with controls, on the first free port from `port`. Raises UserError if viser is missing."""

    def __init__(self, paths: Sequence[Path], host: str, port: int) -> None:
        self.models = [VisibleGaussians.load(path) for path in paths]
        self.server = _server(host, port)
        self.factor, self.by = 1.0, COLORINGS[0]
        scene, width = self.server.scene, GAP * (len(self.models) - 1)
        scene.set_up_direction("+y")
        self.server.initial_camera.position = (0.0, 0.2 * (SIZE + width), 0.7 * (SIZE + width))
        self.server.initial_camera.look_at = (0.0, 0.0, 0.0)
        self.positions = [(GAP * i - width / 2, 0.0, 0.0) for i in range(len(self.models))]
        for i, (model, (x, y, z)) in enumerate(zip(self.models, self.positions, strict=True)):
            scene.add_label(f"/name{i}", model.name, position=(x, y - 0.55 * SIZE, z), anchor="top-center")
        self._controls()
        self.draw()

    def _controls(self) -> None:
        gui = self.server.gui
        coloring = gui.add_dropdown("color by", COLORINGS, initial_value=self.by)
        factor = gui.add_slider("splat scale", min=0.05, max=2.0, step=0.05, initial_value=self.factor)
        side_by_side = gui.add_checkbox("side by side", initial_value=True)
        ticks = [gui.add_checkbox(model.name, initial_value=True) for model in self.models]

        def update(_: Any) -> None:
            self.by, self.factor = coloring.value, factor.value
            self.draw(apart=side_by_side.value, visible=[tick.value for tick in ticks])

        for control in (coloring, factor, side_by_side, *ticks):
            control.on_update(update)

    def draw(self, apart: bool = True, visible: Sequence[bool] | None = None) -> None:
        """Show all models according to the controls."""
        for i, model in enumerate(self.models):
            self.server.scene.add_gaussian_splats(
                f"/splats{i}",
                centers=model.centers.astype(np.float32),
                covariances=model.covariances(self.factor).astype(np.float32),
                rgbs=model.colors(self.by).astype(np.float32),
                opacities=model.opacities.astype(np.float32),
                position=self.positions[i] if apart else (0.0, 0.0, 0.0),
                visible=visible is None or visible[i],
            )

    @property
    def address(self) -> str:
        """URL of the viewer."""
        return f"http://localhost:{self.server.get_port()}"

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self.server.sleep_forever()

    def stop(self) -> None:
        """Stop the server."""
        self.server.stop()


def _server(host: str, port: int) -> viser.ViserServer:
    try:
        import viser
    except ImportError as error:
        raise UserError("the viewer needs the package viser: pip install 'z1g[view]'") from error
    # Viser starts its server in a thread and would wait for it forever.
    try:
        with socket.create_server((host, 0), family=socket.getaddrinfo(host, port)[0][0]):
            pass
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: no address of this machine that can be listened on ({error})") from error
    return viser.ViserServer(host=host, port=port, verbose=False)


def ramp(values: Floats) -> Floats:
    """Map values [N] in 0..1 to colors [N,3]: dark blue, green, yellow."""
    stops = np.array([[0.15, 0.1, 0.4], [0.1, 0.55, 0.5], [0.98, 0.9, 0.2]])
    clipped = np.clip(values, 0, 1)
    return np.stack([np.interp(clipped, [0, 0.5, 1], stops[:, i]) for i in range(3)], axis=1)
