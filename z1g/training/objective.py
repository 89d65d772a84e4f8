"""What the training loop trains."""

from __future__ import annotations

from accelerate import Accelerator
from torch import Tensor, nn

from z1g.training.data import Batch


class Objective(nn.Module):
    """A trained module. `forward(batch)` returns `loss` and named terms, all scalars, so that DDP hooks every step."""

    replayable = False
    """Whether its passes run the same operations for every batch and never synchronize with the host."""

    adaptable = False
    """Whether adapters of the networks could be trained in place of all weights, see `unet.finetune`."""

    def prepare(self, batch: Batch) -> Batch:
        """Prepare a batch on the device for `forward`, without gradients."""
        return batch

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of one batch: {"loss": to be minimized, name: term for the log, ...}."""
        raise NotImplementedError

    def after_backward(self, accelerator: Accelerator) -> None:
        """Called once per step after the backward pass, for state that this module updates itself."""

    def discard(self) -> None:
        """Forget what passes have left for `after_backward`; called when they failed and are tried again."""

    def networks(self) -> list[nn.Module]:
        """The networks that `train.speed` applies to."""
        return []

    def idle(self) -> list[nn.Module]:
        """Networks of this module that neither passes nor validations run. They leave the GPU while it is trained."""
        return []

    def rate_factor(self, name: str) -> float:
        """Factor of the learning rate of a parameter, by its name in this module."""
        return 1.0

    def validate(self) -> dict[str, float]:
        """Figures on held-out views; called on the main process only, with the averaged weights if there are any.

        `keep: best` maximizes `validation_psnr`.
        """
        return {}

    def histograms(self) -> dict[str, Tensor]:
        """Values whose distribution is logged at each validation."""
        return {}

    def images(self) -> dict[str, Tensor]:
        """Images [3,H,W] in 0..1 for the log."""
        return {}
