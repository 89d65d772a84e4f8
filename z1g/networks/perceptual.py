"""Perceptual networks: loaded once a process, frozen, never in training mode."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.networks.fused import available

Net = Literal["alex", "vgg"]
SMALLEST = 64
"""Images below this side are enlarged: the networks' last layers would have nothing left to look at."""


class Frozen(nn.Module):
    """A distance between images whose network no optimizer, checkpoint or `train()` can touch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # In a tuple the network is no submodule of whoever owns this.
        self._network = (network.requires_grad_(False).eval(),)

    @property
    def network(self) -> nn.Module:
        """What compares."""
        return self._network[0]

    def forward(self, prediction: Tensor, truth: Tensor, half: bool = False, dropout: bool = False) -> Tensor:
        """Distance [B] of images [B,3,H,W] in 0..1, in float32; gradients reach the prediction only.

        half: convolutions in bfloat16; what compares their features stays in float32. dropout: its layers act.
        """
        network = self.network.to(prediction.device)
        if half and not dropout and available(prediction.device):
            from z1g.networks.fused.lpips import distance as fused

            return fused(network, 2 * prediction.float() - 1, 2 * truth.detach().float() - 1)
        mixed = torch.autocast(prediction.device.type, dtype=torch.bfloat16, enabled=half)
        with mixed, _dropping(network) if dropout else nullcontext():
            distance: Tensor = network(2 * prediction.float() - 1, 2 * truth.detach().float() - 1)
        return distance.flatten()


@lru_cache(maxsize=4)
def st_lpips(net: Net) -> Frozen:
    """Shift-tolerant LPIPS (Ghildyal & Liu, ECCV 2022) with the weights of its package."""
    with _unnoticed():
        from stlpips_pytorch import stlpips

        # Its dropout layers stay: without them its weights find no place.
        network = stlpips.LPIPS(net=net, variant="shift_tolerant", pretrained=False, verbose=False)
    file = Path(stlpips.__file__).parent / "weights" / "vST0.0" / f"{net}_shift_tolerant.pth"
    _fill(network, torch.load(file, map_location="cpu", weights_only=True))
    return Frozen(network)


@lru_cache(maxsize=4)
def lpips(trunk: str | None) -> Frozen:
    """LPIPS-VGG (Zhang et al., CVPR 2018), version 0.1 of its linear heads.

    trunk: path of torchvision's VGG16 state dict. Raises UserError where it is missing or something else.
    """
    if trunk is None or not Path(trunk).is_file():
        raise UserError(
            f"LPIPS needs the VGG16 trunk, and {trunk or 'no file'} is given: set `trunk` to torchvision's "
            "vgg16-397923af.pth, or use st_lpips, whose weights are installed"
        )
    features = _vgg16_features(trunk)
    with _unnoticed():
        import lpips as package

        network = package.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    wanted = network.net.state_dict()
    renamed = {name: features[name.split(".", 1)[1]] for name in wanted if name.split(".", 1)[1] in features}
    if any(name not in renamed or renamed[name].shape != value.shape for name, value in wanted.items()):
        raise UserError(f"{trunk} is not torchvision's VGG16: its features do not have the expected names and shapes")
    heads = Path(package.__file__).parent / "weights" / "v0.1" / "vgg.pth"
    state = torch.load(heads, map_location="cpu", weights_only=True)
    scaling = {f"scaling_layer.{name}": value for name, value in network.scaling_layer.state_dict().items()}
    _fill(network, {**state, **scaling, **{f"net.{name}": value for name, value in renamed.items()}})
    return Frozen(network)


@lru_cache(maxsize=1)
def untrained_lpips() -> Frozen:
    """LPIPS-VGG with random weights: for measurements of speed where the trunk's file is missing."""
    with _unnoticed():
        import lpips as package

        return Frozen(package.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False))


def resized(images: Tensor, resolution: int) -> Tensor:
    """Images [B,3,H,W] at a side of `resolution`, at least 64."""
    return _at(images, (max(resolution, SMALLEST), max(resolution, SMALLEST)))


def enlarged(images: Tensor) -> Tensor:
    """Images [B,3,H,W] as they are, or in proportion at a shorter side of 64 where that is below 64."""
    height, width = images.shape[-2:]
    factor = max(1.0, SMALLEST / min(height, width))
    return _at(images, (round(factor * height), round(factor * width)))


def _at(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    # Two products of matrices take a GPU a fraction of the time that torch's kernels of antialiasing do.
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (
            _weights(old, new, images.device).to(images.dtype) for old, new in zip(images.shape[-2:], size, strict=True)
        )
        return rows @ images @ columns.T


@lru_cache(maxsize=16)
def _weights(old: int, new: int, device: torch.device) -> Tensor:
    """Share [new,old] of each old pixel of a row in each new one: a triangle as wide as torch's antialiasing has it."""
    step = old / new
    centers = (torch.arange(new, dtype=torch.float64)[:, None] + 0.5) * step
    places = torch.arange(old, dtype=torch.float64) + 0.5
    shares = (1 - (places - centers).abs() / max(step, 1.0)).clamp(min=0)
    return (shares / shares.sum(dim=1, keepdim=True)).float().to(device)


@contextlib.contextmanager
def _dropping(network: nn.Module) -> Iterator[None]:
    """Dropout layers act while the block runs."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Dropout)]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


@contextlib.contextmanager
def _unnoticed() -> Iterator[None]:
    """Build a package's network without its prints and warnings, and without a draw from the global generator.

    Networks load at the first use, which in a resumed run is another step than in one never killed.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


def _fill(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a network every one of its weights; a layer left as it was drawn would falsify distances in silence."""
    result = network.load_state_dict(state, strict=False)
    # The packages list their heads twice: lins.0 is lin0.
    absent = [name for name in result.missing_keys if not name.startswith("lins.")]
    if absent or result.unexpected_keys:
        raise RuntimeError(f"weights and network differ: {[*absent, *result.unexpected_keys]}")


def _vgg16_features(trunk: str) -> dict[str, Tensor]:
    """Tensors of the convolutional part by torchvision's names. Raises UserError where the file does not load."""
    try:
        state = torch.load(trunk, map_location="cpu", weights_only=True)
    # Depending on what its bytes pretend to be, a foreign file raises nearly anything.
    except Exception as error:
        raise UserError(
            f"{trunk} is not torchvision's VGG16: it does not load as plain weights ({type(error).__name__})"
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{trunk} is not torchvision's VGG16: it holds a {type(state).__name__}, not a state dict")
    prefix = "features."
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(prefix) and isinstance(value, Tensor)
    }
