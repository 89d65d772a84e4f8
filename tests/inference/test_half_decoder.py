"""The decoder in bfloat16 on a GPU: as in training, for splats only, and not with `precision: fp32`."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import trained_models
from support.builders import experiment
from support.diffusion import normal
from torch import Tensor

from z1g import ImageToSplats
from z1g.bench.made_up import MadeUpScenes
from z1g.codes.book import EncodedBook
from z1g.inference.models import open_model
from z1g.inference.several import Targets
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.representations.codec import DECODED_AT_ONCE
from z1g.representations.vae_codec import VaeCodec

LAST = ("conv_out", "geometry_out", "scale_bias", "downsampler")
"""Layers that stay in float32, by parts of their names."""


@pytest.fixture(scope="module", params=["mosaic", "attributes", "joint"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(kind)
    return trained_models.write(experiment(root, representation={"kind": kind}), root / "base")


def method(folder: Path, precision: str = "auto") -> ImageToSplats:
    model = open_model(str(folder))
    return ImageToSplats.from_folder(model.pipeline, model.infer.model_copy(update={"precision": precision}), model)


@pytest.fixture
def half(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ImageToSplats:
    """As on a GPU, but on the CPU."""
    monkeypatch.setattr("z1g.inference.method._half_decoder", lambda *_: True)
    return method(folder)


def dtypes(codec: VaeCodec) -> set[torch.dtype]:
    """Types of what the middle of the decoder returns, from now on."""
    seen: set[torch.dtype] = set()
    codec.vae.decoder.mid_block.register_forward_hook(lambda *call: seen.add(call[-1].dtype))
    return seen


def codes_of(method: ImageToSplats, count: int = DECODED_AT_ONCE + 1) -> Tensor:
    return 0.5 * normal(count, *method.shape)


def test_it_decodes_like_weights_stored_in_bfloat16(half: ImageToSplats) -> None:
    rounded = copy.deepcopy(half.codec)
    rounded.use_bf16_weights(False)
    for name, parameter in rounded.decoder.named_parameters():
        if not any(part in name for part in LAST):
            parameter.data = parameter.data.bfloat16()
    codes, seen = codes_of(half), dtypes(half.codec)
    splats = half.decode(codes)
    assert seen == {torch.bfloat16}
    assert splats.dtype == torch.float32
    expected = torch.cat([rounded.decode(part) for part in codes.split(DECODED_AT_ONCE)])
    torch.testing.assert_close(splats, expected.detach(), atol=0, rtol=0)
    assert all(parameter.dtype == torch.float32 for parameter in half.codec.parameters())


def test_it_decodes_as_in_training(half: ImageToSplats, kind: str) -> None:
    config, codes = experiment(Path("unused"), representation={"kind": kind}), codes_of(half)
    splats, codec = half.decode(codes), copy.deepcopy(half.codec)
    codec.use_bf16_weights(False)
    scenes = MadeUpScenes(config, 16)
    objective = AutodecoderObjective(config, codec, EncodedBook(sample=True), scenes, scenes.ids, None)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        trained = [objective.codec.decode_compared(part, None)[0] for part in codes.split(DECODED_AT_ONCE)]
    torch.testing.assert_close(splats, torch.cat(trained), atol=0, rtol=0)


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_a_cpu_decodes_in_float32(folder: Path, precision: str) -> None:
    plain = method(folder, precision)
    assert not plain.half_decoder
    seen, codes = dtypes(plain.codec), codes_of(plain)
    splats = plain.decode(codes)
    assert seen == {torch.float32}
    expected = torch.cat([plain.codec.decode(part) for part in codes.split(DECODED_AT_ONCE)])
    torch.testing.assert_close(splats, expected, atol=0, rtol=0)


def test_codes_are_searched_in_float32(half: ImageToSplats, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the search decodes, and its gradients, have nothing of the rounding."""

    def search(decode: Callable[[Tensor], Tensor], *_: object) -> Callable[..., Tensor]:
        def decoded(code: Tensor, targets: Targets, **_: object) -> Tensor:
            code = code[None].requires_grad_()
            splats = decode(code)
            (gradient,) = torch.autograd.grad(splats.square().sum(), code)
            return torch.cat([splats.flatten(), gradient.flatten()]).detach()

        return decoded

    monkeypatch.setattr("z1g.inference.method.ViewSearch", search)
    nothing = Targets(torch.empty(0, 3, 1, 1), torch.empty(0, 1, 1, 1), [], [])
    code, seen = codes_of(half, 1)[0], dtypes(half.codec)
    half.decode(code[None])
    assert seen == {torch.bfloat16}
    seen.clear()
    found = half.refined(code.clone(), nothing)
    assert seen == {torch.float32}
    monkeypatch.setattr("z1g.inference.method._half_decoder", lambda *_: False)
    torch.testing.assert_close(found, method(folder).refined(code.clone(), nothing), atol=0, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_decodes_in_the_precision_of_sampling(folder: Path) -> None:
    splats = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("auto", torch.bfloat16)):
        on_gpu = method(folder, precision)
        seen = dtypes(on_gpu.codec)
        splats[precision] = on_gpu.decode(codes_of(on_gpu).to(on_gpu.device))
        assert seen == {dtype}
        assert splats[precision].dtype == torch.float32
    torch.testing.assert_close(splats["auto"], splats["bf16"])
    difference = (splats["auto"] - splats["fp32"]).norm()
    assert 0 < difference < 0.05 * splats["fp32"].norm()
