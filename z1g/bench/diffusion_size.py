"""What both measurements of stage 2 share: sizes, networks on the device, the machine's rate, and a guard."""

import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from z1g.bench.machine import MIB
from z1g.model.scratch import AutoencoderSize, Scratch, UNetSize, VisionSize
from z1g.networks.denoiser import Condition, Denoiser

TERA = 1e12
log = logging.getLogger("z1g")


@dataclass(frozen=True)
class Size:
    """Networks, and sides in pixels of an input view and of the condition picture."""

    model: Scratch
    view: int
    condition: int

    @property
    def code(self) -> tuple[int, int, int]:
        """C,h,w of a code: six views in three rows of two."""
        side = self.view // self.model.latent_factor
        return self.model.autoencoder_size.latent_channels, 3 * side, 2 * side

    @property
    def condition_latent(self) -> tuple[int, int, int]:
        """C,h,w of a condition's latent."""
        side = self.condition // self.model.latent_factor
        return self.model.autoencoder_size.latent_channels, side, side


SIZES = {
    "full": Size(Scratch(), 320, 320),
    "tiny": Size(
        Scratch(
            autoencoder_size=AutoencoderSize(channels=(8, 8), layers_per_block=1, norm_groups=4),
            unet_size=UNetSize(channels=(8, 16), layers_per_block=1, head_dim=8, cross_attention_dim=16, norm_groups=4),
            vision_size=VisionSize(image_size=16, patch_size=8, width=16, layers=1, heads=2),
            prompt_tokens=4,
        ),
        16,
        16,
    ),
}
"""full: SD 2.1's UNet of 866 M parameters, ViT-H, codes of 120×80, conditions of 320². tiny: for a CPU and tests."""


def build(size: Size, device: torch.device, *, vision: bool) -> Denoiser:
    """Random networks, made where they are used. Without `vision` the image encoder is a token one, as if cached."""
    model = size.model
    if not vision:
        model = model.model_copy(update={"vision_size": SIZES["tiny"].model.vision_size})
    with torch.device(device):
        denoiser = model.denoiser()
        nn.init.normal_(denoiser.unet.conv_out.weight, std=0.02)
    denoiser.train_conditioning = False
    denoiser.vision.requires_grad_(False)
    denoiser.prompt.requires_grad_(False)
    return denoiser.to(device)


def random_condition(size: Size, batch: int, device: torch.device) -> Condition:
    """Cached conditions of a batch."""
    width = size.model.unet_size.cross_attention_dim
    return Condition(
        torch.randn(batch, *size.condition_latent, device=device), torch.randn(batch, width, device=device)
    )


def teraflops_a_sample(size: Size, denoiser: Denoiser, device: torch.device, *, backward: bool) -> float:
    """Tera floating point operations of a sample's forward pass, and of its gradients; attention is counted."""
    latent = torch.randn(1, *size.code, device=device)
    noise = torch.randn(1, *size.condition_latent, device=device)
    timestep = torch.full((1,), 500, device=device)
    with (
        FlopCounterMode(display=False) as counter,
        torch.autocast(device.type, torch.bfloat16),
        torch.set_grad_enabled(backward),
    ):
        output = denoiser(latent, timestep, random_condition(size, 1, device), noise)
        if backward:
            output.float().square().mean().backward()
    denoiser.zero_grad(set_to_none=True)
    return float(counter.get_total_flops()) / TERA


def matmul_rate(device: torch.device) -> float:
    """TFLOP/s of large bf16 matrix products: what this machine can do at this moment."""
    side, repeats = (8192, 20) if device.type == "cuda" else (256, 3)
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    b = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    return 2 * side**3 / TERA / timed(lambda _: a @ b, repeats, device, warm_up=5)


def timed(run: Callable[[int], Tensor | object], repeats: int, device: torch.device, warm_up: int = 0) -> float:
    """Mean seconds of a call, over `repeats` in a row after `warm_up` others."""
    for i in range(warm_up):
        run(i)
    synchronise(device)
    began = time.perf_counter()
    for i in range(warm_up, warm_up + repeats):
        run(i)
    synchronise(device)
    return (time.perf_counter() - began) / repeats


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_mib(device: torch.device) -> int | None:
    """Most memory that was in use since `guarded` began."""
    return round(torch.cuda.max_memory_allocated(device) / MIB) if device.type == "cuda" else None


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds; only the main thread can be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s; raise --seconds")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def guarded(
    name: str, run: Callable[[], dict[str, Any]], device: torch.device, until: float = float("inf")
) -> dict[str, Any]:  # fmt: skip
    """A measurement by name, or what stopped it: out of memory here must not lose the figures before and after.

    It is stopped at `until` (`time.perf_counter`), and does not begin after that.
    """
    _clean(device)
    began = time.perf_counter()
    try:
        if began >= until:
            raise TimeoutError("no time left; raise --seconds")
        with _at_most(min(until - began, 3600.0)):
            row = {"name": name, **run()}
    except Exception as error:
        row = {
            "name": name,
            "error": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}",
        }
    row["wall_s"] = round(time.perf_counter() - began, 1)
    log.info("%s", row)
    _clean(device)
    return row


def _clean(device: torch.device) -> None:
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


@dataclass(frozen=True)
class Variant:
    """One way of doing it, written like `b16+cudnn+micro8`: objects at once, and what is on."""

    name: str
    batch: int
    on: frozenset[str]
    micro: int | None

    @classmethod
    def parse(cls, name: str, known: Sequence[str]) -> "Variant":
        """Raises ValueError where a word is not known."""
        words = name.split("+")
        micro = [int(word.removeprefix("micro")) for word in words if word.startswith("micro")]
        rest = [word for word in words[1:] if not word.startswith("micro")]
        unknown = [word for word in rest if word not in known]
        if unknown or not words[0].startswith("b"):
            raise ValueError(f"{name}: say b<objects>, then +micro<objects> or any of {', +'.join(known)}")
        return cls(name, int(words[0][1:]), frozenset(rest), micro[0] if micro else None)

    @property
    def attention(self) -> str:
        """Kernels it names."""
        return next((name for name in ("cudnn", "flash") if name in self.on), "auto")
