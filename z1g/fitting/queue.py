"""Fitting objects in batches that fit into memory."""

import logging
from collections.abc import Iterable, Iterator, Sequence

import torch

from z1g.core.errors import UserError
from z1g.data.scenes import Scene
from z1g.fitting.optimize import Fit, Fitted

log = logging.getLogger(__name__)


class FitQueue:
    """Fits any number of objects. The batch size is 1 on a CPU and with schedules that depend on an object's loss."""

    def __init__(self, fit: Fit) -> None:
        self.fit = fit
        self.size = 1 if fit.device.type == "cpu" else fit.options.at_once

    def run(self, scenes: Iterable[Scene]) -> Iterator[tuple[Scene, Fitted]]:
        """Yield each object with its fit, in order. Raises UserError if a single object does not fit into memory."""
        waiting: list[Scene] = []
        for scene in scenes:
            if waiting and (len(waiting) >= self.size or _shape(scene) != _shape(waiting[0])):
                yield from self._fit(waiting)
                waiting = []
            waiting.append(scene)
        yield from self._fit(waiting)

    def _fit(self, scenes: Sequence[Scene]) -> Iterator[tuple[Scene, Fitted]]:
        done = 0
        while done < len(scenes):
            batch = scenes[done : done + self.size]
            fitted = self._try(batch)
            if fitted is None:
                self._halve(len(batch))
                continue
            yield from zip(batch, fitted, strict=True)
            done += len(batch)

    def _try(self, batch: Sequence[Scene]) -> list[Fitted] | None:
        """Fit a batch; None if the GPU ran out of memory. The failed attempt's tensors are freed on return."""
        try:
            return self.fit.run(batch)
        except torch.OutOfMemoryError:
            return None

    def _halve(self, size: int) -> None:
        torch.cuda.empty_cache()
        if size == 1:
            raise UserError(
                "one object's fit does not fit into the GPU's memory; lower fit.views_per_step, splat.size or the "
                "images' resolution"
            )
        self.size = size // 2
        log.warning(
            "%d objects do not fit into the GPU's memory: continuing with %d at once; "
            "set fit.batch_objects: %d to avoid this message",
            size, self.size, self.size,
        )  # fmt: skip


def _shape(scene: Scene) -> tuple[tuple[int, ...], float]:
    return scene.rgba.shape, scene.fov_y_deg
