"""Adam with moments in bfloat16 or 8 bits: against float64, in memory, and over checkpoints."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file
from support.builders import Toy, fill, plan, stage_path, toy_options
from support.ddp_cases import WideToy
from support.die import run_and_die
from support.running import interrupted
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.plan.folder import StageFolder
from z1g.stages import autodecoder, codes, unet
from z1g.training import compact_adam
from z1g.training.checkpoint import CheckpointFolder
from z1g.training.compact_adam import CompactAdamW
from z1g.training.loop import Trainer
from z1g.training.moments import BLOCK, LEAST, BFloat16, Int8, table

CPU = torch.device("cpu")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RATES: dict[str, Any] = {"lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1}
FORMS = ("bfloat16", "int8")


def compact(parameters: list[nn.Parameter], form: Any, seed: int = 0, **rates: Any) -> CompactAdamW:
    return CompactAdamW([{"params": parameters, **rates}], **RATES, state=form, seed=seed)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Forms


def test_the_table_is_that_of_the_paper() -> None:
    """Entries computed by hand: 2^k middles of equal intervals of the k-th decade, 10^(k-6) being its end."""
    signed, unsigned = (table(s, CPU).double().numpy() for s in (True, False))
    for entries in (signed, unsigned):
        assert len(np.unique(entries)) == 256
        assert entries[-1] == 1
        assert (np.diff(entries) > 0).all()
    np.testing.assert_allclose(signed[126:131], [-5.5e-7, 0, 5.5e-7, 3.25e-6, 7.75e-6], rtol=1e-6)
    np.testing.assert_allclose(unsigned[:4], [0, 3.25e-7, 7.75e-7, 2.125e-6], rtol=1e-6)
    assert signed[0] == pytest.approx(-(1 - 0.45 / 64))
    assert unsigned[-2] == pytest.approx(1 - 0.45 / 128)


@given(
    st.lists(st.floats(-1, 1, width=32, allow_subnormal=False), min_size=1, max_size=40),
    st.floats(-20, 3),
    st.booleans(),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_every_value_gets_the_nearest_code(some: list[float], exponent: float, signed: bool, spread: int) -> None:
    values = torch.zeros(2 * BLOCK)
    values[: len(some)] = torch.tensor(some) * 10.0**exponent
    values[BLOCK:] = torch.randn(BLOCK, generator=draws(spread)) * 10.0 ** -(torch.arange(BLOCK) * spread / BLOCK)
    # Some machines take subnormal numbers for zero. None is drawn, is a share of the largest or is read back.
    values[values.abs() < 2 * LEAST * values.abs().max().clamp(min=1)] = 0.0
    values = values if signed else values.abs()
    form = Int8(signed=signed)
    read = form.read(form.write(form.zeros(2 * BLOCK, CPU), values, draws())).double().numpy()
    entries = table(signed, CPU).double().numpy()
    for block, got in zip(values.double().numpy().reshape(2, BLOCK), read.reshape(2, BLOCK), strict=True):
        scale = np.abs(block).max()
        distance = np.abs(block[:, None] - entries * scale)
        if not signed:
            distance[:, 0][block > 0] = np.inf  # only zero is rounded to zero
        np.testing.assert_allclose(np.abs(block - got), distance.min(axis=1), atol=2e-7 * scale + 1e-37)
        assert signed or ((got > 0) == (block > 0)).all()


def test_bfloat16_is_right_on_average() -> None:
    """Each write gives one of the two neighbors in bfloat16; their mean is the value."""
    value, form = torch.full((BLOCK,), 1 + 2**-7 * 0.3), BFloat16()
    generator = draws(4)
    written = torch.stack([form.write({}, value, generator)["values"].double() for _ in range(400)])
    assert set(written.unique().tolist()) == {1.0, 1 + 2**-7}
    # A mean of 102,400 draws has a standard deviation of 2^-7 · sqrt(0.21 / 102400).
    assert written.mean().item() == pytest.approx(value[0].item(), abs=4 * 2**-7 * (0.21 / 102400) ** 0.5)
    exact = torch.randn(BLOCK, generator=generator).bfloat16()
    assert torch.equal(form.write({}, exact.float(), generator)["values"], exact)
    assert torch.equal(form.write({}, -exact.float(), generator)["values"], -exact)


# Against Adam in float64


def exact_adamw(start: NDArray[Any], gradients: list[NDArray[Any]]) -> NDArray[Any]:
    """Weights after steps of AdamW with `RATES`, in float64 and by numpy (Loshchilov & Hutter, algorithm 2)."""
    weight, (b1, b2) = start.astype(np.float64), RATES["betas"]
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    for t, g in enumerate((g.astype(np.float64) for g in gradients), start=1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        adam = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
        weight = weight - RATES["lr"] * (adam + RATES["weight_decay"] * weight)
    return weight


def moved(shape: tuple[int, ...], form: str, steps: int) -> tuple[Tensor, NDArray[Any], Tensor]:
    """Weights after steps with noisy gradients of three decades, the same in float64, and where they began."""
    generator = draws(1)
    sizes = 10.0 ** torch.empty(shape).uniform_(-3, 0, generator=generator)
    start = torch.randn(shape, generator=generator)
    gradients = [sizes * (1 + torch.randn(shape, generator=generator)) for _ in range(steps)]
    weight = nn.Parameter(start.clone())
    optimizer = compact([weight], form)
    for gradient in gradients:
        weight.grad = gradient
        optimizer.step()
    return weight.detach(), exact_adamw(start.numpy(), [g.numpy() for g in gradients]), start


@pytest.mark.parametrize("form", FORMS)
def test_the_first_step_is_that_of_adam(form: str) -> None:
    """Moments are rounded after a step, so that its own update is exact."""
    ours, exact, _ = moved((70, 80), form, steps=1)
    np.testing.assert_allclose(ours.numpy(), exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("form", "bound"), [("bfloat16", 0.005), ("int8", 0.06), ("small", 1e-5)])
def test_many_steps_stay_near_adam(form: str, bound: float) -> None:
    """Root mean square of the difference, as a part of the distance; small tensors are as exact as float32."""
    shape = (8, 16) if form == "small" else (64, 128)
    ours, exact, start = moved(shape, "int8" if form == "small" else form, steps=60)
    distance = np.sqrt(np.square(exact - start.numpy()).mean())
    error = np.sqrt(np.square(ours.double().numpy() - exact).mean())
    assert distance > 10 * RATES["lr"]
    assert error < bound * distance
    assert (error > 1e-5 * distance) == (form != "small"), "moments were rounded"


@pytest.mark.parametrize("form", FORMS)
def test_a_quadratic_converges(form: str) -> None:
    """f(w) = ½ Σ h (w - t)², with curvatures over four decades."""
    generator = draws(2)
    curvature = 10.0 ** torch.linspace(-4, 0, 4096)
    target = torch.randn(4096, generator=generator)
    weight = nn.Parameter(torch.zeros(4096))
    optimizer = CompactAdamW([{"params": [weight]}], lr=0.05, betas=(0.9, 0.95), weight_decay=0, state=form, seed=0)  # type: ignore[arg-type]
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        weight.grad = curvature * (weight.detach() - target)
        optimizer.step()
    assert (weight.detach() - target).abs().max() < 5e-3


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_network_learns_as_with_adam(form: str) -> None:
    def learn(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> list[float]:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            network = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 64))
            x = torch.randn(256, 64)
            y = (x @ torch.randn(64, 64) / 8).sin()
        optimizer, losses = make(list(network.parameters())), []
        for _ in range(150):
            optimizer.zero_grad()
            loss = (network(x) - y).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses

    exact = learn(lambda parameters: torch.optim.AdamW(parameters, **RATES))
    ours = learn(lambda parameters: compact(parameters, form))
    assert exact[-1] < 0.1 * exact[0]
    np.testing.assert_allclose(ours[:100], exact[:100], rtol=0.05)
    assert ours[-1] < 1.1 * exact[-1]


# What training needs of an optimizer


@pytest.mark.parametrize("form", FORMS)
def test_a_broken_step_changes_nothing(form: str) -> None:
    weights = [nn.Parameter(torch.randn(100, 50, generator=draws(i))) for i in range(2)]
    optimizer = compact(weights, form)
    for broken in (True, False, True):
        for weight in weights:
            weight.grad = torch.full_like(weight, float("nan") if broken else 0.5)
        before = (
            [w.detach().clone() for w in weights],
            [v.clone() for s in optimizer.state.values() for v in s.values()],
        )
        optimizer.found_inf = torch.tensor(float(broken))
        optimizer.step()
        after = [v for s in optimizer.state.values() for v in s.values()]
        assert all(torch.equal(a, b) == broken for a, b in zip(weights, before[0], strict=True))
        if before[1]:
            assert all(torch.equal(a, b) for a, b in zip(after, before[1], strict=True)) == broken
    assert [state["step"].item() for state in optimizer.state.values()] == [1, 1]


@pytest.mark.parametrize("form", FORMS)
def test_parameters_without_a_gradient_are_left_out(form: str) -> None:
    """They have steps of their own, as in torch's AdamW: the later one has the bias correction of its first step."""
    generator = draws(5)
    shapes = [(64, 64), (4, 4), (80, 80), (3,), (64, 65)]
    ours = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    optimizers = compact(ours, form), torch.optim.AdamW(theirs, **RATES)
    for step in range(2):
        for i, pair in enumerate(zip(ours, theirs, strict=True)):
            gradient = torch.randn(shapes[i], generator=generator)
            for p in pair:
                p.grad = None if step == 0 and i in (2, 3) else gradient
        for optimizer in optimizers:
            optimizer.step()
    for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
        # Others are in their second step, whose moments have been rounded; those of small ones have not.
        torch.testing.assert_close(p, q, atol=1e-6 if i in (1, 2, 3) else 1e-3, rtol=0, msg=f"{i}")
    assert [optimizers[0].state[p]["step"].item() for p in ours] == [2, 2, 1, 1, 2]


@pytest.mark.parametrize("form", FORMS)
def test_neither_layout_nor_parts_matter(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights in channels_last, and a parameter that is updated in parts, give the same figures."""

    def run(layout: torch.memory_format, at_once: int) -> list[Tensor]:
        monkeypatch.setattr(compact_adam, "AT_ONCE", at_once)
        generator = draws(6)
        weights = [torch.randn(40, 30, 3, 3, generator=generator) for _ in range(3)]
        parameters = [nn.Parameter(w.to(memory_format=layout)) for w in weights]
        optimizer = compact(parameters, form)
        for _ in range(3):
            for p in parameters:
                p.grad = torch.randn(p.shape, generator=generator).to(memory_format=layout)
            optimizer.step()
        return [p.detach().contiguous() for p in parameters]

    plain = run(torch.contiguous_format, 2**22)
    torch.testing.assert_close(run(torch.channels_last, 2**22), plain, rtol=0, atol=0)
    if form == "int8":  # parts of stochastic rounding have draws of their own
        torch.testing.assert_close(run(torch.contiguous_format, 4096), plain, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, of gradients that are not finite
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.0, 0.999)])
def test_the_kernel_does_the_same(betas: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, or in Triton's interpreter: codes differ by one where rounding decides, and by none elsewhere."""
    pytest.importorskip("triton")
    generator, shapes = draws(7), [(64, 65), (70, 80), (8, 16), (4097,), (16, 300)]
    starts = [torch.randn(shape, generator=generator) for shape in shapes]
    sizes = [10.0 ** torch.empty(shape).uniform_(-4, 0, generator=generator) for shape in shapes]
    gradients = [[size * torch.randn(size.shape, generator=generator) for size in sizes] for _ in range(3)]
    gradients[1][3] = torch.zeros(4097)
    ended = []
    for fused in (True, False):
        monkeypatch.setattr(compact_adam, "available", lambda _, fused=fused: fused)
        weights = [nn.Parameter(start.clone().to(DEVICE)) for start in starts]
        optimizer = CompactAdamW([{"params": weights}], lr=0.01, betas=betas, weight_decay=0.1, state="int8", seed=0)
        for step, some in enumerate(gradients):
            for i, (weight, gradient) in enumerate(zip(weights, some, strict=True)):
                weight.grad = None if (step, i) == (0, 1) else gradient.to(DEVICE)
            optimizer.step()
            # A step that is not finite leaves everything as it is.
            for weight in weights:
                weight.grad = torch.full_like(weight, float("nan"))
            optimizer.found_inf = torch.ones((), device=DEVICE)
            optimizer.step()
            optimizer.found_inf = None
        ended.append((weights, [optimizer.state[weight] for weight in weights]))
    for ours, theirs, kernel, plain in zip(ended[0][0], ended[1][0], ended[0][1], ended[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3 * 0.01, rtol=1e-6)
        assert kernel.keys() == plain.keys()
        for name, value in kernel.items():
            if name.endswith("codes"):
                distance = (value.int() - plain[name].int()).abs()
                assert distance.max() <= 1
                assert distance.float().mean() < 1e-3
            else:
                torch.testing.assert_close(value, plain[name], rtol=1e-5, atol=1e-12)


def test_bytes_of_moments() -> None:
    sizes = {}
    for form in FORMS:
        weight = nn.Parameter(torch.zeros(512, 512))
        weight.grad = torch.zeros_like(weight)
        optimizer = compact([weight], form)
        optimizer.step()
        sizes[form] = sum(v.numel() * v.element_size() for v in optimizer.state[weight].values()) / weight.numel()
    assert sizes == pytest.approx({"bfloat16": 4, "int8": 2 + 8 / 256}, rel=1e-4)


# Checkpoints


def train(folder: Path, form: str, toy: Toy | None = None) -> Toy:
    toy = toy or WideToy()
    options = toy_options(optimizer={"lr": 0.02, "state": form})
    Trainer(toy, toy.data(options), options, folder).run()
    return toy


def assert_same(first: nn.Module, second: nn.Module) -> None:
    torch.testing.assert_close(dict(first.named_parameters()), dict(second.named_parameters()), atol=0, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_resumed_is_never_stopped(form: str, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", form)
    with interrupted(after=6):
        train(tmp_path / "part", form)
    assert_same(train(tmp_path / "part", form), whole)
    with pytest.raises(AssertionError, match="not equal"):
        assert_same(train(tmp_path / "exact", "float32"), whole)


@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_have_the_moments_as_they_are(form: str, tmp_path: Path) -> None:
    train(tmp_path, form)
    loaded = CheckpointFolder(tmp_path / "checkpoints").load()
    assert loaded is not None
    stored = loaded[1]["optimizer"]["state"][0]
    dtypes = {value.dtype for name, value in stored.items() if name != "step"}
    assert dtypes == {"bfloat16": {torch.bfloat16}, "int8": {torch.uint8, torch.float32}}[form]


def test_moments_of_another_form_are_refused(tmp_path: Path) -> None:
    train(tmp_path, "float32")
    with pytest.raises(UserError, match=r"not of train\.optimizer\.state int8.*delete the checkpoints"):
        train(tmp_path, "int8")


def test_checkpoints_of_before_are_read(tmp_path: Path) -> None:
    """The default is torch's own AdamW, with the entries that checkpoints have always had."""
    toy, options = Toy(), toy_options()
    trainer = Trainer(toy, toy.data(options), options, tmp_path / "whole")
    trainer.run()
    loaded = CheckpointFolder(tmp_path / "whole" / "checkpoints").load()
    assert loaded is not None
    assert type(trainer.optimizer.optimizer) is torch.optim.AdamW
    assert set(loaded[1]["optimizer"]["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.slow
def test_a_killed_stage_goes_on(tmp_path: Path) -> None:
    """Stage 2 by its command, with moments of larger tensors in 8 bits, and an average."""
    folders = {}
    for name in ("whole", "part"):
        train_options = {"ema": 0.7, "optimizer": {"state": "int8"}}
        planned = plan(tmp_path / name, unet={"train": train_options})
        fill(planned)
        for stage in (autodecoder, codes):
            stage.run(StageFolder.open(stage_path(planned, stage.__name__.rpartition(".")[2])), threads=1)
        folders[name] = stage_path(planned, "unet")
    killed = run_and_die("SIGKILL", "step-3", "unet", folders["part"])
    assert killed.code == -signal.SIGKILL, killed.output
    for folder in folders.values():
        unet.run(StageFolder.open(folder), threads=1)
    first, second = (
        load_file(f / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors") for f in folders.values()
    )
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    loaded = CheckpointFolder(folders["whole"] / "checkpoints").load()
    assert loaded is not None
    assert any("first_codes" in state for state in loaded[1]["optimizer"]["state"].values())
