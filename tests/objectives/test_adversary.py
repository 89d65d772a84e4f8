"""The adversary of stage 1: who learns from what, its adaptive weight, resumed training, and what it reaches."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from support.builders import fill, plan, stage_path, without_seconds
from support.running import interrupted
from torch import Tensor

from z1g.bench.made_up import MadeUpScenes, Sizes, experiment
from z1g.codes.book import EncodedBook
from z1g.config.tree import Experiment
from z1g.core.errors import UserError
from z1g.core.files import read_jsonl
from z1g.losses.adversarial import Adversarial
from z1g.losses.rendering import RgbLoss
from z1g.losses.splat import SplatLoss
from z1g.networks.perceptual import st_lpips
from z1g.objectives.adversary import Adversary
from z1g.objectives.autodecoder import AutodecoderObjective
from z1g.plan.folder import StageFolder
from z1g.stages import autodecoder
from z1g.training.checkpoint import CheckpointFolder
from z1g.training.data import Batch, Draw
from z1g.training.passes import EagerPasses

SIZES = Sizes(views=2, image=32, splats=16, inputs=32, channels=(16, 16), layers=1, perceptual=64)
SMALL: dict[str, Any] = {"resolution": 64, "channels": 4, "start": 0}
LAST = ("codec.decoder.decoder.conv_out.weight", "codec.decoder.geometry_out.weight")


def configuration(image: int = 32, **options: Any) -> Experiment:
    config = experiment(replace(SIZES, image=image))
    changed = {"losses": {"rgb": RgbLoss(), "splat": SplatLoss()}, "adversarial": Adversarial(**{**SMALL, **options})}
    return config.model_copy(update={"autodecoder": config.autodecoder.model_copy(update=changed)})


def objective(image: int = 32, **options: Any) -> AutodecoderObjective:
    config = configuration(image, **options)
    codec, scenes = config.new_codec(), MadeUpScenes(config, image)
    return AutodecoderObjective(config, codec, EncodedBook(sample=True), scenes, scenes.ids, None).train()


def judge(subject: AutodecoderObjective) -> Adversary:
    assert subject.adversary is not None
    return subject.adversary


def drawn(subject: AutodecoderObjective, step: int, rows: tuple[int, ...] = (2, 0)) -> Batch:
    samples = [subject.sample(Draw(row, 0, (5, step, slot))) for slot, row in enumerate(rows)]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    keys = torch.tensor([[5, step, slot] for slot in range(len(rows))])
    return batch | {"object_index": torch.tensor(rows), "key": keys}


def gradients(subject: AutodecoderObjective) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in subject.named_parameters() if p.grad is not None}


def weights(subject: Adversary) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in subject.discriminator.state_dict().items()}


def stepped(subject: AutodecoderObjective, step: int, micro_batch: int | None = None) -> dict[str, Tensor]:
    """The passes of a step and what follows, without a change of the decoder; returns the losses."""
    subject.zero_grad()
    accelerator = Accelerator(cpu=True)
    losses = EagerPasses(subject, accelerator, micro_batch)(drawn(subject, step))
    subject.after_backward(accelerator)
    return losses


@pytest.mark.slow
def test_the_decoder_and_the_discriminator_do_not_learn_from_each_others_losses() -> None:
    subject = objective(adaptive=False)
    before, decoder = weights(judge(subject)), {n: p.detach().clone() for n, p in subject.codec.named_parameters()}
    losses = subject(subject.prepare(drawn(subject, 0)))
    assert weights(judge(subject)).keys() == before.keys()
    assert not any(p.requires_grad or p.grad is not None for p in judge(subject).discriminator.parameters())
    losses["loss"].backward()
    assert all(name.startswith("codec.") for name in gradients(subject))
    assert all(torch.equal(value, before[name]) for name, value in weights(judge(subject)).items())
    found = gradients(subject)
    subject.after_backward(Accelerator(cpu=True))
    assert any(not torch.equal(value, before[name]) for name, value in weights(judge(subject)).items())
    assert all(torch.equal(p, decoder[name]) for name, p in subject.codec.named_parameters())
    torch.testing.assert_close(gradients(subject), found, atol=0, rtol=0)


def test_the_discriminators_gradients_are_those_of_its_loss() -> None:
    """Against backward passes of the loss written out, on renders of all views at once."""
    subject = objective(views=1, alpha=True)
    batch = subject.prepare(drawn(subject, 0))
    subject(batch)
    with torch.no_grad():
        pair = subject.compare(subject.codec.decode(subject.code(batch)), batch)
    network = judge(subject).discriminator.requires_grad_(True)
    outputs = []
    for rgb, alpha in ((pair.rgb_true, pair.alpha_true), (pair.rgb, pair.alpha)):
        assert rgb is not None
        assert alpha is not None
        seen = torch.cat([rgb[:, 0], alpha[:, 0]], dim=1)
        large = torch.nn.functional.interpolate(seen, (64, 64), mode="bilinear", antialias=True)
        outputs.append(network(large * 2 - 1))
    true, rendered = outputs
    (torch.nn.functional.relu(1 - true).mean() + torch.nn.functional.relu(1 + rendered).mean()).backward()
    for gradient, parameter in zip(judge(subject).gradients, network.parameters(), strict=True):
        torch.testing.assert_close(gradient / len(batch["key"]), parameter.grad, atol=1e-6, rtol=1e-4)


FEATURES: dict[str, Any] = {"judge": "features", "channels": 4, "adaptive": False, "start": 0}


def shown_to(network: torch.nn.Module) -> list[list[Tensor]]:
    """A list that will hold what a discriminator of features is called with."""
    calls: list[list[Tensor]] = []
    network.register_forward_pre_hook(lambda _, arguments: calls.append([x.detach() for x in arguments[0]]))
    return calls


def features_of(images: Tensor) -> list[Tensor]:
    """Unit features after each slice of the package's network, with its published shift and scale of inputs."""
    shift, scale = (torch.tensor(v).view(3, 1, 1) for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
    x, levels = (images * 2 - 1 - shift) / scale, []
    for i in range(1, 6):
        x = getattr(st_lpips("alex").network.net, f"slice{i}")(x)
        levels.append(x / x.norm(dim=1, keepdim=True).clamp(min=1e-10))
    return levels


def test_features_of_windows() -> None:
    """The same windows of renders and images, at the places of the R2 sequence for epoch and view."""
    subject = objective(image=80, **FEATURES, resolution=64, crop=True, views=1)
    batch = subject.prepare(drawn(subject, 0)) | {"epoch": torch.tensor([3, 4])}
    calls = shown_to(judge(subject).discriminator)
    losses = subject(batch)
    with torch.no_grad():
        pair = subject.compare(subject.codec.decode(subject.code(batch)), batch)
        expected = []
        for images in (pair.rgb_true, pair.rgb):
            assert images is not None
            # 17 places along each axis; with one view, the index of a window is its epoch.
            places = [
                [int((0.5 + (e + 1) * step) % 1 * 17) for step in (0.75487766624669, 0.56984029099805)] for e in (3, 4)
            ]
            windows = [images[i, 0, :, y : y + 64, x : x + 64] for i, (y, x) in enumerate(places)]
            expected.append(features_of(torch.stack(windows)))
        torch.testing.assert_close(
            calls[0], [torch.cat(pair) for pair in zip(*expected, strict=True)], atol=1e-5, rtol=1e-4
        )
        torch.testing.assert_close(calls[1], expected[1], atol=1e-5, rtol=1e-4)
        means = [level.mean() for level in judge(subject).discriminator(expected[1])]
    assert losses["adversarial"].item() == pytest.approx(-torch.stack(means).mean().item(), abs=1e-5)


@pytest.mark.slow
def test_features_learn_and_resume() -> None:
    """The decoder gets a gradient, the frozen network none, and a state that is read again goes on in the same way."""
    subject, again = (objective(image=64, **FEATURES, resolution=64) for _ in range(2))
    for step in range(2):
        stepped(subject, step)
    assert gradients(subject)
    assert not any(p.requires_grad or p.grad is not None for p in st_lpips("alex").network.parameters())
    again.codec.load_state_dict(subject.codec.state_dict())
    judge(again).set_extra_state(copy.deepcopy(judge(subject).get_extra_state()))
    for side in (subject, again):
        stepped(side, 2)
    torch.testing.assert_close(weights(judge(again)), weights(judge(subject)), atol=0, rtol=0)


@pytest.mark.slow
def test_the_term_is_the_mean_output() -> None:
    subject = objective(adaptive=False, weight=3.0)
    plain = subject.options.losses["rgb"].weight
    losses = stepped(subject, 0)
    assert losses["adversarial"].item() == pytest.approx(-losses["discriminator_rendered"].item())
    assert losses["adversarial_weight"].item() == 3
    rest = losses["rgb"] * plain + losses["splat"]
    assert losses["loss"].item() == pytest.approx((rest + 3 * losses["adversarial"]).item(), rel=1e-5)


@pytest.mark.slow
def test_adaptive_weight() -> None:
    """Norms of gradients that separate backward passes give; that of the own term falls by at most a tenth a step."""
    subject = objective(weight=0.25)
    norms: list[list[float]] = []
    for step in (0, 9):
        judge(subject).steps = step
        batch = subject.prepare(drawn(subject, step))
        norms.append([])
        for which in range(2):
            subject.zero_grad()
            pair = subject.compare(subject.codec.decode(subject.code(batch)), batch)
            if which == 0:
                term = RgbLoss().compute(pair) + SplatLoss().compute(pair)
            else:
                assert pair.rgb is not None
                images = torch.nn.functional.interpolate(pair.rgb.flatten(0, 1), (64, 64), mode="bilinear")
                term = -judge(subject).discriminator(2 * images - 1).mean()  # type: ignore[operator]
            term.backward()
            found = gradients(subject)
            norms[-1].append(np.sqrt(sum((found[name].double().numpy() ** 2).sum() for name in LAST)))
        losses = stepped(subject, step)
        expected = 0.25 * norms[0][0] / norms[0][1] if step else 0
        assert losses["adversarial_weight"].item() == pytest.approx(expected, rel=1e-3)
    assert norms[0] != pytest.approx(norms[1], rel=1e-2)
    own = max(norms[1][1], 0.9 * norms[0][1])
    assert judge(subject).norms.tolist() == pytest.approx([norms[1][0], own], rel=1e-3)
    assert stepped(subject, 3)["adversarial_weight"].item() == pytest.approx(0.25 * norms[1][0] / own, rel=1e-3)
    # Of the tenth step only.
    assert judge(subject).norms[0].item() == pytest.approx(norms[1][0], rel=1e-3)


def test_a_gradient_that_grows_is_noted_at_once() -> None:
    subject = judge(objective())
    for now, own in (([2.0, 8.0], 2.0), ([1.0], 1.8), ([30.0], 30.0), ([float("nan")], 30.0), ([28.0], 28.0)):
        subject.slopes = [torch.tensor([value]) for value in now]
        subject._note()
        assert subject.norms.tolist() == pytest.approx([8.0, own])
        assert subject.ratio().item() == pytest.approx(8 / own, rel=1e-5)


@pytest.mark.slow
def test_micro_batches_change_nothing() -> None:
    whole, parts = objective(), objective()
    for step in range(3):
        losses = stepped(whole, step), stepped(parts, step, micro_batch=1)
        assert losses[1].keys() == losses[0].keys()
        for name, value in losses[0].items():
            # Adam amplifies rounding of gradients near zero.
            torch.testing.assert_close(losses[1][name], value.float(), atol=1e-3 if step else 1e-5, rtol=1e-3)
    torch.testing.assert_close(gradients(parts), gradients(whole), atol=1e-5, rtol=1e-2)
    assert judge(parts).norms.tolist() == pytest.approx(judge(whole).norms.tolist(), rel=1e-2)
    for name, value in weights(judge(whole)).items():
        torch.testing.assert_close(weights(judge(parts))[name], value, atol=1.3e-3, rtol=1e-3)


def test_a_step_of_images_that_need_no_resizing() -> None:
    """Their memory format is that of files, and so is that of gradients; the step is that of Adam's plain loop."""
    subject = objective(image=64)
    network = judge(subject).discriminator
    copies = [parameter.detach().clone().requires_grad_() for parameter in network.parameters()]
    plain = torch.optim.Adam(copies, lr=2e-4, betas=(0.5, 0.9), fused=False, foreach=False)
    for step in range(2):
        subject(subject.prepare(drawn(subject, step)))
        for plain_copy, gradient in zip(copies, judge(subject).gradients, strict=True):
            plain_copy.grad = gradient / 2
        plain.step()
        subject.after_backward(Accelerator(cpu=True))
        torch.testing.assert_close(list(network.parameters()), copies, atol=1e-6, rtol=1e-5)


def test_discarded_passes_leave_nothing() -> None:
    """As after the GPU was out of memory."""
    subject, again = objective(), objective()
    subject(subject.prepare(drawn(subject, 1)))
    subject.discard()
    stepped(subject, 0)
    stepped(again, 0)
    torch.testing.assert_close(weights(judge(subject)), weights(judge(again)), atol=0, rtol=0)


def test_gradients_that_are_not_finite_are_skipped() -> None:
    subject = objective()
    stepped(subject, 0)
    before, ratio = weights(judge(subject)), judge(subject).ratio()
    parameters = {name for name, _ in judge(subject).discriminator.named_parameters()}
    subject(subject.prepare(drawn(subject, 1)))
    judge(subject).gradients[2][0] = float("nan")
    subject.after_backward(Accelerator(cpu=True))
    assert all(torch.equal(weights(judge(subject))[name], before[name]) for name in parameters)
    assert judge(subject).ratio().isfinite()
    assert ratio > 0
    stepped(subject, 2)
    assert all(value.isfinite().all() for value in weights(judge(subject)).values())


def test_mixed_precision() -> None:
    """Everything kept is in float32, and outputs are those of float32 up to rounding."""
    losses = []
    for half in (False, True):
        subject = objective(adaptive=True)
        judge(subject).norms.fill_(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            losses.append(subject(subject.prepare(drawn(subject, 0))))
        losses[-1]["loss"].backward()
        subject.after_backward(Accelerator(cpu=True))
        assert all(value.dtype == torch.float32 for value in weights(judge(subject)).values())
        assert losses[-1]["adversarial"].dtype == torch.float32
    assert losses[1]["discriminator"].item() == pytest.approx(losses[0]["discriminator"].item(), abs=0.02)


def test_nobody_learns_without_a_trained_decoder() -> None:
    config = configuration()
    codec = config.new_codec().requires_grad_(False)
    assert Adversary.of(config.autodecoder.adversarial, codec, config.autodecoder.train) is None
    codec.decoder.decoder.conv_in.requires_grad_(True)  # type: ignore[union-attr, operator]
    with pytest.raises(UserError, match=r"last layer, which is not trained; set it to false"):
        Adversary.of(config.autodecoder.adversarial, codec, config.autodecoder.train)
    assert Adversary.of(Adversarial(**SMALL, adaptive=False), codec, config.autodecoder.train) is not None


def stage(root: Path, adversarial: dict[str, Any] | None, **train: Any) -> Path:
    """Folder of a real stage 1 before training."""
    planned = plan(root, autodecoder={"adversarial": adversarial, "train": train})
    fill(planned)
    return stage_path(planned, "autodecoder")


def run(folder: Path) -> list[dict[str, Any]]:
    autodecoder.run(StageFolder.open(folder), threads=1)
    return without_seconds(read_jsonl(folder / "history.jsonl"))


@pytest.mark.slow
def test_resumed_training_is_that_of_one_run(tmp_path: Path) -> None:
    """Also of the discriminator, its optimizer and its adaptive weight, within an interval of measurements."""
    options, train = {**SMALL, "start": 0.1}, {"steps": 8, "ema": 0.9}
    whole, part = (stage(tmp_path / name, options, **train) for name in ("whole", "part"))
    rows = run(whole)
    with interrupted(before=5):
        run(part)
    assert run(part) == rows
    states = [CheckpointFolder(folder / "checkpoints").load() for folder in (whole, part)]
    assert states[0] is not None
    assert states[1] is not None
    torch.testing.assert_close(states[1][1]["objective"], states[0][1]["objective"], atol=0, rtol=0)
    kept = states[0][1]["objective"]["adversary._extra_state"]
    assert kept["steps"] == 8
    assert kept["norms"].min() > 0
    assert kept["optimizer"]["state"][0]["step"] == 8
    assert not any(name.startswith("adversary.discriminator") for name in states[0][1]["objective"])


@pytest.mark.slow
def test_the_decoder_is_unaffected_before_the_start(tmp_path: Path) -> None:
    """Ten steps with a discriminator that learns are those without; from then on they are not."""
    train = {"steps": 12, "log_every": 1, "validate_every": 10}
    plain, judged = (run(stage(tmp_path / str(i), o, **train)) for i, o in enumerate((None, {**SMALL, "start": 0.8})))
    for i, (ours, theirs) in enumerate(zip(judged, plain, strict=True)):
        same = {name: ours[name] for name in theirs}
        assert (same == theirs) == (i < 10), i
    assert [row["adversarial_weight"] > 0 for row in judged] == [False] * 10 + [True] * 2


@pytest.mark.slow
def test_the_discriminator_learns(tmp_path: Path) -> None:
    train = {"steps": 60, "log_every": 10, "validate_every": 60}
    rows = run(stage(tmp_path, {**SMALL, "start": 0.66, "channels": 8, "lr": 2e-3}, **train))
    losses = [row["discriminator"] for row in rows]
    assert losses[3] < losses[0] - 0.1
    assert losses[0] < 2.3
    assert rows[3]["discriminator_true"] > rows[3]["discriminator_rendered"] + 0.1
    assert all(np.isfinite(value) for row in rows for value in row.values())


@pytest.mark.slow
def test_a_decoder_that_is_not_trained_has_no_adversary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stage(tmp_path, SMALL)
    new = Experiment.new_codec
    monkeypatch.setattr(Experiment, "new_codec", lambda config: new(config).requires_grad_(False))
    with pytest.raises(UserError, match=r"autodecoder\.adversarial trains the decoder"):
        run(folder)
