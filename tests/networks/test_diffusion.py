"""The diffusion process, reference attention and the denoiser."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from support.builders import SIZES
from support.diffusion import PUBLISHED, SCHEDULE, SHAPE, code_condition, condition_of, micro_denoiser, normal
from torch import Tensor
from transformers import CLIPImageProcessor

from z1g.networks import reference_attention
from z1g.networks.denoiser import Condition
from z1g.networks.diffusion import TIMESTEPS
from z1g.networks.reference_attention import ReferenceAttention
from z1g.networks.timesteps.uniform import Uniform
from z1g.networks.weights.scratch import Scratch

# The algebra


def test_v_eps_x0_algebra() -> None:
    x0, noise, t = (
        normal(5, *SHAPE, seed=1, dtype=torch.float64),
        normal(5, *SHAPE, seed=2, dtype=torch.float64),
        torch.tensor([0, 1, 500, 998, 999]),
    )
    noisy, v = SCHEDULE.add_noise(x0, noise, t), SCHEDULE.velocity(x0, noise, t)
    torch.testing.assert_close(SCHEDULE.x0_from_v(noisy, v, t), x0, atol=1e-12, rtol=0)
    torch.testing.assert_close(SCHEDULE.noise_from_v(noisy, v, t), noise, atol=1e-12, rtol=0)
    torch.testing.assert_close(SCHEDULE.alpha**2 + SCHEDULE.sigma**2, torch.ones(TIMESTEPS, dtype=torch.float64))


def test_schedule_by_hand() -> None:
    product = 1.0
    for i in range(1000):
        beta = 0.00085 + i / 999 * (0.012 - 0.00085)
        product *= 1 - beta
        if i in (0, 10, 999):
            assert SCHEDULE.alpha[i].item() == pytest.approx(math.sqrt(product), rel=1e-12)
            assert SCHEDULE.snr(torch.tensor([i])).item() == pytest.approx(product / (1 - product), rel=1e-5)


def test_schedule_equals_diffusers() -> None:
    theirs = DDPMScheduler(**PUBLISHED)
    np.testing.assert_allclose(SCHEDULE.alpha.numpy() ** 2, theirs.alphas_cumprod.double().numpy(), rtol=1e-4)
    x0, noise, t = (normal(4, *SHAPE, seed=s) for s in (1, 2, 3))
    t = torch.tensor([0, 250, 600, 999])
    torch.testing.assert_close(SCHEDULE.add_noise(x0, noise, t), theirs.add_noise(x0, noise, t), atol=2e-5, rtol=0)
    torch.testing.assert_close(SCHEDULE.velocity(x0, noise, t), theirs.get_velocity(x0, noise, t), atol=2e-5, rtol=0)


# Reference attention


def attention(cross: int | None = None) -> Attention:
    torch.manual_seed(0)
    return Attention(query_dim=6, cross_attention_dim=cross, heads=2, dim_head=3).double()


def by_hand(layer: Attention, x: Tensor, context: Tensor) -> Tensor:
    out = []
    for row, tokens in zip(x, context, strict=True):
        query, key, value = row @ layer.to_q.weight.T, tokens @ layer.to_k.weight.T, tokens @ layer.to_v.weight.T
        heads = []
        for h in range(2):
            part = slice(3 * h, 3 * h + 3)
            logits = query[:, part] @ key[:, part].T / math.sqrt(3)
            weights = torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)
            heads.append(weights @ value[:, part])
        out.append(torch.cat(heads, dim=1) @ layer.to_out[0].weight.T + layer.to_out[0].bias)
    return torch.stack(out)


def test_write_pass_is_plain_attention_and_stores_its_tokens() -> None:
    layer, x, memory = attention(), normal(2, 5, 6, dtype=torch.float64), {}
    out = ReferenceAttention("here", self_attention=True)(layer, x, write=memory)
    torch.testing.assert_close(out, by_hand(layer, x, x))
    assert list(memory) == ["here"]
    torch.testing.assert_close(memory["here"], x)


def test_read_pass_attends_to_own_and_stored_tokens() -> None:
    layer, x, other = attention(), normal(2, 5, 6, dtype=torch.float64), normal(2, 3, 6, seed=1, dtype=torch.float64)
    out = ReferenceAttention("here", self_attention=True)(layer, x, read={"here": other})
    torch.testing.assert_close(out, by_hand(layer, x, torch.cat([x, other], dim=1)))


def test_cross_attention_is_untouched() -> None:
    layer, x, prompt, memory = (
        attention(cross=6),
        normal(2, 5, 6, dtype=torch.float64),
        normal(2, 4, 6, seed=1, dtype=torch.float64),
        {},
    )
    processor = ReferenceAttention("here", self_attention=False)
    expected = by_hand(layer, x, prompt)
    torch.testing.assert_close(processor(layer, x, prompt, write=memory), expected)
    torch.testing.assert_close(processor(layer, x, prompt, read={"here": x}), expected)
    assert memory == {}


def test_only_attn1_layers_are_self_attention() -> None:
    unet = micro_denoiser().unet
    reference_attention.install(unet)
    self_attention = {name: processor.self_attention for name, processor in unet.attn_processors.items()}
    assert {name for name, is_self in self_attention.items() if is_self} == {
        name for name in self_attention if ".attn1." in name
    }
    assert sum(self_attention.values()) == len(self_attention) / 2 > 0


def test_write_pass_equals_the_untouched_unet() -> None:
    denoiser = micro_denoiser()
    plain = UNet2DConditionModel.from_config(denoiser.unet.config)
    plain.load_state_dict(denoiser.unet.state_dict())
    sample, tokens = normal(2, *SHAPE), normal(2, 4, 16)
    t = torch.tensor([7, 90])
    expected = plain.eval()(sample, t, encoder_hidden_states=tokens).sample
    memory: reference_attention.Memory = {}
    torch.testing.assert_close(reference_attention.run(denoiser.unet, sample, t, tokens, write=memory), expected)
    assert len(memory) == 4, "one self-attention down, one in the middle, two up"


# The denoiser


def test_output_depends_on_everything() -> None:
    denoiser = micro_denoiser()
    noisy, noise = normal(2, *SHAPE), normal(2, 4, 4, 4, seed=3)
    t, condition = torch.tensor([100, 900]), condition_of(denoiser, 2)
    base = denoiser(noisy, t, condition, noise)
    assert base.shape == noisy.shape
    changes = {
        "latent": denoiser(noisy, t, Condition(condition.latent + 1, condition.embedding), noise),
        "embedding": denoiser(noisy, t, Condition(condition.latent, condition.embedding + 1), noise),
        "condition noise": denoiser(noisy, t, condition, noise + 1),
        "timestep": denoiser(noisy, t + 50, condition, noise),
    }
    for name, changed in changes.items():
        assert (changed - base).abs().max() > 1e-5, name


def test_rows_do_not_mix() -> None:
    denoiser = micro_denoiser()
    noisy, noise = normal(2, *SHAPE), normal(2, 4, 4, 4, seed=3)
    t, condition = torch.tensor([100, 900]), condition_of(denoiser, 2)
    together = denoiser(noisy, t, condition, noise)
    second = Condition(condition.latent[1:], condition.embedding[1:])
    torch.testing.assert_close(denoiser(noisy[1:], t[1:], second, noise[1:])[0], together[1], atol=1e-5, rtol=0)


def test_condition_is_noised_to_the_same_timestep() -> None:
    denoiser = micro_denoiser()
    condition, noise, t = condition_of(denoiser, 1), normal(1, 4, 4, 4), torch.tensor([400])
    seen: list[Tensor] = []
    denoiser.unet.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    noisy = normal(1, *SHAPE)
    denoiser(noisy, t, condition, noise)
    torch.testing.assert_close(seen[0], SCHEDULE.add_noise(condition.latent, noise, t))
    torch.testing.assert_close(seen[1], noisy)


def test_tokens_are_prompt_plus_ramped_embedding() -> None:
    denoiser = micro_denoiser()
    condition = condition_of(denoiser, 1)
    seen: list[Tensor] = []
    block = denoiser.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    block.to_k.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    denoiser(torch.zeros(1, *SHAPE), torch.tensor([1]), condition, torch.zeros(1, 4, 4, 4))
    ramp = torch.linspace(0, 1, 4)
    expected = denoiser.prompt + ramp[:, None] * condition.embedding[0]
    for tokens in seen:
        torch.testing.assert_close(tokens[0], expected)
    assert len(seen) == 2, "both passes"


def test_no_condition() -> None:
    denoiser = micro_denoiser()
    zero = normal(1, 4, 4, 4)
    nothing = denoiser.nothing(zero, 3)
    torch.testing.assert_close(nothing.latent, zero.expand(3, 4, 4, 4))
    torch.testing.assert_close(nothing.embedding, torch.zeros(3, 16))


def test_where_picks_rows() -> None:
    first, second = code_condition(3, seed=1), Condition(code_condition(3, seed=2).latent, torch.zeros(3, 1))
    mixed = first.where(torch.tensor([True, False, True]), second)
    torch.testing.assert_close(mixed.latent, torch.stack([first.latent[0], second.latent[1], first.latent[2]]))
    assert mixed.embedding.flatten().tolist() == [1, 0, 1]


def test_embedding_equals_the_clip_processor() -> None:
    """Pixels equal transformers' processor on the same 8-bit image, up to rounding to 8 bits."""
    denoiser = micro_denoiser()
    image = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    image = torch.nn.functional.interpolate(image, (40, 40), mode="bilinear")
    image = (image * 255).round() / 255
    seen: list[Tensor] = []
    denoiser.vision.vision_model.embeddings.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0] if args else kwargs["pixel_values"]), with_kwargs=True
    )
    denoiser.embed(image)
    processor = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=16)
    array = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
    expected = processor(array, return_tensors="pt").pixel_values
    torch.testing.assert_close(seen[0], expected, atol=1.05 / 255 / 0.26, rtol=0)


def test_scratch_is_seeded() -> None:
    first, second, other = (Scratch(init_seed=s, **SIZES).denoiser().state_dict() for s in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_scratch_trains_its_conditioning() -> None:
    denoiser = Scratch(**SIZES).denoiser()
    assert denoiser.prompt.requires_grad
    assert all(p.requires_grad for p in denoiser.vision.parameters())
    assert all(p.requires_grad for p in denoiser.unet.parameters())


# Timesteps


def test_the_original_never_trains_the_last_timestep() -> None:
    uniform = torch.linspace(0, 1, 200_001, dtype=torch.float64)[:-1]
    original, ours = Uniform(below=999).draw(uniform, TIMESTEPS), Uniform().draw(uniform, TIMESTEPS)
    assert (int(original.min()), int(original.max())) == (0, 998)
    assert (int(ours.min()), int(ours.max())) == (0, 999)
    counts = torch.bincount(original)
    assert int(counts.max() - counts.min()) <= 1, "all equally often"
    assert torch.equal(original, torch.floor(uniform * 999).long())
