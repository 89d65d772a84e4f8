"""Stage `codes`: the code of every object, under the trained decoder."""

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from z1g.codes._book import CodeBook
from z1g.codes._predict import predicted
from z1g.codes.cache import CachedCodes
from z1g.codes.diffusion import FOLDER, DiffusionCodes
from z1g.codes.optimised import OptimisedCodes
from z1g.data.manifest import int_hash
from z1g.data.scenes import SceneStore
from z1g.device import default_device, use_threads
from z1g.files import atomic_file
from z1g.losses import weighted_sum
from z1g.networks.autoencoder import PictureEncoder
from z1g.networks.stage1 import Stage1
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.objectives.samples import FIXED_VIEWS
from z1g.progress import Meter, track
from z1g.stages import StageFolder
from z1g.stages.autodecoder import training_scenes
from z1g.training.data import Batch, Draw

BATCH = 4
"""Sheets encoded at once: each is six pictures."""


def run(folder: StageFolder, threads: int) -> None:
    """Write `codes.safetensors`, one code an object id; test objects included."""
    use_threads(threads)
    trained = folder.upstream_folder("autodecoder")
    scenes, ids = training_scenes(trained)
    stage1 = Stage1.load(trained.path / "model", trained.config).to(default_device())
    source = trained.config.autodecoder.codes
    if isinstance(source, DiffusionCodes):
        known = predicted(trained.path / FOLDER)
        codes = {name: known[name] for name in scenes.ids}
    elif isinstance(source, CachedCodes | OptimisedCodes):
        own = trained.path / "model" / "codes.safetensors"
        known = load_file(source.path if isinstance(source, CachedCodes) else own)
        mean = torch.stack([known[name] for name in ids]).mean(dim=0)
        search = CodeSearch(trained, stage1, scenes, mean, source.lr, folder.config.autodecoder.test_steps)
        names = track(scenes.ids, "codes", len(scenes.ids))
        codes = {name: known[name] if name in known else search(name) for name in names}
    else:
        codes = encoded(stage1.encoder, scenes, trained.config.autodecoder.input_size)
    with atomic_file(folder.path / "codes.safetensors") as temporary:
        save_file({name: code.contiguous() for name, code in codes.items()}, temporary)


@torch.no_grad()
def encoded(encoder: PictureEncoder, scenes: SceneStore, size: int) -> dict[str, Tensor]:
    """Codes as the posterior's mean, by object id."""
    codes: dict[str, Tensor] = {}
    with Meter("codes", len(scenes.ids)) as meter:
        for first in range(0, len(scenes.ids), BATCH):
            names = scenes.ids[first : first + BATCH]
            sheets = torch.stack([scenes.seen(name, FIXED_VIEWS).input_sheet(size) for name in names])
            codes.update(zip(names, encoder.sheet_code(sheets.to(default_device()), None).cpu(), strict=True))
            meter.advance(len(names))
    return codes


class CodeSearch:
    """Finds an unseen object's code by gradient descent through the frozen decoder, from the mean training code."""

    def __init__(
        self, trained: StageFolder, stage1: Stage1, scenes: SceneStore, start: Tensor, lr: float, steps: int
    ) -> None:  # fmt: skip
        self.start, self.lr, self.steps = start, lr, steps
        self.objective = AutodecoderObjective(trained.config, stage1, CodeBook(), scenes, scenes.ids, None)
        self.objective.eval()

    def __call__(self, name: str) -> Tensor:
        device = default_device()
        code = self.start.clone().to(device)[None].requires_grad_(True)
        optimiser = torch.optim.Adam([code], lr=self.lr)
        for step in range(self.steps):
            loss, _ = weighted_sum(
                self.objective.options.losses,
                self.objective.compare(self.objective.decoder(code), self._batch(name, step, device)),
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        return code.detach()[0].cpu()

    def _batch(self, name: str, step: int, device: torch.device) -> Batch:
        draw = Draw(self.objective.ids.index(name), 0, (int_hash(name), step, 0))
        sample = self.objective.sample(draw)
        return self.objective.prepare({key: value[None].to(device) for key, value in sample.items()})
