"""Stage `codes`: the code of every object, under the trained decoder."""

from collections.abc import Callable

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
from z1g.networks.stage1 import Stage1
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.progress import track
from z1g.stages import StageFolder
from z1g.stages.autodecoder import training_scenes
from z1g.training.data import Batch, Draw


def run(folder: StageFolder, threads: int) -> None:
    """Write `codes.safetensors`, one code an object id; test objects included."""
    use_threads(threads)
    trained = folder.upstream_folder("autodecoder")
    scenes, ids = training_scenes(trained)
    stage1 = Stage1.load(trained.path / "model", trained.config).to(default_device())
    source = trained.config.autodecoder.codes
    code_of: Callable[[str], Tensor]
    known: dict[str, Tensor] = {}
    if isinstance(source, DiffusionCodes):
        known = predicted(trained.path / FOLDER)
        code_of = known.__getitem__
    elif isinstance(source, CachedCodes | OptimisedCodes):
        own = trained.path / "model" / "codes.safetensors"
        known = load_file(source.path if isinstance(source, CachedCodes) else own)
        mean = torch.stack([known[name] for name in ids]).mean(dim=0)
        code_of = CodeSearch(trained, stage1, scenes, mean, source.lr, folder.config.autodecoder.test_steps)
    else:
        code_of = Encoder(stage1, scenes, trained.config.autodecoder.input_size)
    codes = {
        name: known[name] if name in known else code_of(name) for name in track(scenes.ids, "codes", len(scenes.ids))
    }
    with atomic_file(folder.path / "codes.safetensors") as temporary:
        save_file({name: code.contiguous() for name, code in codes.items()}, temporary)


class Encoder:
    """Codes as the posterior's mean."""

    def __init__(self, stage1: Stage1, scenes: SceneStore, size: int) -> None:
        self.stage1, self.scenes, self.size = stage1, scenes, size

    @torch.no_grad()
    def __call__(self, name: str) -> Tensor:
        sheet = self.scenes[name].input_sheet(self.size)[None].to(default_device())
        return self.stage1.encoder.sheet_code(sheet, None)[0].cpu()


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
