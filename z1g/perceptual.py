"""Perceptual networks: loaded once a process, frozen, never in training mode."""

import contextlib
import io
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from z1g.errors import UserError

Net = Literal["alex", "vgg"]
SMALLEST = 64
"""Pictures below this side are enlarged: the networks' last layers would have nothing left to look at."""


class _Frozen(nn.Module):
    """A distance between pictures whose network no optimiser, checkpoint or `train()` can touch."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        # In a tuple the network is no submodule of whoever owns this.
        self._network = (network.requires_grad_(False).eval(),)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distance [B] of pictures [B,3,H,W] in 0..1."""
        network = self._network[0].to(first.device)
        with torch.autocast(first.device.type, enabled=False):
            distance: Tensor = network(2 * first.float() - 1, 2 * second.float() - 1)
        return distance.flatten()


@lru_cache(maxsize=4)
def st_lpips(net: Net) -> _Frozen:
    """Shift-tolerant LPIPS (Ghildyal & Liu, ECCV 2022) with the weights of its package."""
    # The package prints while it loads. Its dropout layers stay: without them its weights find no place, in silence.
    with contextlib.redirect_stdout(io.StringIO()):
        from stlpips_pytorch import stlpips

        network = stlpips.LPIPS(net=net, variant="shift_tolerant", verbose=False)
    return _Frozen(network)


@lru_cache(maxsize=4)
def lpips(trunk: str | None) -> _Frozen:
    """LPIPS-VGG (Zhang et al., CVPR 2018). `trunk`: torchvision's VGG16 state dict. Raises UserError without it."""
    if trunk is None or not Path(trunk).is_file():
        raise UserError(
            f"LPIPS needs the VGG16 trunk, and {trunk or 'no file'} is given: set `trunk` to torchvision's vgg16-397923af.pth, "
            "or use st_lpips, whose weights are installed"
        )
    import lpips as package

    with contextlib.redirect_stdout(io.StringIO()):
        network = package.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    state = torch.load(trunk, map_location="cpu", weights_only=True)
    features = {name.removeprefix("features."): v for name, v in state.items() if name.startswith("features.")}
    wanted = network.net.state_dict()
    renamed = {name: features.get(name.split(".", 1)[1]) for name in wanted}
    if any(value is None or value.shape != wanted[name].shape for name, value in renamed.items()):
        raise UserError(f"{trunk} is not torchvision's VGG16: its features do not have the expected names and shapes")
    network.net.load_state_dict(renamed)
    return _Frozen(network)


def resized(pictures: Tensor, resolution: int) -> Tensor:
    """Pictures [B,3,H,W] at a side of `resolution`, at least 64."""
    side = max(resolution, SMALLEST)
    if pictures.shape[-1] == side and pictures.shape[-2] == side:
        return pictures
    return functional.interpolate(pictures, (side, side), mode="bilinear", antialias=True, align_corners=False)
