"""Benchmarks of stage 2 at a tiny size: reported figures, and failing measurements."""

import json
import time
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from z1g.bench import infer, unet
from z1g.bench.diffusion_size import SIZES, Size, build, teraflops_a_sample
from z1g.bench.machine import guarded
from z1g.bench.variants import Variant
from z1g.cli.main import main
from z1g.core.errors import UserError
from z1g.networks.denoiser import Condition
from z1g.networks.graphs import Replayed
from z1g.representations import Attributes, Joint, Representation

CPU = torch.device("cpu")


@pytest.mark.slow
def test_training_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    real = unet.StepData

    def fail(sample, objects, batch, seed) -> object:
        if batch == 3:
            raise torch.OutOfMemoryError("no room\nfor it")
        return real(sample, objects, batch, seed)

    monkeypatch.setattr(unet, "StepData", fail)
    figures = unet.measure("tiny", ["b2+cudnn", "b3", "b4+autocast+unfused+launched+micro2"], 1, 600)
    json.dumps(figures, allow_nan=False)
    first, broken, second = figures["runs"]
    assert broken["error"] == "OutOfMemoryError: no room"
    for row, batch in ((first, 2), (second, 4)):
        assert row["batch"] == batch
        assert row["samples_per_s"] == pytest.approx(batch / row["step_s"], rel=0.01)
        ratio = row["samples_per_s"] / figures["original_way"]["samples_per_s"]
        assert row["ratio_to_original_way"] == pytest.approx(ratio, abs=0.02)
    assert figures["best"] in (first, second)
    assert figures["work"]["tflop_a_sample"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("representation", [Attributes(), Joint()], ids=lambda r: r.kind)
def test_other_representations_are_measured(monkeypatch: pytest.MonkeyPatch, representation: Representation) -> None:
    size = Size(SIZES["tiny"].model, representation, 16, 16)
    monkeypatch.setitem(SIZES, representation.kind, size)
    assert size.code == ((30, 4, 8, 8) if representation.kind == "attributes" else (6, 4, 8, 8))
    real, precisions = unet.Trainer, []

    def trainer(*arguments: Any) -> Any:
        made = real(*arguments)
        precisions.append(made.accelerator.mixed_precision)
        return made

    monkeypatch.setattr(unet, "Trainer", trainer)
    monkeypatch.setattr("z1g.training.loop._precision", lambda options: "bf16" if options.precision == "auto" else "no")
    figures = unet.measure(representation.kind, ["b1", "b2", "b1+fp32+unfused+launched"], 1, 600)
    assert figures["layer_by_layer"]["batch"] == 2
    assert precisions == ["bf16", "bf16", "bf16", "no"]
    for row in figures["runs"]:
        ratio = row["samples_per_s"] / figures["layer_by_layer"]["samples_per_s"]
        assert row["ratio_to_layer_by_layer"] == pytest.approx(ratio, abs=0.02)
    assert "seconds" in infer.measure(representation.kind, ["b1"], 2, 1, 600)["runs"][0]


@pytest.mark.slow
def test_sampling_is_measured() -> None:
    figures = infer.measure("tiny", ["b1+graphs", "b2+fp32+cudnn"], 2, 1, 600)
    json.dumps(figures, allow_nan=False)
    assert [row["batch"] for row in figures["runs"]] == [1, 2]
    for row in figures["runs"]:
        assert row["objects_per_s"] == pytest.approx(row["batch"] / row["seconds"], rel=0.05)
        assert {"first_call_s", "ratio_to_original_way"} <= set(row)
        assert all(row[part] > 0 for part in ("condition_s", "unet_s", "decode_s"))


@pytest.mark.slow
def test_sampling_without_guidance_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of the UNet an object; the original's way keeps its own guidance."""
    rows, called = [], infer.ImageToSplats.__call__

    def watched(self: infer.ImageToSplats, images: torch.Tensor, seeds: list[int]) -> object:
        rows.append((self.options.precision, self.options.guidance))
        return called(self, images, seeds)

    monkeypatch.setattr(infer.ImageToSplats, "__call__", watched)
    figures = infer.measure("tiny", ["b1"], 2, 1, 600, guidance=1)
    assert figures["guidance"] == 1
    assert set(rows) == {("fp32", 4), ("auto", 1)}


def test_guidance_below_one_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("0.5", "nan"):
        assert main(["bench", "infer", "--size", "tiny", "--guidance", text]) == 2
        assert "--guidance must be at least 1" in capsys.readouterr().err


def test_the_commands_print_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(["bench", "unet", "--size", "tiny", "--steps", "1", "--variants", "b1", "--seconds", "0", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["runs"][0]["error"] == "TimeoutError: no time left; raise --seconds"


def test_a_measurement_is_stopped_in_time() -> None:
    row = guarded("slow", lambda: time.sleep(30) or {}, CPU, time.perf_counter() + 0.3)
    assert row["error"].startswith("TimeoutError: stopped")
    assert row["wall_s"] < 10


@pytest.mark.parametrize("part", ["unet", "autodecoder", "infer"])
def test_a_batch_of_nothing_is_an_error(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its row would have an error, and the exit code would be 0."""
    assert main(["bench", part, "--variants", "b1", "b0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "name",
    ["16", "b4+fast", "b4+cudnn+", "b0", "b00", "b", "b²", "b10000", "b4+micro0", "b4+micro²", "b4+micro2+micro1"],
)
def test_unknown_variants_are_rejected(name: str) -> None:
    with pytest.raises(UserError, match="is b<objects>"):
        Variant.parse(name, ("cudnn",))


def test_variants() -> None:
    assert Variant.parse("b32+cudnn+micro8", ("cudnn",)) == Variant("b32+cudnn+micro8", 32, frozenset(["cudnn"]), 8)


def test_operations_are_counted_as_by_hand() -> None:
    """2·k²·inputs operations for each output of a linear or convolution, 4·N·M·width for attention, both passes."""
    denoiser, count = build(SIZES["tiny"], CPU, vision=False), [0.0]

    def layer(module, inputs, output) -> None:
        size = module.in_features if isinstance(module, nn.Linear) else module.weight[0].numel()
        count[0] += 2 * output.numel() * size

    def attention(module, args, kwargs, output) -> None:
        context = kwargs.get("encoder_hidden_states")
        # In the read pass, keys include the condition's tokens: as many as in the write pass.
        tokens, name = args[0].shape[1], id(module)
        others = context.shape[1] if context is not None else tokens + written.get(name, 0)
        written[name] = tokens
        count[0] += 4 * tokens * others * module.inner_dim

    written: dict[int, int] = {}
    for module in denoiser.unet.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.register_forward_hook(layer)
        elif isinstance(module, Attention):
            module.register_forward_hook(attention, with_kwargs=True)
    counted = teraflops_a_sample(SIZES["tiny"], denoiser, CPU, backward=False)
    assert counted == pytest.approx(count[0] / 1e12, rel=1e-6)


def test_replayed_without_a_gpu_is_the_denoiser() -> None:
    denoiser = build(SIZES["tiny"], CPU, vision=False).requires_grad_(False)
    condition = Condition(torch.randn(2, 4, 8, 8), torch.randn(2, 16))
    inputs = torch.randn(2, *SIZES["tiny"].code), torch.tensor([3, 800]), condition, torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(Replayed(denoiser)(*inputs), denoiser(*inputs), atol=0, rtol=0)


@pytest.mark.gpu
def test_replays_follow_their_inputs() -> None:
    device = torch.device("cuda")
    denoiser = build(SIZES["tiny"], device, vision=False).requires_grad_(False).eval()
    replayed = Replayed(denoiser)
    for seed, batch in ((0, 2), (1, 2), (2, 3), (3, 2)):
        torch.manual_seed(seed)
        condition = Condition(torch.randn(batch, 4, 8, 8).to(device), torch.randn(batch, 16).to(device))
        code = torch.randn(batch, *SIZES["tiny"].code).to(device)
        timestep = torch.randint(1000, (batch,)).to(device)
        noise = torch.randn(batch, 4, 8, 8).to(device)
        expected = denoiser(code, timestep, condition, noise)
        torch.testing.assert_close(replayed(code, timestep, condition, noise), expected, atol=1e-4, rtol=0)
    assert len(replayed._recordings) == 2
