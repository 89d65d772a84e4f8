"""What published pipelines of Stable Diffusion's networks have in common: their folder is checked before the jobs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from z1g.core.needs import Missing, require_folder
from z1g.networks.weights.base import Model


class PublishedPipeline(Model):
    """SD's VAE and a UNet of its form, by hub name or from a local folder in the same layout."""

    pretrained: str
    title: ClassVar[str]
    """The pipeline in messages, after "a"."""
    scheduler: ClassVar[tuple[str, str]]
    """Prediction and betas in the published scheduler's words."""
    learned: ClassVar[str]
    """The same as a sentence."""

    @abstractmethod
    def absent(self, folder: Path) -> Sequence[str]:
        """Files and subfolders that a folder lacks."""

    def check(self) -> None:
        from z1g.networks.weights import layout as layout

        folder = Path(self.pretrained).expanduser()
        if not folder.is_dir():
            if layout.is_path(self.pretrained):
                require_folder("pretrained", str(folder), f"give a folder with a {self.title}, or its hub name")
            return
        if absent := self.absent(folder):
            raise Missing("pretrained", f"{self.pretrained} lacks {', '.join(absent)} of a {self.title}")
        if difference := layout.other_process(folder, self.scheduler):
            raise Missing(
                "pretrained",
                f"{self.pretrained} {difference}, as scheduler/scheduler_config.json says; {self.learned}",
            )

    @property
    def pretrained_encoder(self) -> bool:
        return True

    @property
    def latent_channels(self) -> int:
        return 4

    @property
    def latent_factor(self) -> int:
        return 8
