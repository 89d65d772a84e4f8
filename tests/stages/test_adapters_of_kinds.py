"""Low-rank adapters of published weights through both stages, of kinds beside the mosaic's diffusion."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.builders import SIZES, fill, plan, stage_path
from support.published_weights import write_published
from support.running import run_stages

from z1g.inference.method import ImageToSplats
from z1g.networks.finetune.lora import Lora
from z1g.networks.weights import Scratch
from z1g.sampling.options import InferOptions
from z1g.sampling.samplers import KINDS as SAMPLERS
from z1g.stages import autodecoder, codes, infer, unet

RANK = 2
KINDS: dict[str, dict[str, Any]] = {
    "joint": {
        "representation": {"kind": "joint"},
        "splat": {"size": 32},
        "autodecoder": {"codes": {"kind": "encoder", "train": True}},
    },
    "regression": {"representation": {"input_size": 32}, "unet": {"objective": "regression"}},
}
NEW = {"joint": {"conv_in.weight", "conv_in.bias"}, "regression": set[str]()}
"""Layers that are trained as a whole, because the published UNet has fewer inputs."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_are_trained_merged_and_sampled(kind: str, tmp_path: Path) -> None:
    write_published(tmp_path / "weights")
    own, lora = KINDS[kind], {"finetune": {"kind": "lora", "rank": RANK}}
    model = {"kind": "zero123plus", "pretrained": str(tmp_path / "weights")}
    made = plan(tmp_path, n_objects=3, **{**own, "model": model, "unet": {**own.get("unet", {}), **lora}})
    fill(made, resolution=32)
    run_stages(made, autodecoder, codes, unet, infer)
    folder = stage_path(made, "unet") / "pipeline"
    start = made.ablations["micro"].ablation.experiment.new_denoiser().unet.state_dict()
    after = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    adapters = load_file(folder / "lora/pytorch_lora_weights.safetensors")
    changed = {name for name in start if not torch.equal(after[name], start[name])}
    adapted = {name for name in changed if name not in NEW[kind]}
    assert changed - adapted == NEW[kind]
    assert adapted
    for name in adapted:
        layer = f"unet.{name.removesuffix('.weight')}"
        down, up = (adapters[f"{layer}.lora_{which}.weight"].double() for which in "AB")
        assert down.shape[0] == RANK
        torch.testing.assert_close(after[name].double() - start[name].double(), up @ down, atol=1e-6, rtol=0)
    assert 2 * len(adapted) <= len(adapters)
    for file in stage_path(made, "infer").rglob("splats.safetensors"):
        assert all(value.isfinite().all() for value in load_file(file).values())
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    for sampler in SAMPLERS:
        options = InferOptions.model_validate({"sampler": {"kind": sampler.model_fields["kind"].default}, "steps": 3})
        method = ImageToSplats.from_folder(folder, options)
        code, splats = method(images, [3, 4])
        assert splats.isfinite().all()
        alone, _ = method(images[1:], [4])
        torch.testing.assert_close(alone[0], code[1], atol=1e-2, rtol=1e-3)


def test_adapters_begin_alike_whatever_was_drawn_before() -> None:
    """A run made again has the adapters that it had, and what it draws next does not depend on them."""
    started, drawn = [], []
    for seed in (1, 2):
        denoiser = Scratch(**SIZES).denoiser()
        torch.manual_seed(seed)
        Lora(rank=RANK).prepare(denoiser)
        drawn.append(torch.rand(3))
        state = denoiser.unet.state_dict()
        started.append({name: value for name, value in state.items() if "lora_A" in name})
    first, second = started
    assert first
    assert all(value.count_nonzero() for value in first.values())
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    for seed, numbers in zip((1, 2), drawn, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(torch.rand(3), numbers)
