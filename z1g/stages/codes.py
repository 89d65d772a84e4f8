"""Stage `codes`: compute the code of every object for the trained decoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from z1g.codes.book import CodeBook, read_codes
from z1g.codes.cache import CachedCodes
from z1g.codes.diffusion import FOLDER, DiffusionCodes
from z1g.codes.inputs import InputScenes, encoder_inputs
from z1g.codes.optimized import OptimizedCodes
from z1g.codes.predictions import predicted
from z1g.core.device import default_device, use_threads
from z1g.core.files import atomic_file
from z1g.core.prefetch import prefetched
from z1g.core.progress import Meter
from z1g.data.bank import Scenes
from z1g.data.manifest import int_hash
from z1g.data.scenes import SceneStore
from z1g.losses import weighted_sum
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.plan.folder import StageFolder
from z1g.representations.codec import Codec
from z1g.stages.autodecoder import training_scenes
from z1g.training.data import Batch, Draw

if TYPE_CHECKING:
    from z1g.config.tree import Experiment

FILE = "codes.safetensors"
BATCH = 4
"""Number of objects whose codes are optimized at once, and the least that are encoded at once. Each has six images."""
MOST, VALUES = 64, BATCH * 3 * 960 * 640
"""Most objects that are encoded at once, and most values of their images beyond `BATCH`: those of four at full size."""
AHEAD = 64
"""Objects read ahead."""


def run(folder: StageFolder, threads: int) -> None:
    """Write `codes.safetensors` with one code per object id, including test objects."""
    use_threads(threads)
    trained = folder.upstream_folder("autodecoder")
    scenes, ids = training_scenes(trained)
    codec = trained.config.load_codec(trained.path / "model").for_inference(default_device())
    source, options = trained.config.autodecoder.codes, folder.config.autodecoder
    starts, lr = dict[str, Tensor](), 0.0
    if isinstance(source, DiffusionCodes):
        codes = predicted(trained.path / FOLDER)
    elif isinstance(source, CachedCodes | OptimizedCodes):
        codes = read_codes(Path(source.path) if isinstance(source, CachedCodes) else trained.path / "model" / FILE)
        mean = torch.stack([codes[name] for name in ids]).mean(dim=0)
        starts, lr = {name: mean for name in scenes.ids if name not in codes}, source.lr
    else:
        codes = encoded(codec, scenes)
        if options.test_lr:
            trained_on = set(ids)
            starts = {name: codes[name] for name in scenes.ids if name not in trained_on}
            lr = options.test_lr * float(torch.stack([codes[name] for name in ids]).std())
    if starts:
        codes |= CodeSearch(trained.config, codec, scenes, scenes.ids, lr, options.test_steps)(starts)
    with atomic_file(folder.path / FILE) as temporary:
        save_file({name: codes[name].contiguous() for name in scenes.ids}, temporary)


@torch.no_grad()
def encoded(codec: Codec, scenes: SceneStore) -> dict[str, Tensor]:
    """Encode all objects; a code is the mean of the posterior. Returns codes by object id."""
    codes: dict[str, Tensor] = {}
    if not scenes.ids:
        return codes
    size = encoded_at_once(codec, scenes, scenes.ids)
    blocks = [scenes.ids[first : first + size] for first in range(0, len(scenes.ids), size)]
    read = prefetched(
        partial(encoder_inputs, codec, scenes), blocks, torch.get_num_threads(), ahead=max(2, AHEAD // size)
    )
    with Meter("codes", len(scenes.ids)) as meter:
        for names, inputs in zip(blocks, read, strict=True):
            codes.update(zip(names, codec.encode(inputs.to(default_device())).cpu(), strict=True))
            meter.advance(len(names))
    return codes


def encoded_at_once(codec: Codec, scenes: InputScenes, names: Sequence[str]) -> int:
    """Number of objects that are encoded at once; few small images leave a GPU waiting for the launches of kernels."""
    return max(BATCH, min(MOST, VALUES // encoder_inputs(codec, scenes, names[:1])[0].numel()))


class CodeSearch:
    """Optimizes codes on training views through the frozen decoder (DeepSDF, Park et al. 2019, §4.2).

    A few objects are optimized at once, but independently: each has its own code, views and Adam state. The losses are
    those of stage 1 without their schedules over passes, so the splat loss is always included.
    `lr` and `steps` are those of Adam; `config` is that of stage 1, `ids` are those of
    all scenes.
    """

    def __init__(self, config: Experiment, codec: Codec, scenes: Scenes, ids: list[str], lr: float, steps: int) -> None:
        self.lr, self.steps = lr, steps
        self.place = {name: i for i, name in enumerate(ids)}
        self.objective = AutodecoderObjective(config, codec, CodeBook(), scenes, ids, None)
        self.objective.eval().requires_grad_(False)
        # Augmented objects would need other codes.
        self.objective.augmenter = None

    def __call__(self, starts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Optimize codes, starting from `starts` (codes by object id). Returns codes by object id."""
        codes: dict[str, Tensor] = {}
        names = list(starts)
        with Meter("code search", len(names)) as meter:
            for first in range(0, len(names), BATCH):
                batch = names[first : first + BATCH]
                codes.update(zip(batch, self._together(batch, starts), strict=True))
                meter.advance(len(batch))
        return codes

    def _together(self, names: list[str], starts: dict[str, Tensor]) -> Tensor:
        device = default_device()
        codes = torch.stack([starts[name] for name in names]).to(device).requires_grad_(True)
        optimizer = torch.optim.Adam([codes], lr=self.lr)
        for step in range(self.steps):
            loss, _ = weighted_sum(
                self.objective.options.losses,
                self.objective.compare(self.objective.codec.decode(codes), self._batch(names, step, device)),
            )
            optimizer.zero_grad(set_to_none=True)
            # Losses are means over objects. With their sum, each code gets the same gradient as if it were alone.
            (loss * len(names)).backward()
            optimizer.step()
        return codes.detach().cpu()

    def _batch(self, names: list[str], step: int, device: torch.device) -> Batch:
        samples = [self.objective.sample(Draw(self.place[name], 0, (int_hash(name), step, 0))) for name in names]
        return self.objective.prepare({key: torch.stack([s[key] for s in samples]).to(device) for key in samples[0]})
