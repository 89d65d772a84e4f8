"""Work of the stages that train no networks, on made-up objects, to measure what memory it takes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from typing import TYPE_CHECKING

import torch

from z1g.bench.autodecoder import resolution
from z1g.bench.balls import ball
from z1g.bench.made_up import MadeUpScenes
from z1g.bench.made_up_training import sampling, with_random_weights
from z1g.codes.inputs import encoder_inputs
from z1g.core.errors import UserError
from z1g.core.seeding import seeded
from z1g.fitting.optimize import Fit
from z1g.plan.cost.memory import UNTRAINED
from z1g.plan.cost.sizes import searches_codes
from z1g.stages.codes import BATCH, CodeSearch, encoded_at_once
from z1g.stages.measuring import Measure, render_pair

if TYPE_CHECKING:
    from z1g.config.tree import Experiment
    from z1g.representations.codec import Codec


def objects_at_once(config: Experiment, stage: str) -> int:
    """Objects that a stage has on the GPU at once. Raises UserError if there are no random weights to ask for that."""
    configured = UNTRAINED[stage](config)
    if configured is not None:
        return configured
    if stage == "metrics":
        return 1
    if searches_codes(config):
        return BATCH
    scenes = _scenes(config)
    return encoded_at_once(_codec(with_random_weights(config)), scenes, scenes.ids)


def work(config: Experiment, stage: str, objects: int, steps: int, device: torch.device) -> None:
    """Do the work of a stage for so many objects at once, in `steps` steps where it has any.

    config: with random weights, see `with_random_weights`. Raises UserError if the stage cannot do it here.
    """
    run: dict[str, Callable[[Experiment, int, int, torch.device], None]] = {
        "fit": _fit, "codes": _codes, "infer": _infer, "metrics": _metrics
    }  # fmt: skip
    run[stage](config, objects, steps, device)


def _fit(config: Experiment, objects: int, steps: int, _: torch.device) -> None:
    options = config.fit.model_copy(update={"steps": steps})
    scenes = [ball(config, resolution(config), i) for i in range(objects)]
    Fit(options, config.splat.size, config.render, config.camera).run(scenes)


def _codes(config: Experiment, objects: int, steps: int, device: torch.device) -> None:
    scenes, codec = _scenes(config), _codec(config).for_inference(device)
    names = list(islice(cycle(scenes.ids), objects))
    if not searches_codes(config):
        with torch.no_grad():
            codec.encode(encoder_inputs(codec, scenes, names).to(device))
        return
    starts = {name: torch.zeros(codec.code_shape) for name in names}
    CodeSearch(config, codec, scenes, scenes.ids, lr=1e-3, steps=steps)(starts)


def _infer(config: Experiment, objects: int, steps: int, device: torch.device) -> None:
    side = config.unet.condition_size
    method = sampling(config, config.infer.model_copy(update={"steps": steps}), device)
    method(torch.rand(objects, 3, side, side, device=device), list(range(objects)))


def _metrics(config: Experiment, objects: int, _: int, device: torch.device) -> None:
    """Splats of a code, and metrics of their renders; not those of shapes, which are computed without networks."""
    scenes, codec = _scenes(config), _codec(config).for_inference(device)
    measure = Measure(config.metrics.metrics, config.metrics.protocol)
    views = measure.chosen(list(config.camera.test_ids))
    for name in scenes.ids[:objects]:
        with torch.no_grad():
            splats = codec.decode(torch.zeros(1, *codec.code_shape, device=device))[0].cpu()
        pair = render_pair(config, scenes[name], splats, views)
        measure.views(pair)
        measure.pooled(pair)
        measure.collect("test", "sampled", pair.rgb)
    if measure.missing:
        raise UserError("; ".join(f"metric {name}: {reason}" for name, reason in measure.missing.items()))


def _scenes(config: Experiment) -> MadeUpScenes:
    return MadeUpScenes(config, resolution(config))


def _codec(config: Experiment) -> Codec:
    with seeded(0):
        return config.new_codec().requires_grad_(False).eval()
