"""Frozen perceptual networks, loaded once per process, always in evaluation mode."""

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from z1g.core.errors import UserError
from z1g.networks.fused import available

Net = Literal["alex", "vgg"]
UNIT = 1e-10
"""Added to the length of features by both packages before the division."""
SMALLEST = 64
"""Least side in pixels; smaller images are enlarged, because the last layers would have no pixels."""


class Frozen(nn.Module):
    """A distance between images whose network is hidden from optimizers, checkpoints and `train()`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # In a tuple the network is not registered as a submodule.
        self._network = (network.requires_grad_(False).eval(),)

    @property
    def network(self) -> nn.Module:
        """The network that computes the distance."""
        return self._network[0]

    def forward(self, prediction: Tensor, truth: Tensor, half: bool = False, dropout: bool = False) -> Tensor:
        """Distance [B] of images [B,3,H,W] in 0..1, in float32; gradients reach the prediction only.

        half: run convolutions in bfloat16 and compare features in float32. dropout: enable dropout layers.
        """
        network = self.network.to(prediction.device)
        if half and not dropout and available(prediction.device):
            from z1g.networks.fused.lpips import distance as fused

            return fused(network, 2 * prediction.float() - 1, 2 * truth.detach().float() - 1)
        mixed = torch.autocast(prediction.device.type, dtype=torch.bfloat16, enabled=half)
        with mixed, _dropout_enabled(network) if dropout else nullcontext():
            distance: Tensor = network(2 * prediction.float() - 1, 2 * truth.detach().float() - 1)
        return distance.flatten()

    def features(self, images: Tensor) -> list[Tensor]:
        """Features of images [B,3,H,W] in 0..1 after each slice of the trunk, of unit length at each pixel, float32."""
        network: Any = self.network.to(images.device)
        maps = network.net(network.scaling_layer(2 * images.float() - 1))
        return [x / (x.square().sum(dim=1, keepdim=True).sqrt() + UNIT) for x in maps]

    def between(self, prediction: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
        """The distance [B] of `forward`, from `features` of both images."""
        heads: Any = self.network
        slices = zip(heads.lins, prediction, truth, strict=True)
        parts = [head((own - true) ** 2).mean(dim=(2, 3)) for head, own, true in slices]
        return torch.stack(parts).sum(dim=0).flatten()


@lru_cache(maxsize=4)
def st_lpips(net: Net) -> Frozen:
    """Shift-tolerant LPIPS (Ghildyal & Liu, ECCV 2022) with the weights of its package."""
    with _silenced():
        from stlpips_pytorch import stlpips

        # Its dropout layers are kept, because the names of its weights depend on them.
        network = stlpips.LPIPS(net=net, variant="shift_tolerant", pretrained=False, verbose=False)
    file = Path(stlpips.__file__).parent / "weights" / "vST0.0" / f"{net}_shift_tolerant.pth"
    _load_complete(network, torch.load(file, map_location="cpu", weights_only=True))
    return Frozen(network)


@lru_cache(maxsize=4)
def lpips(trunk: str | None) -> Frozen:
    """LPIPS-VGG (Zhang et al., CVPR 2018), version 0.1 of its linear heads.

    trunk: path of torchvision's VGG16 state dict. Raises UserError if it is missing or another file.
    """
    if trunk is None or not Path(trunk).is_file():
        raise UserError(
            f"LPIPS needs the VGG16 trunk, but got {trunk or 'no file'}: set `trunk` to torchvision's "
            "vgg16-397923af.pth, or use st_lpips, whose weights are included"
        )
    features = _vgg16_features(trunk)
    with _silenced():
        import lpips as package

        network = package.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
    expected = network.net.state_dict()
    renamed = {name: features[name.split(".", 1)[1]] for name in expected if name.split(".", 1)[1] in features}
    if any(name not in renamed or renamed[name].shape != value.shape for name, value in expected.items()):
        raise UserError(f"{trunk} is not torchvision's VGG16: its features do not have the expected names and shapes")
    heads = Path(package.__file__).parent / "weights" / "v0.1" / "vgg.pth"
    state = torch.load(heads, map_location="cpu", weights_only=True)
    scaling = {f"scaling_layer.{name}": value for name, value in network.scaling_layer.state_dict().items()}
    _load_complete(network, {**state, **scaling, **{f"net.{name}": value for name, value in renamed.items()}})
    return Frozen(network)


@lru_cache(maxsize=1)
def untrained_lpips() -> Frozen:
    """LPIPS-VGG with random weights, for benchmarks without the trunk's file."""
    with _silenced():
        import lpips as package

        return Frozen(package.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False))


def resized(images: Tensor, resolution: int, antialias: bool = True) -> Tensor:
    """Resize images [B,3,H,W] to squares with a side of `resolution`, at least 64, by bilinear interpolation."""
    size = (max(resolution, SMALLEST), max(resolution, SMALLEST))
    if antialias or tuple(images.shape[-2:]) == size:
        return _interpolated(images, size)
    return functional.interpolate(images, size, mode="bilinear", align_corners=False)


def enlarged(images: Tensor) -> Tensor:
    """Images [B,3,H,W], enlarged in proportion to a shorter side of 64 if it is below 64."""
    height, width = images.shape[-2:]
    factor = max(1.0, SMALLEST / min(height, width))
    return _interpolated(images, (round(factor * height), round(factor * width)))


def _interpolated(images: Tensor, size: tuple[int, int]) -> Tensor:
    old = tuple(images.shape[-2:])
    if old == size:
        return images
    if old == (2 * size[0], 2 * size[1]) and images.dtype == torch.float32 and available(images.device):
        from z1g.networks.fused.features import halved

        return halved(images)
    # On a GPU two matrix products take a fraction of the time of torch's antialiased interpolation.
    with torch.autocast(images.device.type, enabled=False):
        rows, columns = (
            _weights(old, new, images.device).to(images.dtype) for old, new in zip(images.shape[-2:], size, strict=True)
        )
        return rows @ images @ columns.T


@lru_cache(maxsize=16)
def _weights(old: int, new: int, device: torch.device) -> Tensor:
    """Weights [new,old] of old pixels in new ones along one axis: the triangle filter of torch's antialiasing."""
    step = old / new
    centers = (torch.arange(new, dtype=torch.float64)[:, None] + 0.5) * step
    positions = torch.arange(old, dtype=torch.float64) + 0.5
    shares = (1 - (positions - centers).abs() / max(step, 1.0)).clamp(min=0)
    return (shares / shares.sum(dim=1, keepdim=True)).float().to(device)


@contextlib.contextmanager
def _dropout_enabled(network: nn.Module) -> Iterator[None]:
    """Enable dropout layers during the block."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Dropout)]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Suppress prints and warnings of a package, and restore the global generator's state after the block.

    Networks load on first use, which is another step in a resumed run than in an uninterrupted one.
    """
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield


def _load_complete(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Load all weights of a network; a layer with initial weights would give wrong distances without an error."""
    result = network.load_state_dict(state, strict=False)
    # The packages register their heads twice: lins.0 is lin0.
    absent = [name for name in result.missing_keys if not name.startswith("lins.")]
    if absent or result.unexpected_keys:
        raise RuntimeError(f"weights and network differ: {[*absent, *result.unexpected_keys]}")


def _vgg16_features(trunk: str) -> dict[str, Tensor]:
    """Tensors of the convolutional part by torchvision's names. Raises UserError if the file cannot be loaded."""
    try:
        state = torch.load(trunk, map_location="cpu", weights_only=True)
    # Files of other formats can raise nearly any exception.
    except Exception as error:
        raise UserError(
            f"{trunk} is not torchvision's VGG16: it cannot be loaded as plain weights ({type(error).__name__})"
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"{trunk} is not torchvision's VGG16: it contains a {type(state).__name__}, not a state dict")
    prefix = "features."
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if isinstance(name, str) and name.startswith(prefix) and isinstance(value, Tensor)
    }
