"""A second representation runs through both stages: no code outside its package depends on the shape of a code.

Its codes are scaled splatter images. Encoder and decoder are the identity, except for one learned factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.builders import fill, plan, stage_path
from torch import Tensor, nn

import z1g.representations
from z1g.config.tree import Experiment
from z1g.core.files import read_jsonl
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.inference.method import ImageToSplats
from z1g.networks.denoiser import Condition, Denoiser
from z1g.networks.weights import Model
from z1g.plan.folder import StageFolder
from z1g.plan.plan import Plan
from z1g.representations import folder as method_folder
from z1g.representations.base import Representation
from z1g.representations.codec import Codec, Trained
from z1g.sampling.options import InferOptions
from z1g.stages import autodecoder, codes, infer, metrics, unet

SCALE = 3.0
SIZE = 8
WIDTH = 5


class SplatCodec(Codec):
    """Codes [6,14,S,S] are `SCALE` times splatter images."""

    uses_splats = True

    def __init__(self, size: int) -> None:
        super().__init__()
        self.code_shape = (6, 14, size, size)
        self.encoder, self.decoder = nn.Identity(), nn.ParameterDict({"factor": torch.ones(())})

    def inputs(self, rgb: Tensor, alpha: Tensor, splats: Tensor | None) -> Tensor:
        assert splats is not None
        return splats

    def posterior(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return SCALE * inputs, torch.zeros_like(inputs)

    def code(self, mean: Tensor, deviation: Tensor, noise: Tensor | None) -> Tensor:
        return mean if noise is None else mean + deviation * noise

    def decode(self, code: Tensor) -> Tensor:
        return code / SCALE * self.decoder["factor"]

    def condition_latent(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)

    def losses(self, code: Tensor, splats: Tensor, splats_true: Tensor | None) -> dict[str, Tensor]:
        return {"pull": (self.decoder["factor"] - 1).square()}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / "codec.safetensors")


class SplatDenoiser(Denoiser):
    """v is a learned mixture of channels plus an offset from the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.unet, self.vision = nn.Linear(14, 14), nn.Linear(3, WIDTH).requires_grad_(False)
        self.offset = nn.Linear(WIDTH + 12, 14)

    def forward(self, noisy: Tensor, timestep: Tensor, condition: Condition, condition_noise: Tensor) -> Tensor:
        offset = self.offset(torch.cat([condition.embedding, condition.latent + 0.1 * condition_noise], dim=1))
        mixed = self.unet(noisy.movedim(2, -1)) + offset[:, None, None, None]
        return mixed.movedim(-1, 2)

    def embed(self, images: Tensor) -> Tensor:
        return self.vision(images.mean(dim=(2, 3)))

    @property
    def embedding_width(self) -> int:
        return WIDTH


class SplatImages(Representation):
    """Codes are splatter images themselves."""

    kind: Literal["splat_images"] = "splat_images"

    def problem(self, model: Model, splat_size: int) -> str | None:
        return None

    def code_shape(self, model: Model, splat_size: int) -> tuple[int, ...]:
        return 6, 14, SIZE, SIZE

    def new_codec(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Codec:
        return SplatCodec(splats.size)

    def load_codec(self, folder: Path, camera: CameraOptions, splats: SplatOptions) -> Codec:
        codec = SplatCodec(splats.size)
        codec.load_state_dict(load_file(folder / "codec.safetensors"))
        return codec.requires_grad_(False).eval()

    def new_denoiser(self, model: Model, camera: CameraOptions, splats: SplatOptions) -> Denoiser:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return SplatDenoiser()

    def save(self, folder: Path, trained: Trained, camera: CameraOptions, splats: SplatOptions) -> None:
        trained.codec.save(folder)
        save_file(trained.denoiser.state_dict(), folder / "denoiser.safetensors")
        save_file(
            {name: value.contiguous() for name, value in trained.statistics.items()}, folder / "stats.safetensors"
        )
        method_folder.write(folder, self, camera, splats)

    def load(self, folder: Path, camera: CameraOptions, splats: SplatOptions, device: torch.device) -> Trained:
        denoiser = SplatDenoiser()
        denoiser.load_state_dict(load_file(folder / "denoiser.safetensors"))
        codec = self.load_codec(folder, camera, splats)
        return Trained(codec, denoiser.requires_grad_(False).eval(), load_file(folder / "stats.safetensors"))


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """Registers the kind in the configuration while the module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(z1g.representations, "KINDS", (*z1g.representations.KINDS, SplatImages))
        Experiment.model_rebuild(force=True)
        yield
    Experiment.model_rebuild(force=True)


@pytest.fixture(scope="module", params=["encoder", "optimized"])
def chain(registered: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """All stages after the fit, run in a folder of their own."""
    planned = plan(
        tmp_path_factory.mktemp(request.param),
        representation={"kind": "splat_images"},
        autodecoder={"codes": {"kind": request.param}, "code_noise": 0.1},
        unet={"rendered": {"views": 1}},
    )
    fill(planned)
    for stage in (autodecoder, codes, unet):
        stage.run(StageFolder.open(stage_path(planned, stage.__name__.rpartition(".")[2])), threads=1)
    infer.run(StageFolder.open(stage_path(planned, "infer")), chunk=0, threads=1)
    metrics.run(StageFolder.open(stage_path(planned, "metrics")), threads=1)
    return planned


def test_stage_1_trains_what_the_codec_has(chain: Plan) -> None:
    factor = load_file(stage_path(chain, "autodecoder") / "model" / "codec.safetensors")["decoder.factor"]
    assert float(factor) != 1
    history = read_jsonl(stage_path(chain, "autodecoder") / "history.jsonl")
    assert all("pull" in row for row in history if "loss" in row)


def test_codes_have_the_shape_that_the_representation_says(chain: Plan) -> None:
    stored = load_file(stage_path(chain, "codes") / "codes.safetensors")
    assert {tuple(code.shape) for code in stored.values()} == {(6, 14, SIZE, SIZE)}
    if chain.ablations["micro"].ablation.experiment.autodecoder.codes.kind == "encoder":
        fitted = [load_file(file) for file in sorted(stage_path(chain, "fit").glob("*.safetensors"))]
        for splats in fitted:
            for name, image in splats.items():
                torch.testing.assert_close(stored[name], SCALE * image)


def test_samples_are_decoded_codes(chain: Plan) -> None:
    folder = StageFolder.open(stage_path(chain, "infer"))
    sampled = load_file(folder.path / "chunk-00000" / "splats.safetensors")
    factor = load_file(folder.upstream_path("unet") / "pipeline" / "codec.safetensors")["decoder.factor"]
    names = {key.rpartition("/")[0] for key in sampled}
    assert names
    for name in names:
        torch.testing.assert_close(sampled[f"{name}/splats"], sampled[f"{name}/code"] / SCALE * factor)


def test_every_source_is_measured(chain: Plan) -> None:
    rows = read_jsonl(stage_path(chain, "metrics") / "metrics.jsonl")
    assert {row["source"] for row in rows} == {"sampled", "autodecoder", "mean_code", "nearest", "fitted"}
    assert all(row["psnr"] is not None for row in rows)


def test_a_folder_knows_its_representation(chain: Plan) -> None:
    folder = stage_path(chain, "unet") / "pipeline"
    representation, _, splats = method_folder.read(folder)
    assert representation == SplatImages()
    assert splats.size == SIZE
    _, images = ImageToSplats.from_folder(folder, InferOptions(steps=2))(torch.rand(1, 3, 16, 16), [3])
    assert images.shape == (1, 6, 14, SIZE, SIZE)
