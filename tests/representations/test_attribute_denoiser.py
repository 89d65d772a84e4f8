"""The denoiser of attribute images: its inputs by hand, which latents see which, parts alone, noise or v predicted."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.builders import experiment
from support.diffusion import normal
from torch import Tensor

from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.gaussians.channels import SplatOptions
from z1g.networks.denoiser import Condition
from z1g.networks.diffusion import NoiseSchedule
from z1g.networks.multiview.attributes import inserted
from z1g.networks.process import Process
from z1g.representations import folder as method_folder
from z1g.representations import packed
from z1g.representations.attributes.denoiser import AttributeDenoiser, labels
from z1g.representations.attributes.mappings import Mappings
from z1g.representations.codec import Trained

VIEWS = 6
BLOCK = "mid_block.attentions.0.transformer_blocks.0"


def options(tmp_path: Path = Path("unused"), mappings: Any = None, **denoiser: Any) -> Experiment:
    denoiser = {"timestep_jitter": 0, **denoiser}
    representation = {"kind": "attributes", "mappings": mappings or {}, "denoiser": denoiser}
    return experiment(tmp_path, representation=representation)


def denoiser(moved: bool = True, **changes: Any) -> AttributeDenoiser:
    """A denoiser whose last layer is not zero and, if `moved`, whose attributes attend to each other."""
    network = options(**changes).new_denoiser()
    assert isinstance(network, AttributeDenoiser)
    network.requires_grad_(False).eval()
    network.unet.conv_out.weight.copy_(0.1 * normal(*network.unet.conv_out.weight.shape))
    for i, parameter in enumerate(inserted(network.unet) if moved else []):
        parameter.add_(0.3 * normal(*parameter.shape, seed=i))
    return network


def condition(n: int = 2) -> Condition:
    return Condition(normal(n, 4, 4, 4, seed=8), normal(n, 16, seed=9))


def predict(network: AttributeDenoiser, code: Tensor, timestep: list[Any], **part: Tensor) -> Tensor:
    output: Tensor = network(code, torch.tensor(timestep), condition(len(code)), torch.empty(0), **part)
    return output


def test_labels_by_hand() -> None:
    config = options()
    table = labels(config.representation.mappings, config.camera)
    assert table.shape == (5, VIEWS, 16)
    elevations, azimuths = [30, -20] * 3, [30, 90, 150, 210, 270, 330]
    for a in range(5):
        for v in range(VIEWS):
            vector = [0, math.radians(elevations[v]), math.radians(azimuths[v])]
            vector += [float(a == i) for i in range(5)]
            expected = [*map(math.sin, vector), *map(math.cos, vector)]
            np.testing.assert_allclose(table[a, v].numpy(), expected, atol=1e-6)
    fewer = labels(options(mappings={"rotation": "none"}).representation.mappings, config.camera)
    torch.testing.assert_close(fewer, table[[0, 1, 2, 4]])


@torch.no_grad()
def test_inputs_of_the_unet_by_hand() -> None:
    """Rows are objects, attributes and views: code and condition side by side, timestep, label and one token each."""
    network, code = denoiser(), normal(2, 30, 4, 4, 4)
    seen: dict[str, Any] = {}

    def look(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.update(kwargs, sample=args[0], timestep=args[1])

    network.unet.register_forward_pre_hook(look, with_kwargs=True)
    times = torch.arange(60).view(2, 30) * 7
    network(code, times, condition(), torch.empty(0))
    for b in range(2):
        for k in range(30):
            row = b * 30 + k
            torch.testing.assert_close(seen["sample"][row, :4], code[b, k])
            torch.testing.assert_close(seen["sample"][row, 4:], condition().latent[b])
            torch.testing.assert_close(seen["encoder_hidden_states"][row], condition().embedding[b : b + 1])
            torch.testing.assert_close(seen["class_labels"][row], network.labels[k // VIEWS, k % VIEWS])
            assert seen["timestep"][row] == times[b, k]


def seen_by(network: AttributeDenoiser, entry: int) -> Tensor:
    """Which latents [30] of the same object change the prediction of one; none of another object may."""
    code = normal(2, 30, 4, 4, 4).requires_grad_()
    predict(network, code, [300, 700])[1, entry].sum().backward()
    assert code.grad is not None
    seen = code.grad.flatten(2).abs().amax(dim=2) > 0
    assert not seen[0].any()
    return seen[1]


def test_latents_of_an_attribute_see_each_other_and_no_other_attribute_before_training() -> None:
    expected = torch.zeros(30, dtype=torch.bool)
    expected[12:18] = True
    assert torch.equal(seen_by(denoiser(moved=False), 14), expected)
    assert torch.equal(seen_by(denoiser(cross_attribute=False), 14), expected)
    assert seen_by(denoiser(), 14).all()


@torch.no_grad()
def test_zero_attention_across_attributes_is_none() -> None:
    code = normal(2, 30, 4, 4, 4)
    without = predict(denoiser(cross_attribute=False), code, [300, 700])
    for rotary in (False, True):
        torch.testing.assert_close(predict(denoiser(moved=False, rotary=rotary), code, [300, 700]), without)
    with_it = [predict(denoiser(rotary=rotary), code, [300, 700]) for rotary in (False, True)]
    assert all(not torch.allclose(other, without, atol=1e-3) for other in with_it)
    assert not torch.allclose(*with_it, atol=1e-4), "the rotary embedding has an effect"


@torch.no_grad()
def test_a_part_alone_is_predicted_as_without_the_others() -> None:
    code = normal(2, 30, 4, 4, 4)
    whole = predict(denoiser(cross_attribute=False), code, [300, 700])
    parts = torch.tensor([4, 1])
    alone = torch.stack([code[i].unflatten(0, (5, VIEWS))[part] for i, part in enumerate(parts)])
    actual = predict(denoiser(), alone, [300, 700], part=parts)
    for i, part in enumerate(parts):
        torch.testing.assert_close(actual[i], whole[i].unflatten(0, (5, VIEWS))[part], atol=1e-5, rtol=0)


@torch.no_grad()
def test_attributes_have_timesteps_of_their_own() -> None:
    network, code = denoiser(cross_attribute=False), normal(1, 30, 4, 4, 4)
    same = predict(network, code, [[300] * 30])
    torch.testing.assert_close(same, predict(network, code, [300]))
    other = predict(network, code, [[300] * 12 + [500] * 6 + [300] * 12])
    changed = (other - same).flatten(2).abs().amax(dim=2)[0] > 1e-6
    assert changed.tolist() == [False] * 12 + [True] * 6 + [False] * 12


@pytest.mark.parametrize("betas", ["linear", "scaled_linear"])
@torch.no_grad()
def test_predicted_noise_becomes_v(betas: Any) -> None:
    """From eps = (x_t - a·x0)/s and v = a·eps - s·x0, with x0 of the prediction."""
    code, times = normal(2, 30, 4, 4, 4), torch.tensor([300, 800])
    noise = predict(denoiser(betas=betas), code, times.tolist()).double()
    actual = predict(denoiser(prediction="epsilon", betas=betas), code, times.tolist())
    schedule = NoiseSchedule(Process(betas))
    a, s = (table[times].view(2, 1, 1, 1, 1) for table in (schedule.alpha, schedule.sigma))
    x0 = (code.double() - s * noise) / a
    torch.testing.assert_close(actual.double(), a * noise - s * x0, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("part", [None, torch.tensor([2, 3])])
def test_every_weight_has_a_gradient(part: Tensor | None) -> None:
    """Also where attributes are alone: data-parallel training waits for all."""
    network = denoiser().requires_grad_(True).train()
    network.vision.requires_grad_(False)
    code = normal(2, 30 if part is None else VIEWS, 4, 4, 4)
    network(code, torch.tensor([300, 700]), condition(), torch.empty(0), part=part).square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    new = sum(float(p.grad.abs().sum()) for p in inserted(network.unet) if p.grad is not None)
    assert (new > 0) is (part is None)


def test_only_the_embedding_learns_faster() -> None:
    network = denoiser(embedding_rate=4.0)
    (start,) = network.rates
    assert {name for name, _ in network.named_parameters() if name.startswith(start)} == {
        f"unet.class_embedding.linear_{i}.{what}" for i in (1, 2) for what in ("weight", "bias")
    }
    assert network.rates[start] == 4.0


def test_bf16_weights_learn_in_float32() -> None:
    exact, half = denoiser(), denoiser()
    half.whole_bf16 = True
    half.requires_grad_(True)
    code = normal(1, 30, 4, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        actual = predict(half, code, [400])
    expected = predict(exact, code, [400])
    assert actual.dtype == torch.float32
    difference = (actual - expected).detach().abs().max()
    assert 0 < difference < 0.05 * expected.abs().max()
    actual.sum().backward()
    assert all(p.grad is not None for p in half.unet.parameters())


# On disk


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trained]:
    """A folder with all networks; tests that change it copy it."""
    config = options(rotary=False)
    codec, network = config.new_codec().eval(), denoiser(rotary=False)
    mean, deviation = codec.normalization(normal(3, *codec.code_shape))
    zero = codec.zero_latent(16, torch.device("cpu"))
    trained = Trained(codec, network, {"mean": mean, "deviation": deviation, "zero_latent": zero})
    folder = tmp_path_factory.mktemp("trained") / "pipeline"
    config.representation.save(folder, trained, config.camera, config.splat)
    return folder, trained


def read(folder: Path) -> Trained:
    representation, camera, splats = method_folder.read(folder)
    return representation.load(folder, camera, splats, torch.device("cpu"))


@torch.no_grad()
def test_a_folder_has_all_networks(written: tuple[Path, Trained]) -> None:
    folder, trained = written
    loaded, code = read(folder), normal(2, 30, 4, 4, 4)
    assert not any(p.requires_grad for p in (*loaded.codec.parameters(), *loaded.denoiser.parameters()))
    for name, value in trained.statistics.items():
        torch.testing.assert_close(loaded.statistics[name], value)
    torch.testing.assert_close(
        predict(loaded.denoiser, code, [3, 900]), predict(trained.denoiser, code, [3, 900])
    )  # fmt: skip
    torch.testing.assert_close(loaded.codec.decode(code), trained.codec.decode(code))
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.denoiser.embed(image), trained.denoiser.embed(image), atol=1e-5, rtol=1e-4)


def test_a_size_that_the_networks_do_not_have_is_refused(written: tuple[Path, Trained]) -> None:
    folder, _ = written
    representation, camera, _ = method_folder.read(folder)
    with pytest.raises(UserError, match=r"stage1\.json cannot be used: its sizes are those of codes 4x\d+x\d+, and"):
        representation.load(folder, camera, SplatOptions(size=4096), torch.device("cpu"))


@torch.no_grad()
def test_a_packed_folder_predicts_nearly_the_same(written: tuple[Path, Trained], tmp_path: Path) -> None:
    folder, trained = written
    packed.pack(folder, tmp_path / "packed")
    code = normal(1, 30, 4, 4, 4)
    exact, rounded = (predict(each, code, [500]) for each in (trained.denoiser, read(tmp_path / "packed").denoiser))
    assert 0 < (exact - rounded).norm() < 0.05 * exact.norm()


def signed(folder: Path) -> None:
    """Let a folder's digests be those of the files that it has."""
    setup = method_folder.read_options(folder)
    (folder / "stage1.json").unlink()
    method_folder.write(folder, *setup)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop(f"{BLOCK}.attn_attributes.to_q.weight"), "missing"),
        (lambda tensors: tensors.update(other=torch.ones(2)), "extra"),
        (lambda tensors: tensors.update({"conv_in.weight": torch.ones(8, 4, 3, 3)}), "of another shape"),
    ],
)  # fmt: skip
def test_a_unet_that_does_not_fit_is_named(
    written: tuple[Path, Trained], tmp_path: Path, change: Any, words: str
) -> None:
    packed.copy(written[0], tmp_path / "copy")
    file = tmp_path / "copy/unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    signed(tmp_path / "copy")
    with pytest.raises(UserError, match=words):
        read(tmp_path / "copy")


@pytest.mark.parametrize("name", ["statistics.safetensors", "denoiser.json", "unet/config.json"])
def test_a_missing_file_is_named(written: tuple[Path, Trained], tmp_path: Path, name: str) -> None:
    packed.copy(written[0], tmp_path / "copy")
    (tmp_path / "copy" / name).unlink()
    signed(tmp_path / "copy")
    with pytest.raises(UserError, match=name.split("/", maxsplit=1)[0].partition(".")[0]):
        read(tmp_path / "copy")


def test_an_unknown_objective_is_named(written: tuple[Path, Trained], tmp_path: Path) -> None:
    packed.copy(written[0], tmp_path / "copy")
    (tmp_path / "copy/denoiser.json").write_text(json.dumps({"objective": "guess"}))
    signed(tmp_path / "copy")
    with pytest.raises(UserError, match="does not know the objective 'guess'"):
        read(tmp_path / "copy")


# Options


@pytest.mark.parametrize(
    ("representation", "other", "words"),
    [
        ({}, {"splat": {"size": 9}}, "splat.size 9 to be a multiple of 2"),
        ({"decoder": "stock"}, {}, "decoder 'stock' needs a model with published weights"),
        (
            {"denoiser": {"cascade": list(Mappings().names)}},
            {},
            "denoiser.cascade .* must be some of",
        ),
        (
            {"mappings": {"rotation": "none"}, "denoiser": {"cascade": ["rotation"]}},
            {},
            "cascade rotation must be some",
        ),
        ({}, {"model": {"unet_size": {"head_dim": 4}}}, "denoiser.rotary needs heads of an even number"),
    ],
)
def test_what_does_not_fit_is_said(representation: dict[str, Any], other: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        experiment(Path("unused"), representation={"kind": "attributes", **representation}, **other)


def test_random_weights_predict_v_and_folders_tell_what_theirs_do(written: tuple[Path, Trained]) -> None:
    assert options().representation.denoiser.prediction == "model"
    representation, _, _ = method_folder.read(written[0])
    assert (representation.denoiser.prediction, representation.denoiser.betas) == ("v", "linear")
    assert denoiser().options == options().representation.denoiser.model_copy(
        update={"prediction": "v", "betas": "linear"}
    )


def test_small_heads_do_without_a_rotary_embedding() -> None:
    small = {"unet_size": {"head_dim": 4}}
    config = experiment(
        Path("unused"), model=small, representation={"kind": "attributes", "denoiser": {"rotary": False}}
    )
    assert config.new_denoiser() is not None
