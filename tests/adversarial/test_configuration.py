"""Overlays of any shape: a configuration that can be used, or lines that name what is wrong; never a traceback.

With Z1G_ADVERSARIAL=long there are ten times as many overlays, from another seed.
"""

import contextlib
import json
import os
import re
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from support.overlays import resolved, section_values
from support.paths import ROOT

from z1g.config.resolve import Ablation
from z1g.config.tree import Experiment
from z1g.core.stages import STAGE_NAMES
from z1g.data.manifest import Manifest, ObjectEntry
from z1g.gaussians.channels import SplatOptions
from z1g.networks.weights.scratch import Scratch
from z1g.plan.identity import planned_stages
from z1g.representations import Mosaic
from z1g.representations.mosaic.decoder_options import DecoderOptions

pytestmark = pytest.mark.slow

LONG = os.environ.get("Z1G_ADVERSARIAL") == "long"
N_OVERLAYS, SEED = (25_000, 18) if LONG else (2_500, 17)
OBJECTS = tuple(ObjectEntry(f"object{i}", f"meshes/{i}.obj", content=f"{i:064x}") for i in range(5))
FUZZ = settings(
    max_examples=N_OVERLAYS,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def use(experiment: Experiment) -> None:
    """Everything that a run does with a configuration before data and weights are there."""
    # Null lets z1g choose the size of chunks from the number of objects.
    manifest = Manifest(OBJECTS, experiment.data.chunk_size or 2)
    stages = planned_stages(Ablation("idea", "", "base", {}, experiment), manifest)
    assert tuple(stages) == STAGE_NAMES
    assert all(re.fullmatch("[0-9a-f]{10}", stage.id) and stage.n_chunks >= 1 for stage in stages.values())
    assert sum(len(manifest.chunk(i)) for i in range(manifest.n_chunks)) == len(OBJECTS)
    assert set(manifest.splits(experiment.data.split)) == {entry.id for entry in OBJECTS}


def build(experiment: Experiment) -> None:
    """Build the networks of both stages on the device without memory, and look at the shape of codes."""
    with torch.device("meta"):
        codec = experiment.representation.new_codec(experiment.model, experiment.camera, experiment.splat)
        denoiser = experiment.new_denoiser()
    assert all(side >= 1 for side in codec.code_shape)
    for network in (codec, denoiser):
        assert sum(parameter.numel() for parameter in network.parameters()) > 0


@seed(SEED)
@settings(FUZZ, max_examples=N_OVERLAYS // 25)
@given(section_values(Scratch), section_values(Mosaic), section_values(DecoderOptions), section_values(SplatOptions))
def test_networks_of_what_is_taken_can_be_built(
    tmp_path_factory: pytest.TempPathFactory, model: Any, mosaic: Any, decoder: Any, splat: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "overlays"
    folder.mkdir(exist_ok=True)
    model = {**model, "kind": "scratch"}
    overlay = {"model": model, "splat": splat, "representation": {"decoder": decoder, **mosaic, "kind": "mosaic"}}
    with contextlib.chdir(ROOT):
        taken = resolved(folder, json.dumps(overlay) + "\n")
    if isinstance(taken, Experiment):
        build(taken)


@seed(SEED)
@FUZZ
@given(section_values(Experiment))
def test_no_overlay_gives_anything_but_a_configuration_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, overlay: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "overlays"
    folder.mkdir(exist_ok=True)
    with contextlib.chdir(ROOT):
        taken = resolved(folder, json.dumps(overlay) + "\n")
    if isinstance(taken, Experiment):
        use(taken)
        return
    for line in taken.splitlines():
        assert re.match(r"\S*(idea|base)\.yaml(:\d+)?: ", line) or line.startswith("scale "), line
        assert "input should be" not in line.lower(), "pydantic's wording"
